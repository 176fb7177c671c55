"""Every option once: name, type, default, check, help. Which steps take it: `steps.py`.

Flags of the command line are made of these records, keyword arguments of the Python functions and keys of study files
are checked by them, run.json keeps them. A record can't be made with a value that does not fit: UsageError, in the
words of the flag. Values may come as the command line gives them (text) or as Python does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from analyzer.errors import UsageError
from analyzer.records import BUDGET, Sampler, values

NOT_STORED = ""
A_MODEL = "folder, hub name (ORG/NAME, ORG/NAME@REVISION), GGUF file, or adapter (its folder, MODEL+ADAPTER)"

# ---- what an option is


def option(
    default: Any,
    read: values.Reader,
    help: str,
    metavar: str = "",
    *,
    group: str,
    stored: str | None = None,
    flag: str = "",
) -> Any:
    """A field of a record. help: what --help says. group: under which heading. stored: its name in run.json, where that
    is another one, or NOT_STORED. flag: where that is not --name."""
    about = {"read": read, "help": help, "metavar": metavar, "group": group, "stored": stored, "flag": flag}
    return field(metadata=about, **({"default_factory": dict} if default == {} else {"default": default}))


def _check(record: Any) -> None:
    """Each value as its option reads it; None stands for the default."""
    for f in fields(record):
        value = getattr(record, f.name)
        value = default(f.name, type(record)) if value is None else f.metadata["read"](flag(f), value)
        object.__setattr__(record, f.name, value)


def _refuse_concurrent(record: Any, served: bool, models: Iterable[str]) -> None:
    served = served or any("@http" in model for model in models)
    if not served and record.concurrent != default("concurrent", type(record)):
        raise UsageError("--concurrent: requests at a time are made to a --server alone")


def flag(f: Any) -> str:
    """How the command line calls a field; a switch that is on is turned off by it."""
    return f.metadata["flag"] or f"--{'no-' if f.default is True else ''}{f.name}".replace("_", "-")


def given_flags(given: Mapping[str, Any], *records: type) -> str:
    """The flags of those options of the records that were given, in words; empty where none was."""
    return ", ".join(flag(f) for record in records for f in fields(record) if given.get(f.name) is not None)


def default(name: str, record: type) -> Any:
    [found] = [f for f in fields(record) if f.name == name]
    return {} if callable(found.default_factory) else found.default


_input = partial(option, group="what to read")
_models = partial(option, group="models")
_how = partial(option, group="how to score")
_machine = partial(option, group="machine")
_draws = partial(option, group="how to draw")
_analysis = partial(option, group="analysis")
_output = partial(option, group="output")

at_least_0, at_least_1 = values.whole(0), values.whole(1)
above_0 = values.number(lambda x: x > 0, "is not a number above 0")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How dumps are read."""

    map: Mapping[str, str] = _input(
        {},
        values.named(values.text),
        "where a field is in a row: response=output.text",
        "FIELD=PATH",
        stored="field_map",
    )
    threshold: float = _input(
        1.0,
        values.number(lambda x: True, "must be a finite number; score >= threshold counts as correct"),
        "a score at least this high is correct",
        "SCORE",
    )
    sampler: Mapping[str, Sampler] = _input(
        {},
        values.named(values.sampler),
        "how a source was sampled",
        "LABEL=T[,top_p[,top_k[,min_p]]]",
        stored="samplers",
    )
    grade: bool = _input(False, values.switch, "fill missing labels from reference answers (extra: math-verify)")
    max_bad: float = _input(
        0.01,
        values.number(lambda x: 0 <= x <= 1, "must be a share in [0, 1]; 0.2 accepts files with up to 20 % bad rows"),
        "refuse a file with more bad rows",
        "SHARE",
    )
    strict: bool = _input(False, values.switch, "refuse a file with any bad row", stored=NOT_STORED)
    reference: str | None = _input(
        None, values.text, "the reference source (default: base)", "LABEL", stored=NOT_STORED
    )
    limit: int | None = _input(
        None, at_least_1, "a quick look: only the reference's first N problems, all their samples", "N"
    )

    def __post_init__(self) -> None:
        _check(self)
        if self.strict:
            if self.max_bad not in (0, default("max_bad", ReadOptions)):
                raise UsageError("--strict: no row may be bad then; leave --max-bad out")
            object.__setattr__(self, "max_bad", 0.0)


AS_FOUND = ReadOptions()  # nothing is said of how to read: what a dump holds is found out


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Which models score which traces, and how."""

    base: str | None = _models(None, values.text, f"the base model: {A_MODEL}", "MODEL")
    policy: Mapping[str, str] = _models(
        {},
        values.named(values.text),
        "the model that produced a source, named as for --base",
        "LABEL=MODEL",
        stored="policies",
    )
    cross: Mapping[str, str] = _models(
        {}, values.named(values.text), "score all sources under a further model", "LABEL=MODEL"
    )
    server: Mapping[str, str] = _models(
        {},
        values.named(values.text, bare=values.is_address),
        "score by a completions server (vLLM, SGLang, llama-cpp-python) that has the model; key in ANALYZER_API_KEY; "
        "--base then gives tokenizer and config",
        "[LABEL=]URL[#NAME]",
        stored="servers",
    )
    template: Mapping[str, str] = _how(
        {},
        values.named(values.text, bare=values.for_all_sources),
        "renders bare questions into prompts: none, chat, qwen-boxed, question-answer, or a file with {question}",
        "[LABEL=]FILE|NAME",
        stored="templates",
    )
    prompt_of: str | None = _how(
        None,
        values.text,
        "ask the base under the prompts of the reference LABEL whatever the source, found by problem: where sources "
        "were sampled after different prompts (a policy keeps its own)",
        "LABEL",
    )
    eos: int | None = _how(
        None, at_least_0, "end-of-sequence id to append to text responses, unless recorded as cut", "ID"
    )
    template_date: str | None = _how(
        None,
        values.day,
        "the day that chat templates write as today (default: the day of the first call, recorded)",
        "YYYY-MM-DD",
    )
    on_overlong: str = _how(
        "error", values.one_of("error", "window", "skip"), "traces beyond the context: error, window or skip", "WHAT"
    )
    scorer: str = _how(
        "local",
        values.one_of("local", "cached", "plain", "server"),
        "local (the fastest exact path), cached, plain or server",
        "NAME",
    )
    score_at_most: int | None = _how(
        None, at_least_1, "score the first N samples per source and problem; pass@k uses all", "N", stored="at_most"
    )
    concurrent: int = _machine(16, at_least_1, "requests at a time that a --server is asked", "N")
    cluster: str | None = _machine(
        None,
        values.text,
        "score by the workers of a Ray cluster: its address, or auto for the one here (extra `ray`)",
        "ADDRESS",
        stored=NOT_STORED,
    )
    workers: int | None = _machine(
        None, at_least_1, "of the cluster (default: one per GPU, else per CPU core)", "N", stored=NOT_STORED
    )
    shard: tuple[int, int] | None = _machine(
        None,
        values.share,
        "score share I of N (0/N ... N-1/N) into RUN/shard-I-of-N, for job arrays; then: analyzer merge",
        "I/N",
        stored=NOT_STORED,
    )

    def __post_init__(self) -> None:
        _check(self)
        if self.workers and not self.cluster:
            raise UsageError("--workers N: only with --cluster")
        served = bool(self.server) or self.scorer == "server"
        if self.cluster and served:
            raise UsageError("--cluster and --server: a server scores by itself; leave one of them out")
        _refuse_concurrent(self, served, self.models.values())

    @property
    def models(self) -> dict[str, str]:
        """Flag or flag LABEL -> model, of all that are named."""
        more = {f"--{kind} {label}": m for kind in ("policy", "cross") for label, m in getattr(self, kind).items()}
        return ({"--base": self.base} if self.base else {}) | more


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is loaded: the arguments of `scoring.load.load`."""

    dtype: str = _machine(
        "auto", values.one_of("auto", "float32", "bfloat16", "float16"), "auto, float32, bfloat16, float16", "NAME"
    )
    device: str = _machine("auto", values.text, "auto, cpu, cuda, cuda:1 ..., map: spread over all", "NAME")
    trust_remote_code: bool = _machine(False, values.switch, "run the Python code that a model brings; read it before")
    allow_pickle: bool = _machine(False, values.switch, "load weights that are not safetensors, which can run code")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What is asked of a run, and what the report looks like."""

    budget: int = _analysis(BUDGET, at_least_1, "reference samples that support is asked for", "K")
    seed: int = _analysis(0, at_least_0, "of bootstrap and permutation", "N")
    difficulty: str | None = _analysis(
        None,
        values.text,
        "field of the rows with the difficulty of a problem, a number above 0 (task horizon)",
        "FIELD",
    )
    robustness: bool = _analysis(
        True,
        values.switch,
        "do not decide the verdicts again under variations (about as much work as the analyses)",
        stored="vary",
    )
    style: str = _output("icml", values.one_of("icml", "acl", "neurips"), "figure widths: icml, acl, neurips", "VENUE")
    short: bool = _output(
        False, values.switch, "index.html is one printed page: the answers, their figures, the key numbers"
    )
    html_max_mb: float = _output(
        25.0, above_0, "traces beyond so many megabytes lie in files beside index.html", "N", stored="file_mb"
    )
    traces_max_mb: float = _output(
        100.0,
        above_0,
        "traces beyond so many megabytes are left out of the pages, which say so",
        "N",
        stored="folder_mb",
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What is drawn from which model."""

    model: str | None = _models(None, values.text, A_MODEL, "MODEL")
    server: str | None = _models(None, values.text, "draw from a completions server that has the model", "URL[#NAME]")
    n: int = _draws(64, at_least_1, "responses to each problem", "N", flag="-n")
    temperature: float = _draws(1.0, above_0, "of the draws; greedy decoding has no sampling distribution", "T")
    top_p: float = _draws(1.0, values.number(lambda x: 0 < x <= 1, "must be in (0, 1]"), "1 is off", "P")
    top_k: int = _draws(0, at_least_0, "0 is off", "K")
    min_p: float = _draws(0.0, values.number(lambda x: 0 <= x < 1, "must be in [0, 1)"), "0 is off", "P")
    max_tokens: int = _draws(1024, at_least_1, "of a response", "N")
    seed: int = _draws(0, at_least_0, "of all draws", "N")
    template: str | None = _draws(
        None, values.text, "renders bare questions: none, chat, qwen-boxed, question-answer, or a file", "FILE|NAME"
    )
    template_date: str | None = _draws(
        None,
        values.day,
        "the day that chat templates write as today (default: the day on which the output is begun, recorded)",
        "YYYY-MM-DD",
    )
    label: str | None = _output(None, values.text, "source of the rows (default: the model's name)", "LABEL")
    batch: int = _machine(64, at_least_1, "responses at a time, of all problems", "N")
    concurrent: int = _machine(16, at_least_1, "requests at a time that a --server is asked", "N")

    def __post_init__(self) -> None:
        _check(self)
        _refuse_concurrent(self, bool(self.server), [self.model] if self.model else [])

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.temperature, self.top_p, self.top_k, self.min_p)


@dataclass(frozen=True, kw_only=True)
class AgreeOptions:
    """On which tokens two engines are compared."""

    on: str | None = _input(
        None, values.text, "where the ids come from (default: the side that is a dump or run)", "DUMP"
    )
    traces: int = _input(64, at_least_1, "of the dump that are compared, taken evenly", "N")
    template: str | None = _how(None, values.text, "renders bare questions into prompts, as for score", "FILE|NAME")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class HandoverOptions:
    """Which traces are continued, from where, how often, and what says whether a continuation is correct."""

    grader: Any = _input(
        None,
        values.grader,
        "says whether a response is correct: a Python function that takes a Trace, in a file (default: math-verify on "
        "the dump's reference answers)",
        "FILE.py:FUNCTION",
    )
    base: str | None = _models(None, values.text, "where the run's base model is now, or a server that has it", "MODEL")
    self_test: bool = _models(
        True, values.switch, "do not let the source's own model continue its traces beside the base"
    )
    traces: int = _draws(200, at_least_1, "correct traces of a source, problems in turn", "N")
    cuts: int = _draws(8, values.whole(2), "prefixes of a trace: 0/N to (N-1)/N of its steps", "N")
    n: int = _draws(8, at_least_1, "continuations of each prefix", "N", flag="-n")
    max_tokens: int | None = _draws(
        None, at_least_1, "of a continuation (default: twice the run's longest response)", "N"
    )
    seed: int = _draws(0, at_least_0, "of all draws", "N")
    batch: int = _machine(256, at_least_1, "continuations at a time", "N")
    concurrent: int = _machine(16, at_least_1, "requests at a time that a server is asked", "N")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class ReviewOptions:
    """Which correct traces a person is given to read."""

    traces: int = _draws(60, at_least_1, "correct traces of a source, drawn at random", "N")
    accuracy: float = _draws(
        1.0,
        values.number(lambda x: 0 < x <= 1, "must be in (0, 1]"),
        "only of problems solved in at most this share of the draws",
        "P",
    )
    seed: int = _draws(0, at_least_0, "of the draw", "N")

    def __post_init__(self) -> None:
        _check(self)
