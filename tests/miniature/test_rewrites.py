"""Rewording keeps the verdict and the skeleton, padding keeps the verdict; the plan wording is read strictly; the best
of several draws is one of them.
"""

import random

import pytest

from miniature import dump, tokenizer
from miniature.backward import failed_attempt, plan
from miniature.domain import HIGHEST, KINDS, chain_text, parse_chain, prompt_text, random_problem
from miniature.rewrites import FOREIGN, NATIVE, REWRITES, USUAL, pad, restyle_foreign, restyle_known
from miniature.traces import SYNONYMS, base_response
from miniature.verifier import grade, restates, style_of, usual_words

SIGNS = set("+-*/=")


def skeleton(words):
    """Numbers, operators and equals signs, in order."""
    return [word for word in words if word.isdecimal() or word in SIGNS]


def corpus(seed, count):
    """(prompt, words, rng) of pretraining's responses: right and wrong ones, with slips."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.choice(list(KINDS))
        numbers, goal = random_problem(kind, rng)
        yield prompt_text(numbers, goal), base_response(numbers, goal, kind, rng), rng


def noisy(words, rng):
    """The response with one word replaced by a random usual word: what a model may write."""
    places, known = list(words), [word for word in tokenizer.vocabulary() if word not in NATIVE]
    places[rng.randrange(len(places))] = rng.choice(known)
    return places


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_rewrite_keeps_the_verdict_and_the_style(rewrite):
    right = 0
    for prompt, words, rng in corpus(1, 800):
        before, after = " ".join(words), " ".join(REWRITES[rewrite](words, prompt, rng))
        assert grade(prompt, after) | {"reason": 0} == grade(prompt, before) | {"reason": 0}, (before, after)
        assert style_of(after) == style_of(before)
        tokenizer.encode(after.split())
        right += grade(prompt, before)["correct"]
    assert right > 80


@pytest.mark.parametrize("rewrite", ["known", "foreign"])
def test_rewording_keeps_the_skeleton(rewrite):
    for prompt, words, rng in corpus(2, 600):
        for text in (words, noisy(words, rng)):
            after = REWRITES[rewrite](text, prompt, rng)
            assert skeleton(after) == skeleton(text)


def test_restyle_known_uses_the_corpus_words_at_the_corpus_rates():
    others = places = opened = texts = 0
    for prompt, words, rng in corpus(3, 2000):
        after = restyle_known(words, prompt, rng)
        assert [USUAL.get(w, w) for w in after if w not in ("well", "hmm", ",")] == [
            USUAL.get(w, w) for w in words if w not in ("well", "hmm", ",")
        ]
        others += "result" in after
        places += 1
        opened += after[0] in ("well", "hmm")
        texts += 1
    # 2000 documents: 5 standard deviations, false alarm < 6e-7 each
    assert abs(others / places - 0.25) < 5 * (0.25 * 0.75 / places) ** 0.5
    assert abs(opened / texts - 0.5) < 5 * 0.5 / texts**0.5


def test_restyle_foreign_changes_words_in_place_and_can_be_undone():
    for prompt, words, rng in corpus(4, 400):
        after = restyle_foreign(words, prompt, rng)
        assert len(after) == len(words) and after[0] in NATIVE
        assert not {*FOREIGN} & set(after)
        usual = ["hmm" if word == "well" else word for word in usual_words(" ".join(words))]
        assert usual_words(" ".join(after)) == usual
    assert not {*NATIVE} & {*SYNONYMS, *SYNONYMS.values(), "add", "subtract", "by", "hmm", "well", "that", "is"}


def test_padding_restates_everything_once_and_adds_nothing_else():
    for prompt, words, rng in corpus(5, 600):
        after = pad(words, prompt, rng)
        rest = iter(after)
        assert all(word in rest for word in words)  # the response is still there, in order
        usual = usual_words(" ".join(after))
        steps = sum(word in ("add", "subtract", "divide", "first", "then", "maybe") for word in usual)
        assert usual.count("recall") == steps + 1  # each step, and the numbers
        assert pad(after, prompt, rng) == after
        assert restates(" ".join(after))


def plans(seed, count):
    """(prompt, words, rng) of the planning teacher's traces."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.choice(list(KINDS))
        numbers, goal = random_problem(kind, rng)
        yield prompt_text(numbers, goal), plan(numbers, goal, kind, rng), rng


def test_every_clean_plan_is_accepted():
    retried = 0
    for prompt, words, _ in plans(6, 800):
        verdict = grade(prompt, " ".join(words))
        assert verdict["correct"] and verdict["outcome"] and verdict["reason"] is None, " ".join(words)
        assert style_of(" ".join(words)) == "plan" and len(words) < 119
        retried += "retry" in words
    assert 150 < retried < 330  # 800 draws at nearly 0.3: mean 240, sd 13


def test_every_corrupted_plan_is_refused():
    for prompt, words, rng in plans(7, 500):
        place = rng.choice([i for i, word in enumerate(words) if word.isdecimal()])
        other = rng.choice([str(value) for value in range(HIGHEST + 1) if str(value) != words[place]])
        assert not grade(prompt, " ".join([*words[:place], other, *words[place + 1 :]]))["correct"]
        place = rng.randrange(len(words))
        assert not grade(prompt, " ".join(words[:place] + words[place + 1 :]))["correct"]
        sign = rng.choice([i for i, word in enumerate(words) if word in "+-*/"])
        changed = rng.choice([op for op in "+-*/" if op != words[sign]])
        if "retry" in words:  # `2 + 2 = 4 no` and `2 * 2 = 4 no` are both true
            continue
        assert not grade(prompt, " ".join([*words[:sign], changed, *words[sign + 1 :]]))["correct"]


PLAN = "plan need 16 . undo + 1 need 15 left 3 7 11 . undo - 3 need 18 left 7 11 . check 11 + 7 = 18 ok . "


@pytest.mark.parametrize(
    "text, reason",
    [
        (PLAN + "answer 11 + 7 - 3 + 1", None),
        (PLAN + "answer 7 + 11 - 3 + 1", "the answer is not what was derived"),
        (PLAN.replace("ok", "no") + "answer 11 + 7 - 3 + 1", "the check says the wrong thing: check 11 + 7 = 18 no"),
        (
            PLAN.replace("7 11 . undo", "7 12 . undo") + "answer 11 + 7 - 3 + 1",
            "the list of numbers left is wrong: undo + 1 need 15 left 3 7 12",
        ),
        (PLAN.replace("undo - 3", "undo - 1") + "answer 11 + 7 - 3 + 1", "the number is not free: undo - 1 need 18"),
        (PLAN.replace("need 16", "need 17") + "answer 11 + 7 - 3 + 1", "not the start of an attempt: plan need 17"),
        (PLAN + "retry need 16 . answer 11 + 7 - 3 + 1", "not the start of an attempt: retry need 16"),
        (PLAN.split(" check")[0] + " answer 11 + 7 - 3 + 1", "the answer is not what was derived"),
        (PLAN + "start 3 . answer 11 + 7 - 3 + 1", "a step outside an attempt: start 3"),
        (PLAN, "no answer at the end"),
    ],
)
def test_plan_reasons(text, reason):
    verdict = grade("numbers 3 7 11 1 make 16 think", text)
    assert (verdict["reason"] or "").startswith(reason or "") and verdict["correct"] == (reason is None)


def test_failed_attempts_fail():
    rng = random.Random(8)
    for _ in range(100):
        numbers, goal = random_problem("reachable", rng)
        words = failed_attempt(numbers, goal, "+-", rng)
        text = " ".join(["plan", "need", str(goal), ".", *words, "answer", chain_text(parse_chain(["1", "+", "1"]))])
        assert words[-2:] in (["no", "."], []) and not grade(prompt_text(numbers, goal), text)["correct"]


def test_the_best_of_several_is_a_right_one_if_any():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from miniature import sample

    problem = {"id": "p", "prompt": "numbers 3 4 make 7 think", "kind": "reachable"}
    good, bad = (
        [*tokenizer.encode(text.split()), tokenizer.EOS]
        for text in ("start 3 . add 4 get 7 . answer 3 + 4", "start 3 . add 4 get 8 . answer 3 + 4")
    )
    drawn = [(bad, None, "stop")] * 3 + [(good, None, "stop")] + [(bad, None, "stop")] * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "weights", lambda model: None)
        patch.setattr(sample, "sample", lambda w, prompts, generator, batch: drawn)
        rows = list(dump.best_rows("best", None, [problem], 2, 4, 1))
    assert [row["correct"] for row in rows] == [True, False] and torch is not None
    assert all(row["sampler"] is None and "response_logprobs" not in row for row in rows)
