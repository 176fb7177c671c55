"""From results to one word per source and level; the rules are fixed here, before any data is seen.

Words (DESIGN section 5) at budget k, with tolerance tau:
- sequence, log q known: `inside` if the upper bound of E_k <= tau. `outside` if its lower bound > tau and the lower
  bound of novel@1 (e-value, high surprisal by construction) > tau / 2. `sharpened` if the lower bound of E_k > tau, the
  surprisal is on the low or neutral side, the upper bound of novel@1 <= tau, and the conformal test is silent.
- sequence, log q unknown: `outside` if the lower bound of novel@4 > tau / 2; else undetermined.
- answer: `outside` if a predeclared group of problems is solved more often than k reference draws allow (conditional
  binomial of `boundary`, Holm over groups, .05). strategy: no test of its own certifies yet.
- inside at a finer level holds at the coarser ones; outside at a coarser level holds at the finer ones.
Anything else is `undetermined`, with what would decide. Not rejected is never inside. Contradictions are printed.
"""

from __future__ import annotations

import math
from typing import Any

from analyzer.records import LEVELS, Estimate, Result, Verdict

Finding = tuple[str, list[str], str | None]  # word, reasons, what would decide

TAU = 0.02
ALPHA = 0.05
CERTIFY = 4  # budget of novel@k that must hold where log q is not known


def decide(
    results: dict[str, Result], *, sources: list[str], reference: str, budget: int = 64, tau: float = TAU
) -> list[Verdict]:
    """Three verdicts (sequence, strategy, answer) for every source but the reference, one of them the headline.

    `results` maps analysis names to results; `support`, `boundary` and `clusters` are read, each may be missing.
    """
    return [
        verdict
        for source in sources
        if source != reference
        for verdict in _source(results, source, reference, budget, tau)
    ]


def _source(results: dict[str, Result], source: str, reference: str, budget: int, tau: float) -> list[Verdict]:
    found = {
        "sequence": _sequence(results.get("support"), source, budget, tau),
        "strategy": _strategy(results.get("clusters"), source),
        "answer": _answer(results.get("boundary"), source, budget),
    }
    own = {level: word for level, (word, _, _) in found.items()}
    for finer, coarser in zip(LEVELS, LEVELS[1:], strict=False):
        word, why, needs = found[coarser]
        if found[finer][0] == "inside" and own[coarser] != "outside":
            found[coarser] = (
                "inside",
                [*why, f"inside at the {finer} level, and coarsening only lowers the excess"],
                None,
            )
    for finer, coarser in reversed(list(zip(LEVELS, LEVELS[1:], strict=False))):
        if found[coarser][0] == "outside" and found[finer][0] != "outside":
            word, why, needs = found[finer]
            line = f"outside at the {coarser} level, which no finer level can undo"
            if word in ("inside", "sharpened"):
                line = f"contradiction: by its own numbers {word} at the {finer} level; " + line
            found[finer] = ("outside", [*why, line], None)
    words = {level: word for level, (word, _, _) in found.items()}
    head = _headline(words)
    word, why, needs = found[head]
    found[head] = (
        word,
        [*why, f"by level: wording {words['sequence']}, steps {words['strategy']}, answers {words['answer']}"],
        needs,
    )
    return [
        Verdict(
            source, reference, level, budget, found[level][0], level == head, tuple(found[level][1]), found[level][2]
        )
        for level in LEVELS
    ]


def _headline(words: dict[str, str]) -> str:
    """The coarsest level that is outside, else the finest that is inside, else the sequence."""
    for level in reversed(LEVELS):
        if words[level] == "outside":
            return level
    return next((level for level in LEVELS if words[level] == "inside"), "sequence")


def _sequence(support: Result | None, source: str, budget: int, tau: float) -> Finding:
    """Word, reasons and needs at the sequence level."""
    if support is None:
        return "undetermined", ["no token probabilities under the base model"], "--base MODEL"
    reach, plain, strict = (
        support.estimates.get(f"{source}.{name}") for name in (f"reach@{budget}", "novel@1", f"novel@{CERTIFY}")
    )
    if plain is None or strict is None:
        why = [f"no trace of {source} was scored under the base"]
        return "undetermined", why, f"scores of {source} under the base model"
    row = _evidence(support, source)
    if row.get("no_verdict"):
        return (
            "undetermined",
            [row["no_verdict"]],
            "the model, prompts and ids that the reference was really drawn with",
        )
    side, veto = row.get("side", "unknown"), [row.get(f"conformal_{name}") for name in ("share", "low", "high")]
    why = _reasons(reach, plain, strict, row, budget)
    vetoed = _finite(veto[1]) and veto[1] > tau / 2
    if vetoed:
        why.append(f"the conformal test (secondary) flags {_percent(*veto)} at k=1")
    if reach is None or not math.isfinite(reach.value):
        why.append("log q unknown: " + (reach.note if reach and reach.note else "no policy model"))
        if strict.low > tau / 2:
            return "outside", [*why, f"novelty certified at k={CERTIFY} ({_where(row)})"], None
        missing = reach.note.split("give ")[-1] if reach and "give " in reach.note else f"--policy {source}=MODEL"
        return "undetermined", why, f"{missing} (log q decides between inside and sharpened)"
    if reach.high <= tau:
        beyond = support.estimates.get(f"{source}.novel@{budget}")
        if beyond is not None and beyond.low > tau:
            why.append(
                f"contradiction: {_percent(beyond.value, beyond.low, beyond.high)} flagged as novel at k={budget}"
            )
            return (
                "undetermined",
                why,
                f"a reason why reach and novelty disagree: is --policy {source}=MODEL the right model?",
            )
        if plain.low > tau / 2:
            why.append("novelty is flagged at k=1, and is within reach of the budget")
        return "inside", why, None
    if not reach.low > tau:
        return "undetermined", why, _more(reach, tau, f"E_{budget}")
    if plain.low > tau / 2:
        return "outside", [*why, f"beyond reach and of high surprisal ({_where(row)})"], None
    if side in ("low", "neutral") and plain.high <= tau and not vetoed:
        line = f"beyond reach, but surprisal on the {side} side and nothing flagged: what the base does, made likelier"
        return "sharpened", [*why, line], None
    return "undetermined", why, _between(plain, side, vetoed, tau)


def _evidence(support: Result, source: str) -> dict[str, Any]:
    """The source's row of the table `evidence`, or an empty dict."""
    table = support.tables.get("evidence")
    rows = [] if table is None or table.empty else table[table["source"] == source].to_dict("records")
    return rows[0] if rows else {}


def _reasons(reach: Estimate | None, plain: Estimate, strict: Estimate, row: dict[str, Any], budget: int) -> list[str]:
    why = []
    if reach is not None and math.isfinite(reach.value):
        why.append(f"E_{budget} = {reach.value:.3f} [{reach.low:.3f}, {reach.high:.3f}] over {reach.n:,} traces")
    flagged = [f"{_percent(e.value, e.low, e.high)} at k={k}" for k, e in ((1, plain), (CERTIFY, strict))]
    why.append(f"flagged as novel: {', '.join(flagged)} (n = {plain.n:,})")
    if _finite(row.get("z_median")):
        reference = f", reference {row['z_reference_median']:.2f}" if _finite(row.get("z_reference_median")) else ""
        why.append(f"excess surprisal z: median {row['z_median']:.2f}{reference}; side {row['side']}")
    if _finite(row.get("log_ratio_median")):
        why.append(f"log-ratio: median {row['log_ratio_median']:.2f} nats (budget: {math.log(budget):.2f})")
    if _finite(row.get("cut_share")) and row["cut_share"] > 0:
        why.append(
            f"{row['cut_share']:.1%} of the traces are cut off at the length limit; this speaks of their sampled part"
        )
    return why


def _where(row: dict[str, Any]) -> str:
    if row.get("flagged_groups"):
        return f"flagged: {row['flagged_groups']}"
    return "whether wording, steps or answers differ is not separated at this level"


def _between(plain: Estimate, side: str, vetoed: bool, tau: float) -> str:
    """What would decide between sharpened and outside, once the traces are beyond reach."""
    if vetoed:
        return "the two novelty tests disagree: look at the flagged traces; more traces for the e-value"
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


def _strategy(clusters: Result | None, source: str) -> Finding:
    """Never certifies by itself in this version."""
    mass = clusters.estimates.get(f"{source}.novel_cluster_mass") if clusters else None
    needs = "a strategy-level test on split data (style-blind skeletons); until then this level follows from the others"
    if mass is None or not math.isfinite(mass.value):
        return "undetermined", ["no cluster mass at hand"], needs
    share = _percent(mass.value, mass.low, mass.high)
    return "undetermined", [f"mass in clusters new to the reference: {share} (descriptive, no certificate)"], needs


def _answer(boundary: Result | None, source: str, budget: int) -> Finding:
    """Conditional binomial by group at the budget, from the table `answer_test` of boundary (last training step)."""
    table = boundary.tables.get("answer_test") if boundary else None
    rows = [] if table is None or table.empty else table[table["source"] == source].to_dict("records")
    last = max((r["step"] for r in rows if _finite(r["step"])), default=None)
    rows = [r for r in rows if r["k"] == budget and (last is None or r["step"] == last)]
    if not rows:
        why = [f"no answer test at budget {budget}: no correctness for both sides on joined problems"]
        return "undetermined", why, f"correctness of {source} and the reference on the same problems"
    why = []
    for r in rows:
        counts = [f"{r[f'c_{side}']:,} of {r[f'n_{side}']:,}" for side in ("source", "reference")]
        p = f"p = {r['p']:.2g}, Holm {r['p_holm']:.2g}"
        why.append(f"group {r['group']}: {counts[0]} correct against {counts[1]} ({p})")
    only, lost = (sum(r[name] for r in rows) for name in ("source_only", "reference_only"))
    why.append(f"problems solved by {source} alone: {only}; by the reference alone: {lost}")
    if min(r["p_holm"] for r in rows) <= ALPHA:
        return "outside", [*why, f"solves more than {budget} reference draws allow"], None
    able = [r for r in rows if _finite(r["factor"])]
    if not able:
        needs = f"no group exceeds {budget} times the reference's rate: more samples like these would not change this"
        return "undetermined", why, needs
    best = min(able, key=lambda r: r["factor"])
    needs = f"about {best['factor']:.1f} times the samples per problem in group {best['group']} on both sides"
    return "undetermined", why, f"{needs}, if the rates stay"


def _finite(value: Any) -> bool:
    return value is not None and isinstance(value, (int, float)) and math.isfinite(value)


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
