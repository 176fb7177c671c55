"""What each analysis found, in one sentence, and which of its figures shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from analyzer.pages import content, key, lead
from analyzer.records.display import NONE, possessive

SAID = {  # analysis -> what its number is, and the estimates that hold it, the first that the run has
    "perplexity": ("Median perplexity of a trace under the base model", r"ppl\.median"),
    "support": (
        "Probability mass, by whole traces, beyond {k} times the base's",
        r"beyond@{k}",
        r"reach@{k}",
        r"novel_mass@{k}",
    ),
    "contained": (
        "Share of traces with a formula whose kinds of steps, in order, are among the draws of {reference}",
        r"contained@\d+\.steps",
    ),
    "strategy": (
        "Share of traces in kinds of solution more than {k} times as frequent as in {whose} draws",
        r"strategy_mass",
    ),
    "tokens": ("Share of tokens that are the base's likeliest", r"unshifted"),
    "reliability": ("Chance that all of k draws on a problem are correct", r"pass\^\d+"),
    "task_horizon": ("Difficulty at which half of the draws solve a task", r"task_horizon@1"),
    "chains": ("Share of correct traces whose reasoning is valid", r"valid_share"),
    "handover": ("Success of the base that goes on from these prompts alone", r"handover_start"),
    "clusters": ("Share of traces in clusters that hold none of {whose}", r"novel_cluster_mass"),
}
SECTION = {"preflight": "a-preflight", "robustness": "robustness"}  # whose finding is a doubt, or that there is none
SHOWN = {"preflight": (), "support": ("reach",), "clusters": ("effective",)}  # the figure of a panel; else its first
FIRST = 2  # differences between two sources on the first screen


def said(data: Mapping[str, Any], name: str, k: int) -> str:
    """The finding of an analysis as a sentence with its numbers; "" where there is none."""
    if name in SECTION:
        found = [text for section, _, text in content.doubts(data) if section == SECTION[name]]
        return f"{found[0].replace('every verdict', 'Every verdict')}." if found else ""
    if name == "paired":
        return f"{_clauses(data['analyses'][name]['notes'][0])}." if data["analyses"][name]["notes"] else ""
    if name == "boundary":
        grid = key.tables(data, budget=k)[0][1]
        at = max((i for i, column in enumerate(grid.columns) if column.startswith("pass@")), default=0)
        values = [f"{row[0]} {_point(row[at])}" for row in grid.rows if row[at] != NONE]
        return f"Problems solved ({grid.columns[at]}): {', '.join(values)}." if at else ""
    reference = content.reference(data, {})
    what, *patterns = SAID.get(name, ("",))
    for pattern in patterns:
        if values := _values(data, name, pattern.replace("{k}", str(k))):
            what = what.format(k=k, reference=reference, whose=possessive(reference))
            return f"{what}: {', '.join(values)}."
    return ""


def _values(data: Mapping[str, Any], name: str, pattern: str) -> list[str]:
    """ "rlvr 0.83" of every source with such an estimate, the reference first."""
    out = []
    for label in content.labels(data, {}):
        if lead.refused(data, label):  # a check disqualifies its numbers
            continue
        for at, e in data["analyses"][name]["estimates"].items():
            own = at.startswith(f"{label}.") and re.fullmatch(pattern, at[len(label) + 1 :])
            if own and e["value"] is not None:
                out.append(f"{label} {_point(content.interval(e))}")
                break
    return out


def _point(text: str) -> str:
    return text.partition(" [")[0]


def shown(name: str, figures: Sequence[str]) -> list[str]:
    """The figure of a panel that stands open: the one that shows its finding."""
    return [figure for figure in SHOWN.get(name, figures[:1]) if figure in figures]


def pictures(figures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The figures of the first screen: where the sources leave the base, else what its draws contain; and pass@k."""
    where = next(
        ((a, f) for a, f in (("support", "prefix"), ("contained", "contained")) if f in figures.get(a, {})), None
    )
    solved = ("boundary", "pass_at_k")
    return [*([where] if where else []), *([solved] if solved[1] in figures.get(solved[0], {}) else [])]


def between(data: Mapping[str, Any]) -> str:
    """How the two sources that differ most among themselves differ, such as a distilled and an RL model; "" where no
    two but the reference are there."""
    mark = content.reference(data, {})
    pairs = [r for r in content.records(data, "paired", "pairs") if mark not in (r["a"], r["b"])]
    notes: Sequence[str] = data["analyses"].get("paired", {}).get("notes", [])
    return _clauses(next((r["says"] for r in pairs if r["says"] in notes[:1]), ""))


def _clauses(says: str) -> str:
    """The first differences of a pair."""
    clauses = says.rstrip(".").split("), ")
    return "), ".join(clauses[:FIRST]) + (")" if len(clauses) > FIRST else "")
