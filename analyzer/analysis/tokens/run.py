"""Where in its traces does a source leave what the base would write: which tokens, which positions, how sharply?

Ranks are those of the sampled token under the base (1 = likeliest): unshifted 1, marginal 2-3, shifted beyond 3. URIAL
(2312.01552) ranks the aligned model's greedy token instead, so that sampling noise, which even the base's own traces
have here, is not in its numbers: compare a source with the reference's row, not with URIAL's. Forking tokens are
positions with an entropy above the 80th percentile of the reference's tokens (2506.01939). Delta log p = log p of the
policy - log p of the base, both at T=1 (2603.22117). Token streams are read twice and only histograms are kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import WINDOW, among, last_steps
from analyzer.analysis.tokens.sums import (
    DELTA_TOKENS,
    GRID,
    STARTS,
    TOP,
    Deltas,
    Sums,
    grid_bins,
    policy_logprobs,
    stream,
)
from analyzer.errors import UsageError
from analyzer.records import BUDGET, Estimate, Figure, Result, Tables
from analyzer.stats import pooled
from analyzer.stats.bootstrap import DRAWS

QUESTION = "Which tokens carry a source's surprisal under the base, and where in the trace do they stand?"
CLASSES = {"unshifted": "n_rank1", "marginal": "n_rank2_3", "shifted": "n_rank_gt3"}
FORK = 0.8  # quantile of the reference's entropies
SPIKES = (0.01, 0.05)
WINDOWS = 10  # worst traces per source


@np.errstate(invalid="ignore")  # a token that the model masks is infinitely surprising
def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
    """Rank classes, forking tokens, spikes, position profile, excess by token, Delta log p; `budget` plays no part.

    Estimates, shares of all tokens of a source with an interval by resampling problems: `<s>.unshifted`,
    `<s>.marginal`, `<s>.shifted`, `<s>.top5` (among the base's five likeliest). A source with several training steps
    enters with its last one. Tables: ranks, forking, spikes, windows, positions, starts, excess_tokens, delta,
    delta_tokens.
    Raises UsageError when nothing was scored under a base model.
    """
    if tables.base is None:
        raise UsageError("tokens needs scores under a base model: --base MODEL")
    scores = last_steps(tables.scores[tables.scores["nll_mean"].notna()])
    base = scores[scores["model"] == tables.base]
    base = base.assign(unit=pd.factorize(base["problem"], sort=True)[0])  # numbers sort faster than names
    sources = [s for s in tables.sources if (base["source"] == s).any()]
    options = {"draws": draws, "seed": seed}
    estimates: dict[str, Estimate] = {}
    ranks = []
    for source in tables.sources:
        found = _classes(base[base["source"] == source], options)
        estimates |= {f"{source}.{name}": e for name, e in found.items()}
        ranks += [
            {
                "source": source,
                "class": n,
                "share": e.value,
                "low": e.low,
                "high": e.high,
                "traces": e.n,
                "tokens": int(base.loc[base["source"] == source, "n_tokens"].sum()),
            }
            for n, e in found.items()
            if e.n
        ]
    threshold = _threshold(tables, set(base.loc[base["source"] == tables.reference, "key"]))
    worst = _worst(base, sources)
    deltas = {s: policy_logprobs(tables, scores, s) for s in sources if s != tables.reference}
    deltas = {s: d for s, d in deltas.items() if d is not None}
    sums = {s: Sums(base.loc[base["source"] == s, "problem"]) for s in sources}
    stream(tables, base, threshold, sums, worst, deltas)
    frames = {
        "ranks": pd.DataFrame(ranks),
        "forking": _forking(sums, options),
        "spikes": _spikes(sums),
        "windows": pd.DataFrame([row for row in worst.values() if "position" in row]),
        "positions": _positions(sums, options),
        "starts": _starts(sums),
        "excess_tokens": _excess(sums, tables.reference),
        "delta": _delta(sums, deltas, options),
        "delta_tokens": pd.DataFrame([{"source": s, **row} for s in deltas for row in sums[s].promoted]),
    }
    params = {
        "draws": draws,
        "model": tables.base,
        "fork_quantile": FORK,
        "fork_entropy": threshold if math.isfinite(threshold) else None,
        "window": WINDOW,
    }
    return Result("tokens", QUESTION, estimates, frames, tuple(_notes(tables, threshold, deltas)), params, seed)


def _classes(frame: pd.DataFrame, options: dict[str, int]) -> dict[str, Estimate]:
    out = {}
    for name, column in (CLASSES | {"top5": "n_top5"}).items():
        i = pooled.ratio(frame[column].to_numpy(float), frame["n_tokens"].to_numpy(float), frame["unit"], **options)
        reason = "no trace was scored under the base model" if frame.empty else "the backend does not know ranks"
        out[name] = Estimate.of(i, "" if i.n else reason)
    return out


def _threshold(tables: Tables, wanted: set[str]) -> float:
    """80th percentile of the reference's token entropies (nats), from a histogram with bins of 0.12 %; NaN: unknown."""
    count = np.zeros(len(GRID) - 1)
    for part in tables.tokens(tables.base, ["entropy"]):
        arrays = [a for a in part.loc[among(part["key"], wanted), "entropy"] if a is not None]
        if arrays:
            entropy = np.concatenate(arrays)
            count += np.bincount(grid_bins(np.clip(entropy[~np.isnan(entropy)], 0, None)), minlength=len(count))
    if count.sum() == 0:
        return math.nan
    return float(GRID[1:][np.searchsorted(count.cumsum(), FORK * count.sum())])


def _worst(base: pd.DataFrame, sources: list[str]) -> dict[str, dict[str, Any]]:
    """By key: the traces of each source with the most surprising window; position and text follow from the stream."""
    out = {}
    columns = ["key", "source", "problem", "correct", "n_tokens", "window_max", "surprisal_max", "cvar20", "excess_z"]
    for source in sources:
        frame = base[base["source"] == source].nlargest(WINDOWS, "window_max")
        out |= {row["key"]: row for row in frame[columns].to_dict("records")}
    return out


def _forking(sums: dict[str, Sums], options: dict[str, int]) -> pd.DataFrame:
    """Shares of tokens, of surprisal and of tokens off rank 1 that fall on forking positions."""
    rows = []
    for source, total in sums.items():
        x, problem = total.forks_P6, np.arange(len(total.problems))
        row = {"source": source, "tokens": int(x[:, 0].sum()), "problems": len(problem)}
        pairs = {"share_of_tokens": (3, 0), "share_of_surprisal": (4, 1), "share_of_off_rank1": (5, 2)}
        for name, (top, bottom) in pairs.items():
            i = pooled.ratio(x[:, top], x[:, bottom], problem, **options)
            row |= {name: i.value, f"{name}_low": i.low, f"{name}_high": i.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _spikes(sums: dict[str, Sums]) -> pd.DataFrame:
    """How concentrated the surprisal is: the part of the top 1 % and 5 % of the tokens, their mean, their floor."""
    rows = []
    for source, total in sums.items():
        count, nats = total.spikes[::-1, 0].cumsum(), total.spikes[::-1, 1].cumsum()
        for share in SPIKES:
            wanted = share * count[-1]
            at = int(np.searchsorted(count, wanted))
            # part of the last bin: its tokens are alike to 0.12 %
            inside = nats[at] - (count[at] - wanted) * total.spikes[::-1][at, 1] / total.spikes[::-1][at, 0]
            rows.append(
                {
                    "source": source,
                    "top": share,
                    "tokens": int(count[-1]),
                    "of_surprisal": inside / nats[-1] if nats[-1] > 0 else math.nan,
                    "cvar": inside / wanted,
                    "from_nats": GRID[:-1][::-1][at],
                }
            )
    return pd.DataFrame(rows)


def _positions(sums: dict[str, Sums], options: dict[str, int]) -> pd.DataFrame:
    """Mean surprisal and entropy by tenth of the trace."""
    rows = []
    for source, total in sums.items():
        problem = np.arange(len(total.problems))
        for d in range(10):
            x = total.deciles_P10x3[:, d]
            i = pooled.ratio(x[:, 1], x[:, 0], problem, **options)
            rows.append(
                {
                    "source": source,
                    "tenth": d,
                    "surprisal": i.value,
                    "low": i.low,
                    "high": i.high,
                    "entropy": x[:, 2].sum() / x[:, 0].sum() if x[:, 0].sum() else math.nan,
                    "tokens": int(x[:, 0].sum()),
                }
            )
    return pd.DataFrame(rows)


def _starts(sums: dict[str, Sums]) -> pd.DataFrame:
    """Mean surprisal and entropy by distance from the start of the response (tokens)."""
    ends = [*STARTS[1:], math.inf]
    return pd.DataFrame(
        [
            {
                "source": source,
                "from": STARTS[i],
                "to": ends[i],
                "surprisal": x[1] / x[0],
                "entropy": x[2] / x[0],
                "tokens": int(x[0]),
            }
            for source, total in sums.items()
            for i, x in enumerate(total.starts)
            if x[0]
        ]
    )


def _excess(sums: dict[str, Sums], reference: str) -> pd.DataFrame:
    """Token ids by S_v / N - S_v,ref / N_ref; over all ids this adds up to the difference in surprisal per token."""
    if reference not in sums:
        return pd.DataFrame()
    rows, own = [], sums[reference]
    for source, total in sums.items():
        if source == reference:
            continue
        size = max(len(total.ids), len(own.ids))
        a, b = (np.vstack([x.ids, np.zeros((size - len(x.ids), 2))]) for x in (total, own))
        n_a, n_b = a[:, 0].sum(), b[:, 0].sum()
        part = a[:, 1] / n_a - b[:, 1] / n_b
        for v in sorted(np.argsort(-part, kind="stable")[:TOP].tolist(), key=lambda v: -part[v]):
            if part[v] > 0:
                rows.append(
                    {
                        "source": source,
                        "token": v,
                        "text": total.texts.get(v, ""),
                        "excess": part[v],
                        "of_source": a[v, 1] / a[:, 1].sum(),
                        "count": int(a[v, 0]),
                        "per_1000": 1000 * a[v, 0] / n_a,
                        "surprisal": a[v, 1] / a[v, 0],
                        "reference_count": int(b[v, 0]),
                        "reference_per_1000": 1000 * b[v, 0] / n_b,
                        "reference_surprisal": b[v, 1] / b[v, 0] if b[v, 0] else math.nan,
                    }
                )
    return pd.DataFrame(rows)


def _delta(sums: dict[str, Sums], deltas: dict[str, Deltas], options: dict[str, int]) -> pd.DataFrame:
    """Quantiles of Delta log p on the source's own traces, and the share of positions beyond 1 nat either way."""
    rows = []
    for source, found in deltas.items():
        pairs = sums[source].deltas
        if not pairs:
            continue
        problem = np.array([p for p, _ in pairs])
        every = np.concatenate([d for _, d in pairs])
        length = np.array([len(d) for _, d in pairs], float)
        row = {
            "source": source,
            "traces": len(pairs),
            "tokens": len(every),
            "tokens_omitted": found.omitted,
            "mean": float(every.mean()),
        }
        row |= {f"q{100 * q:g}": float(np.quantile(every, q)) for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)}
        for name, sign in (("above_1", 1), ("below_minus_1", -1)):
            i = pooled.ratio(
                np.array([np.count_nonzero(sign * d > 1) for _, d in pairs], float), length, problem, **options
            )
            row |= {name: i.value, f"{name}_low": i.low, f"{name}_high": i.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _notes(tables: Tables, threshold: float, deltas: dict[str, Deltas]) -> list[str]:
    notes = [
        "Ranks are of the sampled token; URIAL ranks the policy's greedy token. Sampling at T=1 leaves rank 1 by "
        f"itself: compare with the row of {tables.reference}."
    ]
    if math.isfinite(threshold):
        notes.append(
            f"Forking positions: entropy above {threshold:.3g} nats, the 80th percentile of the tokens of "
            f"{tables.reference}."
        )
    else:
        notes.append(f"No forking positions: the entropies of the tokens of {tables.reference} are not known.")
    without = [s for s in tables.sources if s not in deltas and s != tables.reference]
    if without:
        notes.append(
            f"No Delta log p, as no policy other than the base was scored on its own traces: {', '.join(without)}."
        )
    omitted = {s: d.omitted for s, d in deltas.items() if d.omitted}
    if omitted:
        notes.append(
            f"Delta log p is of the first {DELTA_TOKENS:,} tokens; left out: "
            + ", ".join(f"{s} {n:,}" for s, n in omitted.items())
            + "."
        )
    return notes


def draw_ranks(result: Result, ax: Any) -> Any:
    """Stacked shares of tokens of rank 1, 2-3 and beyond under the base, by source."""
    table = result.tables["ranks"]
    sources = list(dict.fromkeys(table["source"]))
    left = np.zeros(len(sources))
    names = {"unshifted": "rank 1", "marginal": "rank 2-3", "shifted": "rank > 3"}
    for (name, label), color, hatch in zip(
        names.items(), ("#9ecae1", "#4292c6", "#08306b"), ("", "//", ""), strict=True
    ):
        share = table[table["class"] == name].set_index("source")["share"].reindex(sources).astype(float).to_numpy()
        ax.barh(sources, share, left=left, color=color, hatch=hatch, edgecolor="white", linewidth=0.3, label=label)
        left = left + np.nan_to_num(share)
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    ax.set(xlabel="share of tokens", xlim=(0, 1))
    return ax


def draw_positions(result: Result, ax: Any) -> Any:
    """Mean surprisal by tenth of the trace."""
    import seaborn as sns

    from analyzer.analysis.figures import styles

    table = result.tables["positions"]
    look = styles(dict.fromkeys(table["source"]))
    for source, part in table.groupby("source", sort=False):
        style, x = look[source], 10 * part["tenth"].astype(float) + 5
        sns.lineplot(
            x=x,
            y=part["surprisal"].astype(float),
            color=style["color"],
            marker=style["marker"],
            linestyle=style["linestyle"],
            label=source,
            ax=ax,
        )
        ax.fill_between(
            x, part["low"].astype(float), part["high"].astype(float), color=style["color"], alpha=0.15, linewidth=0
        )
    ax.set(xlabel="position in the trace (%)", ylabel="surprisal per token (nats)", ylim=(0, None))
    return ax


def caption_ranks(result: Result) -> str:
    parts = []
    for source, part in result.tables["ranks"].groupby("source", sort=False):
        share = part.set_index("class")["share"]
        shares = " / ".join(f"{share[name]:.1%}" for name in CLASSES)
        parts.append(f"{source} {shares} (n = {int(part['tokens'].iloc[0]):,} tokens)")
    lead = "Share of all scored tokens by the rank of the sampled token under the base, 1 / 2-3 / beyond 3. "
    return lead + "; ".join(parts) + "."


def caption_positions(result: Result) -> str:
    parts = []
    for source, part in result.tables["positions"].groupby("source", sort=False):
        nats = part["surprisal"].astype(float)
        if nats.notna().any():
            tenth, n = int(part.loc[nats.idxmax(), "tenth"]) + 1, int(part["tokens"].sum())
            parts.append(f"{source} {nats.max():.2f} nats in tenth {tenth} (n = {n:,} tokens)")
    return "Surprisal under the base along the trace, bands 95 % by problem. Highest: " + "; ".join(parts) + "."


FIGURES = {
    "ranks": Figure(draw_ranks, "ranks", caption_ranks),
    "positions": Figure(draw_positions, "positions", caption_positions),
}
draw = draw_ranks
