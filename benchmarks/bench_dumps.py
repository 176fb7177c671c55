"""Everything that is not the model: reading dumps, ingest, per-trace summaries, analyses and the report.

    python benchmarks/bench_dumps.py [--rows 10000 100000] [--characters 1900] [--tokens 500] [--only reading|way]
                                     [--report]

Made-up JSON lines. Times are processor seconds of one core; every step has a process of its own, whose growth beyond
its imports is its memory. Reading is held against a bare loop of json.loads and one of orjson.loads. The way: two
sources, 64 samples a problem, token columns drawn at random in place of a model's; ingest, per-trace summaries,
analyses of the token level; --report adds the report with every analysis in it. The exponent is the slope of log
seconds on log rows: 1 is linear; numbers at 10^6 rows are extrapolated with it (with 1 where it is below) where that
size was not run, those of the report never (it reads at most 100 MB of text). Exits with 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # both as the command line does
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
import orjson

READING = 150.0  # MB/s of reading and normalising
BYTES = 1000.0  # of memory a trace
SECONDS, MEMORY, MILLION = 600.0, 4.0, 1_000_000  # of the whole way, on two cores; GB
TEXT = 'First we compute \\frac{a}{b} and "then" 12 + 35 = 47 so that the sum of the digits equals seven .\n'
WORDS = TEXT.split(" ")
SOURCES = ("base", "rlvr")
TOKEN_LEVEL = ("perplexity", "support", "tokens", "boundary")  # analyses that read tokens, their summaries and labels


def make(path: Path, rows: int, characters: int, samples: int = 8, seed: int = 0) -> None:
    """JSON lines of rows with a response of about so many characters."""
    rng = random.Random(seed)
    with path.open("wb") as out:
        for i in range(rows):
            row = {
                "question": f"What is problem {i // samples} of this set, in words and in numbers?",
                "response": " ".join(rng.choices(WORDS, k=characters // 5)),
                "correct": rng.random() < 0.3,
                "score": 1.0,
                "finish_reason": "stop",
                "sample": i % samples,
                "gold": "12",
                "model": "org/model",
            }
            out.write(orjson.dumps(row) + b"\n")


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak() -> float:
    """Bytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def loop(path: Path, loads: Callable[[bytes], object]) -> None:
    with path.open("rb") as lines:
        for line in lines:
            loads(line)


def reading(folder: Path) -> dict[str, float]:
    """Processor seconds of each way of reading."""
    from analyzer.dumps import read as dumps

    path = folder / "rows.jsonl"

    def drain(traces: Any) -> None:
        for _ in traces:
            pass

    spec = [str(path)]
    return {
        "json.loads": seconds(lambda: loop(path, json.loads)),
        "orjson.loads": seconds(lambda: loop(path, orjson.loads)),
        "read": seconds(lambda: drain(dumps.stream(spec, dumps.Ledger()))),
        "read, traps": seconds(lambda: drain(dumps.batches(spec, dumps.Ledger()))),
    }


def ingest(folder: Path) -> None:
    from analyzer.api import pipeline
    from analyzer.records import Sampler
    from analyzer.runs.store import Run

    pipeline.ingest(
        Run.create(folder / "run"),
        [f"{source}={folder / source}.jsonl" for source in SOURCES],
        sampler=dict.fromkeys(SOURCES, Sampler()),
    )


def score(folder: Path, tokens: int) -> None:
    """Token columns that no model wrote: the shapes and sizes of real ones, half of them with a repeated part."""
    from analyzer.records import Scored
    from analyzer.runs.rows import BATCH
    from analyzer.runs.store import Run

    run, rng, pool = Run.open(folder / "run"), np.random.default_rng(0), 1 << 22
    surprisal = rng.exponential(0.3, pool).astype(np.float32)
    columns = {
        "token": rng.zipf(1.3, pool).clip(0, 50_000).astype(np.int32),
        "logprob": -surprisal,
        "rank": rng.geometric(0.8, pool).astype(np.int32),
        "mass_above": rng.random(pool, np.float32),
        "entropy": rng.exponential(0.3, pool).astype(np.float32),
        "varentropy": rng.exponential(0.5, pool).astype(np.float32),
        "renyi_half": rng.exponential(0.4, pool).astype(np.float32),
        "offset": np.arange(pool, dtype=np.int32),
    }
    ids = (1, 2, 3)

    def scored(t: Any, label: str) -> Scored:
        seed = zlib.crc32(t.key.encode())  # both models see the same tokens
        n = int(tokens * (0.5 + (seed & 0xFFFF) / 0x10000))
        at = seed % (pool - 2 * n)
        own = {name: values[at : at + n] for name, values in columns.items()}
        if label != "base":
            own["logprob"] = columns["logprob"][at + n : at + 2 * n]
        own["offset"] = np.arange(n, dtype=np.int32) * (len(t.response) // n)
        if seed & 0x10000:
            own["token"] = own["token"].copy()
            own["token"][-n // 8 :] = own["token"][: len(own["token"][-n // 8 :])]
        return Scored(t.key, own, rng.standard_normal(64).astype(np.float16))

    plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    for label, sources in (("base", SOURCES), ("policy-rlvr", ("rlvr",))):
        batch: list[Any] = []
        for t in run.traces():
            if t.source in sources:
                batch.append((t, ids, scored(t, label)))
            if len(batch) == BATCH:
                run.append_scores(label, batch)
                batch = []
        run.append_scores(label, batch)
        run.manifest["scorers"][label] = {"sampler": plain, "dtype": "float32", "device": "none", "model": label}
    run.manifest["policies"] = {"base": "base", "rlvr": "policy-rlvr"}
    run.save()


def summaries(folder: Path) -> None:
    from analyzer.analysis.data import tables
    from analyzer.runs.store import Run

    tables.build(Run.open(folder / "run"))


def analyses(folder: Path) -> dict[str, float]:
    """Processor seconds of the tables, of each analysis of the token level, of the ledger and the counts."""
    from analyzer.analysis.data import tables
    from analyzer.analysis.questions import ANALYSES
    from analyzer.api import pipeline
    from analyzer.runs.store import Run

    run, made, spent = Run.open(folder / "run"), [], {}
    spent["tables"] = seconds(lambda: made.append(tables.build(run)))
    for name in TOKEN_LEVEL:
        spent[name] = seconds(lambda name=name: ANALYSES[name].run(made[0], budget=64, seed=0))
    spent["ledger"] = seconds(lambda: (pipeline.ledger(run), pipeline.sources(run)))
    return spent


def report(folder: Path) -> dict[str, float]:
    """Processor seconds by part of the report: tables, each analysis, the page."""
    from analyzer.api import pipeline
    from analyzer.runs.store import Run

    spent, last = {}, ["", 0.0]

    def progress(what: str, *_: Any) -> None:
        now = time.process_time()
        if what != last[0]:
            spent[last[0]] = spent.get(last[0], 0.0) + now - last[1]
            last[:] = what, now

    last[:] = "tables", time.process_time()
    pipeline.report(Run.open(folder / "run"), folder / "report", progress=progress)
    progress("")
    return spent


def step(name: str, folder: Path, **options: Any) -> dict[str, Any]:
    """One step in a process of its own: what it returns, processor and wall seconds, growth of memory in bytes."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    command += [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_step(a: argparse.Namespace) -> dict[str, Any]:
    from analyzer.analysis.data import tables  # noqa: F401  # what every step needs is no growth

    before, start, wall = peak(), time.process_time(), time.monotonic()
    work = {"reading": reading, "ingest": ingest, "summaries": summaries, "analyses": analyses, "report": report}
    found = score(a.folder, a.tokens) if a.step == "score" else work[a.step](a.folder)
    times = {"cpu": time.process_time() - start, "wall": time.monotonic() - wall}
    return {"found": found, "bytes": peak() - before, "peak": peak(), **times}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value on log size between the last two sizes."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def at_a_million(sizes: list[int], values: list[float]) -> float:
    if sizes[-1] >= MILLION or len(sizes) < 2:
        return values[-1] * MILLION / sizes[-1]
    return values[-1] * (MILLION / sizes[-1]) ** max(1.0, exponent(sizes, values))


def bench_reading(sizes: list[int], characters: int) -> bool:
    found = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            make(path, rows, characters)
            size = path.stat().st_size
            found.append(step("reading", Path(folder))["found"])
        print(f"{rows:,} rows of {size / rows:,.0f} bytes", flush=True)
        for name, spent in found[-1].items():
            print(f"  {name:12} {size / spent / 1e6:7.0f} MB/s {spent / rows * 1e6:7.1f} us a row", flush=True)
    if len(sizes) > 1:
        print("exponents: " + ", ".join(f"{n} {exponent(sizes, [f[n] for f in found]):.2f}" for n in found[0]))
    reached = size / found[-1]["read"] / 1e6
    print(f"reading {reached:.0f} MB/s, limit {READING:.0f}: {'kept' if reached >= READING else 'MISSED'}")
    return reached >= READING


def bench_way(sizes: list[int], characters: int, tokens: int, *last: str) -> bool:
    names = ("ingest", "summaries", "analyses", *last)
    found: list[dict[str, dict[str, Any]]] = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
            folder = Path(name)
            for seed, source in enumerate(SOURCES):
                make(folder / f"{source}.jsonl", rows // 2, characters, 64, seed)
            steps = {"ingest": step("ingest", folder)}
            step("score", folder, tokens=tokens)
            steps |= {n: step(n, folder) for n in names[1:]}
            parts = sum(p.stat().st_size for p in (folder / "run/scores").glob("*/part-*"))
        found.append(steps)
        print(f"{rows:,} traces of {tokens} tokens; {parts / (1.5 * rows * tokens):.1f} bytes a scored token on disk")
        for n, s in steps.items():
            memory = f"{s['bytes'] / rows:7,.0f} bytes of memory a trace, {s['peak'] / 1e9:.2f} GB at most"
            print(f"  {n:10} {s['cpu']:8.1f} s of processor, {s['wall']:8.1f} s of wall clock, {memory}")
        for part, spent in sorted(steps[names[-1]]["found"].items(), key=lambda x: -x[1]):
            print(f"    {part:22} {spent:8.1f} s", flush=True)
    if len(sizes) > 1:
        for n in names:
            print(f"exponent of {n}: {exponent(sizes, [s[n]['cpu'] for s in found]):.2f}")
    measured = sizes[-1] >= MILLION
    whole = names[-1] if measured else "analyses"  # the report reads a limited amount of text: its cost has no slope
    counted, clock = names[: names.index(whole) + 1], "wall" if measured else "cpu"
    spent = at_a_million(sizes, [s["ingest"][clock] + s[whole][clock] for s in found])
    growth = [(found[-1][n]["bytes"] - found[0][n]["bytes"]) / max(1, sizes[-1] - sizes[0]) for n in counted]
    most = [found[-1][n]["peak"] + g * max(0, MILLION - sizes[-1]) for n, g in zip(counted, growth, strict=True)]
    most = max(most) / 1e9
    each = (found[-1]["ingest"]["bytes"] - found[0]["ingest"]["bytes"]) / max(1, sizes[-1] - sizes[0])
    each = each or found[-1]["ingest"]["bytes"] / sizes[-1]
    how, of = ("measured", "wall clock") if measured else ("extrapolated", "processor")
    print(
        f"10^6 traces to {whole}, {how}: {spent:,.0f} s of {of} (limit {SECONDS:.0f} s of wall clock on 2 cores), ",
        end="",
    )
    print(f"{most:.1f} GB (limit {MEMORY:.0f}); ingest keeps {each:,.0f} bytes a trace (limit {BYTES:,.0f})")
    return spent <= SECONDS and most <= MEMORY and each <= BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--characters", type=int, default=1900)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--only", choices=["reading", "way"])
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.step:
        print(json.dumps(one_step(a)))
        return 0
    print(f"{platform.machine()}, Python {platform.python_version()}; processor seconds of one core")
    kept = a.only == "way" or bench_reading(a.rows, a.characters)
    kept &= a.only == "reading" or bench_way(a.rows, a.characters, a.tokens, *["report"] * a.report)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
