"""python -m validation [--fast] [--seed S] [--gates V1,V4] [--out docs] [--workers 2] [--runs DIR]"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # one thread per worker: the suite runs on as many processes as it is given


def main(arguments: list[str] | None = None) -> int:
    """Run the gates, print one line each, write the page; 0 when all passed and every mutant was caught, else 1."""
    from analyzer.errors import AnalyzerError

    parser = argparse.ArgumentParser("python -m validation", description=__doc__, allow_abbrev=False)
    parser.add_argument("--fast", action="store_true", help="few runs and wide bands; V11 is left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--gates", help="only these, by commas: V0 ... V15 (V15, large studies, half an hour, only where it is named)"
    )
    parser.add_argument("--out", help="write validation.md, figures and tables into this folder")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--runs", help="folder that keeps the scored runs of V11 (default: scored again, minutes)")
    try:
        return _suite(parser.parse_args(arguments))
    except AnalyzerError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _suite(a: argparse.Namespace) -> int:
    from validation import checks, miniature, oracles, pages, suite

    tasks = suite.chosen(a.gates.split(",") if a.gates else None, fast=a.fast)
    since, missing, found, spent, data = time.perf_counter(), [], {}, {}, _data()
    for name in [n for n, task in tasks.items() if task.world and not (data / task.world / "dumps").is_dir()]:
        missing.append(f"V11, {name}: its data is not beside the package")
        del tasks[name]
    if "oracles" in tasks:
        missing += [f"V12, {name}: not installed (extra `oracles`)" for name in oracles.missing()]
    with tempfile.TemporaryDirectory() as temporary:
        runs = Path(a.runs or temporary)
        for world in dict.fromkeys(task.world for task in tasks.values() if task.world):
            before = os.times()
            miniature.scored(data / world, runs / world)
            spent[f"scoring {world}"] = sum(os.times()[2:4]) - sum(before[2:4])  # of child processes
        more = {"fast": a.fast, "workers": max(1, a.workers), "runs": runs, "data": data}
        for name, gate, seconds in suite.run_all(list(tasks), a.seed, **more):
            found[name], spent[name] = gate, seconds
            sys.stderr.write(f"{name}: {seconds:.0f} s\n")
    gates = [found[name] for name in tasks]
    for name, gate in zip(tasks, gates, strict=True):
        if not gate.checks:
            missing.append(f"{name}: the analysis that it tests is not there")
    for c in pages.rows(gates):
        mutant = "" if c.mutant is None else f"; mutant {c.mutant.what}: {c.mutant.measured:.4g}"
        mutant += "" if c.mutant is None or c.mutant.caught else " ESCAPED"
        word = "pass" if c.passed else "FAIL"
        sys.stdout.write(f"{word} {c.name} {c.what}: {c.measured:.4g} in [{c.low:.4g}, {c.high:.4g}]{mutant}\n")
    good = checks.passed(gates)
    seconds = time.perf_counter() - since
    sys.stdout.write(
        f"{'all passed' if good else 'FAILED'}: {sum(len(g.checks) for g in gates)} checks, {seconds:.0f} s\n"
    )
    if a.out:
        libraries = ("numpy", "scipy", "pandas", "scikit-learn")
        meta = {"seed": a.seed, "suite": "fast" if a.fast else "full", "spent": spent}
        meta["command"] = f"python -m validation{' --fast' if a.fast else ''} --seed {a.seed}"
        meta["command"] += f" --gates {a.gates}" if a.gates else ""
        python = ".".join(map(str, sys.version_info[:3]))
        meta |= {"versions": {"python": python} | {n: version(n) for n in libraries}, "missing": missing}
        pages.write(gates, Path(a.out), meta=meta)
    return 0 if good else 1


def _data() -> Path:
    """The folder of the worlds, in the checkout that this is run from."""
    return Path(__file__).resolve().parents[1] / "data"


if __name__ == "__main__":
    raise SystemExit(main())
