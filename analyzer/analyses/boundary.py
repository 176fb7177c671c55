"""What each source can solve within k draws, problem by problem against the reference. Needs no model, only `correct`.

A comparison of two sources is over the problems that both have (joined), paired; accuracies over all rows stand beside
it in `accuracy`. A source with several training steps has one curve per (source, step) in the tables; its estimates are
those of the last step. Solved-set counts say little about leaving the base's reach: two identical models already give
NDR > 0 and SRR < 1, hence the A/A row; `answer_test` is the test at a budget that the verdict reads.

Not covered: extrapolation beyond n, Cover@tau, a chance baseline for guessable answers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analyses import answers
from analyzer.analyses.drawing import band, look, nothing
from analyzer.records import Estimate, Figure, Result, Tables
from analyzer.stats import bootstrap, passk
from analyzer.stats.bootstrap import DRAWS
from analyzer.stats.coverage import CELLS, coverage, halves

QUESTION = (
    "Which problems can each source solve within k draws, and does training add any that the reference does not reach?"
)
DELTA_K = 256
ZETA = 0.05
MUTE = "no source says which rows are correct"


def run(tables: Tables, *, budget: int = 64, seed: int = 0, draws: int = DRAWS) -> Result:
    """pass@k, crossover, histogram, coverage cells, SRR and kin, sampling gap, diversity and the answer-level test.

    Estimates: `<s>.pass@<k>` (k = 1, 2, 4, ... and the largest k that 90 % of the problems have draws for; over
    problems with n >= k, joined with the reference), `<s>.crossover_k`, `<s>.coverage.<cell>` (shares of the joined
    problems solved within the common k), `<s>.srr|ndr|sds|nscr`, `<s>.delta_se` (pass@k of the reference, k = min(256,
    common n), minus pass@1). All intervals resample problems. No correctness: NaN with the reason.
    Tables: accuracy, curves, paired, histogram, coverage, groups, diversity, answer_test.
    """
    arms = _arms(tables.traces, tables.sources)
    counts = {arm: _counts(tables.traces[mask]) for arm, mask in arms.items()}
    last = {
        source: max((a for a in arms if a[0] == source), key=lambda a: -1 if a[1] is None else a[1])
        for source in tables.sources
    }
    options = {"draws": draws, "seed": seed}
    reference = counts[last[tables.reference]] if tables.reference in last else _empty()
    others = [c for (s, _), c in counts.items() if s != tables.reference and len(c)]
    joined = reference[reference.index.isin(set().union(*(c.index for c in others)))] if others else reference
    estimates: dict[str, Estimate] = {}
    rows: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in ("accuracy", "curves", "paired", "histogram", "coverage", "groups", "diversity", "answer_test")
    }
    if len(joined) > 0:
        one, other, k = halves(joined["n"], joined["c"], seed=seed)
        if k:
            head = {"source": f"{tables.reference} (A/A halves)", "step": None}
            rows["coverage"].append(head | _coverage_row(coverage(one, other, **options), k))

    for (source, step), mask in arms.items():
        own, final = counts[source, step], last[source] == (source, step)
        head = {"source": source, "step": step}
        here = joined if source == tables.reference else own[own.index.isin(reference.index)] if len(reference) else own
        rows["accuracy"].append(head | _accuracy(tables.traces[mask], own, here))
        rows["diversity"].append(head | answers.variety(tables.traces[mask], **options))
        if len(own) == 0:
            if final:
                estimates[f"{source}.pass@1"] = Estimate(
                    math.nan, note=f"no row of {source} says whether it is correct"
                )
            continue
        curve = _curve(here, options)
        rows["curves"] += [head | row for row in curve]
        rows["histogram"] += [
            head | {"bin": b, "problems": int(v), "n": len(here)}
            for b, v in zip(passk.BINS, passk.histogram(here["n"], here["c"]), strict=True)
        ]
        rows["groups"] += [
            head | {"group": g} | row for g, part in here.groupby("group") for row in _curve(part, options)
        ]
        if final:
            for row in curve:
                estimates[f"{source}.pass@{row['k']}"] = Estimate(
                    row["pass"], row["low"], row["high"], row["problems"], row["method"]
                )
        if source != tables.reference:
            found = _compare(reference, own, head, rows, budget, options)
            if final:
                estimates |= {f"{source}.{name}": e for name, e in found.items()}

    notes = _notes(tables, arms, counts, last)
    params = {"budget": budget, "draws": draws, "zeta": ZETA, "delta_k": DELTA_K, "reference": tables.reference}
    return Result(
        "boundary", QUESTION, estimates, {name: pd.DataFrame(r) for name, r in rows.items()}, tuple(notes), params, seed
    )


def _arms(traces: pd.DataFrame, sources: list[str]) -> dict[tuple[str, int | None], np.ndarray]:
    """(source, step) -> boolean mask of rows, sources in the given order, steps ascending."""
    out = {}
    for source in sources:
        mine = (traces["source"] == source).to_numpy()
        for step in sorted(traces.loc[mine, "step"].dropna().unique()):
            out[source, int(step)] = mine & (traces["step"] == step).fillna(False).to_numpy(dtype=bool)
        if traces.loc[mine, "step"].isna().any():
            out[source, None] = mine & traces["step"].isna().to_numpy()
    return out


def _empty() -> pd.DataFrame:
    return pd.DataFrame({"n": np.zeros(0, dtype=int), "c": np.zeros(0, dtype=int), "group": []})


def _counts(traces: pd.DataFrame) -> pd.DataFrame:
    """Draws with known correctness n, correct ones c and group per problem (index, sorted)."""
    known = traces[traces["correct"].notna()]
    if known.empty:
        return _empty()
    by = known.assign(
        correct=known["correct"].astype(int), group=known["group"].astype(object).where(known["group"].notna(), "all")
    ).groupby("problem")
    return pd.DataFrame({"n": by.size(), "c": by["correct"].sum(), "group": by["group"].first()})


def _accuracy(traces: pd.DataFrame, own: pd.DataFrame, here: pd.DataFrame) -> dict[str, Any]:
    """Row-level accuracy beside the mean over joined problems."""
    known = traces["correct"].dropna()
    return {
        "rows": len(traces),
        "rows_with_correct": len(known),
        "accuracy_rows": float(known.mean()) if len(known) else math.nan,
        "problems": int(traces["problem"].nunique()),
        "problems_joined": len(here) if len(own) else 0,
        "accuracy_joined": float((here["c"] / here["n"]).mean()) if len(own) and len(here) else math.nan,
    }


def _curve(counts: pd.DataFrame, options: dict[str, int]) -> list[dict[str, Any]]:
    """pass@k with pointwise bands over the grid of `passk.budgets`."""
    k_K = passk.budgets(counts["n"].to_numpy())
    if len(k_K) == 0:
        return []
    values = passk.pass_at_k(counts["n"], counts["c"], k_K)
    means = bootstrap.column_means(values, bootstrap.weights(len(counts), **options))
    out = []
    for j, k in enumerate(k_K):
        value, problems = float(np.nanmean(values[:, j])), int((~np.isnan(values[:, j])).sum())
        low, high = bootstrap.quantiles(means[:, j])
        method = f"bootstrap over problems, {options['draws']} draws"
        if value in (0.0, 1.0):  # resampling a constant gives the constant; the problems are the trials
            bound, method = bootstrap.share_upper(0, problems), "exact binomial over problems"
            low, high = (0.0, bound) if value == 0 else (1 - bound, 1.0)
        elif problems == 1:
            low, high, method = math.nan, math.nan, "one problem: no interval"
        row = {"k": int(k), "pass": value, "low": low, "high": high, "problems": problems, "method": method}
        out.append(row)
    return out


def _compare(
    reference: pd.DataFrame,
    own: pd.DataFrame,
    head: dict[str, Any],
    rows: dict[str, list],
    budget: int,
    options: dict[str, int],
) -> dict[str, Estimate]:
    """Everything paired with the reference; fills the tables, returns estimates by bare name."""
    both = own.join(reference.add_suffix("_ref"), how="inner")
    names = ("crossover_k", *(f"coverage.{c}" for c in CELLS), *passk.Leash._fields, "delta_se")
    if both.empty:
        why = (
            "the reference says nothing about correctness"
            if reference.empty
            else "no problem in common with the reference"
        )
        return {name: Estimate(math.nan, note=why) for name in names}
    k_K = passk.budgets(np.minimum(both["n"], both["n_ref"]).to_numpy())
    ref, src = passk.pass_at_k(both["n_ref"], both["c_ref"], k_K), passk.pass_at_k(both["n"], both["c"], k_K)
    ref, src = np.where(np.isnan(src), np.nan, ref), np.where(np.isnan(ref), np.nan, src)
    w_BP = bootstrap.weights(len(both), **options)
    gap_BK = bootstrap.column_means(src - ref, w_BP)
    method = f"paired bootstrap over problems, {options['draws']} draws"
    for j, k in enumerate(k_K):
        low, high = bootstrap.quantiles(gap_BK[:, j])
        point = [float(np.nanmean(x[:, j])) for x in (src, ref, src - ref)]
        row = dict(zip(("source_pass", "reference_pass", "difference"), point, strict=True))
        row |= {"low": low, "high": high, "problems": int((~np.isnan(src[:, j])).sum())}
        rows["paired"].append(head | {"k": int(k)} | row)
    k = int(k_K[-1])
    found = coverage(ref[:, -1], src[:, -1], **options)
    rows["coverage"].append(head | _coverage_row(found, k))
    rows["answer_test"] += [head | row for row in answers.budget_test(both, budget)]
    out = {"crossover_k": _crossing(k_K, np.nanmean(src - ref, axis=0), gap_BK, len(both), method)}
    for name, i in found.items():
        note = f"solved within k = {k} draws, eps = {passk.epsilon(k, zeta=ZETA):.3g}"
        note += "" if math.isfinite(i.value) else "; undefined: the count in the denominator is 0"
        out[f"coverage.{name}" if name in CELLS else name] = Estimate(i.value, i.low, i.high, i.n, i.method, note)
    return out | {"delta_se": _delta(both, w_BP, method)}


def _crossing(k_K: np.ndarray, gap_K: np.ndarray, gap_BK: np.ndarray, problems: int, method: str) -> Estimate:
    value, at_B = float(passk.crossover(k_K, gap_K)[0]), passk.crossover(k_K, gap_BK)
    started, never = ~np.isnan(at_B), np.isposinf(at_B)
    share = (
        f"P(no crossing up to k = {k_K[-1]}) = {never[started].mean():.2f}"
        if started.any()
        else "no resample leads at k = 1"
    )
    if started.mean() < 1:
        share += f"; {1 - started.mean():.0%} of the resamples have no lead at k = 1"
    if math.isnan(value):
        return Estimate(
            math.nan,
            n=problems,
            method=method,
            note=f"the source does not lead at k = 1, so nothing can cross; {share}",
        )
    if math.isinf(value):
        return Estimate(math.nan, n=problems, method=method, note=f"no crossing up to k = {k_K[-1]}; {share}")
    low, high = bootstrap.quantiles(at_B)
    return Estimate(value, low, high, problems, method + ", log-interpolated", share)


def _coverage_row(found: dict[str, bootstrap.Interval], k: int) -> dict[str, Any]:
    """Counts of the cells, their rates and eps at k; a row of the table `coverage`."""
    n = found["both"].n
    row = {"k": k, **{name: found[name].value * n for name in CELLS}, "n": n}
    return row | {name: found[name].value for name in passk.Leash._fields} | {"eps": passk.epsilon(k, zeta=ZETA)}


def _delta(both: pd.DataFrame, w_BP: np.ndarray, method: str) -> Estimate:
    k = min(DELTA_K, int(passk.budgets(both["n_ref"].to_numpy())[-1]))
    at_k = passk.pass_at_k(both["n_ref"], both["c_ref"], np.array([k]))[:, 0]
    at_1 = (both["c"] / both["n"]).to_numpy()
    gap = np.where(np.isnan(at_k), np.nan, at_k - at_1)[:, None]
    low, high = bootstrap.quantiles(bootstrap.column_means(gap, w_BP)[:, 0])
    note = f"reference pass@{k} - source pass@1" + (
        "" if k == DELTA_K else f"; k is below {DELTA_K} because n is, so not comparable with published values"
    )
    return Estimate(
        passk.delta_se(np.nanmean(at_k), np.nanmean(np.where(np.isnan(at_k), np.nan, at_1))),
        low,
        high,
        int((~np.isnan(at_k)).sum()),
        method,
        note,
    )


def _notes(tables: Tables, arms: dict, counts: dict, last: dict) -> list[str]:
    notes = []
    for source in tables.sources:
        mine = tables.traces[tables.traces["source"] == source]
        unknown = int(mine["correct"].isna().sum())
        if unknown > 0:
            notes.append(
                f"{source}: {unknown:,} of {len(mine):,} rows do not say whether they are correct"
                + ("; it has no pass@k." if unknown == len(mine) else " and count nowhere here.")
            )
        n_P = counts[last[source]]["n"]
        if len(n_P) and n_P.min() != n_P.max():
            notes.append(
                f"{source}: {n_P.min()} to {n_P.max()} draws per problem; pass@k is over the problems with n >= k."
            )
        steps = sum(arm[0] == source for arm in arms)
        if steps > 1:
            final = last[source][1]
            notes.append(f"{source} has {steps} training steps; the estimates are those of the last ({final}).")
    if any(len(c) for c in counts.values()):
        notes.append(
            "Intervals resample problems: they speak of problems like these, not of this benchmark alone. "
            "A pass@k with k > n / 2 rests on few draws."
        )
    return notes


def _final(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each source's last step."""
    step = pd.to_numeric(frame["step"]).fillna(-1)
    return frame[step == step.groupby(frame["source"]).transform("max")]


def draw_curves(result: Result, ax: Any) -> Any:
    """pass@k over k (log 2) with pointwise bands; one colour, marker and line style per source."""
    if result.tables["curves"].empty:
        return nothing(ax, MUTE)
    styles = look(result.tables["accuracy"]["source"])
    for source, part in _final(result.tables["curves"]).groupby("source", sort=False):
        band(ax, part, "pass", styles[source], source)
    ax.set(xlabel="k", ylabel="pass@k", ylim=(-0.02, 1.02))
    return ax


def draw_histogram(result: Result, ax: Any) -> Any:
    """Problems by accuracy (the bins of Yue et al., Fig. 5), sources side by side."""
    import seaborn as sns

    if result.tables["histogram"].empty:
        return nothing(ax, MUTE)
    styles, data = look(result.tables["accuracy"]["source"]), _final(result.tables["histogram"])
    palette = {source: styles[source]["color"] for source in data["source"].unique()}
    sns.barplot(data=data, x="bin", y="problems", hue="source", palette=palette, ax=ax)
    ax.tick_params(axis="x", rotation=45)
    ax.set(xlabel="share of draws correct", ylabel="problems")
    return ax


def caption_curves(result: Result) -> str:
    parts = []
    for source, part in (
        _final(result.tables["curves"]).groupby("source", sort=False) if len(result.tables["curves"]) else []
    ):
        first, end = part.iloc[0], part.iloc[-1]
        cross = result.estimates.get(f"{source}.crossover_k")
        tail = ""
        if cross and math.isfinite(cross.value) and math.isfinite(cross.high):  # an open interval is no finding
            tail = f", crossing the reference near k = {cross.value:.3g} [{cross.low:.3g}, {cross.high:.3g}]"
        at_end = f"{end['pass']:.3f} at k = {end['k']} (n = {end['problems']} problems)"
        parts.append(f"{source} {first['pass']:.3f} at k = 1, {at_end}{tail}")
    return "pass@k with 95 % bands over problems. " + "; ".join(parts) + "."


def caption_histogram(result: Result) -> str:
    parts = []
    for source, part in (
        _final(result.tables["histogram"]).groupby("source", sort=False) if len(result.tables["histogram"]) else []
    ):
        by = dict(zip(part["bin"], part["problems"], strict=True))
        parts.append(f"{source} solves {by['0']} of n = {part['n'].iloc[0]} problems never and {by['1']} always")
    return "Problems by the share of draws that are correct. " + "; ".join(parts) + "."


FIGURES = {
    "pass_at_k": Figure(draw_curves, "curves", caption_curves),
    "accuracy_histogram": Figure(draw_histogram, "histogram", caption_histogram, width=2),
}
draw = draw_curves
