"""What a pair is compared in, and what differs between two sources, in words."""

from __future__ import annotations

import math
from typing import Any

# measure -> unit, and the words for a difference above and below zero; {k}: the number of draws
MEASURES = {
    "pass_rate": ("share correct", "is right more often", "is right less often"),
    "pass@k": ("share solved within {k} draws", "solves more within {k} draws", "solves fewer within {k} draws"),
    "n_tokens": ("tokens per trace", "is longer", "is shorter"),
    "nll_mean": ("nats per token of log-perplexity", "surprises the base more", "surprises the base less"),
    "typical": (
        "share typical of the reference",
        "is more often typical of the reference",
        "is less often typical of it",
    ),
    "hurdles": ("hurdles per trace", "has more hurdles a trace", "has fewer hurdles a trace"),
    "hurdle_share": (
        "share of traces with a hurdle",
        "has a hurdle in more of its traces",
        "has a hurdle in fewer of its traces",
    ),
    "horizon": (
        "tokens until half is beyond the budget",
        "is half beyond the budget later",
        "is half beyond the budget earlier",
    ),
}


def says(rows: list[dict[str, Any]]) -> str:
    """What differs between two sources, from their rows of `differences`; a difference counts as found where its own
    interval leaves out zero."""
    found, open_, unknown = [], [], []
    for row in rows:
        unit, more, less = (words.format(k=row.get("k") or "k") for words in MEASURES[row["measure"]])
        if not row["problems"]:
            unknown.append(unit)
        elif math.isnan(row["difference"]):
            unknown.append(f"{unit} ({row['note']})")
        elif row["low"] > 0 or row["high"] < 0:
            found.append(f"{more if row['low'] > 0 else less} ({_number(row)} {unit})")
        else:
            open_.append(f"{unit} ({_number(row)})")
    parts = [", ".join(found)] if found else []
    parts += [f"no difference shown in {', '.join(open_)}"] if open_ else []
    parts += [f"not known: {', '.join(unknown)}"] if unknown else []
    problems = max(row["problems"] for row in rows)
    return f"{rows[0]['a']} against {rows[0]['b']} ({problems} problems): {'; '.join(parts)}."


def _number(row: dict[str, Any]) -> str:
    """ "+0.031 [+0.012, +0.049]", two digits of the interval's width; "beyond" for an end beyond the traces."""
    ends = (row["low"], row["high"])
    known = [x for x in ends if not math.isnan(x)]
    width = sum(abs(x - row["difference"]) for x in known) * 2 / max(1, len(known))
    digits = max(0, 1 - math.floor(math.log10(width))) if math.isfinite(width) and width > 0 else 3
    low, high = ("beyond" if math.isnan(x) else f"{x:+.{digits}f}" for x in ends)
    return f"{row['difference']:+.{digits}f}{f' [{low}, {high}]' if known else ''}"
