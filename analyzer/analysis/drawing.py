"""What the drawings of several analyses share: bands over k, the look of sources, the empty figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd


def look(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """label -> colour, marker and line style, the same in every figure that lists the same labels."""
    from analyzer.analysis.figures import styles

    return styles(list(dict.fromkeys(labels)))


def band(ax: Any, part: pd.DataFrame, y: str, style: dict[str, Any], label: str) -> None:
    """One curve over column k with markers, and its interval (columns low, high) as a band; k on a log 2 axis.

    The line's id in the svg names the column and the source: the page reads its points out.
    """
    import seaborn as sns

    from analyzer.analysis.figures import curve_id

    k, low, high = (part[name].astype(float) for name in ("k", "low", "high"))
    sns.lineplot(x=k, y=part[y].astype(float), label=label, errorbar=None, ax=ax, **style)
    ax.lines[-1].set_gid(curve_id(y, label))
    ax.fill_between(k, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.set_xscale("log", base=2)


def level(ax: Any, value: float, says: str, *, across: bool = False, side: str = "right") -> None:
    """A dotted line at a value of y (`across`: of x) that says what it is, at the `side` where curves leave room."""
    (ax.axvline if across else ax.axhline)(value, color="0.4", linewidth=0.8, linestyle=":")
    if across:
        ax.text(value, 1, f" {says}", transform=ax.get_xaxis_transform(), ha="left", va="top", fontsize=6)
    else:
        at = 1 if side == "right" else 0.02
        ax.text(at, value, says, transform=ax.get_yaxis_transform(), ha=side, va="bottom", fontsize=6)


def above(ax: Any) -> None:
    """The legend above the axes, where it hides nothing."""
    longest = max(map(len, ax.get_legend_handles_labels()[1]), default=0)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=max(1, min(3, 64 // (longest + 6))))


def nothing(ax: Any, why: str) -> Any:
    """An axis that says why there is nothing to draw."""
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
    return ax
