"""Could the reference have produced these traces? Sampler membership, reach at a budget, and novelty, per source.

Three layers, kept apart (stats.md 7): `membership` is exact and token by token; `reach@k` = E_k needs the source's own
log q and is the share that no selection from k reference draws could make; `novel@k` needs the base alone.

novel@k has one primary test, fixed beforehand: the e-value of `stats/evalue.py` (Benjamini-Hochberg, q = .1, over a
source's traces). It is exact at any stopping time, needs no base samples and no exchangeability, and its p-values are
independent across traces, so its false-alarm rate is known. The conformal test against the base's own traces is
secondary, in the table `novel` only: it sees a few odd steps in a long trace, which the e-value cannot, but it is
exact only if problems differ by location and scale. The flags of the two are never united (that would double the
false discoveries); a conformal signal can veto the word "sharpened", it cannot certify "outside".

Not covered: the engine floor k_min (generation-time log-probs are not in the tables), strategy and answer levels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.errors import UsageError
from analyzer.records import Estimate, Figure, Result, Sampler, Tables
from analyzer.stats import conformal, evalue, reach
from analyzer.stats.bootstrap import DRAWS, Interval, mean, rate

QUESTION = "Could the reference have produced the source's traces, and what share of them could no selection from k of its draws make?"
FDR = 0.1
COMPONENTS = ("nll_masked_mean", "window_max_masked", "cvar20_masked", "excess_z")
CONTRADICTED = 0.01  # share of a source's traces outside its own declared sampler beyond which the declaration is wrong
PLANE_ROWS = 300  # traces per source kept for the drawing of the plane
TOP_ROWS = 20


def run(tables: Tables, *, budget: int = 64, seed: int = 0, draws: int = DRAWS) -> Result:
    """Reach, lost, novelty and membership of every source against the base model.

    Estimates: `<s>.sampler_inside` (also of the reference: its self-inclusion), `<s>.reach@<k>`, `<s>.lost@<k>`,
    `<s>.novel@<k>` (shares in [0, 1]; intervals by problem, `stats.bootstrap.rate`).
    Tables: reach, reach_sampler, lost, novel, membership, evidence (what the verdict reads), plane, plane_counts, top.
    A source with several training steps enters with its last one: its policy model can only be that step's.
    Raises UsageError when no base model was given.
    """
    if tables.base is None:
        raise UsageError("support needs token probabilities under the base model, none was scored; give --base MODEL")
    scores = _last_steps(tables.scores)
    base = scores[scores["model"] == tables.base].set_index("key", drop=False).rename_axis(None)
    budgets = tuple(sorted({*reach.BUDGETS, budget}))
    levels = tuple(sorted({1, 4, 16, 64, budget}))
    sources = [s for s in tables.sources if (base["source"] == s).any()]
    options = {"draws": draws, "seed": seed}
    estimates: dict[str, Estimate] = {}
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("reach", "reach_sampler", "lost", "novel", "membership", "evidence", "plane_counts")
    }
    planes, tops, notes = [], [], []
    own = base[base["source"] == tables.reference]
    edge = float(own["excess_z"].quantile(0.95)) if len(own) else math.nan

    for source in sources:
        rows["membership"].append(_membership(tables, base, source, estimates, options))
        frame = base[base["source"] == source].copy()
        frame["log_q"], reason = _log_q(tables, scores, frame, source)
        own_exits = float(np.isneginf(frame["log_q"]).mean())
        reason = reason or _contradiction(own_exits, source)
        frame.loc[np.isneginf(frame["log_q"]), "log_q"] = np.nan
        frame["log_ratio"] = _blank(frame["log_q"], reason) - frame["logprob"]
        omitted = 0.0 if reason else own_exits
        curves = {"reach": (frame["log_ratio"], reason)}
        sampler_reason = reason or _sampler_gap(tables, own)
        curves["reach_sampler"] = (frame["log_q"] - frame["logprob_s"], sampler_reason)
        for name, (ratio, why) in curves.items():
            for k, interval in reach.curve(_blank(ratio, why), frame["problem"].to_numpy(), budgets, **options).items():
                interval = _widen(interval, omitted)
                rows[name].append(
                    {
                        "source": source,
                        "k": k,
                        **_columns(interval),
                        "coverage": reach.coverage(_blank(ratio, why), k),
                        "note": why,
                    }
                )
                if name == "reach" and source != tables.reference:
                    estimates[f"{source}.reach@{k}"] = _estimate(interval, why or _omitted_note(omitted))
        if source != tables.reference:
            ratio, why = _lost(tables, scores, own, source)
            for k, interval in reach.curve(_blank(ratio, why), own["problem"].to_numpy(), budgets, **options).items():
                rows["lost"].append(
                    {
                        "source": source,
                        "k": k,
                        **_columns(interval),
                        "coverage": reach.coverage(_blank(ratio, why), k),
                        "note": why,
                    }
                )
                estimates[f"{source}.lost@{k}"] = _estimate(interval, why)

        novel = _novelty(frame, own, levels, options, aa=source == tables.reference)
        label = f"{source} (A/A)" if source == tables.reference else source
        rows["novel"] += [{"source": label, **row} for row in novel]
        if source == tables.reference:
            continue
        for row in novel:
            if row["test"] == "e-value":
                estimates[f"{source}.novel@{row['k']}"] = Estimate(
                    row["share"],
                    row["low"],
                    row["high"],
                    row["n"],
                    row["method"],
                    f"e-value, Benjamini-Hochberg q = {FDR}: {row['flagged']} of {row['n']} traces flagged",
                )
        frame["flagged"] = conformal.discoveries(evalue.p_value(frame["log_e"].to_numpy(), 1), q=FDR)
        rows["evidence"].append(_evidence(frame, own, novel, reason, options))
        rows["plane_counts"].append({"source": source, **_regions(frame, edge, budget)})
        frame["p"] = evalue.p_value(frame["log_e"].to_numpy(), 1)
        planes.append(
            frame[["source", "key", "excess_z", "log_ratio", "log_e", "flagged"]].sample(
                min(PLANE_ROWS, len(frame)), random_state=seed
            )
        )
        top = frame[frame["flagged"]].nlargest(TOP_ROWS, "log_e")
        tops.append(top[["source", "key", "problem", "excess_z", "log_ratio", "log_e", "p", "n_tokens", "correct"]])

    notes += _notes(tables, base, edge, budget, own)
    frames = {name: pd.DataFrame(r) for name, r in rows.items()}
    for name, parts in (("plane", planes), ("top", tops)):
        frames[name] = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    params = {
        "budget": budget,
        "budgets": list(budgets),
        "fdr": FDR,
        "draws": draws,
        "primary": "e-value",
        "z_edge": edge,
    }
    return Result("support", QUESTION, estimates, frames, tuple(notes), params, seed)


def _last_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each source's last training step (all rows where steps are not recorded)."""
    last = frame.groupby("source")["step"].transform("max")
    return frame[last.isna() | (frame["step"] == last).fillna(False)]


def _blank(values: pd.Series, reason: str) -> np.ndarray:
    """The values as float64, or NaN everywhere when there is a reason not to use them."""
    return np.full(len(values), np.nan) if reason else values.to_numpy(dtype=float)


def _columns(interval: Interval) -> dict[str, Any]:
    return {
        "share": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "problems": interval.problems,
        "method": interval.method,
    }


def _estimate(interval: Interval, note: str = "") -> Estimate:
    return Estimate(
        interval.value,
        interval.low,
        interval.high,
        interval.n,
        interval.method,
        note or ("" if interval.n else "no trace scored"),
    )


def _widen(interval: Interval, omitted: float) -> Interval:
    """Let the omitted share of traces be 0 at the lower end and 1 at the upper end."""
    return (
        interval._replace(low=interval.low * (1 - omitted), high=min(1.0, interval.high + omitted))
        if omitted
        else interval
    )


def _omitted_note(omitted: float) -> str:
    return (
        f"{omitted:.2%} of the traces left their own declared sampler; left out of the value, counted against both ends"
        if omitted
        else ""
    )


def _log_q(tables: Tables, scores: pd.DataFrame, frame: pd.DataFrame, source: str) -> tuple[np.ndarray, str]:
    """log q of the source's traces under its own sampler [N] and, if there is none, the reason."""
    policy, nothing = tables.policies.get(source), np.full(len(frame), np.nan)
    if policy is None:
        return nothing, f"the model that produced {source} is not known; give --policy {source}=MODEL"
    if source not in tables.samplers:
        return nothing, f"the sampler of {source} is not known; give --sampler {source}=T[,top_p[,top_k[,min_p]]]"
    rows = scores[(scores["model"] == policy) & (scores["source"] == source)].set_index("key").reindex(frame["key"])
    if rows["logprob_s"].isna().all():
        return nothing, f"{source} was not scored under {policy} with its sampler"
    both = rows["n_tokens"].notna().to_numpy()
    if (rows["n_tokens"].to_numpy()[both] != frame["n_tokens"].to_numpy()[both]).any():
        return (
            nothing,
            f"{policy} and the base cut the traces of {source} into different numbers of tokens: log-ratios need one tokenizer",
        )
    return rows["logprob_s"].to_numpy(dtype=float), ""


def _lost(tables: Tables, scores: pd.DataFrame, own: pd.DataFrame, source: str) -> tuple[pd.Series, str]:
    """log p (reference's own sampler) - log q (policy of the source at T=1) of the reference's traces, and a reason."""
    policy = tables.policies.get(source)
    if policy is None:
        return own["logprob"], f"the model that produced {source} is not known; give --policy {source}=MODEL"
    reason = _sampler_gap(tables, own)
    rows = (
        scores[(scores["model"] == policy) & (scores["source"] == tables.reference)]
        .set_index("key")
        .reindex(own["key"])
    )
    if not reason and rows["logprob"].isna().all():
        reason = f"the traces of {tables.reference} were not scored under {policy}"
    ratio = own["logprob_s"].to_numpy(dtype=float) - rows["logprob"].to_numpy(dtype=float)
    return pd.Series(np.where(np.isneginf(ratio), np.nan, ratio), index=own.index), reason


def _sampler_gap(tables: Tables, own: pd.DataFrame) -> str:
    """Why the reference's own sampler cannot be used, or the empty string."""
    if tables.reference not in tables.samplers or own["logprob_s"].isna().all():
        return f"the sampler of {tables.reference} is not known; give --sampler {tables.reference}=T[,top_p[,top_k[,min_p]]]"
    return _contradiction(float(np.isneginf(own["logprob_s"]).mean()), tables.reference)


def _contradiction(exits: float, source: str) -> str:
    """A sampler that could not have drawn its own source's traces was declared wrongly (or the engines differ)."""
    if exits <= CONTRADICTED:
        return ""
    return f"{exits:.1%} of the traces of {source} hold a token that its declared sampler could never draw; check --sampler {source}=..."


def _membership(
    tables: Tables, base: pd.DataFrame, source: str, estimates: dict[str, Estimate], options: dict[str, int]
) -> dict[str, Any]:
    """One row of the membership table; adds `<source>.sampler_inside`."""
    frame, here, there = (
        base[base["source"] == source],
        tables.samplers.get(source),
        tables.samplers.get(tables.reference),
    )
    key = f"{source}.sampler_inside"
    row = {
        "source": source,
        "sampler": _words(here),
        "reference_sampler": _words(there),
        "n": len(frame),
        "problems": frame["problem"].nunique(),
    }
    if here is None or there is None or frame["logprob_s"].isna().all():
        unknown = source if here is None else tables.reference
        estimates[key] = Estimate(
            math.nan, note=f"the sampler of {unknown} is not known; give --sampler {unknown}=T[,top_p[,top_k[,min_p]]]"
        )
        return row | {
            "inside": math.nan,
            "low": math.nan,
            "high": math.nan,
            "exits_per_1000": math.nan,
            "first_exit_median": math.nan,
            "near_boundary_per_1000": math.nan,
            "note": estimates[key].note,
        }
    share = rate((frame["exits"] == 0).to_numpy(dtype=float), frame["problem"].to_numpy(), **options)
    note = ""
    if there.top_p == 1 and there.top_k == 0 and there.min_p == 0:
        note = "the reference's sampler cuts nothing off: every token is inside"
    elif here != there:
        note = (
            "drawn with another sampler than the reference's: the share falls with length and is not evidence by itself"
        )
    estimates[key] = _estimate(share, note)
    tokens = frame["n_tokens"].sum()
    first = frame.loc[frame["first_exit"] >= 0, "first_exit"]
    return row | {
        "inside": share.value,
        "low": share.low,
        "high": share.high,
        "exits_per_1000": 1000 * frame["exits"].sum() / tokens,
        "first_exit_median": first.median() if len(first) else math.nan,
        "near_boundary_per_1000": 1000 * frame["near_boundary"].sum() / tokens,
        "note": note,
    }


def _words(sampler: Sampler | None) -> str:
    if sampler is None:
        return "unknown"
    parts = [f"T={sampler.temperature:g}"] + [
        f"{name} {value:g}"
        for name, value, off in (("top-p", sampler.top_p, 1), ("top-k", sampler.top_k, 0), ("min-p", sampler.min_p, 0))
        if value != off
    ]
    return ", ".join(parts)


def _novelty(
    frame: pd.DataFrame, own: pd.DataFrame, levels: tuple[int, ...], options: dict[str, int], *, aa: bool
) -> list[dict[str, Any]]:
    """Share of flagged traces by test and budget; `aa`: one half of the reference's traces plays the source."""
    if aa:
        order = np.random.default_rng(options["seed"]).permutation(len(own))
        ranks = own.iloc[order].groupby("problem").cumcount().reindex(own.index)
        frame, own = own[(ranks % 2 == 1).to_numpy()], own[(ranks % 2 == 0).to_numpy()]
    problem = frame["problem"].to_numpy()
    scores = [
        conformal.standardise(own[c].to_numpy(), own["problem"].to_numpy(), frame[c].to_numpy(), problem)
        for c in COMPONENTS
    ]
    calibration = conformal.worst(np.column_stack([a for a, _ in scores]))
    p = {
        "e-value": evalue.p_value(frame["log_e"].to_numpy(), 1),
        "conformal": conformal.p_values(calibration, conformal.worst(np.column_stack([b for _, b in scores]))),
    }
    out = []
    for test, p_N in p.items():
        unusable = np.isnan(p_N)
        inflated = {
            k: conformal.inflate(p_N, k) if test == "conformal" else evalue.p_value(frame["log_e"].to_numpy(), k)
            for k in levels
        }
        for k in levels:
            hits = np.where(unusable, np.nan, conformal.discoveries(inflated[k], q=FDR).astype(float))
            share = rate(hits, problem, like=np.nan_to_num(inflated[1] < 0.5).astype(float), **options)
            out.append(
                {
                    "test": test,
                    "k": k,
                    **_columns(share),
                    "flagged": int(np.nansum(hits)),
                    "calibration": int((~np.isnan(calibration)).sum()) if test == "conformal" else 0,
                }
            )
    return out


def _evidence(
    frame: pd.DataFrame, own: pd.DataFrame, novel: list[dict[str, Any]], reason: str, options: dict[str, int]
) -> dict[str, Any]:
    """What the verdict reads: side of the surprisal (paired by problem against the reference), log-ratio, vetoes."""
    shift = frame.groupby("problem")["excess_z"].median()
    shift = (shift - own.groupby("problem")["excess_z"].median()) if len(own) else shift
    shift = shift.dropna()
    z = mean(shift.to_numpy(), shift.index.to_numpy(), **options)
    side = "low" if z.high < 0 else "high" if z.low > 0 else "neutral" if np.isfinite(z.low) else "unknown"
    veto = next(r for r in novel if r["test"] == "conformal" and r["k"] == 1)
    return {
        "source": frame["source"].iloc[0],
        "n": len(frame),
        "problems": frame["problem"].nunique(),
        "log_ratio_median": frame["log_ratio"].median(),
        "z_median": frame["excess_z"].median(),
        "z_reference_median": own["excess_z"].median() if len(own) else math.nan,
        "z_shift": z.value,
        "z_shift_low": z.low,
        "z_shift_high": z.high,
        "side": side,
        "conformal_share": veto["share"],
        "conformal_low": veto["low"],
        "conformal_high": veto["high"],
        "flagged_groups": _flagged_groups(frame),
        "cut_share": float((frame["finish"] == "length").mean()),
        "no_log_q": reason,
    }


def _flagged_groups(frame: pd.DataFrame) -> str:
    """Where the flagged traces lie: "mul 62 of 768; div 1 of 768"."""
    if not frame["flagged"].any() or frame["group"].isna().all():
        return ""
    table = frame.groupby("group")["flagged"].agg(["sum", "size"]).sort_values("sum", ascending=False)
    return "; ".join(f"{name} {int(r['sum'])} of {int(r['size'])}" for name, r in table[table["sum"] > 0].iterrows())


def _regions(frame: pd.DataFrame, edge: float, budget: int) -> dict[str, Any]:
    """Counts in the plane (z, l): beyond the budget or not, above the reference's 95 % point of z or not."""
    known = frame["log_ratio"].notna()
    beyond, high = frame["log_ratio"] > math.log(budget), frame["excess_z"] > edge
    return {
        "n": len(frame),
        "sharpened": int((known & beyond & ~high).sum()),
        "novel_side": int((known & beyond & high).sum()),
        "within_reach": int((known & ~beyond & ~high).sum()),
        "base_tail": int((known & ~beyond & high).sum()),
        "log_ratio_unknown": int((~known).sum()),
        "high_z": int(high.sum()),
        "flagged": int(frame["flagged"].sum()),
    }


def _notes(tables: Tables, base: pd.DataFrame, edge: float, budget: int, own: pd.DataFrame) -> list[str]:
    notes = [
        "novel@k is the e-value test alone; the conformal test stands beside it in the table and the two are not united.",
        f"Regions of the plane: log-ratio beyond log {budget} = {math.log(budget):.2f} nats; surprisal high above the reference's 95 % point of z"
        + (f" = {edge:.2f}." if math.isfinite(edge) else ", unknown without its traces."),
    ]
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
    return _draw_curve(result, ax, "reach", "share that k base draws cannot make, E_k")


def draw_lost(result: Result, ax: Any) -> Any:
    """The reverse: the reference's traces under the source's policy."""
    return _draw_curve(result, ax, "lost", "share of the base's traces lost, E_k")


def _draw_curve(result: Result, ax: Any, table: str, label: str) -> Any:
    import seaborn as sns

    from analyzer.figures import styles

    data = result.tables[table]
    data = data if data.empty else data.dropna(subset=["share"])
    if data.empty:
        return _nothing(ax, "no source has a known model and sampler")
    look = styles(list(dict.fromkeys(result.tables["reach"]["source"])))
    for source, part in data.groupby("source", sort=False):
        style = look[source]
        sns.lineplot(
            data=part,
            x="k",
            y="share",
            color=style["color"],
            marker=style["marker"],
            linestyle=style["linestyle"],
            label=source,
            errorbar=None,
            ax=ax,
        )
        ax.fill_between(
            part["k"].astype(float),
            part["low"].astype(float),
            part["high"].astype(float),
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
    ax.axhline(0.02, color="0.4", linewidth=0.8, linestyle=":")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="budget k", ylabel=label, ylim=(-0.02, 1.02))
    return ax


def _nothing(ax: Any, why: str) -> Any:
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
    return ax


def draw_plane(result: Result, ax: Any) -> Any:
    """One point per trace: excess surprisal under the base against the log-ratio; right of the line is out of reach."""
    import seaborn as sns

    from analyzer.figures import styles

    data = result.tables["plane"]
    data = data if data.empty else data.dropna(subset=["log_ratio"])
    if data.empty:
        return _nothing(ax, "no source has a known model and sampler")
    look = styles(list(dict.fromkeys(result.tables["reach"]["source"])))
    for source, part in data.groupby("source", sort=False):
        style = look[source]
        sns.scatterplot(
            x=part["log_ratio"].astype(float),
            y=part["excess_z"].astype(float),
            color=style["color"],
            marker=style["marker"],
            s=12,
            alpha=0.6,
            label=source,
            ax=ax,
        )
    ax.axvline(math.log(result.params["budget"]), color="0.4", linewidth=0.8, linestyle=":")
    if math.isfinite(result.params["z_edge"] or math.nan):
        ax.axhline(result.params["z_edge"], color="0.4", linewidth=0.8, linestyle=":")
    ax.set_yscale("symlog", linthresh=3)
    ax.set_xscale("symlog", linthresh=10)
    ax.set(xlabel="log q - log p (nats)", ylabel="excess surprisal z under the base")
    return ax


def _caption_curve(result: Result, name: str, lead: str) -> str:
    k, parts = result.params["budget"], []
    for row in result.tables[name].to_dict("records") if len(result.tables[name]) else []:
        if row["k"] == k and row["share"] is not None and math.isfinite(row["share"]):
            parts.append(
                f"{row['source']} {row['share']:.3f} [{row['low']:.3f}, {row['high']:.3f}] (n = {row['n']:,} traces, {row['problems']} problems)"
            )
    return f"{lead} At k = {k}: " + ("; ".join(parts) if parts else "no source has a known policy and sampler") + "."


def caption_reach(result: Result) -> str:
    return _caption_curve(
        result,
        "reach",
        "Share of each source that no selection from k base draws could make; bands are 95 % by problem.",
    )


def caption_lost(result: Result) -> str:
    return _caption_curve(
        result,
        "lost",
        "Share of the reference's traces that no selection from k draws of the trained model could make.",
    )


def caption_plane(result: Result) -> str:
    table = result.tables["plane_counts"]
    parts = [
        f"{r['source']}: {r['sharpened']} sharpened, {r['novel_side']} on the novel side, {r['flagged']} flagged of n = {r['n']:,}"
        for r in table.to_dict("records")
    ]
    return (
        f"Each point is a trace (at most {PLANE_ROWS} per source are drawn); right of the dotted line it is beyond the budget, above it more surprising than 95 % of the base. "
        + "; ".join(parts)
        + "."
    )


FIGURES = {
    "reach": Figure(draw_reach, "reach", caption_reach),
    "lost": Figure(draw_lost, "lost", caption_lost),
    "plane": Figure(draw_plane, "plane", caption_plane),
}
draw = draw_reach
