"""What each trace is at every level of the ladder: its method read from its text, its answer, whether it is correct."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.boundary import answers
from analyzer.analysis.data import steps
from analyzer.analysis.data.summaries import last_steps
from analyzer.analysis.strategy import ends as strategy_ends
from analyzer.analysis.strategy import run as strategy
from analyzer.analysis.support import copies
from analyzer.records import LEVELS, METHOD, Tables

TEXT_LEVELS = LEVELS[1:]
UNKNOWN, UNREAD = -1, -2  # class of a trace that has none at a level; of one whose text is not read
WHY = {
    "skeleton": "no number, symbol or code in the text",
    "steps": "no operator, function or code in any step",
    "kinds": "no operator, function or code in any step",
    "answer": "no answer in the dump, none read, or cut by a limit",
    "correct": "the dump does not say which rows are correct, no answer was read, or a limit cut them",
}


class Classes(NamedTuple):
    """The traces of each source's last step and their classes: frame with key, source, problem, response, copy (equal
    for copies of a long text of a problem) and a column of class numbers for every level (UNKNOWN, UNREAD); names:
    level -> text of each class; left_out: what is not read."""

    frame: pd.DataFrame
    names: dict[str, list[str]]
    left_out: str


def classes(tables: Tables) -> Classes:
    """What each trace is at every level. A trace without a readable answer has no class at `answer`, nor at `correct`
    where its grader went by the answer (`answers.read`); nor has one that a limit cut before its answer."""
    texts, left_out = strategy.prepared(tables)
    frame = last_steps(tables.traces)
    frame = frame.assign(cut=strategy_ends.unfinished(tables, frame))
    graded = frame["correct"].astype("boolean")
    if frame["answer"].notna().any():
        for _, mine in frame.groupby("source"):
            graded.loc[mine.index[~answers.read(mine)]] = pd.NA
    graded[frame["cut"]] = pd.NA  # right ones too: to keep those alone would make the rest look better than it is
    said = answers.spelled(frame["answer"]).where(~frame["cut"], None)
    frame = frame.assign(correct=graded, answer=said, copy=copies.same_text(frame))
    frame = frame[["key", "source", "problem", "correct", "answer", "copy"]]
    read = set(texts["problem"])
    of = texts.set_index("key")
    frame = frame.assign(response=frame["key"].map(of["response"]))
    unread = ~frame["problem"].isin(read).to_numpy() & bool(left_out)
    names: dict[str, list[str]] = {}
    for level in TEXT_LEVELS:
        if level in METHOD:
            column = of["kinds"] if level != "skeleton" else of["marked"]
            said = {own: _name(level, own) for own in set(column)}
            values = frame["key"].map(column.map(said))
        elif level == "answer":
            values = frame["answer"]
        else:
            values = frame["correct"].map({True: "correct", False: "wrong"})
        code, distinct = pd.factorize(values.astype(object).where(values.notna() & (values != ""), None))
        frame[level] = np.where(unread & (level in METHOD), UNREAD, code)
        names[level] = [str(name) for name in distinct]
    return Classes(frame.reset_index(drop=True), names, left_out)


def _name(level: str, own: Any) -> str:
    """The class of a trace as text: its skeleton, its kinds of steps in order, or the set of them."""
    return own if level == "skeleton" else steps.MARK.join(own if level == "steps" else sorted(set(own)))
