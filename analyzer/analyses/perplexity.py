"""How surprising are a source's traces to the base model, trace by trace and against the base's own traces?

PPL_m(Y|x) = exp(-(1/T) sum_t log p_m(y_t | x, y_<t)) over the T response tokens at T=1 (Yue et al. 2025, 2504.13837,
section 4.1); PPL_base(Y_base), PPL_base(Y_source) and PPL_source(Y_source) are the boxes of their Fig 6. Summed up by
medians: one trace of perplexity 2e4 would make any mean. A low perplexity says "typical for the base", not "the base
would write this", and copying or looping lowers it too; hence the copy mask, the total surprisal and the excess z
(sum(s - H) / sqrt(sum V), about N(0, 1) for the model's own T=1 traces) beside it. Nothing here is a test of support.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analyzer.errors import UsageError
from analyzer.records import Estimate, Figure, Result, Tables
from analyzer.stats import bootstrap, pooled
from analyzer.stats.bootstrap import DRAWS, Interval
from analyzer.summaries import last_steps

QUESTION = "How surprising are the traces to the base model, compared with its own traces on the same problems?"
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
EDGES = np.concatenate([[0.0], 10 ** np.linspace(-4, 2, 49), [np.inf]])  # nats, eight bins a decade
COPY_GAP = 0.10  # shares of copied tokens that differ by more are pointed out
MISSING = "no trace was scored under the base model"


def run(tables: Tables, *, budget: int = 64, seed: int = 0, draws: int = DRAWS) -> Result:
    """Perplexity of every source, the reference included, under the base model; `budget` plays no part.

    Estimates, each with an interval by resampling problems: `<s>.ppl.median` (over traces), `<s>.nll_per_token` (total
    nats / total tokens), `<s>.share_below_reference_median` (share of traces whose surprisal per token is strictly
    below the median of the reference's traces on the same problem; joined problems; the reference itself: .5 but for
    ties), `<s>.excess_z.median`. A source with several training steps enters with its last one; `steps` has all.
    Tables: boxes (every source under every model), sources, problems, correct, masked, steps, token_surprisal.
    Raises UsageError when nothing was scored under a base model.
    """
    if tables.base is None:
        raise UsageError("perplexity needs scores under a base model: --base MODEL")
    every = tables.scores[tables.scores["nll_mean"].notna()]
    scores = last_steps(every)
    characters = tables.traces.set_index("key")["response"].str.len()
    base = scores[scores["model"] == tables.base].copy()
    base["characters"] = base["key"].map(characters).astype(float)
    base = pd.concat(
        [
            base,
            *(_against(base, tables.reference, c, s) for c, s in (("nll_mean", ""), ("nll_masked_mean", "_masked"))),
        ],
        axis=1,
    )
    options = {"draws": draws, "seed": seed}
    estimates: dict[str, Estimate] = {}
    rows = []
    for source in tables.sources:
        frame = base[base["source"] == source]
        estimates |= _estimates(source, frame, options)
        if len(frame):
            rows.append({"source": source, **_source(frame)})
    frames = {
        "boxes": _boxes(scores, tables),
        "sources": pd.DataFrame(rows),
        "problems": _problems(base, tables.sources),
        "correct": _correct(base, tables.sources),
        "masked": _masked(base, tables.sources),
        "steps": _steps(every[every["model"] == tables.base], options),
        "token_surprisal": _histogram(tables, base),
    }
    params = {"draws": draws, "model": tables.base, "quantiles": list(QUANTILES.values())}
    notes = tuple(_notes(tables, base, frames, len(tables.scores) - len(every)))
    return Result("perplexity", QUESTION, estimates, frames, notes, params, seed)


def _against(base: pd.DataFrame, reference_label: str, column: str, suffix: str) -> pd.DataFrame:
    """Each trace against the reference's traces of its problem, by `column`: `below` (strictly below their median),
    `percentile` (ties count half; a reference trace is left out of its own comparison), `inside` (their range)."""
    out = pd.DataFrame(np.nan, index=base.index, columns=[f"{n}{suffix}" for n in ("below", "percentile", "inside")])
    own = base[base["source"] == reference_label]
    references = {p: np.sort(g.dropna().to_numpy(float)) for p, g in own.groupby("problem")[column]}
    for (source, problem), values in base.groupby(["source", "problem"])[column]:
        reference = references.get(problem)
        if reference is None or len(reference) == 0:
            continue
        x = values.to_numpy(float)
        less, upto = np.searchsorted(reference, x), np.searchsorted(reference, x, side="right")
        itself = source == reference_label
        others = len(reference) - itself
        below = (x < np.median(reference)).astype(float)
        percentile = ((less + upto - itself) / 2) / others if others else np.full(len(x), np.nan)
        inside = ((less < len(reference)) & (upto > 0)).astype(float)
        block = np.column_stack([below, percentile, inside])
        block[np.isnan(x)] = np.nan
        out.loc[values.index] = block
    return out


def _estimates(source: str, frame: pd.DataFrame, options: dict[str, int]) -> dict[str, Estimate]:
    names = ("ppl.median", "nll_per_token", "share_below_reference_median", "excess_z.median")
    if frame.empty:
        return {f"{source}.{n}": Estimate(math.nan, note=MISSING) for n in names}
    problem = frame["problem"].to_numpy()
    total, tokens = -frame["logprob"].to_numpy(float), frame["n_tokens"].to_numpy(float)
    found = (
        pooled.median(frame["ppl"].to_numpy(float), problem, **options),
        pooled.ratio(total, tokens, problem, **options),
        bootstrap.rate(frame["below"].to_numpy(float), problem, **options),
        pooled.median(frame["excess_z"].to_numpy(float), problem, **options),
    )
    reasons = ("", "", f"{source} has no problem in common with the reference", "entropy or varentropy is not known")
    return {f"{source}.{n}": _estimate(i, why) for n, i, why in zip(names, found, reasons, strict=True)}


def _estimate(interval: Interval, reason: str) -> Estimate:
    note = "" if interval.n else reason
    return Estimate(interval.value, interval.low, interval.high, interval.n, interval.method, note)


def _source(frame: pd.DataFrame) -> dict[str, Any]:
    total = -frame["logprob"]
    return {
        "n": len(frame),
        "problems": frame["problem"].nunique(),
        "tokens": int(frame["n_tokens"].sum()),
        "n_tokens_median": frame["n_tokens"].median(),
        "ppl_median": frame["ppl"].median(),
        "nll_total_median": total.median(),
        "nll_per_token": total.sum() / frame["n_tokens"].sum(),
        "nll_per_character": total.sum() / frame["characters"].sum() if frame["characters"].sum() > 0 else math.nan,
        "entropy_per_token": (frame["entropy_mean"] * frame["n_tokens"]).sum(min_count=1) / frame["n_tokens"].sum(),
        "surprisal_max_median": frame["surprisal_max"].median(),
        "percentile_mean": frame["percentile"].mean(),
        "inside_range": frame["inside"].mean(),
        "z_q05": frame["excess_z"].quantile(0.05),
        "z_median": frame["excess_z"].median(),
        "z_q95": frame["excess_z"].quantile(0.95),
        "cut_share": float((frame["finish"] == "length").mean()),
    }


def _boxes(scores: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Quantiles of the per-trace perplexity of every source under every model that scored it."""
    rows = []
    order = {tables.base: 0} | {m: 1 for m in tables.policies.values() if m != tables.base}
    for model in sorted(scores["model"].unique(), key=lambda m: (order.get(m, 2), m)):
        for source in tables.sources:
            frame = scores[(scores["model"] == model) & (scores["source"] == source)]
            if frame.empty:
                continue
            ppl = frame["ppl"].astype(float)
            quantiles = {name: ppl.quantile(q) for name, q in QUANTILES.items()}
            rows.append(
                {
                    "box": f"PPL_{model}(Y_{source})",
                    "model": model,
                    "source": source,
                    "n": len(frame),
                    "problems": frame["problem"].nunique(),
                    "min": ppl.min(),
                    **quantiles,
                    "max": ppl.max(),
                    "own_model": tables.policies.get(source) == model,
                }
            )
    return pd.DataFrame(rows)


def _problems(base: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    """One row per source and problem, paired with the reference by the percentile columns."""
    grouped = base.groupby(["source", "problem"])
    out = grouped.agg(
        group=("group", "first"),
        n=("key", "size"),
        ppl_median=("ppl", "median"),
        nll_total_median=("logprob", lambda x: -x.median()),
        percentile_median=("percentile", "median"),
        share_below=("below", "mean"),
        inside_range=("inside", "mean"),
        z_median=("excess_z", "median"),
    )
    return _in_order(out.reset_index(), sources)


def _correct(base: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    """The same numbers for correct and wrong traces apart: perplexity ignores correctness."""
    words = base["correct"].map({True: "correct", False: "wrong"}).astype(object).fillna("unknown")
    grouped = base.assign(correct=words).groupby(["source", "correct"])
    out = grouped.agg(
        n=("key", "size"),
        problems=("problem", "nunique"),
        ppl_median=("ppl", "median"),
        nll_total_median=("logprob", lambda x: -x.median()),
        n_tokens_median=("n_tokens", "median"),
        percentile_mean=("percentile", "mean"),
        z_median=("excess_z", "median"),
    )
    return _in_order(out.reset_index(), sources)


def _masked(base: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    """Plain and copy-masked perplexity side by side, with the share of copied tokens."""
    rows = []
    for source in sources:
        frame = base[base["source"] == source]
        if len(frame):
            left = frame["nll_masked_mean"].dropna()
            rows.append(
                {
                    "source": source,
                    "n": len(frame),
                    "copied_share": frame["n_copied"].sum() / frame["n_tokens"].sum(),
                    "all_copied": len(frame) - len(left),
                    "ppl_median": frame["ppl"].median(),
                    "ppl_masked_median": float(np.exp(left.median())) if len(left) else math.nan,
                    "share_below": frame["below"].mean(),
                    "share_below_masked": frame["below_masked"].mean(),
                    "z_median": frame["excess_z"].median(),
                    "z_masked_median": frame["z_masked"].median(),
                }
            )
    return pd.DataFrame(rows)


def _steps(base: pd.DataFrame, options: dict[str, int]) -> pd.DataFrame:
    """Over training (Yue C.4): mean over problems of the problem's median perplexity, on the problems of all steps."""
    rows = []
    for source, frame in base[base["step"].notna()].groupby("source", sort=False):
        medians = frame.groupby(["problem", "step"])["ppl"].median().unstack("step").dropna()
        for step in medians.columns if len(medians) else ():
            found = bootstrap.mean(medians[step].to_numpy(float), medians.index.to_numpy(), **options)
            rows.append(
                {
                    "source": source,
                    "step": int(step),
                    "ppl": found.value,
                    "low": found.low,
                    "high": found.high,
                    "problems": found.problems,
                    "n": int(((frame["step"] == step) & frame["problem"].isin(medians.index)).sum()),
                }
            )
    return pd.DataFrame(rows, columns=["source", "step", "ppl", "low", "high", "problems", "n"])


def _histogram(tables: Tables, base: pd.DataFrame) -> pd.DataFrame:
    """Tokens by surprisal under the base: bins [low, high) in nats, with the share of tokens at or above `low`."""
    wanted, counts = set(base["key"]), {s: np.zeros(len(EDGES) - 1, np.int64) for s in tables.sources}
    for source, s_T in _surprisals(tables, wanted):
        counts[source] += np.histogram(s_T, EDGES)[0]
    rows = []
    for source, count in counts.items():
        total, beyond = int(count.sum()), count[::-1].cumsum()[::-1]
        rows += [
            {
                "source": source,
                "low": EDGES[i],
                "high": EDGES[i + 1],
                "count": int(count[i]),
                "share": count[i] / total,
                "at_least": beyond[i] / total,
                "n": total,
            }
            for i in range(len(count))
            if total
        ]
    return pd.DataFrame(rows, columns=["source", "low", "high", "count", "share", "at_least", "n"])


def _surprisals(tables: Tables, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    for part in tables.tokens(tables.base, ["logprob"]):
        part = part[part["key"].isin(wanted)]
        for source, arrays in part.groupby("source")["logprob"]:
            yield source, np.maximum(0.0, -np.concatenate(list(arrays)))


def _in_order(frame: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    return frame.sort_values("source", key=lambda c: c.map(sources.index), kind="stable", ignore_index=True)


def _notes(tables: Tables, base: pd.DataFrame, frames: dict[str, pd.DataFrame], dropped: int) -> list[str]:
    notes = [
        "Perplexities are summed up by medians and quantiles: a single trace can carry any mean of them.",
        "A low perplexity means typical under the base, not that the base would write this trace: at 0.06 nats a "
        "token 500 tokens cost 28 nats. The total surprisal stands beside it.",
    ]
    reference = tables.samplers.get(tables.reference)
    others = [
        s for s in tables.sources if s != tables.reference and s in tables.samplers and tables.samplers[s] != reference
    ]
    if others and reference is not None:
        notes.append(
            f"Drawn with another sampler than {tables.reference}: {', '.join(others)}; a colder or cut sampler lowers "
            "the perplexity by itself."
        )
    masked = frames["masked"].set_index("source")["copied_share"] if len(frames["masked"]) else pd.Series(dtype=float)
    if tables.reference in masked.index:
        gaps = masked - masked[tables.reference]
        for source in gaps.index[gaps.abs() > COPY_GAP]:
            notes.append(
                f"{source} copies {masked[source]:.1%} of its tokens from the prompt or itself, {tables.reference} "
                f"{masked[tables.reference]:.1%}: "
                "read the masked perplexity."
            )
    without = [s for s in tables.sources if not (base["source"] == s).any()]
    if without:
        notes.append(f"Not scored under the base model: {', '.join(without)}.")
    stepped = [s for s, n in tables.scores.groupby("source")["step"].nunique().items() if n > 1]
    if stepped:
        notes.append(f"Only the last training step enters outside the table of steps for: {', '.join(stepped)}.")
    if dropped:
        notes.append(f"{dropped} scored rows have no surprisal (no token, or unknown to the backend) and are left out.")
    return notes


def draw_boxes(result: Result, ax: Any) -> Any:
    """Boxes of PPL per trace (quartiles, median, 5 % and 95 %): all sources under the base, then own models."""
    from analyzer.figures import styles

    table = _shown(result)
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
    """Rows of `boxes` that are drawn: all under the base, and each source under the model that it came from."""
    rows, model = result.tables["boxes"].to_dict("records"), result.params["model"]
    return [r for r in rows if r["model"] == model] + [r for r in rows if r["model"] != model and r["own_model"]]


def _short(model: str) -> str:
    return "own model" if model.startswith("policy-") else model


def draw_percentiles(result: Result, ax: Any) -> Any:
    """Share of problems whose median trace lies at or below a percentile of the reference's traces on that problem."""
    import seaborn as sns

    from analyzer.figures import styles

    table = result.tables["problems"]
    look = styles(dict.fromkeys(result.tables["boxes"]["source"]))
    for source, part in table.groupby("source", sort=False):
        values = pd.to_numeric(part["percentile_median"]).dropna()
        if len(values):
            style = look[source]
            sns.ecdfplot(x=100 * values, color=style["color"], linestyle=style["linestyle"], label=source, ax=ax)
    ax.legend()
    ax.set(
        xlabel="percentile of the problem's median trace among the reference's",
        ylabel="share of problems",
        xlim=(-2, 102),
    )
    return ax


def draw_tokens(result: Result, ax: Any) -> Any:
    """Share of tokens at least as surprising as x."""
    import seaborn as sns

    from analyzer.figures import styles

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

    from analyzer.figures import styles

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
        "Perplexity per trace: median, quartiles, 5 % and 95 % points; hatched: under the model that produced the "
        "source. Medians: " + "; ".join(parts) + "."
    )


def caption_percentiles(result: Result) -> str:
    rows = result.tables["sources"].to_dict("records")
    parts = [
        f"{r['source']} {100 * r['percentile_mean']:.0f}"
        for r in rows
        if r["percentile_mean"] is not None and math.isfinite(r["percentile_mean"])
    ]
    n = result.tables["problems"]["problem"].nunique()
    return (
        f"Where a source's median trace lies among the reference's own traces of the same problem ({n} problems); "
        "the reference itself, each trace against the others, must step at 50. Mean percentile over traces: "
        + "; ".join(parts)
        + "."
    )


def caption_tokens(result: Result) -> str:
    table = result.tables["token_surprisal"]
    rows = table[table["low"].round(9) == 1.0]
    parts = [f"{r['source']} {r['at_least']:.1%} (n = {r['n']:,} tokens)" for r in rows.to_dict("records")]
    return "Share of tokens at least as surprising to the base as x. At 1 nat: " + "; ".join(parts) + "."


def caption_steps(result: Result) -> str:
    parts = []
    for source, part in result.tables["steps"].groupby("source", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        parts.append(
            f"{source} {first['ppl']:.3g} at step {first['step']}, {last['ppl']:.3g} at step {last['step']} "
            f"(n = {last['problems']} problems)"
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
draw = draw_boxes
