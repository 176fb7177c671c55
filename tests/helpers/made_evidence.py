"""Hand-made results of `support`: rows of the table `evidence` that earn each word of the sequence level by a wide
margin, and the estimates beside them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analyzer.records import Estimate, Result

NAN = math.nan
COMMON = {
    "source": "s", "n": 4096, "problems": 64, "laws": "T=1", "missing_laws": "", "unknown": 0, "same_weights": False,
    "same_sampler": False, "far": 0.0, "far_low": 0.0,
    "tokens": 200.0, "improbable_p": 1.0, "improbable": 0.0, "law": "", "end_value": NAN, "end_low": NAN,
    "length": 200.0, "length_reference": 190.0, "k_min": 1.0, "no_log_q": "", "no_verdict": "", "z_median": -0.5,
    "z_reference_median": 0.0, "cut_share": 0.0, "flagged_groups": "", "carrier": "", "carried": "", "carried_by": "",
    "certify": 4, "p_outside": 1.0, "inside_law": "T=1", "beyond_law": "T=1", "coolest": 0.1,
    "temperature": 1.0,
}  # fmt: skip
NO_TEMPERATURE = dict.fromkeys(
    ("s", "s_low", "s_high", "s_low_half", "s_high_half", "left", "left_low", "left_high"), NAN
)
NO_TEMPERATURE |= {"best": "", "drop": NAN, "drop_low": NAN, "kl": NAN}
FREE = {"share1": 0.0, "share4": 0.0, "hurdles1": 0.0, "hurdles4": 0.0, "share_low": 0.0, "share_high": 0.001}
HURDLED = {"share1": 0.40, "share4": 0.45, "hurdles1": 1.2, "hurdles4": 1.3, "share_low": 0.38, "share_high": 0.5}


def whole(value: float, half: float = 0.02, *, events: int = 100, every: float | None = None) -> dict[str, Any]:
    """The whole-trace columns, every bound `half` away from the value."""
    low, high = max(0.0, value - half), min(1.0, value + half)
    every = value if every is None else every
    return {
        "inside_value": value, "inside_high": high, "inside_events": events, "beyond_value": value, "beyond_low": low,
        "every_value": every, "every_low": max(0.0, every - half), "inside_body_value": value, "inside_body_high": high,
        "body_low": low,
        "body_value": every, "body_high": min(1.0, every + half),
    }  # fmt: skip


INSIDE = COMMON | whole(0.001, 0.009) | FREE | NO_TEMPERATURE
SHARPENED = COMMON | whole(0.6, every=0.5) | FREE
SHARPENED |= {
    "kl": 6.0,
    "s": 0.9,
    "s_low": 0.85,
    "s_high": 0.95,
    "s_low_half": -2.0,
    "s_high_half": -3.0,
    "best": "T=0.6",
    "left": 0.001,
    "left_low": 0.0,
    "left_high": 0.01,
}
SHARPENED |= {"drop": 0.3, "drop_low": 0.25}  # fmt: skip
REWEIGHTED = SHARPENED | {"s": 0.1, "s_low": 0.05, "s_high": 0.15, "s_low_half": 3.0, "s_high_half": 2.0}
REWEIGHTED |= {"left": 0.5, "left_low": 0.45, "left_high": 0.55, "drop": 0.01, "drop_low": -0.02}
OUTSIDE = REWEIGHTED | HURDLED | {"p_outside": 0.0005, "s": 0.0}
NOTE = "the model that produced s is not known; give --policy s=MODEL"
UNKNOWN = {k: v for k, v in COMMON.items() if k in ("source", "n", "problems", "k_min", "z_median", "cut_share")}
UNKNOWN |= {k: COMMON[k] for k in ("z_reference_median", "flagged_groups", "carrier", "carried", "certify")}
UNKNOWN |= {"no_verdict": "", "no_log_q": NOTE, "p_outside": 0.0005, "length": 200.0, "length_reference": 190.0}
ROWS = {"inside": INSIDE, "sharpened": SHARPENED, "reweighted": REWEIGHTED, "outside": OUTSIDE, "unknown": UNKNOWN}


def est(value: float, low: float, high: float, n: int = 4096) -> Estimate:
    return Estimate(value, low, high, n, "test")


ZERO, LARGE = est(0, 0, 0.001), est(0.6, 0.5, 0.7)


def support(row: str | dict[str, Any], plain: Estimate = ZERO, strict: Estimate = ZERO, **more: Any) -> Result:
    """The result of one source "s" with the row of a word, changed by `more`; plain, strict: novel@1 and novel@4."""
    row = (ROWS[row] if isinstance(row, str) else row) | more
    estimates = {"s.novel@1": plain, "s.novel@4": strict, "s.novel@64": plain}
    if row.get("no_log_q"):
        estimates["s.reach@64"] = Estimate(NAN, note=row["no_log_q"])
    return Result("support", "", estimates, {"evidence": pd.DataFrame([row])})
