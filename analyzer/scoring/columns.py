"""Logits -> the per-token columns of `records`: each formula stands here once, for every torch scorer.

All inputs are float32 logits [R, V] of the positions that predict R target tokens; all outputs are float32 [R] (rank
int32). Nothing here knows of models, prompts or batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analyzer.records import SAMPLER_COLUMNS, Sampler

if TYPE_CHECKING:
    import torch

Column = str | tuple[str, Sampler]  # a column under a further sampler has that beside its name
TOP_ALTERNATIVES = 5
TOP_CELLS = 1 << 20  # logits of so many cells are copied at a time
TOP_SURPRISAL = 2.0  # nats: alternatives are kept only for tokens at least this surprising


def core_columns(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """logprob, rank, mass_above, entropy, varentropy, renyi_half at T=1 over the full vocabulary.

    logits: float32 [R, V], raw (any softcap or scale of the model already applied); targets: int64 [R].
    With d_v = l_v - max l and s = sum_v exp d_v: logprob = d_t - log s; entropy H = log s - sum_v p_v d_v;
    varentropy = sum_v p_v (-log p_v - H)^2; renyi_half = 2 log sum_v sqrt(p_v) (Renyi 1961, order 1/2).
    rank = 1 + #{l_v > l_t} and mass_above = sum of p_v over the same v, by strict comparison of raw logits: after the
    subtraction neighbours could merge. Where the target is the arg-max, logprob is -log1p(sum_{v != t} exp d_v), which
    keeps its relative precision at p = 1 - 1e-7 where log-softmax has lost it.
    """
    import torch

    top_R1 = logits.amax(-1, keepdim=True)
    shifted = logits - top_R1
    weight = shifted.exp()
    total_R = weight.sum(-1)
    target_R1 = logits.gather(-1, targets[:, None])
    above = logits > target_R1
    others_R = weight.scatter(-1, targets[:, None], 0.0).sum(-1)
    is_top_R = target_R1[:, 0] == top_R1[:, 0]
    logprob_R = torch.where(is_top_R, -torch.log1p(others_R), (target_R1 - top_R1)[:, 0] - total_R.log())
    p = weight / total_R[:, None]
    # 0 * -inf (a vocabulary entry that the model masks) counts as 0
    d = shifted.clamp(min=-1e4)
    entropy_R = total_R.log() - (p * d).sum(-1)
    surprisal = total_R.log()[:, None] - d
    varentropy_R = (p * (surprisal - entropy_R[:, None]).square()).sum(-1)
    renyi_R = 2 * (shifted / 2).exp().sum(-1).log() - total_R.log()
    return {
        "logprob": logprob_R,
        "rank": above.sum(-1).to(torch.int32) + 1,
        "mass_above": (p * above).sum(-1),
        "entropy": entropy_R.clamp(min=0),
        "varentropy": varentropy_R,
        "renyi_half": renyi_R.clamp(min=0),
    }


def sampler_columns(logits: torch.Tensor, targets: torch.Tensor, sampler: Sampler) -> dict[str, torch.Tensor]:
    """mass_above_s, logprob_s, entropy_s, varentropy_s under the sampler's own distribution.

    mass_above_s is tempered but not truncated: with top-p alone a token is inside iff mass_above_s < top_p. The other
    three are of the tempered, truncated, renormalised distribution; logprob_s is -inf where the sampler could never
    draw the token. Temperature, top-k, top-p, min-p are applied by transformers' own logits processors in their order.
    """
    import torch

    tempered = logits / sampler.temperature
    above = tempered > tempered.gather(-1, targets[:, None])
    mass_R = (tempered.softmax(-1) * above).sum(-1)
    kept = tempered
    for warper in truncations(sampler):
        kept = warper(None, kept)
    logp = kept.log_softmax(-1)
    p = logp.exp()
    finite = torch.where(p > 0, logp, torch.zeros_like(logp))
    entropy_R = -(p * finite).sum(-1)
    varentropy_R = (p * (finite + entropy_R[:, None]).square()).sum(-1)
    return {
        "mass_above_s": mass_R,
        "logprob_s": logp.gather(-1, targets[:, None])[:, 0],
        "entropy_s": entropy_R.clamp(min=0),
        "varentropy_s": varentropy_R,
    }


def truncations(sampler: Sampler) -> list:
    """transformers' logits processors for the sampler's truncation, in generation's order; [] when there is none."""
    from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = []
    if sampler.top_k:
        warpers.append(TopKLogitsWarper(top_k=sampler.top_k))
    if sampler.top_p < 1:
        warpers.append(TopPLogitsWarper(top_p=sampler.top_p))
    if sampler.min_p:
        warpers.append(MinPLogitsWarper(min_p=sampler.min_p))
    return warpers


def powers(logits: torch.Tensor, exponents: tuple[float, ...]) -> dict[str, torch.Tensor]:
    """power_<a> = log sum_v p_v^a (nats) at T=1 over the full vocabulary, for exponents a > 0.

    With d_v = l_v - max l and o_a = sum of exp(a d_v) over all tokens but one of the likeliest: log1p(o_a) - a
    log1p(o_1), which keeps its relative precision next to p = 1, where it is about -a (1 - p) for a well above 1. Never
    above 0 for a >= 1 and never below for a <= 1, as it would be but for rounding.
    """
    import torch

    top_R1, likeliest_R1 = logits.max(-1, keepdim=True)
    shifted = logits - top_R1

    def log_sum(a: float) -> torch.Tensor:
        return (shifted * a).exp().scatter(-1, likeliest_R1, 0.0).sum(-1, dtype=torch.float64).log1p()

    log_total_R = log_sum(1.0)
    return {f"power_{a:g}": power(log_sum(a), log_total_R, a) for a in exponents}


def power(log_sum_R: torch.Tensor, log_total_R: torch.Tensor, a: float) -> torch.Tensor:
    """log sum p^a, float32 [R], from log sum exp(a d) and log sum exp d, float64 [R]; see `powers`."""
    value_R = log_sum_R - a * log_total_R
    return (value_R.clamp(max=0) if a > 1 else value_R.clamp(min=0) if a < 1 else value_R * 0).float()


def all_columns(
    logits: torch.Tensor, targets: torch.Tensor, sampler: Sampler | None, exponents: tuple[float, ...] = ()
) -> dict[str, torch.Tensor]:
    """The core columns, the power columns of the exponents, and the sampler columns when the sampler is known. At T=1
    untruncated the core and the sampler columns agree."""
    columns = core_columns(logits, targets) | (powers(logits, exponents) if exponents else {})
    if sampler is None:
        return columns
    if sampler.is_plain:
        return columns | plain_sampler(columns)
    return columns | sampler_columns(logits, targets, sampler)


def plain_sampler(columns: Mapping[Any, Any]) -> dict[str, Any]:
    """The sampler columns of T=1 without truncation: the core columns themselves."""
    return {name: columns[name.removesuffix("_s")] for name in SAMPLER_COLUMNS}


def top_alternatives(
    logits: torch.Tensor, logprob_R: torch.Tensor
) -> list[tuple[int, tuple[int, ...], tuple[float, ...]]]:
    """(row, ids, logprobs at T=1) of the five likeliest tokens, for the rows with -logprob >= TOP_SURPRISAL."""
    rows = (-logprob_R >= TOP_SURPRISAL).nonzero()[:, 0]
    k = min(TOP_ALTERNATIVES, logits.shape[-1])
    out = []
    for some in rows.split(max(1, TOP_CELLS // logits.shape[-1])) if len(rows) else ():
        best = logits[some].log_softmax(-1).topk(k, dim=-1)
        found = zip(some.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        out += [(row, tuple(ids), tuple(values)) for row, ids, values in found]
    return out
