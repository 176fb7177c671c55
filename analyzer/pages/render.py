"""The templates of the pages: what a value becomes in HTML or Markdown is decided here, once, for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analyzer.pages import content, lead, ledgers, wording
from analyzer.records import display


def shown(value: Any) -> Any:
    """A value in HTML before it is escaped: what hides or would be obeyed is written out."""
    return value if isinstance(value, Markup) else display.visible(str(value))


@cache
def environment(escape: Callable[[Any], Any] = shown) -> Environment:
    """Templates whose values are escaped: markup comes from a template or from a function that escapes, never from a
    value. A name that a template misspells is an error."""
    made = Environment(
        loader=PackageLoader("analyzer.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["address"] = lambda words: "#/" + "/".join(quote(w, safe="", errors="replace") for w in words)
    made.globals |= {
        "content": content,
        "ledgers": ledgers,
        "wording": wording,
        "lead": lead,
        "MARKS": display.MARKS,
        "NONE": display.NONE,
        "rows": rows,
    }
    return made


def rows(grid: content.Grid, at_most: int | None = None) -> Markup:
    """The HTML table of a grid, its first `at_most` rows; a term of the glossary says on hover what it means."""
    cut = len(grid.rows) if at_most is None else at_most
    return display.table(grid.columns, grid.rows[:cut], at_most=cut, about=wording.ABOUT)


def chip(word: str) -> Markup:
    """A verdict's word with its mark and colour."""
    return environment().get_template("blocks.html").module.chip(word)


@cache
def asset(name: str) -> str:
    return files("analyzer.pages").joinpath("assets", name).read_text(encoding="utf-8")


def plain(name: str) -> str:
    """An asset without its comment lines and indents."""
    lines = (line.strip() for line in asset(name).splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(("//", "/*")))


def page(template: str, policy: str, values: Mapping[str, Any]) -> str:
    """An HTML page under `policy`, with the style that all pages have."""
    return environment().get_template(template).render(policy=policy, style=plain("report.css"), **values)
