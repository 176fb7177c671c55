"""The numbers of `summaries.summarise` for many traces at once, whose tokens lie end to end in one array per column.

`_N` traces, `_T` tokens of all of them; the tokens of trace i are [starts_N[i], starts_N[i] + lengths_N[i]).
`summarise` is the definition; sums here run in another order, so the last digits may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analyzer.analysis.data.summaries import BOUNDARY, NGRAM, SUMMARY_COLUMNS, WINDOW, copied
from analyzer.records import Sampler
from analyzer.stats.evalue import log_e_many

CHUNK = 1 << 18  # tokens whose n-grams are sorted at a time
COUNTS = (
    "n_copied", "rank_max", "n_rank1", "n_rank2_3", "n_rank_gt3", "n_top5", "exits", "first_exit", "near_boundary",
)  # fmt: skip
FACTORS = np.random.default_rng(0).integers(1 << 62, 1 << 63, 64, dtype=np.uint64) | np.uint64(1)


def summarise_many(
    lengths_N: np.ndarray,
    columns: Mapping[str, np.ndarray],
    *,
    prompts: Sequence[np.ndarray],
    sampler: Sampler | None = None,
    hottest: float | np.ndarray = 1.0,
    window: int = WINDOW,
    ngram: int = NGRAM,
) -> dict[str, np.ndarray]:
    """SUMMARY_COLUMNS -> [N], float64 with NaN where a number is unknown, int64 for counts that all are known.

    columns: "token" [T] and any of the columns that `summarise` takes [T], NaN (rank: 0) where a trace lacks one.
    prompts: the prompt's ids of each trace; hottest: of all or of each trace [N]. The other arguments are those of
    `summarise`.
    """
    lengths_N = np.asarray(lengths_N, np.int64)
    whole, full = len(lengths_N), np.flatnonzero(lengths_N)
    out = {name: np.full(whole, np.nan) for name in SUMMARY_COLUMNS}
    if len(full):
        n = lengths_N[full]
        starts = n.cumsum() - n
        found = _surprisals(columns, n, starts, window)
        found["log_e"] = log_e_many(columns, n, hottest if np.isscalar(hottest) else np.asarray(hottest)[full])
        copied_T = copied_many(columns["token"], n, [prompts[i] for i in full], ngram)
        found["n_copied"] = np.add.reduceat(copied_T, starts, dtype=np.int64)
        found |= _masked(columns, n, starts, copied_T, found, window)
        for name in ("entropy", "varentropy"):
            if (values_T := columns.get(name)) is not None:
                found[f"{name}_mean"] = _sums(values_T, starts) / n
        found |= _ranks(columns.get("rank"), n, starts) | _sampler(columns, n, starts, sampler)
        for name, values in found.items():
            if name in out:
                out[name][full] = values
    for name in COUNTS:
        if not np.isnan(out[name]).any():
            out[name] = out[name].astype(np.int64)
    out["n_tokens"] = lengths_N
    return out


def _sums(values_T: np.ndarray, starts_N: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values_T, starts_N, dtype=np.float64)


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def _surprisals(columns: Mapping[str, np.ndarray], n: np.ndarray, starts: np.ndarray, window: int) -> dict:
    """Everything that needs the surprisals; NaN anywhere in a trace makes all of it NaN."""
    if "logprob" not in columns:
        return {}
    s_T = 0.0 - columns["logprob"]
    total = _sums(s_T, starts)
    mean, largest = total / n, np.maximum.reduceat(s_T, starts).astype(np.float64)
    out = {
        "logprob": 0.0 - total,
        "nll_mean": mean,
        "ppl": np.where(mean < 709, np.exp(np.minimum(mean, 709)), np.inf),
        "surprisal_max": largest,
        "logprob_min": 0.0 - largest,
        "window_max": _windows(s_T, n, starts, window, mean),
        "cvar20": _tails(s_T, n, starts),
    }
    unknown = np.isnan(total)
    for values in out.values():
        values[unknown] = np.nan
    if "entropy" in columns and "varentropy" in columns:
        variance = _sums(columns["varentropy"], starts)
        z = (total - _sums(columns["entropy"], starts)) / np.sqrt(variance)
        out["excess_z"] = np.where(variance > 0, z, np.nan)
    return out


def _windows(s_T: np.ndarray, n: np.ndarray, starts: np.ndarray, window: int, mean: np.ndarray) -> np.ndarray:
    """Largest mean of `window` surprisals in a row; the mean where the trace is not longer."""
    worst, long = mean.copy(), np.flatnonzero(n > window)
    if len(long):
        sums_T = s_T[: len(s_T) - window + 1].astype(np.float64)
        for shift in range(1, window):
            sums_T += s_T[shift : len(s_T) - window + 1 + shift]
        bounds = np.stack([starts[long], starts[long] + n[long] - window + 1], axis=1).ravel()
        if bounds[-1] == len(sums_T):
            bounds = bounds[:-1]
        worst[long] = np.maximum.reduceat(sums_T, bounds)[::2] / window
    return worst


def _tails(s_T: np.ndarray, n: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Mean of the largest fifth of the surprisals."""
    out, tails = np.empty(len(n)), -(-n // 5)
    for i, (start, length, tail) in enumerate(zip(starts.tolist(), n.tolist(), tails.tolist(), strict=True)):
        part = np.partition(s_T[start : start + length], length - tail)
        out[i] = np.add.reduce(part[length - tail :], dtype=np.float64)
    return out / tails


def _masked(
    columns: Mapping[str, np.ndarray],
    n: np.ndarray,
    starts: np.ndarray,
    copied_T: np.ndarray,
    found: dict[str, np.ndarray],
    window: int,
) -> dict[str, np.ndarray]:
    """The numbers over the tokens that are not copied: those of the whole trace where none is, NaN where all are."""
    names = {"nll_mean": "nll_masked_mean", "excess_z": "z_masked", "window_max": "window_max_masked",
             "cvar20": "cvar20_masked"}  # fmt: skip
    out = {new: found[old].copy() for old, new in names.items() if old in found}
    count = found["n_copied"]
    for values in out.values():
        values[count > 0] = np.nan
    some = np.flatnonzero((count > 0) & (count < n))
    if len(some) and out:
        chosen = np.zeros(len(n), bool)
        chosen[some] = True
        kept_T = ~copied_T & np.repeat(chosen, n)
        left = n[some] - count[some]
        parts = {c: columns[c][kept_T] for c in ("logprob", "entropy", "varentropy") if c in columns}
        again = _surprisals(parts, left, left.cumsum() - left, window)
        for old, new in names.items():
            if old in again:
                out[new][some] = again[old]
    return out


def _ranks(rank_T: np.ndarray | None, n: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    if rank_T is None:
        return {}
    known = np.minimum.reduceat(rank_T, starts) >= 1
    first, third, fifth = (np.add.reduceat(rank_T <= top, starts, dtype=np.int64) for top in (1, 3, 5))
    out = {
        "rank_max": np.maximum.reduceat(rank_T, starts),
        "n_rank1": first,
        "n_rank2_3": third - first,
        "n_rank_gt3": n - third,
        "n_top5": fifth,
    }
    return {name: np.where(known, values, np.nan) for name, values in out.items()}


def _sampler(
    columns: Mapping[str, np.ndarray], n: np.ndarray, starts: np.ndarray, sampler: Sampler | None
) -> dict[str, np.ndarray]:
    own = (_own(columns, name, n, starts, sampler) for name in ("logprob", "entropy", "varentropy"))
    (logprob_T, entropy_T, variance_T), source_T = own, columns.get("logprob_source")
    out: dict[str, np.ndarray] = {}
    if source_T is not None:
        out["logprob_source"] = _sums(source_T, starts)
    if variance_T is not None:
        out["variance_s"] = _sums(variance_T, starts)
    if logprob_T is not None:
        total = _sums(logprob_T, starts)
        if entropy_T is not None:
            out["excess_s"] = 0.0 - total - _sums(entropy_T, starts)
        outside = np.flatnonzero(np.isneginf(logprob_T))
        owner = np.searchsorted(starts, outside, side="right") - 1
        exits = np.bincount(owner, minlength=len(n)).astype(float)
        first = np.full(len(n), -1.0)
        first[owner[::-1]] = (outside - starts[owner])[::-1]  # the earliest is written last
        unknown = np.isnan(total)
        exits[unknown] = first[unknown] = np.nan
        out |= {"logprob_s": total, "exits": exits, "first_exit": first}
    if sampler is not None and sampler.top_k == 0 and sampler.min_p == 0:
        above_T = columns.get("mass_above_s")
        if sampler.top_p == 1:
            out["near_boundary"] = np.zeros(len(n))
        elif above_T is not None:
            near = np.add.reduceat(np.abs(above_T.astype(np.float64) - sampler.top_p) < BOUNDARY, starts, dtype=float)
            out["near_boundary"] = np.where(np.isnan(_sums(above_T, starts)), np.nan, near)
    return out


def _own(
    columns: Mapping[str, np.ndarray], name: str, n: np.ndarray, starts: np.ndarray, sampler: Sampler | None
) -> np.ndarray | None:
    """A column under the model's sampler; where that is plain and the column unknown, the model's own."""
    values_T, own_T = columns.get(f"{name}_s"), columns.get(name)
    if sampler is None or not sampler.is_plain or own_T is None:
        return values_T
    if values_T is None:
        return own_T
    missing = np.logical_and.reduceat(np.isnan(values_T), starts)
    return np.where(np.repeat(missing, n), own_T, values_T) if missing.any() else values_T


def copied_many(token_T: np.ndarray, lengths_N: np.ndarray, prompts: Sequence[np.ndarray], n: int) -> np.ndarray:
    """`summaries.copied` of every trace, end to end: bool [T].

    n-grams are hashed and sorted together with their positions; equal neighbours are compared token by token, and a
    trace in which two n-grams share a hash without being equal is done by `copied` itself.
    """
    out, i, at = np.zeros(len(token_T), bool), 0, 0
    total = lengths_N + np.array([len(p) for p in prompts], np.int64)
    while i < len(lengths_N):
        j = i + max(1, int(np.searchsorted(total[i:].cumsum(), CHUNK, side="right")))
        size = int(lengths_N[i:j].sum())
        out[at : at + size] = _copied_chunk(token_T[at : at + size], lengths_N[i:j], prompts[i:j], n)
        i, at = j, at + size
    return out


def _copied_chunk(token_T: np.ndarray, lengths: np.ndarray, prompts: Sequence[np.ndarray], n: int) -> np.ndarray:
    asked = np.array([len(p) for p in prompts], np.int64)
    total = asked + lengths
    ends = total.cumsum()
    response = np.ones(ends[-1], bool)  # tokens of responses, among prompts and responses
    ids = np.empty(ends[-1], np.uint64)
    for end, size, own, prompt in zip(ends.tolist(), total.tolist(), asked.tolist(), prompts, strict=True):
        response[end - size : end - size + own] = False
        ids[end - size : end - size + own] = prompt
    ids[response] = token_T
    if len(ids) < n:
        return np.zeros(len(token_T), bool)
    trace = np.repeat(np.arange(len(lengths), dtype=np.uint64), total)
    starts = len(ids) - n + 1
    key = trace[:starts] * FACTORS[-1]
    scratch = np.empty(starts, np.uint64)
    for shift in range(n):
        np.multiply(ids[shift : shift + starts], FACTORS[shift % 63], out=scratch)
        key += scratch
    place = np.uint64((1 << int(starts).bit_length()) - 1)
    key &= ~place
    key |= np.arange(starts, dtype=np.uint64)
    key = key[trace[:starts] == trace[n - 1 :]]  # an n-gram does not reach into the next trace
    key.sort()
    equal = np.flatnonzero((key[1:] ^ key[:-1]) <= place)
    later, earlier = (key[equal + 1] & place).astype(np.int64), (key[equal] & place).astype(np.int64)
    inside = response[later + n - 1]  # it ends inside the response
    later, earlier = later[inside], earlier[inside]
    same = trace[later] == trace[earlier]
    for shift in range(n):
        same &= ids[later + shift] == ids[earlier + shift]
    steps = np.zeros(len(ids) + 1, np.int32)
    steps[later[same]] += 1
    steps[later[same] + n] -= 1
    out = (steps.cumsum()[:-1] > 0)[response]
    bounds = lengths.cumsum()
    for i in np.unique(np.r_[trace[later[~same]], trace[earlier[~same]]]).astype(int).tolist():
        own = slice(bounds[i] - lengths[i], bounds[i])
        out[own] = copied(token_T[own], prompts[i], n)
    return out
