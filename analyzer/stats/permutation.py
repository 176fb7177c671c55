"""Permutation tests of "same distribution in every problem", labels permuted within the problem. One engine for all.

T = sum over problems of s' K s, where s is 1/b on the b traces of the source and -1/a on the a traces of the reference,
times sqrt(ab / (a + b)) for unequal counts; p = (1 + #{T_b >= T}) / (B + 1) (Phipson and Smyth 2010). The kernels are
in `kernels`; a number per trace enters as T = |sum s' v|.

Exact in finite samples, whatever the counts, as long as K and v were computed without a look at the labels: TF-IDF,
principal components, neighbours or clusters may be fitted on the pooled traces of a problem (or of all), also with
further sources among them. Fitting on one arm alone breaks it, and so does permuting across problems: with unequal
counts (correct traces only) that rejects a true null half of the time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

PERMUTATIONS = 999
TIE = 1e-5  # of the largest |T|: single precision, and sums of the same numbers in another order


class Block(NamedTuple):
    """One problem: who wrote each trace (bool [N], True = source), kernels [N, N] and numbers [N] by name.

    `mark` seeds the problem's permutations together with the test's seed; it must not depend on the labels.
    """

    source_N: np.ndarray
    kernels: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    mark: int = 0


class Found(NamedTuple):
    """p-value, the statistic, the mean of its permuted values, and how many problems and traces entered."""

    p: float
    statistic: float
    null: float
    problems: int
    n: int


def mark(texts: Iterable[str]) -> int:
    """A number for a set of texts, whatever their order: permutations then ignore names and orders of problems."""
    return zlib.crc32("\0".join(sorted(texts)).encode("utf-8", "surrogatepass"))


def signs(source_N: np.ndarray, permutations: int, seed: int, mark: int = 0) -> np.ndarray:
    """Weighted labels float64 [B + 1, N]: the observed ones first, then random ones; every row sums to 0.

    The random ones depend on the counts of both arms, the seed and the mark, and not on who wrote what.
    """
    source_N = np.asarray(source_N, dtype=bool)
    n, b = len(source_N), int(source_N.sum())
    a = n - b
    if a == 0 or b == 0:
        return np.zeros((permutations + 1, n))
    high, low = np.sqrt(a / (b * n)), -np.sqrt(b / (a * n))  # sqrt(ab / n) times 1 / b and -1 / a
    return np.concatenate([np.where(source_N, high, low)[None], _drawn(a, b, permutations, seed, mark)])


@lru_cache(maxsize=4)  # several sources against one reference, with the same counts, share the draws
def _drawn(a: int, b: int, permutations: int, seed: int, mark: int) -> np.ndarray:
    out = np.full((permutations, a + b), -np.sqrt(b / (a * (a + b))))
    out[:, :b] = np.sqrt(a / (b * (a + b)))
    np.random.default_rng([seed, mark]).permuted(out, axis=1, out=out)
    out.flags.writeable = False
    return out


def quadratic(signs_BN: np.ndarray, kernel_NN: np.ndarray) -> np.ndarray:
    """s' K s for every row of signs: float64 [B + 1]; the first row in double precision, the others in single.

    Single precision is off by about 1e-6 of |T|; `p_value` counts everything that close as a tie, against rejection.
    """
    first = signs_BN[0] @ kernel_NN @ signs_BN[0]
    drawn = signs_BN[1:].astype(np.float32)
    others = np.einsum("bn,bn->b", drawn @ kernel_NN.astype(np.float32), drawn)
    return np.concatenate([[first], others.astype(float)])


def factored(signs_BN: np.ndarray, factor_NC: np.ndarray) -> np.ndarray:
    """s' F F' s for every row of signs: float64 [B + 1], without the kernel F F'."""
    found_BC = signs_BN @ factor_NC
    return np.einsum("bc,bc->b", found_BC, found_BC)


def p_value(total_B: np.ndarray) -> float:
    """(1 + #{T_b >= T}) / (B + 1); total_B holds the observed statistic first."""
    slack = TIE * float(np.abs(total_B).max(initial=0.0))
    return float((1 + np.count_nonzero(total_B[1:] >= total_B[0] - slack)) / len(total_B))


def test(blocks: Iterable[Block], *, permutations: int = PERMUTATIONS, seed: int = 0) -> dict[str, Found]:
    """All statistics of the blocks with the same permutations. Blocks are read once: memory is that of one problem.

    Blocks without both labels are left out. A statistic is summed over the blocks that have it.
    """
    totals: dict[str, np.ndarray] = {}
    signed: dict[str, np.ndarray] = {}
    sizes: dict[str, list[int]] = {}
    for block in blocks:
        if block.source_N.all() or not block.source_N.any():
            continue
        s_BN = signs(block.source_N, permutations, seed, block.mark)
        for name, kernel in block.kernels.items():
            totals[name] = totals.get(name, 0.0) + quadratic(s_BN, kernel)
        for name, value_N in block.numbers.items():
            signed[name] = signed.get(name, 0.0) + s_BN @ value_N
        for name in (*block.kernels, *block.numbers):
            sizes.setdefault(name, []).append(len(block.source_N))
    totals |= {name: np.abs(total) for name, total in signed.items()}
    return {
        name: Found(
            p_value(total),
            float(signed[name][0] if name in signed else total[0]),
            float(signed.get(name, total)[1:].mean()) if permutations else np.nan,
            len(sizes[name]),
            sum(sizes[name]),
        )
        for name, total in totals.items()
    }


def max_t(
    blocks: Iterable[tuple[np.ndarray, np.ndarray, int]],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    family_C: np.ndarray | None = None,
) -> np.ndarray:
    """Which units hold more of the source than of the reference? Adjusted p-values [C] (Westfall and Young 1993).

    blocks: (source_N, member_NC bool, mark) per problem. A unit's statistic is its weighted difference of shares summed
    over problems, in units of its own spread over the permutations; each is compared with the largest of all units (of
    its family, where families are given), so that the family-wise error is alpha when both arms are alike. Units in
    nobody's traces have p = 1.
    """
    total = None
    for source_N, member_NC, number in blocks:
        if source_N.all() or not source_N.any():
            continue
        found = signs(source_N, permutations, seed, number) @ member_NC.astype(float)
        total = found if total is None else total + found
    if total is None:
        return np.zeros(0)
    spread = total.std(axis=0)
    able = spread > 1e-12
    family_C = np.zeros(len(able), int) if family_C is None else np.asarray(family_C)
    out = np.ones(len(able))
    for family in np.unique(family_C[able]):
        mine = able & (family_C == family)
        t_BC = total[:, mine] / spread[mine]
        worst_B = t_BC.max(axis=1)
        out[mine] = (1 + (worst_B[1:, None] >= t_BC[0] - TIE).sum(0)) / len(worst_B)
    return out
