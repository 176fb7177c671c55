"""The sums behind the columns in one pass over the logits, by Triton: for CUDA, where every pass over memory counts.

One program per row walks over the vocabulary with a running maximum m. With x = (l - m) / 2 and h = exp x it keeps,
over all tokens but the target, the sums of `sums.moments`; where m grows by -2 d, they are moved to the new origin:

    S0 = sum h^2           -> e^2d S0                          R = sum h -> e^d R
    S1 = sum h^2 x         -> e^2d (S1 + d S0)
    S2 = sum h^2 x^2       -> e^2d (S2 + 2 d S1 + d^2 S0)      (online softmax, arXiv 1805.02867, and its moments)
    and for each exponent a that is asked for, sum h^2a -> e^2ad sum h^2a
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 4096  # logits of a step
LEAST = -40.0  # x is cut here: e^-80 adds nothing, and -inf must not meet 0


@triton.jit
def _sums(
    logits,
    targets,
    exponents,
    out,
    vocab,
    row_stride,
    NUMBER: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    LEAST: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_stride
    target = tl.load(targets + row)
    target_logit = tl.load(start + target)
    top = target_logit
    others, roots, first, second, above, mass = 0.0, 0.0, 0.0, 0.0, 0, 0.0
    slot = tl.arange(0, SLOTS)
    double = tl.load(exponents + slot, mask=slot < NUMBER, other=1.0) * 2
    powers = tl.zeros([SLOTS], tl.float32)
    for at in range(0, vocab, BLOCK):
        number = at + tl.arange(0, BLOCK)
        logit = tl.load(start + number, mask=number < vocab, other=float("-inf"))
        higher = tl.maximum(top, tl.max(logit, 0))
        d = tl.maximum((top - higher) * 0.5, LEAST)
        moved = tl.exp(d)
        twice = moved * moved
        second = twice * (second + 2 * d * first + d * d * others)
        first = twice * (first + d * others)
        others, mass, roots = twice * others, twice * mass, moved * roots
        if NUMBER > 0:
            powers *= tl.exp(tl.maximum(double * d, 2 * LEAST))
        top = higher
        x = tl.maximum((logit - top) * 0.5, LEAST)
        h = tl.where((number < vocab) & (number != target), tl.exp(x), 0.0)
        e = h * h
        others += tl.sum(e, 0)
        roots += tl.sum(h, 0)
        first += tl.sum(e * x, 0)
        second += tl.sum(e * x * x, 0)
        for n in tl.static_range(NUMBER):
            term = tl.exp(tl.maximum((logit - top) * tl.load(exponents + n), 2 * LEAST))
            term = tl.where((number < vocab) & (number != target), term, 0.0)
            powers += tl.where(slot == n, tl.sum(term, 0), 0.0)
        likelier = logit > target_logit
        above += tl.sum(likelier.to(tl.int32), 0)
        mass += tl.sum(tl.where(likelier, e, 0.0), 0)
    out += row * (8 + NUMBER)
    tl.store(out, others)
    tl.store(out + 1, roots)
    tl.store(out + 2, first)
    tl.store(out + 3, second)
    tl.store(out + 4, above.to(tl.float32))  # exact up to 2^24, more than any vocabulary
    tl.store(out + 5, mass)
    tl.store(out + 6, top)
    tl.store(out + 7, target_logit)
    tl.store(out + 8 + slot, powers, mask=slot < NUMBER)


def sums(logits: Any, targets: Any, exponents: tuple[float, ...] = ()) -> Any:
    """float32 logits [R, V], int64 targets [R] -> float32 [8 + exponents, R].

    Rows: S0, R, S1, S2 (see above), how many logits are strictly above the target's, the sum of h^2 over those, the
    largest logit and the target's; then `head.exponentials`.
    """
    out_RC = torch.empty((len(logits), 8 + len(exponents)), dtype=torch.float32, device=logits.device)
    exponents_A = torch.tensor(exponents or (1.0,), dtype=torch.float32, device=logits.device)
    slots = triton.next_power_of_2(max(1, len(exponents)))
    sizes = {"NUMBER": len(exponents), "SLOTS": slots, "BLOCK": BLOCK, "LEAST": LEAST}
    _sums[(len(logits),)](logits, targets, exponents_A, out_RC, logits.shape[1], logits.stride(0), **sizes)
    return out_RC.t()
