"""From which step of a source's traces on could the base have gone on alone? From draws that `analyzer handover` made.

The base continues a source's correct traces from growing prefixes. Where its success rises in one stretch more than in
the control, the source's steps there settle more than the base's own do. Control is the base on correct traces of the
reference on the same problems: there, too, it gains with every step that is settled. Without them it is the source's
own model on the same traces, which tells a difference and no cliff. A trace of few steps is known at few places, and
all that it gains between two of them would seem to come at once: so both arms are compared at as many stretches as nine
in ten of the traces of either have steps. Definitions: `stats/handover.py`; to continue chains of thought that were cut
is Thought Anchors' way (Bogdan et al., 2506.19143).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.drawing import above, look
from analyzer.errors import DumpError, UsageError
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.stats import bootstrap, handover, pooled
from analyzer.stats.bootstrap import ALPHA, DRAWS

QUESTION = "From which step of a source's correct traces on could the base have gone on alone?"
BASE, POLICY = "base", "policy"
HANDOVER = ["source", "by", "cut", "success", "low", "high", "n", "problems"]
STEPS = ["source", "key", "problem", "step", "until", "of", "before", "after", "draws", "text"]
JUMP = 0.5  # of the success of one trace, from which on its step is listed
COARSE = 0.1  # share of the traces of an arm that may have fewer steps than there are stretches
DOUBTFUL = 0.1  # share of continuations without an end or an answer, beyond which the success is doubtful


class Arm(NamedTuple):
    """Who continues whose traces: success [N traces, F + 1 cuts] by key and problem, 1 at the last (the trace is
    correct); the share of the steps at each cut, and how many steps there are."""

    success: pd.DataFrame
    share_NF: np.ndarray
    steps_N: np.ndarray

    @property
    def problems(self) -> np.ndarray:
        return self.success.index.get_level_values("problem").to_numpy(object)

    @property
    def jumps(self) -> float:
        """Share of the traces whose success rises by JUMP or more from one cut to the next."""
        return float((np.diff(self.success.to_numpy(), axis=1).max(1) >= JUMP - 1e-9).mean())


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """Success by the share of the steps that is handed over, and its largest rise beyond the control.

    Estimates: `<s>.handover_start` (success from the prompt alone), `<s>.handover_half` (the share of the steps from
    which on the base has half of the success of the source's own model, or of 1 without it), `<s>.handover_entrance`
    (the part of the whole gain that the first cut behind a step brings), `<s>.handover_cliff` (where the stretch of the
    largest rise beyond the control begins, where that rise is certified; else NaN with a note).
    Intervals by problem. Tables: handover, cliffs (`at` of `stretches`), steps (traces whose success rises by JUMP or
    more from one cut to the next, with the text between them). `budget` plays no part. Raises UsageError where none
    was handed over, or what is kept of it can't be read.
    """
    try:
        rows = tables.handovers()
    except DumpError as error:  # of no concern to another analysis
        raise UsageError(str(error)) from error
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
        estimates |= _estimates(source, own, policy, mine, draws, seed)
        found, why = _cliff(own, policy, control, seed)
        if found:
            cliffs.append({"source": source, **found, "jumps": own.jumps, "control_jumps": control and control.jumps})
        estimates[f"{source}.handover_cliff"] = _told(found, why, len(own.success), tables.reference)
        listed.append(_steps(rows, source, own))
    if not estimates:
        raise UsageError("no trace of a source was handed over at every cut; the same analyzer handover line goes on")
    frames = {"handover": pd.DataFrame(curves, columns=HANDOVER), "cliffs": pd.DataFrame(cliffs)}
    frames["steps"] = pd.concat(listed, ignore_index=True)
    return Result(
        "handover",
        QUESTION,
        estimates,
        frames,
        tuple(_notes(rows, frames["steps"], cliffs)),
        {"jump": JUMP, "alpha": ALPHA, "order": tables.sources},
        seed,
    )


def _arm(rows: pd.DataFrame, source: str, by: str) -> Arm | None:
    """Traces that are not handed over at every cut (a call was killed) are left out."""
    mine = rows[(rows["source"] == source) & (rows["by"] == by)]
    if mine.empty:
        return None
    cuts = int(mine["cuts"].iloc[0])
    mine = mine.assign(success=mine["correct"] / mine["n"], share=mine["step"] / mine["of"].clip(lower=1))
    success, share = (
        mine.pivot(index=["key", "problem"], columns="cut", values=name).reindex(columns=range(cuts)).dropna()
        for name in ("success", "share")
    )
    success[cuts] = share[cuts] = 1.0
    steps = mine.groupby(["key", "problem"])["of"].first().reindex(success.index)
    return Arm(success, share.to_numpy(), steps.to_numpy()) if len(success) else None


def _curve(arm: Arm, source: str, by: str) -> list[dict[str, Any]]:
    """Rows of `handover`; the cut as a share of the steps."""
    problem = pd.factorize(arm.problems, sort=True)[0]
    out = []
    for cut, value_N in arm.success.items():
        i = bootstrap.rate(value_N.to_numpy(), problem)
        row = {"source": source, "by": by, "cut": cut / (arm.success.shape[1] - 1), "success": i.value}
        out.append(row | {"low": i.low, "high": i.high, "n": i.n, "problems": i.problems})
    return out


def _estimates(
    source: str, own: Arm, policy: Arm | None, curve: list[dict[str, Any]], draws: int, seed: int
) -> dict[str, Estimate]:
    problem, start_N = pd.factorize(own.problems, sort=True)[0], own.success[0].to_numpy()
    start = Estimate.of(bootstrap.rate(start_N, problem), "of the base from these prompts alone")
    cut_F, (value_F, low_F, high_F) = (
        np.array([r["cut"] for r in curve]),
        (np.array([r[name] for r in curve]) for name in ("success", "low", "high")),
    )
    wanted_F = (np.ones(len(cut_F)) if policy is None else policy.success.mean().to_numpy()) / 2
    half, early, late = (handover.first_at_least(cut_F, x, wanted_F) for x in (value_F, high_F, low_F))
    of = "1" if policy is None else "the success of its own model"
    told = Estimate(half, early, late, len(start_N), "first cut; ends where the pointwise band passes", f"half of {of}")
    gain_N, first_N = 1 - start_N, _first(own) - start_N
    entrance = pooled.ratio(first_N, gain_N, problem, draws=draws, seed=seed) if gain_N.sum() > 0 else pooled.NOTHING
    return {
        f"{source}.handover_start": start,
        f"{source}.handover_half": told,
        f"{source}.handover_entrance": Estimate.of(entrance, "the part of the whole gain that the first steps bring"),
    }


def _first(own: Arm) -> np.ndarray:
    """Success of each trace at its first cut that hands over a step, float [N]; 1 where no cut does."""
    return own.success.to_numpy()[np.arange(len(own.share_NF)), (own.share_NF > 0).argmax(1)]


def _cliff(own: Arm, policy: Arm | None, control: Arm | None, seed: int) -> tuple[dict[str, Any], str]:
    """The largest rise beyond the control and what it stands on, or nothing and why."""
    against, other = BASE, control
    if control is None or len(set(own.problems) & set(control.problems)) < bootstrap.LEAST:
        against, other = POLICY, policy
    if other is None:
        return {}, f"no control: fewer than {bootstrap.LEAST} problems have correct traces of both"
    few = (int(np.quantile(arm.steps_N, COARSE, method="lower")) for arm in (own, other))
    stretches = min(own.success.shape[1] - 1, *few)
    if stretches < 2:
        return {}, f"more than {COARSE:.0%} of the traces have one step, and nothing to be cut at"
    one, two = (handover.at_shares(arm.share_NF, arm.success.to_numpy(), stretches) for arm in (own, other))
    if against == BASE:
        cliff = handover.unpaired(one, own.problems, two, other.problems, seed=seed)
        here, there = np.isin(own.problems, other.problems), np.isin(other.problems, own.problems)
    else:
        here, there = (arm.success.index.isin(both.success.index) for arm, both in ((own, other), (other, own)))
        cliff = handover.paired(one[here], two[there], seed=seed)
    found = {"against": against, **cliff._asdict(), "stretches": stretches, "traces": int(here.sum())}
    return found | {"control": int(there.sum()), "problems": len(set(own.problems[here]))}, ""


def _told(found: dict[str, Any], why: str, n: int, reference: str) -> Estimate:
    if not found:
        return Estimate(math.nan, n=n, note=why)
    control = f"on correct traces of {reference}" if found["against"] == BASE else "with its own model on these traces"
    sure = found["p"] <= ALPHA
    note = (
        f"success rises by {found['rise']:.2f} more than {control} (p = {found['p']:.2g}: "
        f"{'certified' if sure else 'not certified'}; {found['traces']:,} and {found['control']:,} traces of "
        f"{found['problems']:,} problems)"
    )
    method = f"{handover.PERMUTATIONS} permutations, the largest of {found['stretches']} stretches"
    return Estimate(found["at"] / found["stretches"] if sure else math.nan, n=found["traces"], method=method, note=note)


def _steps(rows: pd.DataFrame, source: str, own: Arm) -> pd.DataFrame:
    """Rows of `steps`: the largest rise of each trace, where it is JUMP or more; the largest first."""
    rise_NF = np.diff(own.success.to_numpy(), axis=1)
    at_N = rise_NF.argmax(1)
    mine = rows[(rows["source"] == source) & (rows["by"] == BASE)].set_index(["key", "cut"])
    out = []
    for i in np.argsort(-rise_NF.max(1), kind="stable"):
        if rise_NF[i, at_N[i]] < JUMP - 1e-9:
            break
        (key, problem), cut = own.success.index[i], int(at_N[i])
        row, ends = mine.loc[(key, cut)], cut + 2 == own.success.shape[1]
        until = row["of"] if ends else mine.loc[(key, cut + 1)]["step"]
        reached = own.success.iloc[i, cut], own.success.iloc[i, cut + 1]
        where = (int(n) for n in (row["step"], until, row["of"]))
        out.append((source, key, problem, *where, *reached, int(row["n"]), row["next"]))
    return pd.DataFrame(out, columns=STEPS)


def _notes(rows: pd.DataFrame, steps: pd.DataFrame, cliffs: list[dict[str, Any]]) -> list[str]:
    drawn, unread, cut = (int(rows[name].sum()) for name in ("n", "unread", "cut_off"))
    notes = []
    if unread or cut:
        much = max(unread, cut) > DOUBTFUL * drawn
        notes.append(
            f"Of {drawn:,} continuations {unread:,} had no answer that the grader could read and {cut:,} were cut at "
            "the limit; neither counts as correct"
            + (", which is too many: the success is understated, least where most is handed over." if much else ".")
        )
    notes.append(
        "Only correct traces are handed over, so success rises to 1 at the end; the control rises likewise. A cliff "
        "certifies that the base goes on otherwise from these traces than from its own, on problems where both are "
        "correct; why is not tested: a source that keeps other traces of the same law has one, too."
    )
    for row in cliffs:
        listed = steps[steps["source"] == row["source"]]
        if row["p"] > ALPHA or listed.empty:
            continue
        one = listed.iloc[0]
        own = "" if row["control_jumps"] is None else f" (of the base's own: {row['control_jumps']:.0%})"
        where = (
            f"steps {one['step'] + 1} to {one['until']}" if one["until"] > one["step"] + 1 else f"step {one['until']}"
        )
        notes.append(
            f"{row['source']}: in {row['jumps']:.0%} of the traces the base's success rises by {JUMP:g} or more from "
            f"one cut to the next{own}; most in {one['key']} over {where} of "
            f"{one['of']}, from {one['before']:.2f} to {one['after']:.2f} of {one['draws']} draws: “{one['text']}”"
        )
    return notes


def draw(result: Result, ax: Any) -> Any:
    """Success by the share handed over: the base on a source's traces solid, the source's own model dashed."""
    table = result.tables["handover"]
    styles = look(result.params["order"])
    for (source, by), part in table.groupby(["source", "by"], sort=False):
        line = {"color": styles[source]["color"]} | ({"label": source} if by == BASE else {"linestyle": "--"})
        ax.fill_between(part["cut"], part["low"], part["high"], color=line["color"], alpha=0.12, linewidth=0)
        ax.plot(part["cut"], part["success"], **line)
    for row in result.tables["cliffs"].to_dict("records"):
        if row["p"] <= ALPHA:
            ends = [(row["at"] + more) / row["stretches"] for more in (0, 1)]
            ax.axvspan(*ends, color=styles[row["source"]]["color"], alpha=0.15, linewidth=0)
    ax.set(
        xlabel="share of the steps handed over (dashed: own model)",
        ylabel="continuations that are correct",
        ylim=(-0.02, 1.02),
    )
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
    marks = "solid: the base goes on; dashed: the source's own model; shaded: a certified cliff"
    return f"Success from a part of a correct trace ({marks}; bands: 95 % by problem). " + "; ".join(parts) + "."


FIGURES = {"handover": Figure(draw, "handover", caption)}
