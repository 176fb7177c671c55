"""V14, the numbers of contained@k: intervals for problems such as these, and the bound for the given problems.

From counts of classes alone, thousands of runs: `texts` shows that the classes read from texts are those of the law,
and here one world in full must give the very numbers of the analysis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analyzer.analysis.contained import run as analysis
from analyzer.records import LEVELS, TAU
from analyzer.stats import bootstrap, contained
from validation import text_worlds as W
from validation.checks import Gate, GateResult, number, share

BANK = 10_000  # problems of the population: its mean over these is the truth
SIZES, WIDE = (3, 16, 64), (3, 5, 10, 30, 64, 200, 500)
DRAWN = ((64, 8, 4), (64, 16, 8), (16, 128, 64))  # traces of the source, draws of the base, k
EXTREME = ((4, 4, 2), (16, 16, 8), (64, 128, 64), (256, 256, 64), (0, 0, 8))  # 0: other numbers by problem and side
LEAST, MOST = 9, 256  # draws where they differ
SHOWN = ("steps", "answer", "correct")
NEW = TAU + 0.001  # share of a source beyond every budget, just too large


class Counts(NamedTuple):
    """Draws of each class of a level by problem: of the source and of the base, int [P, C]."""

    source: np.ndarray
    base: np.ndarray


def unequal(rng: np.random.Generator, problems: int, most: int = MOST, least: int = 4) -> np.ndarray:
    """Draws of each problem, from a few to many: int [P]."""
    return np.exp(rng.uniform(np.log(least), np.log(most), problems)).astype(int)


def counted(
    rng: np.random.Generator, q_PC: np.ndarray, p_PC: np.ndarray, traces: int | np.ndarray, draws: int | np.ndarray
) -> Counts:
    """Counts of `traces` traces of a source with law q and of `draws` of a base with law p, a problem."""
    return Counts(*(rng.multinomial(n, x / x.sum(1, keepdims=True)) for n, x in ((traces, q_PC), (draws, p_PC))))


def by_problem(counts: Counts, k: int, *, left_out: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """contained@k of the source and of the base itself [P], as the analysis estimates them; left_out: 0 forgets that a
    trace of the base is one of its own draws."""
    n, traces = counts.base.sum(1, keepdims=True), counts.source.sum(1, keepdims=True)
    own_PC = contained.missed(np.maximum(counts.base - left_out, 0), n - left_out, k)
    source_PC = contained.missed(counts.base, n, k)
    return 1 - (counts.source * source_PC / traces).sum(1), 1 - (counts.base * own_PC / n).sum(1)


def gate_bounds(rng: np.random.Generator, runs: int, sizes: tuple[int, ...] = SIZES) -> Gate:
    """Coverage of both intervals, and how often the bound misses or certifies what it must not."""
    return Gate([*_same(rng), *_coverage(rng, runs, sizes), *_bound(rng, runs), *_near(rng, runs)], {})


def gate_wide(rng: np.random.Generator, runs: int, sizes: tuple[int, ...] = WIDE) -> Gate:
    """Coverage of both intervals from 3 to 500 problems, from 4 to 256 draws, equal and not."""
    return Gate(_coverage(rng, runs, sizes, EXTREME, "V15"), {})


def _same(rng: np.random.Generator) -> list[GateResult]:
    """The counts' numbers against those of the analysis on texts: contained, gap and bound of every level."""
    law = W.population(rng, 6)
    drawn = {"base": W.draw(law, rng, 20), "s": W.draw(W.other_method(law, 0.2), rng, 7, W.RESTYLED)}
    found = analysis.run(W.tables(drawn), budget=8, draws=2)
    table = found.tables["levels"].set_index(["source", "level"])
    off = forgotten = 0
    copy = np.unique(np.stack(drawn["s"][:4], 1), axis=0, return_inverse=True)[1].ravel()  # equal texts
    apart_P = analysis._apart(drawn["s"].problem, copy, 6)
    for level, code in classes(drawn).items():
        counts = Counts(
            *(_table(drawn[s].problem, code[s], max(map(np.max, code.values())) + 1) for s in ("s", "base"))
        )
        said = found.estimates[f"s.contained@8.{level}"].value, found.estimates[f"s.contained_gap@8.{level}"].value
        source_P, own_P = by_problem(counts, 8)
        bound = contained.upper(1 - source_P.mean(), np.full(6, 20), apart_P, 8)
        pairs = zip((*said, table.loc[("s", level), "miss_high"]), _means(source_P, own_P) + (bound,), strict=True)
        off += sum(abs(a - b) > 1e-9 for a, b in pairs)
        forgotten += abs(said[1] - _means(*by_problem(counts, 8, left_out=0))[1]) > 1e-9
    mutant = ("the base's trace among its own draws", forgotten)
    what = "contained@8, gap and bound of five levels from counts of the law's classes: other than from the texts"
    return [number("V14", what, off, 0, 0, 15, claim="= 0", mutant=mutant)]


def _means(source_P: np.ndarray, own_P: np.ndarray) -> tuple[float, float]:
    return float(source_P.mean()), float((source_P - own_P).mean())


def classes(drawn: dict[str, W.Draws]) -> dict[str, dict[str, np.ndarray]]:
    """Level -> source -> class of each trace by the law, int [N]: what `chances` gives the chances of."""
    out: dict[str, dict[str, np.ndarray]] = {level: {} for level in LEVELS[1:]}
    for source, d in drawn.items():
        own = (d.method * W.VARIANTS + d.variant, d.method, W.KINDS[d.method], d.answer, np.minimum(d.answer, 1))
        for level, code in zip(out, own, strict=True):
            out[level][source] = code
    return out


def _table(problem_N: np.ndarray, class_N: np.ndarray, width: int) -> np.ndarray:
    return np.bincount(problem_N * width + class_N, minlength=(problem_N.max() + 1) * width).reshape(-1, width)


def _coverage(
    rng: np.random.Generator,
    runs: int,
    sizes: tuple[int, ...],
    drawn: tuple[tuple[int, int, int], ...] = DRAWN,
    gate: str = "V14",
) -> list[GateResult]:
    """Problems drawn again from one population: both intervals against its mean, each in the setting where it covers
    least, and over all settings."""
    base, out = W.population(rng, BANK), []
    sources = {"again": base, "one method": W.concentrated(base, 0.9), "that alone": W.concentrated(base, 1.0)}
    sources["rarest"] = W.rarest(base)
    q, p = {name: W.chances(source) for name, source in sources.items()}, W.chances(base)
    for traces, draws, k in drawn:
        truth = {name: W.contained(source, base, k) for name, source in sources.items()}
        own = W.contained(base, base, k)
        for level in SHOWN:
            found = {
                (name, problems): _covered(
                    rng,
                    runs,
                    (q[name][level], p[level]),
                    (truth[name][level], own[level]),
                    (traces, draws, k),
                    problems,
                )
                for name in sources
                for problems in sizes
            }
            size = (
                f"{traces} traces a problem (base {draws})"
                if traces
                else f"{LEAST} to {MOST} traces a problem and side"
            )
            where = f"{level}, {size}, k = {k}"
            for of in ("contained@k", "contained_gap@k"):
                least = min(found.values(), key=lambda seen, of=of: seen[of])
                named = None
                if level == "steps" and (traces, draws, k) in (DRAWN[0], EXTREME[-1]) and of == "contained@k":
                    named = ("Clopper-Pearson over traces", found["one method", max(sizes)]["traces"])
                if level == "steps" and (traces, draws, k) == DRAWN[1] and of == "contained@k" and 16 in sizes:
                    named = ("Korn and Graubard's with independent traces", found["that alone", 16]["variance"])
                what = f"interval of {of} covers the population, least of {len(found)} settings: {where}"
                out.append(share(gate, what, least[of], runs, at_least=0.9, mutant=named))
                if gate == "V15":
                    every = sum(seen[of] for seen in found.values())
                    what = f"interval of {of} covers the population, all {len(found)} settings: {where}"
                    out.append(share(gate, what, every, runs * len(found), at_least=0.9))
    return out


def _covered(
    rng: np.random.Generator,
    runs: int,
    chances: tuple[np.ndarray, np.ndarray],
    truths: tuple[np.ndarray, np.ndarray],
    drawn: tuple[int, int, int],
    problems: int,
) -> dict[str, float]:
    """How often the intervals of the value and of the gap hold the mean of the population, and those of the value where
    traces are taken for independent, wholly (traces) or given the variance between problems (variance).

    chances: of the classes under the source and the base [BANK, C]; truths: contained@k of both [BANK].
    """
    (q, p), (truth_P, own_P), (traces, draws, k) = chances, truths, drawn
    value, gap = float(truth_P.mean()), float((truth_P - own_P).mean())
    seen = dict.fromkeys(("contained@k", "contained_gap@k", "traces", "variance"), 0)
    for _ in range(runs):
        at = rng.integers(0, BANK, problems)
        traces_P, draws_P = (
            np.full(problems, n) if n else unequal(rng, problems, least=LEAST) for n in (traces, draws)
        )
        c_P, own_P = by_problem(counted(rng, q[at], p[at], traces_P, draws_P), k)
        row, own = (analysis._interval(x_P) for x_P in (c_P, own_P))
        seen["contained@k"] += row["low"] <= value <= row["high"]
        n = int(traces_P.sum())
        low, high = (bootstrap.share_upper(x * n, n, alpha=0.025) for x in (1 - c_P.mean(), c_P.mean()))
        seen["traces"] += 1 - low <= value <= high
        low_K, high_K, _ = bootstrap.share_ends(c_P[:, None] * traces_P[:, None], traces_P)
        seen["variance"] += bool(low_K[0] <= value <= high_K[0])
        found = analysis._gap(c_P, own_P, row | {"note": ""}, own, {"draws": 400})
        seen["contained_gap@k"] += found.low <= gap <= found.high
    return seen


def _bound(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """miss_high against the truth of the given problems."""
    out = []
    settings = ((5, 16, 32, 16), (5, 64, 32, 16), (64, 16, 32, 16), (16, 16, 8, 4))
    copied = ((5, 64, 32, 16), (64, 16, 96, 64))
    for name, make, times in (
        ("again", lambda law: law, 1),
        ("the rarest method", W.rarest, 1),
        ("rarest", W.rarest, 4),
    ):
        for problems, traces, draws, k in settings if times == 1 else copied:
            missed = naive = 0
            n_P, traces_P = np.full(problems, draws), np.full(problems, traces)
            for _ in range(runs):
                law = W.population(rng, problems)
                source = make(law)
                q, p = W.chances(source)["steps"], W.chances(law)["steps"]
                truth = 1 - float(W.contained(source, law, k)["steps"].mean())
                counts = counted(rng, q, p, traces, draws // times)
                w = 1 - float(by_problem(counts._replace(base=counts.base * times), k)[0].mean())
                missed += contained.upper(w, n_P, traces_P, k) < truth
                naive += bootstrap.share_upper(w * problems * traces, problems * traces) < truth
            first = name == "the rarest method" and (problems, traces) == (5, 64)
            mutant = ("Clopper-Pearson over traces, the base's draws taken for its law", naive) if first else None
            more = f", a draw {times} times" if times > 1 else ""
            what = f"{name}, {problems} problems x {traces} (base {draws}{more}), k = {k}: the bound is below the truth"
            out.append(share("V14", what, missed, runs, at_most=0.05, mutant=mutant))
    return out


def _near(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """A source of which just more than tau is beyond every budget: certified inside."""
    inside = naive = 0
    n_P, traces_P = np.full(64, 256), np.full(64, 64)
    for _ in range(runs):
        law = W.population(rng, 64)
        source = W.other_method(W.concentrated(law, 1.0), NEW)
        counts = counted(rng, W.chances(source)["steps"], W.chances(law)["steps"], 64, 256)
        w = 1 - float(by_problem(counts, 64)[0].mean())
        inside += contained.upper(w, n_P, traces_P, 64) <= TAU
        naive += w <= TAU
    what = f"E_64 = {NEW:g}, 64 problems x 64 (base 256): certified inside"
    out = [share("V14", what, inside, runs, at_most=0.05, mutant=("the estimate in the bound's place", naive))]
    n_P, few, many = np.full(64, 72), np.ones(64, int), np.full(64, 64)
    runs *= 10  # a run is a number, and few numbers come: share of the problems whose one draw is new
    shown, times = np.unique(rng.binomial(64, NEW, runs) / 64, return_counts=True)
    inside, naive = (
        sum(int(m) * (contained.upper(w, n_P, n, 64) <= TAU) for w, m in zip(shown, times, strict=True))
        for n in (few, many)
    )
    what = f"E_64 = {NEW:g}, 64 problems x 1 draw copied 64 times (base 72): certified inside"
    return [*out, share("V14", what, inside, runs, at_most=0.05, mutant=("copies taken for draws", naive))]
