"""Are right answers reached by valid reasoning, or were they lucky? From verdicts of a judge and of persons.

A dump's column `valid` holds a judge's verdicts (one, or several votes), a review (`analyzer sample-for-review`) a
person's. CoT-Pass@k counts a draw only where it is correct and its reasoning valid (Wen et al., 2506.14245). A judge
errs; where a person has read some of the same traces, its two error rates are measured and taken out (`stats/chains`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.boundary import run as boundary
from analyzer.analysis.drawing import above, look, nothing
from analyzer.errors import DumpError, UsageError
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.records.display import counted
from analyzer.stats import bounded, chains, passk
from analyzer.stats.bootstrap import DRAWS, LEAST, rate

QUESTION = "Are right answers reached by valid reasoning?"
NOTHING = "no trace has a verdict on its reasoning: a column valid in the dump, or analyzer sample-for-review RUN SHEET"
RULES = ("any", "majority", "all")  # which votes have to say valid
CORRECT, CORRECTED = "correct", "corrected"  # pass@k itself; by majority, without the judge's errors
CHAINS = ["source", "rule", "k", "value", "low", "high", "problems", "method"]
JUDGE = ["called_valid", "valid", "called_invalid", "invalid"]
REVIEWED = ["source", "picked", "traces", "valid", "problems", "problems_valid"]


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """CoT-Pass@k for k = 1, 2, 4, ... over the problems that all sources share and whose correct draws were all judged.

    Estimates: `<s>.valid_share` (of its correct traces, by the majority of the votes; by the person, of a review of all
    correct traces, where the dump has no votes), `<s>.cot_pass@<k>` for k = 1 and the largest (without the judge's
    errors where a person has read chains.LEAST of the traces). Intervals by problem. Tables: chains (by rule; `correct`
    is pass@k of the same problems), judge (chains that a person called valid or not, and how many of each the judge
    called so), reviewed (what a person said, by how the traces were picked). `budget` and `draws` play no part. Raises
    UsageError where nobody judged, or what is kept of it can't be read.
    """
    try:
        judged = tables.judged()
    except DumpError as error:  # of no concern to another analysis
        raise UsageError(str(error)) from error
    if judged is None or judged.empty:
        raise UsageError(NOTHING)
    sides = boundary.compared(tables)
    traces = sides.traces.merge(judged, on="key", how="left").astype({"picked": object})
    right = traces[traces["correct"].astype("boolean").fillna(False).astype(bool)]
    judge = _judge(right)
    estimates: dict[str, Estimate] = {}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for source, arm in sides.last.items():
        mine = right[(right["source"] == source) & ((right["step"] == arm[1]) if arm[1] is not None else True)]
        estimates[f"{source}.valid_share"] = _share(mine)
        found, left = _curves(source, sides.held[arm], mine, judge, seed)
        rows += found
        if left:
            notes.append(f"{source}: {counted(left, 'problem')} with an unjudged correct trace left out of CoT-Pass@k.")
        for row in (r for r in found if r["rule"] == _best(found) and r["k"] in (1, found[-1]["k"])):
            note = "" if row["rule"] == CORRECTED else "the judge's errors are in it"
            value = Estimate(row["value"], row["low"], row["high"], row["problems"], row["method"], note)
            estimates[f"{source}.cot_pass@{row['k']}"] = value
    frames = {
        "chains": pd.DataFrame(rows, columns=CHAINS),
        "judge": pd.DataFrame([judge], columns=JUDGE),
        "reviewed": _reviewed(right),
    }
    return Result("chains", QUESTION, estimates, frames, (*_said(judge, frames), *notes), {"least": chains.LEAST}, seed)


def _called(traces: pd.DataFrame, rule: str) -> pd.Series:
    """Whether the votes call each trace valid, by a rule; only of traces with votes."""
    yes, votes = traces["yes"].fillna(0), traces["votes"].fillna(0)
    return {"any": yes > 0, "majority": 2 * yes > votes, "all": yes == votes}[rule] & (votes > 0)


def _judge(right: pd.DataFrame) -> tuple[int, int, int, int]:
    """Of the correct traces that votes and a person judged: JUDGE, by the majority of the votes."""
    both = right[right["votes"].fillna(0).gt(0) & right["person"].notna()]
    called, valid = _called(both, "majority"), both["person"].astype(bool)
    return int((called & valid).sum()), int(valid.sum()), int((~called & ~valid).sum()), int((~valid).sum())


def _share(mine: pd.DataFrame) -> Estimate:
    """The share of a source's correct traces whose reasoning is valid."""
    voted = mine[mine["votes"].fillna(0) > 0]
    if len(voted):
        found = rate(_called(voted, "majority").to_numpy(float), voted["problem"].to_numpy())
        return Estimate.of(found, "of its correct traces with votes, by their majority; the judge's errors are in it")
    read = mine[mine["person"].notna() & mine["picked"].eq("all")]
    if read.empty:
        return Estimate(math.nan, note="no votes, and no review of all its correct traces")
    found = rate(read["person"].astype(float).to_numpy(), read["problem"].to_numpy())
    return Estimate.of(found, "of its correct traces, as a person judged a random sample of them")


def _curves(
    source: str, counts: pd.DataFrame, mine: pd.DataFrame, judge: tuple[int, int, int, int], seed: int
) -> tuple[list[dict[str, Any]], int]:
    """Rows of `chains`, and how many problems have an unjudged correct trace. counts: n and c by problem."""
    voted = mine[mine["votes"].fillna(0) > 0]
    of = [
        (voted if rule == CORRECT else voted[_called(voted, rule)]).groupby("problem").size()
        for rule in (CORRECT, *RULES)
    ]
    counts = counts.assign(
        **{name: n.reindex(counts.index).fillna(0) for name, n in zip((CORRECT, *RULES), of, strict=True)}
    )
    whole = counts[counts[CORRECT] == counts["c"]]
    if voted.empty or len(whole) < LEAST:
        return [], 0 if voted.empty else len(counts) - len(whole)
    n_P, c_P, yes_P = (whole[name].to_numpy(int) for name in ("n", "c", "majority"))
    k_K = passk.doublings(n_P)
    single = voted["votes"].max() == 1
    rows = []
    for rule in (CORRECT, *(["majority"] if single else RULES)):
        values_PK = passk.pass_at_k(n_P, whole[rule].to_numpy(int), k_K)
        low_K, high_K = bounded.bounds(values_PK, seed=seed)[:2]
        found = zip(k_K.tolist(), np.nanmean(values_PK, 0), low_K, high_K, (n_P[:, None] >= k_K).sum(0), strict=True)
        rows += [(source, rule, k, v, low, high, int(p), bounded.METHOD) for k, v, low, high, p in found]
    if judge[1] + judge[3] >= chains.LEAST:
        k_K = k_K[k_K <= chains.MOST]
        for k, i in zip(k_K.tolist(), chains.interval(n_P, c_P, yes_P, k_K, judge, seed=seed), strict=True):
            rows.append((source, CORRECTED, k, i.value, i.low, i.high, i.problems, i.method))
    return [dict(zip(CHAINS, row, strict=True)) for row in rows], len(counts) - len(whole)


def _best(rows: list[dict[str, Any]]) -> str:
    return CORRECTED if any(row["rule"] == CORRECTED for row in rows) else "majority"


def _reviewed(right: pd.DataFrame) -> pd.DataFrame:
    """What a person said, by source and by how the traces were picked."""
    read = right[right["person"].notna()]
    rows = []
    for (source, picked), part in read.groupby(["source", "picked"], sort=False):
        valid = part["person"].astype(bool)
        by = valid.groupby(part["problem"].to_numpy()).any()
        rows.append((source, picked, len(part), int(valid.sum()), len(by), int(by.sum())))
    return pd.DataFrame(rows, columns=REVIEWED)


def _said(judge: tuple[int, int, int, int], frames: dict[str, pd.DataFrame]) -> list[str]:
    like, valid, unlike, invalid = judge
    notes = []
    for row in frames["reviewed"].to_dict("records"):
        on = "" if row["picked"] == "all" else f" (of problems with {row['picked']})"
        notes.append(
            f"A person read {row['traces']:,} correct traces of {row['source']}{on} and called {row['valid']:,} valid; "
            f"{row['problems_valid']:,} of {row['problems']:,} problems have a valid one."
        )
    if frames["chains"].empty:
        return notes
    if valid + invalid >= chains.LEAST:
        notes.append(
            f"Of the chains that a person read the judge called {like:,} of {valid:,} valid ones valid and {unlike:,} "
            f"of {invalid:,} invalid ones invalid. These rates are taken out: as if they were the same on all problems "
            "and of all sources, and errors independent."
        )
    else:
        notes.append(
            f"The judge's errors are in CoT-Pass@k: a person has read {valid + invalid:,} of its traces, "
            f"{chains.LEAST} are needed (analyzer sample-for-review)."
        )
    return notes


def draw(result: Result, ax: Any) -> Any:
    """pass@k (dotted) and CoT-Pass@k of each source, with its interval."""
    table = result.tables["chains"]
    if table.empty:
        return nothing(ax, "no source has votes on all its correct traces of enough problems")
    styles = look(table["source"].unique())
    for source, part in table.groupby("source", sort=False):
        color, best = styles[source]["color"], part[part["rule"] == _best(part.to_dict("records"))]
        plain = part[part["rule"] == CORRECT]
        ax.plot(plain["k"], plain["value"], color=color, linestyle=":")
        ax.fill_between(best["k"], best["low"], best["high"], color=color, alpha=0.15, linewidth=0)
        ax.plot(best["k"], best["value"], color=color, label=source)
    ax.set(xscale="log", xlabel="k (dotted: pass@k)", ylabel="CoT-Pass@k", ylim=(-0.02, 1.02))
    above(ax)
    return ax


def caption(result: Result) -> str:
    found = [
        f"{name.split('.cot_pass')[0]} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}] at k = {name.rpartition('@')[2]}"
        for name, e in result.estimates.items()
        if ".cot_pass@" in name and not name.endswith("@1")
    ]
    n = int(result.tables["chains"]["problems"].max()) if found else 0
    return f"CoT-Pass@k, correct with valid reasoning: {'; '.join(found)}. Intervals by problem (n = {n:,} problems)."


FIGURES = {"chains": Figure(draw, "chains", caption)}
