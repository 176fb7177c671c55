"""The report as blocks, before any markup: verdict, evidence, traces, methods. Every page is drawn from this one form.

What stands in it is that of results.json, so that index.html and report.md say the same in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from analyzer.analysis.figures import safe_name
from analyzer.pages import content, findings, key, lead, methods, paper, sequences
from analyzer.pages.content import ALL, Grid, count

OPEN = 10  # a table of estimates with more rows is folded
LIVE = {  # panels that the script fills: id, heading, what it answers
    "viewer": ("Viewer", "traces", "Every token with what the base model thought of it. Keys: ? inside the viewer."),
    "compare": (
        "Compare two sources",
        "compared",
        "Any two sources on the problems that both have; a problem leads to its traces side by side.",
    ),
    "tree": (
        "Tree of prefixes",
        "prefixes",
        "Which paths do samples of a problem share, what did the second source keep of the first, and what is lost?",
    ),
}


class Text(NamedTuple):
    text: str
    look: str = "note"


class Items(NamedTuple):
    items: Sequence[str]


class Heading(NamedTuple):
    text: str


class Table(NamedTuple):
    """A table as text; `path` is the csv that holds all of it where a page shows its beginning."""

    grid: Grid
    path: str = ""
    title: str = ""


class Data(NamedTuple):
    """A table of results.json by its title, to be looked up in the csv at `path`."""

    title: str
    table: Mapping[str, Any]
    path: str


class Plot(NamedTuple):
    """A saved figure; `table` holds its numbers."""

    figure: Mapping[str, Any]
    table: Mapping[str, Any]


class Facts(NamedTuple):
    """Terms with what is said of each; `code`: what is said is a setting."""

    pairs: Sequence[tuple[str, str]]
    code: bool = False


class Paste(NamedTuple):
    """Text to be copied into a paper."""

    id: str
    title: str
    text: str


class Host(NamedTuple):
    """A place that the script fills; `focus`: the source that it looks at first."""

    id: str
    focus: str = ""


class Caption(NamedTuple):
    """The whole caption of a figure, which shows its beginning, with its files."""

    plot: Plot


class Fold(NamedTuple):
    """What is folded until a reader asks for it."""

    title: str
    blocks: Sequence[Any]


class Panel(NamedTuple):
    """One question: its answer in a sentence, what shows it, and what is folded."""

    id: str
    heading: str
    said: str = ""
    question: str = ""
    plots: Sequence[Plot] = ()
    blocks: Sequence[Any] = ()
    folds: Sequence[Fold] = ()


class Part(NamedTuple):
    id: str
    heading: str
    panels: Sequence[Panel]


class Link(NamedTuple):
    href: str
    text: str
    quote: str = ""


class Card(NamedTuple):
    """What is said of one source. told: what stands before any word; open: that no word was earned; look: what it
    speaks of, the comparison with the reference and `of` how many flagged traces the strongest."""

    word: str
    source: str
    level: str
    told: Sequence[str]
    statement: str
    numbers: str
    reasons: Sequence[str]
    overturn: str
    levels: Sequence[tuple[str, str]]
    rungs: Grid
    look: Sequence[Link]
    of: str
    open: str


class Document(NamedTuple):
    title: str
    subtitle: str
    basis: Sequence[str]
    question: str
    answer: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    none: str
    plots: Sequence[Plot]
    between: str
    doubts: Sequence[tuple[str, bool | None, str]]
    parts: Sequence[Part]


def build(
    data: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
    seen: str | None = None,
) -> Document:
    """The report of `data`, the content of results.json; `figures` and `tables` hold paths relative to the page.

    seen: the sentence on the traces that the page holds, or None where it holds none.
    """
    budget, basis = content.budget(data, meta), key.basis(data, meta)
    plots = {
        name: {f["name"]: Plot(f, analysis["tables"][f["table"]]) for f in figures.get(name, ())}
        for name, analysis in data["analyses"].items()
    }
    first = findings.pictures(plots)
    panels = [
        _panel(data, name, plots[name], first, tables.get(name, {}), budget, meta, seen is not None)
        for name in data["analyses"]
        if name not in ("compared", "robustness")
    ]
    robust = _robustness(data, meta, plots.get("robustness", {}), tables.get("robustness", {}), budget)
    parts = [
        Part("evidence", "Evidence", [_key(data, budget, meta), *panels, robust]),
        *([Part("paths", "Traces", _live(data, seen))] if seen is not None else []),
        Part("record", "How this was made", _record(data, meta, basis)),
    ]
    shown = content.short(data)
    if lead.texts_alone(data):  # the word of the tokens is no finding there: the cards lead with numbers
        shown = [(w, who) for w, who in shown if w != "undetermined"]
    heads = content.headlines(data)
    return Document(
        title=content.title(data, meta),
        subtitle=content.subtitle(data, meta, budget),
        basis=basis,
        question=content.question(data, meta, budget),
        answer=[(word, ", ".join(who)) for word, who in shown],
        cards=[_card(data, v, seen is not None) for v in heads],
        none="" if heads else content.no_verdict(data),
        plots=[plots[name][figure] for name, figure in first],
        between=findings.between(data),
        doubts=content.doubts(data),
        parts=parts,
    )


def _card(data: Mapping[str, Any], v: Mapping[str, Any], linked: bool) -> Card:
    source, why = v["source"], content.reasons(v)
    levels = {row["level"]: row for row in data["verdicts"] if row["source"] == source}
    found = content.worst(data, source) if linked else []
    look = [Link(_address("compare", v["reference"], source), f"compare with {v['reference']}")] if linked else []
    for row in found:
        name = row["key"][len(source) + 1 :]
        place = _address("trace", source, row["problem"], name[len(row["problem"]) + 1 :])
        look.append(Link(place, name, row["text"] or ""))
    return Card(
        word=v["verdict"],
        source=source,
        level=v["level"],
        told=lead.sentences(data, source, v["reference"]),
        statement=content.statement(v),
        numbers=content.evidence(data, v),
        reasons=[w if w.startswith("reach@") else w[:1].upper() + w[1:] for w in why],
        overturn=content.overturn(v),
        levels=[(level, levels[level]["verdict"]) for level in content.LEVELS if level in levels],
        rungs=content.rungs(data, source),
        look=look,
        of=f"{len(found)} of {count(found[0]['of'])} flagged traces" if found else "",
        open=lead.certified(data, source),
    )


def _address(*parts: str) -> str:
    return "#/" + "/".join(quote(part, safe="", errors="replace") for part in parts)


def _key(data: Mapping[str, Any], budget: int, meta: Mapping[str, Any]) -> Panel:
    under = f"Under the base: {content.asked(data)}. " if content.asked(data) else ""
    shown = [Table(grid, title=title) for title, grid in key.tables(data, budget=budget, meta=meta)]
    return Panel("key", "Key numbers", blocks=[*shown, Text(under + content.BRACKETS)])


def _panel(
    data: Mapping[str, Any],
    name: str,
    plots: Mapping[str, Plot],
    first: Sequence[tuple[str, str]],
    tables: Mapping[str, str],
    budget: int,
    meta: Mapping[str, Any],
    linked: bool,
) -> Panel:
    """An analysis; its figures on the first screen (`first`) are not shown again."""
    analysis = data["analyses"][name]
    left = {figure: plot for figure, plot in plots.items() if (name, figure) not in first}
    shown = findings.shown(name, list(left))
    folds = []
    if name == "support":
        folds = _sequences(data, budget)
    if name == "clusters" and linked:
        folds = [Fold("Map", [Text(content.map_note(analysis)), Host("map")])]
    pairs = [Table(methods.pairs(data))] if name == "paired" and methods.pairs(data).rows else None
    rest = [plot for figure, plot in left.items() if figure not in shown]
    folds += _details(analysis, list(plots.values()), rest, content.labels(data, meta), tables, pairs)
    said, question = findings.said(data, name, budget), analysis["question"]
    at = f"a-{safe_name(name)}"
    return Panel(at, content.heading(name), said, question, [left[figure] for figure in shown], (), folds)


def _details(
    analysis: Mapping[str, Any],
    plots: Sequence[Plot],
    rest: Sequence[Plot],
    labels: Sequence[str],
    tables: Mapping[str, str],
    instead: Sequence[Any] | None = None,
) -> list[Fold]:
    """What figures show in full, notes, further figures, estimates by source (or `instead` of them), every table."""
    grid = content.pivot(analysis, labels)
    whole = Table(grid, tables.get(ALL, ""))
    if instead is None:
        instead = [] if not grid.rows else [whole] if len(grid.rows) <= OPEN else [Fold("Estimates by source", [whole])]
    found = analysis["tables"].items()
    data = [Data(f"Table: {name}", table, tables[name]) for name, table in found]
    if analysis["estimates"]:
        every = content.estimates_table(analysis)
        data.insert(0, Data("Every estimate with n, method and note", every, tables[ALL]))
    blocks = [
        *([Items(analysis["notes"])] if analysis["notes"] else []),
        *map(Caption, plots),
        *rest,
        *instead,
        *data,
    ]
    return [Fold("Notes, intervals, tables", blocks)] if blocks else []


def shortened(caption: str) -> str:
    """The beginning of a caption: what is drawn, without the numbers that the figure shows."""
    first = re.split(r"(?<=[^ .]\.) ", caption, maxsplit=1)[0]
    return re.split(r": (?=[^:]*? [\d.]+(?: \[|%|,| /))", first, maxsplit=1)[0].rstrip(".") + "."


def _sequences(data: Mapping[str, Any], budget: int) -> list[Fold]:
    """Where the sources leave the base: steps in numbers, the hurdles with their places, stretches, laws."""
    steps = sequences.numbers(data, budget)
    parts = (
        ("Steps in numbers", "", steps),
        ("Hurdles", sequences.hurdle(budget), sequences.hurdles(data)),
        ("Stretches", sequences.STRETCHES, sequences.stretches(data)),
        ("Laws of the base", sequences.LAWS, sequences.laws(data, budget)),
    )
    folds = []
    for title, said, grid in parts:
        beside = [] if grid is steps or not grid.notes else [Text(f"{'; '.join(grid.notes)}.")]
        table = [Table(grid if grid is steps else grid._replace(notes=[]))] if grid.rows else []
        if table or beside:
            folds.append(Fold(title, [*([Text(said)] if said else []), *table, *beside]))
    return folds


def _robustness(
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
    plots: Mapping[str, Plot],
    tables: Mapping[str, str],
    budget: int,
) -> Panel:
    own, words = methods.robustness(data, budget=budget), methods.varied(data)
    tested = [Table(own)] if own.rows else [Text("No analysis of this run tested its own verdicts.", "")]
    if "robustness" not in data["analyses"]:
        folds = [Fold("What the analyses tested themselves", tested)] if own.rows else []
        said = methods.NOT_VARIED
        return Panel("robustness", "Robustness", said, blocks=[] if own.rows else tested, folds=folds)
    analysis = data["analyses"]["robustness"]
    varied = [Table(words._replace(notes=[])), Items(words.notes)] if words.rows else []
    folds = _details(analysis, list(plots.values()), [], content.labels(data, meta), tables)
    folds = [*([Fold("Every variation", varied)] if varied else []), Fold("Tests of the analyses", tested), *folds]
    said = findings.said(data, "robustness", budget)
    return Panel("robustness", "Robustness", said, analysis["question"], list(plots.values()), (), folds)


def _live(data: Mapping[str, Any], seen: str) -> list[Panel]:
    """The panels that the script fills: traces, comparison, tree."""
    under = f" Under the base: {content.asked(data)}." if content.asked(data) else ""
    moved = [v["source"] for v in content.headlines(data) if v["verdict"] not in ("inside", "undetermined")]
    out = []
    for at, (heading, host, asked) in LIVE.items():
        place = Host(host, moved[0] if moved else "")
        blocks = [Text(seen + under), place] if at == "viewer" else []
        folds = [] if at == "viewer" else [Fold("Show", [place])]
        out.append(Panel(at, heading, "", asked, (), blocks, folds))
    return out


def _record(data: Mapping[str, Any], meta: Mapping[str, Any], basis: Sequence[str]) -> list[Panel]:
    ledger, notes = data["ledger"], [*basis, *(meta.get("notes") or [])]
    reasons = Grid(["reason", "n"], [[why, count(n)] for why, n in ledger["by_reason"].items()], [])
    rows = [Fold("Reasons", [Table(reasons)])] if reasons.rows else []
    left = [(i["analysis"], i["why"]) for i in meta["left_out"]]
    decisions = meta.get("decisions") or []
    words = [*content.WORDS.items(), *content.LEVELS.items()]
    paste = [
        Paste("paragraph", "A paragraph for your paper", paper.paragraph(data, meta)),
        Paste("latex", "The key table in LaTeX", paper.latex(data, meta)),
    ]
    settings = [(what, value) for what, value in methods.settings(data, meta).rows]
    return [
        Panel(
            "ledger",
            "Ledger",
            blocks=[Items(content.ledger_lines(ledger))],
            folds=[*rows, *([Fold("Notes on the input", [Items(notes)])] if notes else [])],
        ),
        Panel(
            "left-out",
            "Left out, and why",
            blocks=[] if left else [Text("Nothing.", "")],
            folds=[Fold("Analyses and figures left out", [Facts(left)])] if left else [],
        ),
        Panel(
            "methods",
            "Methods",
            f"analyzer {data['version']}; with the same input and settings the same bytes are written.",
            folds=[
                Fold("How to read the verdicts", [Facts(words), Text(content.REACH), Text(content.BOUNDS)]),
                Fold("Glossary", [Facts(list(content.GLOSSARY.items()))]),
                *([Fold("Decisions taken on the way", [Items(decisions)])] if decisions else []),
                Fold("For your paper", paste),
                Fold("Settings", [Facts(settings, code=True), Text(content.RAW)]),
            ],
        ),
    ]

