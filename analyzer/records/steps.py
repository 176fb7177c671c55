"""Which steps (functions of Python, commands) take which options, and how run.json keeps them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from analyzer.errors import UsageError, nearest
from analyzer.records.options import (
    NOT_STORED,
    AgreeOptions,
    HandoverOptions,
    ModelOptions,
    ReadOptions,
    ReportOptions,
    ReviewOptions,
    SampleOptions,
    ScoreOptions,
    default,
)


def _but(record: type, *without: str) -> tuple[str, ...]:
    return tuple(f.name for f in fields(record) if f.name not in without)


ALL_READ, ALL_SCORE, ALL_MODEL = _but(ReadOptions), _but(ScoreOptions), _but(ModelOptions)
FULL = {ReadOptions: ALL_READ, ScoreOptions: _but(ScoreOptions, "shard"), ModelOptions: ALL_MODEL}

# step, a function of Python or a command -> the records it gets -> the options of each that it takes
STEPS: dict[str, dict[type, tuple[str, ...]]] = {
    "load": {ReadOptions: ALL_READ},
    "check": {ReadOptions: _but(ReadOptions, "reference", "limit")},
    "convert": {ReadOptions: _but(ReadOptions, "reference", "limit")},
    "read_dumps": {ReadOptions: _but(ReadOptions, "reference", "limit")},
    "sample": {ReadOptions: ("map", "max_bad", "strict"), SampleOptions: _but(SampleOptions), ModelOptions: ALL_MODEL},
    "score": FULL | {ScoreOptions: ALL_SCORE},
    "score_run": {ScoreOptions: ALL_SCORE, ModelOptions: ALL_MODEL},
    "estimate": FULL,
    "analyze": {ReportOptions: ("budget", "seed", "difficulty")},
    "compare": {ReportOptions: ("budget", "seed")},
    "demo": {ReportOptions: ("budget", "seed", "robustness")},
    "report": FULL | {ReportOptions: _but(ReportOptions)},
    "report_run": {ReportOptions: _but(ReportOptions)},
    "agree": {AgreeOptions: _but(AgreeOptions), ModelOptions: ("device",)},
    "handover": {HandoverOptions: _but(HandoverOptions), ModelOptions: ALL_MODEL},
    "sample-for-review": {ReviewOptions: _but(ReviewOptions)},
}
BASE = {"base": "--base MODEL"}
NEEDED = {"sample": {"model": "--model MODEL"}, "score": BASE, "score_run": BASE, "estimate": BASE}


def names(step: str) -> dict[str, type]:
    """Option -> the record that holds it, of all that a step takes."""
    return {name: record for record, some in STEPS[step].items() for name in some}


def taken(step: str, given: Mapping[str, Any], where: str = "") -> list[Any]:
    """The records of a step, in the order of STEPS, from what was given by name; None was not given. Raises UsageError,
    which says `where` an unknown one stands."""
    known = names(step)
    for name in given:
        if name not in known:
            called = _by_stored(step).get(name)  # in run.json, and once in Python too
            close = f"; did you mean {called!r}?" if called else nearest(name, known)
            raise UsageError(f"{where}{name!r} is no option of {step.removesuffix('_run')}{close}")
    for name, shown in NEEDED.get(step, {}).items():
        if given.get(name) is None:
            raise UsageError(f"{step} needs {shown}")
    try:
        return [record(**{name: given[name] for name in some if name in given}) for record, some in STEPS[step].items()]
    except UsageError as error:
        raise UsageError(f"{where}{error}") from None


def signed(step: str) -> Callable[[Callable], Callable]:
    """Decorates a function whose last parameter **options are those of a step: help() and editors show each."""

    def decorate(function: Callable) -> Callable:
        shown = inspect.signature(function)
        own = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default(name, record))
            for name, record in names(step).items()
        ]
        function.__signature__ = shown.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return decorate


# ---- run.json


def stored(record: Any, *some: str) -> dict[str, Any]:
    """The options (all, or some) as run.json keeps them, under the names that it has always had."""
    out = {}
    for f in fields(record):
        name = f.metadata["stored"]
        if name != NOT_STORED and (not some or f.name in some):
            value = getattr(record, f.name)
            if f.name == "sampler":
                value = {label: asdict(s) for label, s in value.items()}
            out[name or f.name] = value
    return out


def restored(step: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a step, by name, of what `stored` made of them; others of the call are left out."""
    named = _by_stored(step)
    return {named[key]: value for key, value in call.items() if key in named}


def _by_stored(step: str) -> dict[str, str]:
    """Name in run.json -> name, of the options of a step."""
    held = [f for record in STEPS[step] for f in fields(record) if f.name in names(step)]
    return {f.metadata["stored"] or f.name: f.name for f in held}
