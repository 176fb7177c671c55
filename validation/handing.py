"""The cliff of a handover (part of V9): a planted hurdle is found where it is, and the base's own traces have none.

Success of the base over cuts is simulated: each trace of a problem of chance c is settled step by step, so that its own
correct traces rise from c to 1; behind a planted hurdle the base goes on as on its own, before it hardly ever.
"""

from __future__ import annotations

import numpy as np

from analyzer.stats import handover
from validation.checks import Gate, share

CUTS, DRAWS, PROBLEMS, TRACES = 8, 8, 20, 5
BEFORE = 0.02  # success of the base before a planted hurdle


def success(
    rng: np.random.Generator, chance_P: np.ndarray, hurdle: int | None, lines: int = CUTS
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of DRAWS that end correct, with a last column of ones [N, CUTS + 1], and the problem of each trace [N].
    lines: of each trace, between which alone it can be cut."""
    problem_N = np.repeat(np.arange(len(chance_P)), TRACES)
    settled_F = cut_at(lines)[:-1]
    p_NF = chance_P[problem_N, None] ** (1 - settled_F) ** rng.uniform(0.5, 2, len(problem_N))[:, None]
    if hurdle is not None:
        p_NF[:, : hurdle + 1] = BEFORE
    return np.c_[rng.binomial(DRAWS, p_NF) / DRAWS, np.ones(len(problem_N))], problem_N


def cut_at(lines: int) -> np.ndarray:
    """The shares of a trace at its cuts, 1 at last [CUTS + 1]."""
    return np.r_[np.arange(CUTS) * lines // CUTS / lines, 1.0]


def gate_handover(rng: np.random.Generator, runs: int) -> Gate:
    """Cliffs of planted hurdles, of the base's own traces, and of a policy that is only likelier to succeed."""
    found = dict.fromkeys(("planted", "again", "naive", "paired", "joined", "by_cuts"), 0)
    for run in range(runs):
        chance_P = rng.uniform(0.1, 0.7, PROBLEMS)
        hurdle = int(rng.integers(1, CUTS - 1))
        control, again, planted = (success(rng, chance_P, at) for at in (None, None, hurdle))
        cliff = handover.unpaired(*planted, *control, seed=run)
        found["planted"] += cliff.p <= 0.05 and cliff.at == hurdle
        cliff = handover.unpaired(*again, *control, seed=run)
        found["again"] += cliff.p <= 0.05
        lines = int(rng.integers(2, 5))
        joined = success(rng, chance_P, None, lines)
        found["by_cuts"] += handover.unpaired(*joined, *control, seed=run).p <= 0.05
        even = [
            (handover.at_shares(np.tile(cut_at(n), (len(arm[0]), 1)), arm[0], lines), arm[1])
            for n, arm in ((lines, joined), (CUTS, control))
        ]
        found["joined"] += handover.unpaired(*even[0], *even[1], seed=run).p <= 0.05
        rise_NF = np.diff(again[0], axis=1)
        found["naive"] += rise_NF.mean(0).max() > rise_NF.mean() + 1.64 * rise_NF.std() / np.sqrt(len(rise_NF))
        p_NF = rng.beta(2, 2, again[0].shape)
        one, other = (np.c_[rng.binomial(DRAWS, p_NF[:, :-1]) / DRAWS, np.ones(len(p_NF))] for _ in range(2))
        found["paired"] += handover.paired(one, other, seed=run).p <= 0.05
    size = f"{PROBLEMS} problems x {TRACES} traces, {CUTS} cuts x {DRAWS} draws"
    checks = [
        share("V9", f"planted hurdle: cliff certified, in its stretch ({size})", found["planted"], runs, at_least=0.95),
        share(
            "V9",
            f"the base's own correct traces: cliff certified ({size})",
            found["again"],
            runs,
            at_most=0.05,
            mutant=("the largest rise against the mean one", found["naive"]),
        ),
        share(
            "V9",
            f"the base's own traces in 2 to 4 lines against {CUTS}: cliff certified",
            found["joined"],
            runs,
            at_most=0.1,
            mutant=("compared cut by cut", found["by_cuts"]),
        ),
        share("V9", "two draws of one model on the same traces: cliff certified", found["paired"], runs, at_most=0.05),
    ]
    return Gate(checks, {})
