"""What each source can solve within k draws, problem by problem against the reference. Needs no model, only `correct`.

Curves, coverage and what is paired with the reference are over the problems that all compared sources have (`basis`);
accuracies over all rows stand beside it in `accuracy`, the answer test is over all that a source shares with the
reference. A source with several training steps has one curve per (source, step) in the tables; its estimates are
those of the last step. Solved-set counts say little about leaving the base's reach: two identical models already give
NDR > 0 and SRR < 1, hence the A/A row; `answer_test` is the test at a budget that the verdict reads. Luck, reliability
and unseen answers are in `answers`. Not covered: extrapolation beyond n.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis import basis
from analyzer.analysis.boundary import answers, curves
from analyzer.analysis.boundary.curves import DELTA_K
from analyzer.analysis.drawing import above, band, look, nothing
from analyzer.analysis.strategy import ends as strategy_ends
from analyzer.analysis.support import copies
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.stats import passk
from analyzer.stats.bootstrap import ALPHA, DRAWS
from analyzer.stats.budget import holm
from analyzer.stats.coverage import coverage, halves

QUESTION = (
    "Which problems does each source solve within k draws, and does it solve any that the reference's draws do not?"
)
TABLES = ("accuracy", "curves", "paired", "histogram", "coverage", "groups", "diversity", "answer_test")
TABLES += ("unseen", "luck", "cover")
MUTE = "no source says which rows are correct"


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """pass@k, crossover, histogram, coverage cells, SRR and kin, sampling gap, diversity and the answer-level test.

    Estimates: `<s>.pass@<k>` (k = 1, 2, 4, ... and the largest k that 90 % of the problems have draws for; over the
    compared problems with n >= k in every source whose curve goes so far), `<s>.crossover_k` (where the reference is
    strictly ahead for the first time, every k looked at), `<s>.coverage.<cell>` (shares of the joined
    problems solved within the common k), `<s>.srr|ndr|sds|nscr`, `<s>.delta_se` (pass@k of the reference, k = min(256,
    common n), minus pass@1). All intervals resample problems. No correctness: NaN with the reason.
    Tables: accuracy, curves, paired, histogram, coverage, groups, diversity, answer_test.
    """
    traces, arms, counts, last, reference, chosen, held, over = sides = compared(tables)
    options = {"draws": draws, "seed": seed}
    joined = held[last[tables.reference]] if tables.reference in last else _empty()
    beside = {s: held[arm]["n"] for s, arm in last.items() if chosen.kind[s] == basis.COMMON and len(held[arm])}
    beside = pd.DataFrame(beside) if beside else None
    estimates: dict[str, Estimate] = {}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    rows["answer_test"] = _answer_test(tables, sides, budget)
    own_traces = sides.of(tables.reference)
    said = answers.known(own_traces)
    if len(joined) > 0:
        one, other, k = halves(joined["n"], joined["c"], seed=seed)
        if k:
            head = {"source": f"{tables.reference} (A/A halves)", "step": None}
            rows["coverage"].append(head | curves.coverage_row(coverage(one, other, **options), k))

    for (source, step), mask in arms.items():
        own, here, final = counts[source, step], held[source, step], last[source] == (source, step)
        head = {"source": source, "step": step}
        rows["accuracy"].append(head | _accuracy(traces[mask], own, here) | {"basis": chosen.kind[source]})
        rows["diversity"].append(head | answers.variety(traces[mask], **options))
        unseen = answers.unseen(traces[mask], said if source != tables.reference else None)
        rows["unseen"].append(head | unseen)
        if final:
            names = ("mass", "low", "high", "problems", "method", "note")
            estimates[f"{source}.unseen_answers"] = Estimate(*(unseen[name] for name in names))
        if len(own) == 0:
            if final:
                estimates[f"{source}.pass@1"] = Estimate(
                    math.nan, note=f"no row of {source} says whether it is correct"
                )
            continue
        draws_beside = beside if final and chosen.kind[source] == basis.COMMON else None
        curve = curves.curve(here, options, draws_beside)
        rows["curves"] += [head | row for row in curve]
        rows["histogram"] += [
            head | {"bin": b, "problems": int(v), "n": len(here)}
            for b, v in zip(passk.BINS, passk.histogram(here["n"], here["c"]), strict=True)
        ]
        rows["groups"] += [
            head | {"group": g} | row
            for g, part in here.groupby("group")
            for row in curves.curve(part, options, draws_beside)
        ]
        rows["luck"] += [head | row for row in answers.luck(own_traces, here, reference, **options)]
        rows["cover"] += [head | row for row in answers.cover(here)]
        if final:
            for row in curve:
                estimates[f"{source}.pass@{row['k']}"] = Estimate(
                    row["pass"], row["low"], row["high"], row["problems"], row["method"], over[source]
                )
        if source != tables.reference:
            pair = here.join(reference.add_suffix("_ref"), how="inner")
            found = curves.compare(pair, len(reference), head, rows, options)
            if final:
                estimates |= {f"{source}.{name}": e for name, e in found.items()}

    notes = [f"{s}: pass@k is {said}." for s, said in over.items() if said] + _notes(tables, arms, counts, last)
    params = {"budget": budget, "draws": draws, "zeta": ALPHA, "delta_k": DELTA_K, "reference": tables.reference}
    return Result(
        "boundary", QUESTION, estimates, {name: pd.DataFrame(r) for name, r in rows.items()}, tuple(notes), params, seed
    )


class Sides(NamedTuple):
    """The traces (column `cut`: whether a limit cut them before an answer), their rows by (source, step), draws and
    correct ones by problem of each arm, each source's last arm, the counts of the reference's, the problems that are
    compared, the counts of each arm over them, and which these are, in words ("": all that a source has)."""

    traces: pd.DataFrame
    arms: dict[tuple[str, int | None], np.ndarray]
    counts: dict[tuple[str, int | None], pd.DataFrame]
    last: dict[str, tuple[str, int | None]]
    reference: pd.DataFrame
    chosen: basis.Basis
    held: dict[tuple[str, int | None], pd.DataFrame]
    over: dict[str, str]

    def of(self, source: str) -> pd.DataFrame:
        """The traces of a source's last arm."""
        return self.traces[self.arms[self.last[source]]] if source in self.last else self.traces.iloc[:0]


def compared(tables: Tables) -> Sides:
    traces = tables.traces.assign(cut=strategy_ends.unfinished(tables, tables.traces))
    arms = _arms(traces, tables.sources)
    counts = {arm: _counts(traces[mask]) for arm, mask in arms.items()}
    last = {
        source: max((a for a in arms if a[0] == source), key=lambda a: -1 if a[1] is None else a[1])
        for source in tables.sources
    }
    reference = counts[last[tables.reference]] if tables.reference in last else _empty()
    chosen = basis.choose({s: set(counts[arm].index) for s, arm in last.items()}, tables.reference)
    held = {arm: _held(c, chosen.problems[arm[0]], last[arm[0]] == arm, reference) for arm, c in counts.items()}
    over = {s: _over(s, counts[arm], chosen, tables.reference) for s, arm in last.items()}
    return Sides(traces, arms, counts, last, reference, chosen, held, over)


def certifying(tables: Tables, budget: int) -> Result:
    """What the verdict reads: the table `answer_test` alone; nothing is drawn in it."""
    return Result("boundary", "", {}, {"answer_test": pd.DataFrame(_answer_test(tables, compared(tables), budget))})


def _answer_test(tables: Tables, sides: Sides, budget: int) -> list[dict[str, Any]]:
    """Rows of `answer_test`: of every arm that has problems in common with the reference."""
    traces, own = sides.traces, sides.of(tables.reference)
    guess_P, mild = answers.guess_rate(answers.golds(traces)), answers.lenient(own, traces)
    half = answers.parity(own, np.ones(len(own), bool))
    raised = int((mild["correct"].astype("boolean") & ~own["correct"].astype("boolean")).fillna(False).sum())
    rows = []
    for (source, step), mask in sides.arms.items():
        if source != tables.reference and sides.held[source, step].index.isin(sides.reference.index).any():
            found = _against(traces, mask, answers.parity(traces, mask), mild, half, guess_P, budget)
            rows += [{"source": source, "step": step, "raised": raised} | row for row in found]
    return rows


def _against(
    traces: pd.DataFrame,
    mask: np.ndarray,
    half: np.ndarray,
    reference: pd.DataFrame,
    reference_half: np.ndarray,
    guess_P: pd.Series,
    budget: int,
) -> list[dict[str, Any]]:
    """Rows of `answers.budget_test` of one arm against the reference's traces as the milder grader sees them, without
    those of which no answer was read; with the share of draws on both sides of which none was (0 where the dumps have
    none), and the problems where that is all that the reference has. Where long texts of the reference come more than
    once, p is the larger one of all rows and of each text once (`copies.later`)."""
    found = _answer_rows(traces, mask, half, reference, reference_half, guess_P, budget)
    once = ~copies.later(reference)
    if once.all():
        return found
    again = _answer_rows(traces, mask, half, reference[once], reference_half[once], guess_P, budget)
    other = {(row["group"], row["chosen"]): row for row in again}
    for row in found:
        row |= copies.larger_p(row, other.get((row["group"], row["chosen"])))
    for row, p in zip(found, holm(np.array([r["p"] for r in found])), strict=True):
        row["p_holm"] = float(p)
    return found


def _answer_rows(
    traces: pd.DataFrame,
    mask: np.ndarray,
    half: np.ndarray,
    reference: pd.DataFrame,
    reference_half: np.ndarray,
    guess_P: pd.Series,
    budget: int,
) -> list[dict[str, Any]]:
    """`_against` with every row a draw."""
    counted = answers.read(reference)
    unread = {f"unread_{side}": _unread(found) for side, found in (("source", traces[mask]), ("reference", reference))}
    if not counted.any():
        unread["unread_reference"] = 1.0
    every = _counts(traces[mask]).join(_counts(reference).add_suffix("_ref"), how="inner")
    pairs = []
    for mine, theirs in ((mask, counted), *((half == h, counted & (reference_half == h)) for h in (0, 1))):
        both = _counts(traces[mine]).join(_counts(reference[theirs]).add_suffix("_ref"), how="inner")
        both["guess"] = guess_P.reindex(both.index).fillna(0.0).to_numpy(float)
        if len(answers.known(traces[mask])) and (not counted.any() or reference["answer"].notna().any()):
            both = both.join(answers.tops(traces[mine])).fillna({"top_right": 0, "top_wrong": 0})
        pairs.append(both)
    unread["unread_problems"] = len(every) - len(pairs[0])
    return [row | unread for row in answers.budget_test(pairs[0], budget, *pairs[1:])]


def _unread(traces: pd.DataFrame) -> float:
    """The share of draws without an answer, in a dump that has any, or wrong because a limit cut them."""
    wrong = traces["correct"].astype("boolean").eq(False).fillna(False).to_numpy(dtype=bool)
    none = traces["answer"].isna().to_numpy() & bool(traces["answer"].notna().any())
    return float((none | (answers.cut(traces) & wrong)).mean()) if len(traces) else 0.0


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


def _held(own: pd.DataFrame, chosen: set[str], final: bool, reference: pd.DataFrame) -> pd.DataFrame:
    """The problems of an arm that its curve is over: the chosen ones. An earlier training step that lacks some of them
    (a trainer draws new problems at each) has all that it shares with the reference, and its own n."""
    part = own[own.index.isin(chosen)]
    if final or len(part) == len(chosen):
        return part
    return own[own.index.isin(reference.index)] if len(reference) else own


def _over(source: str, own: pd.DataFrame, chosen: basis.Basis, reference: str) -> str:
    """The problems behind a source's pass@k, "" where they are all that it has and the others have the same."""
    kind, n = chosen.kind[source], len(chosen.problems[source])
    if kind == basis.OWN:
        return f"over its own {n} problems: none is shared with {reference}"
    if n == len(own):
        return ""
    where = "all compared sources have" if kind == basis.COMMON else f"are shared with {reference}"
    where = "any other source has" if kind == basis.PAIR and source == reference else where
    return f"over the {n} of its {len(own)} problems that {where}"


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
    """Row-level accuracy beside the mean over the problems that are compared, with the traces behind each."""
    known = traces["correct"].dropna()
    return {
        "rows": len(traces),
        "rows_with_correct": len(known),
        "accuracy_rows": float(known.mean()) if len(known) else math.nan,
        "problems": int(traces["problem"].nunique()),
        "problems_joined": len(here),
        "rows_joined": int(here["n"].sum()),
        "correct_joined": int(here["c"].sum()),
        "accuracy_joined": float((here["c"] / here["n"]).mean()) if len(own) and len(here) else math.nan,
    }


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
            size, problems = np.unique(n_P, return_counts=True)
            most = size[problems == problems.max()][-1]
            notes.append(
                f"{source}: {n_P.min()} to {n_P.max()} draws per problem, {most} in {problems.max():,} of "
                f"{len(n_P):,}; pass@k is over the problems with n >= k, and goes to the k that nine in ten have."
            )
        steps = sum(arm[0] == source for arm in arms)
        if steps > 1:
            final = last[source][1]
            notes.append(f"{source} has {steps} training steps; the estimates are those of the last ({final}).")
    if any(len(c) for c in counts.values()):
        notes.append(
            "Intervals are by problem: they speak of problems like these, not of this benchmark alone. "
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
    styles, named = look(result.tables["accuracy"]["source"]), _named(result)
    for source, part in _final(result.tables["curves"]).groupby("source", sort=False):
        band(ax, part, "pass", styles[source], source)
        ax.lines[-1].set_label(named.get(source, source))
    ax.set(xlabel="k (draws)", ylabel="pass@k", ylim=(-0.02, 1.02))
    above(ax)
    return ax


def draw_histogram(result: Result, ax: Any) -> Any:
    """Problems by accuracy (the bins of Yue et al., Fig. 5), sources side by side."""
    import seaborn as sns

    if result.tables["histogram"].empty:
        return nothing(ax, MUTE)
    styles, data = look(result.tables["accuracy"]["source"]), _final(result.tables["histogram"])
    named = _named(result)
    palette = {named.get(source, source): styles[source]["color"] for source in data["source"].unique()}
    sns.barplot(data=data.replace({"source": named}), x="bin", y="problems", hue="source", palette=palette, ax=ax)
    ax.tick_params(axis="x", rotation=45)
    ax.set(xlabel="share of draws correct", ylabel="problems")
    return ax


def _named(result: Result) -> dict[str, str]:
    table = result.tables["accuracy"]
    return basis.named(dict(zip(table["source"], table["basis"], strict=True)), result.params["reference"])


def caption_curves(result: Result) -> str:
    parts, named = [], _named(result)
    for source, part in (
        _final(result.tables["curves"]).groupby("source", sort=False) if len(result.tables["curves"]) else []
    ):
        first, end = part.iloc[0], part.iloc[-1]
        cross = result.estimates.get(f"{source}.crossover_k")
        tail = ""
        if cross and math.isfinite(cross.value) and math.isfinite(cross.high):  # an open interval is no finding
            tail = f", crossing the reference near k = {cross.value:.3g} [{cross.low:.3g}, {cross.high:.3g}]"
        at_end = f"{end['pass']:.3f} at k = {end['k']} (n = {end['problems']} problems)"
        parts.append(f"{named.get(source, source)} {first['pass']:.3f} at k = 1, {at_end}{tail}")
    return "pass@k over the draws with a label; bands: pointwise 95 % intervals by problem. " + "; ".join(parts) + "."


def caption_histogram(result: Result) -> str:
    parts, named = [], _named(result)
    for source, part in (
        _final(result.tables["histogram"]).groupby("source", sort=False) if len(result.tables["histogram"]) else []
    ):
        by = dict(zip(part["bin"], part["problems"], strict=True))
        parts.append(f"{named.get(source, source)} never {by['0']}, always {by['1']} of n = {part['n'].iloc[0]}")
    return "Number of problems by the share of labelled draws that are correct. Solved: " + "; ".join(parts) + "."


FIGURES = {
    "pass_at_k": Figure(draw_curves, "curves", caption_curves),
    "accuracy_histogram": Figure(draw_histogram, "histogram", caption_histogram, width=2),
}
draw = draw_curves
