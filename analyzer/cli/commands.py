"""The commands: what each is for, an example, its arguments. No heavy imports."""

from __future__ import annotations

import argparse
from textwrap import fill
from typing import Any, NoReturn

from analyzer import __version__
from analyzer.cli import flags
from analyzer.errors import nearest
from analyzer.records import WORDS
from analyzer.records.display import one_line

# command -> (in one line, more about it, examples)
COMMANDS = {
    "demo": (
        "the miniature world, end to end: no network, no GPU",
        "Scores and reports the small trained world that comes with the package: what a report looks like.",
        ["analyzer demo"],
    ),
    "check": (
        "parse, map, count, warn; no model",
        "Reads dumps and says what is in them: fields, sources, lengths, duplicates, warnings, what can be learned.",
        ["analyzer check base=base.jsonl rlvr=rlvr.jsonl"],
    ),
    "convert": (
        "any dump as canonical JSON lines or Parquet",
        "Writes all traces of dumps to one file.",
        [
            "analyzer convert base.json -o base.jsonl.zst",
            "analyzer convert rlvr=outputs/ --map response=output.text -o rlvr.parquet",
        ],
    ),
    "score": (
        "score dumps under a base model; the same line again continues",
        "Scores every token of every trace: under the base, and each source under the model that produced it.",
        [
            "analyzer score base=base.jsonl rlvr=rlvr.jsonl --base MODEL --policy rlvr=RL_MODEL --template none -o run",
            "analyzer score base=base.jsonl rlvr=rlvr.jsonl --base MODEL --template none -o shards --shard 0/8",
            "analyzer score base=base.jsonl --base MODEL --template none -o run --cluster auto",
        ],
    ),
    "merge": (
        "join the runs of the shards of one score",
        "After `score ... -o shards --shard 0/8` to 7/8: one run, value for value that of one process.",
        ["analyzer merge shards/shard-* -o run"],
    ),
    "analyze": (
        "run analyses on a run and print their headline numbers",
        "The numbers behind a report, by analysis, without its pages.",
        ["analyzer analyze run support boundary"],
    ),
    "report": (
        "everything that is still missing, then the report",
        "Reads dumps, scores them where --base is given, runs every analysis that can run, writes the report. Several "
        "folders or study files make a report each, and an index.",
        [
            "analyzer report base=base.jsonl rlvr=rlvr.jsonl --base MODEL --policy rlvr=RL_MODEL --template none "
            "-o reports/mine",
            "analyzer report aime.toml gsm8k.toml -o reports/all",
        ],
    ),
    "sample": (
        "draw responses from a model: a dump",
        "Draws responses to the problems of a dump, or of a file of questions; the same line again continues.",
        [
            "analyzer sample questions.jsonl --model MODEL -n 64 --template none -o base.jsonl --label base",
            "analyzer sample questions.jsonl --model MODEL --server http://localhost:8000/v1 -n 64 -o base.jsonl "
            "--template none",
        ],
    ),
    "handover": (
        "from which step of a source's traces on could the base have gone on alone?",
        "Lets the base continue correct traces from growing prefixes, and keeps in the run how many end correct; the "
        "same line again continues. The next report shows it.",
        ["analyzer handover run rlvr", "analyzer handover run rlvr --grader grade.py:correct --traces 100"],
    ),
    "sample-for-review": (
        "correct traces for a person to read: were they lucky?",
        "Writes a blind sheet of correct traces, drawn at random, with a column `valid` to fill in; --read keeps the "
        "answers in the run, and the next report shows them.",
        [
            "analyzer sample-for-review run sheet.csv",
            "analyzer sample-for-review run sheet.csv --read",
            "analyzer sample-for-review run rare.csv rlvr --accuracy 0.05",
        ],
    ),
    "show": (
        "one trace in the terminal, tokens coloured by surprisal",
        "The text of one trace, token by token under a model.",
        ["analyzer show run rlvr/p7/0"],
    ),
    "compare": (
        "two sources, paired by problem",
        "Differences of two sources of a run over the problems that both have, with intervals.",
        ["analyzer compare run rlvr base"],
    ),
    "agree": (
        "do two engines, dtypes or revisions give the same tokens the same log-probs, and if not, why",
        "Compares log-probs of two sides on the same ids, and names the fault where it is a known one.",
        [
            "analyzer agree MODEL rollouts.jsonl",
            "analyzer agree MODEL MODEL:bfloat16 --on rollouts.jsonl",
            "analyzer agree MODEL MODEL@http://localhost:8000/v1 --on rollouts.jsonl --fail-on 0.05",
        ],
    ),
}
SIDES = "MODEL[:DTYPE], MODEL@URL, a dump with log-probs, or RUN[:LABEL]"
PATHS = "path, glob, folder, - (stdin), or LABEL=PATH where the label names the source"
EXAMPLES = ("demo", "check", "report")  # whose first examples stand for all


class Parser(argparse.ArgumentParser):
    """argparse, but an unknown flag or command is answered with the nearest one."""

    def error(self, message: str) -> NoReturn:
        commands = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split()[0].split("=")[0]
            # argparse reports a command's unknown flags from the parser above it
            parsers = [self, *(p for c in commands for p in c.choices.values())]
            known = {f for p in parsers for a in p._actions for f in a.option_strings}
            having = [name for c in commands for name, p in c.choices.items() if word in p._option_string_actions]
            more = f"; commands that have it: {', '.join(having)}" if having else nearest(word, known)
            message = f"{word} is not known here{more}"
        elif commands and "invalid choice: " in message:
            word = message.split("invalid choice: ", 1)[1].split("'")[1]
            message = f"{word!r} is not a command{nearest(word, commands[0].choices)}"
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def _shown(examples: list[str]) -> dict[str, Any]:
    """What makes argparse print examples as they stand."""
    head = "examples:\n" if len(examples) > 1 else "example:\n"
    text = head + "".join(f"  {line}\n" for line in examples)
    return {"epilog": text, "formatter_class": argparse.RawDescriptionHelpFormatter}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="analyzer",
        **_shown([COMMANDS[name][2][0] for name in EXAMPLES]),
        description="Does training put probability where the base model had practically none, or only sharpen it?",
    )
    parser.add_argument("--version", action="version", version=f"analyzer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    made = {
        name: commands.add_parser(name, help=line, description=fill(more), allow_abbrev=False, **_shown(examples))
        for name, (line, more, examples) in COMMANDS.items()
    }
    for name in ("check", "convert", "score"):
        _dumps(made[name])
    _dumps(made["report"], "RUN|DUMP|STUDY.toml", "*")
    made["sample"].add_argument(
        "dumps", nargs="+", metavar="PROBLEMS", help="a dump, or a file of questions or prompts"
    )
    made["merge"].add_argument("runs", nargs="+", metavar="RUN", help="runs that `score --shard` made")
    for name in ("analyze", "show", "compare", "handover", "sample-for-review"):
        made[name].add_argument("run", metavar="RUN")
    made["sample-for-review"].add_argument("sheet", metavar="SHEET", help=".csv or .jsonl")
    made["sample-for-review"].add_argument("--read", action="store_true", help="keep the answers of SHEET in the run")
    made["analyze"].add_argument(
        "names", nargs="*", metavar="NAME", help="preflight, perplexity, support, strategy ... (default: all)"
    )
    for name in ("handover", "sample-for-review"):
        made[name].add_argument(
            "sources", nargs="*", metavar="SOURCE", help="whose traces (default: of all but the reference)"
        )
    made["show"].add_argument("key", metavar="KEY", help="source/problem/sample[@step]")
    made["show"].add_argument("--model", default="base", metavar="LABEL", help="scorer label (default base)")
    for name in ("a", "b"):
        made["compare"].add_argument(name, metavar=name.upper())
        made["agree"].add_argument(name, metavar=name.upper(), help=SIDES)
    for name in flags.STEPS.keys() & made.keys():
        flags.add(made[name], name)
    out = {name: flags.group(p, "output") for name, p in made.items()}
    for name, metavar, help in (
        ("convert", "FILE", ".jsonl, .jsonl.gz, .jsonl.zst or .parquet"),
        ("score", "RUN", "run folder"),
        ("merge", "RUN", "run folder that holds them all"),
        ("sample", "FILE", ".jsonl, .jsonl.gz or .jsonl.zst"),
    ):
        out[name].add_argument("-o", "--out", required=True, metavar=metavar, help=help)
    default = "reports/demo"
    out["demo"].add_argument("-o", "--out", default=default, metavar="DIR", help=f"report folder (default {default})")
    out["report"].add_argument(
        "-o", "--out", metavar="DIR", help="report folder; a run made from dumps is kept in DIR/run"
    )
    out["report"].add_argument(
        "--again", metavar="RUN", help="make a run and its report again from its run.json; changed inputs are refused"
    )
    gates = [word for word in WORDS if word != "inside"]
    out["report"].add_argument("--fail-on", choices=gates, help="exit 5 when a headline verdict is this word")
    out["agree"].add_argument(
        "--fail-on",
        metavar="SIZE",
        help="exit 5 when the mean difference of a token exceeds so many nats, or one side calls a token impossible",
    )
    for name in ("score", "report"):
        out[name].add_argument(
            "--dry-run", action="store_true", help="exact tokens, peak memory, disk, time from a sample; writes nothing"
        )
    for group in out.values():
        group.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _dumps(parser: argparse.ArgumentParser, what: str = "DUMP", least: str = "+", help: str = PATHS) -> None:
    parser.add_argument("dumps", nargs=least, metavar=what, help=help)
