"""Figures and data of index.html: figures are rebuilt from their svg with the page's own colours, and their ids made
unique on the page. A long table is a pack that the page decodes when it is opened: a page of plain rows would take
seconds to open.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from analyzer.analysis.figures import INK, PAPER, RULE, WORD_COLORS, curve_id
from analyzer.pages import content, embed
from analyzer.records.display import numbers

ROWS = 200  # of one table; the csv and results.json hold all of them
INLINE = 12  # a folded table with more rows is a pack
SORT = 10  # a table with more rows can be sorted
_SWAP = {INK: "currentColor", "#000000": "currentColor", PAPER: "var(--paper)", RULE: "var(--rule)"}
_SWAP |= {color: f"var(--{word})" for word, color in WORD_COLORS.items()}


def packed(table: Mapping[str, Any]) -> str:
    """The first rows of a long table in base64, which no browser runs and the page decodes when it is opened."""
    grid = content.cells(table, ROWS)
    head = {"columns": grid.columns, "rows": grid.rows, "right": numbers(grid.rows, len(grid.columns))}
    return embed.pack(head, {})


def svg(figure: Mapping[str, Any], table: Mapping[str, Any]) -> Markup:
    """A figure as an element of the page; the points of its curves have their numbers, those of `table`."""
    name = figure["svg"].rpartition("/")[2].removesuffix(".svg")
    return Markup(inline_svg(figure["text"], prefix=name, label=figure["caption"], say=points(table)))


def points(table: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a reader hears at each point of a curve over k, by the curve's id; `table` as JSON.

    Of a source with training steps the last is drawn, and a point without a value is not.
    """
    out: dict[str, list[str]] = {}
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    if not {"source", "k", "low", "high"} <= set(table["columns"]):
        return out
    last: dict[str, float] = {}
    for row in rows:
        last[row["source"]] = max(row.get("step") or 0, last.get(row["source"], 0))
    for row in rows:
        if (row.get("step") or 0) != last[row["source"]]:
            continue
        counts = [f"{content.count(row[c])} {w}" for c, w in (("n", "traces"), ("problems", "problems")) if c in row]
        for column, value in row.items():
            if isinstance(value, float):
                e = {"value": value, "low": row["low"], "high": row["high"]}
                said = ", ".join([f"{row['source']}, k = {row['k']}: {content.interval(e)}", *counts])
                out.setdefault(curve_id(column, row["source"]), []).append(said)
    return out


def inline_svg(text: str, *, prefix: str, label: str, say: Mapping[str, list[str]] | None = None) -> str:
    """A matplotlib svg as an element of the page: no ids but those referred to (with `prefix`), no metadata, no style
    element, ink and paper taken from the page's theme, `label` as its text alternative. `say`: by the id of a curve,
    the text of each of its points, which the page reads out."""
    root = ET.fromstring(text)
    told = {}
    for group in root.iter():
        marks = [e for e in group.iter() if e.tag.endswith("}use")]
        texts = (say or {}).get(group.get("id", ""), [])
        if len(texts) == len(marks):
            told |= dict(zip(marks, texts, strict=True))
    used = {ref for e in root.iter() for v in e.attrib.values() for ref in re.findall(r"(?:url\(#|^#)([^)\s]+)", v)}

    def convert(e: ET.Element) -> ET.Element | None:
        tag = e.tag.rpartition("}")[2]
        if tag in ("metadata", "style", "script", "title"):
            return None
        out = ET.Element(tag, {"data-say": told[e]} if e in told else {})
        for key, value in e.attrib.items():
            key = key.rpartition("}")[2]
            if key == "id":
                if value not in used:
                    continue
                value = f"{prefix}-{value}"
            value = re.sub(r"url\(#", f"url(#{prefix}-", value)
            if key == "href" and value.startswith("#"):
                value = f"#{prefix}-{value[1:]}"
            if key in ("style", "fill", "stroke"):
                value = re.sub("|".join(_SWAP), lambda m: _SWAP[m[0]], value)
            out.set(key, value)
        out.text, out.tail = e.text, e.tail
        out.extend(c for c in map(convert, _flatten(e)) if c is not None)
        return out

    svg = convert(root)
    assert svg is not None
    for key in ("width", "height", "version"):
        svg.attrib.pop(key, None)
    svg.set("role", "img")
    svg.set("aria-label", re.sub(r"[\x00-\x1f\x7f]+", " ", label))
    return re.sub(r">\s+<", "><", ET.tostring(svg, encoding="unicode"))


def _flatten(e: ET.Element) -> Iterable[ET.Element]:
    """Children, with an empty <defs> left out (its style element was all it had)."""
    return [c for c in e if not (c.tag.endswith("}defs") and all(d.tag.endswith("}style") for d in c))]
