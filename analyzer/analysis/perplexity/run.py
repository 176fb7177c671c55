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

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.perplexity.figures import FIGURES, draw_boxes
from analyzer.errors import UsageError
from analyzer.records import BUDGET, Estimate, Result, Tables
from analyzer.stats import bootstrap, pooled
from analyzer.stats.bootstrap import DRAWS

QUESTION = "How surprising are the traces to the base model, compared with its own traces on the same problems?"
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
EDGES = np.concatenate([[0.0], 10 ** np.linspace(-4, 2, 49), [np.inf]])  # nats, eight bins a decade
COPY_GAP = 0.10  # shares of copied tokens that differ by more are pointed out
MISSING = "no trace was scored under the base model"


@np.errstate(invalid="ignore")  # a token that the model masks is infinitely surprising
def run(tables: Tables, *, budget: int = BUDGET, seed: int = 0, draws: int = DRAWS) -> Result:
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
    sources = tables.sources
    every = tables.scores[tables.scores["nll_mean"].notna()]
    scores = last_steps(every)
    characters = tables.traces.set_index("key")["characters"].astype(float)
    base = scores[scores["model"] == tables.base].copy()
    base["unit"] = pd.factorize(base["problem"], sort=True)[0]  # numbers sort a hundred times faster than names
    base["characters"] = base["key"].map(characters)
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
    for source in sources:
        frame = base[base["source"] == source]
        estimates |= _estimates(source, frame, options)
        if len(frame):
            rows.append({"source": source, **_source(frame)})
    frames = {
        "boxes": _boxes(scores, tables, sources),
        "sources": pd.DataFrame(rows),
        "problems": _problems(base, sources),
        "correct": _correct(base, sources),
        "masked": _masked(base, sources),
        "steps": _steps(every[every["model"] == tables.base], options),
        "token_surprisal": _histogram(tables, base, sources),
    }
    params = {"draws": draws, "model": tables.base, "quantiles": list(QUANTILES.values())}
    notes = tuple(_notes(tables, sources, base, frames, len(tables.scores) - len(every)))
    return Result("perplexity", QUESTION, estimates, frames, notes, params, seed)


def _against(base: pd.DataFrame, reference_label: str, column: str, suffix: str) -> pd.DataFrame:
    """Each trace against the reference's traces of its problem, by `column`: `below` (strictly below their median),
    `percentile` (ties count half; a reference trace is left out of its own comparison), `inside` (their range)."""
    x_N, out_Nx3 = base[column].to_numpy(float), np.full((len(base), 3), np.nan)
    own = base[base["source"] == reference_label]
    references = {p: np.sort(g.dropna().to_numpy(float)) for p, g in own.groupby("problem")[column]}
    for (source, problem), at in base.groupby(["source", "problem"]).indices.items():
        reference = references.get(problem)
        if reference is None or len(reference) == 0:
            continue
        x = x_N[at]
        less, upto = np.searchsorted(reference, x), np.searchsorted(reference, x, side="right")
        itself = source == reference_label
        others = len(reference) - itself
        below = (x < np.median(reference)).astype(float)
        percentile = ((less + upto - itself) / 2) / others if others else np.full(len(x), np.nan)
        inside = ((less < len(reference)) & (upto > 0)).astype(float)
        out_Nx3[at] = np.column_stack([below, percentile, inside])
    out_Nx3[np.isnan(x_N)] = np.nan
    return pd.DataFrame(out_Nx3, base.index, [f"{n}{suffix}" for n in ("below", "percentile", "inside")])


def _estimates(source: str, frame: pd.DataFrame, options: dict[str, int]) -> dict[str, Estimate]:
    names = ("ppl.median", "nll_per_token", "share_below_reference_median", "excess_z.median")
    if frame.empty:
        return {f"{source}.{n}": Estimate(math.nan, note=MISSING) for n in names}
    problem = frame["unit"].to_numpy()
    total, tokens = -frame["logprob"].to_numpy(float), frame["n_tokens"].to_numpy(float)
    found = (
        pooled.median(frame["ppl"].to_numpy(float), problem, **options),
        pooled.ratio(total, tokens, problem, **options),
        bootstrap.rate(frame["below"].to_numpy(float), problem),
        pooled.median(frame["excess_z"].to_numpy(float), problem, **options),
    )
    reasons = ("", "", f"{source} has no problem in common with the reference", "entropy or varentropy is not known")
    return {
        f"{source}.{n}": Estimate.of(i, "" if i.n else why) for n, i, why in zip(names, found, reasons, strict=True)
    }


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


def _boxes(scores: pd.DataFrame, tables: Tables, sources: list[str]) -> pd.DataFrame:
    """Quantiles of the per-trace perplexity of every source under every model that scored it."""
    rows = []
    order = {tables.base: 0} | {m: 1 for m in tables.policies.values() if m != tables.base}
    for model in sorted(scores["model"].unique(), key=lambda m: (order.get(m, 2), m)):
        for source in sources:
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


def _histogram(tables: Tables, base: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    """Tokens by surprisal under the base: bins [low, high) in nats, with the share of tokens at or above `low`."""
    wanted, counts = set(base["key"]), {s: np.zeros(len(EDGES) - 1, np.int64) for s in sources}
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
        part = part[among(part["key"], wanted)]
        for source, arrays in part.groupby("source")["logprob"]:
            yield source, np.maximum(0.0, -np.concatenate(list(arrays)))


def _in_order(frame: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    return frame.sort_values("source", key=lambda c: c.map(sources.index), kind="stable", ignore_index=True)


def _notes(
    tables: Tables, sources: list[str], base: pd.DataFrame, frames: dict[str, pd.DataFrame], dropped: int
) -> list[str]:
    notes = [
        "Perplexities are summed up by medians and quantiles: a single trace can carry any mean of them.",
        "A low perplexity means typical under the base, not that the base would write this trace: at 0.06 nats a "
        "token 500 tokens cost 28 nats. The total surprisal stands beside it.",
    ]
    reference = tables.samplers.get(tables.reference)
    others = [s for s in sources if s != tables.reference and s in tables.samplers and tables.samplers[s] != reference]
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
    without = [s for s in sources if not (base["source"] == s).any()]
    if without:
        notes.append(f"Not scored under the base model: {', '.join(without)}.")
    stepped = [s for s, n in tables.scores.groupby("source")["step"].nunique().items() if n > 1]
    if stepped:
        notes.append(f"Only the last training step enters outside the table of steps for: {', '.join(stepped)}.")
    if dropped:
        notes.append(f"{dropped} scored rows have no surprisal (no token, or unknown to the backend) and are left out.")
    return notes


draw = draw_boxes
__all__ = ["FIGURES", "QUESTION", "draw", "run"]
