"""Luck by permuted gold, as the table `luck` of boundary shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.boundary import answers

GOLD = {"a": "7", "b": "7", "c": "12", "d": "5"}


def traces(seed: int = 0, n: int = 40) -> pd.DataFrame:
    """Draws among few answers, so that one problem's draws often hit another's gold; no draw of d is right."""
    rng = np.random.default_rng(seed)
    rows = [(p, a) for p, gold in GOLD.items() for a in rng.choice(["7", "12", "5", None], n) if (p, a) != ("d", gold)]
    frame = pd.DataFrame(rows, columns=["problem", "answer"])
    right = pd.array([GOLD[p] == a for p, a in rows], dtype="boolean")
    return frame.assign(correct=right, source="base", sample=frame.groupby("problem").cumcount())


SPELT = [
    ("1/2", "0.5", ".50", r"\frac{1}{2}", r"\dfrac12", "$\\frac{2}{4}$", "½", r"\boxed{1/2}"),
    ("1200", "1,200", "$1,200.00", r"1{,}200", " 1200. ", r"\$1200", "1200.0"),
    ("-3", "−3", r"\(-3\)", "- 3"),
    ("B", "(B)", "b)", r"\text{B}", "**B**", "B."),
    ("Yes", "yes", "YES.", '"yes"'),
    (r"2\sqrt{3}", r"$2 \sqrt{3}$", r"2\,\sqrt{3}"),
    (r"12\text{ cm}", "12", r"12 \mathrm{cm}", "12%", r"12^\circ"),
]


@pytest.mark.parametrize("spellings", SPELT)
def test_an_answer_has_one_spelling(spellings):
    assert len({answers.spelling(text) for text in spellings}) == 1


WORDED = [
    "12 apples",
    "x = 12",
    "about $12 each",
    "$12.00 per hour",
    "The total is 12",
    "12 (dozen)",
    "**12** km/h",
    "12",
]


@pytest.mark.parametrize("text", WORDED)
def test_the_number_among_words_is_read(text):
    assert answers.amount(text) == "12" and answers.amount(text.replace("12", "-12").replace("$-", "-$")) == "-12"


@pytest.mark.parametrize(
    "text", ["2x", "x^2", "12 or 13", "not 12", "minus 12", "12:30", "B", "5 + 7", "f(x) = 12", "12 is less than 13"]
)
def test_what_is_more_than_a_number_and_words_is_none(text):
    assert answers.amount(text) == ""


def test_the_milder_of_two_graders_reads_words_around_a_number():
    def rows(answer, right):
        frame = {"problem": ["p"], "sample": [0], "answer": [answer], "correct": pd.array([right], dtype="boolean")}
        return pd.DataFrame(frame)

    for mine, right in (("12 apples", True), ("x = 12", True), ("13 apples", False), ("12 or 13", False)):
        found = answers.lenient(rows(mine, False), pd.concat([rows(mine, False), rows("12", True)]))
        assert found["correct"].tolist() == [right]


def test_other_answers_stay_apart():
    texts = [
        "1/2",
        "2",
        "-1/2",
        "1/20",
        "12",
        "1 2",
        "x",
        "(1, 2)",
        "1,2",
        "3:4",
        "1/0",
        "9" * 99,
        "A or B",
        "",
        "1e99999999",
    ]
    assert len({answers.spelling(text) for text in texts}) == len(texts)


def test_a_draw_that_a_limit_cut_is_wrong_for_nobody_knows_what():
    frame = traces().assign(finish="stop")
    cut = frame["sample"] % 3 == 0
    read = answers.read(frame.assign(finish=np.where(cut, "length", "stop")))
    right = frame["correct"].fillna(False).to_numpy(bool)
    assert (read == (answers.read(frame) & (right | ~cut))).all() and read.sum() < answers.read(frame).sum()
    bare = frame.assign(answer=None, finish=np.where(cut, "length", "stop"))
    assert (answers.read(bare) == (right | ~cut)).all()


def luck(frame: pd.DataFrame) -> pd.DataFrame:
    by = frame.groupby("problem")["correct"].agg(["size", "sum"]).set_axis(["n", "c"], axis=1).astype(int)
    return pd.DataFrame(answers.luck(frame, by, by, draws=50, seed=0)).set_index("k")


def test_permuted_luck_is_a_draw_scored_against_the_other_golds():
    frame = traces()
    gold = {p: g for p, g in GOLD.items() if p != "d"}  # nobody was right on d: its gold is not known
    g = [
        np.mean([(part["answer"] == gold[other]).mean() for other in gold if other != p])
        for p, part in frame.groupby("problem")
    ]
    table = luck(frame)
    assert (table["problems_permuted"] == 4).all()
    for k in (1, 4, 16):
        assert table.loc[k, "lucky_permuted"] == pytest.approx(np.mean(1 - (1 - np.array(g)) ** k))


def test_permuted_luck_is_unknown_without_answers_or_with_one_gold():
    frame = traces()
    for bare in (frame.assign(answer=None), frame[frame["problem"].isin(["a"])]):
        table = luck(bare)
        assert table["lucky_permuted"].isna().all() and (table["problems_permuted"] == 0).all()


def test_an_answer_that_is_right_nowhere_else_has_no_luck():
    frame = traces().assign(answer=lambda f: f["problem"] + f["answer"].fillna("-"))
    assert (luck(frame)["lucky_permuted"] == 0).all()
