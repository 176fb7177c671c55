"""Could the reference have produced these traces? Membership, whole traces, steps along the trace, and novelty.

Four layers, kept apart: `membership` is exact and token by token; whole traces and local support (`local`, `hurdles`)
need the source's own log q, from its model or from the rows; `novel@k` needs the base alone (`novelty` says what it may
and may not do). What the words rest on is in the table `evidence` (`evidence.row`).

Budgets below the engine floor k_min (`engine`) have no reach. Strategy and answer levels are other analyses.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import last_steps
from analyzer.analysis.primary import CERTIFY
from analyzer.analysis.support import (
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
    step_horizon,
)
from analyzer.analysis.support.figures import FIGURES, draw
from analyzer.errors import UsageError
from analyzer.records import BUDGET, HURDLED, TAU, Estimate, Result, Tables
from analyzer.stats import bootstrap, bounds, conformal, evalue, pooled, reach, spans
from analyzer.stats.bootstrap import DRAWS, Interval

QUESTION = (
    "Could the reference have produced the source's traces: as a whole, step by step, and what share of them could no "
    "selection from k of its draws make?"
)
PLANE_ROWS = 300  # traces per source kept for the drawing of the plane
TOP_ROWS = 20
PLANE = ["source", "key", "excess_z", "log_ratio", "log_e", "flagged"]
TOP = ["source", "key", "problem", "excess_z", "log_ratio", "log_e", "p", "n_tokens", "correct"]
NOTHING = "no trace whose own law is known"


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
            reason, omitted = _scored(
                tables, scores, base, source, budget, edge, floors, parts, estimates, picked, options
            )
        elif source != tables.reference:
            if bringing:
                parts["evidence"].append({"source": source, "no_log_q": reason, "no_verdict": "", "k_min": math.nan})
            if source in named:
                points = ratios.curve(ratios.lost(tables, scores, own, source), _budgets(budget), math.nan)
                parts["lost"] += [{"source": source, **point} for point in points]
                estimates |= {f"{source}.lost@{point['k']}": _estimate(point) for point in points}
        mine = _own_rows(tables, found, source)
        if source in bringing:  # its rows hold log q, whether or not a model is at hand
            told = brought.said(tables)[source]
            silent, every = _without_numbers(tables, mine, source)
            reason, omitted = known[source].reason, silent / max(1, every)
            for row in (r for r in parts["evidence"] if r["source"] == source):
                row |= {"needs": known[source].needs, "no_log_q": reason, "silent": silent, "every": every}
                row["short"] = brought.lacking(told)
                row["end_unknown"] = bool(len(mine) and mine["ended"].any() and not brought.ends(tables).ids)
        elif omitted:  # the traces that the declared sampler could not have drawn
            mine = mine[mine["log_q"] - mine[f"p:{laws.PLAIN}"] > spans.IMPOSSIBLE / 2]
        elif tables.base is None:
            reason = f"the rows of {source} do not bring response_logprobs and base_logprobs side by side"
            for row in (r for r in parts["evidence"] if r["source"] == source):
                row |= {"no_log_q": reason, "needs": "both log-probs in every row, or --base MODEL and --policy"}
        if not reason and len(mine):
            _local(tables, found, mine, base, source, budget, omitted, parts, estimates, options)
    notes = _notes(tables, base, edge, budget, own, known)
    for row in parts["evidence"]:
        row["copies"] = copied.get(row["source"], 0)
    frames = {name: pd.DataFrame(rows) for name, rows in parts.items() if name not in ("plane", "top")}
    for name, columns in (("plane", PLANE), ("top", TOP)):
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
    params = {"budget": budget, "budgets": [*_budgets(budget)], "fdr": novelty.FDR, "draws": draws}
    params |= {"z_edge": edge, "primary": novelty.PRIMARY, "tau": TAU, "hurdled": HURDLED}
    params |= {"explained": evidence.EXPLAINED, "drop": evidence.DROP, "span": spans.SPAN}
    return Result("support", QUESTION, estimates, frames, tuple(notes), params, seed)


def _budgets(budget: int) -> tuple[int, ...]:
    return tuple(sorted({*reach.BUDGETS, budget}))


def _scored(
    tables: Tables,
    scores: pd.DataFrame,
    base: pd.DataFrame,
    source: str,
    budget: int,
    edge: float,
    floors: pd.DataFrame,
    parts: dict[str, list[Any]],
    estimates: dict[str, Estimate],
    picked: dict[str, list[str]],
    options: dict[str, int],
) -> tuple[str, float]:
    """What the summaries of the scorers say of one source; adds to parts, estimates and picked. Returns why it has no
    log-ratio ("" where it has), and the share of its traces left out."""
    budgets, levels = _budgets(budget), tuple(sorted({1, 4, 16, 64, budget}))
    own = base[base["source"] == tables.reference]
    wrong_base = engine.foreign(tables, own, tables.reference, "the base model", "check --base and --template")
    frame, is_reference = base[base["source"] == source].copy(), source == tables.reference
    floor = engine.k_min(floors, tables.reference, source)
    row, estimates[f"{source}.sampler_inside"] = membership.inside(tables, frame, source)
    parts["membership"].append(row)
    frame["log_q"], reason, omitted = ratios.log_q(tables, scores, frame, source)
    reason = wrong_base or reason
    frame["log_ratio"] = frame["log_q"] - frame["logprob"]
    sampled = reason or ratios.sampler_gap(tables, own)
    curves = {
        "reach": ratios.Ratios(frame["log_ratio"], frame["unit"], reason, omitted),
        "reach_sampler": ratios.Ratios(frame["log_q"] - frame["logprob_s"], frame["unit"], sampled, omitted),
    }
    if not is_reference:
        curves["lost"] = ratios.lost(tables, scores, own, source)
    for name, of in curves.items():
        points = ratios.curve(of, budgets, floor)
        parts[name] += [{"source": source, **point} for point in points]
        if name != "reach_sampler" and not is_reference:
            estimates |= {f"{source}.{name}@{point['k']}": _estimate(point) for point in points}
    null = novelty.null(tables, source)
    pair = novelty.halves(own, options["seed"]) if is_reference else (frame, own)
    found = novelty.shares(*pair, levels, least=TAU / 2)
    parts["novel"] += [{"source": f"{source} (A/A)" if is_reference else source, **row} for row in found]
    if is_reference:
        return reason, omitted
    estimates |= {f"{source}.novel@{row['k']}": _estimate(row) for row in found if row["test"] == novelty.PRIMARY}
    if reason:  # else the mass beyond k is known better
        masses = [row for row in found if row["test"] == novelty.MASS]
        estimates |= {f"{source}.novel_mass@{row['k']}": _estimate(row | {"high": 1.0}) for row in masses if row["n"]}
    frame["p"] = evalue.p_value(frame["log_e"].to_numpy())
    frame["flagged"] = conformal.discoveries(frame["p"].to_numpy(), q=novelty.FDR)
    picked[source] = frame.loc[frame["flagged"], "key"].tolist()
    parts["evidence"].append(
        {
            "source": source,
            **novelty.evidence(frame, own, found, null, **options),
            **_certify(found, floor, budget, null),
            "no_log_q": reason,
            "no_verdict": wrong_base,
            "temperature": tables.samplers[source].temperature if source in tables.samplers else math.nan,
            "log_e_reference": float(own["log_e_surprisal"].median()) if len(own) else math.nan,
            "taught": float((frame["half"] >= 0).mean()),
            "length": float(frame["n_tokens"].mean()),
            "length_reference": float(own["n_tokens"].mean()) if len(own) else math.nan,
        }
    )
    parts["plane_counts"].append({"source": source, **_regions(frame, edge, budget)})
    parts["plane"].append(frame[PLANE].sample(min(PLANE_ROWS, len(frame)), random_state=options["seed"]))
    parts["top"].append(frame.loc[frame["flagged"], TOP].nlargest(TOP_ROWS, "log_e"))
    return reason, omitted


def _certify(found: list[dict[str, Any]], floor: float, budget: int, null: novelty.Null) -> dict[str, Any]:
    """Where log q is not known: the k that counts, and p of the word outside (twice the smaller of the tests mass and
    rank, of those that may speak); with log q, evidence.row sets the p-value."""
    out = {"k_min": floor, "certify": math.nan, "p_outside": math.nan}
    out |= dict.fromkeys(("mass", "mass_low", "rank_share", "rank_p", "rank_low", "base_draws"), math.nan)
    k = next((r["k"] for r in found if r["k"] >= max(CERTIFY, budget) and not engine.below(r["k"], floor)), None)
    if k is None:
        return out
    at = {row["test"]: row for row in found if row["k"] == k}
    rank = at[novelty.RANK]
    out |= {"certify": k, "rank_share": rank["share"], "rank_p": rank["p"], "base_draws": rank["draws"]}
    ps = []
    if math.isfinite(null.covered):
        mass = at[novelty.MASS]
        out |= {"mass": mass["share"], "mass_low": mass["low"]}
        ps.append(mass["p_above"])
    if not null.ranked and rank["draws"] + 1 > k:
        out["rank_low"] = rank["low_share"]
        ps.append(rank["p_above"])
    ps = [p for p in ps if not math.isnan(p)]
    if ps and not engine.below(budget, floor):
        out["p_outside"] = min(1.0, len(ps) * min(ps))
    return out


def _without_numbers(tables: Tables, mine: pd.DataFrame, source: str) -> tuple[int, int]:
    """How many of the source's traces (of its last step) are not measured, and how many there are: their rows bring no
    numbers, or none of a token that the policy wrote. They count against every bound."""
    every = len(last_steps(tables.traces[tables.traces["source"] == source]))
    return every - len(mine), every


def _own_rows(tables: Tables, found: local.Local, source: str) -> pd.DataFrame:
    """The source's traces among those measured."""
    keys = tables.traces.loc[tables.traces["source"] == source, "key"]
    rows = found.frame.loc[found.frame.index.intersection(keys, sort=False)]
    unknown = [c for c in rows if c.startswith(("p:", "body:")) and rows[c].isna().all()]
    return rows.drop(columns=unknown)


def _local(
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
        own = _own_rows(tables, found, tables.reference)
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
        for k in _budgets(budget):
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


def _estimate(row: dict[str, Any]) -> Estimate:
    return Estimate(row["share"], row["low"], row["high"], row["n"], row["method"], row["note"])


def _regions(frame: pd.DataFrame, edge: float, budget: int) -> dict[str, Any]:
    """Counts in the plane (z, l): beyond the budget or not, above the reference's 95 % point of z or not. A trace with
    an unknown z (a scorer without entropies) is in no region."""
    z_known = frame["excess_z"].notna() & math.isfinite(edge)
    known = frame["log_ratio"].notna() & z_known
    beyond, high = frame["log_ratio"] > math.log(budget), frame["excess_z"] > edge
    parts = {
        "likely_side": known & beyond & ~high,
        "novel_side": known & beyond & high,
        "within_reach": known & ~beyond & ~high,
        "base_tail": known & ~beyond & high,
        "log_ratio_unknown": frame["log_ratio"].isna(),
        "z_unknown": ~z_known,
        "high_z": high,
        "flagged": frame["flagged"],
    }
    return {"n": len(frame), **{name: int(part.sum()) for name, part in parts.items()}}


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
