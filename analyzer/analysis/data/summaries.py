"""One trace's token columns -> one row of numbers: what every analysis reads instead of the tokens. NumPy only.

Surprisal s_t = -log p(token_t), in nats, at T=1 over the full vocabulary. A column that the backend does not know (NaN,
or missing) gives NaN, never 0; so does a trace without tokens, whose n_tokens is 0.

The masked numbers leave out copied tokens: those inside an n-gram that stood before in the prompt or in the trace
(restating costs next to nothing and hides surprising steps in the mean). The mask looks n - 1 tokens ahead, so a masked
sum is a description and not a martingale: only the unmasked z and e have the null that is stated for them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.errors import UsageError
from analyzer.records import Sampler
from analyzer.stats.evalue import log_e

if TYPE_CHECKING:
    import pandas as pd

WINDOW = 8  # tokens
NGRAM = 8  # tokens
BOUNDARY = 1e-3  # probability mass

SUMMARY_COLUMNS = {
    "n_tokens": "scored response tokens",
    "logprob": "sum of the tokens' log-probabilities at T=1 (nats)",
    "nll_mean": "surprisal per token (nats)",
    "ppl": "perplexity: exp of the surprisal per token",
    "entropy_mean": "mean entropy of the next-token distributions (nats)",
    "varentropy_mean": "mean variance of the surprisal under the next-token distributions (nats squared)",
    "excess_z": "sum(s - H) / sqrt(sum V): surprisal beyond the entropy, about N(0, 1) if drawn from the model at T=1",
    "log_e": "log of the e-value of stats/evalue.py, against the model at the temperatures that are declared (nats)",
    "surprisal_max": "largest surprisal of a token (nats)",
    "logprob_min": "smallest log-probability of a token (nats)",
    "window_max": "largest mean surprisal of 8 tokens in a row (nats per token); the mean where the trace is shorter",
    "cvar20": "mean of the largest fifth of the surprisals (nats)",
    "rank_max": "worst rank of a token, 1 = likeliest",
    "n_rank1": "tokens that were the model's likeliest",
    "n_rank2_3": "tokens of rank 2 or 3",
    "n_rank_gt3": "tokens of rank 4 and beyond",
    "n_top5": "tokens among the model's five likeliest",
    "n_copied": "tokens inside an n-gram of 8 that stood before in prompt or trace",
    "nll_masked_mean": "surprisal per token that is not copied (nats)",
    "z_masked": "excess_z over the tokens that are not copied",
    "window_max_masked": "window_max over the tokens that are not copied, closed up (nats per token)",
    "cvar20_masked": "cvar20 over the tokens that are not copied (nats)",
    "logprob_s": "sum of log-probabilities under the model's sampler (nats); -inf: it could never draw the trace",
    "exits": "tokens that the model's sampler could never draw",
    "first_exit": "position of the first such token from 0, -1 if there is none",
    "logprob_source": "sum of log-probabilities under the sampler of the trace's own source (nats); -inf: never drawn",
    "excess_s": "sum(s - H) under the model's sampler (nats); inf: it could never draw the trace",
    "variance_s": "sum of the variances of the surprisal under the model's sampler (nats squared)",
    "near_boundary": "tokens within 1e-3 probability mass of the top-p cut-off, where numerics decide on the side",
}
_SURPRISAL = ("logprob", "nll_mean", "ppl", "surprisal_max", "logprob_min", "window_max", "cvar20")


def summarise(
    columns: Mapping[str, np.ndarray],
    *,
    prompt_ids: Sequence[int] | np.ndarray = (),
    sampler: Sampler | None = None,
    hottest: float = 1.0,
    window: int = WINDOW,
    ngram: int = NGRAM,
) -> dict[str, float | int]:
    """The numbers of SUMMARY_COLUMNS, in that order, for one trace under one model.

    columns: "token" [T] and any of records.CORE_COLUMNS, SAMPLER_COLUMNS, NOVEL_COLUMNS and SOURCE_COLUMNS [T];
    prompt_ids: what the response follows; hottest: the largest declared temperature, see `evalue.log_e`; sampler: of
    the source that this model produces (None: unknown, then logprob_s and its kin come from the columns, or are NaN
    without them; plain: where they are missing, those at T=1 are the same). excess_z: after Fast-DetectGPT (arXiv
    2310.05130). cvar20 averages ceil(T / 5) tokens. near_boundary is known without truncation (0) and for top-p alone;
    a top-k or min-p cut-off is not in the columns: NaN. Raises UsageError when window or ngram is below 1.
    """
    if window < 1 or ngram < 1:
        raise UsageError(f"window {window} and ngram {ngram} must be at least 1 token")
    n = len(columns["token"])
    out: dict[str, float | int] = dict.fromkeys(SUMMARY_COLUMNS, math.nan)
    out["n_tokens"] = n
    if n == 0:
        return out
    copied_T = copied(columns["token"], prompt_ids, ngram)
    out["n_copied"] = int(np.count_nonzero(copied_T))
    s_T, entropy_T, variance_T = (_floats(columns, name) for name in ("logprob", "entropy", "varentropy"))
    if s_T is not None:
        s_T = 0.0 - s_T
        out |= _of_surprisals(s_T, window)
        if entropy_T is not None and variance_T is not None:
            out["excess_z"] = _excess(s_T, entropy_T, variance_T)
        out["log_e"] = log_e(columns, hottest)
        if out["n_copied"] == 0:
            masked = out
        elif out["n_copied"] < n:
            kept_T = ~copied_T
            masked = _of_surprisals(s_T[kept_T], window) | {"excess_z": math.nan}
            if entropy_T is not None and variance_T is not None:
                masked["excess_z"] = _excess(s_T[kept_T], entropy_T[kept_T], variance_T[kept_T])
        else:
            masked = dict.fromkeys(("nll_mean", "excess_z", "window_max", "cvar20"), math.nan)
        out["nll_masked_mean"], out["z_masked"] = masked["nll_mean"], masked["excess_z"]
        out["window_max_masked"], out["cvar20_masked"] = masked["window_max"], masked["cvar20"]
    if entropy_T is not None:
        out["entropy_mean"] = float(entropy_T.sum()) / n
    if variance_T is not None:
        out["varentropy_mean"] = float(variance_T.sum()) / n
    return out | _of_ranks(columns) | _of_sampler(columns, sampler)


def copied(ids_T: Sequence[int] | np.ndarray, prompt_ids: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Which response tokens lie inside a repeated n-gram: bool [T].

    An n-gram is repeated when the same n tokens start earlier in prompt + response (overlap allowed: a loop repeats
    itself) and it ends inside the response. All its tokens in the response are marked, also the first n - 1, which are
    known as a copy only once the n-gram is complete. Linear in the number of tokens.
    """
    ids = np.concatenate([np.asarray(prompt_ids, np.int32), np.asarray(ids_T, np.int32)])
    start, total = len(ids) - len(ids_T), len(ids)
    data, width = ids.tobytes(), 4 * n
    seen: set[bytes] = set()
    repeated = []
    for i in range(total - n + 1):
        gram = data[4 * i : 4 * i + width]
        if gram not in seen:
            seen.add(gram)
        elif i + n > start:
            repeated.append(i)
    if not repeated:
        return np.zeros(len(ids_T), bool)
    steps = np.zeros(total + 1, np.int32)
    steps[repeated] += 1
    steps[np.asarray(repeated) + n] -= 1
    return steps.cumsum()[start:total] > 0


def _floats(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    values = columns.get(name)
    return None if values is None else np.asarray(values, dtype=np.float64)


def _of_surprisals(s_T: np.ndarray, window: int) -> dict[str, float]:
    """Everything that needs the surprisals alone; NaN anywhere makes all of it NaN."""
    n, total = len(s_T), float(s_T.sum())
    if math.isnan(total):
        return dict.fromkeys(_SURPRISAL, math.nan)
    mean, largest = total / n, float(s_T.max())
    if n <= window:
        worst = mean
    elif math.isinf(total):
        worst = math.inf
    else:
        sums = np.empty(n + 1)
        sums[0] = 0.0
        s_T.cumsum(out=sums[1:])
        worst = float((sums[window:] - sums[:-window]).max()) / window
    tail = -(-n // 5)
    worst_fifth = float(np.partition(s_T, n - tail)[n - tail :].sum()) / tail
    ppl = math.exp(mean) if mean < 709 else math.inf
    return {
        "logprob": 0.0 - total,
        "nll_mean": mean,
        "ppl": ppl,
        "surprisal_max": largest,
        "logprob_min": 0.0 - largest,
        "window_max": worst,
        "cvar20": worst_fifth,
    }


def _excess(s_T: np.ndarray, entropy_T: np.ndarray, variance_T: np.ndarray) -> float:
    variance = float(variance_T.sum())
    return (float(s_T.sum()) - float(entropy_T.sum())) / math.sqrt(variance) if variance > 0 else math.nan


def _of_ranks(columns: Mapping[str, np.ndarray]) -> dict[str, float | int]:
    rank_T = columns.get("rank")
    # ranks start at 1: an integer column has no NaN, so a backend marks an unknown rank by 0
    if rank_T is None or not (np.asarray(rank_T) >= 1).all():
        return {}
    rank_T = np.asarray(rank_T)
    first, third = int(np.count_nonzero(rank_T == 1)), int(np.count_nonzero(rank_T <= 3))
    return {
        "rank_max": int(rank_T.max()),
        "n_rank1": first,
        "n_rank2_3": third - first,
        "n_rank_gt3": len(rank_T) - third,
        "n_top5": int(np.count_nonzero(rank_T <= 5)),
    }


def _of_sampler(columns: Mapping[str, np.ndarray], sampler: Sampler | None) -> dict[str, float | int]:
    own = (_own(columns, name, sampler) for name in ("logprob", "entropy", "varentropy"))
    (logprob_T, entropy_T, variance_T), source_T = own, _floats(columns, "logprob_source")
    out: dict[str, float | int] = {}
    if source_T is not None:
        out["logprob_source"] = float(source_T.sum())
    if logprob_T is not None and entropy_T is not None:
        out["excess_s"] = 0.0 - float(logprob_T.sum()) - float(entropy_T.sum())
    if variance_T is not None:
        out["variance_s"] = float(variance_T.sum())
    if logprob_T is not None:
        total = float(logprob_T.sum())
        if not math.isnan(total):
            out["logprob_s"], out["exits"], out["first_exit"] = total, 0, -1
            if math.isinf(total):
                outside = np.flatnonzero(np.isneginf(logprob_T))
                out["exits"], out["first_exit"] = len(outside), int(outside[0])
    if sampler is not None and sampler.top_k == 0 and sampler.min_p == 0:
        above_T = _floats(columns, "mass_above_s")
        if sampler.top_p == 1:
            out["near_boundary"] = 0
        elif above_T is not None and not np.isnan(above_T).any():
            out["near_boundary"] = int(np.count_nonzero(np.abs(above_T - sampler.top_p) < BOUNDARY))
    return out


def _own(columns: Mapping[str, np.ndarray], name: str, sampler: Sampler | None) -> np.ndarray | None:
    """A column under the model's sampler; where that is plain and the column unknown, the model's own."""
    values_T = _floats(columns, f"{name}_s")
    plain = sampler is not None and sampler.is_plain
    return _floats(columns, name) if plain and (values_T is None or np.isnan(values_T).all()) else values_T


def among(keys: pd.Series, wanted: Collection[str]) -> np.ndarray:
    """Which keys are in the set `wanted`: bool [N]. `Series.isin` would read the whole set for every part of a run."""
    return np.fromiter(map(wanted.__contains__, keys.to_numpy(dtype=object)), dtype=bool, count=len(keys))


def last_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each source's last training step; all rows of a source without steps. Needs "source" and "step"."""
    last = frame.groupby("source")["step"].transform("max")
    kept_N = (last.isna() | (frame["step"] == last)).fillna(False).astype(bool)
    return frame.copy(deep=False) if kept_N.all() else frame[kept_N]  # most runs have no steps: no second copy
