"""python -m analyzer.validate [--fast] [--seed S] [--gates V1,V4] [--out docs] [--workers 2] [--run RUN]"""

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

MINIATURE = Path("miniature")


def main(arguments: list[str] | None = None) -> int:
    """Run the gates, print one line each, write the page; 0 when all passed and every mutant was caught, else 1."""
    from analyzer.errors import AnalyzerError

    parser = argparse.ArgumentParser("python -m analyzer.validate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--fast", action="store_true", help="few runs and wide bands; the miniature is left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gates", help="only these, by commas: V0 ... V12")
    parser.add_argument("--out", help="write validation.md, figures and tables into this folder")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--run", help="a scored run of the miniature's dumps for V11 (default: scored anew, minutes)")
    try:
        return _suite(parser.parse_args(arguments))
    except AnalyzerError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _suite(a: argparse.Namespace) -> int:
    from analyzer.validate import checks, miniature, pages, suite

    tasks = suite.chosen(a.gates.split(",") if a.gates else None, fast=a.fast)
    since, missing, found = time.perf_counter(), [], {}
    with tempfile.TemporaryDirectory() as temporary:
        run, folder = None, _miniature()
        if "miniature" in tasks and folder is None:
            missing.append("V11: the miniature's data is not beside the package")
            del tasks["miniature"]
        elif "miniature" in tasks:
            run = Path(a.run) if a.run else miniature.scored(folder, Path(temporary) / "run")
        for name, gate, seconds in suite.run_all(
            list(tasks), a.seed, fast=a.fast, workers=max(1, a.workers), run=run, folder=folder
        ):
            found[name] = gate
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
        meta = {"seed": a.seed, "seconds": seconds, "suite": "fast" if a.fast else "full", "workers": a.workers}
        meta["command"] = f"python -m analyzer.validate{' --fast' if a.fast else ''} --seed {a.seed}"
        meta["command"] += f" --gates {a.gates}" if a.gates else ""
        python = ".".join(map(str, sys.version_info[:3]))
        if a.run and "miniature" in tasks:
            missing.append("scoring the miniature for V11 (minutes); a scored run was given")
        meta |= {"versions": {"python": python} | {n: version(n) for n in libraries}, "missing": missing}
        pages.write(gates, Path(a.out), meta=meta)
    return 0 if good else 1


def _miniature() -> Path | None:
    """data/miniature inside an installed package or beside it in a checkout; None where it is not."""
    package = Path(__file__).resolve().parent.parent
    for data in (package / "data", package.parent / "data"):
        if (data / MINIATURE / "dumps").is_dir():
            return data / MINIATURE
    return None


if __name__ == "__main__":
    raise SystemExit(main())
