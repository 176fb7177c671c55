"""What the words at the sequence level rest on: one row per source, every bound for the given problems.

Each word is a certificate (`sequence` reads the row): `inside` an upper bound, `outside` two lower bounds, `sharpened`
and `reweighted` a lower bound of the whole trace, an upper bound of the hurdles and a bound of what a temperature
explains.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.support import laws, membership
from analyzer.analysis.support.cooling import COOL, GRID, SPLINE, cooled, dense, unsure
from analyzer.analysis.support.ratios import SAME
from analyzer.records import HURDLED, TAU, Tables
from analyzer.stats import bounds, reach, spans
from analyzer.stats.bootstrap import ALPHA

EXPLAINED = 0.5  # s: share of KL(Q||P) that a temperature has to explain
DROP = 0.02  # nats a token by which the surprisal has to lie below the entropy
FINER = 10  # temperatures tried on each side of the best one
RARE, IMPROBABLE = 3.0, 0.01  # at most e^-3 of a true source's traces lie at l <= -3; refused at this p-value


def row(
    tables: Tables,
    rows: pd.DataFrame,
    source: str,
    *,
    budget: int,
    omitted: float,
    drop_N: pd.Series,
    variance_N: pd.Series,
) -> dict[str, Any]:
    """The numbers of one source; rows: its traces in `Local.frame`. omitted: share of its traces without a log-ratio,
    counted against every bound. Of whole traces by key, NaN where unknown: drop_N, entropy less surprisal (nats), and
    variance_N, of the surprisal given the past (nats squared)."""
    held = [name for name in laws.counted(tables, source) if f"p:{name}" in rows]
    held = [name for name in held if rows[f"p:{name}"].notna().all()]
    missing = [name for name in laws.counted(tables, source) if name not in held]
    if not held:
        ways = " or ".join(f"at {m}" if m == laws.PLAIN else m for m in missing)
        return {"source": source, "no_log_q": f"log-probs under the base are not known {ways}"}
    problem = rows["problem"].to_numpy()
    out: dict[str, Any] = {"source": source, "n": len(rows), "problems": len(set(problem)), "laws": "; ".join(held)}
    out |= {"missing_laws": "; ".join(missing), "unknown": int((rows["unknown"] > 0).sum())}
    out |= {"same_weights": laws.same_weights(tables, source), "tokens": float(rows["n"].mean())}
    out["same_sampler"] = laws.samplers(tables).get(source) == laws.samplers(tables).get(tables.reference)
    # of a source that brings its numbers: the two lists are one, by the same weights or by a copy
    equal = [name for name in held if (rows["log_q"] == rows[f"p:{name}"]).all() and not out["same_weights"]]
    out["equal"] = equal[0] if equal else ""
    taken = laws.assumed(tables).get(source)
    out["assumed"] = "" if taken is None else membership.words(taken)
    excess = {name: of_trace(rows, name, budget) for name in held}
    every = sorted(c.removeprefix("p:") for c in rows if c.startswith("p:") and rows[c].notna().all())
    excess["every"] = of_envelope(rows, every, budget)
    unknown_N = rows["unknown"].to_numpy() > 0
    for name, values_N in excess.items():
        value, low, high = _bounded(values_N, unknown_N, omitted, ALPHA / len(held))
        out |= {f"excess[{name}]": value, f"low[{name}]": low, f"high[{name}]": high}
    best = min(held, key=lambda name: out[f"high[{name}]"])
    out |= {"inside_law": best, "inside_value": out[f"excess[{best}]"], "inside_high": out[f"high[{best}]"]}
    out["inside_events"] = int((excess[best][~unknown_N] > 0).sum())
    worst = min(held, key=lambda name: out[f"low[{name}]"])
    out |= {"beyond_law": worst, "beyond_value": out[f"excess[{worst}]"], "beyond_low": out[f"low[{worst}]"]}
    out |= {"every_value": out["excess[every]"], "every_low": out["low[every]"]}
    known = sorted((1 / laws.exponent(name) for name in every if laws.exponent(name) >= 1), reverse=True)
    out["dense"] = dense(known)
    out["unknown_temperatures"] = ", ".join(f"{t:g}"[1:] for t in GRID if not any(abs(t - x) < 0.01 for x in known))
    out["coolest"] = min((1 / laws.exponent(name) for name in every if laws.exponent(name) >= 1), default=math.nan)
    body = of_envelope(rows, every, budget, part="body") if rows["ended"].any() else excess["every"]
    out["body_value"], _, out["body_high"] = _bounded(body, unknown_N, omitted)
    # sharpened and reweighted speak of the text: it has to lie beyond without its end token too
    bodies = {name: of_trace(rows, name, budget, part="body") for name in held}
    out["body_low"] = min(_bounded(values_N, unknown_N, omitted)[1] for values_N in bodies.values())
    out["inside_body_value"], _, out["inside_body_high"] = _bounded(bodies[best], unknown_N, omitted)
    end = reach.excess(rows["end"].to_numpy(float), budget)
    end = end[~np.isnan(end)]
    out |= {"end_value": float(end.mean()) if len(end) else math.nan}
    out["end_low"] = bounds.lower(end) if len(end) else math.nan
    out |= _hurdles(rows, budget, omitted, excess["every"], plain_only=not out["coolest"] <= COOL)
    drop = drop_N.reindex(rows["key"]).to_numpy(float)
    entropy_N = drop - (rows[f"p:{laws.PLAIN}"].to_numpy(float) if laws.PLAIN in every else math.nan)
    at_one_2N = np.stack([entropy_N, variance_N.reindex(rows["key"]).to_numpy(float)])
    out |= _temperature(rows, problem, every, budget, at_one_2N)
    if laws.REFERENCE in held:
        there = laws.samplers(tables)[tables.reference]
        out |= _from_reference(rows, problem, every, there.temperature, at_one_2N)
    tokens = (rows["n"] + rows["ended"]).to_numpy(float)
    bounded = bool(np.isnan(drop).any())
    if bounded:
        drop = _least_drop(rows)
    out |= {"drop": math.nan, "drop_low": math.nan, "drop_least": math.nan}
    if not np.isnan(drop).any():  # drop: the value, where it is known; drop_least: what it is at least
        out["drop_least" if bounded else "drop"] = float(drop.sum() / tokens.sum())
        mean = bounds.mean(drop - DROP * tokens, problem)
        out["drop_low"] = DROP + mean.low(ALPHA) / tokens.mean()
    return out | _improbable(rows, held)


def far(budget: int) -> int:
    """How often a single token has to be tried at least where no cool law is known: budget^2, and 4,096."""
    return max(budget**2, 4096)


def of_trace(rows: pd.DataFrame, law: str, k: float, part: str = "p") -> np.ndarray:
    """Excess of each trace against one law, float [N]."""
    q = rows["log_q" if part == "p" else "body_q"].to_numpy(float)
    return _excess(q - rows[f"{part}:{law}"].to_numpy(float), k)


def of_envelope(rows: pd.DataFrame, names: list[str], k: float, part: str = "p") -> np.ndarray:
    """Excess of each trace against the likeliest of these laws, float [N]."""
    q = rows["log_q" if part == "p" else "body_q"].to_numpy(float)
    return _excess(q - rows[[f"{part}:{name}" for name in names]].to_numpy(float).max(1), k)


def _excess(l_N: np.ndarray, k: float) -> np.ndarray:
    return reach.excess(np.where(np.abs(l_N) < SAME, 0.0, l_N), k)


def _bounded(
    values_N: np.ndarray, unknown_N: np.ndarray, omitted: float, alpha: float = ALPHA
) -> tuple[float, float, float]:
    """Mean of the traces known whole (NaN without one), lower bound at ALPHA, upper bound at alpha. Traces with
    tokens without a number, and the share without a log-ratio, count as 0 below and as 1 above."""
    value = float(values_N[~unknown_N].mean()) if not unknown_N.all() else math.nan
    low = bounds.lower(np.where(unknown_N, 0.0, values_N), alpha=ALPHA) * (1 - omitted)
    high = bounds.upper(np.where(unknown_N, 1.0, values_N), alpha=alpha)
    return value, low, _with(high, omitted)


def _with(high: float, omitted: float) -> float:
    """An upper bound with the traces that have no log-ratio counted as beyond."""
    return min(1.0, high * (1 - omitted) + omitted)


def _hurdles(
    rows: pd.DataFrame, budget: int, omitted: float, every_N: np.ndarray, *, plain_only: bool
) -> dict[str, Any]:
    """Share of traces with a hurdle at both spans, the bounds that the words read, and p of the word `outside`.

    plain_only: no law at T <= COOL is known. Cooling alone then makes hurdles (it lifts the likeliest token, of base
    probability 1/3 say, to 1, and four of them are beyond 64), so `outside` rests on single tokens beyond `far`: the
    likeliest of a law is never that rare.
    """
    out: dict[str, Any] = {}
    lows, highs, ps = [], [], []
    for width in (1, spans.SPAN):
        share_N = rows[f"share{width}@{budget:g}"].to_numpy(float)
        out |= {f"hurdles{width}": float(rows[f"hurdles{width}@{budget:g}"].mean())}
        out |= {f"share{width}": float(share_N.mean())}
        lows.append(bounds.lower(share_N, alpha=ALPHA / 2) * (1 - omitted))
        highs.append(_with(bounds.upper(np.where(rows["unknown"] > 0, 1.0, share_N)), omitted))
        ps.append(bounds.p_above(share_N * (1 - omitted), HURDLED))
    out |= {"share_low": max(lows), "share_high": max(highs)}
    if plain_only:
        far_N = rows[f"share1@{far(budget):g}"].to_numpy(float)
        out |= {"far_low": bounds.lower(far_N) * (1 - omitted), "far": float(far_N.mean())}
        ps = [bounds.p_above(far_N * (1 - omitted), HURDLED) / 2] * 2
    p_every = bounds.p_above(np.where(rows["unknown"] > 0, 0.0, every_N) * (1 - omitted), TAU)
    return out | {"p_outside": max(min(1.0, 2 * min(ps)), p_every)}


def _temperature(
    rows: pd.DataFrame, problem: np.ndarray, every: list[str], budget: int, at_one_2N: np.ndarray
) -> dict[str, Any]:
    """s, the share of KL(Q||P) that the best temperature T <= 1 explains, the bounds that the words read, and the
    excess that this temperature leaves. Log-ratios without the end token. at_one_2N: see `cooled`."""
    out: dict[str, Any] = {"kl": math.nan, "s": math.nan, "best": "", "s_low_half": math.nan, "s_high_half": math.nan}
    out |= dict.fromkeys(("s_low", "s_high", "s_unsure", "s_least", "left", "left_low", "left_high"), math.nan)
    if laws.PLAIN not in every:
        return out
    q_N = rows["body_q"].to_numpy(float)
    temperature_G, body_GN = cooled(rows, every, "body", at_one_2N)
    ratio_GN = q_N - body_GN
    plain = ratio_GN[0]
    out["kl"] = float(plain.mean())
    if len(temperature_G) == 1 or not out["kl"] > SAME or not np.isfinite(ratio_GN).all():
        return out
    at = int(ratio_GN.mean(1).argmin())
    near = (float(temperature_G[min(at + 1, len(temperature_G) - 1)]), float(temperature_G[max(at - 1, 0)]))
    known_T = {1 / laws.exponent(name) for name in every if laws.exponent(name) >= 1}
    if len(temperature_G) > len(known_T):  # between the temperatures next to the best one, once more
        finer_G, finer_GN = cooled(rows, every, "body", at_one_2N, np.geomspace(*near, 2 * FINER + 1))
        at = int((q_N - finer_GN).mean(1).argmin())
        temperature_G, ratio_GN = np.append(finer_G[at], temperature_G), np.vstack([q_N - finer_GN[at], ratio_GN])
        at = 0
    s = 1 - float(ratio_GN[at].mean()) / out["kl"]
    # s > 1/2: some temperature leaves less than half; s < 1/2: every temperature leaves more than half
    cooler = temperature_G < 1
    halves = [bounds.mean(ratio - (1 - EXPLAINED) * plain, problem) for ratio in ratio_GN[cooler]]
    off_G = unsure(temperature_G, every, at_one_2N)
    off, most = off_G[cooler] * float(rows["n"].mean()), off_G[(temperature_G >= near[0]) & (temperature_G <= near[1])]
    out |= {"best": f"T={temperature_G[at]:.2g}", "s": s}
    out["s_unsure"] = float(most.max() * rows["n"].mean()) / out["kl"]
    out["s_low_half"] = min(m.high(ALPHA / len(halves)) + x for m, x in zip(halves, off, strict=True))  # < 0: s > 1/2
    out["s_high_half"] = min(m.low(ALPHA) - x for m, x in zip(halves, off, strict=True))  # above 0: s < 1/2
    least, least_at = min((m.value - x, t) for m, x, t in zip(halves, off, temperature_G[cooler], strict=True))
    out |= {"s_least": least, "s_least_at": f"T={least_at:.2g}"}  # what s_high_half comes to with more and more traces
    around = bounds.mean(ratio_GN[at] - (1 - s) * plain, problem)
    half = (around.high(0.025) - around.value) / out["kl"] + out["s_unsure"]
    # the mean of log-ratios may fall below 0, a divergence can't
    out |= {"s": min(1.0, s), "s_low": min(1.0, max(0.0, s - half)), "s_high": min(1.0, s + half)}
    alone_GN = cooled(rows, every, "p", at_one_2N, temperature_G[at : at + 1])[1]
    l_N = rows["log_q"].to_numpy(float) - alone_GN[0]
    left, off_N = _excess(l_N, budget), off_G[at] * rows["n"].to_numpy(float)
    out |= {"left": float(left.mean()), "left_high": bounds.upper(_excess(l_N + off_N, budget))}
    off_N = np.maximum(off_N, SPLINE * rows["n"].to_numpy(float))
    return out | {"left_low": bounds.lower(_excess(l_N - off_N, budget))}


def _from_reference(
    rows: pd.DataFrame, problem: np.ndarray, every: list[str], temperature: float, at_one_2N: np.ndarray
) -> dict[str, Any]:
    """s against the reference as it was sampled, where that is not T = 1: what two sources share by a sampler of their
    own is no difference between them, and a temperature explains it of KL(Q||P_1) all the same.

    The reference is its temperature's law with what its cut keeps made likelier (kept: by so many nats a trace); where
    the source writes what it cuts off, the law without the cut. A cooler law on what the reference keeps is likelier
    than without a cut, by no more than kept, as cooling leaves less outside. s_reference: share of KL(Q||reference)
    that the best temperature up to its own explains; below 0, r_low_half: some such temperature explains more than half
    without the cut; above 0, r_high_half: every temperature up to 1 leaves more than half with all of kept. NaN where
    the law at that temperature is not known.
    """
    out = dict.fromkeys(("s_reference", "r_low_half", "r_high_half"), math.nan)
    q_N, kept_N = rows["body_q"].to_numpy(float), rows["kept"].to_numpy(float)
    out |= {"reference_temperature": temperature, "reference_cuts": bool((kept_N != 0).any())}
    temperature_G, body_GN = cooled(rows, every, "body", at_one_2N) if laws.PLAIN in every else (np.zeros(0), None)
    if not np.isnan(kept_N).any():
        there_N = q_N - rows[f"body:T={temperature:.6g}"].to_numpy(float) - kept_N
    else:
        there_N, kept_N = q_N - rows[f"body:{laws.REFERENCE}"].to_numpy(float), 0.0
    if not len(temperature_G) or (there_N > -spans.IMPOSSIBLE / 2).any() or not there_N.mean() > 0:
        return out
    half_N = (1 - EXPLAINED) * there_N
    off_G = unsure(temperature_G, every, at_one_2N) * float(rows["n"].mean())
    out["r_high_half"] = min(
        bounds.mean(q_N - p_N - kept_N - half_N, problem).low(ALPHA) - x for p_N, x in zip(body_GN, off_G, strict=True)
    )
    up_to = np.flatnonzero(temperature_G <= temperature + 1e-9)
    if len(up_to):
        out["s_reference"] = 1 - float((q_N - body_GN[up_to]).mean(1).min()) / float(there_N.mean())
        out["r_low_half"] = min(
            bounds.mean(q_N - body_GN[i] - half_N, problem).high(ALPHA / len(up_to)) + off_G[i] for i in up_to
        )
    return out


def _least_drop(rows: pd.DataFrame) -> np.ndarray:
    """A lower bound of entropy less surprisal where entropies are not known: log p_T is concave in 1 / T, so that its
    slope at T = 1 is at least (log p_T - log p_1) / (1 / T - 1)."""
    if f"body:{laws.PLAIN}" not in rows:
        return np.full(len(rows), math.nan)
    cooler = [c.removeprefix("body:") for c in rows if c.startswith("body:T=") and c != f"body:{laws.PLAIN}"]
    slopes = [
        (rows[f"body:{name}"] - rows[f"body:{laws.PLAIN}"]).to_numpy(float) / (laws.exponent(name) - 1)
        for name in cooler
        if laws.exponent(name) > 1
    ]
    if not slopes:
        return np.full(len(rows), math.nan)
    # one temperature for all traces: a maximum by trace would be no bound of the mean
    return max(slopes, key=lambda x: np.nan_to_num(x.mean(), nan=-math.inf))


def _improbable(rows: pd.DataFrame, held: list[str]) -> dict[str, Any]:
    """For a true log q, P_Q(l <= -c) <= e^-c under any law: the smallest p-value over the laws, and its share."""
    from scipy.stats import binom

    worst, share, law = 1.0, 0.0, ""
    for name in held:
        low = int(((rows["log_q"] - rows[f"p:{name}"]) <= -RARE).sum())
        p = float(min(1.0, len(held) * binom.sf(low - 1, len(rows), math.exp(-RARE))))
        if p < worst:
            worst, share, law = p, low / len(rows), name
    return {"improbable_p": worst, "improbable": share, "law": law}
