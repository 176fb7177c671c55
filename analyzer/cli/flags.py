"""The flags of the command line, made from the options that a step takes (`records.options`)."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from typing import Any

from analyzer.records.options import flag
from analyzer.records.steps import NEEDED, STEPS, names
from analyzer.records.values import switch


def group(parser: argparse.ArgumentParser, title: str) -> Any:
    """The group of that heading, new or not."""
    return next((g for g in parser._action_groups if g.title == title), None) or parser.add_argument_group(title)


def add(parser: argparse.ArgumentParser, step: str) -> None:
    """A flag for every option of a step, under the headings of the options. What is not given is not in the namespace:
    the records have the defaults."""
    for record, some in STEPS[step].items():
        for f in fields(record):
            if f.name in some:
                told = dict(help=_help(f, f.name in NEEDED.get(step, ())), dest=f.name, default=argparse.SUPPRESS)
                group(parser, f.metadata["group"]).add_argument(flag(f), **told, **_shape(f))


def _shape(f: Field[Any]) -> dict[str, Any]:
    if f.metadata["read"] is switch:
        return {"action": "store_false" if f.default is True else "store_true"}
    return {"metavar": f.metadata["metavar"], "action": "append" if callable(f.default_factory) else "store"}


def _help(f: Field[Any], needed: bool) -> str:
    has_default = isinstance(f.default, (int, float, str)) and not isinstance(f.default, bool)
    more = f" (default {f.default})" if has_default else " (needed)" if needed else ""
    return f.metadata["help"].replace("%", "%%") + more


def given(arguments: argparse.Namespace, step: str) -> dict[str, Any]:
    """The options of a step that the line gives, by name."""
    return {name: getattr(arguments, name) for name in names(step) if hasattr(arguments, name)}
