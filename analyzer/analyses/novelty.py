"""Layer 3 of `support`: which traces would the base practically never write, at budget k; needs the base alone.

One primary test, fixed beforehand: the e-value of `stats/evalue.py`, Benjamini-Hochberg at FDR over a source's traces.
It is exact at any stopping time, needs no base samples and no exchangeability, and its p-values are independent across
traces, so its false-alarm rate is known. The conformal test against the base's own traces is secondary: it sees a few
odd steps in a long trace, which the e-value cannot, but it is exact only if problems differ by location and scale. The
flags of the two are never united (that would double the false discoveries). Where the source's own law is known the
words rest on hurdles and whole traces (`evidence`), and novelty stands beside them; where it is not, the e-value alone
can certify "outside".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.stats import conformal, evalue
from analyzer.stats.bands import p_above
from analyzer.stats.bootstrap import Interval, mean, rate

FDR = 0.1
PRIMARY = "e-value"
COMPONENTS = ("nll_masked_mean", "window_max_masked", "cvar20_masked", "excess_z")


def columns(interval: Interval) -> dict[str, Any]:
    """The interval as table columns share, low, high, n, problems, method."""
    return {"share" if name == "value" else name: value for name, value in interval._asdict().items()}


def halves(own: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The reference's traces split at random within each problem: (one half as the source, the other as the base)."""
    order = np.random.default_rng(seed).permutation(len(own))
    odd = own.iloc[order].groupby("unit").cumcount().reindex(own.index).to_numpy() % 2 == 1
    return own[odd], own[~odd]


def shares(frame: pd.DataFrame, own: pd.DataFrame, budgets: tuple[int, ...], *, least: float) -> list[dict[str, Any]]:
    """Share of flagged traces for both tests and every budget, with intervals by problem; `p_above` tests that the
    share is at most `least`.

    `frame`, `own`: rows of the base scorer for the source and for the reference (columns log_e, COMPONENTS and
    unit, an integer per problem).
    A trace whose conformal score is undefined (too few base traces, nothing unmasked) is not counted there.
    """
    problem, log_e = frame["unit"].to_numpy(), frame["log_e"].to_numpy(dtype=float)
    units = own["unit"].to_numpy()
    z = [conformal.standardise(own[c].to_numpy(), units, frame[c].to_numpy(), problem) for c in COMPONENTS]
    calibration, test = (conformal.worst(np.column_stack(part)) for part in zip(*z, strict=True))
    p_conformal = conformal.p_values(calibration, test)
    out = []
    for name, known in ((PRIMARY, ~np.isnan(log_e)), ("conformal", ~np.isnan(p_conformal))):
        for k in budgets:
            p_N = evalue.p_value(log_e, k) if name == PRIMARY else conformal.inflate(p_conformal, k)
            hits = np.where(known, conformal.discoveries(p_N, q=FDR), np.nan)
            share = rate(hits, problem)
            note = f"{name}, Benjamini-Hochberg q = {FDR}: {int(np.nansum(hits))} of {share.n} traces flagged"
            if not known.any():
                note = f"{name}: not known of any trace"
            elif name == "conformal":
                note += f", {int((~np.isnan(calibration)).sum())} calibration traces"
            above = p_above(hits, problem, least) if known.any() else math.nan
            flagged = {"flagged": int(np.nansum(hits)), "p_above": above, "note": note}
            out.append({"test": name, "k": k, **columns(share), **flagged})
    return out


def evidence(
    frame: pd.DataFrame, own: pd.DataFrame, found: list[dict[str, Any]], *, draws: int, seed: int
) -> dict[str, Any]:
    """What the verdict reads: on which side the surprisal lies (median excess z by problem, paired with the reference;
    against 0 without its traces), the log-ratio, the conformal veto at k = 1, where the flagged traces lie."""
    shift = frame.groupby("unit")["excess_z"].median()
    shift = (shift - own.groupby("unit")["excess_z"].median() if len(own) else shift).dropna()
    z = mean(shift.to_numpy(), shift.index.to_numpy(), draws=draws, seed=seed)
    side = "low" if z.high < 0 else "high" if z.low > 0 else "neutral" if np.isfinite(z.low) else "unknown"
    veto = next(row for row in found if row["test"] == "conformal" and row["k"] == 1)
    return {
        "n": len(frame),
        "problems": frame["unit"].nunique(),
        "log_ratio_median": frame["log_ratio"].median(),
        "z_median": frame["excess_z"].median(),
        "z_reference_median": own["excess_z"].median() if len(own) else math.nan,
        "z_shift": z.value,
        "z_shift_low": z.low,
        "z_shift_high": z.high,
        "side": side,
        **{f"conformal_{name}": veto[name] for name in ("share", "low", "high")},
        "flagged_groups": _flagged_groups(frame),
        "cut_share": float((frame["finish"] == "length").mean()),
    }


def _flagged_groups(frame: pd.DataFrame) -> str:
    """Where the flagged traces lie: "mul 62 of 768; div 1 of 768"."""
    if not frame["flagged"].any() or frame["group"].isna().all():
        return ""
    table = frame.groupby("group")["flagged"].agg(["sum", "size"]).sort_values("sum", ascending=False)
    return "; ".join(f"{name} {int(r['sum'])} of {int(r['size'])}" for name, r in table[table["sum"] > 0].iterrows())
