"""What a report from texts alone says first: what is solved, and how much of a source is among draws of the reference.

Without a model nothing is known of token probabilities, so that the word of that level is no finding: numbers lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analyzer.pages import content
from analyzer.records.display import possessive

MEANS = {  # of a class at each level, as the end of "... include one with"
    "steps": "the same kinds of steps in the same order",
    "skeleton": "the same numbers and signs too",
    "answer": "the same answer",
}
HAVING = {"steps": "with a formula", "skeleton": "with a number or formula", "answer": "with a known answer"}
MANY = 0.05  # share of traces without a class above which the first sentence says what it is a share of
BRACKETS, OWN_RATE = "Brackets are for problems such as these; ", "the reference's own share is no ceiling"
OUTCOME = "right and wrong as the reference's draws, whatever the method"


def texts_alone(data: Mapping[str, Any]) -> bool:
    """Whether nothing was scored under a model, so that there are texts and labels alone."""
    return "support" not in data["analyses"] and "contained" in data["analyses"]


def sentences(data: Mapping[str, Any], source: str, reference: str) -> list[str]:
    """pass@1 and pass@k beside the reference's with their difference, then contained@k; of a run with a model none, and
    none where a check refused the comparison that these numbers are."""
    if not texts_alone(data) or refused(data, source):
        return []
    return [s for s in (_solved(data, source, reference), *_held(data, source, reference)) if s]


def certified(data: Mapping[str, Any], source: str) -> str:
    """What the draws show at the other levels where no verdict was earned: a sentence; "" where one was, or where a
    check refused all of them."""
    words = {v["level"]: v["verdict"] for v in data["verdicts"] if v["source"] == source}
    if (
        refused(data, source)
        or not texts_alone(data)
        or any(words[v["level"]] != "undetermined" for v in _heads(data, source))
    ):
        return ""
    sure = [
        f"{word} at the {level} level" + (f" ({OUTCOME})" if (word, level) == ("inside", "correct") else "")
        for level, word in words.items()
        if word != "undetermined"
    ]
    found = f"; for these problems, at 95 %, they show only: {', '.join(sure)}" if sure else ""
    return f"Whether {source} goes beyond the reference is not decided by these draws{found}"


def refused(data: Mapping[str, Any], source: str) -> bool:
    """Whether a check before the tests failed, so that there is no verdict; its reasons name the check."""
    return any(w.startswith("no verdict") for v in _heads(data, source) for w in v["why"][:1])


def _heads(data: Mapping[str, Any], source: str) -> list[Mapping[str, Any]]:
    return [v for v in content.headlines(data) if v["source"] == source]


def _solved(data: Mapping[str, Any], source: str, reference: str) -> str:
    """ "Solved with one draw (pass@1): a 0.54, base 0.55, difference -0.01 [-0.07, 0.05]; with 8 draws ..." """
    pairs = data["analyses"].get("paired", {}).get("estimates", {})
    several = next((k for k in pairs if k.startswith(f"{source}-{reference}.pass@")), "")
    ks = {1: f"{source}-{reference}.pass_rate"}
    if several:
        ks[int(several.rpartition("@")[2])] = several
    parts = []
    for k, name in ks.items():
        both = [content.estimate(data["analyses"], "boundary", f"{s}.pass@{k}") for s in (source, reference)]
        if any(e is None or e["value"] is None for e in both):
            continue
        values = ", ".join(f"{s} {e['value']:.2f}" for s, e in zip((source, reference), both, strict=True))
        gap = pairs.get(name)
        told = f", difference {content.interval(gap)}" if gap and gap["value"] is not None else ""
        parts.append(f"{'one draw' if k == 1 else f'the best of {k} draws'} (pass@{k}): {values}{told}")
    return f"Share of problems solved with {'; with '.join(parts)}" if parts else ""


def _held(data: Mapping[str, Any], source: str, reference: str) -> list[str]:
    """contained@k of the method and of the answer, each beside the reference's own rate."""
    found = {r["level"]: r for r in content.records(data, "contained", "levels") if r["source"] == source}
    known = {level: found[level] for level in MEANS if found.get(level, {}).get("contained") is not None}
    if not known:
        why = next((r["note"] for r in found.values() if r["note"]), "")
        return [f"How much of {source} is among draws of {reference} can't be said: {why}"] if why else []
    k = next(iter(known.values()))["k"]
    parts = [
        f"{MEANS[level]} for {_share(r)} of {_draws(r, level, source)} ({r['own']:.0%} of {possessive(reference)} own)"
        for level, r in known.items()
        if r["k"] == k
    ]
    draws = f"{k} draws of {reference} on the same problem include one" if k > 1 else f"One draw of {reference} is one"
    told = BRACKETS + OWN_RATE if any("[" in part for part in parts) else OWN_RATE.capitalize()
    return [f"{draws} with {'; with '.join(parts)}. {told}"]


def _draws(row: Mapping[str, Any], level: str, source: str) -> str:
    draws, without = f"{possessive(source)} draws", row.get("unknown") or 0.0
    return f"the {1 - without:.0%} of {draws} {HAVING[level]}" if without >= MANY else draws


def _share(row: Mapping[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return f"{row['contained']:.0%}"
    return f"{row['contained']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"
