"""The sampler's columns without sorting the vocabulary: only the few tokens that the sampler could draw are looked at.

`columns.sampler_columns` defines them by transformers' own processors. Here, for temperature T with any of top-k,
top-p, min-p, the kept tokens are found among candidates near the top:

    peaked rows      p_max at T=1 is above top_p and T <= 1: only the arg-max is kept, nothing to compute
    top-k            candidates are the tokens that reach the k-th largest logit, ties included
    min-p            ... those within T log(min_p) of the top
    top-p alone      ... those within T * NEAR of the top; if their mass does not reach top_p, within T * FAR
Rows where that does not settle it (mass still short, or so close to a threshold that float32 rounding decides who is
kept) take the definition.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from analyzer.records import SAMPLER_COLUMNS, Sampler
from analyzer.scoring.columns import sampler_columns
from analyzer.scoring.fast import sums

NEAR, FAR = 6.0, 14.0  # nats at temperature T below the largest logit
NAMES = tuple(SAMPLER_COLUMNS)
GATHER_CELLS = 1 << 20  # some rows of all are copied so many logits at a time
ROUNDING = 1e-5  # of a mass: float32 sums over a vocabulary may decide otherwise within it


def columns(
    logits: Any,
    targets: Any,
    rows: Any,
    sampler: Sampler,
    work: Any,
    top_R: Any,
    target_R: Any,
    total_R: Any,
    above_R: Any,
) -> dict[str, Any]:
    """mass_above_s, logprob_s, entropy_s, varentropy_s, float32 [R]; of the rows int64 [K], in order, the others are 0.

    logits float32 [R, V] on CPU, raw; targets int64 [R]; top_R, target_R: the largest and the target's logit; total_R
    = sum exp(l - max l) at T=1; above_R: sum exp((l - max l) / T) over the tokens likelier than the target, float64;
    work: float32 [3, cells] to compute in.
    """
    import torch

    out = {name: torch.zeros(len(logits)) for name in NAMES}
    if sampler.top_p >= 1 and not sampler.top_k and not sampler.min_p:
        alone, few = len(rows) < len(logits), max(1, GATHER_CELLS // logits.shape[1])
        for some in rows.split(few if alone else len(rows)):
            block = logits[some] if alone else logits
            given = targets[some], top_R[some], target_R[some]
            found = sums.moments(block, *given, work, sampler.temperature)
            found["mass_above"] = (above_R[some] / found["total"]).float()
            for name in NAMES:
                out[name][some] = found[name.removesuffix("_s")]
        todo = rows[sum(values[rows] for values in out.values()).isnan()]
    else:
        # half of the mass on one token also means that no other ties with it
        peaked = (target_R == top_R) & (1 / total_R > max(sampler.top_p, 0.5) + ROUNDING)
        todo = rows if sampler.temperature > 1 else rows[~peaked[rows]]
        for reach in (NEAR, FAR):
            if len(todo):
                near = _near_the_top(logits, todo, sampler, work, top_R, reach)
                found, settled = _kept(near, sampler, top_R[todo], target_R[todo], above_R[todo].numpy())
                for name in NAMES:
                    out[name][todo] = torch.from_numpy(found[name].astype(np.float32))
                todo = todo[torch.from_numpy(~settled)]
    # what is left takes the definition
    for some in todo.split(max(1, work.shape[1] // logits.shape[1])) if len(todo) else ():
        for name, values in sampler_columns(logits[some], targets[some], sampler).items():
            out[name][some] = values
    return out


class Near(NamedTuple):
    """Candidates of some rows, row after row, likeliest first: row, logit and exp((l - max l) / T) of each [K]; that
    weight summed over the whole vocabulary [R]."""

    row_K: np.ndarray
    logit_K: np.ndarray
    weight_K: np.ndarray
    total_R: np.ndarray


def _near_the_top(logits: Any, todo: Any, sampler: Sampler, work: Any, top_R: Any, reach: float) -> Near:
    import torch

    vocab, scale = logits.shape[1], 1 / sampler.temperature
    step = work.shape[1] // vocab
    # every token that min-p keeps lies above its bound, whatever else truncates
    reach = -math.log(sampler.min_p) + ROUNDING if sampler.min_p else reach
    parts, totals = [], torch.empty(len(todo))
    for at in range(0, len(todo), step):
        rows = todo[at : at + step]
        block, e = work[:2, : len(rows) * vocab].view(2, len(rows), vocab)
        torch.index_select(logits, 0, rows, out=block)
        top_R1 = top_R[rows, None]
        torch.add(top_R1 * -scale, block, alpha=scale, out=e)
        torch.sum(e.clamp_(min=sums.LEAST).exp_(), -1, out=totals[at : at + step])
        if sampler.top_k:
            threshold_R1 = block.topk(min(sampler.top_k, vocab), dim=-1).values[:, -1:]
        else:
            threshold_R1 = top_R1 - sampler.temperature * reach
        values = block.numpy()
        flat = np.flatnonzero(values >= threshold_R1.numpy())
        parts.append((at + flat // vocab, values.ravel()[flat], e.numpy().ravel()[flat]))
    row, logit, weight = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.lexsort((-logit, row))
    return Near(row[order], logit[order].astype(float), weight[order].astype(float), totals.double().numpy())


def _kept(
    near: Near, sampler: Sampler, top_R: Any, target_R: Any, above_R: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns of rows as float64 [R] from their candidates, and which rows that settled, bool [R].

    above_R: weight of the tokens above the target.
    """
    row, logit, weight, total = near
    first = np.searchsorted(row, np.arange(len(total)))
    running = np.cumsum(weight) - weight
    before = running - running[first][row]  # weight of the candidates above each
    mass_R = np.add.reduceat(weight, first)
    settled, kept = np.ones(len(total), bool), np.ones(len(row), bool)
    if sampler.top_p < 1:
        share = before / (mass_R if sampler.top_k else total)[row]
        kept = share < sampler.top_p
        close = np.abs(share - sampler.top_p) < ROUNDING
        ties = np.append(~kept[1:] & kept[:-1] & (row[1:] == row[:-1]) & (logit[1:] == logit[:-1]), False)
        settled[row[close | ties]] = False
        if not sampler.top_k:
            settled &= mass_R > (sampler.top_p + ROUNDING) * total
    if sampler.min_p:
        kept &= weight >= sampler.min_p
        settled[row[np.abs(weight / sampler.min_p - 1) < ROUNDING]] = False
    kept[first] = True
    weight = np.where(kept, weight, 0.0)
    sum_R = np.add.reduceat(weight, first)
    top, target = top_R.double().numpy(), target_R.double().numpy()
    logp = (logit - top[row]) / sampler.temperature - np.log(sum_R)[row]
    p = weight / sum_R[row]
    entropy = np.add.reduceat(-p * logp, first)
    variance = np.add.reduceat(p * (-logp - entropy[row]) ** 2, first)
    least = np.minimum.reduceat(np.where(kept, logit, np.inf), first)
    logprob = np.where(target >= least, (target - top) / sampler.temperature - np.log(sum_R), -np.inf)
    out = [above_R / total, logprob, np.maximum(entropy, 0), variance]
    return dict(zip(NAMES, out, strict=True)), settled
