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
from typing import Any, NoReturn

from analyzer import __version__
from analyzer.errors import AnalyzerError, GateError, UsageError, nearest

EXAMPLES = """examples:
  analyzer demo
  analyzer check base=base.jsonl rlvr=rlvr.jsonl
  analyzer report base=base.jsonl rlvr=rlvr.jsonl --base MODEL --policy rlvr=RL_MODEL --template none -o reports/mine
"""


class Parser(argparse.ArgumentParser):
    """argparse, but an unknown flag or command is answered with the nearest one."""

    def error(self, message: str) -> NoReturn:
        commands = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split()[0].split("=")[0]
            # argparse reports a command's unknown flags from the parser above it
            parsers = [self, *(p for c in commands for p in c.choices.values())]
            message = f"{word} is not known here{nearest(word, {f for p in parsers for a in p._actions for f in a.option_strings})}"
        elif commands and "invalid choice: " in message:
            word = message.split("invalid choice: ", 1)[1].split("'")[1]
            message = f"{word!r} is not a command{nearest(word, commands[0].choices)}"
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Every flag is a keyword of one function of `pipeline`."""
    parser = Parser(prog="analyzer", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
                    description="Does training put probability where the base model had practically none, or only sharpen it?")
    parser.add_argument("--version", action="version", version=f"analyzer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    demo = commands.add_parser("demo", help="the miniature world, end to end: no network, no GPU", allow_abbrev=False)
    demo.add_argument("-o", "--out", default="reports/demo", metavar="DIR", help="where the report goes (default %(default)s)")
    _add_analysis_flags(demo)
    demo.set_defaults(call=_demo)

    check = commands.add_parser("check", help="parse, map, count, find traps; no model", allow_abbrev=False)
    _add_dump_flags(check)
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(call=_check)

    score = commands.add_parser("score", help="score dumps under a base model; the same line again continues", allow_abbrev=False)
    _add_dump_flags(score)
    _add_score_flags(score, base_required=True)
    score.add_argument("-o", "--out", required=True, metavar="RUN", help="run folder")
    score.add_argument("--dry-run", action="store_true", help="count tokens, memory and disk; score nothing")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    score.set_defaults(call=_score)

    analyze = commands.add_parser("analyze", help="run analyses on a run and print their headline numbers", allow_abbrev=False)
    analyze.add_argument("run", metavar="RUN")
    analyze.add_argument("names", nargs="*", metavar="NAME", help="perplexity, support, boundary, clusters, tokens (default: all)")
    _add_analysis_flags(analyze)
    analyze.set_defaults(call=_analyze)

    report = commands.add_parser("report", help="everything that is still missing, then the report", allow_abbrev=False)
    _add_dump_flags(report, what="RUN|DUMP")
    _add_score_flags(report, base_required=False)
    report.add_argument("-o", "--out", required=True, metavar="DIR", help="report folder; a run made from dumps is kept in DIR/run")
    report.add_argument("--fail-on", choices=["outside", "sharpened", "undetermined"], help="exit 5 when a headline verdict is this word")
    _add_analysis_flags(report)
    report.set_defaults(call=_report)

    show = commands.add_parser("show", help="one trace in the terminal, tokens coloured by surprisal", allow_abbrev=False)
    show.add_argument("run", metavar="RUN")
    show.add_argument("key", metavar="KEY", help="source/problem/sample[@step]")
    show.add_argument("--model", default="base", metavar="LABEL", help="scorer label (default %(default)s)")
    show.set_defaults(call=_show)

    compare = commands.add_parser("compare", help="two sources, paired by problem", allow_abbrev=False)
    compare.add_argument("run", metavar="RUN")
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(call=_compare)
    return parser


def _add_dump_flags(parser: argparse.ArgumentParser, what: str = "DUMP") -> None:
    parser.add_argument("dumps", nargs="+", metavar=what, help="path, glob, folder, - (stdin), or LABEL=PATH where the label names the source")
    parser.add_argument("--map", action="append", default=[], metavar="FIELD=PATH", help="where a field is in a row: response=output.text")
    parser.add_argument("--threshold", type=float, default=1.0, help="a score at least this high is correct (default %(default)s)")
    parser.add_argument("--sampler", action="append", default=[], metavar="LABEL=T[,top_p[,top_k[,min_p]]]", help="how a source was sampled")
    bad = parser.add_mutually_exclusive_group()
    bad.add_argument("--max-bad", type=float, default=0.01, metavar="SHARE", help="refuse a file with more bad rows (default %(default)s)")
    bad.add_argument("--strict", action="store_true", help="refuse a file with any bad row")


def _add_score_flags(parser: argparse.ArgumentParser, *, base_required: bool) -> None:
    parser.add_argument("--base", required=base_required, metavar="MODEL", help="the base model: folder or hub name")
    parser.add_argument("--policy", action="append", default=[], metavar="LABEL=MODEL", help="the model that produced a source")
    parser.add_argument("--cross", action="append", default=[], metavar="LABEL=MODEL", help="score all sources under a further model")
    parser.add_argument("--reference", metavar="LABEL", help="the reference source (default: base)")
    parser.add_argument("--template", action="append", default=[], metavar="[LABEL=]FILE|NAME",
                        help="renders bare questions into prompts: none, chat, qwen-boxed, question-answer, or a file with {question}")
    parser.add_argument("--eos", type=int, metavar="ID", help="end-of-sequence id to append to text responses that stopped")
    parser.add_argument("--on-overlong", default="error", choices=["error", "window", "skip"], help="traces beyond the context (default %(default)s)")
    parser.add_argument("--scorer", default="local", metavar="NAME", help="local or plain (default %(default)s)")
    parser.add_argument("--dtype", default="auto", metavar="NAME", help="auto, float32, bfloat16, float16 (default %(default)s)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)")
    parser.add_argument("--score-at-most", type=int, metavar="N", help="score the first N samples per source and problem; pass@k uses all")


def _add_analysis_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=int, default=64, metavar="K", help="reference samples that support is asked for (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and permutation (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    arguments.line = ["analyzer", *(sys.argv[1:] if argv is None else argv)]
    try:
        return arguments.call(arguments) or 0
    except AnalyzerError as error:
        print(f"analyzer: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nanalyzer: interrupted; what was finished is saved. Continue with the same line:\n  " + " ".join(arguments.line), file=sys.stderr)
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
        "specs": [f"{s}=miniature/dumps/{s}.jsonl.gz" for s in ("base", "base-again", "cool", "rlvr", "distill", "teacher")],
        "ingest": {"reference": "base",
                   "samplers": {"base": plain, "base-again": plain, "cool": cool, "rlvr": plain, "distill": plain}},
        "score": {"base": str(models / "base"), "at_most": 64,
                  "policies": {"base-again": str(models / "base"), "cool": str(models / "base"),
                               "rlvr": str(models / "rlvr"), "distill": str(models / "distill")}},
    }


def _data_folder() -> Path:
    """data/: inside the installed package, or beside it in a checkout."""
    import importlib.resources

    try:
        folder = Path(str(importlib.resources.files("analyzer.data")))
    except ModuleNotFoundError:
        folder = Path(__file__).resolve().parent.parent / "data"
    if not (folder / "miniature" / "dumps").is_dir():
        raise UsageError(f"the miniature's data is not at {folder}; reinstall the package, or rebuild it: python -m analyzer.lab build")
    return folder


def _whole_way(a: argparse.Namespace, pipeline: Any, out: Path, *, shown: str, command: list[str], specs: list[str],
               ingest: dict[str, Any], score: dict[str, Any] | None) -> int:
    """dumps -> run -> report, and the terminal summary."""
    from analyzer.store import Run

    show = Progress()
    run = Run.create(out / "run")
    pipeline.ingest(run, specs, **ingest)
    if score:
        pipeline.score(run, progress=show, **score)
    return _write_report(a, pipeline, run, out, shown, command, show)


def _write_report(a: argparse.Namespace, pipeline: Any, run: Any, out: Path, shown: str, command: list[str], show: Progress) -> int:
    from analyzer.report.terminal import summary

    done = pipeline.report(run, out, budget=a.budget, seed=a.seed, command=command, progress=show)
    show.close()
    text = Path(done.paths["results.json"]).read_text(encoding="utf-8")
    print(text if a.json else summary(json.loads(text), directory=shown, colour=_colour()))
    gate = getattr(a, "fail_on", None)
    fired = [v.source for v in done.verdicts if v.headline and v.word == gate]
    if fired:
        raise GateError(f"--fail-on {gate}: {', '.join(fired)}")
    return 0


def _check(a: argparse.Namespace) -> int:
    from analyzer.checks import describe, render
    from analyzer.dumps import read_dumps

    traces, ledger = read_dumps(a.dumps, field_map=_pairs(a.map, "--map") or None, threshold=a.threshold,
                                samplers=_samplers(a.sampler) or None, max_bad=0.0 if a.strict else a.max_bad)
    description = describe(traces, ledger)
    print(json.dumps(description, indent=2, default=str) if a.json else render(description))
    return 0


def _score(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.store import Run

    run = Run.create(a.out)
    pipeline.ingest(run, a.dumps, **_ingest_arguments(a))
    if a.dry_run:
        plan = pipeline.dry_run(run, **_score_arguments(a))
        print(json.dumps(plan) if a.json else "\n".join(f"{k.replace('_', ' ')}: {v}" for k, v in plan.items()))
        return 0
    show = Progress()
    pipeline.score(run, progress=show, **_score_arguments(a))
    show.close()
    ledger = pipeline.ledger(run)
    print(json.dumps({"run": a.out, "ledger": ledger}) if a.json else
          f"{ledger['traces_scored']} of {ledger['traces']} traces scored in {a.out}; next: analyzer report {a.out} -o DIR")
    return 0


def _report(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.store import Run

    out = Path(a.out)
    score = _score_arguments(a) if a.base else None
    if not a.base and (a.policy or a.cross):
        raise UsageError("--policy and --cross need --base MODEL: reach compares a source's policy with the base")
    if len(a.dumps) == 1 and (Path(a.dumps[0]) / "run.json").is_file():
        run, show = Run.open(a.dumps[0]), Progress()
        if score:
            pipeline.score(run, progress=show, **score)
        return _write_report(a, pipeline, run, out, a.out, a.line, show)
    return _whole_way(a, pipeline, out, shown=a.out, command=a.line, specs=a.dumps, ingest=_ingest_arguments(a), score=score)


def _analyze(a: argparse.Namespace) -> int:
    from analyzer import pipeline
    from analyzer.report.terminal import tables
    from analyzer.store import Run

    show = Progress()
    results, left_out = pipeline.analyze(Run.open(a.run), a.names or None, budget=a.budget, seed=a.seed, progress=show)
    show.close()
    if a.json:
        print(json.dumps({"analyses": {n: r.as_json() for n, r in results.items()}, "left_out": left_out}, allow_nan=False))
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


def _ingest_arguments(a: argparse.Namespace) -> dict[str, Any]:
    return {"reference": a.reference, "field_map": _pairs(a.map, "--map"), "threshold": a.threshold,
            "samplers": _samplers(a.sampler), "max_bad": 0.0 if a.strict else a.max_bad}


def _score_arguments(a: argparse.Namespace) -> dict[str, Any]:
    if a.score_at_most is not None and a.score_at_most < 1:
        raise UsageError(f"--score-at-most {a.score_at_most}: at least 1")
    templates = {}
    for text in a.template:
        label, equals, name = text.partition("=")
        templates |= {label: name} if equals and not Path(text).is_file() else {"*": text}
    return {"base": a.base, "policies": _pairs(a.policy, "--policy"), "cross": _pairs(a.cross, "--cross"), "templates": templates,
            "eos": a.eos, "on_overlong": a.on_overlong, "scorer": a.scorer, "dtype": a.dtype, "device": a.device, "at_most": a.score_at_most}


def _pairs(values: list[str], flag: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            raise UsageError(f"{flag} {text!r}: expected NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{flag} {name}=... was given twice: {pairs[name]!r} and {value!r}")
        pairs[name] = value
    return pairs


def _samplers(values: list[str]) -> dict[str, Any]:
    from analyzer.records import Sampler

    return {label: Sampler.parse(text) for label, text in _pairs(values, "--sampler").items()}


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


if __name__ == "__main__":
    raise SystemExit(main())
