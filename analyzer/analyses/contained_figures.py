"""The drawing of `contained`: one group of bars per rung, every source against the reference's own rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.analyses.drawing import look, nothing
from analyzer.records import LEVELS, Figure, Result


def draw(result: Result, ax: Any) -> Any:
    """Bars of contained@k with intervals by problem; the line across a group is the reference's own rate."""
    table = result.tables["rungs"]
    table = table[table["contained"].notna()]
    if len(table) == 0:
        return nothing(ax, "no rung can be told: no texts, answers or correctness on common problems")
    order = [s for s in result.params["order"] if s in set(table["source"])]
    levels = [level for level in LEVELS if level in set(table["level"])]
    reference, style = result.params["reference"], look(result.params["order"])
    shown = [s for s in order if s != reference]
    width = 0.8 / max(1, len(shown))
    for j, source in enumerate(shown):
        part = table[table["source"] == source].set_index("level")
        x = np.array([levels.index(level) for level in part.index]) - 0.4 + width * (j + 0.5)
        y, low, high = (part[name].to_numpy(float) for name in ("contained", "low", "high"))
        ax.bar(x, y, width * 0.9, color=style[source]["color"], label=source, linewidth=0)
        known = np.isfinite(low)
        ends = np.clip([y - low, high - y], 0, None)[:, known]
        ax.errorbar(x[known], y[known], yerr=ends, fmt="none", ecolor="0.25", elinewidth=0.6)
    own = table[table["source"] == reference].set_index("level")["contained"]
    for i, level in enumerate(own.index):
        at = levels.index(level)
        label = f"{reference}, its own draws" if i == 0 else None
        ax.plot([at - 0.44, at + 0.44], [own[level]] * 2, color="black", linewidth=1.2, label=label)
    ax.set_xticks(range(len(levels)), levels)
    ks = sorted(set(table["k"].astype(int)))
    ax.set(ylim=(0, 1.02), ylabel=f"share of traces, contained@{ks[0] if len(ks) == 1 else 'k'}", xlabel="")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax


def caption(result: Result) -> str:
    table, reference = result.tables["rungs"], result.params["reference"]
    table = table[table["contained"].notna()]
    if len(table) == 0:
        return "No rung can be told: no texts, answers or correctness on problems that two sources share. n = 0."
    ks = ", ".join(str(k) for k in sorted(set(table["k"].astype(int))))
    parts = [
        f"{level}: " + ", ".join(f"{r.source} {r.contained:.2f}" for r in part.itertuples())
        for level, part in table.groupby("level", sort=False)
    ]
    return (
        f"Chance that k = {ks} draws of {reference} on the same problem hold the class of a trace, from the finest "
        f"rung to the coarsest; bars: sources with 95 % intervals by problem, line: {reference}'s own traces "
        f"against its other draws. {'; '.join(parts)}. n = {int(table['n'].max()):,} traces of a source at most."
    )


FIGURES = {"contained": Figure(draw, "rungs", caption, width=2)}
