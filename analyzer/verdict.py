"""From results to one word per source and level; the rules are fixed here and in `analyses/primary`, before any data.

Words (DESIGN section 5) at budget k, with tolerance tau:
- no verdict (undetermined at all levels) where a gate of `preflight` failed.
- sequence, log q known: `inside` if the upper bound of E_k <= tau (where no trace exceeds the budget that bound speaks
  of the given problems, and `why` says so). `outside` if its lower bound > tau, the lower bound of novel@1 (e-value,
  high surprisal by construction) > tau / 2, and the primary endpoint holds. `sharpened` if the lower bound of E_k >
  tau, the surprisal is on the low or neutral side, the upper bound of novel@1 <= tau, and the conformal test is silent.
  Where novel@1 is below the engine floor the next budget above it stands for it.
- sequence, log q unknown: `outside` if the lower bound of novel@4 > tau / 2 and the primary endpoint holds.
- sequence, budget below the engine floor: undetermined by its own numbers.
- strategy: `outside` if the skeletons certify it at the budget. answer: `outside` if a group of problems is solved more
  often than k reference draws allow.
- "the primary endpoint holds": p <= .05 after Holm over the three levels.
- inside at a finer level holds at the coarser ones; outside at a coarser level holds at the finer ones.
Anything else is `undetermined`, with what would decide. Not rejected is never inside. Contradictions are printed.
"""

from __future__ import annotations

import math
from typing import Any

from analyzer.analyses import primary
from analyzer.analyses.engine import below
from analyzer.analyses.preflight import sentence
from analyzer.analyses.primary import ALPHA, CERTIFY, TAU, Endpoint, number, rows
from analyzer.records import LEVELS, Estimate, Result, Verdict
from analyzer.stats.bootstrap import share_upper

UNTESTED = "novelty was not tested: the base's scorer (a server?) knows log-probs, no entropies"
Finding = tuple[str, list[str], str | None]  # word, reasons, what would decide


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
        "sequence": _sequence(results.get("support"), source, reference, budget, tau, ends["sequence"]),
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
            if word in ("inside", "sharpened"):
                line = f"contradiction: by its own numbers {word} at the {finer} level; " + line
            found[finer] = ("outside", [*why, line], None)
    words = {level: word for level, (word, _, _) in found.items()}
    word, why, needs = found[_headline(words)]
    line = f"by level: wording {words['sequence']}, steps {words['strategy']}, answers {words['answer']}"
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


def _sequence(support: Result | None, source: str, reference: str, budget: int, tau: float, end: Endpoint) -> Finding:
    """Word, reasons and needs at the sequence level."""
    if support is None:
        return "undetermined", ["no token probabilities under the base model"], "--base MODEL"
    row = next(iter(rows(support, "evidence", source)), {})
    least = number(row.get("certify"))
    levels = tuple(int(max(k, least)) if math.isfinite(least) else k for k in (1, CERTIFY))
    names = (f"reach@{budget}", *(f"novel@{k}" for k in levels))
    reach, plain, strict = (support.estimates.get(f"{source}.{name}") for name in names)
    if plain is None or strict is None:
        why = [f"no trace of {source} was scored under the base"]
        return "undetermined", why, f"scores of {source} under the base model"
    if row.get("no_verdict"):
        needs = "the model, prompts and ids that the reference was really drawn with"
        return "undetermined", [row["no_verdict"]], needs
    floor = number(row.get("k_min"))
    if below(budget, floor):
        why = [f"k_min = {floor:.3g} > {budget}: generation and scoring differ by more than the budget"]
        return "undetermined", why, f"--budget {math.ceil(floor)} or more, or log-probs of generation and scoring alike"
    side, veto = row.get("side", "unknown"), [number(row.get(f"conformal_{x}")) for x in ("share", "low", "high")]
    why = _reasons(reach, dict(zip(levels, (plain, strict))), row, budget)
    vetoed = veto[1] > tau / 2
    if vetoed:
        why.append(f"the conformal test (secondary) flags {_percent(*veto)} at k=1")
    held = f"p = {end.p:.2g}, Holm over levels {end.p_holm:.2g}"
    if reach is None or not math.isfinite(reach.value):
        why.append("log q unknown: " + (reach.note if reach and reach.note else "no policy model"))
        if strict.low > tau / 2 and end.certified:
            return "outside", [*why, f"novelty certified at k={levels[1]} ({held}{_where(row)})"], None
        missing = reach.note.split("give ")[-1] if reach and "give " in reach.note else f"--policy {source}=MODEL"
        return "undetermined", why, f"{missing} (log q decides between inside and sharpened)"
    if reach.high <= tau:
        beyond = support.estimates.get(f"{source}.novel@{budget}")
        if beyond is not None and beyond.low > tau:
            flags = _percent(beyond.value, beyond.low, beyond.high)
            why.append(f"contradiction: {flags} flagged as novel at k={budget}")
            needs = f"a reason why reach and novelty disagree: is --policy {source}=MODEL the right model?"
            return "undetermined", why, needs
        if plain.low > tau / 2:
            why.append("novelty is flagged at k=1, and is within reach of the budget")
        why, needs = [*why, *_exits(support, source, reference)], None
        if reach.value == 0:
            line, needs = _no_event(int(row["problems"]), reach, budget, tau)
            why.append(line)
        return "inside", why, needs
    if not reach.low > tau:
        return "undetermined", why, _more(reach, tau, f"E_{budget}")
    if plain.low > tau / 2:
        if end.certified:
            return "outside", [*why, f"beyond reach and of high surprisal ({held}{_where(row)})"], None
        return (
            "undetermined",
            [*why, f"novelty is not certified across the levels: {held}"],
            _more(plain, tau / 2, "novel@1"),
        )
    if side in ("low", "neutral") and plain.high <= tau and not vetoed:
        line = f"beyond reach, but surprisal on the {side} side and nothing flagged: what the base does, made likelier"
        return "sharpened", [*why, line], None
    return "undetermined", why, _between(plain, side, vetoed, tau)


def _reasons(reach: Estimate | None, novel: dict[int, Estimate], row: dict[str, Any], budget: int) -> list[str]:
    """Reach, flagged shares by k, surprisal, log-ratio and the share cut off."""
    why = []
    if reach is not None and math.isfinite(reach.value):
        why.append(f"E_{budget} = {reach.value:.3f} [{reach.low:.3f}, {reach.high:.3f}] over {reach.n:,} traces")
    n = next(iter(novel.values())).n
    flagged = [f"{_percent(e.value, e.low, e.high)} at k={k}" for k, e in novel.items()]
    why.append(f"flagged as novel: {', '.join(flagged)} (n = {n:,})" if n else UNTESTED)
    if math.isfinite(number(row.get("z_median"))):
        z0 = number(row.get("z_reference_median"))
        reference = f", reference {z0:.2f}" if math.isfinite(z0) else ""
        why.append(f"excess surprisal z: median {row['z_median']:.2f}{reference}; side {row['side']}")
    if math.isfinite(number(row.get("log_ratio_median"))):
        why.append(f"log-ratio: median {row['log_ratio_median']:.2f} nats (budget: {math.log(budget):.2f})")
    if number(row.get("cut_share")) > 0:
        why.append(
            f"{row['cut_share']:.1%} of the traces are cut off at the length limit; this speaks of their sampled part"
        )
    return why


def _exits(support: Result, source: str, reference: str) -> list[str]:
    """A contradiction to print: within reach, yet oftener outside the sampler that both share than the reference is."""
    own, base = (support.estimates.get(f"{s}.sampler_inside") for s in (source, reference))
    if own is None or base is None or own.note or not own.high < base.low:
        return []
    shares = f"{100 * own.value:.1f} % against {100 * base.value:.1f} % of {reference}"
    return [f"contradiction: within reach at T=1, yet fewer traces inside the reference's sampler ({shares})"]


def _no_event(problems: int, reach: Estimate, budget: int, tau: float) -> tuple[str, str | None]:
    """For whom the bound holds when no trace exceeds the budget, and how many problems would extend it to new ones."""
    new = float(share_upper(0, problems))
    line = f"no trace beyond {budget} draws: the bound {reach.high:.3f} is for these {problems} problems"
    if new <= tau:
        return f"{line}, and for new ones {new:.3f}", None
    least = math.ceil(math.log(ALPHA) / math.log1p(-tau))
    cost = f"for new problems the bound is {new:.3f}; {least} problems without such a trace would bring it to {tau:g}"
    return f"{line}, not for new ones", f"a new problem on which it departs ({cost}), or a wrong sampler or template"


def _where(row: dict[str, Any]) -> str:
    return f"; flagged: {row['flagged_groups']}" if row.get("flagged_groups") else ""


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


def _between(plain: Estimate, side: str, vetoed: bool, tau: float) -> str:
    """What would decide between sharpened and outside, once the traces are beyond reach."""
    if vetoed:
        return "the two novelty tests disagree: look at the flagged traces; more traces for the e-value"
    if not plain.n:
        return "scores under the base by --scorer local"
    if plain.high > tau and not plain.low > tau / 2:
        return _more(plain, tau, "novel@1")
    return f"surprisal is on the {side} side without certified novelty: more traces, or a longer look at the highest z"


def _more(estimate: Estimate, tau: float, name: str) -> str:
    """How many more traces would move the interval off tau if the value stays: its half-width falls with sqrt(n)."""
    gap = abs(estimate.value - tau)
    half = estimate.high - estimate.value if estimate.value < tau else estimate.value - estimate.low
    if not (math.isfinite(half) and gap > 0):
        return f"more problems: no interval for {name}"
    # a zero count has a bound that falls with n, not with its root
    factor = (half / gap) ** (1 if estimate.value == 0 else 2)
    if factor > 1000:
        return f"{name} is too close to {tau:g} for any affordable number of traces"
    times = max(2, math.ceil(factor))
    return f"about {times} times the problems or traces ({estimate.n:,} now), if {name} stays at {estimate.value:.3f}"


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
