"""Local support of one source: hurdles, whole traces under every law and the prefix curve, as estimates and tables."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import last_steps
from analyzer.analysis.support import evidence, laws, local, novelty, scored
from analyzer.records import Estimate, Tables
from analyzer.stats import bootstrap, bounds, pooled, spans
from analyzer.stats.bootstrap import Interval


def own_rows(tables: Tables, found: local.Local, source: str) -> pd.DataFrame:
    """The source's traces among those measured."""
    keys = tables.traces.loc[tables.traces["source"] == source, "key"]
    rows = found.frame.loc[found.frame.index.intersection(keys, sort=False)]
    unknown = [c for c in rows if c.startswith(("p:", "body:")) and rows[c].isna().all()]
    return rows.drop(columns=unknown)


def without_numbers(tables: Tables, mine: pd.DataFrame, source: str) -> tuple[int, int]:
    """How many of the source's traces (of its last step) are not measured, and how many there are: their rows bring no
    numbers, or none of a token that the policy wrote. They count against every bound."""
    every = len(last_steps(tables.traces[tables.traces["source"] == source]))
    return every - len(mine), every


def of_source(
    tables: Tables,
    found: local.Local,
    rows: pd.DataFrame,
    base: pd.DataFrame,
    source: str,
    budget: int,
    omitted: float,
    parts: dict[str, list[Any]],
    estimates: dict[str, Estimate],
    options: dict[str, int],
) -> None:
    """Local support of one source: estimates, rows of evidence, laws, spans and prefix."""
    problem = pd.factorize(rows["problem"], sort=True)[0]
    left, curve = _left_out(rows, omitted), found.curves.get(source)
    if curve is not None:
        parts["prefix"] += local.prefix_rows(curve, source)
    for k in local.budgets(budget):
        wider = max((1, spans.SPAN), key=lambda w: rows[f"share{w}@{k:g}"].mean())
        for width in (1, spans.SPAN):
            share = _rate(rows, rows[f"share{width}@{k:g}"].to_numpy(), problem, omitted)
            count_N, whole = rows[f"hurdles{width}@{k:g}"].to_numpy(float), (rows["unknown"] == 0).to_numpy()
            number = bootstrap.mean(count_N[whole], problem[whole], **options)
            rate = pooled.ratio(1000 * count_N[whole], rows["n"].to_numpy(float)[whole], problem[whole], **options)
            number, rate = _wider(number, share, 1.0), _wider(rate, share, 1000 / max(1.0, float(rows["n"].mean())))
            if omitted or rows["unknown"].any():  # how many hurdles lie where no number is, nobody knows
                number, rate = (x._replace(high=math.nan) for x in (number, rate))
            row = {"source": source, "k": k, "span": width, "excess": number.value, "low": number.low}
            row |= {"high": number.high, "n": number.n, "share": share.value, "share_low": share.low}
            row |= {"share_high": share.high, "per_1000": rate.value, "rate_low": rate.low, "rate_high": rate.high}
            parts["spans"].append(row)
            if width == wider and source != tables.reference:
                note = f"span of {width} token{'s' * (width > 1)}, against every law of the base{left}"
                named = {"hurdles": number, "hurdle_share": share, "hurdle_rate": rate}
                estimates |= {f"{source}.{name}@{k:g}": Estimate.of(i, note) for name, i in named.items()}
    for name in [c.removeprefix("p:") for c in rows if c.startswith("p:") and rows[c].notna().all()]:
        for k in (budget / 2, budget, 2 * budget):  # where q is near k p, half and twice the budget tell another story
            excess_N = evidence.of_trace(rows, name, k)
            i = _rate(rows, excess_N, problem, omitted)
            row = {"source": source, "law": name, "k": k, "excess": i.value, "low": i.low, "high": i.high, "n": i.n}
            row |= {"given_low": bounds.lower(excess_N, alpha=0.025), "given_high": bounds.upper(excess_N, alpha=0.025)}
            parts["laws"].append(row | {"log_ratio": float((rows["log_q"] - rows[f"p:{name}"]).mean())})
    if source == tables.reference:
        return
    drop = (base["entropy_mean"] * base["n_tokens"] + base["logprob"]).astype(float)
    variance = (base["varentropy_mean"] * base["n_tokens"]).astype(float)
    told = evidence.row(tables, rows, source, budget=budget, omitted=omitted, drop_N=drop, variance_N=variance)
    mine = next(r for r in parts["evidence"] if r["source"] == source)
    mine |= told
    if "length" not in mine:  # of rows that bring their numbers
        own = own_rows(tables, found, tables.reference)
        for name, part in (("length", rows), ("length_reference", own)):
            mine[name] = float((part["n"] + part["ended"]).mean()) if len(part) else math.nan
    if told.get("missing_laws") and "every" in mine:
        mine["missing_needs"] = laws.missing_needs(tables, told["missing_laws"].split("; "))
    if told.get("no_log_q"):
        return
    law = told["inside_law"]
    i = _rate(rows, evidence.of_trace(rows, law, budget), problem, omitted)
    estimates[f"{source}.beyond@{budget}"] = Estimate.of(i, f"whole traces against the base, {law}{left}")
    if f"{source}.reach@{budget}" not in estimates and f"p:{laws.PLAIN}" in rows:
        for k in scored.reach_budgets(budget):
            i = _rate(rows, evidence.of_trace(rows, laws.PLAIN, k), problem, omitted)
            estimates[f"{source}.reach@{k}"] = Estimate.of(i, f"from the log-probs that the rows bring{left}")
            parts["reach"].append({"source": source, "k": k, **novelty.columns(i), "coverage": math.nan, "note": ""})
    how = "Student's t within problems: for the given ones"
    value = Estimate(told["s"], told["s_low"], told["s_high"], len(rows), how, told["best"])
    if not math.isfinite(told["s"]):
        value = Estimate(math.nan, n=len(rows), note="no lower temperatures, or no divergence for one to explain")
    estimates[f"{source}.temperature_share"] = value
    if curve is not None:
        horizon = local.horizon(curve, len(curve.names) - 1)
        if left:  # the band is that of the traces at hand
            horizon = replace(horizon, low=math.nan, high=math.nan, note=f"{horizon.note}{left}".removeprefix("; "))
        estimates[f"{source}.horizon@{budget}"] = horizon


def _rate(rows: pd.DataFrame, values_N: np.ndarray, problem: np.ndarray, omitted: float) -> Interval:
    """`bootstrap.rate` of the traces that are known whole; those that are not, and the share `omitted`, count as 0 at
    the lower end and as 1 at the upper end."""
    unknown_N = rows["unknown"].to_numpy() > 0
    out = bootstrap.rate(values_N[~unknown_N], problem[~unknown_N])
    if not omitted and not unknown_N.any():
        return out
    low, high = (bootstrap.rate(np.where(unknown_N, x, values_N), problem) for x in (0.0, 1.0))
    return out._replace(low=low.low * (1 - omitted), high=min(1.0, high.high * (1 - omitted) + omitted))


def _left_out(rows: pd.DataFrame, omitted: float) -> str:
    """What a number leaves out, for its note: "" where that is nothing."""
    unknown = int((rows["unknown"] > 0).sum())
    said = [f"{unknown:,} traces with tokens without a number"] * (unknown > 0)
    said += [f"{omitted:.1%} of the traces without a log-ratio"] * (omitted > 0)
    return f"; {' and '.join(said)} count against both ends" if said else ""


def _wider(number: Interval, share: Interval, scale: float) -> Interval:
    """A number of hurdles is never below the chance of at least one (times scale): where hurdles are rare, resampling
    problems knows too little, and without one it knows nothing, so that the interval of the share is kept within."""
    low, high = (f(a, scale * b) for f, a, b in ((min, number.low, share.low), (max, number.high, share.high)))
    return number._replace(low=low, high=high)
