"""The words of the levels of the ladder: `inside` by what k draws of the reference contain, `outside` by counts.

One level's own numbers; what follows from a finer or a coarser level is added by `verdict`.
"""

from __future__ import annotations

import math
from typing import Any

from analyzer.analysis import primary
from analyzer.analysis.primary import Endpoint, number
from analyzer.analysis.verdict.sequence import Finding
from analyzer.records import METHOD, TESTED, Result
from analyzer.records.display import counted
from analyzer.stats.bootstrap import ALPHA
from analyzer.stats.budget import MOST, SURE

COARSER = "a coarser level: more draws like these would not decide this one"
COARSEST = "no number of draws like these: no level of its branch is coarser"
ODDS = f"which decide in {SURE:.0%} of such cases"
UNSURE = f"too few traces of it: no number of draws up to {MOST} times these is likely to decide"
Part = tuple[bool, list[str], str | None]  # certified, what is said, what would decide


def decide(results: dict[str, Result], source: str, level: str, budget: int, tau: float, end: Endpoint) -> Finding:
    """Word, reasons and what would decide, at any level but the sequence."""
    found = primary.rows(results.get("contained"), "levels", source)
    inside, why, more = _contained(next((r for r in found if r["level"] == level), {}), budget, tau)
    if level in METHOD:
        outside, told, needs = _method(results, source, level, budget, end)
    else:
        outside, told, needs = _outcome(results.get("boundary"), source, level, budget, end)
        guessed = next((r for r in primary.answer_rows(results.get("boundary"), source, budget) if r["guessed"]), None)
        if guessed:
            said = f"{budget} guesses without reading the question hit ({guessed['guess']:.0%} each)"
            return "undetermined", [f"{said}: this level cannot decide", *why], "a level of the method"
    if outside:
        contradiction = [f"contradiction: by what draws contain, inside at the {level} level"] if inside else []
        return "outside", [*told, *why, *contradiction], None
    if inside:
        return "inside", [*why, *told], None
    wanted = "; or ".join(text for text in (needs, more) if text)
    coarser = COARSEST if level in ("kinds", "correct") else COARSER
    return "undetermined", [*why, *told] or ["nothing at hand on problems that both have"], wanted or coarser


def _contained(row: dict[str, Any], budget: int, tau: float) -> Part:
    """Whether contained@k certifies inside, what is said of it, and the draws of the reference that could."""
    if not math.isfinite(number(row.get("contained"))):
        note = row.get("note") or ""
        needs = "answers of both sides (field answer)" if note.startswith("no answer") else None
        needs = "more draws of the reference a problem" if "a single draw" in note else needs
        return False, [f"contained: {note}"] if note else [], needs
    k, high, p = int(row["k"]), number(row["miss_high"]), number(row["p_inside"])
    said = f"{k} draws of the reference contain the like of {row['contained']:.1%} of its traces"
    said += f" ({row['own']:.1%} of the reference's own)" if math.isfinite(number(row["own"])) else ""
    said += f"; they miss at most {high:.2%} for these problems"
    said += f" (95 % bound, tolerance {tau:.0%})"
    said += f"; {row['note']}" if row.get("note") else ""
    needs = None
    if not math.isfinite(p):
        needs = "traces of at least three problems"
    elif number(row["best"]) > tau or (k < budget and high > tau):
        draws = number(row["draws_needed"])
        needs = "more problems" if math.isnan(draws) else f"{draws:.0f} draws of the reference a problem"
        needs += f" (k = {budget})" if draws > budget else ""
        needs += ", if they contain it all"
    return bool(math.isfinite(p) and high <= tau), [said], needs


def _method(results: dict[str, Result], source: str, level: str, budget: int, end: Endpoint) -> Part:
    """Groups of traces that one half of the draws suggests and the other half tests at the budget."""
    strategy, clusters = results.get("strategy"), results.get("clusters")
    row, why = primary.strategy_row(strategy, source, level, budget), []
    if row:
        counts = [f"{row['share_' + side]:.1%} of {int(row['n_' + side]):,}" for side in ("source", "reference")]
        p = f"that it is at most {budget} times as frequent: p = {row['p']:.2g}, Holm over levels {end.p_holm:.2g}"
        group = f"most extreme group, '{row['best_cluster']}'"
        why.append(f"{group}: {counts[0]} of {source} against {counts[1]} of the reference ({p})")
    if level == "skeleton":
        changed = strategy.estimates.get(f"{source}.changed_p") if strategy else None
        if changed is not None and math.isfinite(changed.value):
            shift = "a distribution shift is not support expansion"
            why.append(f"any change at all (skeletons, energy test): p = {changed.value:.2g}; {shift}")
        mass = clusters.estimates.get(f"{source}.novel_cluster_mass") if clusters else None
        if mass is not None and math.isfinite(mass.value):
            share = f"{100 * mass.value:.1f} % [{100 * mass.low:.1f}, {100 * mass.high:.1f}]"
            why.append(f"mass in clusters new to the reference: {share} (descriptive, no certificate)")
    if end.certified:
        held = strategy.estimates.get(f"{source}.strategy_mass") if strategy else None
        tail = f"; {held.value:.1%} of {source} in such groups" if held and math.isfinite(held.value) else ""
        example = f", for one “{row['exemplar']}”" if row.get("exemplar") else ""
        said = f"a kind of solution more than {budget} times as frequent as in the reference{example}{tail}"
        return True, [*why, said], None
    if not row:
        return False, why, f"texts with at least two traces a problem of {source} and the reference, for a split test"
    factor = number(row.get("factor"))
    if math.isfinite(factor):  # at a p that passes Holm over the levels, so that 1 is not enough
        return False, why, f"about {max(factor, 1.1):.1f} times the traces per problem on both sides, {ODDS}"
    beyond = number(row["share_source"]) > budget * number(row["share_reference"])
    none = f"no tested group exceeds {budget} times the reference's share: more such traces won't help"
    return False, [*why, UNSURE if beyond else none], None


def _outcome(boundary: Result | None, source: str, level: str, budget: int, end: Endpoint) -> Part:
    """Conditional binomial by group at the budget, from the table `answer_test` of boundary (last training step)."""
    if level == "answer":
        return False, [], None
    found = primary.answer_rows(boundary, source, budget)
    if not found:
        return False, [], f"correctness of {source} and the reference on the same problems"
    why = []
    for r in (r for r in found if r["problems"]):
        counts = [f"{r[f'c_{side}']:,} of {r[f'n_{side}']:,}" for side in ("source", "reference")]
        p = f"p = {r['p']:.2g}, Holm {r['p_holm']:.2g}"
        why.append(f"problems of group {r['group']!r}: {counts[0]} correct against {counts[1]} ({p})")
    groups = [r for r in found if not r.get("chosen")]
    only, lost = (sum(r[name] for r in groups) for name in ("source_only", "reference_only"))
    why.append(f"problems solved by {source} alone: {only}; by the reference alone: {lost}")
    unread = {side: number(found[0].get(f"unread_{side}")) for side in ("source", "reference")}
    if max(unread.values()) > 0:
        said = " and ".join(f"{share:.1%} of the {side}" for side, share in unread.items())
        n = int(found[0].get("unread_problems") or 0)
        apart = f" ({counted(n, 'problem')} without another)" if n else ""
        why.append(
            f"no answer was read (or a limit cut the draw) from {said}; such draws of the reference do not count{apart}"
        )
    if raised := int(found[0].get("raised") or 0):
        why.append(
            f"{counted(raised, 'draw')} of the reference labelled wrong count as correct here: their answer counts as "
            "correct elsewhere (the milder of two graders)"
        )
    best = min(found, key=lambda r: r["p"])
    guesses = _guesses(best, source)
    if end.certified:
        known = [] if best.get("answered", True) else ["no answers in the dumps: an unread format would look like this"]
        said = f"solves more than {budget} reference draws or guesses allow (Holm {end.p_holm:.2g})"
        return True, [*why, *guesses, *known, said], None
    if not any(r["problems"] for r in groups) and unread["reference"] > 0:
        return False, why, "draws of the reference whose answer can be read"
    stopped, alpha = min(found, key=lambda r: number(r.get("p_count"))), ALPHA / len(TESTED)
    if number(stopped.get("p_count")) <= alpha < number(stopped.get("p_blind")):
        more = f"right answers of {source} that guesses can't explain: one that comes up more often than any wrong one"
        needs = more if stopped["answered"] else "answers of both sides (field answer), to tell solving from guessing"
        return False, [*why, *_guesses(stopped, source)], needs
    able = [r for r in found if math.isfinite(number(r["factor"]))]
    if not able:
        beyond = any(r["c_source"] * r["n_reference"] > budget * r["c_reference"] * r["n_source"] for r in found)
        none = f"no group exceeds {budget} times the reference's rate: more such samples won't help"
        return False, [*why, UNSURE if beyond else none], None
    best = min(able, key=lambda r: r["factor"])
    needs = f"about {max(best['factor'], 1.1):.1f} times the samples per problem in group {best['group']} on both sides"
    return False, why, f"{needs}, {ODDS}"


def _guesses(row: dict[str, Any], source: str) -> list[str]:
    """Whether the hits may be guesses, in words; nothing where no hit was counted."""
    if not row.get("top_right"):
        return []
    right, p = row["top_right"], f"p = {row['p_blind']:.2g}"
    if row["answered"]:
        wrong = f"against {row['top_wrong']:,} of the most frequent wrong one"
        return [f"{source} gave the most frequent right answer {right:,} times {wrong} ({p} that these are guesses)"]
    of = right + row["top_wrong"]
    return [f"{source} is right in more than half of its draws on {right:,} of {of:,} problems ({p} of guesses in two)"]
