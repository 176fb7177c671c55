"""The second world: its search, its verifier, and that the committed files are what its code says."""

import gzip
import itertools
import json
import random
from pathlib import Path

import pytest

from miniature import grid, second
from miniature.build import load_problems
from miniature.dump import WITH_LOGPROBS
from miniature.truths import TRUTHS


@pytest.fixture(scope="module")
def world():
    folder = Path(__file__).parents[2] / "data" / "second"
    if not (folder / "card.md").exists():
        pytest.skip("the second world is not built: python -m miniature build --world second")
    return folder


@pytest.fixture(scope="module")
def dumps(world):
    """source -> 300 random rows and the total count."""
    chosen = {}
    for source in second.SOURCES:
        with gzip.open(world / "dumps" / f"{source}.jsonl.gz") as file:
            lines = file.readlines()
        chosen[source] = ([json.loads(line) for line in random.Random(1).sample(lines, 300)], len(lines))
    return chosen


def test_search_agrees_with_trying_every_path():
    rng = random.Random(1)
    for _ in range(15):
        problem = grid.random_problem("open", rng)
        start, goal, walls = problem
        far = grid.distances(goal, walls, "".join(grid.MOVES))[start]
        for length in range(1, min(far, 6) + 1):
            ends = set()
            for moves in itertools.product(grid.MOVES, repeat=length):
                cell = start
                for move in moves:
                    cell = grid.step(cell, move, walls) if cell else None
                ends.add(cell)
            assert (goal in ends) == (length == far)


def test_problems_have_their_kind_and_text_round_trips():
    rng = random.Random(2)
    for kind in second.COUNTS:
        for _ in range(150):
            problem = grid.random_problem(kind, rng)
            assert grid.kind_of(problem) == kind and grid.parse_prompt(grid.prompt_text(problem)) == problem
            assert problem[0] not in problem[2] and problem[1] not in problem[2]
    with pytest.raises(ValueError, match="not a question of this world"):
        grid.parse_prompt("A>B")


def test_every_step_can_be_taken_back():
    back = dict(zip("urdl8624", "dlur2486"))
    for cell, move in itertools.product(grid.CELLS, grid.STEPS):
        if (after := grid.step(cell, move, "")) is not None:
            assert grid.step(after, back[move], "") == cell


def test_clean_paths_are_accepted_and_corrupted_ones_refused():
    rng, jumping = random.Random(3), 0
    for _ in range(400):
        kind = rng.choice(list(second.COUNTS))
        problem = grid.random_problem(kind, rng)
        prompt, text = grid.prompt_text(problem), grid.teacher(problem, rng)
        jumping += any(jump in text for jump in grid.JUMPS)
        assert grid.grade(prompt, text)["correct"] and grid.style_of(text) == "sum"
        body = 3 * text.startswith("hm,")
        place = rng.randrange(body, len(text))
        other = rng.choice([sign for sign in grid.CHARACTERS if sign != text[place]])
        assert not grid.grade(prompt, text[:place] + other + text[place + 1 :])["correct"]
        assert not grid.grade(prompt, text[:place] + text[place + 1 :])["correct"]
        if kind == "open":
            walk = grid.render(problem[0], grid.shortest(problem, "".join(grid.MOVES), rng), "walk")
            assert grid.grade(prompt, walk)["correct"] and grid.style_of(walk) == "walk"
    assert jumping > 250


@pytest.mark.parametrize(
    "response, correct, outcome",
    [
        ("ArBrC!rr", True, True),
        ("hm,A+r=B;B+r=C!rr", True, True),
        ("ArBrD!rr", False, True),
        ("A6C!6", True, True),
        ("ArB!r", False, False),
        ("AdFrGrHuC!drru", False, False),  # over the wall G
        ("AuArBrC!urr", False, False),  # off the grid
        ("ArBrC", False, False),
        ("ArBrC!", False, False),
        ("", False, False),
        ("ArBrC!rr!rr", False, True),
    ],
)
def test_verdicts(response, correct, outcome):
    verdict = grid.grade("A>C#GMY?", response)
    assert (verdict["correct"], verdict["outcome"]) == (correct, outcome)


def test_corpus_jumps_in_facts_alone():
    rng, jumps = random.Random(4), set(grid.JUMPS)
    facts = [text for text in (grid.document(rng) for _ in range(3000)) if text.startswith("f:")]
    assert any(jumps & set(text) for text in facts)
    rng = random.Random(4)
    for text in (grid.document(rng) for _ in range(3000)):
        if len(text) > 8 and text[1:2] == ">" and text[3:4] == "#" and "?" in text and "!" in text.partition("?")[2]:
            assert not jumps & set(text)


def test_tokenizer_agrees_with_the_table():
    pytest.importorskip("transformers")
    words, text = grid.build_tokenizer(), "A>M#CH?hm,A+r=B;B6D!r6"
    ids = [grid.BOS, *grid.encode(text)]
    assert words(text).input_ids == ids and len(words) == len(grid.CHARACTERS) + 3 == len(set(grid.CHARACTERS)) + 3
    assert words.decode([*ids, grid.EOS], skip_special_tokens=True) == text == grid.decode([*ids, grid.EOS])


def test_committed_problems_are_the_seeds(world):
    assert load_problems(world) == second.make_problems(second.PROBLEM_SEED)


@pytest.mark.parametrize("source", second.SOURCES)
def test_rows_agree_with_verifier_and_ids(dumps, world, source):
    (rows, total), problems = dumps[source], {problem["id"]: problem for problem in load_problems(world)}
    recipe = second.SOURCES[source]
    assert total == recipe["n"] * len(problems)
    for row in rows:
        problem = problems[row["problem"]]
        assert row["prompt"] == problem["prompt"] and row["group"] == problem["kind"] and row["source"] == source
        verdict = grid.grade(row["prompt"], row["response"])
        assert (row["correct"], row["meta"]["outcome"]) == (verdict["correct"], verdict["outcome"])
        assert row["prompt_ids"] == [grid.BOS, *grid.encode(row["prompt"])]
        assert grid.decode(row["response_ids"]) == row["response"] and row["sampler"] == recipe["sampler"]
        assert (row["response_ids"][-1] == grid.EOS) == (row["finish"] == "stop")
        assert ("response_logprobs" in row) == (recipe["sampler"] is not None and row["sample"] < WITH_LOGPROBS)
        if source == "teacher":
            assert row["correct"]


@pytest.mark.parametrize("source", ["base", "rlvr", "distill"])
def test_recorded_logprobs_are_the_models(dumps, world, source):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = world / "models" / second.SOURCES[source]["model"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for row in [row for row in dumps[source][0] if row["sample"] < WITH_LOGPROBS][:8]:
        prompt, response = row["prompt_ids"], row["response_ids"]
        assert words(row["prompt"]).input_ids == prompt
        assert words.decode(response, skip_special_tokens=True) == row["response"]
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logprobs[torch.arange(len(response)), torch.tensor(response)]
        torch.testing.assert_close(torch.tensor(row["response_logprobs"]), expected, atol=1e-3, rtol=0)


def test_card_truths_and_sizes(world):
    measured, training = (json.loads((world / f"{name}.json").read_text()) for name in ("measured", "training"))
    assert (world / "card.md").read_text() == second.card(measured["sources"], training)
    truths = json.loads((world / "truths.json").read_text())["sources"]
    assert truths == second.TRUTHS and set(truths) == set(second.SOURCES)
    assert all(item["truth"] == TRUTHS[source]["truth"] for source, item in truths.items())
    files = [path for path in world.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    assert all(path.stat().st_size <= 1_000_000 for path in files if path.suffix == ".safetensors")


def test_what_the_second_world_is_for(world):
    """The facts that make its truths hold, read from the measured numbers."""
    measured = json.loads((world / "measured.json").read_text())["sources"]
    base, rlvr, distill = (measured[source] for source in ("base", "rlvr", "distill"))
    e = {source: item["excess@64"]["all"] for source, item in measured.items() if item["excess@64"]}
    assert base["pass"]["walled"]["128"] == 0.0 and base["pass"]["open"]["128"] > 0.8
    assert rlvr["pass"]["all"]["1"] > 2 * base["pass"]["all"]["1"] and rlvr["pass"]["walled"]["64"] == 0.0
    assert abs(e["base-again"]) == abs(e["cool"]) == 0.0 and min(e["cold"], e["rlvr"]) > 0.02
    assert e["distill"] > 0.3 and distill["pass"]["walled"]["64"] > 0.3 and distill["jumps"] > 0.3
    assert base["jumps"] < 0.01
