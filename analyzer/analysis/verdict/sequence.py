"""The word at the sequence level: each one earned by a certificate, none by a test that stayed silent.

At budget k, tolerance tau for whole traces and HURDLED for the share of traces with a hurdle, about the given problems
(bounds: `analyses/evidence`; error ALPHA for each word):
- inside: the upper bound of the whole-trace excess is <= tau under one of the laws that count (T = 1, as the reference
  was sampled, as the source was), the error split over them.
- outside: the lower bound of the share of traces with a hurdle exceeds HURDLED, and that of the whole-trace excess
  against the likeliest of all laws, lower temperatures among them, exceeds tau. Holm over the three levels.
- sharpened: whole traces are beyond under every law that counts, the upper bound of the share with a hurdle is <=
  HURDLED, a temperature explains more than half of KL(Q||P), and the surprisal lies below the entropy by DROP a token.
- reweighted: whole traces are beyond, hurdle-free likewise, and every temperature leaves more than half of KL(Q||P).
- undetermined: anything else, with what would decide. The base's own weights are never reweighted or outside: only
  the sampler differs.
Where log q is not known, `outside` is left: the lower bound of novel@k, or of the share beyond k base draws by rank,
exceeds tau / 2 and the endpoint holds. The null reaches to the hottest sampler that is declared, or there is no word.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr

from analyzer.analysis.primary import CERTIFY, Endpoint, number, rows
from analyzer.analysis.support.engine import below
from analyzer.analysis.support.evidence import ALPHA, COOL, DROP, EXPLAINED, HURDLED, IMPROBABLE, PROBLEMS, RARE, far
from analyzer.analysis.support.laws import PLAIN
from analyzer.records import Estimate, Result
from analyzer.stats.bootstrap import share_upper
from analyzer.stats.bounds import event_free
from analyzer.stats.ranks import chance

Finding = tuple[str, list[str], str | None]  # word, reasons, what would decide
UNTESTED = "novelty was not tested: the base's scorer (a server?) knows log-probs, no entropies"
COOLER = "log-probs of the base at lower temperatures (score with --policy, or base_logprobs at .8, .6, .4, .2)"
LONGER = 1.5  # ratio of mean lengths from which on the length is named
SURE, MOST = 0.8, 100  # an advice decides in this share of cases; 45 times the traces do for a value at its threshold
NORMAL = 1.645  # standard errors of a one-sided 95 % bound


def decide(support: Result | None, source: str, reference: str, budget: int, tau: float, end: Endpoint) -> Finding:
    """Word, reasons and what would decide, from the tables and estimates of `support`."""
    if support is None:
        return "undetermined", ["no token probabilities under the base model"], "--base MODEL"
    row = next(iter(rows(support, "evidence", source)), None)
    if row is None:
        why = [f"no trace of {source} was scored under the base"]
        return "undetermined", why, f"scores of {source} under the base model"
    if row.get("no_verdict"):
        needs = "the model, prompts and ids that the reference was really drawn with"
        return "undetermined", [row["no_verdict"]], needs
    floor = number(row.get("k_min"))
    if below(budget, floor):
        why = [f"k_min = {floor:.3g} > {budget}: generation and scoring differ by more than the budget"]
        return "undetermined", why, f"--budget {math.ceil(floor)} or more, or log-probs of generation and scoring alike"
    if row.get("no_log_q") or not math.isfinite(number(row.get("inside_high"))):
        return _without_log_q(support, row, source, budget, tau, end)
    why = _beside(row, tau)
    if row["unknown"] == row["n"]:
        return "undetermined", ["every trace has tokens without a number", *why], "log-probs of every token"
    if row["problems"] < PROBLEMS:
        needs = f"at least {PROBLEMS} problems: with fewer no interval over problems exists ({row['problems']} now)"
        return "undetermined", [_whole(row, budget), *why], needs
    if row["improbable_p"] < IMPROBABLE:
        return _improbable(row, source, why)
    return _of_bounds(support, row, source, budget, tau, end, why)


def _of_bounds(
    support: Result, row: dict[str, Any], source: str, budget: int, tau: float, end: Endpoint, why: list[str]
) -> Finding:
    """The five words, from the bounds of `evidence.row`."""
    beyond, unknown = row["beyond_low"] > tau, row["unknown"] or number(row.get("silent")) > 0
    hurdle_free = row["share_high"] <= HURDLED and not unknown
    if row["inside_high"] <= tau:
        return _inside(support, row, source, budget, tau, why)
    whole, hurdles = _whole(row, budget), _hurdles(row, budget)
    # at k = 1 a hurdle is any step that is likelier than under the nearest stored temperature
    hurdled = row["share_low" if row["coolest"] <= COOL else "far_low"] > HURDLED and budget > 1
    if hurdled and row["every_low"] > tau and not row["same_weights"] and not row["missing_laws"]:
        if end.certified:
            held = f"p = {end.p:.2g}, Holm over levels {end.p_holm:.2g}"
            lead = [f"{hurdles} ({held})", *_far(row, budget)]
            return "outside", [*lead, _every(row), whole, *why], None
        why = [hurdles, whole, *why, f"not certified across the levels: Holm {end.p_holm:.2g}"]
        return "undetermined", why, _advice(row["share_low"], row[_share(row)], HURDLED, row["n"], "the hurdle share")
    if beyond and not row["body_low"] > tau:  # words about the text: without its end token it is not shown beyond
        why = [whole, *_same(row), *why]
        if row["inside_body_high"] <= tau and row.get("end_unknown") is True:
            needs = "`finish` in every row (stop or length): what stays is their last tokens, which may be end tokens"
            return "undetermined", why, needs
        if row["inside_body_high"] <= tau:
            return "undetermined", why, "nothing: without its end token it is inside, only where it stops differs"
        line = f"without the end token {row['inside_body_value']:.3f} is beyond (at most {row['inside_body_high']:.3f})"
        return "undetermined", [*why, line], "more traces: whether the text lies beyond without its end token is open"
    if beyond and hurdle_free and not row["missing_laws"]:
        cooler, other = _by_temperature(row)
        if cooler and row["drop_low"] >= DROP:
            how = f"sampling the base at {row['best']} explains {row['s']:.0%} of the KL divergence from it"
            lead = _lead(row, budget, how)
            return "sharpened", [lead, whole, hurdles, *_same(row), _left(row, tau), *why], None
        known = row["coolest"] <= COOL and row.get("dense", True) and row["every_low"] > tau
        if other and known and not row["same_weights"]:
            return "reweighted", [_lead(row, budget, _no_temperature(row)), whole, hurdles, _likelier(row), *why], None
    return _undetermined(row, source, budget, tau, [whole, hurdles, *why])


def _by_temperature(row: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a temperature is shown to explain more than half of the divergence from the base, and less.

    Where the reference was not sampled at T = 1 more is asked of the divergence from it as well. Less is asked of that
    alone where both sides have its sampler, which then is no difference between them; else of both. A reference hotter
    than T = 1 leaves temperatures between, of which nothing is known.
    """
    more, less = row["s_low_half"] < 0, row["s_high_half"] > 0
    if "r_low_half" not in row or math.isnan(number(row["reference_temperature"])):
        return more, less
    more = more and row["r_low_half"] < 0
    unknown = math.isnan(number(row["r_high_half"]))
    if number(row["reference_temperature"]) > 1:
        return more, False
    if row["same_sampler"] and not unknown:
        return more, row["r_high_half"] > 0
    return more, less and (unknown or row["r_high_half"] > 0)


def _no_temperature(row: dict[str, Any]) -> str:
    """What the best temperature explains, beside the word reweighted."""
    if number(row.get("r_high_half")) > 0 and row["same_sampler"]:
        if not row["s_reference"] > 0:
            return "no temperature explains any of the KL divergence from the reference as it was sampled"
        best = f"at best {row['s_reference']:.0%}"
        return f"no temperature explains half of the KL divergence from the reference as sampled ({best})"
    if not row["s"] > 0:
        return "no temperature explains any of the KL divergence from the base"
    best = f"at best {row['s']:.0%}, at {row['best']}"
    return f"no temperature of the base explains half of the KL divergence from it ({best})"


def _inside(support: Result, row: dict[str, Any], source: str, budget: int, tau: float, why: list[str]) -> Finding:
    found = (
        f"at most {row['inside_high']:.3f} of its probability mass, by whole traces, exceeds {budget} times the base's "
        f"({_law(row['inside_law'])}): {row['inside_value']:.3f} over {row['n']:,} traces"
    )
    novel = support.estimates.get(f"{source}.novel@{budget}")
    if row["inside_law"] == PLAIN and novel is not None and novel.low > tau:
        flags = _percent(novel.value, novel.low, novel.high)
        why = [found, *why, f"contradiction: {flags} flagged as novel at k={budget}"]
        needs = f"a reason why reach and novelty disagree: is --policy {source}=MODEL the right model?"
        return "undetermined", why, needs
    why = [found, *_same(row), *why]
    if row["inside_events"]:
        return "inside", why, None
    line, needs = _no_event(int(row["problems"]), row["inside_high"], budget, tau)
    return "inside", [*why, line], needs


def _without_log_q(
    support: Result, row: dict[str, Any], source: str, budget: int, tau: float, end: Endpoint
) -> Finding:
    least = number(row.get("certify"))
    k = int(max(CERTIFY, least)) if math.isfinite(least) else CERTIFY
    strict, plain = (support.estimates.get(f"{source}.novel@{level}") for level in (k, 1))
    reach = support.estimates.get(f"{source}.reach@{budget}")
    note = row.get("no_log_q") or (reach.note if reach is not None and reach.note else "no policy model")
    flags = [] if _too_hot(row) else _novelty({1: plain, k: strict})
    found = [*flags, *_ranked(row, k), *_told(row, source)]
    why = [*found, *_surprisal(row), *_cut(row), f"log q unknown: {note}"]
    flagged = strict is not None and strict.low > tau / 2 and not _too_hot(row)
    beyond = number(row.get("rank_low")) > tau / 2
    if (flagged or beyond) and end.certified:
        held = f"p = {end.p:.2g}, Holm over levels {end.p_holm:.2g}"
        how = "novelty" if flagged else "novelty by rank"
        return "outside", [*why, f"{how} certified at k={k} ({held}{_where(row)})"], None
    if isinstance(row.get("needs"), str) and row["needs"]:  # of rows that bring numbers
        return "undetermined", why, row["needs"]
    missing = note.split("give ")[-1] if "give " in note else f"--policy {source}=MODEL"
    needs = f"{missing} (without log q only outside can be certified)"
    if "temperature" in row and not math.isfinite(number(row["temperature"])) and "--sampler" not in missing:
        needs += f", --sampler {source}=T[,top_p] (none is declared)"
    draws = number(row.get("base_draws"))
    if draws + 1 <= k and not row.get("ranked"):
        needs += f", more base draws a problem (n + 1 > {k}, now n = {draws:.0f})"
    return "undetermined", why, f"{needs}, or the texts alone: contained@{budget}"


def _improbable(row: dict[str, Any], source: str, why: list[str]) -> Finding:
    most = math.exp(-RARE)
    line = (
        f"{row['improbable']:.1%} of the traces are {RARE:g} nats likelier under the base ({_law(row['law'])}) than "
        f"under the declared policy; a true policy puts at most {most:.1%} there (p = {row['improbable_p']:.1g})"
    )
    needs = (
        f"log-probs that agree: a second scoring in float32 with one engine, or the right --policy {source}=MODEL and "
        f"--sampler {source}=..."
    )
    return "undetermined", [line, *why], needs


def _undetermined(row: dict[str, Any], source: str, budget: int, tau: float, why: list[str]) -> Finding:
    """What would decide, by what is open: the whole trace, the hurdles, the temperature."""
    n, missing = row["n"], row["missing_laws"]
    silent = number(row.get("silent"))
    if silent > 0 and (row["beyond_low"] > tau or _heard(row) <= tau or silent > tau * row["every"]):
        return "undetermined", why, f"response_logprobs and base_logprobs in every row ({row['silent']:,.0f} lack them)"
    if row["unknown"] and (row["beyond_low"] > tau or row["inside_value"] <= tau):
        return "undetermined", why, "log-probs of every token"
    if row["beyond_low"] > tau and missing:
        if isinstance(row.get("missing_needs"), str):
            return "undetermined", why, row["missing_needs"]
        return "undetermined", why, f"log-probs under the base {' and '.join(map(_law, missing.split('; ')))}"
    if not row["beyond_low"] > tau:
        if row["inside_value"] == 0:
            least = event_free(tau, max(1, len(row["laws"].split("; "))))
            needs = f"{least:,} traces without one beyond the budget would make it inside ({n:,} now)"
            return "undetermined", why, needs
        bound = row["inside_high"] if row["inside_value"] <= tau else row["beyond_low"]
        value = row["inside_value"] if row["inside_value"] <= tau else row["beyond_value"]
        return "undetermined", why, _advice(bound, value, tau, n, "the whole-trace excess")
    if row["same_weights"]:
        why = [*why, *_same(row)]
        return "undetermined", why, f"{source} and the reference drawn with one sampler, or at temperatures up to 1"
    if not row["share_high"] <= HURDLED:
        if not row["coolest"] <= COOL:
            return (
                "undetermined",
                [*why, "cooling alone could make these steps, and no cool law is known"],
                _cooler(row),
            )
        share = row[_share(row)]
        if share == 0 and not row["unknown"]:
            least = event_free(HURDLED, 1)
            needs = f"{least:,} traces without a hurdle would show that they are hurdle-free ({n:,} now)"
            return "undetermined", why, needs
        if not row["share_low"] > HURDLED:
            bound = row["share_low"] if share > HURDLED else row["share_high"]
            return "undetermined", why, _advice(bound, share, HURDLED, n, "the share of traces with a hurdle")
        return "undetermined", why, _advice(row["every_low"], row["every_value"], tau, n, "the excess over every law")
    if not math.isfinite(row["s"]) or not row["coolest"] <= COOL:
        return "undetermined", why, _cooler(row)
    explained = f"{row['best']} explains {row['s']:.0%} of the divergence from the base"
    cooler, other = _by_temperature(row)
    shared_cut = row["same_sampler"] and row.get("reference_cuts") is True
    if not other and (row["s_high_half"] > 0 or (not cooler and (row["s_low_half"] < 0 or shared_cut))):
        share = number(row["s_reference"])
        said = f"{max(0.0, share):.0%}" if math.isfinite(share) else "an unknown share"
        why = [*why, f"{explained} at T = 1, and {said} of that from the reference as it was sampled"]
        return "undetermined", why, "both sides sampled at T = 1 without a cut, so that no sampler is shared"
    if other and row.get("dense", True):  # what is open is whether several temperatures would do
        low = f"{row['every_value']:.3f} beyond every law at once (at least {row['every_low']:.3f})"
        why = [*why, f"no single temperature does it, yet each trace has one that may: {low}"]
        if row["every_value"] <= tau:
            return "undetermined", why, "nothing: several temperatures of the base would do it"
        return "undetermined", why, _advice(row["every_low"], row["every_value"], tau, n, "the excess over every law")
    if row["s_low_half"] < 0:  # shown: what is open is whether the text is likelier
        if not math.isfinite(row["drop"]):
            return _of_the_drop(row, [*why, explained], n)
        low = f"the surprisal lies {row['drop']:.3f} nats a token below the entropy (at least {row['drop_low']:.3f})"
        why = [*why, f"{explained}; {low}, sharpened asks for {DROP:g}"]
        if row["drop"] <= DROP:
            return "undetermined", why, f"no number of traces, if the drop of the surprisal stays at {row['drop']:.3f}"
        return "undetermined", why, _advice(row["drop_low"], row["drop"], DROP, n, "the drop of the surprisal")
    if not row.get("dense", True):
        why = [*why, f"{explained} (of those known), and what lies between them could explain half"]
        needs = f"log-probs of the base at T={row['unknown_temperatures']} too (base_logprobs)"
        return "undetermined", why, _cooler(row) if row.get("short") else needs
    why = [*why, f"{explained}, too close to a half"]
    unsure = number(row.get("s_unsure"))
    if unsure >= abs(row["s"] - EXPLAINED):  # of what lies between the known temperatures, which no trace tells
        line = f"what lies between the known temperatures may make {min(1.0, unsure):.0%} of it, whatever the traces"
        nearer = f"log-probs of the base at temperatures nearer to {row['best']} (base_logprobs at T=.95 and .9, say)"
        return "undetermined", [*why, line], nearer
    half = abs(row["s_high"] - row["s"]) - (unsure if unsure > 0 else 0.0)
    name = "the share that a temperature explains"
    return "undetermined", why, _advice(row["s"] + half, row["s"], EXPLAINED, n, name)


def _cooler(row: dict[str, Any]) -> str:
    """The temperatures that would decide: more of them, or those that some rows have and others lack."""
    short = row.get("short")
    return (
        f"base_logprobs at the same temperatures in every row: {short}" if isinstance(short, str) and short else COOLER
    )


def _of_the_drop(row: dict[str, Any], why: list[str], n: int) -> Finding:
    """What would decide where entropies are not known, and only a bound of the surprisal's distance to them is."""
    least = number(row.get("drop_least"))
    line = "how far the surprisal lies below the entropy is not known from these temperatures"
    line += f" (at least {row['drop_low']:.3f} nats a token)" if row["drop_low"] > 0 else ""
    why = [*why, f"{line}, sharpened asks for {DROP:g}"]
    if least > DROP:
        return "undetermined", why, _advice(row["drop_low"], least, DROP, n, "the least drop of the surprisal")
    nearer = "log-probs of the base nearer to T=1 (base_logprobs at T=.95 and .9): the bound is the better the nearer"
    return "undetermined", why, nearer


def _heard(row: dict[str, Any]) -> float:
    """The upper bound of whole traces beyond the budget over the traces that bring numbers alone."""
    return (row["inside_high"] * row["every"] - row["silent"]) / max(1, row["every"] - row["silent"])


def _same(row: dict[str, Any]) -> list[str]:
    """What a source that is the base's own weights differs in."""
    if not row["same_weights"] and row.get("equal"):
        return [
            f"by construction: its log-probs and the base's ({_law(row['equal'])}) are the same number at every token; "
            "whether one was copied from the other, no check can tell"
        ]
    if not row["same_weights"]:
        return []
    if row["same_sampler"]:
        return [
            "by construction: the source is the base's own weights with the reference's sampler, every ratio is 1; "
            "whether its traces are draws of it is checked before the tests (declared)"
        ]
    return ["only the sampler differs: the source is the base's own weights"]


def _advice(bound: float, value: float, threshold: float, n: int, name: str) -> str:
    """How many times the traces would show on which side of the threshold the number lies, in four of five cases.

    The number is as uncertain as its bound says, N(value, se^2) with se = |bound - value| / 1.645; f times the traces
    bring another, N(value, se^2 (1 + 1/f)), with a bound sqrt(f) nearer. To count on the value as it was found would
    leave out that a value near a threshold was often found there by chance.
    """
    half, gap = abs(bound - value), abs(value - threshold)
    if not math.isfinite(half):
        return f"more problems: no interval for {name}"
    tried = np.arange(2, MOST)
    reach, spread = half / np.sqrt(tried), half / NORMAL * np.sqrt(1 + 1 / tried)
    decided = ndtr((gap - reach) / spread) + ndtr((-gap - reach) / spread) if half > 0 else np.ones(len(tried))
    times = int(tried[np.argmax(decided >= SURE)])
    side = f"they show on which side of {threshold:g} {name} lies ({value:.3f})"
    return f"about {times} times the traces ({n:,} now): {side}"


def _share(row: dict[str, Any]) -> str:
    """Which of the two spans has the larger share of traces with a hurdle."""
    return "share1" if row["share1"] >= row["share4"] else "share4"


def _whole(row: dict[str, Any], budget: int) -> str:
    return (
        f"mass of whole traces beyond {budget} times the base's: {row['beyond_value']:.3f} (at least "
        f"{row['beyond_low']:.3f}) over {row['n']:,} traces, {_law(row['beyond_law'])}"
    )


def _lead(row: dict[str, Any], budget: int, how: str) -> str:
    """The words sharpened and reweighted in one sentence."""
    whole = f"{row['beyond_value']:.1%} (at least {row['beyond_low']:.1%}) of its probability mass, by whole traces"
    step = f"{row[_share(row)]:.1%} of the traces (at most {row['share_high']:.1%}) hold a single step that does"
    return f"{whole}, exceeds {budget} times the base's; {step}; {how}"


def _left(row: dict[str, Any], tau: float) -> str:
    """Beside the word sharpened: what the best temperature leaves."""
    alone = "is not shown to do"
    if row["left_high"] <= tau or row["left_low"] > tau:
        alone = "would do" if row["left_high"] <= tau else "would not do"
    return (
        f"the base at {row['best']} alone {alone}: {row['left']:.3f} of the mass stays beyond (at most "
        f"{row['left_high']:.3f})"
    )


def _far(row: dict[str, Any], budget: int) -> list[str]:
    """Beside the word outside, where no cooler law is known."""
    if row["coolest"] <= COOL:
        return []
    line = f"{row['far']:.1%} hold a single token beyond {far(budget):,} times the base's, which no cooling lifts"
    return [f"{line}: log-probs of the base at low temperatures are not known"]


def _every(row: dict[str, Any]) -> str:
    every = f"{row['every_value']:.3f} (at least {row['every_low']:.3f})"
    return f"mass beyond the base under every sampling setting at once: {every}"


def _hurdles(row: dict[str, Any], budget: int) -> str:
    share, rate = row[_share(row)], 1000 * row["hurdles" + _share(row)[-1]] / max(row["tokens"], 1e-9)
    text = (
        f"{share:.1%} of the traces hold a step more than {budget} times as likely as under the base (95 % bounds for "
        f"these problems {row['share_low']:.1%} to {row['share_high']:.1%}; {rate:.3g} per 1,000 tokens)"
    )
    return text + (f"; by kind of token: {row['carried_by']}" if row.get("carried_by") else "")


def _likelier(row: dict[str, Any]) -> str:
    """Beside the word reweighted: how its surprisal compares with what the base expected on the same way, at T = 1."""
    draws = "draws of the base itself" if "r_low_half" not in row else "draws of the base at T = 1"
    if not math.isfinite(row["drop"]):
        if row["drop_low"] > 0:
            return f"likelier than {draws}, by at least {row['drop_low']:.3f} nats a token"
        return "whether its text is likelier than the base's own is not known"
    if abs(row["drop"]) < DROP:
        return f"about as likely as {draws} ({row['drop']:+.3f} nats a token)"
    word = "likelier" if row["drop"] > 0 else "less likely"
    return f"{word} than {draws}, by {abs(row['drop']):.3f} nats a token"


def _beside(row: dict[str, Any], tau: float) -> list[str]:
    """What stands beside every word: length, the end token, the surprisal, the share cut off."""
    out = []
    if number(row.get("silent")) > 0:
        out.append(
            f"{row['silent']:,.0f} of {row['every']:,.0f} traces bring no numbers of a token that the policy wrote: "
            "they count against every bound"
        )
    if row["unknown"]:
        have = "traces have" if row["unknown"] > 1 else "trace has"
        out.append(f"{row['unknown']:,} {have} tokens without a number: counted against every bound")
    if number(row.get("copies")) > 0:
        out.append(
            f"{row['copies']:,.0f} more traces repeat another token by token, which no draw would: each is counted once"
        )
    if row.get("assumed"):
        out.append(f"no sampler is declared: its log-probs' own temperature is taken for it ({row['assumed']})")
    length, other = number(row.get("length")), number(row.get("length_reference"))
    if length and other and max(length / other, other / length) >= LONGER:
        out.append(f"responses are {length:.0f} tokens long on average, the reference's {other:.0f}")
    if row.get("end_unknown") is True:
        out.append("no end token is known: the last token of a trace that was not cut is held to be its end")
    elif number(row.get("end_low")) > HURDLED:
        what = "stops earlier" if length < other else "stops elsewhere"
        out.append(f"{what}: its end is beyond the budget where the base goes on (end tokens are no hurdles)")
    if row["inside_value"] > tau and row["inside_body_high"] <= tau:
        out.append(
            f"without the end token {row['inside_body_value']:.3f} is beyond: the difference is where it stops, the "
            "text is the base's"
        )
    return out + _surprisal(row) + _cut(row)


def _novelty(novel: dict[int, Estimate | None]) -> list[str]:
    known = {k: e for k, e in novel.items() if e is not None}
    if not known:
        return []
    n = next(iter(known.values())).n
    flagged = [f"{_percent(e.value, e.low, e.high)} at k={k}" for k, e in known.items()]
    return [f"flagged as novel by surprisal: {', '.join(flagged)} (n = {n:,})" if n else UNTESTED]


def _too_hot(row: dict[str, Any]) -> bool:
    """Whether source or reference were drawn hotter than the laws that the e-value is held against."""
    known = [t for t in (number(row.get("hottest")), number(row.get("temperature"))) if math.isfinite(t)]
    return not max([1.0, *known]) <= number(row.get("covered", 1.0)) + 1e-9


def _ranked(row: dict[str, Any], k: int) -> list[str]:
    """The traces among the base's draws of their problem."""
    share, draws = number(row.get("rank_share")), number(row.get("base_draws"))
    if not math.isfinite(share) or not draws > 0:
        return []
    line = f"{share:.1%} of the traces are more surprising than all {draws:.0f} base draws of their problem"
    if row.get("ranked"):
        return [f"{line}: about the base as it was sampled, no verdict from it ({row['ranked']})"]
    if draws + 1 <= k:
        return [f"{line}; with n + 1 <= {k} ranks can decide nothing of a share"]
    within = f"within {k} draws at most {chance(int(draws), k):.1%} would be, p = {number(row.get('rank_p')):.2g}"
    return [f"{line} ({within}; at least {number(row.get('rank_low')):.3f} lies beyond)"]


def _told(row: dict[str, Any], source: str) -> list[str]:
    """What the e-values are held against, what they say together, and what the conformal test flags."""
    out, hottest = [], number(row.get("hottest"))
    undeclared = "temperature" in row and not math.isfinite(number(row["temperature"]))
    why = f"no sampler of {source} is declared, and draws of the base hotter than T = 1 look novel too: " * undeclared
    if _too_hot(row):
        out.append(f"{why}the e-value could not be held against a law of the base that is hot enough: no word from it")
    elif hottest > 1:
        out.append(f"{why}held against the base at temperatures up to {row['covered']:.3g}, cut or not")
    if number(row.get("bets")) == 1:
        out.append(
            "tested with lambda = 1/2 alone, weak where novelty is spread over many tokens: score the base again"
        )
    together = number(row.get("log_e_sum"))
    if together > -math.log(ALPHA) and not _too_hot(row):
        out.append(
            f"together the traces are not draws of that law (log of the product of e: {together:.0f}), which says "
            "nothing of reach"
        )
    flagged = [number(row.get(f"conformal_{x}")) for x in ("share", "low", "high")]
    if math.isfinite(flagged[0]):
        out.append(f"more surprising than the reference's traces: {_percent(*flagged)} (conformal, certifies nothing)")
    return out


def _surprisal(row: dict[str, Any]) -> list[str]:
    if not math.isfinite(number(row.get("z_median"))):
        return []
    z0 = number(row.get("z_reference_median"))
    reference = f", reference {z0:.2f}" if math.isfinite(z0) else ""
    return [f"excess surprisal z: median {row['z_median']:.2f}{reference}"]


def _cut(row: dict[str, Any]) -> list[str]:
    share = number(row.get("cut_share"))
    line = f"{share:.1%} of the traces are cut off at the length limit; this speaks of their sampled part"
    return [line] if share > 0 else []


def _no_event(problems: int, high: float, budget: int, tau: float) -> tuple[str, str | None]:
    """For whom the bound holds when no trace exceeds the budget, and how many problems would extend it to new ones."""
    new = float(share_upper(0, problems))
    line = f"no trace beyond {budget} times the base's: the bound {high:.3f} is for these {problems} problems"
    if new <= tau:
        return f"{line}, and for new ones {new:.3f}", None
    least = math.ceil(math.log(ALPHA) / math.log1p(-tau))
    cost = f"for new problems the bound is {new:.3f}; {least} problems without such a trace would bring it to {tau:g}"
    return f"{line}, not for new ones", f"a new problem on which it departs ({cost}), or a wrong sampler or template"


def _where(row: dict[str, Any]) -> str:
    return f"; flagged: {row['flagged_groups']}" if row.get("flagged_groups") else ""


def _law(name: str) -> str:
    return f"at {name}" if name.startswith("T=") else name


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
