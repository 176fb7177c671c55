"""Write what was found: results.json for scripts, report.md and index.html for people, figures, tables.

Nothing is computed here. The same input gives the same bytes; a date stands on the page only if `meta` has one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer.analysis import figures as drawing
from analyzer.analysis.support.prompts import captioned
from analyzer.pages import content, document, embed, html, markdown, paper
from analyzer.pages.results import build_results, encode, in_order, relative, validate_results
from analyzer.pages.terminal import summary
from analyzer.records import Figure, Result, Tables, Verdict, json_value
from analyzer.records.options import ReportOptions
from analyzer.runs.disk import write_atomically

PATH_INSIDE = re.compile(r"(?<![^\s('\"=])/(?:[^\s,;()'\"]+/)+[^\s,;()'\"]*")  # an absolute path in a sentence

__all__ = ["build_results", "summary", "validate_results", "write"]


REPORT = ReportOptions()


def write(
    directory: Path,
    *,
    results: Mapping[str, Result],
    verdicts: Sequence[Verdict],
    ledger: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Mapping[str, Figure]],
    meta: Mapping[str, Any],
    traces: Tables | None = None,
    how: ReportOptions = REPORT,
) -> dict[str, Path]:
    """Write the report into `directory`, which holds nothing that must stay (see `outputs.replaced`); returns a path
    for "results.json", "report.md", "index.html", "figures" and "tables".

    `ledger` and `sources` are those of results.json, `figures` is analysis -> figure name -> Figure. `meta` must have
    `version` and `command` (list of words) and may have `decisions` and `notes` (sentences on encoding and on the
    input), `left_out` (list of {"analysis", "why"}), `reference`, `budget`, `title`, and anything else that the methods
    table should show (seeds, scorers, versions, samplers, date); absolute paths in it become relative. `traces` are the
    tables that the analyses read: with them the page has the trace viewer, the tree, the map and the comparison. They
    are inside index.html up to `how.html_max_mb`, else in files under data/ beside it, up to `how.traces_max_mb`. A
    figure that cannot be drawn is named under "left out" instead of failing the report; `how.style` is the venue whose
    widths figures have; `how.short`: index.html is one printed page, the other files are as always.
    Raises AnalyzerError when results.json would break its contract.
    """
    data = build_results(
        results=results,
        verdicts=verdicts,
        ledger=ledger,
        sources=sources,
        version=str(meta["version"]),
        command=meta["command"],
    )
    drawing.check_style(how.style)
    meta = {k: _plain_meta(v) for k, v in meta.items()}
    left_out = [dict(item) for item in meta.get("left_out") or []]
    directory.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    drawn: dict[str, list[dict[str, Any]]] = {}
    labels = content.labels(data, meta)
    with drawing.one_look_each(labels):
        for analysis in in_order(data["analyses"]):
            drawn[analysis] = []
            for name, spec in figures.get(analysis, {}).items():
                file = _file_name(analysis, name, names)
                figure, why = _draw(spec, results[analysis], name, file, directory, how.style)
                if figure is None:
                    left_out.append({"analysis": f"{analysis}, figure {name}", "why": why})
                else:
                    drawn[analysis].append({**figure, "name": name, "table": spec.table})
    tables: dict[str, dict[str, str]] = {}
    names = set()
    (directory / "tables").mkdir(exist_ok=True)
    for analysis, found in data["analyses"].items():
        tables[analysis] = {}
        for name, table in {content.ALL: content.estimates_table(found), **found["tables"]}.items():
            file = _file_name(analysis, "estimates" if name == content.ALL else name, names)
            tables[analysis][name] = f"tables/{file}.csv"
            drawing.write_csv(table["columns"], table["rows"], directory / "tables" / f"{file}.csv")
    meta["left_out"] = left_out
    paths = {name: directory / name for name in ("report.md", "index.html", "results.json")}
    _put(directory / "tables" / "key.tex", paper.latex(data, meta))
    found = _embed(traces, results, labels, how.traces_max_mb) if traces is not None else None
    beside = found is not None and sum(map(len, found.packs)) > how.html_max_mb * 1e6
    _packs(directory / "data", found.packs if found is not None and beside else [])
    seen = None if found is None else found.note
    made = document.build(data, meta=meta, figures=drawn, tables=tables, seen=seen)
    _put(paths["report.md"], markdown.page(made))
    _put(paths["index.html"], html.page(document.short(made) if how.short else made, embedded=found, beside=beside))
    _put(paths["results.json"], encode(data) + "\n")
    return {**paths, "figures": directory / "figures", "tables": directory / "tables"}


def _embed(traces: Tables, results: Mapping[str, Result], labels: list[str], megabytes: float) -> embed.Embedded:
    """The traces for the page; sources that the ledger does not name come last."""
    looks = drawing.styles([*labels, *traces.sources])
    return embed.build(traces, results, looks, megabytes=megabytes)


def _packs(folder: Path, packs: Sequence[str]) -> None:
    """Packs as scripts, which a page opened from disk may load."""
    if packs:
        folder.mkdir(exist_ok=True)
    for i, text in enumerate(packs):
        (folder / f"t{i}.js").write_bytes(f'analyzerPack("t{i}", "{text}");\n'.encode("ascii"))


def _draw(
    spec: Figure, result: Result, of: str, name: str, directory: Path, style: str
) -> tuple[dict[str, Any] | None, str]:
    """The saved figure as {svg, pdf, csv (relative paths), text (the svg), caption, width}, or None and why not."""
    if spec.table not in result.tables:
        return None, f"it shows the table {spec.table!r}, which this run does not have"
    if result.tables[spec.table].empty:
        return None, f"it shows the table {spec.table!r}, which has no rows in this run"
    try:
        caption = captioned(result, of, str(spec.caption(result)))
        paths = drawing.save(spec, result, name, directory / "figures", style=style)
    except drawing.NothingToDraw as error:
        return None, f"nothing to draw: {error}"
    except Exception as error:  # a drawing must not cost the report; the page says what is missing and why
        return None, f"drawing failed: {type(error).__name__}: {error}"
    text = paths["svg"].read_text(encoding="utf-8")
    return {
        **{k: p.relative_to(directory).as_posix() for k, p in paths.items()},
        "text": text,
        "caption": caption,
        "width": spec.width,
    }, ""


def _file_name(analysis: str, name: str, taken: set[str]) -> str:
    file = drawing.safe_name(f"{analysis}-{name}")
    if file in taken:
        file += "-" + hashlib.sha256(f"{analysis}\n{name}".encode("utf-8", "replace")).hexdigest()[:6]
    taken.add(file)
    return file


def _plain_meta(value: Any) -> Any:
    """JSON values with absolute paths made relative, also inside sentences."""
    if isinstance(value, (str, Path)):
        return PATH_INSIDE.sub(lambda found: os.path.relpath(found[0]), relative(str(value)))
    if isinstance(value, Mapping):
        return {str(k): _plain_meta(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not hasattr(value, "dtype"):
        return [_plain_meta(v) for v in value]
    return json_value(value)


def _put(path: Path, text: str) -> None:
    """Write at once or not at all; a lone surrogate from a broken dump becomes its escape."""
    write_atomically(path, text.encode("utf-8", "backslashreplace"))
