"""Could the reference have produced these traces? Membership, whole traces, steps along the trace, and novelty.

Four layers, kept apart: `membership` is exact and token by token; whole traces and local support (`local`, `hurdles`)
need the source's own log q, from its model or from the rows; `novel@k` needs the base alone (`novelty` says what it may
and may not do). What the words rest on is in the table `evidence` (`evidence.row`).

Budgets below the engine floor k_min (`engine`) have no reach. Strategy and answer levels are other analyses.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analyzer.analysis.data.summaries import last_steps
from analyzer.analysis.support import (
    along,
    brought,
    copies,
    engine,
    evidence,
    flagged,
    hurdles,
    laws,
    learned,
    local,
    membership,
    novelty,
    ratios,
    scored,
    step_horizon,
)
from analyzer.analysis.support.figures import FIGURES, draw
from analyzer.errors import UsageError
from analyzer.records import BUDGET, HURDLED, TAU, Estimate, Result, Tables
from analyzer.stats import spans
from analyzer.stats.bootstrap import DRAWS

QUESTION = (
    "Could the reference have produced the source's traces: as a whole, step by step, and what share of them could no "
    "selection from k of its draws make?"
)


def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """Everything that is asked of tokens under the base, for every source.

    Estimates: `<s>.sampler_inside` (also of the reference: its self-inclusion), `<s>.reach@<k>` (whole traces against
    the base at T = 1), `<s>.beyond@<k>` (against the kindest of the laws that count for the word inside),
    `<s>.lost@<k>`, `<s>.novel@<k>`, `<s>.novel_mass@<k>` (where log q is not known); of local support
    `<s>.hurdles@<k>` (expected number in a trace), `<s>.hurdle_share@<k>` (share of traces with one),
    `<s>.hurdle_rate@<k>` (per 1,000 tokens), `<s>.horizon@<k>` (tokens), `<s>.horizon_steps@<k>`,
    `<s>.temperature_share`.
    Intervals are by problem, for problems such as these; the bounds of the words are for the given problems (evidence).
    Tables: reach, reach_sampler, lost, novel, membership, evidence, laws, spans, prefix, hurdles, hurdle_kinds,
    stretches, plane, plane_counts, top, flagged_tokens and flagged_windows (see `flagged`), learned (see `learned`).
    A source with several training steps enters with its last one: its policy model can only be that step's.
    Raises UsageError when there are no token probabilities under the base, from a model or from the rows.
    """
    tables, copied = copies.without(tables)
    known = laws.known(tables)
    bringing, named = [s for s in tables.sources if known[s].brought], ratios.of_policies(tables)
    if tables.base is None and not bringing and not named:
        raise UsageError("support needs token probabilities under the base model, none was scored; give --base MODEL")
    found = local.measured(tables, budget)
    options = {"draws": draws, "seed": seed}
    estimates: dict[str, Estimate] = {}
    parts: dict[str, list[Any]] = {name: [] for name in ("reach", "reach_sampler", "lost", "novel", "membership")}
    parts |= {name: [] for name in ("evidence", "plane_counts", "plane", "top", "laws", "spans", "prefix")}
    scores = last_steps(tables.scores) if len(tables.scores) else tables.scores
    base = scores[scores["model"] == tables.base] if tables.base else scores.iloc[:0]
    base = base.set_index("key", drop=False).rename_axis(None).copy()
    base["unit"] = pd.factorize(base["problem"], sort=True)[0]  # numbers sort a hundred times faster than names
    base["log_e_surprisal"] = base["log_e"]
    unknown = [s for s in tables.sources if known[s].reason and s != tables.reference]
    bets = learned.of(tables, [*unknown, tables.reference] if unknown else [])
    judged = bets.by_key.reindex(base["key"])
    base["log_e"] = learned.mixed(base["log_e"].to_numpy(float), judged["log_e"].to_numpy(float))
    base["half"] = judged["half"].fillna(-1).to_numpy(int)  # those without bets are a part of their own
    own = base[base["source"] == tables.reference]
    edge = float(own["excess_z"].quantile(0.95)) if len(own) else math.nan
    picked: dict[str, list[str]] = {}
    floors = engine.floors(tables)
    for source in tables.sources:
        reason, omitted = known[source].reason, 0.0
        if (base["source"] == source).any():
            reason, omitted = scored.of_source(
                tables, scores, base, source, budget, edge, floors, parts, estimates, picked, options
            )
        elif source != tables.reference:
            if bringing:
                parts["evidence"].append({"source": source, "no_log_q": reason, "no_verdict": "", "k_min": math.nan})
            if source in named:
                points = ratios.curve(ratios.lost(tables, scores, own, source), scored.reach_budgets(budget), math.nan)
                parts["lost"] += [{"source": source, **point} for point in points]
                estimates |= {f"{source}.lost@{point['k']}": scored.estimate(point) for point in points}
        mine = along.own_rows(tables, found, source)
        if source in bringing:  # its rows hold log q, whether or not a model is at hand
            told = brought.said(tables)[source]
            silent, every = along.without_numbers(tables, mine, source)
            reason, omitted = known[source].reason, silent / max(1, every)
            for row in (r for r in parts["evidence"] if r["source"] == source):
                row |= {"needs": known[source].needs, "no_log_q": reason, "silent": silent, "every": every}
                row["short"] = brought.lacking(told)
                row["end_unknown"] = brought.ends(tables).unsure.get(source, 0.0) > TAU  # fewer hide no excess
        elif omitted:  # the traces that the declared sampler could not have drawn
            mine = mine[mine["log_q"] - mine[f"p:{laws.PLAIN}"] > spans.IMPOSSIBLE / 2]
        elif tables.base is None:
            reason = f"the rows of {source} do not bring response_logprobs and base_logprobs side by side"
            for row in (r for r in parts["evidence"] if r["source"] == source):
                row |= {"no_log_q": reason, "needs": "both log-probs in every row, or --base MODEL and --policy"}
        if not reason and len(mine):
            along.of_source(tables, found, mine, base, source, budget, omitted, parts, estimates, options)
    notes = _notes(tables, base, edge, budget, own, known)
    for row in parts["evidence"]:
        row["copies"] = copied.get(row["source"], 0)
    frames = {name: pd.DataFrame(rows) for name, rows in parts.items() if name not in ("plane", "top")}
    for name, columns in (("plane", scored.PLANE), ("top", scored.TOP)):
        frames[name] = pd.concat(parts[name], ignore_index=True) if parts[name] else pd.DataFrame(columns=columns)
    others = [s for s in tables.sources if s != tables.reference]
    keys = set(tables.traces["key"])
    frames |= hurdles.tables_of(tables, found, [s for s in others if s in {r["source"] for r in parts["spans"]}], keys)
    tokens, windows = flagged.tables_of(tables, picked, own["key"])
    frames |= {"flagged_tokens": tokens, "flagged_windows": windows, "learned": bets.words}
    if len(frames["evidence"]):
        evidence_ = frames["evidence"]
        evidence_[["carrier", "carried"]] = [flagged.carried(tokens, s) for s in evidence_["source"]]
        evidence_["wording"] = [learned.said(bets.words, s) for s in evidence_["source"]]
        evidence_["carried_by"] = [hurdles.carried(frames["hurdle_kinds"], s) for s in evidence_["source"]]
    horizons = {s: e for s in others if (e := estimates.get(f"{s}.horizon@{budget}")) is not None}
    for s, e in step_horizon.in_steps(tables, horizons).items():
        estimates[f"{s}.horizon_steps@{budget}"] = e
    params = {"budget": budget, "budgets": [*scored.reach_budgets(budget)], "fdr": novelty.FDR, "draws": draws}
    params |= {"z_edge": edge, "primary": novelty.PRIMARY, "tau": TAU, "hurdled": HURDLED}
    params |= {"explained": evidence.EXPLAINED, "drop": evidence.DROP, "span": spans.SPAN}
    return Result("support", QUESTION, estimates, frames, tuple(notes), params, seed)


def _notes(
    tables: Tables, base: pd.DataFrame, edge: float, budget: int, own: pd.DataFrame, known: dict[str, laws.Known]
) -> list[str]:
    notes = [
        "A hurdle is a step (one token, or four in a row) more than k times as likely under the source as under the "
        "base in each sampling setting (law): T = 1, lower temperatures, as the reference and as the source were "
        "sampled. reach@k and beyond@k are both the mass of whole traces beyond k times the base's: reach@k at T = 1, "
        "beyond@k under the law of those that count for inside that leaves least; where that is T = 1 they are equal.",
        "novel@k is the share of traces flagged by the e-value test alone (surprisal; where log q is not known also "
        "the words that the source uses on other problems); ranks among the base's draws and the conformal test are "
        "separate.",
    ]
    bringing = [s for s, k in known.items() if k.brought]
    if bringing:
        named = ", ".join(bringing)
        notes.append(
            f"From the log-probs that the rows bring, not from a model: {named}. Without entropies the declared policy "
            "and sampler could not be checked against the traces."
        )
        held = {s: ", ".join(laws.of_rows(tables, s)) for s in bringing if not known[s].reason}
        notes.append(f"Laws that they are held against: {'; '.join(f'{s} {names}' for s, names in held.items())}.")
        notes.append(f"{brought.said_of_ends(brought.ends(tables))}.")
    if taken := laws.assumed(tables):
        named = ", ".join(f"{s} {membership.words(sampler)}" for s, sampler in taken.items())
        notes.append(f"No sampler is declared, so the temperature of the log-probs is taken for it: {named}.")
    if len(base):
        notes.append(
            f"Regions of the plane: log-ratio beyond log {budget} = {math.log(budget):.2f} nats; surprisal high above "
            f"the reference's 95 % point of z, {edge:.2f}."
            if math.isfinite(edge)
            else "No regions of the plane: the reference's excess surprisal z is not known."
        )
    if len(base) and base["log_e"].isna().all():
        notes.append("No e-value, so no novel@k and no z: the base's scorer (a server?) knows log-probs, no entropies.")
    if len(base) and own.empty:
        notes.append(
            f"{tables.reference} has no scored traces: no A/A row, no conformal test, surprisal compared with 0."
        )
    cut = base.groupby("source")["finish"].apply(lambda f: (f == "length").mean()) if len(base) else pd.Series()
    if (cut > 0).any():
        notes.append(
            "Cut off at the length limit: "
            + ", ".join(f"{s} {v:.1%}" for s, v in cut.items() if v > 0)
            + "; reach speaks of the part that was sampled."
        )
    stepped = tables.traces.groupby("source")["step"].nunique()
    if (stepped > 1).any():
        notes.append("Only the last training step is compared here for: " + ", ".join(stepped[stepped > 1].index) + ".")
    return notes


__all__ = ["FIGURES", "QUESTION", "draw", "run"]
