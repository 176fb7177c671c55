"""The section on sequences: where each source leaves the base, step by step, and against which of the base's laws.

Short tables of what `support` found; the whole ones stand below them on the page and in the csv files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analyzer.pages import content
from analyzer.pages.content import Grid, count, interval, records
from analyzer.records.display import NONE, cell

FIRST, STEPS = ("prefix",), ("kinds", "places")  # figures of support above the hurdles, and below them
PLACES = 6  # of a source, each of another trace
CHARS = 90  # of a stretch
STRETCHES = (
    "Stretches of 32 tokens more than k times as likely under the source as under the base in every sampling setting. "
    "Places to look at: many small steps add up to one, and no verdict rests on them."
)
LAWS = (
    "A law is the base under one sampling setting. Excess: the mass of whole traces beyond k times the probability "
    "under that law, at half, once and twice the budget. Brackets are by problem, for problems such as these; the "
    "bounds are 95 % for the given problems. A source is inside if it is under one of the laws that count: beyond@k of "
    "the key numbers is the least excess among these. A source that is outside is beyond every law at once."
)


def hurdle(budget: int) -> str:
    """What a hurdle is, and what the columns of the table are."""
    return (
        f"A hurdle is a step, one token or four in a row, more than {budget} times as likely under the source as under "
        "the base in each sampling setting: T = 1, lower temperatures, as the reference and as the source were "
        "sampled. The end token is no step. nats: log q less the largest log p of those settings over the whole step; "
        "q and p are of the token shown, p at T = 1. Largest first."
    )


def numbers(data: Mapping[str, Any], budget: int) -> Grid:
    """What is known of each source's steps: hurdles, the horizon, what a temperature explains."""
    quantities = {
        "hurdles a trace": f"hurdles@{budget}",
        "hurdle share (traces with one)": f"hurdle_share@{budget}",
        "per 1,000 tokens": f"hurdle_rate@{budget}",
        "horizon (tokens until half is beyond)": f"horizon@{budget}",
        "horizon in steps": f"horizon_steps@{budget}",
        "KL a temperature explains": "temperature_share",
    }
    rows, notes = [], []
    first = content.reference(data, {})
    for label in data["sources"]:
        found = {k: content.estimate(data["analyses"], "support", f"{label}.{key}") for k, key in quantities.items()}
        if label == first or not any(found.values()):
            continue
        rows.append([label, *map(_range, found.values())])
        told = {e["note"]: f"{label}, {k}: {e['note']}" for k, e in reversed(found.items()) if e and e["value"] is None}
        notes += reversed(told.values())  # a reason that two share is said once
    return Grid(["source", *quantities], rows, notes)


def _range(e: Mapping[str, Any] | None) -> str:
    """As `interval`, without the ends where they are the value itself: where nothing varied they bound nothing."""
    alone = e is not None and e["value"] is not None and e["low"] == e["value"] == e["high"]
    return cell(e["value"]) if e is not None and alone else interval(e)


def hurdles(data: Mapping[str, Any]) -> Grid:
    """The largest hurdles of each source, one of a trace."""
    rows, notes = [], []
    found = records(data, "support", "hurdles")
    for source in dict.fromkeys(r["source"] for r in found):
        mine = [r for r in found if r["source"] == source]
        largest: dict[str, dict[str, Any]] = {}
        for r in mine:  # in falling order
            largest.setdefault(r["key"], r)
        rows += [_place(r) for r in list(largest.values())[:PLACES]]
        notes.append(f"{source}: {min(PLACES, len(largest))} of {count(len(mine))} listed places")
    measured = [r["source"] for r in records(data, "support", "evidence") if r.get("share_low") is not None]
    without = [s for s in measured if not any(r["source"] == s for r in found)]
    notes += [f"no hurdle in {', '.join(without)}"] if without else []
    columns = [
        "key",
        "token",
        "kind",
        "step (tokens)",
        "nats",
        "q",
        "p",
        "rank",
        "likelier tokens",
        "position",
        "before it",
    ]
    return Grid(columns, rows, notes)


def _place(r: Mapping[str, Any]) -> list[str]:
    likelier = r["likelier"] or NONE
    rank = NONE if r["rank"] is None else count(int(r["rank"]))
    probabilities = [_probability(r["log_q"]), _probability(r["log_p"])]
    text, before = (repr(r[name] or "") for name in ("text", "before"))
    numbers = [count(r["tokens"]), f"{r['nats']:.1f}", *probabilities, rank]
    return [r["key"], text, r["kind"], *numbers, likelier, count(r["position"]), before]


def _probability(log: float | None) -> str:
    """No log-prob of a place is unknown: what is not finite is impossible."""
    value = 0.0 if log is None else math.exp(log)
    return "0" if value == 0 else f"{value:.2f}" if value >= 0.01 else f"{value:.1e}"


def stretches(data: Mapping[str, Any]) -> Grid:
    """The largest stretch of some traces of each source."""
    found, rows, notes = records(data, "support", "stretches"), [], []
    for source in dict.fromkeys(r["source"] for r in found):
        mine = [r for r in found if r["source"] == source]
        for r in mine[:PLACES]:
            text = r["text"] if len(r["text"]) <= CHARS else f"{r['text'][:CHARS]}…"
            rows.append([r["key"], count(r["tokens"]), count(r["position"]), f"{r['nats']:.1f}", text])
        notes.append(f"{source}: {min(PLACES, len(mine))} of {count(len(mine))} listed stretches")
    return Grid(["key", "tokens", "position", "nats", "text"], rows, notes)


def laws(data: Mapping[str, Any], budget: int) -> Grid:
    """The excess of whole traces under each law, the laws that count for the word inside marked."""
    counts = {r["source"]: (r.get("laws") or "").split("; ") for r in records(data, "support", "evidence")}
    found = [r for r in records(data, "support", "laws") if r["source"] in counts]
    ks = sorted({r["k"] for r in found})
    at = {(r["source"], r["law"], r["k"]): r for r in found}
    rows = []
    for source, law in dict.fromkeys((r["source"], r["law"]) for r in found):
        excess = [at.get((source, law, k)) for k in ks]
        cells = [NONE if r is None else interval({"value": r["excess"], **r}) for r in excess]
        r = at.get((source, law, float(budget))) or next(r for r in excess if r is not None)
        given = f"{r['given_low']:.3f} to {r['given_high']:.3f}"
        mean = NONE if r["log_ratio"] is None else f"{r['log_ratio']:.2f}"
        rows.append([source, law, *cells, given, mean, "yes" if law in counts[source] else NONE, count(r["n"])])
    columns = ["source", "law of the base", *(f"excess@{k:g}" for k in ks), f"bounds at {budget} for these problems"]
    return Grid([*columns, "mean log q - log p", "counts for inside", "n"], rows, [])
