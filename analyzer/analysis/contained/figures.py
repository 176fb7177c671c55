"""The drawing of `contained`: one group of bars per level, every source against the reference's own rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.analysis.drawing import above, look, nothing
from analyzer.records import LEVELS, Figure, Result

CLASSES = {
    "skeleton": "the same numbers, symbols and code in the same order",
    "steps": "the same kinds of steps in the same order",
    "kinds": "the same kinds of steps",
    "answer": "the same answer, right or wrong",
    "correct": "right traces where a draw is right, wrong ones where a draw is wrong: low where one side solves what "
    "the other does not; no measure of quality",
}
MOST = 0.95  # of a source's traces: where fewer have a class at a level, the caption says how many


def draw(result: Result, ax: Any) -> Any:
    """Bars of contained@k with intervals by problem; the line across a group is the reference's own rate."""
    table = result.tables["levels"]
    table = table[table["contained"].notna()]
    if len(table) == 0:
        return nothing(ax, "no level can be compared: no texts, answers or correctness on common problems")
    order = [s for s in result.params["order"] if s in set(table["source"])]
    levels = [level for level in LEVELS if level in set(table["level"])]
    reference, style = result.params["reference"], look(result.params["order"])
    shown = [s for s in order if s != reference] or order
    width = 0.8 / max(1, len(shown))
    for j, source in enumerate(shown):
        part = table[table["source"] == source].set_index("level")
        x = np.array([levels.index(level) for level in part.index]) - 0.4 + width * (j + 0.5)
        y, low, high = (part[name].to_numpy(float) for name in ("contained", "low", "high"))
        ax.bar(x, y, width * 0.9, color=style[source]["color"], label=source, linewidth=0)
        own = part["own"].to_numpy(float)  # of the reference on this source's problems
        label = f"{reference}, its own draws" if j == 0 else None
        ax.hlines(own, x - width * 0.5, x + width * 0.5, color="black", linewidth=1.2, label=label)
        known = np.isfinite(low)
        ends = np.clip([y - low, high - y], 0, None)[:, known]
        ax.errorbar(x[known], y[known], yerr=ends, fmt="none", ecolor="0.25", elinewidth=0.6)
    ks = sorted(set(table["k"].astype(int)))
    names = ["correct\n(right or wrong alike)" if level == "correct" else level for level in levels]
    ax.set_xticks(range(len(levels)), names)
    of = f"{ks[0]} draws" if len(ks) == 1 else "k draws"
    ax.set(ylim=(0, 1.02), ylabel=f"share of traces whose class is among {of}", xlabel="")
    above(ax)
    return ax


def caption(result: Result) -> str:
    table, reference = result.tables["levels"], result.params["reference"]
    table = table[table["contained"].notna()]
    if len(table) == 0:
        return "No level can be compared: no texts, answers or correctness on problems that two sources share. n = 0."
    most = table.groupby("source")["n"].max()
    parts = [
        f"{level} ({CLASSES[level]}): " + ", ".join(_said(r, int(most[r.source])) for r in part.itertuples())
        for level, part in table.groupby("level", sort=False)
    ]
    return (
        f"Share of a source's traces for which {_budgets(table, result.params['budget'])} of {reference} on the same "
        "problem hold one of the same class, finest level first; bars: sources with 95 % intervals by problem (for "
        f"problems such as these); black: {reference}'s own traces against its other draws on the same problems, no "
        "ceiling: a source that does fewer things is above it. "
        f"{'; '.join(parts)}. n = {int(table['n'].max()):,} traces of a source at most"
        + ("; a smaller n counts those with a class at the level." if "(n =" in "".join(parts) else ".")
    )


def _budgets(table: Any, budget: int) -> str:
    """ "k = 2 draws (not 64: it takes 65 on nine problems in ten)"."""
    ks = sorted(set(table["k"].astype(int)))
    said = f"k = {', '.join(map(str, ks))} draws"
    return said if ks == [budget] else f"{said} (not {budget}, which takes {budget + 1} draws on nine problems in ten)"


def _said(row: Any, most: int) -> str:
    """A source's number at a level; with its n where more than a few of its traces have none there."""
    return f"{row.source} {row.contained:.2f}" + (f" (n = {int(row.n):,})" if row.n < MOST * most else "")


FIGURES = {"contained": Figure(draw, "levels", caption, width=2)}
