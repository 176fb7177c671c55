"""Layer 3 of `support`: which traces would the base practically never write, at budget k; needs the base alone.

One e-value for each trace, fixed beforehand: that of its surprisal (`stats/evalue.py`), and where the source's own law
is not known the mean of it and of the learned one (`stats/learned.py`). It is exact at any stopping time, needs no base
samples and no exchangeability, and is held against the base at every temperature up to the hottest that is declared
(`Null`). Two things are made of it: the flagged share (Benjamini-Hochberg at FDR over a source's traces), and the mass
that lies beyond k draws at least (`stats/beyond.py`). Ranks among the base's own draws (`stats/ranks.py`) need no law
at all: they speak of the base as it was sampled. The conformal test against the base's own traces certifies nothing: it
is exact only if problems differ by location and scale. Flags are never united (that would double the false
discoveries). Where the source's own law is known the words rest on hurdles and whole traces (`evidence`), and novelty
stands beside them; where it is not, the mass by e-values and the share beyond the base's draws can certify "outside".
The product of the e-values of surprisal says that the source is another law, however little it differs, and nothing of
reach.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.tables import hottest
from analyzer.records import NOVEL_POWERS, Sampler, Tables
from analyzer.stats import beyond, conformal, evalue, ranks
from analyzer.stats.bands import p_above
from analyzer.stats.bootstrap import ALPHA, Interval, mean, rate

FDR = 0.1
PRIMARY, MASS, RANK = "e-value", "mass", "rank"
COMPONENTS = ("nll_masked_mean", "window_max_masked", "cvar20_masked", "excess_z")


class Null(NamedTuple):
    """What the e-values of a source are held against. hottest: the largest temperature that is declared for it or the
    reference, at least 1; covered: up to which the null reaches, NaN where it does not reach `hottest`; bets: how many
    exponents are known; ranked: why ranks among the base's draws have no say in a word, or ""."""

    hottest: float
    covered: float
    bets: int
    ranked: str


def null(tables: Tables, source: str) -> Null:
    """The null of one source, by the declared samplers and the columns that the base's scorer stored."""
    hot = hottest(tables.samplers, tables.reference, source)
    a, stored = evalue.null_exponent(hot), tables.engines.get(tables.base, {}).get("powers") or ()
    whole = set(NOVEL_POWERS) <= set(stored)
    covered = 1 / a if whole or a == 1 else math.nan
    bets = sum(b < a for b in evalue.EXPONENTS) if whole else 1
    there, here = (tables.samplers.get(s) for s in (tables.reference, source))
    ranked = ""
    if there != Sampler():
        ranked = f"{tables.reference} is not declared to be drawn at T = 1 without a cut"
    elif here != Sampler():
        what = "no sampler is declared for it" if here is None else f"another sampler than that of {tables.reference}"
        ranked = f"{source}: {what}"
    return Null(hot, covered, bets, ranked)


def columns(interval: Interval) -> dict[str, Any]:
    """The interval as table columns share, low, high, n, problems, method."""
    return {"share" if name == "value" else name: value for name, value in interval._asdict().items()}


def halves(own: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The reference's traces split at random within each problem: (one half as the source, the other as the base)."""
    order = np.random.default_rng(seed).permutation(len(own))
    odd = own.iloc[order].groupby("unit").cumcount().reindex(own.index).to_numpy() % 2 == 1
    return own[odd], own[~odd]


def shares(frame: pd.DataFrame, own: pd.DataFrame, budgets: tuple[int, ...], *, least: float) -> list[dict[str, Any]]:
    """Share of flagged traces for every test and budget, with intervals by problem; `p_above` tests that the share (of
    the tests mass and rank: what lies beyond k base draws, for the given problems) is at most `least`.

    `frame`, `own`: rows of the base scorer for the source and for the reference (columns log_e, log_e_surprisal, half,
    window_max, COMPONENTS and unit, an integer per problem).
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
            if name == PRIMARY:
                note += f", {int((log_e > math.log(k / ALPHA)).sum())} beyond k each by itself (e > k / {ALPHA:g})"
            if not known.any():
                note = f"{name}: not known of any trace"
            elif name == "conformal":
                note += f", {int((~np.isnan(calibration)).sum())} calibration traces"
            above = p_above(hits, problem, least) if known.any() else math.nan
            flagged = {"flagged": int(np.nansum(hits)), "p_above": above, "note": note}
            out.append({"test": name, "k": k, **columns(share), **flagged})
    return out + [_mass(frame, k, least) for k in budgets] + _ranked(frame, own, budgets, least)


def _mass(frame: pd.DataFrame, k: int, least: float) -> dict[str, Any]:
    """Row of the test mass: what lies beyond k draws at least, by the sizes of the e-values."""
    log_e_N = frame["log_e"].to_numpy(dtype=float)
    known = ~np.isnan(log_e_N)
    found = beyond.least(log_e_N if known.any() else np.empty(0), frame["half"].to_numpy(), k, least)
    row = {"test": MASS, "k": k, "share": found.value, "low": found.low, "high": math.nan, "n": int(known.sum())}
    row |= {"problems": frame.loc[known, "unit"].nunique(), "method": "Stringer, given problems", "flagged": 0}
    note = f"mean of min(e, c) / c less k / c; the larger of k / c = {', '.join(map(str, beyond.CAPS))}"
    return row | {"p_above": found.p, "note": note}


def _ranked(frame: pd.DataFrame, own: pd.DataFrame, budgets: tuple[int, ...], least: float) -> list[dict[str, Any]]:
    """Rows of the test rank: shares of traces more surprising than all base draws of their problem, by log e (by the
    largest window of 8 tokens where a scorer knows no entropies). `low_share`: bound of the share beyond k draws."""
    score = "log_e_surprisal" if frame["log_e_surprisal"].notna().any() else "window_max"
    problem = frame["unit"].to_numpy()
    hits_N, draws_N = ranks.beyond(frame[score], problem, own[score], own["unit"])
    share, n = rate(hits_N, problem), int(np.median(draws_N[draws_N > 0])) if (draws_N > 0).any() else 0
    out = []
    for k in budgets:
        row = {"test": RANK, "k": k, **columns(share), "flagged": int(np.nansum(hits_N)), "p_above": math.nan}
        row |= {"p": math.nan, "low_share": math.nan, "draws": n, "note": "rank: no base draws of these problems"}
        if n:
            p = ranks.p_value(hits_N, problem, draws_N, k)
            row["note"] = f"rank by {score}: {row['flagged']} of {share.n} traces beyond all {n} base draws (median)"
            row["note"] += f", within reach {k} at most {ranks.chance(n, k):.2g} of them would be (p = {p:.2g})"
            row["note"] += f"; n + 1 = {n + 1} <= k, no share can be bounded" if n + 1 <= k else ""
            row |= {"p": p, "low_share": ranks.least_share(hits_N, problem, draws_N, k, ALPHA / 2)}
            row["p_above"] = ranks.p_above(hits_N, problem, draws_N, k, least)
        out.append(row)
    return out


def evidence(
    frame: pd.DataFrame, own: pd.DataFrame, found: list[dict[str, Any]], null: Null, *, draws: int, seed: int
) -> dict[str, Any]:
    """What the verdict reads: on which side the surprisal lies (median excess z by problem, paired with the reference;
    against 0 without its traces), the log-ratio, the conformal veto at k = 1, where the flagged traces lie, what the
    e-values are held against and the log of their product."""
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
        **null._asdict(),
        "log_e_sum": float(frame["log_e_surprisal"].sum(min_count=1)),
        "cut_share": float((frame["finish"] == "length").mean()),
    }


def _flagged_groups(frame: pd.DataFrame) -> str:
    """Where the flagged traces lie: "mul 62 of 768; div 1 of 768"."""
    if not frame["flagged"].any() or frame["group"].isna().all():
        return ""
    table = frame.groupby("group")["flagged"].agg(["sum", "size"]).sort_values("sum", ascending=False)
    return "; ".join(f"{name} {int(r['sum'])} of {int(r['size'])}" for name, r in table[table["sum"] > 0].iterrows())
