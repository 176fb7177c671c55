"""How long the permutation engine and the analyses take, and how that grows with the number of problems.

    python benchmarks/bench_stats.py [--problems 500] [--traces 64] [--engine-only] [--exponent]

The engine: energy distance, TRACES + TRACES traces a problem, 999 permutations. The analyses: a made-up run of three
sources with texts, surprisals and hidden states, no model needed. --exponent runs them on a quarter and on half of the
problems as well: the slope of log seconds on log problems (1: linear; fixed costs make it smaller).
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # both as the command line does
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import SUMMARY_COLUMNS
from analyzer.analysis.data.tables import in_memory
from analyzer.analysis.questions import ANALYSES
from analyzer.records import Sampler, Tables, trace_key
from analyzer.stats import kernels, permutation

LIMITS = {"engine": 10.0, "analyses": 60.0, "memory": 2.0}  # seconds, seconds, GB
WORDS = {"start": "begin", "add": "plus", "get": "gives", "answer": "result"}


def engine(problems: int, traces: int) -> float:
    """Seconds of one permutation test over so many problems; kernels are made on the way and not kept."""
    rng = np.random.default_rng(0)
    source_N = np.arange(2 * traces) >= traces

    def blocks() -> Iterator[permutation.Block]:
        for p in range(problems):
            x = rng.normal(size=(2 * traces, 16))
            yield permutation.Block(source_N, {"energy": kernels.energy(kernels.distances(x @ x.T))}, {}, p)

    start = time.perf_counter()
    permutation.test(blocks(), permutations=999)
    return time.perf_counter() - start


def response(rng: np.random.Generator, signs: str) -> str:
    """A chain of four steps in one of several wordings."""
    word = {w: (w, other)[int(rng.random() < 0.25)] for w, other in WORDS.items()}
    values = rng.integers(1, 13, 5).tolist()
    total, parts, chosen = values[0], [], rng.choice(list(signs), 4)
    for sign, value in zip(chosen, values[1:], strict=True):
        total = total * value % 97 if sign == "*" else total + value if sign == "+" else abs(total - value)
        parts.append(f"{word['add']} {sign} {value} {word['get']} {total} .")
    ending = " ".join(str(x) for pair in zip(values[1:], chosen, strict=True) for x in pair[::-1])
    return f"{word['start']} {values[0]} . {' '.join(parts)} {word['answer']} {values[0]} {ending}"


def made_up(problems: int, traces: int) -> Tables:
    """Tables of three sources: base, rlvr (fewer signs), distill (a new sign)."""
    rng = np.random.default_rng(1)
    rows, scores, states = [], [], {}
    for source, signs in (("base", "+-"), ("rlvr", "+"), ("distill", "+-*")):
        for p in range(problems):
            for i in range(traces):
                key = trace_key(source, f"p{p:04d}", i, None)
                head = {"key": key, "source": source, "problem": f"p{p:04d}", "step": None, "sample": i}
                head |= {"correct": bool(rng.random() < 0.3), "finish": "stop", "group": "all"}
                text = response(rng, signs)
                rows.append(head | {"score": np.nan, "answer": text[-6:], "response": text, "prompt": f"q{p}"})
                states[key] = rng.normal(size=96).astype(np.float16)
    numbers = rng.gamma(4.0, 0.3, (len(rows), len(SUMMARY_COLUMNS)))
    for model, sources in (("base", None), ("policy-rlvr", ("base", "rlvr")), ("policy-distill", ("base", "distill"))):
        for row, values in zip(rows, numbers, strict=True):
            if sources is None or row["source"] in sources:
                identity = {name: row[name] for name in row if name not in ("score", "answer", "response", "prompt")}
                found = dict(zip(SUMMARY_COLUMNS, values.tolist(), strict=True))
                found |= {"n_tokens": 30, "logprob": -10 * values[1], "logprob_s": -10 * values[1], "log_e": -values[6]}
                found |= {"n_copied": 0, "exits": 0, "first_exit": -1, "near_boundary": 0, "rank_max": 3}
                found |= {"n_rank1": 25, "n_rank2_3": 5, "n_rank_gt3": 0, "n_top5": 30}
                scores.append({"model": model} | identity | found)

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        s = -rng.exponential(0.3, 30)
        flat = {"token": np.arange(30), "rank": np.ones(30, int), "mass_above": np.zeros(30)}
        for at in range(0, len(rows), 4096):
            part = rows[at : at + 4096]
            yield pd.DataFrame(
                {name: [row[name] for row in part] for name in ("key", "source", "problem", "step", "sample")}
                | {
                    name: [states[row["key"]] if name == "embedding" else flat.get(name, s) for row in part]
                    for name in columns
                }
            )

    kinds = {"step": "Int64", "correct": "boolean"}
    policies = {"base": "base", "rlvr": "policy-rlvr", "distill": "policy-distill"}
    samplers = dict.fromkeys(policies, Sampler())
    return Tables(
        scores=pd.DataFrame(scores).astype(kinds),
        tokens=tokens,
        reference="base",
        base="base",
        policies=policies,
        samplers=samplers,
        **in_memory(pd.DataFrame(rows).astype(kinds)),
    )


def analyses(problems: int, traces: int) -> dict[str, float]:
    """Seconds of every analysis over so many problems."""
    tables, out = made_up(problems, traces), {}
    for name, analysis in ANALYSES.items():
        start = time.perf_counter()
        analysis.run(tables)
        out[name] = time.perf_counter() - start
    return out | {"all": sum(out.values())}


def exponent(problems: list[int], seconds: list[float]) -> float:
    """Slope of log seconds on log problems; NaN for a single size."""
    return float(np.polyfit(np.log(problems), np.log(seconds), 1)[0]) if len(problems) > 1 else float("nan")


def main() -> None:
    """Print the tables of times and whether the limits hold."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--problems", type=int, default=500)
    options.add_argument("--traces", type=int, default=64)
    options.add_argument("--engine-only", action="store_true")
    options.add_argument("--exponent", action="store_true")
    given = options.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"permutation engine, {given.traces} + {given.traces} traces a problem, 999 permutations")
    sizes = sorted({max(given.problems // 4, 1), max(given.problems // 2, 1), given.problems})
    times = [engine(problems, given.traces) for problems in sizes]
    for problems, seconds in zip(sizes, times, strict=True):
        print(f"  {problems:5d} problems  {seconds:6.2f} s  {1000 * seconds / problems:6.2f} ms a problem")
    held = "held" if times[-1] < LIMITS["engine"] else "EXCEEDED"
    print(f"  limit {LIMITS['engine']:.0f} s: {held}; exponent {exponent(sizes, times):.2f}")
    if not given.engine_only:
        sizes = sizes if given.exponent else [given.problems]
        print(f"analyses, {' / '.join(map(str, sizes))} problems, {given.traces} traces, 3 sources; seconds")
        found = [analyses(problems, given.traces) for problems in sizes]
        for name in found[0]:
            times = [one[name] for one in found]
            slope = f"  exponent {exponent(sizes, times):.2f}" if given.exponent else ""
            print(f"  {name:12s}" + "".join(f"{seconds:8.2f}" for seconds in times) + slope)
        total = found[-1]["all"]
        print(f"  limit {LIMITS['analyses']:.0f} s: {'held' if total < LIMITS['analyses'] else 'EXCEEDED'}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {memory:.2f} GB, limit {LIMITS['memory']:.0f} GB: {'held' if memory < 2 else 'EXCEEDED'}")


if __name__ == "__main__":
    main()
