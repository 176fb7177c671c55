"""Where the method of a trace ends: at its first final answer, else where the trace ends by itself.

A base goes on after its answer and a limit on tokens cuts traces in the middle: neither is a method. What follows the
answer is never read (`steps.skeleton_of_steps`), that a trace ends is no step, and traces that a limit cut before an
answer was read are counted without being held by any group.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyzer.analysis.data import features, steps
from analyzer.records import Tables


def ends(finish: pd.Series, response: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which traces a limit cut (finish "length") before an answer was read, bool [N], and characters to the end of that
    answer, or of all the text, float [N]."""
    limited = (finish == "length").fillna(False).to_numpy(dtype=bool)
    length = response.str.len().to_numpy(dtype=float)
    if not limited.any():
        return limited, length
    read = [steps.answered(text) for text in response]
    length = np.array([n if end is None else end for n, end in zip(length, read, strict=True)])
    return limited & np.array([end is None for end in read], dtype=bool), length


def unfinished(tables: Tables, traces: pd.DataFrame) -> np.ndarray:
    """`ends` of traces whose texts are not at hand, bool [N]: a base that goes on after its answer is cut as well. Of
    more text than `features.affordable` the rest counts as cut where a limit ended it, and so does what has no text."""
    if "finish" not in traces:
        return np.zeros(len(traces), bool)
    limited = traces[(traces["finish"] == "length").fillna(False).to_numpy(dtype=bool)]
    known = tables.memo.setdefault("unfinished", {})  # variations ask again
    new = limited[[key not in known for key in limited["key"]]]
    if len(new):
        texts = tables.text_of(features.affordable(new)[0]["key"])
        known |= {key: steps.answered(texts.get(key) or "") is None for key in new["key"]}
    return np.array([known.get(key, False) for key in traces["key"]], dtype=bool) & traces.index.isin(limited.index)


def whole(cut_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """Which traces a group may hold, bool [N]: those not cut and, where any is, not longer than the shortest of them.

    What is counted then is "in the group and done within so many characters". That is known of every trace of both
    sides, whatever limit each had; leaving cut traces out instead would favour short methods on the side that is cut.
    """
    return ~cut_N & (length_N <= length_N[cut_N].min(initial=np.inf))


def notes(traces: pd.DataFrame) -> list[str]:
    """What a reader must know of traces that a limit cut; traces: with source, cut and length."""
    found = traces[traces["cut"]].groupby("source", sort=False)["length"].agg(["size", "min"])
    return [
        f"{count:,.0f} traces of {source} were cut before an answer was read. No group of the method holds them, nor, "
        f"on either side of a comparison with {source}, one longer than the shortest of them ({least:,.0f} characters)."
        for source, count, least in zip(found.index, found["size"], found["min"], strict=True)
    ]
