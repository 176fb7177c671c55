"""Two sources on the same problems, problem by problem: every pair for the report, one pair for `analyzer compare`.

Differences are a minus b within each problem, averaged over the problems that both have; bootstrap over problems. The
horizon alone is no mean: it is read off each side's curve over the same problems. A source with several training steps
enters with its last one. Nothing here is a test of support.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.pairs.figures import FIGURES, draw_by_problem, mixed
from analyzer.analysis.pairs.words import MEASURES, says
from analyzer.analysis.support import copies, engine, laws, local, ratios
from analyzer.errors import UsageError, nearest
from analyzer.records import BUDGET, Estimate, Result, Tables
from analyzer.stats import bootstrap, passk, spans
from analyzer.stats.bootstrap import DRAWS

QUESTION = "How do two sources differ on the same problems?"
PAIRS = 10  # of sources without the reference that a report takes
BAND = (0.05, 0.95)  # of the reference's traces of a problem, by surprisal per token
LEAST = 8  # other traces of the reference that make a band
BY_PROBLEM = tuple(m for m in MEASURES if m != "horizon")  # measures that a problem has a value of
SHARES = ("pass_rate", "typical")  # counts of traces, which have an interval by problem
HURDLES = {"hurdles": "hurdles", "hurdle_share": "share"}  # measure -> column of the per-trace frame
OWN_LAW = (*HURDLES, "horizon")  # measures that need the source's own law


def run(
    tables: Tables,
    *,
    a: str | None = None,
    b: str | None = None,
    budget: int = BUDGET,
    seed: int = 0,
    draws: int = DRAWS,
) -> Result:
    """Paired differences of sources by problem.

    a, b: the one pair that is asked for. Without them: every source against the reference, then every pair of the
    others (the first PAIRS of them). budget: draws of the base that hurdles and the horizon are held against, and the
    most draws that pass@k takes.
    Measures: `pass_rate` (which is pass@1). `pass@k` at the largest power of two that `budget` and nine problems in ten
    allow on both sides; NaN in a problem with fewer draws. `n_tokens` (the median trace of a problem, tokens of the
    base). `nll_mean` (likewise, nats per token under the base): the logarithm of the median perplexity, so that its
    exponential is a ratio of perplexities and no measure of its own is made of those. `typical` (share of the traces
    between the 5 % and the 95 % point of the reference's own on the problem, by nll_mean; a trace of the reference is
    compared with the others). `hurdles` and `hurdle_share` (expected number a trace, and A_k, the chance of at least
    one): spans of four tokens on both sides, not the wider span of each source as in `support`, so that one thing is
    compared. `horizon`, h50 in tokens: see `_horizon`. The last three need the source's own law, and are NaN where
    `support` would not use it either.
    Estimates: `<a>-<b>.<measure>`, a minus b, over the problems where both have a value; pass@k with its number for k
    (`budget` where none is possible). Tables: pairs (what differs, in a sentence), differences (one row per pair and
    measure; k: draws, where they play a part), problems (one row per pair and problem: values of both sides, and for
    the shares of counts the interval of the difference within the problem, Newcombe's hybrid score).
    Raises UsageError for unknown labels, half a pair, or no two sources with a problem in common.
    """
    pairs, left = _pairs(tables, a, b)
    scores = last_steps(tables.scores) if tables.base else tables.scores.iloc[:0]
    whys = _no_law(tables, scores)
    held = local.measured(copies.without(tables)[0], budget) if not all(whys.values()) else None
    values = _by_problem(tables, scores, held, whys, budget)
    estimates: dict[str, Estimate] = {}
    rows: list[dict[str, Any]] = []
    said, problems, apart = [], [], []
    options = {"draws": draws, "seed": seed}
    for one, other in pairs:
        table, k = _joined(values, one, other, budget)
        if table.empty:
            apart.append(f"{one} and {other}")
            continue
        why = whys[one] or whys[other] or _other_laws(tables, held, one, other)
        if why:
            table = table.assign(**{f"{name}_{side}": math.nan for name in HURDLES for side in "ab"})
        problems.append(table)
        mine = []
        for name in MEASURES:
            if name == "horizon":
                row, found = _horizon(held, table, one, other, budget, why, **options)
            else:
                row, found = _difference(table, one, other, name, budget, k, why, **options)
            key = f"{one}-{other}.{name.replace('@k', f'@{k or budget}')}"
            # "a-b" against "c" and "a" against "b-c"
            estimates[key if key not in estimates else f"{one} - {other}.{key.rpartition('.')[2]}"] = found
            mine.append(row)
        rows += mine
        said.append({"a": one, "b": other, "says": says(mine)})
    if not rows:
        raise UsageError(f"{apart[0]} have no problem in common" if apart else "there is one source: nothing to pair")
    counts = dict.fromkeys(("k", "higher", "lower", "equal"), "Int64")
    frames = {"pairs": pd.DataFrame(said), "differences": pd.DataFrame(rows).astype(counts)}
    frames["problems"] = pd.concat(problems, ignore_index=True)
    params = {"reference": tables.reference, "budget": budget, "span": spans.SPAN, "draws": draws}
    params |= {"band": list(BAND), "pairs": len(problems)}
    name = "paired" if a is None else f"{a} against {b}"
    notes = _notes(frames, tables.reference, left, apart)
    return Result(name, QUESTION, estimates, frames, tuple(notes), params, seed)


def _pairs(tables: Tables, a: str | None, b: str | None) -> tuple[list[tuple[str, str]], int]:
    """The pairs to compare, and how many a report leaves out."""
    if (a is None) != (b is None):
        raise UsageError(f"a pair needs two sources; given: {a or b}")
    if a is not None and b is not None:
        for label in (a, b):
            if label not in tables.sources:
                raise UsageError(f"no source {label!r} in this run{nearest(label, tables.sources)}")
        return [(a, b)], 0
    others = [s for s in tables.sources if s != tables.reference]
    own = [(s, tables.reference) for s in others] if tables.reference in tables.sources else []
    among = list(combinations(others, 2))
    return own + among[:PAIRS], max(0, len(among) - PAIRS)


def _no_law(tables: Tables, scores: pd.DataFrame) -> dict[str, str]:
    """Source -> why its own law is not known or not to be used, "" where it is: the reasons of `support`."""
    base = scores[scores["model"] == tables.base]
    own = base[base["source"] == tables.reference]
    foreign = engine.foreign(tables, own, tables.reference, "the base model", "check --base and --template")
    out = {}
    for source, known in laws.known(tables).items():
        why = known.reason
        if not why and not known.brought:
            frame = base[base["source"] == source]
            why = foreign or ratios.log_q(tables, scores, frame, source)[1]
        out[source] = why
    return out


def _other_laws(tables: Tables, found: local.Local | None, a: str, b: str) -> str:
    """Why hurdles of two sources are no one measure: the base's laws that each is held against differ. (As a source was
    sampled is a law of its own, and the base's own sampler may be one of them.)"""
    if found is None or not any(laws.known(tables)[s].brought for s in (a, b)):
        return ""
    names = []
    for source in (a, b):
        rows = found.frame[found.frame["source"] == source]
        held = [c.removeprefix("p:") for c in rows if c.startswith("p:") and rows[c].notna().all()]
        names.append([name for name in held if name != laws.SOURCE])
    if set(names[0]) == set(names[1]) or not all(names):
        return ""
    said = "; ".join(f"{source}: {', '.join(own)}" for source, own in zip((a, b), names, strict=True))
    return f"the two are held against different laws of the base ({said}); bring the same temperatures for both"


def _by_problem(
    tables: Tables, scores: pd.DataFrame, found: local.Local | None, whys: dict[str, str], budget: int
) -> pd.DataFrame:
    """Index (source, problem); for each measure its value and, of a share, n and hits; NaN where it is not known.
    pass@k is left to the pair, which sets k."""
    traces = last_steps(tables.traces)
    out = traces.groupby(["source", "problem"]).size().rename("n").to_frame()
    known = traces[traces["correct"].notna()]
    out = _share(out, known.assign(hit=known["correct"].astype(float)), "pass_rate")
    base = scores[scores["model"] == tables.base]
    for name in ("n_tokens", "nll_mean"):
        column = base[base[name].notna()] if len(base) else base
        out[name] = column.astype({name: float}).groupby(["source", "problem"])[name].median()
    out = _share(out, _typical(base, tables.reference), "typical")
    columns = {name: f"{column}{spans.SPAN}@{budget:g}" for name, column in HURDLES.items()}
    if found is None or not set(columns.values()) <= set(found.frame):
        return out.assign(**dict.fromkeys(columns, math.nan))
    rows = found.frame[among(found.frame["key"], set(traces["key"]))]
    rows = rows[~rows["source"].map(whys).astype(bool)]
    means = rows.groupby(["source", "problem"])[list(columns.values())].mean()
    means.columns = list(columns)
    return out.join(means)


def _share(out: pd.DataFrame, traces: pd.DataFrame, name: str) -> pd.DataFrame:
    """Add the columns `name`, `name`.n and `name`.hits from the 0/1 column `hit`."""
    found = traces.groupby(["source", "problem"])["hit"].agg(["mean", "size", "sum"])
    found.columns = [name, f"{name}.n", f"{name}.hits"]
    return out.join(found)


def _typical(base: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Columns source, problem, hit: whether a trace's surprisal per token has a rank inside BAND among the reference's
    (other) traces of its problem; problems with fewer than LEAST of them are left out."""
    own = base[base["nll_mean"].notna()] if len(base) else base
    ranges = {p: np.sort(v.to_numpy(float)) for p, v in own[own["source"] == reference].groupby("problem")["nll_mean"]}
    parts = [pd.DataFrame({"source": [], "problem": [], "hit": []})]
    for (source, problem), values in own.groupby(["source", "problem"])["nll_mean"]:
        sorted_R, itself = ranges.get(problem, np.empty(0)), source == reference
        others = len(sorted_R) - itself
        if others < LEAST:
            continue
        x = values.to_numpy(float)
        below, upto = (np.searchsorted(sorted_R, x, side=side) for side in ("left", "right"))
        rank = (below + upto - itself) / 2 / others
        hit = ((rank >= BAND[0]) & (rank <= BAND[1])).astype(float)
        parts.append(pd.DataFrame({"source": source, "problem": problem, "hit": hit}))
    return pd.concat(parts if len(parts) == 1 else parts[1:], ignore_index=True)


def _joined(values: pd.DataFrame, a: str, b: str, budget: int) -> tuple[pd.DataFrame, int]:
    """One row per problem of both: a, b, problem, n_a, n_b, <measure>_a and _b, <share>_low and _high. And k of pass@k,
    0 where there is none above 1."""
    sources = values.index.get_level_values(0)
    if a not in sources or b not in sources:
        return pd.DataFrame(), 0
    both = values.loc[a].add_suffix("_a").join(values.loc[b].add_suffix("_b"), how="inner").sort_index()
    k = _draws(both, budget)
    out = pd.DataFrame({"a": a, "b": b, "problem": both.index, "n_a": both["n_a"].to_numpy()})
    out["n_b"] = both["n_b"].to_numpy()
    for name in BY_PROBLEM:
        for side in "ab":
            column = f"{name}_{side}"
            out[column] = _solved(both, side, k) if name == "pass@k" else both[column].to_numpy(float)
        if name in SHARES:
            counts = [both[f"{name}.{x}_{side}"].to_numpy(float) for side in "ab" for x in ("hits", "n")]
            out[f"{name}_low"], out[f"{name}_high"] = newcombe(*counts)
    return out, k


def _draws(both: pd.DataFrame, budget: int) -> int:
    """The largest power of two above 1 that is within the budget and that 90 % of the problems have judged traces for
    on both sides (as for the curves of `boundary`); 0 without one."""
    n_P = both[["pass_rate.n_a", "pass_rate.n_b"]].dropna().min(axis=1).to_numpy(int)
    return max((int(k) for k in passk.budgets(n_P) if 1 < k <= budget and k & (k - 1) == 0), default=0)


def _solved(both: pd.DataFrame, side: str, k: int) -> np.ndarray:
    """pass@k of one side's problems, float [P]; NaN where there are fewer than k judged traces."""
    n_P, hits_P = (both[f"pass_rate.{x}_{side}"].fillna(0).to_numpy(int) for x in ("n", "hits"))
    return passk.pass_at_k(n_P, hits_P, np.array([k]))[:, 0] if k else np.full(len(both), np.nan)


def newcombe(
    hits_a: np.ndarray, n_a: np.ndarray, hits_b: np.ndarray, n_b: np.ndarray, *, z: float = 1.959964
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a difference of two independent shares, a - b: method 10 of Newcombe, Statistics in Medicine 17
    (1998) 873, from Wilson's intervals. NaN where a side has no trace."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ends = []
        for hits, n in ((hits_a, n_a), (hits_b, n_b)):
            p = hits / n
            middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
            ends.append((p, (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))
    (p, low_p, high_p), (q, low_q, high_q) = ends
    return p - q - np.hypot(p - low_p, high_q - q), p - q + np.hypot(high_p - p, q - low_q)


def _difference(
    table: pd.DataFrame, a: str, b: str, name: str, budget: int, k: int, why: str, *, draws: int, seed: int
) -> tuple[dict[str, Any], Estimate]:
    """The row of `differences` and the estimate of one measure of one pair. k: of pass@k; why: why an own law is not
    known."""
    both = table[[f"{name}_a", f"{name}_b"]].dropna()
    d_P = (both[f"{name}_a"] - both[f"{name}_b"]).to_numpy(float)
    finite = np.isfinite(d_P)  # a trace that the base could never write has infinite surprisal
    both, d_P, endless = both[finite], d_P[finite], int((~finite).sum())
    found = bootstrap.mean(d_P, np.arange(len(d_P)), draws=draws, seed=seed)
    notes, drawn = [], None
    why = why if name in OWN_LAW else ""  # answers need no law
    if name == "pass@k" and k:
        drawn, fewer = k, int(table[["pass_rate_a", "pass_rate_b"]].notna().all(axis=1).sum()) - len(d_P)
        notes += [f"k = {k}"] + ([f"{fewer} problems with fewer draws left out"] if fewer else [])
    elif name == "pass@k" and table[["pass_rate_a", "pass_rate_b"]].notna().all(axis=1).any():
        why = "too few draws a problem, and pass@1 is pass_rate" if budget > 1 else "the budget is 1: see pass_rate"
    elif name in HURDLES:
        drawn = budget
        if len(d_P) and not both.to_numpy().any():
            notes.append("no hurdle on either side: what other problems would show is not in the interval")
    if not len(d_P):
        notes.append(_unknown(name, why if name == "pass@k" or name in OWN_LAW else ""))
    if endless:
        notes.append(f"{endless} problems with an infinite median left out")
    row = {"a": a, "b": b, "measure": name, "k": drawn, "problems": len(d_P)}
    row |= {f"mean_{side}": float(both[f"{name}_{side}"].mean()) if len(d_P) else math.nan for side in "ab"}
    row |= {"difference": found.value, "low": found.low, "high": found.high}
    row |= {"higher": int((d_P > 0).sum()), "lower": int((d_P < 0).sum()), "equal": int((d_P == 0).sum())}
    note = "; ".join(notes)
    return row | {"note": note}, Estimate.of(found, note)


def _unknown(name: str, why: str) -> str:
    return f"{name} is not known for both" + (f": {why}" if why else "")


def _horizon(
    found: local.Local | None, table: pd.DataFrame, a: str, b: str, budget: int, why: str, *, draws: int, seed: int
) -> tuple[dict[str, Any], Estimate]:
    """Row and estimate of the difference of h50: after how many tokens half of the source is beyond the budget,
    whatever way the base is sampled (the last curve of `Local`).

    Both curves are over the joined problems, each of which counts once, so that unequal numbers of traces do not make
    two mixes of problems; `support` weighs by traces, all of the source's. Interval: the joined problems resampled, the
    same draws on both sides. A side that does not get there has no h50 and the pair no difference, NaN with a note; in
    the draws it counts as infinite, and as either sign where both sides do not get there.
    """
    row: dict[str, Any] = {"a": a, "b": b, "measure": "horizon", "k": budget, "problems": 0}
    row |= dict.fromkeys(("mean_a", "mean_b", "difference", "low", "high"), math.nan)
    row |= dict.fromkeys(("higher", "lower", "equal"))  # a problem has no horizon of its own
    curves = [found.curves.get(source) for source in (a, b)] if found and not why else []
    shared = set(table["problem"]).intersection(*(c.problems if c else () for c in curves)) if curves else set()
    if not shared:
        note = _unknown("horizon", why)
        return row | {"note": note}, Estimate(math.nan, method="no value", note=note)
    m, place_W = len(shared), curves[0].place_W
    means = [_excess(curve, sorted(shared)) for curve in curves]
    ends = [local.crossing(place_W, mean_PW.mean(0)) for mean_PW in means]
    row |= {"problems": m} | {f"mean_{s}": x if math.isfinite(x) else math.nan for s, x in zip("ab", ends, strict=True)}
    if not all(map(math.isfinite, ends)):
        never = [(s, p.mean(0)[-1]) for s, x, p in zip((a, b), ends, means, strict=True) if math.isinf(x)]
        note = "; ".join(f"beyond the traces of {s}: the excess ends at {last:.3f}" for s, last in never)
        return row | {"note": note}, Estimate(math.nan, n=m, method="no value", note=note)
    value, low, high, note = ends[0] - ends[1], math.nan, math.nan, ""
    method = bootstrap.too_few(m, bootstrap.FEW)
    if m >= bootstrap.FEW:
        method = f"bootstrap over problems, {draws} draws"
        w_BP = bootstrap.weights(m, draws=draws, seed=seed) / m
        one_B, other_B = (np.array([local.crossing(place_W, x_W) for x_W in w_BP @ mean_PW]) for mean_PW in means)
        with np.errstate(invalid="ignore"):
            d_B = one_B - other_B
        low, high = (bootstrap.quantiles(np.nan_to_num(d_B, nan=x, posinf=np.inf, neginf=-np.inf), m)[i]
                     for i, x in enumerate((-np.inf, np.inf)))  # fmt: skip
        open_ = [name for name, x in (("lower", low), ("upper", high)) if math.isinf(x)]
        note = f"its {' and '.join(open_)} end is beyond the traces" if open_ else ""
        low, high = (x if math.isfinite(x) else math.nan for x in (low, high))
    row |= {"difference": value, "low": low, "high": high, "note": note}
    return row, Estimate(value, low, high, m, method, note)


def _excess(curve: local.Curve, problems: list[str]) -> np.ndarray:
    """Mean excess over the first w tokens against every law, float [P, W], of these problems."""
    at = {problem: i for i, problem in enumerate(curve.problems)}
    index = [at[problem] for problem in problems]
    return curve.sum_CPW[-1][index] / curve.n_P[index][:, None]


def _notes(frames: dict[str, pd.DataFrame], reference: str, left: int, apart: list[str]) -> list[str]:
    shown = mixed(frames["problems"], reference)
    pairs = frames["pairs"].set_index(["a", "b"])["says"]
    n = int(frames["differences"][["low", "high"]].notna().any(axis=1).sum())
    notes = [
        pairs[shown] if shown else pairs.iloc[0],
        "Each interval is at 95 % for itself, and nothing is corrected for their number (no Holm, no false discovery "
        f"rate): one in twenty misses its value by chance, and there are {n}.",
    ]
    if frames["problems"][["hurdles_a", "hurdles_b"]].notna().all(axis=1).any():
        notes.append(
            f"A hurdle here is {spans.SPAN} tokens in a row on both sides, though `support` shows the wider of two "
            "spans for each source: the measure of a pair is one thing."
        )
    if len(pairs) > 1:
        notes.append("What differs between the other pairs stands in the table pairs, a sentence each.")
    if left:
        notes.append(f"{left} further pairs are not shown; any two: analyzer compare RUN A B.")
    if apart:
        notes.append(f"No problem in common: {'; '.join(apart)}.")
    return notes


draw = draw_by_problem
__all__ = ["FIGURES", "MEASURES", "QUESTION", "draw", "newcombe", "run", "says"]
