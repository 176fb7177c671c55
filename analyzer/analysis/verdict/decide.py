"""From results to one word per source and level; the rules are fixed here and in `sequence`, before any data.

At budget k, with tolerance tau:
- no verdict (undetermined at all levels) where a gate of `preflight` failed.
- sequence: five words, each earned by a certificate (`sequence`).
- the other levels, method (skeleton, steps, kinds) and outcome (answer, correct): `inside` if the upper bound of
  1 - contained@k is at most tau; `outside` if a group of traces is certified at the budget (method), or a group of
  problems solved more often than k reference draws or k blind guesses allow (correct).
- "certified": p <= .05 after Holm over the levels.
- along a branch, inside at a finer level holds at the coarser ones, outside at a coarser level at the finer ones and at
  the sequence; nothing passes from one branch to the other.
Anything else is `undetermined`, with what would decide. Not rejected is never inside. Contradictions are printed.
"""

from __future__ import annotations

from typing import Any

from analyzer.analysis import primary
from analyzer.analysis.preflight.run import sentence
from analyzer.analysis.primary import rows
from analyzer.analysis.support import record
from analyzer.analysis.verdict import levels, sequence
from analyzer.analysis.verdict.sequence import Finding
from analyzer.records import BUDGET, LEVELS, METHOD, OUTCOME, TAU, Result, Verdict


def decide(
    results: dict[str, Result], *, sources: list[str], reference: str, budget: int = BUDGET, tau: float = TAU
) -> list[Verdict]:
    """A verdict at each of LEVELS for every source but the reference, one of them the headline.

    `results` maps analysis names to results; `preflight`, `support`, `contained`, `strategy`, `boundary` and `clusters`
    are read, each may be missing. The primary endpoints are those of the analyses' own tolerance (records.TAU).
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
    found = {"sequence": sequence.decide(results.get("support"), source, reference, budget, tau, ends["sequence"])}
    found |= {level: levels.decide(results, source, level, budget, tau, ends[level]) for level in LEVELS[1:]}
    for branch in (METHOD, OUTCOME):
        _along(found, ("sequence", *branch))
    words = {level: word for level, (word, _, _) in found.items()}
    head = _headline(words)
    word, why, needs = found[head]
    if word == "undetermined" and not results.get("support") and results.get("contained"):  # the levels are all
        needs = _also(found, needs)
    why = _prompts_unknown(results.get("preflight"), source, [*why])
    line = f"by level: {', '.join(f'{level} {word}' for level, word in words.items())}"
    found[head] = (word, [*why, *_what_differs(results, source, words), line], needs)
    return _verdicts(found, source, reference, budget)


def _along(found: dict[str, Finding], branch: tuple[str, ...]) -> None:
    """Carry inside to the coarser levels of a branch and outside to the finer ones, in `found`."""
    own = {level: found[level][0] for level in branch}
    for finer, coarser in zip(branch, branch[1:], strict=False):
        if found[finer][0] == "inside" and own[coarser] not in ("outside", "inside"):
            line = f"inside at the {finer} level, and coarsening only lowers the excess, whatever the shares above"
            found[coarser] = ("inside", [*found[coarser][1], line], None)
    for finer, coarser in reversed(list(zip(branch, branch[1:], strict=False))):
        if found[coarser][0] == "outside" and found[finer][0] != "outside":
            word, why, _ = found[finer]
            line = f"outside at the {coarser} level, which no finer level can undo"
            if word in ("inside", "sharpened", "reweighted"):
                line = f"contradiction: by its own numbers {word} at the {finer} level; " + line
            found[finer] = ("outside", [*why, line], None)


def _verdicts(found: dict[str, Finding], source: str, reference: str, budget: int) -> list[Verdict]:
    head = _headline({level: word for level, (word, _, _) in found.items()})
    return [
        Verdict(source, reference, level, budget, word, level == head, tuple(why), needs)
        for level, (word, why, needs) in found.items()
    ]


def _also(found: dict[str, Finding], needs: str | None) -> str | None:
    """What would decide the headline, and beside it the finest level of each branch that more data could decide."""
    out = [needs] if needs else []
    for branch in (METHOD, OUTCOME):
        for level in branch:
            word, _, wanted = found[level]
            if word == "undetermined" and wanted not in (None, levels.COARSER, needs):
                out.append(f"at the {level} level {wanted}")
                break
    return "; ".join(out) or None


def _prompts_unknown(preflight: Result | None, source: str, why: list[str]) -> list[str]:
    """The reasons, the second of them that prompts were not compared, where that is so: another prompt may be all."""
    checked = [r for r in rows(preflight, "checks", source) if r["check"] == "prompts"]
    if checked and all(r["passed"] is None for r in checked):
        why.insert(1, "prompts could not be compared: another prompt alone may make such a difference")
    return why


def _headline(words: dict[str, str]) -> str:
    """The coarsest level that is outside; else the sequence unless it is undetermined; else the finest inside of the
    method: inside at an outcome alone (nothing is solved that the reference does not) says nothing of how."""
    outside = [level for level in LEVELS if words[level] == "outside"]
    inside = [level for level in METHOD if words[level] == "inside"]
    if outside:
        return outside[-1]
    return inside[0] if words["sequence"] == "undetermined" and inside else "sequence"


def _failed_gates(preflight: Result | None, source: str, reference: str) -> list[dict[Any, Any]]:
    """Rows of `checks` that failed, gate, and concern this source, the reference, or everything."""
    table = preflight.tables.get("checks") if preflight else None
    found = [] if table is None or table.empty else table.to_dict("records")
    whose = ("", source, reference)
    return [r for r in found if r["source"] in whose and r["gates"] and r["passed"] is not None and not r["passed"]]


def _repair(failed: list[dict[Any, Any]]) -> str:
    names = ", ".join(dict.fromkeys(r["check"] for r in failed))
    return f"inputs that pass the preflight: {names} ({failed[0]['note'].split('; ')[-1]})"


def _what_differs(results: dict[str, Result], source: str, words: dict[str, str]) -> list[str]:
    """Which tokens carry the novelty, and whether wording, steps or answers differ, as far as that is certified."""
    if words["sequence"] != "outside":
        return []
    evidence = record.read(results.get("support"), source) or record.Evidence()
    out = [f"novelty carried by {evidence.carried}"] if evidence.carried else []
    if any(words[level] == "outside" for level in OUTCOME):
        out.append("answers differ, and with them the very tokens")
    if any(words[level] == "outside" for level in METHOD):
        out.append("steps differ, and with them the very tokens")
    if len(out) == bool(evidence.carried):
        what = {"word": "wording", "number": "numbers", "sign": "operators and signs"}
        named = what.get(evidence.carrier, "token sequence")
        out.append(f"differs in its {named}; steps as a whole and answers are not shown to differ")
    return out
