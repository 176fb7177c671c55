"""The flags of the command line, and what they mean as keyword arguments of `pipeline`. No heavy imports."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from analyzer import __version__
from analyzer.errors import UsageError, nearest

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
            flags = {f for p in parsers for a in p._actions for f in a.option_strings}
            message = f"{word} is not known here{nearest(word, flags)}"
        elif commands and "invalid choice: " in message:
            word = message.split("invalid choice: ", 1)[1].split("'")[1]
            message = f"{word!r} is not a command{nearest(word, commands[0].choices)}"
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Every flag is a keyword of one function of `pipeline`."""
    parser = Parser(
        prog="analyzer",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Does training put probability where the base model had practically none, or only sharpen it?",
    )
    parser.add_argument("--version", action="version", version=f"analyzer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    demo = commands.add_parser("demo", help="the miniature world, end to end: no network, no GPU", allow_abbrev=False)
    demo.add_argument(
        "-o", "--out", default="reports/demo", metavar="DIR", help="where the report goes (default %(default)s)"
    )
    _add_analysis_flags(demo)

    check = commands.add_parser("check", help="parse, map, count, find traps; no model", allow_abbrev=False)
    _add_dump_flags(check)
    check.add_argument("--json", action="store_true", help="print one JSON object")

    convert = commands.add_parser("convert", help="any dump as canonical JSON lines or Parquet", allow_abbrev=False)
    _add_dump_flags(convert)
    convert.add_argument("-o", "--out", required=True, metavar="FILE", help=".jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    convert.add_argument("--json", action="store_true", help="print one JSON object")

    score = commands.add_parser(
        "score", help="score dumps under a base model; the same line again continues", allow_abbrev=False
    )
    _add_dump_flags(score)
    _add_score_flags(score, base_required=True)
    score.add_argument("-o", "--out", required=True, metavar="RUN", help="run folder")
    score.add_argument("--dry-run", action="store_true", help="count tokens, memory and disk; score nothing")
    score.add_argument("--json", action="store_true", help="print one JSON object")

    analyze = commands.add_parser(
        "analyze", help="run analyses on a run and print their headline numbers", allow_abbrev=False
    )
    analyze.add_argument("run", metavar="RUN")
    analyze.add_argument(
        "names", nargs="*", metavar="NAME", help="preflight, perplexity, support, strategy ... (default: all)"
    )
    _add_analysis_flags(analyze)

    report = commands.add_parser("report", help="everything that is still missing, then the report", allow_abbrev=False)
    _add_dump_flags(report, what="RUN|DUMP")
    _add_score_flags(report, base_required=False)
    report.add_argument(
        "-o", "--out", required=True, metavar="DIR", help="report folder; a run made from dumps is kept in DIR/run"
    )
    report.add_argument(
        "--fail-on",
        choices=["outside", "sharpened", "undetermined"],
        help="exit 5 when a headline verdict is this word",
    )
    report.add_argument(
        "--style", default="icml", metavar="VENUE", help="figure widths: icml, acl, neurips (default %(default)s)"
    )
    report.add_argument(
        "--html-max-mb",
        type=float,
        default=25.0,
        metavar="N",
        help="traces beyond so many megabytes lie in files beside index.html (default %(default)s)",
    )
    _add_analysis_flags(report)

    show = commands.add_parser(
        "show", help="one trace in the terminal, tokens coloured by surprisal", allow_abbrev=False
    )
    show.add_argument("run", metavar="RUN")
    show.add_argument("key", metavar="KEY", help="source/problem/sample[@step]")
    show.add_argument("--model", default="base", metavar="LABEL", help="scorer label (default %(default)s)")

    compare = commands.add_parser("compare", help="two sources, paired by problem", allow_abbrev=False)
    compare.add_argument("run", metavar="RUN")
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--seed", type=_at_least(0), default=0, help="of the bootstrap (default %(default)s)")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_dump_flags(parser: argparse.ArgumentParser, what: str = "DUMP") -> None:
    parser.add_argument(
        "dumps",
        nargs="+",
        metavar=what,
        help="path, glob, folder, - (stdin), or LABEL=PATH where the label names the source",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=PATH",
        help="where a field is in a row: response=output.text",
    )
    parser.add_argument(
        "--threshold", type=float, default=1.0, help="a score at least this high is correct (default %(default)s)"
    )
    parser.add_argument(
        "--sampler",
        action="append",
        default=[],
        metavar="LABEL=T[,top_p[,top_k[,min_p]]]",
        help="how a source was sampled",
    )
    bad = parser.add_mutually_exclusive_group()
    bad.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="refuse a file with more bad rows (default %(default)s)",
    )
    bad.add_argument("--strict", action="store_true", help="refuse a file with any bad row")


def _add_score_flags(parser: argparse.ArgumentParser, *, base_required: bool) -> None:
    parser.add_argument("--base", required=base_required, metavar="MODEL", help="the base model: folder or hub name")
    parser.add_argument(
        "--policy", action="append", default=[], metavar="LABEL=MODEL", help="the model that produced a source"
    )
    parser.add_argument(
        "--cross", action="append", default=[], metavar="LABEL=MODEL", help="score all sources under a further model"
    )
    parser.add_argument("--reference", metavar="LABEL", help="the reference source (default: base)")
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="[LABEL=]FILE|NAME",
        help="renders bare questions into prompts: none, chat, qwen-boxed, question-answer, or a file with {question}",
    )
    parser.add_argument(
        "--eos", type=int, metavar="ID", help="end-of-sequence id to append to text responses, unless recorded as cut"
    )
    parser.add_argument(
        "--on-overlong",
        default="error",
        choices=["error", "window", "skip"],
        help="traces beyond the context (default %(default)s)",
    )
    parser.add_argument(
        "--scorer",
        default="local",
        metavar="NAME",
        help="local (the fastest exact path), cached or plain (default %(default)s)",
    )
    parser.add_argument(
        "--dtype", default="auto", metavar="NAME", help="auto, float32, bfloat16, float16 (default %(default)s)"
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 ... (default %(default)s)"
    )
    parser.add_argument(
        "--score-at-most",
        type=int,
        metavar="N",
        help="score the first N samples per source and problem; pass@k uses all",
    )


def _add_analysis_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        type=_at_least(1),
        default=64,
        metavar="K",
        help="reference samples that support is asked for (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_at_least(0), default=0, help="of bootstrap and permutation (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def ingest_arguments(a: argparse.Namespace) -> dict[str, Any]:
    return {
        "reference": a.reference,
        "field_map": pairs(a.map, "--map"),
        "threshold": a.threshold,
        "samplers": samplers(a.sampler),
        "max_bad": 0.0 if a.strict else a.max_bad,
    }


def score_arguments(a: argparse.Namespace) -> dict[str, Any]:
    if a.score_at_most is not None and a.score_at_most < 1:
        raise UsageError(f"--score-at-most {a.score_at_most}: at least 1")
    templates = {}
    for text in a.template:
        label, equals, name = text.partition("=")
        templates |= {label: name} if equals and not Path(text).is_file() else {"*": text}
    return {
        "base": a.base,
        "policies": pairs(a.policy, "--policy"),
        "cross": pairs(a.cross, "--cross"),
        "templates": templates,
        "eos": a.eos,
        "on_overlong": a.on_overlong,
        "scorer": a.scorer,
        "dtype": a.dtype,
        "device": a.device,
        "at_most": a.score_at_most,
    }


def _at_least(least: int) -> Callable[[str], int]:
    """An argparse type: an integer >= least."""

    def whole(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return number

    return whole


# flags by what they act on, with their defaults: a flag that can't act is refused, not ignored
READING = {"map": [], "sampler": [], "threshold": 1.0, "max_bad": 0.01, "strict": False, "reference": None}
SCORING = {
    "policy": [],
    "cross": [],
    "template": [],
    "eos": None,
    "on_overlong": "error",
    "scorer": "local",
    "dtype": "auto",
    "device": "auto",
    "score_at_most": None,
}


def refuse(a: argparse.Namespace, flags: dict[str, Any], why: str) -> None:
    """Raise UsageError when one of the flags was given a value of its own."""
    given = [f"--{name.replace('_', '-')}" for name, default in flags.items() if getattr(a, name) != default]
    if given:
        raise UsageError(f"{', '.join(given)}: {why}")


def pairs(values: list[str], flag: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            raise UsageError(f"{flag} {text!r}: expected NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{flag} {name}=... was given twice: {pairs[name]!r} and {value!r}")
        pairs[name] = value
    return pairs


def samplers(values: list[str]) -> dict[str, Any]:
    from analyzer.records import Sampler

    return {label: Sampler.parse(text) for label, text in pairs(values, "--sampler").items()}
