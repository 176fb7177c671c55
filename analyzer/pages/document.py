"""The report before any markup: parts of panels of blocks, from which index.html and report.md are drawn alike.

A panel answers one question: what was found, the figure that shows it, and what is folded. A block is a dict with its
"kind": text, list, table (a Grid), data (a table of results.json with its csv), plot (a saved figure), caption (all of
it, with its files), facts (terms, each with its value), paste (text for a paper), host (what the script fills),
fold (a title over blocks). The templates have a macro for each kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analyzer.analysis.figures import safe_name
from analyzer.pages import content, findings, key, ledgers, methods, paper, sequences, wording
from analyzer.pages.content import ALL, Grid, count

Block = dict[str, Any]
OPEN = 10  # a table of estimates with more rows is folded
LIVE = {  # panels that the script fills: heading, the place that it fills, what it answers
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


def build(
    data: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
    tables: Mapping[str, Mapping[str, str]],
    seen: str | None = None,
) -> dict[str, Any]:
    """The report of `data`, the content of results.json; `figures` and `tables` hold paths relative to the page.

    seen: the sentence on the traces that the page holds, or None where it holds none.
    """
    budget, basis = content.budget(data, meta), key.basis(data, meta)
    plots = {
        name: {f["name"]: _block("plot", figure=f, table=found["tables"][f["table"]]) for f in figures.get(name, ())}
        for name, found in data["analyses"].items()
    }
    first = findings.pictures(plots)
    names = [name for name in data["analyses"] if name not in ("compared", "robustness")]
    evidence = [_key(data, budget, meta)]
    evidence += [_analysis(data, name, plots[name], first, tables, budget, meta, seen is not None) for name in names]
    evidence.append(_robustness(data, meta, plots.get("robustness", {}), tables, budget))
    parts = {
        "evidence": ("Evidence", evidence),
        "paths": ("Traces", [] if seen is None else _live(data, seen)),
        "record": ("How this was made", _record(data, meta, basis)),
    }
    return {
        "data": data,
        "title": content.title(data, meta),
        "subtitle": content.subtitle(data, meta, budget),
        "basis": basis,
        "question": content.question(data, meta, budget),
        "heads": content.headlines(data),
        "plots": [plots[name][figure] for name, figure in first],
        "between": findings.between(data),
        "doubts": content.doubts(data),
        "linked": seen is not None,
        "short": False,
        "parts": {name: part for name, part in parts.items() if part[1]},
    }


def short(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same on one printed page: the answers with their figures, and the key numbers."""
    heading, panels = document["parts"]["evidence"]
    return {**document, "short": True, "linked": False, "parts": {"evidence": (heading, panels[:1])}}


def _block(kind: str, **values: Any) -> Block:
    return {"kind": kind, **values}


def _text(text: str, look: str = "note") -> Block:
    return _block("text", text=text, look=look)


def _list(lines: Iterable[str]) -> Block:
    return _block("list", lines=list(lines))


def _table(grid: Grid, path: str = "", title: str = "", look: str = "") -> Block:
    return _block("table", grid=grid, path=path, title=title, look=look)


def _fold(title: str, *blocks: Block) -> list[Block]:
    """A folded part; none without blocks."""
    return [_block("fold", title=title, blocks=blocks)] if blocks else []


def _panel(at: str, heading: str, said: str = "", question: str = "", **more: Sequence[Block]) -> dict[str, Any]:
    """more: plots, blocks, folds."""
    parts = {"plots": (), "blocks": (), "folds": (), **more}
    return {"id": at, "heading": heading, "said": said, "question": question, **parts}


def _key(data: Mapping[str, Any], budget: int, meta: Mapping[str, Any]) -> dict[str, Any]:
    under = f"Under the base: {content.asked(data)}. " if content.asked(data) else ""
    shown = [_table(grid, title=title) for title, grid in key.tables(data, budget=budget, meta=meta)]
    return _panel("key", "Key numbers", blocks=[*shown, _text(under + wording.BRACKETS)])


def _analysis(
    data: Mapping[str, Any],
    name: str,
    plots: Mapping[str, Block],
    first: Sequence[tuple[str, str]],
    tables: Mapping[str, Mapping[str, str]],
    budget: int,
    meta: Mapping[str, Any],
    linked: bool,
) -> dict[str, Any]:
    """An analysis; its figures on the first screen (`first`) are not shown again."""
    analysis = data["analyses"][name]
    left = {figure: plot for figure, plot in plots.items() if (name, figure) not in first}
    shown = findings.shown(name, list(left))
    rest = [plot for figure, plot in left.items() if figure not in shown]
    pairs = [_table(methods.pairs(data))] if name == "paired" and methods.pairs(data).rows else None
    folds = _sequences(data, budget) if name == "support" else []
    if name == "clusters" and linked:
        folds = _fold("Map", _text(content.map_note(analysis)), _block("host", id="map", focus=""))
    folds += _details(analysis, plots.values(), rest, content.labels(data, meta), tables.get(name, {}), pairs)
    said, open_ = findings.said(data, name, budget), [left[figure] for figure in shown]
    place, narrow = f"a-{safe_name(name)}", []
    if name == "contained":  # its many bars are no picture on a small screen
        grid = content.pivot(analysis, content.labels(data, meta))
        shares = [row for row in grid.rows if row[0].startswith("contained@")]
        narrow = [_table(Grid(grid.columns, shares, []), look="narrow")]
    return _panel(place, content.heading(name), said, analysis["question"], plots=open_, blocks=narrow, folds=folds)


def _details(
    analysis: Mapping[str, Any],
    plots: Iterable[Block],
    rest: Sequence[Block],
    labels: Sequence[str],
    tables: Mapping[str, str],
    instead: Sequence[Block] | None = None,
) -> list[Block]:
    """Notes, what figures show in full, further figures, estimates by source (or `instead` of them), every table."""
    if instead is None:
        grid = content.pivot(analysis, labels)
        whole = _table(grid, tables.get(ALL, ""))
        instead = [] if not grid.rows else [whole] if len(grid.rows) <= OPEN else _fold("Estimates by source", whole)
    found = {f"Table: {name}": (table, name) for name, table in analysis["tables"].items()}
    if analysis["estimates"]:
        found = {"Every estimate with n, method and note": (content.estimates_table(analysis), ALL), **found}
    data = [_block("data", title=title, table=table, path=tables[name]) for title, (table, name) in found.items()]
    notes = [_list(analysis["notes"])] if analysis["notes"] else []
    captions = [_block("caption", plot=plot) for plot in plots]
    return _fold("Notes, intervals, tables", *notes, *captions, *rest, *instead, *data)


def shortened(caption: str) -> str:
    """The beginning of a caption: what is drawn, without the numbers that the figure shows."""
    first = re.split(r"(?<=[^ .]\.) ", caption, maxsplit=1)[0]
    return re.split(r": (?=[^:]*? [\d.]+(?: \[|%|,| /))", first, maxsplit=1)[0].rstrip(".") + "."


def _sequences(data: Mapping[str, Any], budget: int) -> list[Block]:
    """Where the sources leave the base: steps in numbers, the hurdles with their places, stretches, laws."""
    steps = sequences.numbers(data, budget)
    folds = _fold("Steps in numbers", _table(steps)) if steps.rows else []
    for title, said, grid in (
        ("Hurdles", sequences.hurdle(budget), sequences.hurdles(data)),
        ("Stretches", sequences.STRETCHES, sequences.stretches(data)),
        ("Laws of the base", sequences.LAWS, sequences.laws(data, budget)),
    ):
        shown = [_table(grid._replace(notes=[]))] if grid.rows else []
        shown += [_text(f"{'; '.join(grid.notes)}.")] if grid.notes else []
        folds += _fold(title, _text(said), *shown) if shown else []
    return folds


def _robustness(
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
    plots: Mapping[str, Block],
    tables: Mapping[str, Mapping[str, str]],
    budget: int,
) -> dict[str, Any]:
    own, words = methods.robustness(data, budget=budget), methods.varied(data)
    tested = _table(own) if own.rows else _text("No analysis of this run tested its own verdicts.", "")
    folds = _fold("What the analyses tested themselves", tested)
    if "robustness" not in data["analyses"]:
        return _panel("robustness", "Robustness", methods.NOT_VARIED, folds=folds)
    analysis, shown = data["analyses"]["robustness"], list(plots.values())
    varied = [_table(words._replace(notes=[])), _list(words.notes)] if words.rows else []
    folds = _fold("Every variation", *varied) + folds
    folds += _details(analysis, shown, [], content.labels(data, meta), tables.get("robustness", {}))
    said = findings.said(data, "robustness", budget)
    return _panel("robustness", "Robustness", said, analysis["question"], plots=shown, folds=folds)


def _live(data: Mapping[str, Any], seen: str) -> list[dict[str, Any]]:
    """The panels that the script fills: traces, comparison, tree."""
    under = f" Under the base: {content.asked(data)}." if content.asked(data) else ""
    moved = [v["source"] for v in content.headlines(data) if v["verdict"] not in ("inside", "undetermined")]
    out = []
    for at, (heading, host, asked) in LIVE.items():
        place = _block("host", id=host, focus=moved[0] if moved else "")
        parts = {"blocks": [_text(seen + under), place]} if at == "viewer" else {"folds": _fold("Show", place)}
        out.append(_panel(at, heading, "", asked, **parts))
    return out


def _record(data: Mapping[str, Any], meta: Mapping[str, Any], basis: Sequence[str]) -> list[dict[str, Any]]:
    ledger, notes = data["ledger"], [*basis, *(meta.get("notes") or [])]
    reasons = [_table(Grid(["reason", "n"], [[why, count(n)] for why, n in ledger["by_reason"].items()], []))]
    rows = _fold("Reasons", *(reasons if ledger["by_reason"] else []))
    rows += _fold("Notes on the input", *([_list(notes)] if notes else []))
    left = [(i["analysis"], i["why"]) for i in meta["left_out"]]
    decisions = [_list(meta["decisions"])] if meta.get("decisions") else []
    words = _block("facts", pairs=[*wording.WORDS.items(), *wording.LEVELS.items()], code=False)
    glossary = _block("facts", pairs=wording.GLOSSARY.items(), code=False)
    settings = _block("facts", pairs=methods.settings(data, meta).rows, code=True)
    paste = (
        _block("paste", id="paragraph", title="A paragraph for your paper", text=paper.paragraph(data, meta)),
        _block("paste", id="latex", title="The key table in LaTeX", text=paper.latex(data, meta)),
    )
    folds = _fold("How to read the verdicts", words, _text(wording.REACH), _text(wording.BOUNDS))
    folds += _fold("Glossary", glossary) + _fold("Decisions taken on the way", *decisions)
    folds += _fold("For your paper", *paste) + _fold("Settings", settings, _text(wording.CELLS))
    missing = _fold("Analyses and figures left out", _block("facts", pairs=left, code=False)) if left else []
    absent = f"{len(left)} analyses or figures." if left else "Nothing."
    said = f"analyzer {data['version']}; the same input and settings give the same bytes."
    return [
        _panel("ledger", "Ledger", blocks=[_list(ledgers.sentences(ledger))], folds=rows),
        _panel("left-out", "Left out, and why", absent, folds=missing),
        _panel("methods", "Methods", said, folds=folds),
    ]
