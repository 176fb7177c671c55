"""What the summaries of the scorers say of one source: membership, whole traces, novelty, and how likely it is."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analyzer.analysis.primary import CERTIFY
from analyzer.analysis.support import engine, membership, novelty, ratios
from analyzer.records import TAU, Estimate, Tables
from analyzer.stats import conformal, evalue, reach

PLANE_ROWS = 300  # traces per source kept for the drawing of the plane
TOP_ROWS = 20
PLANE = ["source", "key", "excess_z", "log_ratio", "log_e", "flagged"]
TOP = ["source", "key", "problem", "excess_z", "log_ratio", "log_e", "p", "n_tokens", "correct"]


def reach_budgets(budget: int) -> tuple[int, ...]:
    return tuple(sorted({*reach.BUDGETS, budget}))


def of_source(
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
    budgets, levels = reach_budgets(budget), tuple(sorted({1, 4, 16, 64, budget}))
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
            estimates |= {f"{source}.{name}@{point['k']}": estimate(point) for point in points}
    null = novelty.null(tables, source)
    pair = novelty.halves(own, options["seed"]) if is_reference else (frame, own)
    found = novelty.shares(*pair, levels, least=TAU / 2)
    parts["novel"] += [{"source": f"{source} (A/A)" if is_reference else source, **row} for row in found]
    if is_reference:
        return reason, omitted
    estimates |= {f"{source}.novel@{row['k']}": estimate(row) for row in found if row["test"] == novelty.PRIMARY}
    if reason:  # else the mass beyond k is known better
        masses = [row for row in found if row["test"] == novelty.MASS]
        estimates |= {f"{source}.novel_mass@{row['k']}": estimate(row | {"high": 1.0}) for row in masses if row["n"]}
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


def estimate(row: dict[str, Any]) -> Estimate:
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
