"""From results to one word per source and level; the rules are fixed here and in `sequence`, before any data.

At budget k, with tolerance tau:
- no verdict (undetermined at all levels) where a gate of `preflight` failed.
- sequence: five words, each earned by a certificate (`sequence`).
- strategy: `outside` if the skeletons certify it at the budget. answer: `outside` if a group of problems is solved more
  often than k reference draws allow.
- "the primary endpoint holds": p <= .05 after Holm over the three levels.
- inside at a finer level holds at the coarser ones; outside at a coarser level holds at the finer ones.
Anything else is `undetermined`, with what would decide. Not rejected is never inside. Contradictions are printed.
"""

from __future__ import annotations

import math
from typing import Any

from analyzer import sequence
from analyzer.analyses import primary
from analyzer.analyses.preflight import sentence
from analyzer.analyses.primary import TAU, Endpoint, number, rows
from analyzer.records import LEVELS, Result, Verdict
from analyzer.sequence import Finding


def decide(
    results: dict[str, Result], *, sources: list[str], reference: str, budget: int = 64, tau: float = TAU
) -> list[Verdict]:
    """Three verdicts (sequence, strategy, answer) for every source but the reference, one of them the headline.

    `results` maps analysis names to results; `preflight`, `support`, `strategy`, `boundary` and `clusters` are read,
    each may be missing. The primary endpoints are those of the analyses' own tolerance (primary.TAU).
    """
    return [
        verdict
        for source in sources
        if source != reference
        for verdict in _source(results, source, reference, budget, tau)
    ]


def _source(results: dict[str, Result], source: str, reference: str, budget: int, tau: float) -> list[Verdict]:
    failed = _failed_gates(results.get("preflight"), source, reference)
    if failed:
        why = ["no verdict: a check before the tests failed", *(sentence(row) for row in failed)]
        found: dict[str, Finding] = {level: ("undetermined", list(why), _repair(failed)) for level in LEVELS}
        return _verdicts(found, source, reference, budget)
    ends = primary.endpoints(results, source, budget)
    found = {
        "sequence": sequence.decide(results.get("support"), source, reference, budget, tau, ends["sequence"]),
        "strategy": _strategy(results, source, budget, ends["strategy"]),
        "answer": _answer(results.get("boundary"), source, budget, ends["answer"]),
    }
    own = {level: word for level, (word, _, _) in found.items()}
    for finer, coarser in zip(LEVELS, LEVELS[1:], strict=False):
        word, why, needs = found[coarser]
        if found[finer][0] == "inside" and own[coarser] != "outside":
            line = f"inside at the {finer} level, and coarsening only lowers the excess"
            found[coarser] = ("inside", [*why, line], None)
    for finer, coarser in reversed(list(zip(LEVELS, LEVELS[1:], strict=False))):
        if found[coarser][0] == "outside" and found[finer][0] != "outside":
            word, why, needs = found[finer]
            line = f"outside at the {coarser} level, which no finer level can undo"
            if word in ("inside", "sharpened", "reweighted"):
                line = f"contradiction: by its own numbers {word} at the {finer} level; " + line
            found[finer] = ("outside", [*why, line], None)
    words = {level: word for level, (word, _, _) in found.items()}
    word, why, needs = found[_headline(words)]
    line = f"by level: sequence {words['sequence']}, strategy {words['strategy']}, answer {words['answer']}"
    found[_headline(words)] = (word, [*why, *_what_differs(results, source, words), line], needs)
    return _verdicts(found, source, reference, budget)


def _verdicts(found: dict[str, Finding], source: str, reference: str, budget: int) -> list[Verdict]:
    head = _headline({level: word for level, (word, _, _) in found.items()})
    return [
        Verdict(source, reference, level, budget, word, level == head, tuple(why), needs)
        for level, (word, why, needs) in found.items()
    ]


def _headline(words: dict[str, str]) -> str:
    """The coarsest level that is outside, else the finest that is inside, else the sequence."""
    for level in reversed(LEVELS):
        if words[level] == "outside":
            return level
    return next((level for level in LEVELS if words[level] == "inside"), "sequence")


def _failed_gates(preflight: Result | None, source: str, reference: str) -> list[dict[str, Any]]:
    """Rows of `checks` that failed, gate, and concern this source, the reference, or everything."""
    table = preflight.tables.get("checks") if preflight else None
    found = [] if table is None or table.empty else table.to_dict("records")
    whose = ("", source, reference)
    return [r for r in found if r["source"] in whose and r["gates"] and r["passed"] is not None and not r["passed"]]


def _repair(failed: list[dict[str, Any]]) -> str:
    names = ", ".join(dict.fromkeys(r["check"] for r in failed))
    return f"inputs that pass the preflight: {names} ({failed[0]['note'].split('; ')[-1]})"


def _what_differs(results: dict[str, Result], source: str, words: dict[str, str]) -> list[str]:
    """Which tokens carry the novelty, and whether wording, steps or answers differ, as far as that is certified."""
    evidence = next(iter(rows(results.get("support"), "evidence", source)), {})
    out = []
    if words["sequence"] != "outside":
        return out
    if evidence.get("carried"):
        out.append(f"novelty carried by {evidence['carried']}")
    if words["answer"] == "outside":
        out.append("answers differ, and with them steps and wording")
    elif words["strategy"] == "outside":
        out.append("steps differ, and with them wording; answers are not shown to differ")
    else:
        what = {"word": "wording", "number": "numbers", "sign": "operators and signs"}
        named = what.get(evidence.get("carrier", ""), "token sequence")
        out.append(f"differs in its {named}; steps as a whole and answers are not shown to differ")
    return out


def _strategy(results: dict[str, Result], source: str, budget: int, end: Endpoint) -> Finding:
    """Skeletons at the budget certify; everything else about strategies is said beside it."""
    strategy, clusters = results.get("strategy"), results.get("clusters")
    row, why = primary.strategy_row(strategy, source, budget), []
    if row:
        counts = [f"{row['share_' + side]:.1%} of {int(row['n_' + side]):,}" for side in ("source", "reference")]
        p = f"p = {row['p']:.2g}, Holm over levels {end.p_holm:.2g}"
        why.append(f"likeliest novel skeleton: {counts[0]} of {source} against {counts[1]} of the reference ({p})")
    changed = strategy.estimates.get(f"{source}.changed_p") if strategy else None
    if changed is not None and math.isfinite(changed.value):
        why.append(f"changed at all (skeletons, energy): p = {changed.value:.2g}; a change is not a leaving")
    mass = clusters.estimates.get(f"{source}.novel_cluster_mass") if clusters else None
    if mass is not None and math.isfinite(mass.value):
        share = _percent(mass.value, mass.low, mass.high)
        why.append(f"mass in clusters new to the reference: {share} (descriptive, no certificate)")
    if end.certified:
        share = strategy.estimates.get(f"{source}.strategy_mass")
        tail = f"; {share.value:.1%} of {source} in such clusters" if share and math.isfinite(share.value) else ""
        example = f": {row['exemplar']!r}" if row.get("exemplar") else ""
        return "outside", [*why, f"a kind of solution beyond {budget} reference draws{example}{tail}"], None
    if not row:
        needs = f"at least two traces per problem of {source} and the reference, for a split test on skeletons"
        return "undetermined", why or ["no strategy test at hand"], needs
    factor = number(row.get("factor"))
    if math.isfinite(factor) and factor > 1:
        return "undetermined", why, f"about {factor:.1f} times the traces per problem on both sides, if the shares stay"
    needs = f"no kind of solution exceeds {budget} times the reference's share: more such traces would not change this"
    return "undetermined", why, needs


def _answer(boundary: Result | None, source: str, budget: int, end: Endpoint) -> Finding:
    """Conditional binomial by group at the budget, from the table `answer_test` of boundary (last training step)."""
    found = primary.answer_rows(boundary, source, budget)
    if not found:
        why = [f"no answer test at budget {budget}: no correctness for both sides on joined problems"]
        return "undetermined", why, f"correctness of {source} and the reference on the same problems"
    why = []
    for r in found:
        if not r["problems"]:
            continue
        counts = [f"{r[f'c_{side}']:,} of {r[f'n_{side}']:,}" for side in ("source", "reference")]
        p = f"p = {r['p']:.2g}, Holm {r['p_holm']:.2g}"
        why.append(f"group {r['group']}: {counts[0]} correct against {counts[1]} ({p})")
    groups = [r for r in found if not r.get("chosen")]
    only, lost = (sum(r[name] for r in groups) for name in ("source_only", "reference_only"))
    why.append(f"problems solved by {source} alone: {only}; by the reference alone: {lost}")
    if end.certified:
        return (
            "outside",
            [*why, f"solves more than {budget} reference draws allow (Holm over levels {end.p_holm:.2g})"],
            None,
        )
    able = [r for r in found if math.isfinite(number(r["factor"]))]
    if not able:
        needs = f"no group exceeds {budget} times the reference's rate: more samples like these would not change this"
        return "undetermined", why, needs
    best = min(able, key=lambda r: r["factor"])
    needs = f"about {best['factor']:.1f} times the samples per problem in group {best['group']} on both sides"
    return "undetermined", why, f"{needs}, if the rates stay"


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
