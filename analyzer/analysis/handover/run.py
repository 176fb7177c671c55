"""From which step of a source's traces on could the base have gone on alone? From draws that `analyzer handover` made.

The base continues a source's correct traces from growing prefixes. Where its success rises in one stretch far more than
in the control, that stretch holds what the base would not have found alone. Control is the base on correct traces of
the reference on the same problems: there, too, it gains with every step that is settled. Without them it is the
source's own model on the same traces, which tells a difference and no cliff. Definitions: `stats/handover.py`; to
continue chains of thought that were cut is Thought Anchors' way (Bogdan et al., 2506.19143).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.drawing import above, look
from analyzer.errors import UsageError
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.stats import bootstrap, handover, pooled
from analyzer.stats.bootstrap import ALPHA, DRAWS

QUESTION = "From which step of a source's correct traces on could the base have gone on alone?"
BASE, POLICY = "base", "policy"
HANDOVER = ["source", "by", "cut", "success", "low", "high", "n", "problems"]
STEPS = ["source", "key", "problem", "step", "of", "before", "after", "draws", "text"]
JUMP = 0.5  # of the success of one trace, from which on its step is listed


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """Success by the share of the steps that is handed over, and its largest rise beyond the control.

    Estimates: `<s>.handover_start` (success from the prompt alone), `<s>.handover_half` (the share of the steps from
    which on the base has half of the success of the source's own model, or of 1 without it), `<s>.handover_entrance`
    (the part of the whole gain that the first cut behind a step brings), `<s>.handover_cliff` (where the stretch of the
    largest rise beyond the control begins, where that rise is certified; else NaN with a note).
    Intervals by problem. Tables: handover, cliffs, steps (traces whose success rises by JUMP or more in one stretch,
    with the text that follows the earlier cut). `budget` plays no part. Raises UsageError where none was handed over.
    """
    rows = tables.handovers()
    if rows is None:
        raise UsageError("nothing was handed over to the base; analyzer handover RUN does")
    rows = rows[rows["key"].isin(tables.traces["key"])]
    sources = [s for s in tables.sources if s != tables.reference and (rows["source"] == s).any()]
    estimates: dict[str, Estimate] = {}
    curves: list[dict[str, Any]] = []
    cliffs: list[dict[str, Any]] = []
    listed: list[pd.DataFrame] = []
    control = _arm(rows, tables.reference, BASE)
    if control is not None:
        curves += _curve(control, tables.reference, BASE)
    for source in sources:
        own, policy = _arm(rows, source, BASE), _arm(rows, source, POLICY)
        if own is None:
            continue
        mine = _curve(own, source, BASE)
        curves += mine + (_curve(policy, source, POLICY) if policy is not None else [])
        estimates |= _estimates(rows, source, own, policy, mine, draws, seed)
        found, against = _cliff(own, policy, control, seed)
        if found is not None:
            cliffs.append({"source": source, "against": against, **found._asdict(), "cuts": own.shape[1] - 1})
        estimates[f"{source}.handover_cliff"] = _told(found, against, own, tables.reference)
        listed.append(_steps(rows, source, own))
    frames = {"handover": pd.DataFrame(curves, columns=HANDOVER), "cliffs": pd.DataFrame(cliffs)}
    frames["steps"] = pd.concat(listed, ignore_index=True) if listed else pd.DataFrame(columns=STEPS)
    return Result(
        "handover",
        QUESTION,
        estimates,
        frames,
        tuple(_notes(rows, frames["steps"], cliffs)),
        {"jump": JUMP, "alpha": ALPHA, "order": tables.sources},
        seed,
    )


def _arm(rows: pd.DataFrame, source: str, by: str) -> pd.DataFrame | None:
    """Success [N traces, F + 1 cuts] by key and problem, 1 at the last: the trace is correct. Traces that are not
    handed over at every cut (a call was killed) are left out."""
    mine = rows[(rows["source"] == source) & (rows["by"] == by)]
    if mine.empty:
        return None
    share = mine.assign(share=mine["correct"] / mine["n"])
    table = share.pivot(index=["key", "problem"], columns="cut", values="share").dropna()
    table[int(mine["cuts"].iloc[0])] = 1.0
    return table if len(table) else None


def _problems(arm: pd.DataFrame) -> np.ndarray:
    return arm.index.get_level_values("problem").to_numpy(object)


def _curve(arm: pd.DataFrame, source: str, by: str) -> list[dict[str, Any]]:
    """Rows of `handover`; the cut as a share of the steps."""
    problem = pd.factorize(_problems(arm), sort=True)[0]
    out = []
    for cut in arm.columns:
        i = bootstrap.rate(arm[cut].to_numpy(), problem)
        row = {"source": source, "by": by, "cut": cut / arm.columns[-1], "success": i.value}
        out.append(row | {"low": i.low, "high": i.high, "n": i.n, "problems": i.problems})
    return out


def _estimates(
    rows: pd.DataFrame,
    source: str,
    own: pd.DataFrame,
    policy: pd.DataFrame | None,
    curve: list[dict[str, Any]],
    draws: int,
    seed: int,
) -> dict[str, Estimate]:
    problem, n = pd.factorize(_problems(own), sort=True)[0], len(own)
    start = Estimate.of(bootstrap.rate(own[0].to_numpy(), problem), "of the base from these prompts alone")
    cut_F, (value_F, low_F, high_F) = (
        np.array([r["cut"] for r in curve]),
        (np.array([r[name] for r in curve]) for name in ("success", "low", "high")),
    )
    wanted_F = (np.ones(len(cut_F)) if policy is None else policy.mean().to_numpy()) / 2
    half, early, late = (handover.first_at_least(cut_F, x, wanted_F) for x in (value_F, high_F, low_F))
    of = "1" if policy is None else "the success of its own model"
    told = Estimate(half, early, late, n, "first cut; ends where the pointwise band passes", f"half of {of}")
    gain_N, first_N = 1 - own[0].to_numpy(), _first(rows, source, own) - own[0].to_numpy()
    entrance = pooled.ratio(first_N, gain_N, problem, draws=draws, seed=seed) if gain_N.sum() > 0 else pooled.NOTHING
    return {
        f"{source}.handover_start": start,
        f"{source}.handover_half": told,
        f"{source}.handover_entrance": Estimate.of(entrance, "the part of the whole gain that the first steps bring"),
    }


def _first(rows: pd.DataFrame, source: str, own: pd.DataFrame) -> np.ndarray:
    """Success of each trace at its first cut that hands over a step, float [N]; 1 where no cut does."""
    mine = rows[(rows["source"] == source) & (rows["by"] == BASE) & (rows["step"] > 0)]
    cut = mine.groupby("key")["cut"].min().reindex(own.index.get_level_values("key")).fillna(own.columns[-1])
    return own.to_numpy()[np.arange(len(own)), cut.to_numpy(int)]


def _cliff(
    own: pd.DataFrame, policy: pd.DataFrame | None, control: pd.DataFrame | None, seed: int
) -> tuple[handover.Cliff | None, str]:
    """The largest rise beyond the control, and which control that is."""
    if control is not None and len(set(_problems(own)) & set(_problems(control))) >= bootstrap.LEAST:
        arms = [(arm.to_numpy(), _problems(arm)) for arm in (own, control)]
        return handover.unpaired(*arms[0], *arms[1], seed=seed), BASE
    if policy is None:
        return None, ""
    both = own.index.intersection(policy.index)
    return handover.paired(own.loc[both].to_numpy(), policy.loc[both].to_numpy(), seed=seed), POLICY


def _told(found: handover.Cliff | None, against: str, own: pd.DataFrame, reference: str) -> Estimate:
    if found is None:
        return Estimate(math.nan, n=len(own), note=f"no control: {reference} has no correct traces on these problems")
    control = f"on correct traces of {reference}" if against == BASE else "with its own model on the same traces"
    sure = "certified" if found.p <= ALPHA else "not certified"
    note = f"success rises by {found.rise:.2f} more than {control} (p = {found.p:.2g}: {sure})"
    method = f"{handover.PERMUTATIONS} permutations, the largest of {own.shape[1] - 1} stretches"
    where = found.at / (own.shape[1] - 1) if found.p <= ALPHA else math.nan
    return Estimate(where, n=len(own), method=method, note=note)


def _steps(rows: pd.DataFrame, source: str, own: pd.DataFrame) -> pd.DataFrame:
    """Rows of `steps`: the largest rise of each trace, where it is JUMP or more; the largest first."""
    rise_NF = np.diff(own.to_numpy(), axis=1)
    at_N = rise_NF.argmax(1)
    mine = rows[(rows["source"] == source) & (rows["by"] == BASE)].set_index(["key", "cut"])
    out = []
    for i in np.argsort(-rise_NF.max(1), kind="stable"):
        if rise_NF[i, at_N[i]] < JUMP - 1e-9:
            break
        (key, problem), cut = own.index[i], int(at_N[i])
        row = mine.loc[(key, cut)]
        reached = own.iloc[i, cut], own.iloc[i, cut + 1]
        out.append((source, key, problem, int(row["step"]), int(row["of"]), *reached, int(row["n"]), row["next"]))
    return pd.DataFrame(out, columns=STEPS)


def _notes(rows: pd.DataFrame, steps: pd.DataFrame, cliffs: list[dict[str, Any]]) -> list[str]:
    drawn, unread, cut = (int(rows[name].sum()) for name in ("n", "unread", "cut_off"))
    notes = [
        "Only correct traces are handed over, so success rises to 1 at the end; the control rises likewise. A cliff "
        "certifies that base and control differ there, and not that nothing else differs."
    ]
    sure = {row["source"] for row in cliffs if row["p"] <= ALPHA}
    for source, listed in steps[steps["source"].isin(sure)].groupby("source", sort=False):
        row, kept = listed.iloc[0], int((rows["by"].eq(BASE) & rows["source"].eq(source) & rows["cut"].eq(0)).sum())
        notes.append(
            f"{source}: in {len(listed):,} of {kept:,} traces the base's success rises by {JUMP:g} or more in one "
            f"stretch; most in {row['key']} (step {row['step'] + 1} of {row['of']}), from {row['before']:.2f} to "
            f"{row['after']:.2f} behind “{row['text']}”"
        )
    if unread or cut:
        notes.append(
            f"Of {drawn:,} continuations {unread:,} had no answer that the grader could read and {cut:,} were cut at "
            "the limit; neither counts as correct."
        )
    return notes


def draw(result: Result, ax: Any) -> Any:
    """Success by the share handed over: the base on a source's traces solid, the source's own model dashed."""
    table = result.tables["handover"]
    styles = look(result.params["order"])
    for (source, by), part in table.groupby(["source", "by"], sort=False):
        color, label = styles[source]["color"], source if by == BASE else f"{source}, by its own model"
        ax.fill_between(part["cut"], part["low"], part["high"], color=color, alpha=0.12, linewidth=0)
        ax.plot(part["cut"], part["success"], color=color, label=label, linestyle="-" if by == BASE else "--")
    for row in result.tables["cliffs"].to_dict("records"):
        if row["p"] <= ALPHA:
            ends = [(row["at"] + more) / row["cuts"] for more in (0, 1)]
            ax.axvspan(*ends, color=styles[row["source"]]["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel="share of the steps handed over", ylabel="continuations that are correct", ylim=(-0.02, 1.02))
    above(ax)
    return ax


def caption(result: Result) -> str:
    parts = []
    for source in result.tables["handover"]["source"].unique():
        start, cliff = (result.estimates.get(f"{source}.handover_{name}") for name in ("start", "cliff"))
        if start is not None and cliff is not None:
            found = (
                f"a cliff behind {cliff.value:.0%} of the steps" if math.isfinite(cliff.value) else "no certified cliff"
            )
            parts.append(f"{source} {start.value:.2f} from the prompt alone, {found} (n = {start.n:,} traces)")
    return "Success of the base that goes on from a part of a correct trace. " + "; ".join(parts) + "."


FIGURES = {"handover": Figure(draw, "handover", caption)}
