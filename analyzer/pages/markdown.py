"""report.md: the document as GitHub shows it. Every text from outside is escaped; figures are linked relatively."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from analyzer.pages import render
from analyzer.records import display
from analyzer.records.display import visible

ROWS = 40  # of one table; the csv and results.json hold all of them


def page(document: Mapping[str, Any]) -> str:
    """The whole file."""
    made = render.environment(_shown)
    made.filters["code"] = _code
    values = {"d": document, "ROWS": ROWS, "numbers": display.numbers, "counted": display.counted}
    text = made.get_template("report.md").render(values)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.M)).strip() + "\n"


def _shown(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(esc(str(value)))


def _code(text: str) -> Markup:
    """A code span in a table cell; its fence is longer than any run of backticks inside."""
    text = visible(re.sub(r"\s+", " ", text)).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence} {text} {fence}" if fence != "`" else f"`{text}`")


def esc(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no math, no line break."""
    text = visible(re.sub(r"[\t-\r\u2028\u2029]+", " ", text))
    text = re.sub(r"([\\`*\[\]|$~#])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return text.replace("://", ":&#8203;//")
