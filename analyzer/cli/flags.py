"""Flags that commands share, a function for each group of them, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_dumps(parser: argparse.ArgumentParser, what: str = "DUMP", least: str = "+") -> None:
    parser.add_argument(
        "dumps",
        nargs=least,
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
    parser.add_argument(
        "--grade", action="store_true", help="fill missing labels from reference answers (extra: math-verify)"
    )
    add_bad(parser)


def add_bad(parser: argparse.ArgumentParser) -> None:
    bad = parser.add_mutually_exclusive_group()
    bad.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="refuse a file with more bad rows (default %(default)s)",
    )
    bad.add_argument("--strict", action="store_true", help="refuse a file with any bad row")


def add_scoring(parser: argparse.ArgumentParser, *, base_required: bool) -> None:
    parser.add_argument("--base", required=base_required, metavar="MODEL", help="the base model: folder or hub name")
    parser.add_argument(
        "--policy", action="append", default=[], metavar="LABEL=MODEL", help="the model that produced a source"
    )
    parser.add_argument(
        "--cross", action="append", default=[], metavar="LABEL=MODEL", help="score all sources under a further model"
    )
    parser.add_argument("--reference", metavar="LABEL", help="the reference source (default: base)")
    parser.add_argument(
        "--limit",
        type=at_least(1),
        metavar="N",
        help="a quick look: only the reference's first N problems, all their samples",
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="[LABEL=]FILE|NAME",
        help="renders bare questions into prompts: none, chat, qwen-boxed, question-answer, or a file with {question}",
    )
    parser.add_argument(
        "--prompt-of",
        metavar="LABEL",
        help="ask the base under the prompts of the reference LABEL whatever the source, found by problem: where "
        "sources were sampled after different prompts (a policy keeps its own)",
    )
    parser.add_argument(
        "--eos", type=int, metavar="ID", help="end-of-sequence id to append to text responses, unless recorded as cut"
    )
    add_date(parser, "of the first call")
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
        help="local (the fastest exact path), cached, plain or server (default %(default)s)",
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="[LABEL=]URL[#NAME]",
        help="score by a completions server (vLLM, SGLang, llama-cpp-python) that has the model; key in "
        "ANALYZER_API_KEY; --base then gives tokenizer and config",
    )
    parser.add_argument(
        "--concurrent", type=at_least(1), default=16, metavar="N", help="requests at a time (default %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="auto", metavar="NAME", help="auto, float32, bfloat16, float16 (default %(default)s)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 ..., map: spread over all (default %(default)s)",
    )
    parser.add_argument(
        "--score-at-most",
        type=int,
        metavar="N",
        help="score the first N samples per source and problem; pass@k uses all",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="score by the workers of a Ray cluster: its address, or auto for the one here (extra `ray`)",
    )
    parser.add_argument(
        "--workers", type=at_least(1), metavar="N", help="of the cluster (default: one per GPU, else per CPU core)"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the Python code that a model brings; read it before"
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="load weights that are not safetensors, which can run code"
    )


def add_date(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--template-date",
        metavar="YYYY-MM-DD",
        help=f"the day that chat templates write as today (default: the day {default}, recorded)",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="exact tokens, peak memory, disk, time from a sample; writes nothing"
    )


def add_robustness(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-robustness",
        dest="robustness",
        action="store_false",
        help="do not decide the verdicts again under variations (about as much work as the analyses)",
    )


def add_analysing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        type=at_least(1),
        default=64,
        metavar="K",
        help="reference samples that support is asked for (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of bootstrap and permutation (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problems", nargs="+", metavar="PROBLEMS", help="a dump, or a file of questions or prompts")
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder or hub name")
    parser.add_argument("-n", type=at_least(1), default=64, metavar="N", help="of each problem (default %(default)s)")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help=".jsonl, .jsonl.gz or .jsonl.zst")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="(default %(default)s)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="(default %(default)s: off)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="(default %(default)s: off)")
    parser.add_argument("--min-p", type=float, default=0.0, metavar="P", help="(default %(default)s: off)")
    parser.add_argument(
        "--max-tokens", type=at_least(1), default=1024, metavar="N", help="of a response (default %(default)s)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of all draws (default %(default)s)")
    parser.add_argument(
        "--template", metavar="FILE|NAME", help="renders bare questions: none, chat, qwen-boxed, question-answer, FILE"
    )
    add_date(parser, "on which the output is begun")
    parser.add_argument("--label", metavar="LABEL", help="source of the rows (default: the model's name)")
    parser.add_argument("--map", action="append", default=[], metavar="FIELD=PATH", help="question=problem.text")
    add_bad(parser)
    parser.add_argument("--dtype", default="auto", metavar="NAME", help="as for score (default %(default)s)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="as for score (default %(default)s)")
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=64,
        metavar="N",
        help="responses at a time, of all problems (default %(default)s)",
    )
    parser.add_argument("--server", metavar="URL[#NAME]", help="draw from a completions server that has the model")
    parser.add_argument(
        "--concurrent", type=at_least(1), default=16, metavar="N", help="requests at a time (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def shard(text: str) -> tuple[int, int]:
    """An argparse type: (i, n) of "i/n", 0 <= i < n."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, counted from 0: 0/8, 1/8 ... 7/8")
    return int(number), int(of)


def above_zero(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def at_least(least: int) -> Callable[[str], int]:
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
