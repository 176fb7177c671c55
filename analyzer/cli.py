"""The command line: flags -> one call. The only place that prints, exits and turns exceptions into a line.

Data goes to stdout, progress and warnings to stderr. Exit codes: 0 ok, 1 internal, 2 usage, 3 input refused,
4 resource, 5 a --fail-on gate fired, 130 interrupted with state saved. Heavy imports stand inside the commands.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from analyzer.arguments import (
    READING,
    SCORING,
    build_parser,
    ingest_arguments,
    pairs,
    refuse,
    samplers,
    score_arguments,
)
from analyzer.errors import AnalyzerError, GateError, UsageError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that wait by spinning slow scoring thirtyfold when another process wants the cores (docs/decisions.md);
    # OpenMP reads this when torch is first imported, which no module does before a command needs it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's products here are many and small: threads waiting for each other made all analyses 2.5 times slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = build_parser().parse_args(argv)
    arguments.line = ["analyzer", *(sys.argv[1:] if argv is None else argv)]
    try:
        return COMMANDS[arguments.command](arguments)
    except AnalyzerError as error:
        print(f"analyzer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\nanalyzer: interrupted; what was finished is saved. Continue with the same line:\n  "
            + " ".join(arguments.line),
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # the reader of stdout left (| head): not an error of ours, and Python must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _demo(a: argparse.Namespace) -> int:
    from analyzer import pipeline

    out = Path(a.out).resolve()
    command = ["analyzer", "demo", "-o", a.out] if a.out != "reports/demo" else ["analyzer", "demo"]
    # Relative names of the embedded data, wherever it is installed, keep the report the same on every machine.
    with contextlib.chdir(_data_folder()):
        return _whole_way(a, pipeline, out, shown=a.out, command=command, **demo_settings())


def demo_settings() -> dict[str, Any]:
    """The inputs of the demo, relative to the data folder."""
    from analyzer.records import Sampler

    plain, cool = Sampler(), Sampler(0.6, 0.95)
    models = Path("miniature/models")
    return {
        "specs": [
            f"{s}=miniature/dumps/{s}.jsonl.gz" for s in ("base", "base-again", "cool", "rlvr", "distill", "teacher")
        ],
        "ingest": {
            "reference": "base",
            "samplers": {"base": plain, "base-again": plain, "cool": cool, "rlvr": plain, "distill": plain},
        },
        "score": {
            "base": str(models / "base"),
            "at_most": 64,
            "policies": {
                "base-again": str(models / "base"),
                "cool": str(models / "base"),
                "rlvr": str(models / "rlvr"),
                "distill": str(models / "distill"),
            },
        },
        "page": {"folder_mb": 1.0},  # traces to look at, of 24,576: the committed report stays small
    }


def _data_folder() -> Path:
    """data/: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    folder = package / "data" if (package / "data").is_dir() else package.parent / "data"
    if not (folder / "miniature" / "dumps").is_dir():
        raise UsageError(
            f"the miniature's data is not at {folder}; reinstall, or rebuild it: python -m analyzer.lab build"
        )
    return folder


def _whole_way(
    a: argparse.Namespace,
    pipeline: Any,
    out: Path,
    *,
    shown: str,
    command: list[str],
    specs: list[str],
    ingest: dict[str, Any],
    score: dict[str, Any] | None,
    page: dict[str, Any] | None = None,
) -> int:
    """dumps -> run -> report, and the terminal summary."""
    from analyzer.store import Run

    show = Progress()
    run = Run.create(out / "run")
    pipeline.ingest(run, specs, **ingest)
    if score:
        pipeline.score(run, progress=show, **score)
        _print_decisions(run)
    return _write_report(a, pipeline, run, out, shown, command, show, page or {})


def _write_report(
    a: argparse.Namespace,
    pipeline: Any,
    run: Any,
    out: Path,
    shown: str,
    command: list[str],
    show: Progress,
    page: dict[str, Any],
) -> int:
    from analyzer.report.terminal import summary

    done = pipeline.report(run, out, budget=a.budget, seed=a.seed, command=command, progress=show, **page)
    show.close()
    text = Path(done.paths["results.json"]).read_text(encoding="utf-8")
    print(text if a.json else summary(json.loads(text), directory=shown, colour=_colour()))
    gate = getattr(a, "fail_on", None)
    fired = [v.source for v in done.verdicts if v.headline and v.word == gate]
    if fired:
        raise GateError(f"--fail-on {gate}: {', '.join(fired)}")
    return 0


def _print_decisions(run: Any) -> None:
    """How prompts and responses became ids, and by which path they were scored: once per model, on stderr."""
    for label, record in run.manifest["scorers"].items():
        counts = "; ".join(f"{what} ({n:,})" for what, n in record["decisions"].items())
        kind = record.get("dtype_error") or record["dtype"]
        print(f"{label}: path {record['path']} ({record['path_reason']}), {kind}; {counts}", file=sys.stderr)


def _check(a: argparse.Namespace) -> int:
    from analyzer.checks import describe, render
    from analyzer.dumps import read_dumps

    traces, ledger = read_dumps(
        a.dumps,
        field_map=pairs(a.map, "--map") or None,
        threshold=a.threshold,
        samplers=samplers(a.sampler) or None,
        max_bad=0.0 if a.strict else a.max_bad,
    )
    description = describe(traces, ledger)
    print(json.dumps(description, indent=2, default=str) if a.json else render(description))
    return 0


def _score(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.store import Run

    run = Run.create(a.out)
    pipeline.ingest(run, a.dumps, **ingest_arguments(a))
    if a.dry_run:
        plan = pipeline.dry_run(run, **score_arguments(a))
        print(json.dumps(plan) if a.json else "\n".join(f"{k.replace('_', ' ')}: {v}" for k, v in plan.items()))
        return 0
    show = Progress()
    pipeline.score(run, progress=show, **score_arguments(a))
    show.close()
    _print_decisions(run)
    ledger = pipeline.ledger(run)
    done = f"{ledger['traces_scored']} of {ledger['traces']} traces scored in {a.out}"
    text = json.dumps({"run": a.out, "ledger": ledger})
    print(text if a.json else f"{done}; next: analyzer report {a.out} -o DIR")
    return 0


def _convert(a: argparse.Namespace) -> int:
    from analyzer.convert import convert

    ledger = convert(
        a.dumps,
        a.out,
        field_map=pairs(a.map, "--map") or None,
        threshold=a.threshold,
        samplers=samplers(a.sampler) or None,
        max_bad=0.0 if a.strict else a.max_bad,
    )
    done = f"{ledger.traces:,} traces of {ledger.rows_used:,} rows in {a.out}; {ledger.rows_rejected:,} rows rejected"
    print(json.dumps(ledger.as_json()) if a.json else done)
    return 0


def _report(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.store import Run

    out = Path(a.out)
    page = {"style": a.style, "file_mb": a.html_max_mb}
    score = score_arguments(a) if a.base else None
    if not a.base:
        refuse(a, SCORING, "nothing is scored without --base MODEL")
    if len(a.dumps) == 1 and (Path(a.dumps[0]) / "run.json").is_file():
        refuse(
            a,
            READING,
            f"{a.dumps[0]} is a run, its dumps have been read already; use another -o folder to read them anew",
        )
        run, show = Run.open(a.dumps[0]), Progress()
        if score:
            pipeline.score(run, progress=show, **score)
            _print_decisions(run)
        return _write_report(a, pipeline, run, out, a.out, a.line, show, page)
    return _whole_way(
        a, pipeline, out, shown=a.out, command=a.line, specs=a.dumps, ingest=ingest_arguments(a), score=score, page=page
    )


def _analyze(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.report.terminal import tables
    from analyzer.store import Run

    show = Progress()
    results, left_out = pipeline.analyze(Run.open(a.run), a.names or None, budget=a.budget, seed=a.seed, progress=show)
    show.close()
    if a.json:
        print(
            json.dumps(
                {"analyses": {n: r.as_json() for n, r in results.items()}, "left_out": left_out}, allow_nan=False
            )
        )
    else:
        print(tables(results, left_out))
    return 0


def _compare(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.report.terminal import tables
    from analyzer.store import Run

    result = pipeline.compare(Run.open(a.run), a.a, a.b, seed=a.seed)
    print(json.dumps(result.as_json(), allow_nan=False) if a.json else tables({result.name: result}, []))
    return 0


def _show(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.report.terminal import trace
    from analyzer.store import Run

    print(trace(*pipeline.one_trace(Run.open(a.run), a.key, a.model), colour=_colour()))
    return 0


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Progress:
    """Progress on stderr: one line rewritten on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.tty = sys.stderr.isatty()
        self.what, self.since, self.first, self.last = "", 0.0, 0, 0.0

    def __call__(self, what: str, done: int, total: int, tokens: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.since, self.first, self.last = what, now, done, 0.0
        if now - self.last < (0.1 if self.tty else 10) and done != total:
            return
        self.last = now
        speed = tokens / (now - self.since) if now > self.since else 0
        done_here = done - self.first
        left = f", {(total - done) * (now - self.since) / done_here:,.0f} s left" if done_here > 0 and tokens else ""
        line = f"{what}: {done:,}/{total:,}" + (f" traces, {speed:,.0f} tokens/s{left}" if tokens else "")
        print(f"\r\x1b[K{line}" if self.tty else line, end="" if self.tty else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the rewritten line."""
        if self.tty and self.what:
            print(file=sys.stderr)


COMMANDS = {
    "demo": _demo,
    "check": _check,
    "convert": _convert,
    "score": _score,
    "analyze": _analyze,
    "report": _report,
    "show": _show,
    "compare": _compare,
}


if __name__ == "__main__":
    raise SystemExit(main())
