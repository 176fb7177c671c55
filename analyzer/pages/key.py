"""The key numbers: what stands in one row is over the same problems and traces, and their number stands with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from analyzer.analysis.basis import OWN, PAIR
from analyzer.pages import content, gaps
from analyzer.pages.content import Grid, count, interval, labels, records, reference
from analyzer.records.display import NONE, listed

SOLVED = "Correctness, over the traces with a label"
SCORED = "Probabilities under the base model, over the scored traces"
TEXTS = "What was read"
MODEL = {"median ppl": ("perplexity", "ppl.median"), "nats per token": ("perplexity", "nll_per_token")}


class Row(NamedTuple):
    """One row of the key tables: its name, its source, its counts by column, and where its estimates are (analysis,
    or "" for that of its own name) under which label."""

    name: str
    source: str
    solved: dict[str, int | None]
    scored: dict[str, int | None]
    analysis: str
    label: str


def tables(data: Mapping[str, Any], *, budget: int, meta: Mapping[str, Any] | None = None) -> list[tuple[str, Grid]]:
    """(title, table) of what is solved and of what the base model says, one row a source, the reference first.

    A column that no row has is left out, and so is a table without numbers. A number over fewer problems or traces than
    its row says so in its cell.
    """
    rows = _rows(data, meta or {})
    last = _common_k(data, rows)
    wanted = {"pass@1": ("boundary", "pass@1"), **({f"pass@{last}": ("boundary", f"pass@{last}")} if last else {})}
    solved = _grid(data, rows, [r.solved for r in rows], wanted)
    wanted = MODEL | {heading: ("support", key) for heading, key in content.support(budget).items()}
    scored = _grid(data, rows, [r.scored for r in rows], wanted)
    out = [(SOLVED if any(r.solved["correct"] is not None for r in rows) else TEXTS, solved)]
    return out + ([(SCORED, scored)] if set(scored.columns) & set(wanted) else [])


def sources(data: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """The source of each row of the key tables."""
    return [row.source for row in _rows(data, meta)]


def _rows(data: Mapping[str, Any], meta: Mapping[str, Any]) -> list[Row]:
    names, mark = labels(data, meta), reference(data, meta)
    shown = {name: f"{name} (reference)" if name == mark and len(names) > 1 else name for name in names}
    if found := records(data, "compared", "rows"):
        rows = []
        for r in found:
            solved = {"problems": r["problems"], "traces": r["traces"], "correct": r["correct"]}
            scored = {"problems": r["problems_scored"], "scored": r["scored"], "tokens": r["tokens"]}
            name = shown[r["source"]] + (f", {r['on']}" if r["on"] else "")
            rows.append(Row(name, r["source"], solved, scored, "compared", r["row"]))
        return rows
    labelled = _last_step(records(data, "boundary", "accuracy"))
    model = {r["source"]: r for r in records(data, "perplexity", "sources")}
    return [Row(shown[s], s, _solved(data, labelled.get(s), s), _scored(data, model.get(s), s), "", s) for s in names]


def _last_step(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {r["source"]: r for r in sorted(found, key=lambda r: -1 if r.get("step") is None else r["step"])}


def _solved(data: Mapping[str, Any], found: Mapping[str, Any] | None, source: str) -> dict[str, int | None]:
    if found is not None and found.get("rows_joined"):
        names = {"problems": "problems_joined", "traces": "rows_joined", "correct": "correct_joined"}
        return {column: found[name] for column, name in names.items()}
    own = data["sources"][source]
    return {"problems": own["problems"], "traces": own["traces"], "correct": own["correct"]}


def _scored(data: Mapping[str, Any], found: Mapping[str, Any] | None, source: str) -> dict[str, int | None]:
    if found is not None:
        return {"problems": found["problems"], "scored": found["n"], "tokens": found["tokens"]}
    parts = (data["analyses"].get(name, {}).get("estimates", {}) for name in ("perplexity", "support"))
    starts = f"{source}.ppl.median", f"{source}.beyond@"
    n = [e["n"] for part in parts for k, e in part.items() if k.startswith(starts) and e["n"]]
    return {"problems": None, "scored": n[0] if n else None, "tokens": data["sources"][source]["tokens"] or None}


def _estimate(data: Mapping[str, Any], row: Row, analysis: str, key: str) -> Mapping[str, Any] | None:
    return content.estimate(data["analyses"], row.analysis or analysis, f"{row.label}.{key}")


def _common_k(data: Mapping[str, Any], rows: list[Row]) -> int:
    """The largest k > 1 with pass@k in every row that has any; 0 without one."""
    found = []
    for row in rows:
        estimates = data["analyses"].get(row.analysis or "boundary", {}).get("estimates", {})
        names = (
            re.fullmatch(r"pass@(\d+)", key[len(row.label) + 1 :]) for key in estimates if key.startswith(row.label)
        )
        ks = {int(m[1]) for m in names if m and estimates[f"{row.label}.{m[0]}"]["value"] is not None}
        found += [ks] if ks else []
    return max((k for k in set.intersection(*found) if k > 1), default=0) if found else 0


def _grid(
    data: Mapping[str, Any], rows: list[Row], counts: list[dict[str, int | None]], wanted: Mapping[str, tuple[str, str]]
) -> Grid:
    columns = {"source": [row.name for row in rows]}
    columns |= {name: [count(c[name]) for c in counts] for name in counts[0]} if counts else {}
    gaps: dict[tuple[str, str], list[str]] = {}  # row and reason -> columns
    refused = {v["source"] for v in data["verdicts"] if v["why"] and v["why"][0].startswith("no verdict")}
    for name, why in (("correct", "no labels"), ("tokens", "not scored")):
        for row, text in zip(rows, columns.get(name, []), strict=False):
            if text == NONE:
                gaps.setdefault((row.source, why), []).append(name)
    for name, (analysis, key) in wanted.items():
        columns[name] = []
        for row, known in zip(rows, counts, strict=True):
            if analysis == "support" and row.source in refused:  # a wrong declaration makes no number of the source
                columns[name].append(NONE)
                gaps.setdefault((row.source, "no verdict: a check before the tests failed"), []).append(name)
                continue
            e = _estimate(data, row, analysis, key)
            columns[name].append(_said(e, known))
            if columns[name][-1] == NONE:
                why = e["note"] if e is not None else ""
                why = content.why_none(data, row.source, key) if analysis == "support" and not why else why
                gaps.setdefault((row.source, why or f"no {name} in this run"), []).append(name)
    kept = {name: cells for name, cells in columns.items() if any(c != NONE for c in cells)}
    told = {key: [name for name in found if name in kept] for key, found in gaps.items()}
    notes = [f"{label}, {', '.join(found)}: {why}" for (label, why), found in told.items() if found]
    return Grid(list(kept), [list(row) for row in zip(*kept.values(), strict=True)], notes)


def _said(e: Mapping[str, Any] | None, known: Mapping[str, int | None]) -> str:
    """The estimate, with its n where that is no count of the row."""
    text, counts = interval(e), [n for n in known.values() if n is not None]
    return text if text == NONE or not counts or e["n"] in counts else f"{text} (n = {count(e['n'])})"


def basis(data: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """What is compared and what is left out of it, in sentences; none where all sources have the same problems."""
    all_, mark = data["sources"], reference(data, meta)
    found = {s: all_[s]["compared"] for s in labels(data, meta) if "compared" in all_[s]}
    if len(found) < 2:
        return []
    own = [s for s, c in found.items() if c["basis"] == OWN and s != mark]
    out = []
    joined = [s for s in found if s not in own]
    if own:
        alone = (mark, *own) if mark in found and found[mark]["basis"] == OWN else own
        each = ", ".join(f"{s} {count(all_[s]['problems'])}" for s in alone)
        whose = "each has its" if len(alone) > 1 else f"{own[0]} has its"
        out.append(
            f"{listed(own)} and {mark} have no problem in common: nothing is compared between them, and {whose} "
            f"numbers over its own problems ({each})."
        )
    short = [gap.sentence for gap in gaps.found(records(data, "compared", "rows"))]
    most = " at most" if short else ""
    less = [s for s in joined if found[s]["problems"] < all_[s]["problems"]]
    left = ", ".join(
        f"{s} {count(all_[s]['problems'] - found[s]['problems'])} of {count(all_[s]['problems'])} problems "
        f"({count(found[s]['left_out'])} traces)"
        for s in less
    )
    words = f" Left out of them: {left}. The verdicts rest on all that a source has or shares with {mark}." * bool(less)
    if any(found[s]["basis"] == PAIR for s in joined):  # also where each is compared on all that it has
        each = ", ".join(f"{s} {count(found[s]['problems'])}" for s in joined if s != mark)
        return [
            *out,
            f"No problem is in all of {listed(joined)}: key numbers are of pairs, a source and {mark} over the "
            f"problems that both have ({each}).{words}",
            *short,
        ]
    if not less:
        if len(joined) > 1 and (own or short):
            n = count(found[joined[0]]["problems"])
            out.append(f"{listed(joined)} have the same {n} problems: numbers side by side are over these {n}{most}.")
        return out + short
    n = count(found[less[0]]["problems"])
    return [*out, f"{listed(joined)} share {n} problems: numbers side by side are over these {n}{most}.{words}", *short]
