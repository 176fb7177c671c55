"""What each later step can say about sources before any model is run, and what is missing for more."""

from __future__ import annotations

from typing import Any

from analyzer.dumps.counts import Counts
from analyzer.dumps.survey import Source
from analyzer.records import BUDGET, HURDLED, TAU, TESTED
from analyzer.records.display import counted


def lines(accounts: dict[str, Source], sources: dict[str, Counts], joins: list[Counts]) -> list[str]:
    """What each later step can say about these sources, and what is missing for more."""

    def having(name: str, *, all_of_them: bool = False) -> list[str]:
        """Sources with a trace of the property, or with no other."""
        return [s for s, own in accounts.items() if own.counts[name] >= (own.traces if all_of_them else 1)]

    def listed(labels: list[str]) -> str:
        return ", ".join(labels)

    out = []
    labelled = [s for s, counts in sources.items() if counts["labelled"]]
    without = [s for s in sources if s not in labelled]
    if labelled:
        out.append(f"pass@k: {', '.join(_depth(s, sources[s]['labelled_per_problem']) for s in labelled)}.")
    if without:
        out.append(
            f"pass@k: not for {listed(without)}, no sample has a label or score (map one: --map correct=FIELD or "
            "--map score=FIELD)."
        )
    if gold := [s for s in having("gold") if s in without]:
        out.append(
            f"Labels: {listed(gold)} {'has' if len(gold) == 1 else 'have'} reference answers "
            f"in the dump; --grade compares with them."
        )
    alone = having("labels", all_of_them=True)
    if alone:
        out.append(
            f"Labels alone: {listed(alone)} {'has' if len(alone) == 1 else 'have'} no responses; "
            "nothing of theirs can be scored or read."
        )
    bare = [s for s in having("no prompt") if s not in alone]
    if ready := [s for s in sources if s not in bare and s not in alone]:
        out.append(f"Scoring with --base: ready for {listed(ready)}.")
    if bare:
        unasked = [s for s in bare if "none" in sources[s]["prompts"]]
        out.append(
            f"Scoring with --base: {listed(bare)} {'needs' if len(bare) == 1 else 'need'} "
            f"--template FILE|NAME|none, the dump has no prompts"
            + (f" (and no question either for {listed(unasked)}: --map question=FIELD)." if unasked else ".")
        )
    if text := [s for s, counts in sources.items() if counts["response_ids"] < counts["traces"] and s not in alone]:
        out.append(
            f"Tokens: {listed(text)} {'holds' if len(text) == 1 else 'hold'} text, not ids; "
            f"it is tokenised again, which need not give the tokens that "
            "were sampled."
        )
    out += _reference_lines(sources, joins)
    if engine := having("T=1"):
        out.append(f"Engine floor: can be measured for {listed(engine)}, whose dumps have log-probs at T=1.")
    if blind := [s for s in sources if s not in engine]:
        out.append(
            f"Engine floor (how far two engines' rounding alone moves a ratio): not known for {listed(blind)}, no "
            "log-probs of generation at T=1."
        )
    if cut := having("no finish", all_of_them=True):
        out.append(f"Truncation: not known for {listed(cut)}, the dump does not say why a response ended.")
    if unknown := [s for s, own in accounts.items() if None in own.samplers]:
        out.append(
            f"Sampler membership and reach: not for {listed(unknown)}, no sampler is recorded (--sampler "
            "LABEL=T,top_p)."
        )
    own = [s for s, counts in sources.items() if counts["numbers"] and counts["numbers"]["both_rows"]]
    if own:
        barred = {s: why for s in own if (why := _barred(accounts[s]))}
        if ready := [s for s in own if s not in barred]:
            out.append(
                f"Reach, hurdles and horizon: need no model for {listed(ready)}, whose rows bring both log-probs."
            )
        out += [f"Reach, hurdles and horizon: not yet for {s}: {why}." for s, why in barred.items()]
        for s in ready:
            if (n := sources[s]["numbers"]["both_rows"]) < (every := sources[s]["traces"]):
                out.append(f"{s}: {every - n:,} of {every:,} rows lack one of them and count against every bound.")
    if len(own) < len(sources):
        out.append(
            f"Reach of {'another' if own else 'a'} source (inside, sharpened or reweighted): needs the model that "
            "produced it, --policy LABEL=MODEL; without it the sequence level can only be `outside` or undetermined."
        )
    if len(sources) < 2:
        out.append("Comparison: one source only; a second one (the base model's own samples) is needed.")
    return out


def _depth(source: str, n: Counts) -> str:
    """How far a source's pass@k goes, and what n its problems have where they differ."""
    said = f"{source} up to k = {n['reached']}"
    if n["min"] == n["max"]:
        return said
    return f"{said} (n = {n['most']} in {n['problems']:,} of {n['of']:,} problems, {n['min']} to {n['max']} in all)"


def _barred(own: Source) -> str:
    """Why rows that bring both log-probs do not tell of reach (`brought.why_not`), "" where they do."""
    known, counts = [s for s in own.samplers if s is not None], own.counts
    if counts["greedy"]:
        return "rows drawn at temperature 0 are no draws of a law"
    if len(known) > 1:
        return f"its rows state {len(known)} samplers; give the rows of each a label of their own (LABEL=FILE)"
    if own.numbers.counts["sampler in part"]:
        return "its rows state a sampler in part, or a setting that no sampler here has (penalties, beams)"
    if len(own.samplers) > 1:
        return "only some of its rows state a sampler (--sampler LABEL=T,top_p)"
    if not known and counts["undeclared"]:
        return "no sampler is recorded, nor the temperature of its log-probs (--sampler LABEL=T,top_p)"
    cut = known and (known[0].top_p < 1 or known[0].top_k or known[0].min_p)
    if known and (cut or known[0].temperature != 1) and counts["T=1"]:
        return "its log-probs are at T=1 without truncation, its sampler is another; bring those under the sampler"
    if not any(t <= 1 for t in own.laws) and not any(s.temperature in own.laws for s in known):
        return "its base_logprobs are above T=1 alone; bring T=1"
    return ""


def _reference_lines(sources: dict[str, Counts], joins: list[Counts]) -> list[str]:
    """What the comparison with the reference rests on: shared problems, samples of each, problems for a wider claim."""
    from analyzer.stats.bounds import event_free

    if len(sources) < 2:
        return []
    if "base" not in sources:
        return [f"Reference: none is called base; say which source it is: --reference {'|'.join(sources)}."]
    own, out = sources["base"]["problems"], []
    for j in joins:
        if "base" in j["sources"] and j["shared"] < own:
            (s,) = (s for s in j["sources"] if s != "base")
            out.append(f"Joined with base: {s} shares {j['shared']:,} of its {own:,} problems; only these compare.")
    if few := [s for s, counts in sources.items() if counts["samples_per_problem"]["max"] < 2]:
        out.append(
            f"Strategies and the check of base against itself: need two samples of a problem; {', '.join(few)} "
            "have one."
        )
    if own < (enough := event_free(TAU)):
        out.append(
            f"`inside` without any departure holds for these {own:,} problems; for others like them it takes "
            f"{enough} (docs/method.md)."
        )
    return out + _too_few(sources) + _levels(sources)


def _too_few(sources: dict[str, Counts]) -> list[str]:
    """Which sources have fewer traces or problems than a word takes even where nothing lies beyond the budget."""
    from analyzer.stats.bootstrap import LEAST
    from analyzer.stats.bounds import event_free

    out, there = [], sources["base"]["sampler"]
    for s, counts in sources.items():
        here, n, m = counts["sampler"], counts["traces"], counts["problems"]
        laws = 1 + _shaped(there) + (_shaped(here) and here != there)
        inside, hurdle_free = event_free(TAU, laws), event_free(HURDLED)
        if s == "base" or (n >= inside and m >= LEAST):
            continue
        against = "one law" if laws == 1 else f"{laws} laws"
        out.append(
            f"Words for {s} (sequences): {counted(n, 'trace')} of {counted(m, 'problem')}; `inside` "
            f"takes {inside} traces of which none "
            f"lies beyond the budget ({against} of the base), `sharpened` and `reweighted` {hurdle_free} without a "
            f"hurdle, every word {LEAST} problems."
        )
    return out


def _levels(sources: dict[str, Counts]) -> list[str]:
    """Which words of the levels the draws at hand can give, whatever they show (`stats.contained`, `stats.budget`)."""
    import numpy as np

    from analyzer.stats import budget, contained
    from analyzer.stats.bootstrap import ALPHA, LEAST

    out, base = [], sources["base"]
    n = base["samples_of_most"]
    k = contained.budget(np.array([n]), BUDGET)
    for s, counts in sources.items():
        m = min(counts["problems"], base["problems"])
        if s == "base":
            continue
        if not k or m < LEAST:
            few = f"{LEAST} problems" if k else "two draws of base on nine in ten problems"
            out.append(f"Texts alone ({s}): no level can be told; it takes {few}.")
            continue
        shape = np.full(m, n), np.full(m, max(1, counts["traces"] // counts["problems"]))
        needed = contained.draws_needed(*shape, BUDGET, TAU)
        inside = (
            "can be certified if they hold it all"
            if needed <= n
            else f"takes {needed:.0f} draws"
            if needed > n
            else "takes more problems"
        )
        half = counts["traces"] // 2, base["traces"] // 2
        novel = np.arange(1, half[0] + 1)
        p = budget.p_value(novel, half[0], 0, half[1], BUDGET) if len(novel) else np.ones(1)
        enough = np.flatnonzero(p <= ALPHA / len(TESTED))
        outside = (
            f"{enough[0] + 1:,} traces of a kind that base lacks" if len(enough) else f"more than {half[0]:,} traces"
        )
        out.append(
            f"Texts alone ({s}): {n} draws of base on nine in ten problems, k = {k}; `inside` at a level {inside}; "
            f"`outside` at budget {BUDGET} takes {outside} in one half of the draws."
        )
    return out


def _shaped(sampler: dict[str, Any] | None) -> bool:
    """Whether a sampler is known and makes a further law: another temperature than 1, or a truncation."""
    plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    return sampler is not None and any(sampler[k] != v for k, v in plain.items())
