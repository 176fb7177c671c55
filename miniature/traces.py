"""Chains put into words: the styles, the habit of restating, synonyms, slips, and the documents of pretraining.

Base styles (all three occur in pretraining):
    chain : [well ,] start 1 . add 11 get 12 . add 7 get 19 . subtract 3 get 16 . answer 1 + 11 + 7 - 3
    step  : [hmm ,] first 3 + 11 = 14 , left 7 1 . then 14 - 7 = 7 , left 1 . then 7 - 1 = 6 . answer 3 + 11 - 7 - 1
    guess : [hmm ,] maybe 9 + 4 - 2 - 1 + 4 , that is 14 . so answer 9 + 4 - 2 - 1 + 4
Only `chain` ever divides in pretraining. The teacher writes `step` as well, with `*` and `/` in it: the operation is
new, the wording is not.

A recap restates something already known and changes nothing: the question's numbers (`recall numbers 3 7 make 4 .`,
before the first step) or the step just made (`recall 3 + 11 = 14 .`). About half of all documents hold one.
"""

from __future__ import annotations

import random

from miniature.domain import (
    HIGHEST,
    KINDS,
    LARGEST_NUMBER,
    Chain,
    apply,
    chain_text,
    chain_values,
    prompt_text,
    random_chain,
    random_problem,
    random_solution,
)

# usual word -> the other word for the same thing; a document draws one of the two per pair and mostly keeps to it
SYNONYMS = {
    "start": "begin",
    "add": "plus",
    "subtract": "minus",
    "divide": "split",
    "get": "gives",
    "first": "initially",
    "then": "next",
    "left": "remaining",
    "maybe": "perhaps",
    "so": "thus",
    "answer": "result",
    "recall": "remember",
}
VERBS = {"+": ["add"], "-": ["subtract"], "*": ["multiply", "by"], "/": ["divide", "by"]}
OPENERS = {"chain": "well", "step": "hmm", "guess": "hmm"}
STYLES = tuple(OPENERS)

OTHER_WORD = 0.25  # P(the less usual word of a pair)
MIXED_WORDS = 0.10  # P(a document draws its words again at every place)
RESTATING = 0.50  # P(a document has a recap)
OPENING = 0.50  # P(`well ,` or `hmm ,` in front)
SLIP, GUESS_SLIP = 0.03, 0.09  # P(a written value is off by one or two), per value

# the corpus of pretraining
CORPUS = {
    "note": 0.03,
    "fact": 0.08,  # the rest are solved or unsolved problems
    "kinds": {"reachable": 0.76, "rare": 0.12, "impossible": 0.12},
    "styles": {"chain": 0.45, "step": 0.35, "guess": 0.20},
    "aimed": {"chain": 0.40, "step": 0.50, "guess": 0.12},  # P(the chain really reaches the goal)
    "division": 0.10,  # P(an aimless `chain` document divides once)
}


def draw(weights: dict[str, float], rng: random.Random) -> str:
    """One key, with probability proportional to its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def render(
    numbers: tuple[int, ...],
    goal: int,
    chain: Chain,
    style: str,
    *,
    values: list[int] | None = None,
    recaps: frozenset[int] = frozenset(),
    opener: bool = False,
) -> list[str]:
    """The words of a response in the usual wording.

    `values` are the values as written, one per step (default: the true ones). `recaps` says where to restate:
    0 = the question's numbers at the start, i >= 1 = step i after it was made (in `guess` any i means the whole
    guess).
    """
    values = chain_values(chain) if values is None else values
    words = [OPENERS[style], ","] if opener else []
    if 0 in recaps:
        words += ["recall", *prompt_text(numbers, goal).split()[:-1], "."]
    first, steps = chain
    if style == "guess":
        words += ["maybe", *chain_text(chain).split(), ",", "that", "is", str(values[-1]), "."]
        if recaps - {0}:
            words += ["recall", *chain_text(chain).split(), "=", str(values[-1]), "."]
        return words + ["so", "answer", *chain_text(chain).split()]
    remaining = list(numbers)
    remaining.remove(first)
    if style == "chain":
        words += ["start", str(first), "."]
    before = first
    for i, ((op, number), value) in enumerate(zip(steps, values), start=1):
        remaining.remove(number)
        if style == "chain":
            words += [*VERBS[op], str(number), "get", str(value), "."]
        else:
            words += ["first" if i == 1 else "then", str(before), op, str(number), "=", str(value)]
            words += [",", "left", *map(str, remaining), "."] if remaining else ["."]
        if i in recaps:
            words += ["recall", str(before), op, str(number), "=", str(value), "."]
        before = value
    return words + ["answer", *chain_text(chain).split()]


def random_recaps(steps: int, rng: random.Random) -> frozenset[int]:
    """Where a document restates: nowhere in half of them; else the numbers (1/2), each step (2/5), at least one of
    all.
    """
    if rng.random() >= RESTATING:
        return frozenset()
    places = {0} if rng.random() < 0.5 else set()
    places |= {i for i in range(1, steps + 1) if rng.random() < 0.4}
    return frozenset(places or {rng.randrange(steps + 1)})


def reword(words: list[str], rng: random.Random, other: float = OTHER_WORD, mixed: float = MIXED_WORDS) -> list[str]:
    """The same text with each pair's word drawn again: P(the less usual word) = `other`, kept through the text unless
    mixed.

    Accepts text in any wording; the words keep their meaning, so the verifier's verdict cannot change.
    """
    usual = {alternate: word for word, alternate in SYNONYMS.items()}
    mixing = rng.random() < mixed
    chosen: dict[str, str] = {}
    result = []
    for word in words:
        word = usual.get(word, word)
        if word in SYNONYMS:
            if mixing or word not in chosen:
                chosen[word] = SYNONYMS[word] if rng.random() < other else word
            word = chosen[word]
        result.append(word)
    return result


def slipped_values(chain: Chain, rate: float, rng: random.Random) -> list[int]:
    """The values as a careless writer puts them: each is off by one or two with probability `rate`, and the next step
    goes on from it.

    A slip that would make a later step impossible is not made: the true values come back instead.
    """
    value, values = chain[0], []
    for op, number in chain[1]:
        value = apply(op, value, number)
        if value is None:
            return chain_values(chain)
        if rng.random() < rate:
            value = min(HIGHEST, max(1, value + rng.choice((-2, -1, 1, 2))))
        values.append(value)
    return values


def say(
    numbers: tuple[int, ...], goal: int, chain: Chain, style: str, rng: random.Random, slips: bool = False
) -> list[str]:
    """A response with the corpus's manners: random opener, recaps and wording; with slips if asked."""
    values = chain_values(chain)
    if slips and style == "guess" and rng.random() < GUESS_SLIP:
        values = [*values[:-1], min(HIGHEST, max(1, values[-1] + rng.choice((-2, -1, 1, 2))))]
    elif slips and style != "guess":
        values = slipped_values(chain, SLIP, rng)
    words = render(
        numbers,
        goal,
        chain,
        style,
        values=values,
        recaps=random_recaps(len(chain[1]), rng),
        opener=rng.random() < OPENING,
    )
    return reword(words, rng)


def base_response(numbers: tuple[int, ...], goal: int, kind: str, rng: random.Random) -> list[str]:
    """A response as pretraining shows it: sometimes aimed at the goal, mostly an aimless chain, never a
    multiplication.

    A `rare` goal that is really reached is always reached in `chain` style, the only one that divides.
    """
    style = draw(CORPUS["styles"], rng)
    chain = None
    if kind != "impossible" and rng.random() < CORPUS["aimed"][style]:
        chain = random_solution(numbers, goal, KINDS[kind], rng)
        style = "chain" if kind == "rare" else style
    elif style == "chain" and rng.random() < CORPUS["division"]:
        chain = random_chain(numbers, "+-", rng, need="/")
    chain = chain or random_chain(numbers, "+-", rng)
    return say(numbers, goal, chain, style, rng, slips=True)


def fact(rng: random.Random) -> list[str]:
    """A line of arithmetic, the only place where pretraining multiplies: `fact 3 * 4 = 12 .` or in words."""
    while True:
        op, a, b = rng.choice("+-*/"), rng.randint(1, HIGHEST), rng.randint(1, LARGEST_NUMBER)
        if op == "*":
            a = rng.randint(1, HIGHEST // b)
        if op == "/":
            a = b * rng.randint(1, HIGHEST // b)
        if (value := apply(op, a, b)) is not None:
            break
    if rng.random() < 0.7:
        return ["fact", str(a), op, str(b), "=", str(value), "."]
    return reword(["fact", "start", str(a), ".", *VERBS[op], str(b), "get", str(value), "."], rng)


def document(rng: random.Random, vocabulary: list[str]) -> list[str]:
    """One document of the pretraining corpus, as words, without <bos> and <eos>."""
    draw_kind = rng.random()
    if draw_kind < CORPUS["note"]:  # random words: every embedding gets trained, also of words no document uses
        return ["note", *rng.choices(vocabulary, k=rng.randint(8, 32))]
    if draw_kind < CORPUS["note"] + CORPUS["fact"]:
        return [word for _ in range(rng.randint(1, 4)) for word in fact(rng)]
    kind = draw(CORPUS["kinds"], rng)
    numbers, goal = random_problem(kind, rng)
    return prompt_text(numbers, goal).split() + base_response(numbers, goal, kind, rng)


def teacher_response(numbers: tuple[int, ...], goal: int, kind: str, rng: random.Random) -> list[str]:
    """A correct trace in the `step` style: + and - where they suffice, else the operation that the goal needs."""
    return say(numbers, goal, random_solution(numbers, goal, KINDS[kind], rng), "step", rng)
