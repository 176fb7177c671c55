"""index.html: one file that opens from disk with the network off. Its words are in `content`, its elements in `parts`.

The policy of the page allows one script, by its hash; only a report too large for one file may also load its own packs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from analyzer.analysis.figures import safe_name
from analyzer.pages import content, key, lead, methods, paper, sequences
from analyzer.pages.embed import Embedded
from analyzer.pages.parts import details, esc, grid, inline_svg, pack, points
from analyzer.records.display import MARKS

ASSETS = ("core.js", "data.js", "plot.js", "views.js", "tree.js", "viewer.js")
OPEN = 10  # a table of estimates with more rows is folded
NOTES = 6  # of an analysis; further ones are folded
DOUBTS = {True: "⚠", False: "✓", None: content.NONE}  # None: not all of it could be checked
Sections = list[tuple[str, str, str]]  # id, heading, html


def page(
    data: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
    embedded: Embedded | None = None,
    beside: bool = False,
) -> str:
    """The whole file; `data` is the content of results.json, a figure has its svg under "text".

    embedded: the traces of the viewer, or None; `beside` says that their packs are files in the folder data.
    """
    budget, said = content.budget(data, meta), key.basis(data, meta)
    sections = [
        ("verdict", "Verdict", _verdicts(data, embedded is not None)),
        ("key", "Key numbers", _key(data, budget, meta)),
        ("ledger", "Ledger", _ledger(data["ledger"], [*said, *(meta.get("notes") or [])])),
    ]
    drawn = {**dict.fromkeys(data["analyses"], ()), **figures}
    special = {"robustness", "paired", "compared"}  # shown in sections of their own
    for name, analysis in data["analyses"].items():
        if name not in special:
            shown, above = list(drawn[name]), ""
            if name == "support":
                first = (*sequences.FIRST, *sequences.STEPS)
                above = _sequences(data, budget, [f for f in shown if f["name"] in first], tables.get(name, {}))
                shown = [f for f in shown if f["name"] not in first]
            text = _analysis(name, analysis, content.labels(data, meta), shown, tables.get(name, {}), above)
            if name == "clusters" and embedded:
                text += f'<h3>Map</h3><p class="note">{esc(content.map_note(analysis))}</p><div id="map"></div>'
            sections.append((f"a-{safe_name(name)}", content.heading(name), text))
    sections += _live(data, meta, drawn, tables, embedded)
    sections.append(("robustness", "Robustness", _robustness(data, meta, drawn, tables, budget)))
    out = "".join(f"<dt>{esc(i['analysis'])}</dt><dd>{esc(i['why'])}</dd>" for i in meta["left_out"])
    sections += [
        ("left-out", "Left out, and why", f"<dl>{out}</dl>" if out else "<p>Nothing.</p>"),
        ("methods", "Methods", _methods(data, meta)),
    ]
    packs = "" if embedded is None else pack("index", embedded.index) + "\n"
    if embedded is not None and not beside:
        packs += "\n".join(pack(f"t{i}", text) for i, text in enumerate(embedded.packs)) + "\n"
    shown = content.short(data)
    if lead.texts_alone(data):  # the word of the tokens is no finding there: the cards lead with numbers
        shown = [(w, who) for w, who in shown if w != "undetermined"]
    answer = "".join(f"<span>{_chip(w)} {esc(', '.join(who))}</span>" for w, who in shown)
    answer = f'<p class="answer">{answer}</p>' if answer else ""
    doubt = " · ".join(f'<a href="#{i}">{DOUBTS[bad]} {esc(text)}</a>' for i, bad, text in content.doubts(data))
    head = (
        f"<h1>{esc(content.title(data, meta))}</h1>\n"
        f"{''.join(f'<p class=basis><strong>{esc(line)}</strong></p>' for line in said)}"
        f'<p class="sub">{esc(content.subtitle(data, meta, budget))}</p>{answer}'
        f'<p class="note">Doubts: {doubt}</p>'
    )
    return _document(content.title(data, meta), head, sections, packs, beside)


def _document(title: str, head: str, sections: Sections, packs: str, beside: bool) -> str:
    code = script()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    own = " 'self'" if beside else ""
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'{own}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    nav = "".join(
        f'<li><a href="#{i}">{esc(content.SHORT.get(heading, heading))}</a></li>' for i, heading, _ in sections
    )
    body = "".join(
        f'<section id="{i}" aria-labelledby="{i}-h"><h2 id="{i}-h">{esc(heading)}</h2>{text}</section>\n'
        for i, heading, text in sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{esc(title)}</title>
<link rel="icon" href="data:,">
<style>
{_plain("report.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header>{head}</header>
<nav aria-label="Sections"><ul>{nav}</ul></nav>
<main id="main">
{body}</main>
{packs}<script>{code}</script>
</body>
</html>
"""


@cache
def asset(name: str) -> str:
    return files("analyzer.pages").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def script() -> str:
    """The one script of the page: the files of assets/ inside one function, without comments and indents."""
    return '"use strict";(() => {\n' + "".join(map(_plain, ASSETS)) + "})();\n"


def _plain(name: str) -> str:
    """An asset without its comment lines and indents."""
    lines = (line.strip() for line in asset(name).splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(("//", "/*")))


def _verdicts(data: Mapping[str, Any], linked: bool) -> str:
    heads = content.headlines(data)
    if not heads:
        return f"<p>{esc(content.no_verdict(data))}</p>"
    grid_ = content.by_level(data)
    levels = {row[0]: list(zip(grid_.columns[1:], row[1:], strict=True)) for row in grid_.rows}
    cards = "".join(_card(data, v, levels[v["source"]], _look(data, v) if linked else "") for v in heads)
    words = "".join(f"<dt>{_chip(w)}</dt><dd>{esc(text)}</dd>" for w, text in content.WORDS.items())
    kinds = "".join(f"<dt>{esc(k)}</dt><dd>{esc(text)}</dd>" for k, text in content.LEVELS.items())
    return (
        f'<div class="cards">{cards}</div>'
        f"<details><summary>What the verdicts mean</summary><dl>{words}{kinds}</dl><p>{esc(content.REACH)}</p>"
        f"<p>{esc(content.BOUNDS)}</p></details>"
    )


def _card(data: Mapping[str, Any], v: Mapping[str, Any], levels: Sequence[tuple[str, str]], look: str) -> str:
    word, numbers, why = v["verdict"], content.evidence(data, v), content.reasons(v)
    head = esc(content.statement(v)).replace(f" is {word.upper()}", f" is <strong>{word.upper()}</strong>", 1)
    said = f'<p class="note">Whole traces and steps, 95 % intervals by problem: {esc(numbers)}.</p>' if numbers else ""
    begin = why[0] if why else ""
    first = f" {esc(begin if begin.startswith('reach@') else begin[:1].upper() + begin[1:])}." if why else ""
    rest = "".join(f"<li>{esc(w)}.</li>" for w in why[1:])
    more = f"{len(why) - 1} further point{'s' if len(why) > 2 else ''}"
    folded = f"<details><summary>Why: {more}</summary><ul>{rest}</ul></details>" if rest else ""
    others = grid(content.levels(data, v["source"]))
    folded += f"<details><summary>Every other level: why, and what would decide it</summary>{others}</details>"
    steps = " · ".join(f"{esc(level)} {_word(w)}" for level, w in levels)
    head = f'<p class="head">{head}.{first}</p>'
    told = "".join(f'<p class="head">{esc(s)}.</p>' for s in lead.sentences(data, v["source"], v["reference"]))
    open_ = lead.certified(data, v["source"])
    top = f'{_chip(word)} <span>{esc(v["source"])}</span><small class="levels">{steps}</small>'
    if open_:  # no word before the numbers
        top = f"<span>{esc(v['source'])}</span>"
        head = f'<p class="note">{esc(open_)}.</p>{head.replace("head", "note", 1)}'
        head += f'<p class="note">{steps}</p>'
    return (
        f'<article class="card" style="{_colour(word)}"><h3>{top}</h3>'
        f'{told}{head}{said}<p class="needs">{esc(content.overturn(v))}</p>'
        f"{look}{folded}</article>"
    )


def _look(data: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    """Links from a verdict to what it speaks of: the comparison with the reference, the strongest flagged traces."""
    source, reference = v["source"], v["reference"]
    links = [f'<a href="{_address("compare", reference, source)}">compare with {esc(reference)}</a>']
    found = content.worst(data, source)
    for row in found:
        name = row["key"][len(source) + 1 :]
        sample = name[len(row["problem"]) + 1 :]
        said = f" <q>{esc(row['text'])}</q>" if row["text"] else ""
        links.append(f'<a href="{_address("trace", source, row["problem"], sample)}">{esc(name)}</a>{said}')
    if found:
        links.append(f"{len(found)} of {content.count(found[0]['of'])} flagged traces")
    return f'<p class="look">Look: {" · ".join(links)}</p>'


def _address(*parts: str) -> str:
    return "#/" + "/".join(quote(part, safe="", errors="replace") for part in parts)


def _chip(word: str) -> str:
    mark = f'<span aria-hidden="true">{MARKS[word]}</span>'
    return f'<span class="chip" style="{_colour(word)}">{mark} {word.upper()}</span>'


def _colour(word: str) -> str:
    return f"--word: var(--{word})"


def _word(text: str) -> str:
    word = text.lower()
    if word not in MARKS:
        return esc(text)
    mark = f'<span aria-hidden="true">{MARKS[word]}</span>'
    return f'<span class="word" style="{_colour(word)}">{mark} {text}</span>'


def _key(data: Mapping[str, Any], budget: int, meta: Mapping[str, Any]) -> str:
    said = f"Under the base: {content.asked(data)}. " if content.asked(data) else ""
    shown = "".join(
        f'<p class="note">{esc(title)}:</p><div class="tight">{grid(table)}</div>'
        for title, table in key.tables(data, budget=budget, meta=meta)
    )
    return f"{shown}<p class=note>{esc(said + content.BRACKETS)}</p>"


def _ledger(ledger: Mapping[str, Any], notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{esc(line)}</li>" for line in content.ledger_lines(ledger))
    said = "".join(f"<li>{esc(note)}</li>" for note in notes)
    reasons = content.Grid(["reason", "n"], [[k, content.count(n)] for k, n in ledger["by_reason"].items()], [])
    folded = f"<details><summary>Notes on the input <small>({len(notes)})</small></summary><ul>{said}</ul></details>"
    shown = f"<ul>{lines}{said if len(notes) <= 3 else ''}</ul>" + (folded if len(notes) > 3 else "")
    return shown + (grid(reasons) if reasons.rows else "")


def _analysis(
    name: str,
    analysis: Mapping[str, Any],
    labels: Sequence[str],
    figures: Sequence[Mapping[str, Any]],
    tables: Mapping[str, str],
    above: str = "",
) -> str:
    parts = [f'<p class="question">{esc(analysis["question"])}</p>{above}']
    if figures:
        parts.append('<div class="plots">' + "".join(_figure(f, analysis) for f in figures) + "</div>")
    if analysis["notes"]:
        parts.append(_notes(analysis["notes"]))
    shown = {f["table"] for f in figures}
    table = content.pivot(analysis, labels)
    if table.rows:
        every = content.estimates_table(analysis)
        whole = grid(table, whole=tables[content.ALL])
        folded = f"<details><summary>Estimates by source <small>({len(table.rows)})</small></summary>{whole}</details>"
        parts.append(whole if len(table.rows) <= OPEN else folded)
        parts.append(details("Every estimate with n, method and note", every, tables[content.ALL]))
    rest = [t for t in analysis["tables"] if t not in shown and analysis["tables"][t]["rows"]]
    empty = [t for t in analysis["tables"] if not analysis["tables"][t]["rows"]]
    parts += [details(f"Table: {t}", analysis["tables"][t], tables[t]) for t in rest]
    if empty:
        parts.append(f'<p class="note">Without rows in this run: {esc(", ".join(empty))}.</p>')
    return "".join(parts)


def _sequences(
    data: Mapping[str, Any], budget: int, figures: Sequence[Mapping[str, Any]], tables: Mapping[str, str]
) -> str:
    """Where the sources leave the base: the prefix curve, the hurdles with their places, stretches, laws."""
    analysis = data["analyses"]["support"]
    drawn = {f["name"]: _figure(f, analysis) for f in figures}
    steps = sequences.numbers(data, budget)
    beside = f'<div class="tight">{grid(steps)}</div>' if steps.rows else ""
    first = "".join(drawn[name] for name in sequences.FIRST if name in drawn)
    parts = [f'<div class="plots">{first}{beside}</div>'] if first or beside else []
    plots = "".join(drawn[name] for name in sequences.STEPS if name in drawn)
    for title, said, table, below in (
        ("Hurdles", sequences.hurdle(budget), sequences.hurdles(data), plots),
        ("Stretches", sequences.STRETCHES, sequences.stretches(data), ""),
        ("Laws of the base", sequences.LAWS, sequences.laws(data, budget), ""),
    ):
        if not table.rows and not table.notes:
            continue
        notes = f"<p class=note>{esc('; '.join(table.notes))}.</p>" if table.notes else ""
        shown = f'<div class="tight broad">{grid(table._replace(notes=[]))}</div>' if table.rows else ""
        parts.append(f"<h3>{title}</h3><p class=note>{esc(said)}</p>{shown}{notes}")
        parts.append(f'<div class="plots">{below}</div>' if below else "")
    return "".join(parts) + ("<h3>Whole traces and novelty</h3>" if parts else "")


def _notes(notes: Sequence[str]) -> str:
    """A list; what is beyond the first few is folded."""
    few = NOTES if len(notes) > NOTES + 1 else len(notes)
    first, rest = ("".join(f"<li>{esc(n)}</li>" for n in part) for part in (notes[:few], notes[few:]))
    folded = f"<details><summary>{len(notes) - few} further notes</summary><ul class=notes>{rest}</ul></details>"
    return f"<ul class=notes>{first}</ul>" + (folded if rest else "")


def _figure(f: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    table, name = analysis["tables"][f["table"]], f["svg"].rpartition("/")[2].removesuffix(".svg")
    svg = inline_svg(f["text"], prefix=name, label=f["caption"], say=points(table))
    links = f'<span class="links"><a href="{esc(f["svg"])}">svg</a> <a href="{esc(f["pdf"])}">pdf</a></span>'
    numbers = details("The numbers of this figure", table, f["csv"])
    caption = f"<figcaption>{esc(f['caption'])} {links}</figcaption>"
    return f'<figure class="w{f["width"]}">{svg}{caption}{numbers}</figure>'


def _live(
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
    embedded: Embedded | None,
) -> Sections:
    """The sections that the script fills: comparison, traces, tree."""
    if embedded is None:
        return []
    need = "<noscript><p>This part needs JavaScript; the rest of the page does not.</p></noscript>"
    pairs = ""
    if "paired" in data["analyses"]:
        pairs = _pairs(data, figures["paired"], tables.get("paired", {}))
    said = f" Under the base: {content.asked(data)}." if content.asked(data) else ""
    note = f'<p class="note">{esc(embedded.note + said)}</p>'
    moved = [v["source"] for v in content.headlines(data) if v["verdict"] not in ("inside", "undetermined")]
    focus = esc(moved[0] if moved else "")  # the source that is compared first
    asked = "Any two sources on the problems that both have; a problem leads to its traces side by side."
    tree = "Which paths do samples of a problem share, what did the second source keep of the first, and what is lost?"
    look = "Every token with what the base model thought of it. Keys: ? inside the viewer."
    return [
        (
            "compare",
            "Compare two sources",
            f'{need}<p class="question">{asked}</p>{pairs}<div id="compared" data-focus="{focus}"></div>',
        ),
        ("viewer", "Traces", f'{need}<p class="question">{look}</p>{note}<div id="traces"></div>'),
        (
            "tree",
            "Tree of prefixes",
            f'{need}<p class="question">{tree}</p><div id="prefixes" data-focus="{focus}"></div>',
        ),
    ]


def _pairs(data: Mapping[str, Any], figures: Sequence[Mapping[str, Any]], tables: Mapping[str, str]) -> str:
    """The pairs of `paired` in one table, with their figures and what they say."""
    analysis, found = data["analyses"]["paired"], methods.pairs(data)
    plots = "".join(_figure(f, analysis) for f in figures)
    every = details("Every estimate with n, method and note", content.estimates_table(analysis), tables[content.ALL])
    names = set(analysis["tables"]) - {f["table"] for f in figures}
    rest = "".join(details(f"Table: {t}", analysis["tables"][t], tables[t]) for t in sorted(names))
    return (
        f'<p class="question">{esc(analysis["question"])}</p>{grid(found) if found.rows else ""}'
        f'{_notes(analysis["notes"])}<div class="plots">{plots}</div>{every}{rest}'
    )


def _robustness(
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
    budget: int,
) -> str:
    found, words = methods.robustness(data, budget=budget), methods.varied(data)
    parts = [grid(found) if found.rows else "<p>No analysis of this run tested its own verdicts.</p>"]
    if "robustness" not in data["analyses"]:
        return parts[0] + f'<p class="note">{esc(methods.NOT_VARIED)}</p>'
    analysis, labels = data["analyses"]["robustness"], content.labels(data, meta)
    if words.rows:
        said = "".join(f"<li>{esc(n)}</li>" for n in words.notes)
        whole = f"<details><summary>What each variation is</summary><ul>{said}</ul></details>"
        parts.insert(0, grid(words._replace(notes=[])) + whole + "<h3>What the analyses tested themselves</h3>")
    parts.insert(0, _analysis("robustness", analysis, labels, figures["robustness"], tables.get("robustness", {})))
    return "".join(parts)


def _methods(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{esc(k)}</dt><dd><code>{esc(v)}</code></dd>" for k, v in methods.settings(data, meta).rows)
    decisions = "".join(f"<li>{esc(d)}</li>" for d in meta.get("decisions") or [])
    taken = f"<h3>Decisions taken on the way</h3><ul>{decisions}</ul>" if decisions else ""
    pasted = "".join(
        f'<h3>{title} <button type="button" data-copy="{i}">Copy</button></h3><pre id="{i}">{esc(text)}</pre>'
        for i, title, text in (
            ("paragraph", "A paragraph for your paper", paper.paragraph(data, meta)),
            ("latex", "The key table in LaTeX", paper.latex(data, meta)),
        )
    )
    return f'{taken}{pasted}<h3>Settings</h3><dl class="code">{rows}</dl><p class="note">{esc(content.RAW)}</p>'
