"""The word at the sequence level: each one earned by a certificate, none by a test that stayed silent.

At budget k, tolerance tau for whole traces and HURDLED for the share of traces with a hurdle, about the given problems
(bounds: `support/evidence`; error ALPHA for each word):
- inside: the upper bound of the whole-trace excess is <= tau under one of the laws that count (T = 1, as the reference
  was sampled, as the source was), the error split over them.
- outside: the lower bound of the share of traces with a hurdle exceeds HURDLED, and that of the whole-trace excess
  against the likeliest of all laws, lower temperatures among them, exceeds tau. Holm over the three levels.
- sharpened: whole traces are beyond under every law that counts, the upper bound of the share with a hurdle is <=
  HURDLED, a temperature explains more than half of KL(Q||P), and the surprisal lies below the entropy by DROP a token.
- reweighted: whole traces are beyond, hurdle-free likewise, and every temperature leaves more than half of KL(Q||P).
- undetermined: anything else, with what would decide. The base's own weights are never reweighted or outside: only
  the sampler differs.
Where log q is not known, `outside` is left: the lower bound of the mass beyond k by e-values, or of the share beyond k
base draws by rank, exceeds tau / 2 and the endpoint holds. The null reaches to the hottest sampler that is declared, or
there is no word.
"""

from __future__ import annotations

import math

from analyzer.analysis.primary import CERTIFY, Endpoint
from analyzer.analysis.support.engine import below
from analyzer.analysis.support.evidence import COOL, DROP, EXPLAINED, IMPROBABLE, RARE
from analyzer.analysis.support.laws import PLAIN
from analyzer.analysis.support.record import Evidence, read
from analyzer.analysis.verdict import sentences
from analyzer.records import HURDLED, Result
from analyzer.stats.bootstrap import LEAST
from analyzer.stats.bounds import event_free

Finding = tuple[str, list[str], str | None]  # word, reasons, what would decide


def decide(support: Result | None, source: str, reference: str, budget: int, tau: float, end: Endpoint) -> Finding:
    """Word, reasons and what would decide, from the tables and estimates of `support`."""
    if support is None:
        return "undetermined", ["no token probabilities under the base model"], "--base MODEL"
    row = read(support, source)
    if row is None:
        why = [f"no trace of {source} was scored under the base"]
        return "undetermined", why, f"scores of {source} under the base model"
    if row.no_verdict:
        needs = "the model, prompts and ids that the reference was really drawn with"
        return "undetermined", [row.no_verdict], needs
    if below(budget, row.k_min):
        why = [f"k_min = {row.k_min:.3g} > {budget}: generation and scoring differ by more than the budget"]
        return (
            "undetermined",
            why,
            f"--budget {math.ceil(row.k_min)} or more, or log-probs of generation and scoring alike",
        )
    if row.no_log_q or not math.isfinite(row.inside_high):
        return _without_log_q(support, row, source, budget, tau, end)
    why = sentences.beside(row, tau)
    if row.unknown == row.n:
        return "undetermined", ["every trace has tokens without a number", *why], "log-probs of every token"
    if row.problems < LEAST:
        needs = f"at least {LEAST} problems: with fewer no interval over problems exists ({row.problems} now)"
        return "undetermined", [sentences.whole(row, budget), *why], needs
    if row.improbable_p < IMPROBABLE:
        return _improbable(row, source, why)
    return _of_bounds(support, row, source, budget, tau, end, why)


def _of_bounds(
    support: Result, row: Evidence, source: str, budget: int, tau: float, end: Endpoint, why: list[str]
) -> Finding:
    """The five words, from the bounds of `evidence.row`."""
    beyond, unknown = row.beyond_low > tau, row.unknown or row.silent > 0
    hurdle_free = row.share_high <= HURDLED and not unknown
    if row.inside_high <= tau:
        return _inside(support, row, source, budget, tau, why)
    whole, hurdles = sentences.whole(row, budget), sentences.hurdles(row, budget)
    # at k = 1 a hurdle is any step that is likelier than under the nearest stored temperature
    hurdled = (row.share_low if row.coolest <= COOL else row.far_low) > HURDLED and budget > 1
    if hurdled and row.every_low > tau and not row.same_weights and not row.missing_laws:
        if end.certified:
            held = f"p = {end.p:.2g}, Holm over levels {end.p_holm:.2g}"
            led = [f"{hurdles} ({held})", *sentences.far(row, budget)]
            return "outside", [*led, sentences.every(row), whole, *why], None
        why = [hurdles, whole, *why, f"not certified across the levels: Holm {end.p_holm:.2g}"]
        return "undetermined", why, sentences.advice(row.share_low, row.share, HURDLED, row.n, "the hurdle share")
    if beyond and not row.body_low > tau:  # words about the text: without its end token it is not shown beyond
        why = [whole, *sentences.same(row), *why]
        if row.inside_body_high <= tau and row.end_unknown:
            needs = (
                "`finish` in every row (stop or length), and ids up to the end token with its log-probs, which some "
                "servers leave out: what stays is last tokens, which may be end tokens or text"
            )
            return "undetermined", why, needs
        if row.inside_body_high <= tau:
            return "undetermined", why, "nothing: without its end token it is inside, only where it stops differs"
        line = f"without the end token {row.inside_body_value:.3f} is beyond (at most {row.inside_body_high:.3f})"
        return "undetermined", [*why, line], "more traces: whether the text lies beyond without its end token is open"
    if beyond and hurdle_free and not row.missing_laws:
        cooler, other = _by_temperature(row)
        if cooler and row.drop_low >= DROP:
            how = f"sampling the base at {row.best} explains {row.s:.0%} of the KL divergence from it"
            lead = sentences.lead(row, budget, how)
            limits = [*sentences.same(row), sentences.left(row, tau), sentences.unseen(row)]
            return "sharpened", [lead, whole, hurdles, *limits, *why], None
        known = row.coolest <= COOL and row.dense and row.every_low > tau
        if other and known and not row.same_weights:
            lead = sentences.lead(row, budget, sentences.no_temperature(row))
            return "reweighted", [lead, whole, hurdles, sentences.likelier(row), *why], None
    more, needs = _undetermined(row, source, tau)
    only = sentences.same(row) if row.same_weights and beyond else []
    return "undetermined", [whole, hurdles, *why, *only, *more], needs


def _by_temperature(row: Evidence) -> tuple[bool, bool]:
    """Whether a temperature is shown to explain more than half of the divergence from the base, and less.

    Where the reference was not sampled at T = 1 more is asked of the divergence from it as well. Less is asked of that
    alone where both sides have its sampler, which then is no difference between them; else of both. A reference hotter
    than T = 1 leaves temperatures between, of which nothing is known.
    """
    more, less = row.s_low_half < 0, row.s_high_half > 0
    if math.isnan(row.reference_temperature):
        return more, less
    more = more and row.r_low_half < 0
    unknown = math.isnan(row.r_high_half)
    if row.reference_temperature > 1:
        return more, False
    if row.same_sampler and not unknown:
        return more, row.r_high_half > 0
    return more, less and (unknown or row.r_high_half > 0)


def _inside(support: Result, row: Evidence, source: str, budget: int, tau: float, why: list[str]) -> Finding:
    found = (
        f"at most {row.inside_high:.3f} of its probability mass, by whole traces, exceeds {budget} times the base's "
        f"({sentences.law(row.inside_law)}): {row.inside_value:.3f} over {row.n:,} traces"
    )
    novel = support.estimates.get(f"{source}.novel@{budget}")
    if row.inside_law == PLAIN and novel is not None and novel.low > tau:
        flags = sentences.percent(novel.value, novel.low, novel.high)
        why = [found, *why, f"contradiction: {flags} flagged as novel at k={budget}"]
        needs = f"a reason why reach and novelty disagree: is --policy {source}=MODEL the right model?"
        return "undetermined", why, needs
    why = [found, *sentences.same(row), *why]
    if row.inside_events:
        return "inside", why, None
    line, more = sentences.no_event(row.problems, row.inside_high, budget, tau)
    return "inside", [*why, line], more


def _without_log_q(support: Result, row: Evidence, source: str, budget: int, tau: float, end: Endpoint) -> Finding:
    k = int(max(CERTIFY, row.certify)) if math.isfinite(row.certify) else CERTIFY
    strict, plain = (support.estimates.get(f"{source}.novel@{level}") for level in (k, 1))
    reach = support.estimates.get(f"{source}.reach@{budget}")
    note = row.no_log_q or (reach.note if reach is not None and reach.note else "no policy model")
    flags = [] if sentences.too_hot(row) else sentences.novelty({1: plain, k: strict}, row)
    found = [*sentences.mass(row, k), *flags, *sentences.ranked(row, k), *sentences.told(row, source)]
    why = [*found, *sentences.surprisal(row), *sentences.cut(row), f"no probability ratio: {note}"]
    flagged = row.mass_low > tau / 2 and not sentences.too_hot(row)
    beyond = row.rank_low > tau / 2
    if (flagged or beyond) and end.certified:
        held = f"p = {end.p:.2g}, Holm over levels {end.p_holm:.2g}"
        how = "novelty" if flagged else "novelty by rank"
        asked = f"of the text as it is written, the base asked with these prompts: how {source} was asked is not known"
        return "outside", [*why, f"{how} certified at k={k} ({held}{sentences.where(row)})", asked], None
    if row.needs:  # of rows that bring numbers
        return "undetermined", why, row.needs
    missing = f"--policy {source}=MODEL"
    for told, lead in (("give ", ""), ("check ", "the right ")):  # not known, or refused
        missing = lead + note.split(told)[-1] if told in note else missing
    needs = f"{missing} (without log q only outside can be certified)"
    if math.isnan(row.temperature) and "--sampler" not in missing:
        needs += f", --sampler {source}=T[,top_p] (none is declared; the hottest that it may have been will do)"
    if row.base_draws + 1 <= k and not row.ranked:
        needs += f", more base draws a problem (n + 1 > {k}, now n = {row.base_draws:.0f})"
    return "undetermined", why, f"{needs}, or the texts alone: contained@{budget}"


def _improbable(row: Evidence, source: str, why: list[str]) -> Finding:
    most = math.exp(-RARE)
    line = (
        f"{row.improbable:.1%} of the traces are {RARE:g} nats likelier under the base ({sentences.law(row.law)}) than "
        f"under the declared policy; a true policy puts at most {most:.1%} there (p = {row.improbable_p:.1g})"
    )
    needs = (
        f"log-probs that agree: a second scoring in float32 with one engine, or the right --policy {source}=MODEL and "
        f"--sampler {source}=..."
    )
    return "undetermined", [line, *why], needs


def _undetermined(row: Evidence, source: str, tau: float) -> tuple[list[str], str]:
    """What more is to be said and what would decide, by what is open: whole traces, hurdles, the temperature."""
    n, beyond = row.n, row.beyond_low > tau
    if row.silent > 0 and (beyond or _heard(row) <= tau or row.silent > tau * row.every):
        return [], f"response_logprobs and base_logprobs in every row ({row.silent:,.0f} lack them)"
    if row.unknown and (beyond or row.inside_value <= tau):
        return [], "log-probs of every token"
    if beyond and row.missing_laws:
        named = " and ".join(map(sentences.law, row.missing_laws.split("; ")))
        return [], row.missing_needs or f"log-probs under the base {named}"
    if not beyond:
        if row.inside_value == 0:
            least = event_free(tau, max(1, len(row.laws.split("; "))))
            return [], f"{least:,} traces without one beyond the budget would make it inside ({n:,} now)"
        inside = row.inside_value <= tau
        of = (row.inside_high, row.inside_value) if inside else (row.beyond_low, row.beyond_value)
        return [], sentences.advice(*of, tau, n, "the whole-trace excess")
    shown = row.s > EXPLAINED and not _by_temperature(row)[1] and not row.share_low > HURDLED
    if row.same_weights and not shown:  # else a temperature explains it, and more traces can show that
        return [], f"{source} and the reference drawn with one sampler, or at temperatures up to 1 without a truncation"
    every = sentences.advice(row.every_low, row.every_value, tau, n, "the excess over every law")
    if not row.share_high <= HURDLED:
        if not row.coolest <= COOL:
            return ["cooling alone could make these steps, and no cool law is known"], sentences.cooler(row)
        if row.share == 0 and not row.unknown:
            least = event_free(HURDLED, 1)
            return [], f"{least:,} traces without a hurdle would show that they are hurdle-free ({n:,} now)"
        if row.share_low > HURDLED:
            return [], every
        bound = row.share_low if row.share > HURDLED else row.share_high
        return [], sentences.advice(bound, row.share, HURDLED, n, "the share of traces with a hurdle")
    if not math.isfinite(row.s) or not row.coolest <= COOL:
        return [], sentences.cooler(row)
    explained = f"{row.best} explains {row.s:.0%} of the divergence from the base"
    cooler, other = _by_temperature(row)
    shared_cut = row.same_sampler and row.reference_cuts
    if not other and (row.s_high_half > 0 or (not cooler and (row.s_low_half < 0 or shared_cut))):
        said = f"{max(0.0, row.s_reference):.0%}" if math.isfinite(row.s_reference) else "an unknown share"
        line = f"{explained} at T = 1, and {said} of that from the reference as it was sampled"
        return [line], "both sides sampled at T = 1 without a cut, so that no sampler is shared"
    if other and row.dense:  # what is open is whether several temperatures would do
        low = f"{row.every_value:.3f} beyond every law at once (at least {row.every_low:.3f})"
        line = f"no single temperature does it, yet each trace has one that may: {low}"
        return [line], "nothing: several temperatures of the base would do it" if row.every_value <= tau else every
    if row.s_low_half < 0:  # shown: what is open is whether the text is likelier
        return _of_the_drop(row, explained)
    if not row.dense:
        line = f"{explained} (of those known), and what lies between them could explain half"
        needs = f"log-probs of the base at T={row.unknown_temperatures} too (base_logprobs)"
        return [line], sentences.cooler(row) if row.short else needs
    why = [f"{explained}, too close to a half"]
    if row.s_unsure >= abs(row.s - EXPLAINED):  # of what lies between the known temperatures, which no trace tells
        between = f"what lies between the known temperatures may make {min(1.0, row.s_unsure):.0%} of it"
        nearer = f"log-probs of the base at temperatures nearer to {row.best}"
        nearer += f" (base_logprobs at T={sentences.around(row.best)}, say)"
        return [*why, f"{between}, whatever the traces"], nearer
    if row.s < EXPLAINED and row.s_least <= 0:  # another temperature than the best one may do it
        what = f"the doubt between the known temperatures leaves room for a half at {row.s_least_at}"
        nearer = f"log-probs of the base at temperatures nearer to {row.s_least_at}"
        nearer += f" (base_logprobs at T={sentences.around(row.s_least_at)}, say)"
        return [*why, f"{what}, whatever the traces"], nearer
    half = abs(row.s_high - row.s) - (row.s_unsure if row.s_unsure > 0 else 0.0)
    return why, sentences.advice(row.s + half, row.s, EXPLAINED, n, "the share that a temperature explains")


def _of_the_drop(row: Evidence, explained: str) -> tuple[list[str], str]:
    """The same where a temperature explains enough; without entropies only a bound of the surprisal's distance to them
    is known."""
    asked = f"sharpened asks for {DROP:g}"
    if math.isfinite(row.drop):
        low = f"the surprisal lies {row.drop:.3f} nats a token below the entropy (at least {row.drop_low:.3f})"
        needs = f"no number of traces, if the drop of the surprisal stays at {row.drop:.3f}"
        if row.drop > DROP:
            needs = sentences.advice(row.drop_low, row.drop, DROP, row.n, "the drop of the surprisal")
        return [f"{explained}; {low}, {asked}"], needs
    line = "how far the surprisal lies below the entropy is not known from these temperatures"
    line += f" (at least {row.drop_low:.3f} nats a token)" if row.drop_low > 0 else ""
    needs = "log-probs of the base nearer to T=1 (base_logprobs at T=.95 and .9): the bound is the better the nearer"
    if row.drop_least > DROP:
        needs = sentences.advice(row.drop_low, row.drop_least, DROP, row.n, "the least drop of the surprisal")
    return [explained, f"{line}, {asked}"], needs


def _heard(row: Evidence) -> float:
    """The upper bound of whole traces beyond the budget over the traces that bring numbers alone."""
    return (row.inside_high * row.every - row.silent) / max(1, row.every - row.silent)
