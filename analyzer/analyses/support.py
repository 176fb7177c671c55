"""Could the reference have produced these traces? Sampler membership, reach at a budget, and novelty, per source.

Three layers, kept apart (stats.md 7): `membership` is exact and token by token; `reach@k` = E_k needs the source's own
log q and is the share that no selection from k reference draws could make; `novel@k` needs the base alone.

novel@k is the e-value test alone; `novelty` says why, and what the conformal test beside it may and may not do.

Budgets below the engine floor k_min (`engine`) have no reach. Strategy and answer levels are other analyses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analyses import engine, flagged, membership, novelty
from analyzer.analyses.drawing import band, look, nothing
from analyzer.analyses.primary import CERTIFY, TAU
from analyzer.errors import UsageError
from analyzer.records import Estimate, Figure, Result, Tables
from analyzer.stats import conformal, evalue, reach
from analyzer.stats.bands import p_above
from analyzer.stats.bootstrap import DRAWS
from analyzer.summaries import last_steps

QUESTION = (
    "Could the reference have produced the source's traces, and what share of them could no selection from k of its "
    "draws make?"
)
SAME = 1e-3  # nats: a smaller log-ratio of a trace is rounding, and rounding must not count as an event at k = 1
PLANE_ROWS = 300  # traces per source kept for the drawing of the plane
TOP_ROWS = 20
PLANE = ["source", "key", "excess_z", "log_ratio", "log_e", "flagged"]
TOP = ["source", "key", "problem", "excess_z", "log_ratio", "log_e", "p", "n_tokens", "correct"]


def run(tables: Tables, *, budget: int = 64, seed: int = 0, draws: int = DRAWS) -> Result:
    """Reach, lost, novelty and membership of every source against the base model.

    Estimates: `<s>.sampler_inside` (also of the reference: its self-inclusion), `<s>.reach@<k>`, `<s>.lost@<k>`,
    `<s>.novel@<k>` (shares in [0, 1]; intervals by problem, `stats.bootstrap.rate`).
    Tables: reach, reach_sampler, lost, novel, membership, evidence (what the verdict reads), plane, plane_counts, top,
    flagged_tokens and flagged_windows (see `flagged`).
    A source with several training steps enters with its last one: its policy model can only be that step's.
    Raises UsageError when no base model was given.
    """
    if tables.base is None:
        raise UsageError("support needs token probabilities under the base model, none was scored; give --base MODEL")
    scores = last_steps(tables.scores)
    base = scores[scores["model"] == tables.base].set_index("key", drop=False).rename_axis(None).copy()
    base["unit"] = pd.factorize(base["problem"], sort=True)[0]  # numbers sort a hundred times faster than names
    budgets = tuple(sorted({*reach.BUDGETS, budget}))
    levels = tuple(sorted({1, 4, 16, 64, budget}))
    sources = [s for s in tables.sources if (base["source"] == s).any()]
    options = {"draws": draws, "seed": seed}
    estimates: dict[str, Estimate] = {}
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("reach", "reach_sampler", "lost", "novel", "membership", "evidence", "plane_counts")
    }
    planes, tops, picked = [], [], {}
    floors = engine.floors(tables)
    own = base[base["source"] == tables.reference]
    wrong_base = engine.foreign(tables, own, tables.reference, "the base model", "check --base and --template")
    edge = float(own["excess_z"].quantile(0.95)) if len(own) else math.nan

    for source in sources:
        frame, is_reference = base[base["source"] == source].copy(), source == tables.reference
        floor = engine.k_min(floors, tables.reference, source)
        row, estimates[f"{source}.sampler_inside"] = membership.inside(tables, frame, source, **options)
        rows["membership"].append(row)
        frame["log_q"], reason, omitted = _log_q(tables, scores, frame, source)
        reason = wrong_base or reason
        frame["log_ratio"] = frame["log_q"] - frame["logprob"]
        curves = {
            "reach": (frame, frame["log_ratio"], reason, omitted),
            "reach_sampler": (frame, frame["log_q"] - frame["logprob_s"], reason or _sampler_gap(tables, own), omitted),
        }
        if not is_reference:
            curves["lost"] = (own, *_lost(tables, scores, own, source), 0.0)
        for name, (whose, ratio, why, left_out) in curves.items():
            points = _curve(ratio, whose["unit"], why, left_out, budgets, floor, options)
            rows[name] += [{"source": source, **point} for point in points]
            if name != "reach_sampler" and not is_reference:
                estimates |= {f"{source}.{name}@{point['k']}": _estimate(point) for point in points}
        pair = novelty.halves(own, seed) if is_reference else (frame, own)
        found = novelty.shares(*pair, levels, least=TAU / 2, **options)
        rows["novel"] += [{"source": f"{source} (A/A)" if is_reference else source, **row} for row in found]
        if is_reference:
            continue
        estimates |= {f"{source}.novel@{row['k']}": _estimate(row) for row in found if row["test"] == novelty.PRIMARY}
        frame["p"] = evalue.p_value(frame["log_e"].to_numpy())
        frame["flagged"] = conformal.discoveries(frame["p"].to_numpy(), q=novelty.FDR)
        picked[source] = frame.loc[frame["flagged"], "key"].tolist()
        rows["evidence"].append(
            {
                "source": source,
                **novelty.evidence(frame, own, found, **options),
                **_primary(frame, found, bool(reason), omitted, floor, budget, options),
                "no_log_q": reason,
                "no_verdict": wrong_base,
            }
        )
        rows["plane_counts"].append({"source": source, **_regions(frame, edge, budget)})
        planes.append(frame[PLANE].sample(min(PLANE_ROWS, len(frame)), random_state=seed))
        tops.append(frame.loc[frame["flagged"], TOP].nlargest(TOP_ROWS, "log_e"))

    tokens, windows = flagged.tables_of(tables, picked, own["key"])
    for row in rows["evidence"]:
        row["carrier"], row["carried"] = flagged.carried(tokens, row["source"])
    frames = {name: pd.DataFrame(r) for name, r in rows.items()} | {
        "flagged_tokens": tokens,
        "flagged_windows": windows,
    }
    frames["plane"] = pd.concat(planes, ignore_index=True) if planes else pd.DataFrame(columns=PLANE)
    frames["top"] = pd.concat(tops, ignore_index=True) if tops else pd.DataFrame(columns=TOP)
    params = {"budget": budget, "budgets": list(budgets), "fdr": novelty.FDR, "draws": draws, "z_edge": edge}
    params |= {"primary": novelty.PRIMARY, "tau": TAU}
    notes = _notes(tables, base, edge, budget, own)
    return Result("support", QUESTION, estimates, frames, tuple(notes), params, seed)


def _curve(
    ratio: pd.Series,
    unit: pd.Series,
    why: str,
    omitted: float,
    budgets: tuple[int, ...],
    floor: float,
    options: dict[str, int],
) -> list[dict[str, Any]]:
    """E_k and Cov_k at every budget; NaN if there is a reason `why` not to use the ratios, or below the engine floor.

    A share `omitted` of the traces without a usable ratio counts as 0 at the lower end and as 1 at the upper end.
    """
    values = np.full(len(ratio), np.nan) if why else ratio.to_numpy(dtype=float)
    values = np.where(np.abs(values) < SAME, 0.0, values)  # two passes of one model differ in the last bits
    note = why or ("" if len(values) else "no trace scored")
    if omitted and not why:
        note = f"{omitted:.2%} of the traces left their own declared sampler; counted against both ends of the interval"
    out = []
    for k, interval in reach.curve(values, unit.to_numpy(), budgets, **options).items():
        if omitted:
            interval = interval._replace(low=interval.low * (1 - omitted), high=min(1.0, interval.high + omitted))
        row = {"k": k, **novelty.columns(interval), "coverage": reach.coverage(values, k), "note": note}
        if not why and engine.below(k, floor):
            row |= dict.fromkeys(("share", "low", "high", "coverage"), math.nan)
            row["note"] = f"k is below the engine floor k_min = {floor:.3g}: log-probs of two engines differ by more"
        out.append(row)
    return out


def _primary(
    frame: pd.DataFrame,
    found: list[dict[str, Any]],
    no_log_q: bool,
    omitted: float,
    floor: float,
    budget: int,
    options: dict[str, int],
) -> dict[str, Any]:
    """The sequence level's primary endpoint (`primary`): k_min, certify (the k of novel@k that counts), p_outside."""
    out = {"k_min": floor, "certify": math.nan, "p_outside": math.nan}
    for row in sorted((r for r in found if r["test"] == novelty.PRIMARY), key=lambda r: r["k"]):
        if row["k"] >= (CERTIFY if no_log_q else 1) and not engine.below(row["k"], floor):
            out |= {"certify": row["k"], "p_outside": row["p_above"]}
            break
    if engine.below(budget, floor):
        out["p_outside"] = math.nan
    elif not no_log_q:
        terms = reach.excess(frame["log_ratio"], budget) * (1 - omitted)
        out["p_outside"] = max(out["p_outside"], p_above(terms, frame["unit"].to_numpy(), TAU, **options))
    return out


def _estimate(row: dict[str, Any]) -> Estimate:
    return Estimate(row["share"], row["low"], row["high"], row["n"], row["method"], row["note"])


def _log_q(tables: Tables, scores: pd.DataFrame, frame: pd.DataFrame, source: str) -> tuple[np.ndarray, str, float]:
    """log q of the source's traces under its own sampler [N], the reason if there is none, and the share left out.

    A trace that the declared sampler could not have drawn has no log q: -inf would count as "inside". More than
    CONTRADICTED of them say that the declaration is wrong, and nothing is computed.
    """
    policy, nothing_known = tables.policies.get(source), np.full(len(frame), np.nan)
    if policy is None:
        return nothing_known, f"the model that produced {source} is not known; give --policy {source}=MODEL", 0.0
    if source not in tables.samplers:
        return nothing_known, membership.unknown(source), 0.0
    rows = scores[(scores["model"] == policy) & (scores["source"] == source)].set_index("key").reindex(frame["key"])
    log_q = rows["logprob_s"].to_numpy(dtype=float)
    if np.isnan(log_q).all():
        return nothing_known, f"{source} was not scored under {policy} with its sampler", 0.0
    both = rows["n_tokens"].notna().to_numpy()
    if (rows["n_tokens"].to_numpy()[both] != frame["n_tokens"].to_numpy()[both]).any():
        why = f"{policy} and the base cut the traces of {source} into different numbers of tokens"
        return nothing_known, why + ": log-ratios need one tokenizer", 0.0
    exits = float(np.isneginf(log_q).mean())
    advice = f"check --policy {source}=MODEL and --template"
    why = engine.contradiction(exits, source) or engine.foreign(tables, rows, source, policy, advice)
    return (nothing_known, why, 0.0) if why else (np.where(np.isneginf(log_q), np.nan, log_q), "", exits)


def _lost(tables: Tables, scores: pd.DataFrame, own: pd.DataFrame, source: str) -> tuple[pd.Series, str]:
    """log p (reference's own sampler) - log q (policy of the source at T=1) of the reference's traces, and a reason."""
    policy = tables.policies.get(source)
    if policy is None:
        return own["logprob"], f"the model that produced {source} is not known; give --policy {source}=MODEL"
    reason = _sampler_gap(tables, own)
    rows = scores[(scores["model"] == policy) & (scores["source"] == tables.reference)].set_index("key")
    log_q = rows["logprob"].reindex(own["key"]).to_numpy(dtype=float)
    if not reason and np.isnan(log_q).all():
        reason = f"the traces of {tables.reference} were not scored under {policy}"
    ratio = own["logprob_s"] - log_q
    return ratio.where(~np.isneginf(ratio)), reason


def _sampler_gap(tables: Tables, own: pd.DataFrame) -> str:
    """Why the reference's own sampler cannot be used, or the empty string."""
    if tables.reference not in tables.samplers or own["logprob_s"].isna().all():
        return membership.unknown(tables.reference)
    return engine.contradiction(float(np.isneginf(own["logprob_s"]).mean()), tables.reference)


def _regions(frame: pd.DataFrame, edge: float, budget: int) -> dict[str, Any]:
    """Counts in the plane (z, l): beyond the budget or not, above the reference's 95 % point of z or not. A trace with
    an unknown z (a scorer without entropies) is in no region."""
    z_known = frame["excess_z"].notna() & math.isfinite(edge)
    known = frame["log_ratio"].notna() & z_known
    beyond, high = frame["log_ratio"] > math.log(budget), frame["excess_z"] > edge
    parts = {
        "sharpened": known & beyond & ~high,
        "novel_side": known & beyond & high,
        "within_reach": known & ~beyond & ~high,
        "base_tail": known & ~beyond & high,
        "log_ratio_unknown": frame["log_ratio"].isna(),
        "z_unknown": ~z_known,
        "high_z": high,
        "flagged": frame["flagged"],
    }
    return {"n": len(frame), **{name: int(part.sum()) for name, part in parts.items()}}


def _notes(tables: Tables, base: pd.DataFrame, edge: float, budget: int, own: pd.DataFrame) -> list[str]:
    notes = [
        "novel@k is the e-value test alone; the conformal test stands beside it and the two are not united.",
        f"Regions of the plane: log-ratio beyond log {budget} = {math.log(budget):.2f} nats; surprisal high above the "
        f"reference's 95 % point of z, {edge:.2f}."
        if math.isfinite(edge)
        else "No regions of the plane: the reference's excess surprisal z is not known.",
    ]
    if len(base) and base["log_e"].isna().all():
        notes.append("No e-value, so no novel@k and no z: the base's scorer (a server?) knows log-probs, no entropies.")
    if own.empty:
        notes.append(
            f"{tables.reference} has no scored traces: no A/A row, no conformal test, surprisal compared with 0."
        )
    cut = base.groupby("source")["finish"].apply(lambda f: (f == "length").mean())
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


def draw_reach(result: Result, ax: Any) -> Any:
    """E_k over k with the interval as a band; the dotted line is the tolerance of .02."""
    return _draw_curve(result, ax, "reach", "share beyond k base draws, E_k")


def draw_lost(result: Result, ax: Any) -> Any:
    """The reverse: the reference's traces under the source's policy."""
    return _draw_curve(result, ax, "lost", "share of the base's traces lost, E_k")


def _draw_curve(result: Result, ax: Any, table: str, label: str) -> Any:
    data = result.tables[table]
    data = data if data.empty else data.dropna(subset=["share"])
    if data.empty:
        return nothing(ax, "no source has a known model and sampler")
    styles = look(result.tables["reach"]["source"])
    for source, part in data.groupby("source", sort=False):
        band(ax, part, "share", styles[source], source)
    ax.axhline(TAU, color="0.4", linewidth=0.8, linestyle=":")
    ax.set(xlabel="budget k", ylabel=label, ylim=(-0.02, 1.02))
    return ax


def draw_plane(result: Result, ax: Any) -> Any:
    """One point per trace: excess surprisal under the base against the log-ratio; right of the line is out of reach."""
    import seaborn as sns

    data = result.tables["plane"]
    data = data if data.empty else data.dropna(subset=["log_ratio"])
    if data.empty:
        return nothing(ax, "no source has a known model and sampler")
    styles = look(result.tables["reach"]["source"])
    for source, part in data.groupby("source", sort=False):
        style = {"color": styles[source]["color"], "marker": styles[source]["marker"], "s": 12, "alpha": 0.6}
        x, y = part["log_ratio"].astype(float), part["excess_z"].astype(float)
        sns.scatterplot(x=x, y=y, label=source, ax=ax, **style)
    ax.axvline(math.log(result.params["budget"]), color="0.4", linewidth=0.8, linestyle=":")
    if math.isfinite(result.params["z_edge"] or math.nan):
        ax.axhline(result.params["z_edge"], color="0.4", linewidth=0.8, linestyle=":")
    ax.set_yscale("symlog", linthresh=3)
    ax.set_xscale("symlog", linthresh=10)
    ax.set(xlabel="log q - log p (nats)", ylabel="excess surprisal z under the base")
    return ax


def _caption_curve(result: Result, name: str, lead: str) -> str:
    k, parts = result.params["budget"], []
    for row in result.tables[name].to_dict("records"):
        if row["k"] == k and row["share"] is not None and math.isfinite(row["share"]):
            value = f"{row['share']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            parts.append(f"{row['source']} {value} (n = {row['n']:,} traces, {row['problems']} problems)")
    return f"{lead} At k = {k}: " + ("; ".join(parts) or "no source has a known model and sampler") + "."


def caption_reach(result: Result) -> str:
    lead = "Share of each source that no selection from k base draws could make, with 95 % bands over problems."
    return _caption_curve(result, "reach", lead)


def caption_lost(result: Result) -> str:
    lead = "Share of the reference's traces that no selection from k draws of the trained model could make."
    return _caption_curve(result, "lost", lead)


def caption_plane(result: Result) -> str:
    parts = [
        f"{r['source']}: {r['sharpened']} sharpened, {r['novel_side']} on the novel side, {r['flagged']} flagged of "
        f"n = {r['n']:,}"
        for r in result.tables["plane_counts"].to_dict("records")
    ]
    return (
        f"Each point is a trace (at most {PLANE_ROWS} per source); right of the dotted line it is beyond the budget, "
        "above it more surprising than 95 % of the base. " + "; ".join(parts) + "."
    )


FIGURES = {
    "reach": Figure(draw_reach, "reach", caption_reach),
    "lost": Figure(draw_lost, "lost", caption_lost),
    "plane": Figure(draw_plane, "plane", caption_plane),
}
draw = draw_reach
