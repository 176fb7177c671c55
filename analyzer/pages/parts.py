"""Elements of index.html: escaped text, tables, figures with their numbers, packs of data.

Every text from outside goes through `esc`; figures are rebuilt from their svg with the page's own colours, and their
ids made unique on the page. A long table is a pack that the page decodes when it is opened: a page of plain rows would
take seconds to open.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any

from analyzer.analysis.figures import INK, PAPER, RULE, curve_id
from analyzer.pages import content, embed

ROWS = 200  # of one table; the csv and results.json hold all of them
INLINE = 12  # a folded table with more rows is a pack
_SWAP = {INK: "currentColor", "#000000": "currentColor", PAPER: "var(--paper)", RULE: "var(--rule)"}


def esc(text: str) -> str:
    """Text as text: markup characters become entities, control characters U+FFFD."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", str(text)), quote=True)


def details(title: str, table: Mapping[str, Any], path: str, *, note: str = "") -> str:
    """A folded table of JSON values with a link to its csv at `path`."""
    n = len(table["rows"])
    rows = [[content.cell(v) for v in row] for row in table["rows"][:ROWS]]
    said = f"{ROWS} shown of {n}, the whole table in " if n > ROWS else f"{n} {'row' if n == 1 else 'rows'}, also in "
    shown, mark = grid(content.Grid(list(table["columns"]), rows, [])) if n <= INLINE else "", ""
    if n > INLINE:
        name = path.removesuffix(".csv").replace("/", "-")
        head = {"columns": list(table["columns"]), "rows": rows, "right": _right(rows, len(table["columns"]))}
        shown, mark = "<div></div>" + pack(name, embed.pack(head, {})), f' data-pack="{esc(name)}"'
    return (
        f"<details{mark}><summary>{esc(title)} <small>({n})</small></summary>{note}{shown}"
        f'<p class="note">{said}<a href="{esc(path)}">{esc(path)}</a></p></details>'
    )


def pack(name: str, text: str) -> str:
    """Data of the page in base64, which no browser runs."""
    return f'<script type="text/plain" id="pack-{esc(name)}">{text}</script>'


def _right(rows: list[list[str]], columns: int) -> list[bool]:
    """Which columns are numbers, to be set to the right."""
    return [i > 0 and all(content.numeric(row[i]) for row in rows) for i in range(columns)]


def grid(table: content.Grid, *, whole: str = "") -> str:
    """A table that scrolls by itself on a narrow screen; numbers to the right, text to the left."""
    shown = table.rows[:ROWS] if whole else table.rows
    right = _right(shown, len(table.columns))
    head = "".join(
        f'<th scope="col"{" class=r" if r else ""}>{esc(c)}</th>' for c, r in zip(table.columns, right, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td class=r>{number(c)}</td>" if r else f"<td>{esc(c)}</td>" for c, r in zip(row, right, strict=True)
        )
        + "</tr>\n"
        for row in shown
    )
    out = (
        f'<div class="wide" tabindex="0" role="region" aria-label="Table: {esc(", ".join(table.columns[:4]))}">'
        f"<table class=sort><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    if len(shown) < len(table.rows):
        said = f"{len(shown)} shown of {len(table.rows)}, the whole table in "
        out += f'<p class="note">{said}<a href="{esc(whole)}">{esc(whole)}</a></p>'
    if table.notes:
        notes = "".join(f"<li>{esc(n)}</li>" for n in table.notes[:ROWS])
        out += (
            f"<details><summary>Why a cell has no value <small>({len(table.notes)})</small></summary><ul>{notes}</ul>"
            f"<p>{esc(content.more(len(table.notes), ROWS))}</p></details>"
        )
    return out


def number(text: str) -> str:
    """A number with its interval on a second line, which keeps wide tables narrow."""
    value, space, rest = esc(text).partition(" [")
    within, mark, k = rest.partition("] (")
    return (
        f"{value} <small>[{within}{']' if mark else ''}</small>{f' <small>({k}</small>' if k else ''}"
        if space
        else value
    )


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
