"""index.html: one file that opens from disk with the network off.

Every text from outside goes through `esc`; figures are rebuilt from their svg with the page's own colours, and their
ids made unique on the page.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from analyzer.figures import INK, PAPER, RULE, safe_name
from analyzer.report import content

ROWS = 200  # of one table; the csv and results.json hold all of them
CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
MARKS = {
    "inside": "●",
    "sharpened": "▲",
    "outside": "◆",
    "undetermined": "?",
}  # a word never stands on its colour alone
_SWAP = {INK: "currentColor", "#000000": "currentColor", PAPER: "var(--paper)", RULE: "var(--rule)"}


def page(
    data: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
) -> str:
    """The whole file; `data` is the content of results.json, a figure has its svg under "text"."""
    budget = content.budget(data, meta)
    labels = content.labels(data, meta)
    key = content.key_table(data, budget=budget, meta=meta)
    sections = [
        ("verdict", "Verdict", _verdicts(data)),
        ("key", "Key numbers", _grid(key) + f"<p class=note>{esc(content.BRACKETS)}</p>"),
        ("ledger", "Ledger", _ledger(data["ledger"], meta.get("notes") or [])),
    ]
    sections += [
        (
            f"a-{safe_name(name)}",
            name.capitalize(),
            _analysis(name, a, labels, figures.get(name, []), tables.get(name, {})),
        )
        for name, a in data["analyses"].items()
    ]
    out = "".join(f"<dt>{esc(i['analysis'])}</dt><dd>{esc(i['why'])}</dd>" for i in meta["left_out"])
    sections += [
        ("left-out", "Left out, and why", f"<dl>{out}</dl>" if out else "<p>Nothing.</p>"),
        ("methods", "Methods", _methods(data, meta)),
    ]
    nav = "".join(f'<li><a href="#{i}">{esc(title)}</a></li>' for i, title, _ in sections)
    body = "".join(
        f'<section id="{i}" aria-labelledby="{i}-h"><h2 id="{i}-h">{esc(title)}</h2>{text}</section>\n'
        for i, title, text in sections
    )
    title = esc(content.title(data, meta))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{CSP}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{asset("report.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header><h1>{title}</h1>
<p class="sub">{esc(content.subtitle(data, meta, budget))}</p>
<nav aria-label="Sections"><ul>{nav}</ul></nav></header>
<main id="main">
{body}</main>
<script>
{asset("report.js")}</script>
</body>
</html>
"""


@cache
def asset(name: str) -> str:
    return files("analyzer.report").joinpath("assets", name).read_text(encoding="utf-8")


def _verdicts(data: Mapping[str, Any]) -> str:
    heads = content.headlines(data)
    if not heads:
        return f"<p>{esc(content.no_verdict(data))}</p>"
    cards = "".join(_card(data, v) for v in heads)
    levels = content.by_level(data)
    rows = "".join(
        f'<tr><th scope="row">{esc(row[0])}</th>' + "".join(f"<td>{_word(c)}</td>" for c in row[1:]) + "</tr>"
        for row in levels.rows
    )
    head = "".join(f'<th scope="col">{esc(c)}</th>' for c in levels.columns)
    words = "".join(f"<dt>{_chip(w)}</dt><dd>{esc(text)}</dd>" for w, text in content.WORDS.items())
    kinds = "".join(f"<dt>{esc(k)}</dt><dd>{esc(text)}</dd>" for k, text in content.LEVELS.items())
    return (
        f'<div class="cards">{cards}</div><h3>By level</h3>'
        f'<div class="wide" tabindex="0" role="region" aria-label="Verdicts by level">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="note">Finest level first; the headline is in capitals.</p>'
        f"<details><summary>What the words mean</summary><dl>{words}{kinds}</dl><p>{esc(content.REACH)}</p></details>"
    )


def _card(data: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    word, reach = v["verdict"], content.reach(data, v)
    head = esc(content.statement(v)).replace(f" is {word.upper()}", f" is <strong>{word.upper()}</strong>", 1)
    why = "".join(f"<li>{esc(w)}.</li>" for w in content.reasons(v))
    said = reach == content.NONE or any(w.startswith("E_") for w in v["why"])
    numbers = "" if said else f'<p class="reach">reach@{v["budget"]} {esc(reach)}</p>'
    return (
        f'<article class="card {word}"><h3>{_chip(word)} <span>{esc(v["source"])}</span></h3>'
        f'<p class="head">{head}.</p>{numbers}<ul>{why}</ul><p class="needs">{esc(content.overturn(v))}</p></article>'
    )


def _chip(word: str) -> str:
    return f'<span class="chip {word}"><span aria-hidden="true">{MARKS[word]}</span> {word.upper()}</span>'


def _word(text: str) -> str:
    word = text.lower()
    if word not in MARKS:
        return esc(text)
    return f'<span class="word {word}"><span aria-hidden="true">{MARKS[word]}</span> {text}</span>'


def _ledger(ledger: Mapping[str, Any], notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{esc(line)}</li>" for line in [*content.ledger_lines(ledger), *notes])
    reasons = content.Grid(["reason", "n"], [[k, content.count(n)] for k, n in ledger["by_reason"].items()], [])
    return f"<ul>{lines}</ul>" + (_grid(reasons) if reasons.rows else "")


def _analysis(
    name: str,
    analysis: Mapping[str, Any],
    labels: Sequence[str],
    figures: Sequence[Mapping[str, Any]],
    tables: Mapping[str, str],
) -> str:
    parts = [f'<p class="question">{esc(analysis["question"])}</p>']
    if analysis["notes"]:
        parts.append("<ul>" + "".join(f"<li>{esc(n)}</li>" for n in analysis["notes"]) + "</ul>")
    shown = {f["table"] for f in figures}
    if figures:
        parts.append('<div class="plots">' + "".join(_figure(f, analysis) for f in figures) + "</div>")
    grid = content.pivot(analysis, labels)
    if grid.rows:
        parts.append(_grid(grid, whole=tables[content.ALL]))
        parts.append(
            _details("Every estimate with n, method and note", content.estimates_table(analysis), tables[content.ALL])
        )
    rest = [t for t in analysis["tables"] if t not in shown]
    parts += [_details(f"Table: {t}", analysis["tables"][t], tables[t]) for t in rest]
    return "".join(parts)


def _figure(f: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    svg = inline_svg(f["text"], prefix=f["svg"].rpartition("/")[2].removesuffix(".svg"), label=f["caption"])
    links = f'<span class="links"><a href="{esc(f["svg"])}">svg</a> <a href="{esc(f["pdf"])}">pdf</a></span>'
    numbers = _details("The numbers of this figure", analysis["tables"][f["table"]], f["csv"])
    caption = f"<figcaption>{esc(f['caption'])} {links}</figcaption>"
    return f'<figure class="w{f["width"]}">{svg}{caption}{numbers}</figure>'


def _details(title: str, table: Mapping[str, Any], path: str) -> str:
    n = len(table["rows"])
    rows = [[content.cell(v) for v in row] for row in table["rows"][:ROWS]]
    said = f"{ROWS} shown of {n}, the whole table in " if n > ROWS else f"{n} {'row' if n == 1 else 'rows'}, also in "
    grid = _grid(content.Grid(list(table["columns"]), rows, []))
    return (
        f"<details><summary>{esc(title)} <small>({n})</small></summary>{grid}"
        f'<p class="note">{said}<a href="{esc(path)}">{esc(path)}</a></p></details>'
    )


def _grid(grid: content.Grid, *, whole: str = "") -> str:
    """A table that scrolls by itself on a narrow screen; numbers to the right, text to the left."""
    shown = grid.rows[:ROWS] if whole else grid.rows
    right = [i > 0 and all(content.numeric(row[i]) for row in shown) for i in range(len(grid.columns))]
    head = "".join(
        f'<th scope="col"{" class=r" if r else ""}>{esc(c)}</th>' for c, r in zip(grid.columns, right, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td class=r>{_number(c)}</td>" if r else f"<td>{esc(c)}</td>" for c, r in zip(row, right, strict=True)
        )
        + "</tr>\n"
        for row in shown
    )
    out = (
        f'<div class="wide" tabindex="0" role="region" aria-label="Table: {esc(", ".join(grid.columns[:4]))}">'
        f"<table class=sort><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    if len(shown) < len(grid.rows):
        said = f"{len(shown)} shown of {len(grid.rows)}, the whole table in "
        out += f'<p class="note">{said}<a href="{esc(whole)}">{esc(whole)}</a></p>'
    if grid.notes:
        notes = "".join(f"<li>{esc(n)}</li>" for n in grid.notes[:ROWS])
        out += (
            f"<details><summary>Why {content.NONE} <small>({len(grid.notes)})</small></summary><ul>{notes}</ul>"
            f"<p>{esc(content.more(len(grid.notes), ROWS))}</p></details>"
        )
    return out


def _number(text: str) -> str:
    """A number with its interval on a second line, which keeps wide tables narrow."""
    value, space, rest = esc(text).partition(" [")
    return f"{value} <small>[{rest}</small>" if space else value


def _methods(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{esc(k)}</dt><dd><code>{esc(v)}</code></dd>" for k, v in content.methods(data, meta).rows)
    decisions = "".join(f"<li>{esc(d)}</li>" for d in meta.get("decisions") or [])
    taken = f"<h3>Decisions taken on the way</h3><ul>{decisions}</ul>" if decisions else ""
    return f'{taken}<h3>Settings</h3><dl class="code">{rows}</dl><p class="note">{esc(content.RAW)}</p>'


def esc(text: str) -> str:
    """Text as text: markup characters become entities, control characters U+FFFD."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", str(text)), quote=True)


def inline_svg(text: str, *, prefix: str, label: str) -> str:
    """A matplotlib svg as an element of the page: no ids but those referred to (with `prefix`), no metadata, no style
    element, ink and paper taken from the page's theme, `label` as its text alternative."""
    root = ET.fromstring(text)
    used = {ref for e in root.iter() for v in e.attrib.values() for ref in re.findall(r"(?:url\(#|^#)([^)\s]+)", v)}

    def convert(e: ET.Element) -> ET.Element | None:
        tag = e.tag.rpartition("}")[2]
        if tag in ("metadata", "style", "script", "title"):
            return None
        out = ET.Element(tag)
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
