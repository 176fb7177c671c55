"""The second world: paths on a 5 x 5 grid with walls, one character a token. Another domain, another tokenizer; used
to check thresholds that were set on the first world, never to set them.

The cells are A..Y, row by row. A question `A>M#CH?` gives start, goal and walls. Moves are u, r, d, l; jumps 8, 6, 2, 4
(up, right, down, left) go two cells far, over anything. Pretraining shows jumps in `f:` lines alone, never in a path.

    walk : [hm,] ArBdG!rd             cell, move, cell ...; after the `!` the moves alone, the answer
    sum  : [hm,] A+r=B;B+d=G!rd

An `open` goal is reached by moves, a `walled` one by jumps alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

SIDE, CELLS = 5, "ABCDEFGHIJKLMNOPQRSTUVWXY"
MOVES = {"u": (-1, 0), "r": (0, 1), "d": (1, 0), "l": (0, -1)}
JUMPS = {"8": (-2, 0), "6": (0, 2), "2": (2, 0), "4": (0, -2)}
STEPS = MOVES | JUMPS
NEAREST, FARTHEST = 3, 8  # steps between start and goal
SPECIAL = ("<pad>", "<bos>", "<eos>")
PAD, BOS, EOS = range(3)
CHARACTERS = CELLS + "".join(STEPS) + ">#?!+=;:,hmf"

CORPUS = {
    "fact": 0.10,
    "note": 0.01,
    "walled": 0.15,  # of the problems
    "sum": 0.5,  # P(style `sum`)
    "aimed": {"walk": 0.35, "sum": 0.60},  # P(the path leads to the goal), open problems
    "opening": 0.5,
    "slip": 0.01,  # P(a written cell is a wrong one), per step
}

Problem = tuple[str, str, str]  # start, goal, walls in order
Path = list[tuple[str, str]]  # (step, cell after it)


def step(cell: str, move: str, walls: str) -> str | None:
    """The cell after one step, or None when it leaves the grid or ends on a wall."""
    row, column = divmod(CELLS.index(cell), SIDE)
    row, column = row + STEPS[move][0], column + STEPS[move][1]
    if not (0 <= row < SIDE and 0 <= column < SIDE):
        return None
    after = CELLS[row * SIDE + column]
    return None if after in walls else after


def distances(goal: str, walls: str, steps: str) -> dict[str, int]:
    """cell -> fewest steps to the goal, where it can be reached; every step can be taken back."""
    found, ring = {goal: 0}, [goal]
    for cell in ring:
        for move in steps:
            if (after := step(cell, move, walls)) is not None and after not in found:
                found[after] = found[cell] + 1
                ring.append(after)
    return found


def kind_of(problem: Problem) -> str | None:
    """open, walled, or None when even jumps do not lead to the goal."""
    start, goal, walls = problem
    if start in distances(goal, walls, "".join(MOVES)):
        return "open"
    return "walled" if start in distances(goal, walls, "".join(STEPS)) else None


def random_problem(kind: str, rng: random.Random) -> Problem:
    """A problem of this kind; open ones are NEAREST to FARTHEST moves long, a walled goal has walls all round."""
    while True:
        goal, start = rng.sample(CELLS, 2)
        around = {cell for move in MOVES if (cell := step(goal, move, ""))} if kind == "walled" else set()
        free = [cell for cell in CELLS if cell not in around | {goal, start}]
        walls = "".join(sorted(around | set(rng.sample(free, rng.randint(1, 3) if around else rng.randint(2, 5)))))
        problem = start, goal, walls
        if start in around or kind_of(problem) != kind:
            continue
        if kind == "walled" or NEAREST <= distances(goal, walls, "".join(MOVES))[start] <= FARTHEST:
            return problem


def shortest(problem: Problem, steps: str, rng: random.Random) -> Path:
    """A random shortest path."""
    cell, goal, walls = problem
    far, path = distances(goal, walls, steps), []
    while cell != goal:
        nearer = [
            (move, after)
            for move in steps
            if (after := step(cell, move, walls)) is not None and far.get(after, 99) < far[cell]
        ]
        path.append(rng.choice(nearer))
        cell = path[-1][1]
    return path


def aimless(problem: Problem, rng: random.Random) -> Path:
    """Two to six permitted moves from the start, wherever they lead; fewer where the start is shut in."""
    cell, _, walls = problem
    path: Path = []
    for _ in range(rng.randint(2, 6)):
        choices = [(move, after) for move in MOVES if (after := step(cell, move, walls)) is not None]
        if not choices:
            break
        path.append(rng.choice(choices))
        cell = path[-1][1]
    return path


def prompt_text(problem: Problem) -> str:
    """The question."""
    return f"{problem[0]}>{problem[1]}#{problem[2]}?"


def parse_prompt(prompt: str) -> Problem:
    """The problem of a question written by `prompt_text`."""
    match = re.fullmatch(r"([A-Y])>([A-Y])#([A-Y]+)\?", prompt)
    if match is None:
        raise ValueError(f"not a question of this world: {prompt!r}")
    return match[1], match[2], match[3]


def render(start: str, path: Path, style: str, opener: bool = False) -> str:
    """A response."""
    cells = [start, *(cell for _, cell in path)]
    if style == "walk":
        body = start + "".join(move + cell for move, cell in path)
    else:
        body = ";".join(f"{before}+{move}={cell}" for before, (move, cell) in zip(cells, path))
    return ("hm," if opener else "") + body + "!" + "".join(move for move, _ in path)


def slipped(path: Path, rng: random.Random) -> Path:
    """The path with some cells written wrong; the moves stay."""
    return [(move, rng.choice(CELLS) if rng.random() < CORPUS["slip"] else cell) for move, cell in path]


def document(rng: random.Random) -> str:
    """One document of pretraining: a question with a response, or facts about single steps, or a note of characters."""
    chance = rng.random()
    if chance < CORPUS["note"]:
        return "".join(rng.choices(CHARACTERS, k=rng.randint(6, 20)))
    if chance < CORPUS["note"] + CORPUS["fact"]:
        return "f:" + ";".join(facts(rng, rng.randint(1, 5)))
    kind = "walled" if rng.random() < CORPUS["walled"] else "open"
    problem = random_problem(kind, rng)
    style = "sum" if rng.random() < CORPUS["sum"] else "walk"
    aimed = kind == "open" and rng.random() < CORPUS["aimed"][style]
    path = shortest(problem, "".join(MOVES), rng) if aimed else aimless(problem, rng)
    return prompt_text(problem) + render(problem[0], slipped(path, rng), style, rng.random() < CORPUS["opening"])


def facts(rng: random.Random, count: int) -> Iterator[str]:
    """`A+6=C`: single steps, jumps as often as moves."""
    while count:
        cell, move = rng.choice(CELLS), rng.choice("".join(STEPS))
        if (after := step(cell, move, "")) is not None:
            count -= 1
            yield f"{cell}+{move}={after}"


def teacher(problem: Problem, rng: random.Random) -> str:
    """A correct response in the base's `sum` style by a shortest path of moves and jumps."""
    return render(problem[0], shortest(problem, "".join(STEPS), rng), "sum", rng.random() < CORPUS["opening"])


def style_of(response: str) -> str | None:
    """walk or sum by the sign after the first cell."""
    body = response.removeprefix("hm,")
    if len(body) < 2:
        return None
    return "sum" if body[1] == "+" else "walk" if body[1] in STEPS else None


def grade(prompt: str, response: str) -> dict:
    """{"correct": every step is written right and is the answer's, "outcome": the answer alone leads to the goal,
    "answer": the moves after the last `!` or None}.
    """
    start, goal, walls = parse_prompt(prompt)
    body, mark, answer = response.removeprefix("hm,").rpartition("!")
    answer = answer if mark and answer and all(move in STEPS for move in answer) else None
    cell: str | None = start
    path: Path = []
    for move in answer or "":
        cell = step(cell, move, walls) if cell is not None else None
        path.append((move, cell or "?"))
    solved = answer is not None and cell == goal
    written = any(render(start, path, style) == f"{body}!{answer}" for style in ("walk", "sum"))
    return {"correct": solved and written, "outcome": solved, "answer": answer}


def encode(text: str) -> list[int]:
    """Token ids of a text, without <bos> and <eos>."""
    return [CHARACTERS.index(character) + len(SPECIAL) for character in text]


def decode(ids: list[int]) -> str:
    """The text of token ids, special tokens left out."""
    return "".join(CHARACTERS[i - len(SPECIAL)] for i in ids if i >= len(SPECIAL))


def build_tokenizer():
    """The PreTrainedTokenizerFast: one character, one token; <bos> in front."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate([*SPECIAL, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(words, unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=96,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
