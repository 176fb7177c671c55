"""The drawings of `perplexity`: each reads one table of its Result, and its caption states the numbers with their n."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analyzer.analysis.drawing import nothing
from analyzer.records import Figure, Result


def draw_boxes(result: Result, ax: Any) -> Any:
    """Boxes of PPL per trace (quartiles, median, 5 % and 95 %): all sources under the base, then own models."""
    from analyzer.analysis.figures import styles

    table = _shown(result)
    if not table:
        return nothing(ax, "every box has an infinite quantile")
    look = styles(dict.fromkeys(result.tables["boxes"]["source"]))
    stats = [
        {"q1": r["q25"], "med": r["median"], "q3": r["q75"], "whislo": r["q05"], "whishi": r["q95"]} for r in table
    ]
    drawn = ax.bxp(stats, showfliers=False, patch_artist=True, widths=0.6, medianprops={"color": "black"})
    for box, row in zip(drawn["boxes"], table, strict=True):
        box.set_facecolor(look[row["source"]]["color"])
        box.set_alpha(0.6)
        box.set_hatch("" if row["model"] == result.params["model"] else "///")
    ax.set_xticks(range(1, len(table) + 1), [f"{r['source']}\nunder {_short(r['model'])}" for r in table])
    ax.tick_params(axis="x", labelrotation=45 if len(table) > 7 else 0)
    ax.set_yscale("log")
    ax.set(ylabel="perplexity per trace")
    return ax


def _shown(result: Result) -> list[dict[str, Any]]:
    """Rows of `boxes` that are drawn: all under the base, and each source under the model that it came from; a box
    with an infinite quantile has no place on the axis."""
    rows, model = result.tables["boxes"].to_dict("records"), result.params["model"]
    rows = [r for r in rows if all(r[q] is not None and math.isfinite(r[q]) for q in ("q05", "q95"))]
    return [r for r in rows if r["model"] == model] + [r for r in rows if r["model"] != model and r["own_model"]]


def _short(model: str) -> str:
    return "own model" if model.startswith("policy-") else model


def draw_percentiles(result: Result, ax: Any) -> Any:
    """Share of problems whose median trace lies at or below a percentile of the reference's traces on that problem."""
    import seaborn as sns

    from analyzer.analysis.figures import styles

    table = result.tables["problems"]
    look = styles(dict.fromkeys(result.tables["boxes"]["source"]))
    for source, part in table.groupby("source", sort=False):
        values = pd.to_numeric(part["percentile_median"]).dropna()
        if len(values):
            style = look[source]
            sns.ecdfplot(x=100 * values, color=style["color"], linestyle=style["linestyle"], label=source, ax=ax)
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    ax.set(xlabel="percentile among the reference's traces (%)", ylabel="share of problems", xlim=(-2, 102))
    return ax


def draw_tokens(result: Result, ax: Any) -> Any:
    """Share of tokens at least as surprising as x."""
    import seaborn as sns

    from analyzer.analysis.figures import styles

    table = result.tables["token_surprisal"]
    look = styles(dict.fromkeys(result.tables["boxes"]["source"]))
    for source, part in table.groupby("source", sort=False):
        part = part[(part["low"] > 0) & (part["at_least"] > 0)]
        style = look[source]
        sns.lineplot(
            x=part["low"].astype(float),
            y=part["at_least"].astype(float),
            color=style["color"],
            linestyle=style["linestyle"],
            label=source,
            ax=ax,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="surprisal under the base (nats)", ylabel="share of tokens at least as surprising")
    return ax


def draw_steps(result: Result, ax: Any) -> Any:
    """Mean over problems of the median perplexity, over training steps."""
    import seaborn as sns

    from analyzer.analysis.figures import styles

    look = styles(dict.fromkeys(result.tables["boxes"]["source"]))
    for source, part in result.tables["steps"].groupby("source", sort=False):
        style = look[source]
        sns.lineplot(
            data=part,
            x="step",
            y="ppl",
            color=style["color"],
            marker=style["marker"],
            linestyle=style["linestyle"],
            label=source,
            ax=ax,
        )
        ax.fill_between(
            part["step"].astype(float),
            part["low"].astype(float),
            part["high"].astype(float),
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
    ax.set(xlabel="training step", ylabel="perplexity under the base")
    return ax


def caption_boxes(result: Result) -> str:
    parts = [f"{r['box']} {r['median']:.3g} (n = {r['n']:,} traces, {r['problems']} problems)" for r in _shown(result)]
    return (
        "Perplexity per scored trace: median, quartiles, 5 % and 95 % points, which are quantiles of traces and no "
        "intervals; plain: under the base, hatched: under the model that produced the source. Medians: "
        + "; ".join(parts)
        + "."
    )


def caption_percentiles(result: Result) -> str:
    known = result.tables["problems"].dropna(subset="percentile_median")  # of others the reference has no trace
    traces, problems = known.groupby("source")["n"].sum(), known.groupby("source").size()
    alike = problems.nunique() == 1
    parts = [
        f"{r['source']} {100 * r['percentile_mean']:.0f} (n = {traces[r['source']]:,} traces"
        + ("" if alike else f", {problems[r['source']]} problems")
        + ")"
        for r in result.tables["sources"].to_dict("records")
        if r["source"] in problems.index
    ]
    said = f"problems ({problems.iloc[0]})" if alike else "problems"
    return (
        f"Share of {said} whose median trace of a source is at most at this percentile of the reference's "
        "own traces, by nats per token; the reference itself, each trace against its others, rises at 50. No "
        "intervals. Mean percentile over traces: " + "; ".join(parts) + "."
    )


def caption_tokens(result: Result) -> str:
    table = result.tables["token_surprisal"]
    rows = table[table["low"].round(9) == 1.0]
    parts = [f"{r['source']} {r['at_least']:.1%} (n = {r['n']:,} tokens)" for r in rows.to_dict("records")]
    return (
        "Share of all scored tokens whose surprisal under the base is at least x, without intervals. At 1 nat: "
        + "; ".join(parts)
        + "."
    )


def caption_steps(result: Result) -> str:
    parts = []
    for source, part in result.tables["steps"].groupby("source", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        parts.append(
            f"{source} {first['ppl']:.3g} at step {first['step']}, {last['ppl']:.3g} at step {last['step']} "
            f"(n = {last['n']:,} traces, {last['problems']} problems)"
        )
    return (
        "Perplexity under the base over training: mean over problems of the problem's median, bands 95 % by problem. "
        + "; ".join(parts)
        + "."
    )


FIGURES = {
    "boxes": Figure(draw_boxes, "boxes", caption_boxes, 2),
    "percentiles": Figure(draw_percentiles, "problems", caption_percentiles),
    "token_surprisal": Figure(draw_tokens, "token_surprisal", caption_tokens),
    "steps": Figure(draw_steps, "steps", caption_steps),
}
