"""What the figures of `support` show: the prefix curve, hurdles by kind and place, whole traces over k, the plane."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analyzer.analysis.drawing import above, band, level, look, nothing
from analyzer.analysis.support.hurdles import KINDS
from analyzer.records import TAU, Figure, Result


def draw_prefix(result: Result, ax: Any) -> Any:
    """Share of each source beyond k base draws after its first w tokens, whatever way the base is sampled."""
    import seaborn as sns

    data = result.tables["prefix"]
    data = data[data["law"] == "every law"] if len(data) else data
    if data.empty:
        return nothing(ax, "no source whose own law is known")
    styles = look(data["source"])
    for source, part in data.groupby("source", sort=False):
        w, y = part["tokens"].astype(float), part["excess"].astype(float)
        style = {k: v for k, v in styles[source].items() if k != "marker"}
        sns.lineplot(x=w, y=y, label=source, errorbar=None, ax=ax, **style)
        low, high = (part[name].astype(float) for name in ("low", "high"))
        ax.fill_between(w, low, high, color=style["color"], alpha=0.15, linewidth=0)
        horizon = result.estimates.get(f"{source}.horizon@{result.params['budget']}")
        if horizon is not None and math.isfinite(horizon.value):
            ax.plot([horizon.value], [0.5], marker=styles[source]["marker"], color=style["color"], markersize=5)
            at = (horizon.value, 0.5)
            ax.annotate(f"{horizon.value:.3g}", at, textcoords="offset points", xytext=(4, -9), fontsize=6)
    level(ax, 0.5, "one half: the support horizon", side="left")
    ax.set_xscale("log")
    k = result.params["budget"]
    ax.set(xlabel="first w tokens of the response", ylabel=f"excess mass E_k, k = {k}", ylim=(-0.02, 1.02))
    above(ax)
    return ax


def draw_kinds(result: Result, ax: Any) -> Any:
    """Of each source's expected hurdles, the share by kind of token."""
    import seaborn as sns

    data = _hurdles(result, "kind")
    if data.empty:
        return nothing(ax, "no hurdle in any source")
    styles = look(_sources(result))
    palette = {s: styles[s]["color"] for s in data["source"].unique()}
    order = [k for k in KINDS if k in set(data["name"])]
    sns.barplot(data=data, x="share", y="name", hue="source", order=order, palette=palette, ax=ax)
    ax.set(xlabel="share of the source's hurdles", ylabel="", xlim=(0, 1.02))
    return ax


def draw_tenths(result: Result, ax: Any) -> Any:
    """Expected hurdles of each source by tenth of the trace."""
    import seaborn as sns

    data = _hurdles(result, "tenth")
    if data.empty:
        return nothing(ax, "no hurdle in any source")
    styles = look(_sources(result))
    for source, part in data.groupby("source", sort=False):
        x, y = part["name"].astype(int), part["share"].astype(float)
        sns.lineplot(x=x, y=y, label=source, errorbar=None, ax=ax, **styles[source])
    ax.set(xlabel="tenth of the response", ylabel="share of the source's hurdles", ylim=(-0.02, None))
    ax.set_xticks(range(1, 11))
    return ax


def _hurdles(result: Result, by: str) -> pd.DataFrame:
    data = result.tables["hurdle_kinds"]
    return data[data["by"] == by] if len(data) else data


def _sources(result: Result) -> list[str]:
    """All sources in the order of the curves, so that each keeps its look."""
    return list(dict.fromkeys([*result.tables["prefix"].get("source", ()), *result.tables["hurdle_kinds"]["source"]]))


def draw_reach(result: Result, ax: Any) -> Any:
    """E_k of whole traces over k against T = 1, the interval as a band; the dotted line is the tolerance of .02."""
    return _draw_curve(result, ax, "reach", "excess mass E_k (T = 1)")


def draw_lost(result: Result, ax: Any) -> Any:
    """The reverse: the reference's traces under the source's policy."""
    return _draw_curve(result, ax, "lost", "excess mass of the base beyond k q")


def _draw_curve(result: Result, ax: Any, table: str, label: str) -> Any:
    data = result.tables[table]
    data = data if data.empty else data.dropna(subset=["share"])
    if data.empty:
        return nothing(ax, "no source has a known model and sampler")
    styles = look(result.tables["reach"]["source"])
    for source, part in data.groupby("source", sort=False):
        band(ax, part, "share", styles[source], source)
    level(ax, TAU, f"tolerance {TAU:g}")
    ax.set(xlabel="budget k (draws)", ylabel=label, ylim=(-0.02, 1.02))
    above(ax)
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
    level(ax, math.log(result.params["budget"]), f"log {result.params['budget']}", across=True)
    if math.isfinite(result.params["z_edge"] or math.nan):
        level(ax, result.params["z_edge"], "95 % of the base")
    ax.set_yscale("symlog", linthresh=3)
    ax.set_xscale("symlog", linthresh=10)
    ax.set(xlabel="log q/p in nats", ylabel="excess surprisal z under the base")
    above(ax)
    return ax


def caption_prefix(result: Result) -> str:
    k, parts = result.params["budget"], []
    for source, e in ((key.rpartition(".horizon@")[0], e) for key, e in result.estimates.items() if ".horizon@" in key):
        at = f"half beyond after {e.value:.1f} tokens" if math.isfinite(e.value) else "half never reached"
        parts.append(f"{source}: {at} (n = {e.n:,} traces)")
    return (
        f"Probability mass of each source's first w tokens beyond {k} times the base's, mean over its scored traces: "
        f"no choice among {k} draws of the base can make it up. Of all sampling settings of the base (T = 1, lower, as "
        "the reference, as the source) the likeliest counts, so that a curve may end below beyond@k, which has one "
        "setting. Band: pointwise 95 % intervals by problem; dotted: one half. "
        + ("; ".join(parts) or "No source has a known model and sampler")
        + "."
    )


def caption_kinds(result: Result) -> str:
    return _caption_hurdles(result, "by kind of token")


def caption_tenths(result: Result) -> str:
    return _caption_hurdles(result, "by tenth of the response")


def _caption_hurdles(result: Result, how: str) -> str:
    k, parts = result.params["budget"], []
    for key, e in result.estimates.items():
        if key.endswith(f".hurdles@{k}"):
            parts.append(f"{key.removesuffix(f'.hurdles@{k}')} {e.value:.3g} a trace (n = {e.n:,})")
    said = "; ".join(parts) or "no source has a known model and sampler"
    return (
        f"Hurdles, steps more than {k} times as likely as under the base: share of each source's hurdles {how}, over "
        f"its scored traces, without intervals. Expected number: {said}."
    )


def _caption_curve(result: Result, name: str, lead: str) -> str:
    k, parts = result.params["budget"], []
    for row in result.tables[name].to_dict("records"):
        if row["k"] == k and row["share"] is not None and math.isfinite(row["share"]):
            value = f"{row['share']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            parts.append(f"{row['source']} {value} (n = {row['n']:,} traces, {row['problems']} problems)")
    return f"{lead} At k = {k}: " + ("; ".join(parts) or "no source has a known model and sampler") + "."


def caption_reach(result: Result) -> str:
    lead = (
        "Mass of whole traces beyond k times the base's probability at T = 1 (reach@k, E_k), over the scored traces; "
        "bands: 95 % by problem; dotted: the tolerance."
    )
    return _caption_curve(result, "reach", lead)


def caption_lost(result: Result) -> str:
    lead = (
        "The reverse (lost@k): mass of the reference's scored traces beyond k times their probability under the "
        "source's model; bands: 95 % by problem; dotted: the tolerance."
    )
    return _caption_curve(result, "lost", lead)


def caption_plane(result: Result) -> str:
    parts = [
        f"{r['source']}: {r['likely_side']} right of the line and below, {r['novel_side']} right of it and above, "
        f"{r['flagged']} flagged by surprisal, of n = {r['n']:,}"
        for r in result.tables["plane_counts"].to_dict("records")
    ]
    return (
        f"Each point is a scored trace (at most 300 per source): right of the dotted line more than "
        f"{result.params['budget']} times as likely under the source as under the base, above the other more "
        "surprising than 95 % of the base's own. " + "; ".join(parts) + "."
    )


FIGURES = {
    "prefix": Figure(draw_prefix, "prefix", caption_prefix),
    "kinds": Figure(draw_kinds, "hurdle_kinds", caption_kinds),
    "places": Figure(draw_tenths, "hurdle_kinds", caption_tenths),
    "reach": Figure(draw_reach, "reach", caption_reach),
    "lost": Figure(draw_lost, "lost", caption_lost),
    "plane": Figure(draw_plane, "plane", caption_plane),
}
draw = draw_prefix
