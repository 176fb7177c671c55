"""How fast dumps are read, what a trace costs in memory, and how both grow with the number of rows.

    python benchmarks/bench_dumps.py [--rows 10000 100000] [--characters 1900] [--million]

Made-up JSON lines (eight samples a problem). Times are processor seconds of one core; each size has a process of
its own, whose peak of memory counts. Against it: a bare loop of json.loads, and one of orjson.loads. The exponent is
the slope of log seconds (log bytes of memory) on log rows: 1 is linear. Exits with 1 where reading misses its limit.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from analyzer import dumps
from analyzer.formats import traps

LIMIT = 150.0  # MB/s of reading and normalising
TEXT = 'First we compute \\frac{a}{b} and "then" 12 + 35 = 47 so that the sum of the digits equals seven .\n'
WORDS = TEXT.split(" ")


def make(path: Path, rows: int, characters: int, seed: int = 0) -> None:
    """JSON lines of rows with a response of about so many characters."""
    rng = random.Random(seed)
    with path.open("wb") as out:
        for i in range(rows):
            row = {
                "question": f"What is problem {i // 8} of this set, in words and in numbers?",
                "response": " ".join(rng.choices(WORDS, k=characters // 5)),
                "correct": i % 3 == 0,
                "score": float(i % 3 == 0),
                "finish_reason": "stop",
                "sample": i % 8,
                "gold": "12",
                "model": "org/model",
            }
            out.write(orjson.dumps(row) + b"\n")


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def loop(path: Path, loads: Callable[[bytes], object]) -> None:
    with path.open("rb") as lines:
        for line in lines:
            loads(line)


def measure(path: Path) -> dict[str, float]:
    """One size in this process: processor seconds of each way, peak memory of the reading in bytes."""
    out = {
        "json.loads": seconds(lambda: loop(path, json.loads)),
        "orjson.loads": seconds(lambda: loop(path, orjson.loads)),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    find, traps.find = traps.find, lambda *_: []
    held: list[object] = []
    out["read"] = seconds(lambda: held.append(dumps.read_dumps([str(path)])))
    out["bytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024.0
    traps.find = find
    traces, ledger = held[0]  # type: ignore[misc]
    out["traps"] = seconds(lambda: find(traces, ledger.files, 1.0))
    return out


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value on log size between the first and the last size."""
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--million", action="store_true", help="10^6 rows too: 2 GB on disk, about 6 GB of memory")
    parser.add_argument("--characters", type=int, default=1900)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.measure:
        print(json.dumps(measure(a.measure)))
        return 0
    sizes = a.rows + [1_000_000] * a.million
    print(f"{platform.machine()}, Python {platform.python_version()}; processor seconds of one core")
    found = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            make(path, rows, a.characters)
            size = path.stat().st_size
            done = subprocess.run(
                [sys.executable, __file__, "--measure", str(path)], check=True, capture_output=True, text=True
            )
        m = json.loads(done.stdout)
        found.append(m)
        print(f"{rows:,} rows of {size / rows:,.0f} bytes: {m['bytes'] / rows:,.0f} bytes of memory a trace")
        for name in ("json.loads", "orjson.loads", "read", "traps"):
            print(f"  {name:12} {size / m[name] / 1e6:7.0f} MB/s {m[name] / rows * 1e6:7.1f} us a row")
        reached = size / m["read"] / 1e6
    if len(sizes) > 1:
        for name in ("read", "traps", "bytes"):
            print(f"exponent of {name}: {exponent(sizes, [m[name] for m in found]):.2f}")
    print(f"reading {reached:.0f} MB/s, limit {LIMIT:.0f}: {'kept' if reached >= LIMIT else 'MISSED'}")
    return int(reached < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
