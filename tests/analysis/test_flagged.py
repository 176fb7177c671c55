"""What carries the novelty of flagged traces: exact division of log e, kinds of token, windows."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.analysis.support import flagged

NAMES = {0: "7", 1: "*", 2: "so", 3: "", 4: "+"}


def row(source: str, sample: int, tokens: list[int], d: list[float], problem: str = "p0") -> dict:
    """A trace whose token i carries d[i] nats of log e."""
    texts = [NAMES[t] for t in tokens]
    offsets = np.cumsum([0] + [len(t) + 1 for t in texts[:-1]])
    columns = {
        "token": np.array(tokens),
        "logprob": -2 * np.array(d) - 1.0,
        "renyi_half": np.ones(len(d)),
        "entropy": np.ones(len(d)),
        "varentropy": np.ones(len(d)),
        "offset": np.minimum(offsets, len(" ".join(texts).rstrip())),
    }
    return {
        "source": source,
        "problem": problem,
        "sample": sample,
        "response": " ".join(texts).rstrip(),
        "models": {"base": columns},
    }


def test_kinds():
    assert [flagged.kind(t) for t in (" 12", "*", "so", "", " ", "x1", "->", "été")] == [
        "number",
        "sign",
        "word",
        "special",
        "special",
        "number",
        "sign",
        "word",
    ]


def test_the_excess_divides_exactly(make_tables):
    rows = [row("base", i, [0, 4, 0, 2, 3], [-0.1, -0.2, 0.0, -0.3, -0.1]) for i in range(4)]
    rows += [row("new", i, [0, 1, 0, 2, 3], [0.1, 6.0, 0.3, -0.3, -0.1]) for i in range(3)]
    rows += [row("new", 9, [0, 1], [5.0, 5.0], problem="alone")]  # no reference there: not compared
    made = make_tables(rows)
    keys = [f"new/p0/{i}" for i in range(3)] + ["new/alone/9"]
    tokens, windows = flagged.tables_of(made, {"new": keys}, [f"base/p0/{i}" for i in range(4)])
    kinds = tokens[tokens["by"] == "kind"].set_index("kind")
    # mean log e of a flagged trace minus that of a reference trace: 6.0 - (-.7)
    assert kinds["excess"].sum() == pytest.approx(6.7) and kinds["share"].sum() == pytest.approx(1)
    assert kinds.loc["sign", "excess"] == pytest.approx(6.2) and kinds.loc["number", "excess"] == pytest.approx(0.5)
    assert kinds.loc["word", "excess"] == pytest.approx(0) and (kinds["traces"] == 3).all()
    assert kinds["share_reference"].to_dict() == pytest.approx(
        {"sign": 0.2, "number": 0.4, "word": 0.2, "special": 0.2}
    )
    top = tokens[tokens["by"] == "token"].iloc[0]
    assert (top["text"], top["n"], top["n_reference"]) == ("*", 3, 0) and top["excess"] == pytest.approx(6.0)
    carrier, said = flagged.carried(tokens, "new")
    assert carrier == "sign" and said.startswith("signs 93% (20% of tokens), numbers 7%") and "most by '*' 90%" in said
    # every flagged trace once, new texts first
    assert windows["key"].tolist() == ["new/alone/9", "new/p0/0", "new/p0/1", "new/p0/2"]
    assert windows["text"].tolist() == ["7 *"] + ["7 * 7 so"] * 3 and windows["position"].tolist() == [0] * 4
    assert windows["log_e"].tolist() == pytest.approx([10.0, 6.0, 6.0, 6.0])
    assert len(made.tokens.reads) == 1  # one pass


def test_a_window_is_the_eight_tokens_that_carry_most(make_tables):
    d = [0.0] * 20
    d[9] = d[16] = 3.0
    rows = [row("base", 0, [0] * 20, [0.0] * 20), row("new", 0, [0] * 20, d)]
    _, windows = flagged.tables_of(make_tables(rows), {"new": ["new/p0/0"]}, ["base/p0/0"])
    (found,) = windows.to_dict("records")
    assert (found["position"], found["log_e"], found["text"]) == (9, 6.0, "7 7 7 7 7 7 7 7")
    assert found["before"] == "7 " * 9


def test_a_flagged_trace_without_token_scores_is_listed_last(make_tables):
    rows = [row("base", 0, [0, 1], [0.0, 0.0]), row("new", 0, [0, 1], [np.nan, 1.0]), row("new", 1, [0, 1], [1.0, 1.0])]
    rows.append(row("old", 3, [0, 1], [0.5, 0.5]))
    flags = {"new": ["new/p0/0", "new/p0/1"], "old": ["old/p0/3"]}
    _, windows = flagged.tables_of(make_tables(rows), flags, ["base/p0/0"])
    assert windows["key"].tolist() == ["new/p0/1", "old/p0/3", "new/p0/0"]  # sources take turns
    assert windows["log_e"].isna().tolist() == [False, False, True] and windows["position"].isna().iloc[2]


def test_nothing_flagged_is_an_empty_table(make_tables):
    made = make_tables([row("base", 0, [0, 1], [0.0, 0.0])])
    tokens, windows = flagged.tables_of(made, {"new": []}, ["base/p0/0"])
    assert list(tokens.columns) == flagged.COLUMNS and list(windows.columns) == flagged.WINDOW_COLUMNS
    assert tokens.empty and windows.empty and flagged.carried(tokens, "new") == ("", "") and not made.tokens.reads
