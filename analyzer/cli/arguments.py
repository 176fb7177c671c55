"""The commands, and what their flags mean as keyword arguments of `pipeline`. No heavy imports."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from analyzer import __version__
from analyzer.cli import agree, flags
from analyzer.errors import UsageError, nearest
from analyzer.records import WORDS
from analyzer.records.display import visible

EXAMPLES = """examples:
  analyzer demo
  analyzer check base=base.jsonl rlvr=rlvr.jsonl
  analyzer report base=base.jsonl rlvr=rlvr.jsonl --base MODEL --policy rlvr=RL_MODEL --template none -o reports/mine
"""


RUNS = """examples:
  analyzer score base=base.jsonl rlvr=rlvr.jsonl --base MODEL --policy rlvr=RL_MODEL --template none -o run
  analyzer score base=base.jsonl rlvr=rlvr.jsonl --base MODEL --template none -o shards --shard 0/8
  analyzer score base=base.jsonl --base MODEL --template none -o run --cluster auto
"""
MERGES = """example, after `score ... -o shards --shard 0/8` to 7/8:
  analyzer merge shards/shard-* -o run
"""
CONVERTS = """examples:
  analyzer convert base.json -o base.jsonl.zst
  analyzer convert rlvr=outputs/ --map response=output.text -o rlvr.parquet
"""
SAMPLES = """examples:
  analyzer sample questions.jsonl --model MODEL -n 64 --template none -o base.jsonl --label base
  analyzer sample questions.jsonl --model MODEL --server http://localhost:8000/v1 -n 64 -o base.jsonl --template none
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
            having = [name for c in commands for name, p in c.choices.items() if word in p._option_string_actions]
            known = f"; commands that have it: {', '.join(having)}" if having else nearest(word, flags)
            message = f"{word} is not known here{known}"
        elif commands and "invalid choice: " in message:
            word = message.split("invalid choice: ", 1)[1].split("'")[1]
            message = f"{word!r} is not a command{nearest(word, commands[0].choices)}"
        self.exit(2, f"{self.prog}: error: {visible(message)}\n")


def shown(examples: str) -> dict[str, Any]:
    """What makes argparse print examples as they stand."""
    return {"epilog": examples, "formatter_class": argparse.RawDescriptionHelpFormatter}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Every flag is a keyword of one function of `pipeline`."""
    parser = Parser(
        prog="analyzer",
        **shown(EXAMPLES),
        description="Does training put probability where the base model had practically none, or only sharpen it?",
    )
    parser.add_argument("--version", action="version", version=f"analyzer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    demo = commands.add_parser("demo", help="the miniature world, end to end: no network, no GPU", allow_abbrev=False)
    demo.add_argument(
        "-o", "--out", default="reports/demo", metavar="DIR", help="where the report goes (default %(default)s)"
    )
    flags.add_robustness(demo)
    flags.add_analysing(demo)

    check = commands.add_parser("check", help="parse, map, count, warn; no model", allow_abbrev=False)
    flags.add_dumps(check)
    check.add_argument("--json", action="store_true", help="print one JSON object")

    convert = commands.add_parser(
        "convert", help="any dump as canonical JSON lines or Parquet", allow_abbrev=False, **shown(CONVERTS)
    )
    flags.add_dumps(convert)
    convert.add_argument("-o", "--out", required=True, metavar="FILE", help=".jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    convert.add_argument("--json", action="store_true", help="print one JSON object")

    score = commands.add_parser(
        "score", help="score dumps under a base model; the same line again continues", allow_abbrev=False, **shown(RUNS)
    )
    flags.add_dumps(score)
    flags.add_scoring(score, base_required=True)
    score.add_argument("-o", "--out", required=True, metavar="RUN", help="run folder")
    score.add_argument(
        "--shard",
        type=flags.shard,
        metavar="I/N",
        help="score share I of N (0/N ... N-1/N) into RUN/shard-I-of-N, for job arrays; then: analyzer merge",
    )
    flags.add_dry_run(score)
    score.add_argument("--json", action="store_true", help="print one JSON object")

    merge = commands.add_parser(
        "merge", help="join the runs of the shards of one score", allow_abbrev=False, **shown(MERGES)
    )
    merge.add_argument("runs", nargs="+", metavar="RUN", help="runs that `score --shard` made")
    merge.add_argument("-o", "--out", required=True, metavar="RUN", help="run folder that holds them all")
    merge.add_argument("--json", action="store_true", help="print one JSON object")

    analyze = commands.add_parser(
        "analyze", help="run analyses on a run and print their headline numbers", allow_abbrev=False
    )
    analyze.add_argument("run", metavar="RUN")
    analyze.add_argument(
        "names", nargs="*", metavar="NAME", help="preflight, perplexity, support, strategy ... (default: all)"
    )
    flags.add_analysing(analyze)

    report = commands.add_parser("report", help="everything that is still missing, then the report", allow_abbrev=False)
    flags.add_dumps(report, what="RUN|DUMP", least="*")
    flags.add_scoring(report, base_required=False)
    report.add_argument("-o", "--out", metavar="DIR", help="report folder; a run made from dumps is kept in DIR/run")
    report.add_argument(
        "--again", metavar="RUN", help="make a run and its report again from its run.json; changed inputs are refused"
    )
    flags.add_dry_run(report)
    report.add_argument(
        "--fail-on",
        choices=[word for word in WORDS if word != "inside"],
        help="exit 5 when a headline verdict is this word",
    )
    report.add_argument(
        "--style", default="icml", metavar="VENUE", help="figure widths: icml, acl, neurips (default %(default)s)"
    )
    report.add_argument(
        "--html-max-mb",
        type=flags.above_zero,
        default=25.0,
        metavar="N",
        help="traces beyond so many megabytes lie in files beside index.html (default %(default)s)",
    )
    flags.add_robustness(report)
    flags.add_analysing(report)

    flags.add_sampling(
        commands.add_parser("sample", help="draw responses from a model: a dump", allow_abbrev=False, **shown(SAMPLES))
    )

    agree.add(commands)

    show = commands.add_parser(
        "show", help="one trace in the terminal, tokens coloured by surprisal", allow_abbrev=False
    )
    show.add_argument("run", metavar="RUN")
    show.add_argument("key", metavar="KEY", help="source/problem/sample[@step]")
    show.add_argument("--model", default="base", metavar="LABEL", help="scorer label (default %(default)s)")
    show.add_argument("--json", action="store_true", help="print one JSON object")

    compare = commands.add_parser("compare", help="two sources, paired by problem", allow_abbrev=False)
    compare.add_argument("run", metavar="RUN")
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument(
        "--budget",
        type=flags.at_least(1),
        default=64,
        metavar="K",
        help="draws that hurdles, horizon and pass@k are of (default %(default)s)",
    )
    compare.add_argument("--seed", type=flags.at_least(0), default=0, help="of the bootstrap (default %(default)s)")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def share_bad(a: argparse.Namespace) -> float:
    return 0.0 if a.strict else a.max_bad


def ingest_arguments(a: argparse.Namespace) -> dict[str, Any]:
    return {
        "reference": a.reference,
        "field_map": pairs(a.map, "--map"),
        "threshold": a.threshold,
        "samplers": samplers(a.sampler),
        "max_bad": share_bad(a),
        "grade": a.grade,
        "limit": a.limit,
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
        "prompt_of": a.prompt_of,
        "eos": a.eos,
        "template_date": a.template_date,
        "on_overlong": a.on_overlong,
        "scorer": a.scorer,
        "dtype": a.dtype,
        "device": a.device,
        "at_most": a.score_at_most,
        "servers": servers(a.server),
        "concurrent": a.concurrent,
    }


def report_arguments(a: argparse.Namespace) -> dict[str, Any]:
    return {"budget": a.budget, "seed": a.seed, "vary": a.robustness}


def place_arguments(a: argparse.Namespace) -> dict[str, Any]:
    """Where scoring is done, and what a model may bring: changes no value of a score."""
    if a.workers and not a.cluster:
        raise UsageError("--workers N: only with --cluster")
    refuse_concurrent(a, bool(a.server) or a.scorer == "server", [a.base, *a.policy, *a.cross])
    if a.cluster and (a.server or a.scorer == "server"):
        raise UsageError("--cluster and --server: a server scores by itself; leave one of them out")
    places = ("cluster", "workers", "trust_remote_code", "allow_pickle")
    return {"shard": getattr(a, "shard", None)} | {name: getattr(a, name) for name in places}


# flags by what they act on, with their defaults: a flag that can't act is refused, not ignored
READING = {
    "map": [],
    "sampler": [],
    "threshold": 1.0,
    "max_bad": 0.01,
    "strict": False,
    "reference": None,
    "grade": False,
    "limit": None,
}
SCORING = {
    "policy": [],
    "cross": [],
    "template": [],
    "prompt_of": None,
    "eos": None,
    "template_date": None,
    "on_overlong": "error",
    "scorer": "local",
    "dtype": "auto",
    "device": "auto",
    "score_at_most": None,
    "server": [],
    "concurrent": 16,
    "cluster": None,
    "workers": None,
    "trust_remote_code": False,
    "allow_pickle": False,
}
ANALYSING = {"budget": 64, "seed": 0, "style": "icml", "html_max_mb": 25.0, "robustness": True}


def refuse(a: argparse.Namespace, defaults: dict[str, Any], why: str) -> None:
    """Raise UsageError when one of the flags was given a value of its own."""
    given = [f"--{name.replace('_', '-')}" for name, default in defaults.items() if getattr(a, name) != default]
    if given:
        raise UsageError(f"{', '.join(given)}: {why}")


def refuse_concurrent(a: argparse.Namespace, served: bool, models: list[str]) -> None:
    """Raise UsageError for --concurrent where nothing is asked of a server."""
    if not served and not any("@http" in model for model in models):
        refuse(a, {"concurrent": SCORING["concurrent"]}, "requests at a time are made to a --server alone")


def sample_arguments(a: argparse.Namespace) -> dict[str, Any]:
    from analyzer.records import Sampler

    refuse_concurrent(a, bool(a.server), [a.model])
    names = (
        "model",
        "n",
        "max_tokens",
        "seed",
        "template",
        "template_date",
        "label",
        "dtype",
        "device",
        "batch",
        "concurrent",
    )
    return {name: getattr(a, name) for name in names} | {
        "sampler": Sampler(a.temperature, a.top_p, a.top_k, a.min_p),
        "field_map": pairs(a.map, "--map"),
        "max_bad": share_bad(a),
        "server_url": a.server,
    }


def servers(values: list[str]) -> dict[str, str]:
    """label, or "*" for every other model, -> URL[#NAME]."""
    bare = [v for v in values if v.startswith(("http://", "https://"))]
    for text in values:
        if "=" not in text and text not in bare:
            raise UsageError(f"--server {text!r}: an address begins with http:// or https://, as in http://HOST:8000")
    if len(bare) > 1:
        raise UsageError(f"--server: {len(bare)} addresses for all models; name the others by LABEL=URL")
    named = pairs([v for v in values if v not in bare], "--server")
    return named | ({"*": bare[0]} if bare else {})


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
