"""What the pages say, before it is marked up: sentences, the key table, the numbers as text.

Everything is read from the content of results.json, so that a number on a page is the number in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analyzer.analysis.basis import OWN
from analyzer.analysis.preflight import NAMES
from analyzer.analysis.support import prompts
from analyzer.pages import gaps, ledgers, wording
from analyzer.records import BUDGET, METHOD
from analyzer.records.display import NONE, cell, counted, listed, number, possessive

ALL = ""  # the table of an analysis that holds its estimates; no other has an empty name
NAMED = 6  # more sources are counted in a title


class Grid(NamedTuple):
    """A table as text: `columns`, `rows` of strings, and `notes` that explain cells without a value."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def interval(estimate: Mapping[str, Any] | None) -> str:
    """An estimate with its interval, NONE without one (see `display.number`)."""
    return NONE if estimate is None else number(estimate["value"], estimate["low"], estimate["high"])


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def cells(table: Mapping[str, Any], at_most: int) -> Grid:
    """The first rows of a table of JSON values as text."""
    return Grid(list(table["columns"]), [[cell(v) for v in row] for row in table["rows"][:at_most]], [])


def estimate(analyses: Mapping[str, Any], analysis: str, key: str) -> Mapping[str, Any] | None:
    return analyses.get(analysis, {}).get("estimates", {}).get(key)


def statement(v: Mapping[str, Any]) -> str:
    """The head of a verdict as correct English, without its reasons."""
    source, reference = v["source"], v["reference"]
    support = f"{possessive(reference)} support"
    place = f"at the {v['level']} level (budget {v['budget']}{asked_of(v)})"
    return {
        "inside": f"{source} is INSIDE {support} {place}",
        "outside": f"{source} is OUTSIDE {support} {place}",
        "sharpened": f"{source} is SHARPENED from {reference} {place}",
        "reweighted": f"{source} is REWEIGHTED from {reference} {place}",
        "undetermined": f"{source} is UNDETERMINED with respect to {support} {place}",
    }[v["verdict"]]


def asked_of(v: Mapping[str, Any]) -> str:
    """Where source and reference were drawn after different prompts: after which they are compared here."""
    if v.get("prompt_of") is None:
        return ""
    return f", {prompts.phrase(v['prompt_of'])}" if v["level"] == "sequence" else ", each drawn under its own prompt"


def asked(data: Mapping[str, Any]) -> str:
    """The phrase for numbers under the base of sources that were drawn after other prompts; "" where none were."""
    found = (a["params"] for a in data["analyses"].values() if a["params"].get("prompt_of"))
    return next((f"{', '.join(p['prompt_of_sources'])} {prompts.phrase(p['prompt_of'])}" for p in found), "")


def reasons(v: Mapping[str, Any]) -> list[str]:
    """The reasons of a verdict, each without a full stop; E_k by its longer name."""
    return [re.sub(r"\bE_(\d+) =", r"reach@\1 =", w.strip().rstrip(".")) for w in v["why"] if w.strip()]


def sentence(reason: str) -> str:
    """A reason on its own; a quantity keeps its name."""
    return f"{reason if reason.startswith('reach@') else reason[:1].upper() + reason[1:]}."


def words_of(data: Mapping[str, Any], source: str) -> list[tuple[str, str]]:
    """(level, word) of a source, from the finest level."""
    found = {v["level"]: v["verdict"] for v in data["verdicts"] if v["source"] == source}
    return [(level, found[level]) for level in wording.LEVELS if level in found]


def overturn(v: Mapping[str, Any]) -> str:
    """ "What would decide: ..." or "What would overturn it: ...", a sentence."""
    usual = wording.OTHERWISE if v["verdict"] == "outside" and v["level"] in METHOD else wording.OVERTURN[v["verdict"]]
    needs = (v["needs"] or usual.format(source=v["source"], reference=v["reference"])).strip().rstrip(".")
    return f"What would {'decide' if v['verdict'] == 'undetermined' else 'overturn'} it: {needs}."


def worst(data: Mapping[str, Any], source: str, at_most: int = 3) -> list[dict[str, Any]]:
    """The flagged traces of a source to look at first: rows of support's flagged_windows; `of` counts them all."""
    rows = [r for r in records(data, "support", "flagged_windows") if r["source"] == source]
    return [{**row, "of": len(rows), "name": row["key"][len(source) + 1 :]} for row in rows[:at_most]]


def doubts(data: Mapping[str, Any]) -> list[tuple[str, bool | None, str]]:
    """(section, whether it is a warning, one clause) of what a sceptic asks first: rows, checks, other choices; None:
    nothing is wrong as far as it could be checked."""
    ledger, out = data["ledger"], []
    side = {s: counts["compared"] for s, counts in data["sources"].items() if "compared" in counts}
    if apart := [s for s, c in side.items() if c["basis"] == OWN and s != reference(data, {})]:
        out.append(("key", True, f"no problem in common with {reference(data, {})}: {', '.join(apart)}"))
    if less := [s for s, c in side.items() if c["problems"] < data["sources"][s]["problems"]]:
        parts = (f"{s} {count(side[s]['problems'])} of {count(data['sources'][s]['problems'])}" for s in less)
        out.append(("key", True, f"problems compared: {', '.join(parts)}"))
    elif gaps.in_pairs(data):
        out.append(("key", True, "no problem is in all sources: compared in pairs"))
    for gap in gaps.found(records(data, "compared", "rows")):
        out.append(("key", True, f"{gap.clause} ({gap.lacking})"))
    used = "no row rejected" if out else "every row used"  # what is left out of the comparison was not used there
    said = [
        f"{count(n)} of {count(of)} {what}"
        for n, of, what in (
            (ledgers.rejected_rows(ledger), ledger["rows"], "rows rejected"),
            (ledger["traces_rejected"], ledger["traces"], "traces not scored"),
        )
        if n
    ]
    said += [
        f"a look only: {counted(n, 'row')} {why}" for why, n in ledgers.not_asked(ledger).items() if "--limit" in why
    ]
    out.append(("ledger", bool(said), ", ".join(said) or used))
    checks = records(data, "preflight", "checks")
    failed = list(dict.fromkeys(NAMES.get(c["check"], c["check"]) for c in checks if c["passed"] is False))
    if checks:
        unknown = sum(c["passed"] is None for c in checks)
        passed = f"{sum(c['passed'] is True for c in checks)} of {len(checks)} checks passed"
        passed += f", {unknown} not possible" if unknown else ""
        # equal prompts are what every comparison rests on, of texts too: unseen ones are no ordinary gap
        unseen = list(dict.fromkeys(c["source"] for c in checks if c["check"] == "prompts" and c["passed"] is None))
        passed += f", prompts not compared: {', '.join(unseen)}" if unseen else ""
        bad = True if failed or unseen else None if unknown else False
        out.append(("a-preflight", bad, passed + (f", failed: {', '.join(failed)}" if failed else "")))
    unchecked = [c["source"] for c in checks if c["check"] == "declared" and c["passed"] is None]
    found = data["analyses"].get("support", {}).get("estimates", {}).items()
    brought = [key.rpartition(".reach@")[0] for key, e in found if ".reach@" in key and "rows bring" in e["note"]]
    if blind := list(dict.fromkeys([*unchecked, *brought])):
        clause = f"declared model and sampler could not be checked: {', '.join(blind)}"
        out.append(("a-support" if brought else "a-preflight", True, clause))
    kept = {
        key.removesuffix(".words_kept"): (round(e["value"] * e["n"]), e["n"])
        for key, e in data["analyses"].get("robustness", {}).get("estimates", {}).items()
        if key.endswith(".words_kept") and e["value"] is not None
    }
    # that nothing can be told is no finding that could stay
    told = {v["source"]: v["verdict"] != "undetermined" for v in headlines(data)}
    kept = {source: value for source, value in kept.items() if told.get(source, True)}
    moved = [f"{source}: verdict unchanged in {k} of {n}" for source, (k, n) in kept.items() if k < n]
    if kept:
        n = max(n for _, n in kept.values())
        out.append(
            (
                "robustness",
                bool(moved),
                ", ".join(moved) + " sensitivity analyses"
                if moved
                else f"every verdict unchanged in {n} sensitivity analyses",
            )
        )
    return out


def map_note(analysis: Mapping[str, Any]) -> str:
    """How many of the clustered traces are on the map of the page."""
    shown = len(analysis["tables"].get("members", {"rows": []})["rows"])
    of = analysis["params"].get("clustered", shown)
    if shown >= of:
        return f"All {count(of)} clustered traces."
    return (
        f"{count(shown)} of {count(of)} clustered traces, evenly over the sources; the others are not on the map, "
        "and the viewer does not know their cluster. The numbers above rest on all of them."
    )


def records(data: Mapping[str, Any], analysis: str, table: str) -> list[dict[str, Any]]:
    """The rows of a table of results.json as dicts; none where the run lacks it."""
    found = data["analyses"].get(analysis, {}).get("tables", {}).get(table, {"columns": [], "rows": []})
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def budget(data: Mapping[str, Any], meta: Mapping[str, Any]) -> int:
    """The budget of the page: from meta, else from the first headline, else the default."""
    return int(meta.get("budget") or next((v["budget"] for v in headlines(data)), BUDGET))


def reference(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """The reference's label: of the verdicts, of meta, else the first source, or "" where there is none."""
    first = next(iter(data["sources"]), "")
    return str(next((v["reference"] for v in data["verdicts"]), meta.get("reference") or first))


def labels(data: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """Sources with the reference first."""
    first = reference(data, meta)
    return sorted(data["sources"], key=lambda label: label != first)


def title(data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """What the report says, in a line: each word with its sources; of sources without a word, what is compared."""
    if meta.get("title"):
        return str(meta["title"])
    first, *others = labels(data, meta) or [""]
    if not others:
        return f"{first or 'An empty run'} alone: what it solves and how it writes"
    said = [(word, who) for word, who in short(data) if word != "undetermined"]
    if not said:
        return f"{listed(others)} against {first}: {'not decided' if headlines(data) else 'no verdict'}"
    names = [f"{listed(who) if len(who) <= NAMED else f'{len(who)} sources'} {word}" for word, who in said]
    open_ = [len(who) for word, who in short(data) if word == "undetermined"]
    return f"Against {first}: {', '.join(names)}" + (f", {open_[0]} not decided" if open_ else "")


def question(data: Mapping[str, Any], meta: Mapping[str, Any], k: int) -> str:
    """What the report asks."""
    first, *others = labels(data, meta) or [""]
    if not others:
        return f"What does {first or 'this run'} hold?"
    who = listed(others) if len(others) <= NAMED else f"the {len(others)} sources"
    return f"Could {k} draws of {first} have given what {who} write{'s' if len(others) == 1 else ''}?"


def subtitle(data: Mapping[str, Any], meta: Mapping[str, Any], k: int) -> str:
    """What was compared, in one line."""
    first, *others = labels(data, meta) or [""]
    compared = f"{', '.join(others)} against {first}" if others else first
    sources = data["sources"].values()
    problems = max((s["problems"] for s in sources), default=0)
    traces = f"{counted(data['ledger']['traces'], 'trace')} on {counted(problems, 'problem')}"
    if any(s.get("compared", {}).get("basis") == OWN for s in sources):
        traces = f"{counted(data['ledger']['traces'], 'trace')}, sources on different problems"
    elif any(s.get("compared", s)["problems"] < s["problems"] for s in sources) or gaps.in_pairs(data):
        shared = {s["compared"]["problems"] for s in sources}
        on = (
            f"compared on {counted(max(shared), 'problem')}"
            if len(shared) == 1 and not gaps.in_pairs(data)
            else "compared on problems shared in pairs"
        )
        traces = f"{counted(data['ledger']['traces'], 'trace')}, {on}"
    traces = ", ".join([traces, *(gap.clause for gap in gaps.found(records(data, "compared", "rows")))])
    parts = [compared, traces, f"budget {k}", asked(data), f"analyzer {data['version']}"]
    return " · ".join(p for p in [*parts, str(meta.get("date") or "")] if p)


def support(budget: int) -> dict[str, str]:
    """Heading -> estimate of `support`, of the numbers that stand in front: whole traces, steps, where it leaves."""
    names = {"beyond": "beyond", "hurdle share": "hurdle_share", "horizon": "horizon"}
    return {f"{heading}@{budget}": f"{key}@{budget}" for heading, key in names.items()}


def heading(name: str) -> str:
    """The heading of an analysis."""
    return wording.HEADINGS.get(name, name.capitalize())


def evidence(data: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    """What is known of whole traces, steps and the horizon at the verdict's budget, with intervals by problem; of a
    source whose own probabilities are not known, the mass beyond k by e-values."""
    k, parts = v["budget"], []
    for heading, key in support(k).items():
        e = estimate(data["analyses"], "support", f"{v['source']}.{key}")
        if e is None:
            continue
        if e["value"] is not None:
            parts.append(f"{heading} {interval(e)}" + (" tokens" if key.startswith("horizon") else ""))
        elif key.startswith("horizon"):
            parts.append(f"{heading} not reached")
    e = estimate(data["analyses"], "support", f"{v['source']}.beyond@{k}") if parts else None
    if not parts:
        e = estimate(data["analyses"], "support", f"{v['source']}.novel_mass@{k}")
        parts = [f"beyond {k} by e-values {interval(e)}"] if interval(e) != NONE else []
    known = {r["source"]: r.get("problems") for r in records(data, "perplexity", "sources")}
    problems = known.get(v["source"])
    if parts and e is not None and e["n"]:
        parts.append(f"n = {counted(e['n'], 'trace')}" + (f" on {counted(problems, 'problem')}" if problems else ""))
    return ", ".join(parts)


def why_none(data: Mapping[str, Any], label: str, key: str) -> str:
    """Why a source has no number of local support: the estimate's note, or why its own law is not known."""
    e = estimate(data["analyses"], "support", f"{label}.{key}")
    if e is not None:
        return str(e["note"])
    if label == reference(data, {}):
        return "it is the reference, which the others are compared with"
    row = next((r for r in records(data, "support", "evidence") if r["source"] == label), {})
    reach = estimate(data["analyses"], "support", f"{label}.reach@{key.rpartition('@')[2]}") or {}
    return row.get("no_verdict") or row.get("no_log_q") or reach.get("note") or "not scored under the base"


def short(data: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The headlines in one line: each word with its sources and their levels."""
    found: dict[str, list[str]] = {}
    for v in headlines(data):
        found.setdefault(v["verdict"], []).append(named(v))
    return [(word, found[word]) for word in wording.WORDS if word in found]


def more(n: int, shown: int) -> str:
    """How many notes a page leaves to the csv; empty when none."""
    return (
        f"{n - shown} further quantities without a value: see the notes in the csv of the estimates."
        if n > shown
        else ""
    )


def headlines(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [v for v in data["verdicts"] if v["headline"]]


def named(headline: Mapping[str, Any]) -> str:
    """The source of a headline, with the level where that is not the sequence: a verdict without it says too much."""
    level = headline["level"]
    return headline["source"] if level == "sequence" else f"{headline['source']} ({level})"


def no_verdict(data: Mapping[str, Any]) -> str:
    """The sentence that stands in place of verdicts."""
    labels = ", ".join(data["sources"])
    return f"No verdict: there is nothing to compare with the reference in {labels or 'an empty run'}."


def levels(data: Mapping[str, Any], source: str) -> Grid:
    """What each level but the headline says of a source: its word, its reasons, what would decide it."""
    rows = []
    for v in data["verdicts"]:
        if v["source"] == source and not v["headline"]:
            why = "; ".join(reasons(v)) or NONE
            rows.append([v["level"], v["verdict"], why, (v["needs"] or NONE).strip().rstrip(".")])
    return Grid(["level", "word", "why", "what would decide it"], rows, [])


def by_level(data: Mapping[str, Any]) -> Grid:
    """Verdict words, one row per source and one column per level; the headline in capitals."""
    words: dict[str, dict[str, str]] = {}
    for v in data["verdicts"]:
        words.setdefault(v["source"], {})[v["level"]] = v["verdict"].upper() if v["headline"] else v["verdict"]
    levels = [level for level in wording.LEVELS if any(level in w for w in words.values())]
    return Grid(["source", *levels], [[s, *(w.get(level, NONE) for level in levels)] for s, w in words.items()], [])


def pivot(analysis: Mapping[str, Any], labels: Sequence[str]) -> Grid:
    """Estimates, one row per quantity and one column per source; keys that begin with no label stand under "all". A row
    whose numbers are not over equally many traces (or problems) has each n beside it."""
    rows: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    notes: list[str] = []
    for key, e in analysis["estimates"].items():
        label = max((s for s in labels if key.startswith(f"{s}.")), key=len, default="all")
        name = key if label == "all" else key[len(label) + 1 :]
        rows.setdefault(name, {})[label] = interval(e)
        if e["value"] is None:
            notes.append(f"{key}: {e['note']}")
        elif e.get("n"):
            counts.setdefault(name, {})[label] = e["n"]
    for name, found in counts.items():
        if len(set(found.values())) > 1:
            rows[name] |= {label: f"{rows[name][label]} (n = {count(n)})" for label, n in found.items()}
    used = [s for s in [*labels, "all"] if any(s in r for r in rows.values())]
    told = {name: name + wording.SAID.get(name.partition("@")[0], "") for name in rows}
    return Grid(["quantity", *used], [[told[name], *(r.get(s, NONE) for s in used)] for name, r in rows.items()], notes)


def estimates_table(analysis: Mapping[str, Any]) -> dict[str, Any]:
    """All estimates as one JSON table."""
    columns = ["value", "low", "high", "n", "method", "note"]
    return {
        "columns": ["key", *columns],
        "rows": [[k, *(e[c] for c in columns)] for k, e in analysis["estimates"].items()],
    }
