"""The committed miniature is what its code says: rows, ids, verdicts, kinds, sizes."""

import gzip
import json
import math
import random

import pytest

from analyzer.records import LEVELS, WORDS
from miniature import tokenizer
from miniature.build import COUNTS, SEEDS, SOURCES, load_problems, make_problems
from miniature.domain import KINDS, kind_of, parse_prompt
from miniature.dump import WITH_LOGPROBS, read_dump, teacher_rows, write_dump
from miniature.measure import pass_at_k, pass_curve
from miniature.rewrites import NATIVE
from miniature.truths import TRUTHS
from miniature.verifier import grade

KEYS = ["source", "problem", "sample", "prompt", "response", "prompt_ids", "response_ids"]
SAMPLED = [source for source, recipe in SOURCES.items() if recipe["sampler"]]


@pytest.fixture(scope="module")
def dumps(miniature):
    """source -> 400 random rows and the total count; a seeded choice, the whole file is read once."""
    chosen = {}
    for source in SOURCES:
        with gzip.open(miniature / "dumps" / f"{source}.jsonl.gz") as file:
            lines = file.readlines()
        chosen[source] = ([json.loads(line) for line in random.Random(1).sample(lines, 400)], len(lines))
    return chosen


def test_problems_are_the_seeds(miniature):
    problems = load_problems(miniature)
    assert problems == make_problems(SEEDS["problems"])
    for problem in problems:
        assert kind_of(tuple(problem["numbers"]), problem["goal"]) == problem["kind"]
        assert parse_prompt(problem["prompt"]) == (tuple(problem["numbers"]), problem["goal"])
        assert problem["solutions"][KINDS[problem["kind"]]] > 0
    assert {kind: sum(problem["kind"] == kind for problem in problems) for kind in KINDS} == COUNTS


@pytest.mark.parametrize("source", SOURCES)
def test_rows_agree_with_verifier_ids_and_sampler(dumps, miniature, source):
    rows, total = dumps[source]
    problems, words = {problem["id"]: problem for problem in load_problems(miniature)}, tokenizer.vocabulary()
    assert total == SOURCES[source]["n"] * len(problems)
    for row in rows:
        problem = problems[row["problem"]]
        logprobs = (
            ["response_logprobs", "logprobs_temperature"]
            if SOURCES[source]["sampler"] and row["sample"] < WITH_LOGPROBS
            else []
        )
        assert list(row) == [*KEYS, *logprobs, "sampler", "finish", "correct", "answer", "group", "meta"]
        assert (
            row["source"] == source
            and row["prompt"] == problem["prompt"]
            and row["group"] == row["meta"]["kind"] == problem["kind"]
        )
        verdict = grade(row["prompt"], row["response"])
        assert (row["correct"], row["meta"]["outcome"], row["answer"]) == (
            verdict["correct"],
            verdict["outcome"],
            verdict["answer"],
        )
        assert row["prompt_ids"] == [tokenizer.BOS, *tokenizer.encode(row["prompt"].split())]
        assert " ".join(words[i - 3] for i in row["response_ids"] if i > tokenizer.EOS) == row["response"]
        assert (row["response_ids"][-1] == tokenizer.EOS) == (row["finish"] == "stop")
        assert row["sampler"] == SOURCES[source]["sampler"]
        if logprobs:
            assert len(row["response_logprobs"]) == len(row["response_ids"]) and max(row["response_logprobs"]) <= 0
            assert row["logprobs_temperature"] == 1.0
        if source == "teacher":
            assert row["correct"]


def test_teacher_dump_is_the_solvers(dumps, miniature, tmp_path):
    recipe = SOURCES["teacher"]
    write_dump(
        tmp_path / "teacher.jsonl.gz", teacher_rows("teacher", load_problems(miniature), recipe["n"], recipe["seed"])
    )
    with (
        gzip.open(miniature / "dumps" / "teacher.jsonl.gz") as committed,
        gzip.open(tmp_path / "teacher.jsonl.gz") as made,
    ):
        assert committed.read() == made.read()


def test_equal_rows_give_equal_files(tmp_path):
    for name in ("a", "b"):
        write_dump(tmp_path / f"{name}.jsonl.gz", [{"x": 1}, {"y": [2, 3]}])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert read_dump(tmp_path / "a.jsonl.gz") == [{"x": 1}, {"y": [2, 3]}]


def test_base_solves_nothing_impossible(dumps):
    for source in ("base", "base-again", "cool", "cold", "best-of-16", "restyle-known", "restyle-foreign"):
        assert not any("*" in row["response"].split() and row["correct"] for row in dumps[source][0])


def test_sizes(miniature):
    files = [path for path in miniature.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25_000_000
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) >= 3 and all(path.stat().st_size <= 2_000_000 for path in weights)


@pytest.mark.parametrize("source", SAMPLED)
def test_recorded_logprobs_are_the_models(dumps, miniature, source):
    """And the saved tokenizer gives the rows' ids: 8 rows through transformers itself."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = miniature / "models" / SOURCES[source]["model"]
    model, words = (
        transformers.AutoModelForCausalLM.from_pretrained(folder).eval(),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    for row in [row for row in dumps[source][0] if row["sample"] < WITH_LOGPROBS][:8]:
        prompt, response = row["prompt_ids"], row["response_ids"]
        assert (
            words(row["prompt"]).input_ids == prompt
            and words.decode(response, skip_special_tokens=True) == row["response"]
        )
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logprobs[torch.arange(len(response)), torch.tensor(response)]
        torch.testing.assert_close(torch.tensor(row["response_logprobs"]), expected, atol=1e-3, rtol=0)


def test_measured_numbers_follow_from_the_dumps(miniature):
    measured = json.loads((miniature / "measured.json").read_text())["sources"]
    assert set(measured) == set(SOURCES)
    for source in ("cool", "teacher"):
        curves = pass_curve(read_dump(miniature / "dumps" / f"{source}.jsonl.gz"))
        assert {kind: {str(k): value for k, value in curve.items()} for kind, curve in curves.items()} == measured[
            source
        ]["pass"]


def test_the_card_says_what_the_files_say(miniature):
    pytest.importorskip("torch")
    from miniature.card import card

    measured, training = (json.loads((miniature / f"{name}.json").read_text()) for name in ("measured", "training"))
    text = card(measured["sources"], training, load_problems(miniature), SOURCES, SEEDS)
    assert (miniature / "card.md").read_text() == text


def test_what_the_miniature_is_for(miniature):
    """The facts that the rest of the package leans on, read from the measured numbers."""
    measured = json.loads((miniature / "measured.json").read_text())["sources"]
    base, rlvr, distill = (measured[source] for source in ("base", "rlvr", "distill"))
    assert base["pass"]["reachable"]["256"] > 0.95 and base["pass"]["impossible"]["256"] == 0.0
    assert rlvr["pass"]["all"]["1"] > 0.3 > 2 * base["pass"]["all"]["1"]
    assert rlvr["pass"]["all"]["256"] < base["pass"]["all"]["256"] and rlvr["coverage"]["all"]["source_only"] == 0
    assert distill["coverage"]["impossible"]["source_only"] > 0 and distill["excess@64"]["all"] > 0.2


def test_what_the_made_sources_are_for(miniature):
    """The facts that make their truths hold, read from the measured numbers."""
    measured = json.loads((miniature / "measured.json").read_text())["sources"]
    base, rlvr, padded = (measured[source] for source in ("base", "rlvr", "padded"))
    e = {source: item["excess@64"]["all"] for source, item in measured.items() if item["excess@64"]}
    assert set(e) == {source for source, recipe in SOURCES.items() if recipe["sampler"]}
    assert e["cool"] == 0.0 < 0.1 < e["cold"] and 0.1 < e["rlvr-early"] < e["rlvr"]
    assert e["rlvr-unfaithful"] > 0.8 and e["distill-plan"] > 0.9
    unfaithful = measured["rlvr-unfaithful"]
    assert unfaithful["outcome"]["1"] > 5 * unfaithful["pass"]["all"]["1"]
    assert unfaithful["coverage"]["impossible"]["source_only"] == 0
    median = {source: item["under_base"]["ppl"]["0.5"] for source, item in measured.items()}
    assert median["padded"] < median["rlvr"] and padded["habits"]["restating"] > 0.99 > rlvr["habits"]["restating"]
    assert abs(padded["pass"]["all"]["1"] - rlvr["pass"]["all"]["1"]) < 0.05
    assert abs(median["restyle-known"] - median["base"]) < 0.03 and median["restyle-foreign"] > 10 * median["base"]
    assert measured["best-of-16"]["pass"]["all"]["1"] > 4 * base["pass"]["all"]["1"]


def test_every_source_has_its_truth(miniature):
    truths = json.loads((miniature / "truths.json").read_text())
    assert truths == {"schema": 1, "budget": 64, "sources": TRUTHS} and set(TRUTHS) == set(SOURCES)
    words = set(WORDS)
    for source, item in TRUTHS.items():
        assert list(item["truth"]) == list(LEVELS) and item["made_by"]
        assert all(allowed and set(allowed) <= words for allowed in item["truth"].values())
        if SOURCES[source]["sampler"] is None:  # without log q nothing is found inside or sharpened
            assert {"undetermined", "outside"} & set(item["truth"]["sequence"])


def test_foreign_words_stand_in_no_solution_but_the_restyled(dumps):
    foreign = set(NATIVE)
    for source in ("base", "base-again", "rlvr", "restyle-known", "padded", "best-of-16"):
        strange = sum(bool(foreign & set(row["response"].split())) for row in dumps[source][0])
        assert strange <= 4  # 400 rows; the base slips a random word into fewer than 1 in 500
    assert all(row["response"].split()[0] in foreign for row in dumps["restyle-foreign"][0] if row["correct"])


def test_pass_at_k_is_the_share_of_subsets_with_a_hit():
    from itertools import combinations

    for n in (1, 4, 7):
        for correct in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations(range(n), k))
                assert pass_at_k(n, correct, k) == pytest.approx(sum(min(s) < correct for s in subsets) / len(subsets))
    assert math.isnan(pass_at_k(5, 0, 10))
