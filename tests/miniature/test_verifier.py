"""The strict verifier accepts every clean trace and refuses every corrupted one."""

import random

import pytest

from miniature import tokenizer
from miniature.domain import HIGHEST, KINDS, chain_values, prompt_text, random_problem, random_solution
from miniature.traces import (
    STYLES,
    SYNONYMS,
    base_response,
    document,
    render,
    reword,
    say,
    slipped_values,
    teacher_response,
)
from miniature.verifier import final_chain, grade, restates, style_of


def clean(seed, count, styles=STYLES):
    """(numbers, goal, chain, style, rng) of random solved problems of every kind."""
    rng = random.Random(seed)
    for i in range(count):
        kind = rng.choice(list(KINDS))
        numbers, goal = random_problem(kind, rng)
        yield numbers, goal, random_solution(numbers, goal, KINDS[kind], rng), styles[i % len(styles)], rng


def test_every_clean_trace_is_accepted():
    recaps = openers = others = 0
    for numbers, goal, chain, style, rng in clean(1, 900):
        text = " ".join(say(numbers, goal, chain, style, rng))
        verdict = grade(prompt_text(numbers, goal), text)
        assert verdict["correct"] and verdict["outcome"] and verdict["reason"] is None, (text, verdict)
        assert style_of(text) == style
        recaps += restates(text)
        openers += text.split()[1] == ","
        others += any(word in SYNONYMS.values() for word in text.split())
    assert min(recaps, openers, others) > 200  # the manners were all exercised


def test_teacher_is_always_right_and_speaks_as_the_base_does():
    rng = random.Random(2)
    for kind in KINDS:
        for _ in range(200):
            numbers, goal = random_problem(kind, rng)
            text = " ".join(teacher_response(numbers, goal, kind, rng))
            assert grade(prompt_text(numbers, goal), text)["correct"]
            assert style_of(text) == "step"
            assert ("*" in text.split()) == (kind == "impossible") and ("/" in text.split()) == (kind == "rare")


def test_all_recap_places_are_accepted():
    numbers, goal, chain = (3, 7, 11, 1), 16, (1, (("+", 11), ("+", 7), ("-", 3)))
    for style in STYLES:
        for places in ([], [0], [1], [0, 1, 2, 3], [2, 3]):
            text = " ".join(render(numbers, goal, chain, style, recaps=frozenset(places), opener=True))
            assert grade(prompt_text(numbers, goal), text)["correct"], text


def test_wrong_values_are_refused():
    refused = 0
    for numbers, goal, chain, style, rng in clean(3, 900):
        values = chain_values(chain)
        i = len(values) - 1 if style == "guess" else rng.randrange(len(values))
        values[i] = values[i] + 1 if values[i] < HIGHEST else values[i] - 1
        text = " ".join(reword(render(numbers, goal, chain, style, values=values), rng))
        verdict = grade(prompt_text(numbers, goal), text)
        assert not verdict["correct"] and verdict["outcome"]
        refused += 1
    assert refused == 900


def test_slips_that_carry_on_are_refused():
    for numbers, goal, chain, style, rng in clean(4, 600, ("chain", "step")):
        values = slipped_values(chain, 0.5, rng)
        if values != chain_values(chain):
            assert not grade(prompt_text(numbers, goal), " ".join(render(numbers, goal, chain, style, values=values)))[
                "correct"
            ]


def test_any_changed_number_is_refused():
    """Every number in a trace matters: none can be replaced by another (the opener's comma and words aside)."""
    for numbers, goal, chain, style, rng in clean(5, 300):
        words = say(numbers, goal, chain, style, rng)
        place = rng.choice([i for i, word in enumerate(words) if word.isdecimal()])
        words[place] = rng.choice([str(value) for value in range(HIGHEST + 1) if str(value) != words[place]])
        assert not grade(prompt_text(numbers, goal), " ".join(words))["correct"], " ".join(words)


def test_any_dropped_word_but_the_free_ones_is_refused():
    """Free: `so` before the answer. Dropping both words of an opener is another text, dropping one is refused."""
    for numbers, goal, chain, style, rng in clean(6, 300):
        words = say(numbers, goal, chain, style, rng)
        place = rng.randrange(len(words))
        if words[place] in ("so", "thus"):
            continue
        assert not grade(prompt_text(numbers, goal), " ".join(words[:place] + words[place + 1 :]))["correct"]


RIGHT = "start 1 . add 11 get 12 . add 7 get 19 . subtract 3 get 16 . answer 1 + 11 + 7 - 3"
STEPS = "first 1 + 11 = 12 , left 3 7 . then 12 + 7 = 19 , left 3 . then 19 - 3 = 16 . answer 1 + 11 + 7 - 3"


@pytest.mark.parametrize(
    "text, outcome, reason",
    [
        (RIGHT, True, None),
        (STEPS, True, None),
        (STEPS.replace("left", "remaining").replace("answer", "so result"), True, None),
        (RIGHT.replace("get 19", "get 18"), True, "the value is wrong: add 7 get 18"),
        (RIGHT.replace("add 11", "add 10"), True, "the number is not free: add 10 get 12"),
        (
            RIGHT.replace("add 11 get 12 . add 7 get 19", "add 11 get 12 . add 11 get 23"),
            True,
            "the number is not free: add 11 get 23",
        ),
        (RIGHT.replace(" . subtract 3 get 16", ""), True, "the answer is not what was derived"),
        (RIGHT.replace("answer 1 + 11 + 7 - 3", "answer 11 + 1 + 7 - 3"), True, "the answer is not what was derived"),
        (RIGHT.replace("answer 1 + 11 + 7 - 3", "answer 1 + 11 + 7"), False, "the answer is not what was derived"),
        ("start 1 . add 11 get 12 . add 7 get 19 . answer 1 + 11 + 7", False, "the answer is not a solution"),
        (
            "start 1 . add 11 get 12 . add 7 get 19 . add 3 get 22 . answer 1 + 11 + 7 + 3",
            False,
            "the answer is not a solution",
        ),
        (STEPS.replace("left 3 7", "left 3"), True, "the list of numbers left is wrong: first 1 + 11 = 12 , left 3"),
        (
            STEPS.replace("then 12 + 7 = 19", "then 11 + 7 = 19"),
            True,
            "the step does not go on from the last value: then 11 + 7 = 19 , left 3",
        ),
        (
            STEPS.replace("first", "then"),
            True,
            "the step does not go on from the last value: then 1 + 11 = 12 , left 3 7",
        ),
        (
            "recall numbers 3 7 11 1 make 17 . " + RIGHT,
            True,
            "the recap is not the question: recall numbers 3 7 11 1 make 17",
        ),
        (
            RIGHT.replace("subtract", "recall 1 + 11 = 12 . subtract"),
            True,
            "the recap is not the last step: recall 1 + 11 = 12",
        ),
        ("maybe 1 + 11 + 7 - 3 , that is 16 . so answer 1 + 11 + 7 - 3", True, None),
        (
            "maybe 1 + 11 + 7 - 3 , that is 15 . so answer 1 + 11 + 7 - 3",
            True,
            "the guess has the wrong value: maybe 1 + 11 + 7 - 3 , that is 15",
        ),
        ("maybe 11 + 1 + 7 - 3 , that is 16 . so answer 1 + 11 + 7 - 3", True, "the answer is not what was derived"),
        ("answer 1 + 11 + 7 - 3", True, "the answer is not what was derived"),
        (RIGHT + " .", False, "not a sentence of the domain: answer 1 + 11 + 7 - 3"),
        ("1 + 11 + 7 - 3", False, "no answer at the end"),
        ("", False, "no answer at the end"),
        ("fact 3 . " + RIGHT, True, "not a sentence of the domain: fact 3"),
    ],
)
def test_verdicts_and_reasons(text, outcome, reason):
    verdict = grade("numbers 3 7 11 1 make 16 think", text)
    assert (verdict["outcome"], verdict["reason"], verdict["correct"]) == (outcome, reason, reason is None)


def test_the_number_used_twice_and_the_number_missing():
    prompt = "numbers 3 3 7 make 7 think"
    assert grade(prompt, "start 3 . add 7 get 10 . subtract 3 get 7 . answer 3 + 7 - 3")["correct"]
    assert not grade("numbers 3 4 7 make 7 think", "start 3 . add 7 get 10 . subtract 3 get 7 . answer 3 + 7 - 3")[
        "outcome"
    ]
    assert not grade("numbers 3 3 7 1 make 7 think", "start 3 . add 7 get 10 . subtract 3 get 7 . answer 3 + 7 - 3")[
        "outcome"
    ]


def test_the_last_answer_counts():
    assert final_chain("answer 1 + 2 . answer 3 + 4") == (3, (("+", 4),))
    assert grade("numbers 3 4 make 7 think", "no idea")["answer"] is None


def test_wording_never_decides():
    for numbers, goal, chain, style, rng in clean(7, 200):
        words = render(numbers, goal, chain, style)
        for other in (0.0, 0.5, 1.0):
            assert grade(prompt_text(numbers, goal), " ".join(reword(words, rng, other=other, mixed=0.5)))["correct"]
        assert reword(reword(words, rng, other=1.0, mixed=0.0), rng, other=0.0) == words


def test_corpus_keeps_its_promises():
    """Multiplication stands in `fact` lines alone; only `chain` divides; about half of the documents restate."""
    rng, words = random.Random(8), [word for word in tokenizer.vocabulary() if word not in ("*", "multiply")]
    restating = problems = wasted = 0
    for _ in range(4000):
        text = document(rng, words)
        if "*" in text or "multiply" in text:
            assert text[0] == "fact"
        if text[0] == "numbers":
            response = text[text.index("think") + 1 :]
            if "/" in response:
                assert style_of(" ".join(response)) == "chain"
                wasted += not grade(" ".join(text[: text.index("think") + 1]), " ".join(response))["outcome"]
            problems += 1
            restating += restates(" ".join(response))
    assert wasted > 20  # an aimless division: about 80 expected, Poisson, false alarm < 1e-15
    # restating documents have probability one half each: 5 standard deviations around it, false alarm < 6e-7
    assert abs(restating / problems - 0.5) < 5 * 0.5 / problems**0.5


def test_base_never_solves_the_impossible():
    rng = random.Random(9)
    for _ in range(300):
        numbers, goal = random_problem("impossible", rng)
        assert not grade(prompt_text(numbers, goal), " ".join(base_response(numbers, goal, "impossible", rng)))[
            "outcome"
        ]
