"""The command line: flags -> one call. The only place that prints, exits and turns exceptions into a line.

Data goes to stdout, progress and warnings to stderr. Exit codes: 0 ok, 1 internal, 2 usage, 3 input refused,
4 resource, 5 a --fail-on gate fired, 130 interrupted with state saved, 143 the same by SIGTERM. Heavy imports stand
inside the commands.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import analyzer
from analyzer.cli.commands import build_parser
from analyzer.cli.flags import given
from analyzer.cli.plan import planned
from analyzer.cli.progress import Progress, counted_warnings, put, say
from analyzer.errors import AnalyzerError, GateError, UsageError
from analyzer.records import values
from analyzer.records.display import counted, one_line
from analyzer.records.options import given_flags
from analyzer.records.steps import STEPS, taken

# which of several exit codes is reported: a gate that fired is an answer, an internal error is the worst of all
SEVERITY = (0, 5, 2, 3, 4, 1)
CONTINUED = ("demo", "sample", "handover", "score", "report")  # commands that save as they go


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that wait by spinning slow scoring thirtyfold when another process wants the cores (docs/decisions.md);
    # OpenMP reads this when torch is first imported, which no module does before a command needs it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's products here are many and small: threads waiting for each other made all analyses 2.5 times slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if argv is None:  # a fault of the program, whose last words may quote a dump
        sys.excepthook = lambda *error: say(*"".join(traceback.format_exception(*error)).splitlines())
    arguments = build_parser().parse_args(argv)
    arguments.line = ["analyzer", *(sys.argv[1:] if argv is None else argv)]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8, or half a character in a dump, stops nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        with _terminable(), counted_warnings():
            return COMMANDS[arguments.command](arguments)
    except AnalyzerError as error:
        return _refused(error)
    except KeyboardInterrupt as error:
        saved = arguments.command in CONTINUED and not getattr(arguments, "dry_run", False)
        said = "analyzer: interrupted"
        again = ("; what was finished is saved. Continue with the same line:", f"  {shlex.join(arguments.line)}")
        say("", *((said + again[0], again[1]) if saved else (said,)))
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        # the reader of stdout left (| head): not an error of ours, and Python must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, OSError, RuntimeError) as error:
        from analyzer.api.making import refusal

        known = refusal(error)
        if known is None:
            raise
        return _refused(known)


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which batch systems and containers end a command."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM inside ends a command as Ctrl-C does, so that the work in hand is saved; `timeout` and others send it
    twice, and the second must not cut the saving short. Only the main thread may set this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*about: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _refused(error: AnalyzerError) -> int:
    say(f"analyzer: {error}")
    return error.exit_code


def _demo(a: argparse.Namespace) -> int:
    from analyzer.cli.demo import DUMPS, OPTIONS

    out = Path(a.out).resolve()
    command = ["analyzer", "demo", "-o", a.out] if a.out != "reports/demo" else ["analyzer", "demo"]
    # Relative names of the embedded data, wherever it is installed, keep the report the same on every machine.
    with contextlib.chdir(analyzer.miniature().parent), Progress() as show:
        done = analyzer.report(DUMPS, out, command=command, **show.callbacks(), **OPTIONS, **given(a, "demo"))
    return _finished(a, done, a.out)


def _finished(a: argparse.Namespace, done: Any, shown: str) -> int:
    """Print what a report found; raises GateError when --fail-on asks for it."""
    from analyzer.pages.terminal import left_out, summary

    text = Path(done.paths["results.json"]).read_text(encoding="utf-8")
    put(text if a.json else summary(json.loads(text), directory=shown, colour=_colour()), colour=_colour())
    for line in left_out(done.left_out):
        say(line)
    word = getattr(a, "fail_on", None)
    if fired := [v.source for v in done.verdicts if v.headline and v.word == word]:
        raise GateError(f"--fail-on {word}: {', '.join(fired)}")
    return 0


def _check(a: argparse.Namespace) -> int:
    from analyzer.dumps.benchmarks import benchmarks
    from analyzer.dumps.check import describe, render, render_studies, summarise

    found = benchmarks(a.dumps)
    if not found:
        with Progress() as show:
            description = describe(*_surveyed(a, a.dumps, show))
        put(json.dumps(description, indent=2, default=str) if a.json else render(description))
        return 0
    described: dict[str, Any] = {}
    codes = []
    with Progress() as show:
        for number, (name, specs) in enumerate(found.items(), 1):
            show.within = f"{name} ({number} of {len(found)}), "
            try:
                described[name] = (describe if a.json else summarise)(*_surveyed(a, specs, show))
            except AnalyzerError as error:  # one broken study must not cost the others
                described[name] = {"error": str(error)}
                codes.append(error.exit_code)
    put(json.dumps({"studies": described}, indent=2, default=str) if a.json else render_studies(described, found))
    return worst(codes)


def _surveyed(a: argparse.Namespace, specs: list[str], show: Progress) -> tuple[Any, Any]:
    """(survey, ledger) of one study."""
    from analyzer.dumps.read import Ledger, batches
    from analyzer.dumps.survey import Survey

    ledger, survey, read = Ledger(), Survey(), 0
    traces = batches(specs, ledger, survey, *taken("check", given(a, "check")))
    show("reading traces", 0, 0, 0)
    for batch in traces:
        show("reading traces", (read := read + len(batch)), 0, 0)
    return survey, ledger


def _score(a: argparse.Namespace) -> int:
    from analyzer.api import inputs, pipeline

    options = given(a, "score")
    shard = taken("score", options)[1].shard
    inputs.refuse_other_folders(a.dumps, runs=False)
    folder = a.out if shard is None else str(Path(a.out) / "shard-{}-of-{}".format(*shard))
    if a.dry_run:
        return planned(a, {folder: (a.dumps, folder, options)})
    with Progress() as show:
        run = analyzer.score(a.dumps, path=folder, **show.callbacks(), **options)
    ledger = pipeline.ledger(run)
    share = "" if shard is None else f", the share {shard[0]}/{shard[1]}"
    done = f"{ledger['traces_scored']:,} of {counted(ledger['traces'], 'trace')} scored in {folder}{share}"
    after = f"analyzer report {folder} -o DIR" if shard is None else f"analyzer merge {a.out}/shard-* -o RUN"
    put(json.dumps({"run": folder, "ledger": ledger}) if a.json else one_line(f"{done}; next: {after}"))
    return 0


def _merge(a: argparse.Namespace) -> int:
    from analyzer.api import pipeline
    from analyzer.runs import handover, review
    from analyzer.runs.merge import merge

    run, missing = merge(a.runs, a.out)
    own = ([*handover.files(shard), shard / review.FILE] for shard in map(Path, a.runs))
    behind = [str(path) for paths in own for path in paths if path.exists()]
    ledger = pipeline.ledger(run)
    for what in missing:
        say(f"missing: {what}; score it, then merge again")
    for path in behind:
        say(f"left behind: {path}, of traces that the shard chose for itself; do it again in {a.out}")
    done = f"{ledger['traces_scored']:,} of {counted(ledger['traces'], 'trace')} scored in {a.out}"
    text = json.dumps({"run": a.out, "ledger": ledger, "missing": missing, "left_behind": behind})
    put(text if a.json else one_line(f"{done}; next: analyzer report {a.out} -o DIR"))
    return 0


def _convert(a: argparse.Namespace) -> int:
    from analyzer.dumps.convert import convert

    with Progress() as show:
        ledger = convert(a.dumps, a.out, progress=show, **given(a, "convert"))
    _account(ledger)
    done = f"{counted(ledger.traces, 'trace')} from {ledger.rows_used:,} of {counted(ledger.rows, 'row')} in {a.out}"
    put(json.dumps(ledger.as_json()) if a.json else one_line(done))
    return 0


def _account(ledger: Any) -> None:
    """What of the input was not used, and what is to be known about it, on stderr."""
    from analyzer.api.making import unused

    if said := unused(ledger.by_reason, ledger.rows):
        say(said)
    for note in ledger.notes:
        say(f"input: {note}")


def _sample(a: argparse.Namespace) -> int:
    with Progress() as show:
        done = analyzer.sample(a.dumps, a.out, account=_account, **show.callbacks(), **given(a, "sample"))
    there = f", {done['continued']:,} of them were there" if done["continued"] else ""
    text = f"{counted(done['samples'], 'response')} to {counted(done['problems'], 'problem')}{there} in {a.out}"
    if "template_date" in done:
        text += f"; chat templates wrote the day {done['template_date']} (--template-date)"
    put(json.dumps(done | {"out": a.out}) if a.json else one_line(f"{text}; next: analyzer check {a.out}"))
    return 0


def _handover(a: argparse.Namespace) -> int:
    with Progress() as show:
        done = analyzer.handover(a.run, *a.sources, **show.callbacks(), **given(a, "handover"))
    traces = ", ".join(f"{n:,} of {source}" for source, n in done["sources"].items())
    there = f" ({done['continued']:,} prefixes were there)" if done["continued"] else ""
    text = f"{counted(done['drawn'], 'continuation')} from {done['prefixes']:,} prefixes{there}; traces: {traces}"
    put(json.dumps(done) if a.json else one_line(f"{text}; next: analyzer report {a.run} -o DIR"))
    return 0


def _sample_for_review(a: argparse.Namespace) -> int:
    if a.read:
        done = analyzer.read_review(a.run, a.sheet)
        text = f"{counted(done['answers'], 'answer')} ({done['valid']:,} valid, {done['new']:,} new)"
        text += f", {done['open']:,} rows without one" if done["open"] else ""
        text += f"; next: analyzer report {a.run} -o DIR"
    else:
        done = analyzer.sample_for_review(a.run, a.sheet, *a.sources, **given(a, "sample-for-review"))
        traces = ", ".join(f"{n:,} of {source}" for source, n in done["sources"].items())
        text = f"{traces} in {a.sheet}: fill in the column valid (true or false; empty: can't tell), then: "
        text += f"analyzer sample-for-review {a.run} {a.sheet} --read"
    put(json.dumps(done) if a.json else one_line(text))
    return 0


def _report(a: argparse.Namespace) -> int:
    from analyzer.api import inputs

    options = given(a, "report")
    if a.again:
        return _again(a, options)
    if not a.dumps or not a.out:
        raise UsageError(f"report needs {'-o DIR' if a.dumps else 'RUN or DUMP...'}; see analyzer report --help")
    taken("report", options)
    found = inputs.studies(a.dumps)
    if a.dry_run:
        asked = found or {"": {"dumps": a.dumps}}
        if not any((own | options).get("base") for own in asked.values()):
            raise UsageError("--dry-run: nothing is scored without --base MODEL")
        return planned(
            a, {n: (own.pop("dumps"), str(Path(a.out) / n / "run"), own | options) for n, own in asked.items()}
        )
    if found:
        return _studies(a, options)
    with Progress() as show:
        done = analyzer.report(a.dumps, a.out, command=a.line, **show.callbacks(), **options)
    return _finished(a, done, a.out)


def _again(a: argparse.Namespace, options: dict[str, Any]) -> int:
    if a.dumps or "base" in options or a.dry_run:
        raise UsageError("--again takes dumps, models and settings from the run: give only -o, --json and --fail-on")
    if options:
        raise UsageError(f"{given_flags(options, *STEPS['report'])}: --again takes this from the run")
    with Progress() as show:
        done = analyzer.reproduce(a.again, a.out, command=a.line, **show.callbacks())
    return _finished(a, done, str(Path(done.paths["results.json"]).parent))


def _studies(a: argparse.Namespace, options: dict[str, Any]) -> int:
    from analyzer.pages import index

    with Progress() as show:
        content = analyzer.studies(a.dumps, a.out, command=a.line, begins=show.study, **show.callbacks(), **options)
    fired = [
        f"{study['study']} ({v['source']})"
        for study in content["studies"]
        for v in study["verdicts"]
        if v["verdict"] == a.fail_on
    ]
    if fired:
        say(f"analyzer: --fail-on {a.fail_on}: {', '.join(fired)}")
    put(json.dumps(content) if a.json else index.text(content, directory=a.out))
    return worst([s["exit_code"] for s in content["studies"]] + [GateError.exit_code] * bool(fired))


def worst(codes: Sequence[int]) -> int:
    """The exit code of many studies: that of the one which went worst."""
    return max(codes, key=SEVERITY.index, default=0)


def _analyze(a: argparse.Namespace) -> int:
    from analyzer.api import inputs, pipeline
    from analyzer.pages.terminal import tables

    options = given(a, "analyze")
    taken("analyze", options)
    run = inputs.opened(a.run)
    with Progress() as show:
        results, left_out = pipeline.analyze(run, a.names or None, progress=show, **options)
    if a.json:
        found = {name: result.as_json() for name, result in results.items()}
        put(json.dumps({"analyses": found, "left_out": left_out}, allow_nan=False))
    else:
        put(tables(results, left_out))
    return 0


def _compare(a: argparse.Namespace) -> int:
    from analyzer.api import inputs, pipeline
    from analyzer.pages.terminal import tables

    result = pipeline.compare(inputs.opened(a.run), a.a, a.b, **given(a, "compare"))
    put(json.dumps(result.as_json(), allow_nan=False) if a.json else tables({result.name: result}, []))
    return 0


def _agree(a: argparse.Namespace) -> int:
    size = (
        None if a.fail_on is None else values.number(lambda x: x >= 0, "is not a size in nats")("--fail-on", a.fail_on)
    )
    found = analyzer.agree(a.a, a.b, **given(a, "agree"))
    put(json.dumps(found.as_json()) if a.json else str(found))
    if size is not None and found.beyond(size):
        raise GateError(f"--fail-on {size:g}: mean difference {found.mean:.3g} nats, {found.impossible} impossible")
    return 0


def _show(a: argparse.Namespace) -> int:
    from analyzer.api import inputs, pipeline
    from analyzer.pages.terminal import trace, trace_json

    item, row = pipeline.one_trace(inputs.opened(a.run), a.key, a.model)
    text = json.dumps(trace_json(item, row, model=a.model)) if a.json else trace(item, row, colour=_colour())
    put(text, colour=_colour())
    return 0


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


COMMANDS = {
    "demo": _demo,
    "check": _check,
    "convert": _convert,
    "sample": _sample,
    "score": _score,
    "merge": _merge,
    "analyze": _analyze,
    "report": _report,
    "show": _show,
    "compare": _compare,
    "agree": _agree,
    "handover": _handover,
    "sample-for-review": _sample_for_review,
}


if __name__ == "__main__":
    raise SystemExit(main())
