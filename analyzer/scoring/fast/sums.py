"""The sums over a vocabulary of which every column is made: one pass over blocks of logits that fit the cache.

All are of exp((l - max l) / T) over the tokens but the target, so that a target which has nearly everything loses no
digit.
"""

from __future__ import annotations

import math
from typing import Any

LEAST = -80.0  # (l - max l) / T is cut here: e^-80 adds nothing, while numbers below float32's normal range are slow
LOG2E = 1 / math.log(2)
LEAST_ROOT = math.exp(-40)  # what is squared is cut here, for the same reason
CANCELLED = 32.0  # E[d^2] over its variance beyond which the variance is computed around the mean (256: off by 3e-5)


def moments(
    logits: Any, targets: Any, top_R: Any, target_R: Any, work: Any, temperature: float = 1.0
) -> dict[str, Any]:
    """logprob, entropy, varentropy, renyi_half, float32 [R], and `total` = sum exp((l - max l) / T), float64 [R].

    varentropy is NaN where the one-pass form would cancel, logprob where the target itself is -inf: the caller takes
    the definition there.
    """
    import torch

    rows, vocab = logits.shape
    step, half = work.shape[1] // vocab, 0.5 / temperature
    sums_4R = torch.empty((4, rows), dtype=torch.float32)
    shift_R1 = (top_R * -half)[:, None]
    for at in range(0, rows, step):
        end = min(rows, at + step)
        x, h = work[:2, : (end - at) * vocab].view(2, end - at, vocab)
        others, roots, first, second = sums_4R[:, at:end]
        torch.add(shift_R1[at:end], logits[at:end], alpha=half, out=x)
        torch.exp(x.clamp_(min=LEAST / 2), out=h)
        h.scatter_(1, targets[at:end, None], 0.0)
        torch.sum(h, -1, out=roots)
        x.mul_(h)
        e = work[2, : h.numel()].view_as(h)
        torch.sum(torch.mul(h, h, out=e), -1, out=others)
        torch.sum(torch.mul(x, h, out=e), -1, out=first)
        torch.sum(x.mul_(x), -1, out=second)
    return finished(*sums_4R, top_R, target_R, temperature)


def exponentials(logits: Any, targets: Any, top_R: Any, exponents: tuple[float, ...], work: Any) -> Any:
    """sum of exp(a (l - max l)) over all tokens but the target for each exponent a > 0, float32 [exponents, R].

    Every pass counts: exp2 takes a third of exp's time on CPU (torch 2.13, AVX-512), and where an exponent is twice
    another one that is asked for, its terms are the squares of that one's.
    """
    import torch

    vocab, number = logits.shape[1], {a: n for n, a in enumerate(exponents)}
    step = work.shape[1] // vocab
    sums_AR = torch.empty((len(exponents), len(logits)), dtype=torch.float32)
    for at in range(0, len(logits), step):
        end = min(len(logits), at + step)
        d, x = work[:2, : (end - at) * vocab].view(2, end - at, vocab)
        torch.sub(logits[at:end], top_R[at:end, None], out=d)
        for a in number:
            if a / 2 in number:
                continue
            torch.mul(d, a * LOG2E, out=x).clamp_(min=LEAST * LOG2E).exp2_().scatter_(1, targets[at:end, None], 0.0)
            torch.sum(x, -1, out=sums_AR[number[a], at:end])
            while (a := 2 * a) in number:
                x.clamp_(min=LEAST_ROOT)
                torch.sum(x.mul_(x), -1, out=sums_AR[number[a], at:end])
    return sums_AR


def log_sums(others_R: Any, a: float, top_R: Any, target_R: Any) -> Any:
    """log sum exp(a (l - max l)) over all tokens, float64 [R], from `exponentials`: as precise as the sum of the others
    where the target is the arg-max."""
    import torch

    others_R = others_R.double()
    share_R = ((target_R.double() - top_R.double()) * a).exp()
    return torch.where(target_R == top_R, others_R.log1p(), (others_R + share_R).log())


def finished(
    others: Any, roots: Any, first: Any, second: Any, top_R: Any, target_R: Any, temperature: float = 1.0
) -> dict[str, Any]:
    """The sums S0, R, S1, S2 over all tokens but the target, float32 [R], and the target's share -> see `moments`."""
    import torch

    half = 0.5 / temperature
    others, roots, first, second = others.double(), roots.double(), first.double(), second.double()
    is_top = target_R == top_R
    x_t = torch.where(is_top, 0.0, (target_R.double() - top_R.double()) * half)
    e_t = (2 * x_t).exp()
    total = others + e_t
    log_total = torch.where(is_top, others.log1p(), total.log())
    mean = 2 * (first + torch.where(e_t > 0, e_t * x_t, 0.0)) / total
    square = 4 * (second + torch.where(e_t > 0, e_t * x_t * x_t, 0.0)) / total
    variance = square - mean * mean
    renyi = torch.where(is_top, 2 * roots.log1p(), 2 * (roots + x_t.exp()).log()) - log_total
    return {
        "logprob": torch.where(is_top, -others.log1p(), 2 * x_t - log_total).float(),
        "entropy": (log_total - mean).clamp(min=0).float(),
        "varentropy": torch.where(square > CANCELLED * variance, torch.nan, variance).clamp(min=0).float(),
        "renyi_half": renyi.clamp(min=0).float(),
        "total": total,
    }
