"""The sentences of the sequence level: the numbers of `Evidence` that a verdict and its reasons rest on."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from analyzer.analysis.support import evidence
from analyzer.analysis.support.evidence import COOL, DROP
from analyzer.analysis.support.record import Evidence
from analyzer.records import HURDLED, Estimate
from analyzer.stats.bootstrap import ALPHA, share_upper
from analyzer.stats.ranks import chance

UNTESTED = "novelty was not tested: the base's scorer (a server?) knows log-probs, no entropies"
COOLER = "log-probs of the base at lower temperatures (score with --policy, or base_logprobs at .8, .6, .4, .2)"
LONGER = 1.5  # ratio of mean lengths from which on the length is named
SURE, MOST = 0.8, 100  # an advice decides in this share of cases; 45 times the traces do for a value at its threshold
NORMAL = 1.645  # standard errors of a one-sided 95 % bound


def no_temperature(row: Evidence) -> str:
    """What the best temperature explains, beside the word reweighted."""
    if row.r_high_half > 0 and row.same_sampler:
        if not row.s_reference > 0:
            return "no temperature explains any of the KL divergence from the reference as it was sampled"
        best = f"at best {row.s_reference:.0%}"
        return f"no temperature explains half of the KL divergence from the reference as sampled ({best})"
    if not row.s > 0:
        return "no temperature explains any of the KL divergence from the base"
    best = f"at best {row.s:.0%}, at {row.best}"
    return f"no temperature of the base explains half of the KL divergence from it ({best})"


def cooler(row: Evidence) -> str:
    """The temperatures that would decide: more of them, or those that some rows have and others lack."""
    return f"base_logprobs at the same temperatures in every row: {row.short}" if row.short else COOLER


def around(best: str) -> str:
    """The three multiples of .05 below 1 that are nearest to a temperature ("T=0.66"): ".7, .65 and .6"."""
    near = sorted(np.arange(0.05, 0.96, 0.05), key=lambda t: abs(t - float(best[2:])))[:3]
    one, two, three = (f"{t:.2g}"[1:] for t in sorted(near, reverse=True))
    return f"{one}, {two} and {three}"


def same(row: Evidence) -> list[str]:
    """What a source that is the base's own weights differs in."""
    if not row.same_weights and row.equal:
        return [
            f"by construction: its log-probs and the base's ({law(row.equal)}) are the same number at every token; "
            "whether one was copied from the other, no check can tell"
        ]
    if not row.same_weights:
        return []
    if row.same_sampler:
        return [
            "by construction: the source is the base's own weights with the reference's sampler, every ratio is 1; "
            "whether its traces are draws of it is checked before the tests (declared)"
        ]
    return ["only the sampler differs: the source is the base's own weights"]


def advice(bound: float, value: float, threshold: float, n: int, name: str) -> str:
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


def whole(row: Evidence, budget: int) -> str:
    return (
        f"mass of whole traces beyond {budget} times the base's: {row.beyond_value:.3f} (at least "
        f"{row.beyond_low:.3f}) over {row.n:,} traces, {law(row.beyond_law)}"
    )


def lead(row: Evidence, budget: int, how: str) -> str:
    """The words sharpened and reweighted in one sentence."""
    mass = f"{row.beyond_value:.1%} (at least {row.beyond_low:.1%}) of its probability mass, by whole traces"
    step = f"{row.share:.1%} of the traces (at most {row.share_high:.1%}) hold a single step that does"
    return f"{mass}, exceeds {budget} times the base's; {step}; {how}"


def left(row: Evidence, tau: float) -> str:
    """Beside the word sharpened: what the best temperature leaves."""
    alone = "is not shown to do"
    if row.left_high <= tau or row.left_low > tau:
        alone = "would do" if row.left_high <= tau else "would not do"
    return (
        f"the base at {row.best} alone {alone}: {row.left:.3f} of the mass stays beyond (at most {row.left_high:.3f})"
    )


def unseen(row: Evidence) -> str:
    """Beside the word sharpened: a divergence has no bound, and traces too rare to be drawn can hold most of it."""
    share = float(share_upper(0, row.n))
    return f"a kind of trace rarer than {share:.1%} may be missing from these {row.n:,} and hold most of the divergence"


def far(row: Evidence, budget: int) -> list[str]:
    """Beside the word outside, where no cooler law is known."""
    if row.coolest <= COOL:
        return []
    line = f"{row.far:.1%} hold a single token beyond {evidence.far(budget):,} times the base's, which no cooling lifts"
    return [f"{line}: log-probs of the base at low temperatures are not known"]


def every(row: Evidence) -> str:
    found = f"{row.every_value:.3f} (at least {row.every_low:.3f})"
    return f"mass beyond the base under every sampling setting at once: {found}"


def hurdles(row: Evidence, budget: int) -> str:
    rate = 1000 * row.hurdles / max(row.tokens, 1e-9)
    text = (
        f"{row.share:.1%} of the traces hold a step more than {budget} times as likely as under the base (95 % bounds "
        f"for these problems {row.share_low:.1%} to {row.share_high:.1%}; {rate:.3g} per 1,000 tokens)"
    )
    return text + (f"; by kind of token: {row.carried_by}" if row.carried_by else "")


def likelier(row: Evidence) -> str:
    """Beside the word reweighted: how its surprisal compares with what the base expected on the same way, at T = 1."""
    draws = "draws of the base itself" if math.isnan(row.reference_temperature) else "draws of the base at T = 1"
    if not math.isfinite(row.drop):
        if row.drop_low > 0:
            return f"likelier than {draws}, by at least {row.drop_low:.3f} nats a token"
        return "whether its text is likelier than the base's own is not known"
    if abs(row.drop) < DROP:
        return f"about as likely as {draws} ({row.drop:+.3f} nats a token)"
    word = "likelier" if row.drop > 0 else "less likely"
    return f"{word} than {draws}, by {abs(row.drop):.3f} nats a token"


def beside(row: Evidence, tau: float) -> list[str]:
    """What stands beside every word: length, the end token, the surprisal, the share cut off."""
    out = []
    if row.silent > 0:
        out.append(
            f"{row.silent:,.0f} of {row.every:,.0f} traces bring no numbers of a token that the policy wrote: "
            "they count against every bound"
        )
    if row.unknown:
        have = "traces have" if row.unknown > 1 else "trace has"
        out.append(f"{row.unknown:,} {have} tokens without a number: counted against every bound")
    if row.copies > 0:
        out.append(
            f"{row.copies:,.0f} more traces repeat another token by token, which no draw would: each is counted once"
        )
    if row.assumed:
        out.append(f"no sampler is declared: its log-probs' own temperature is taken for it ({row.assumed})")
    length, other = row.length, row.length_reference
    if length and other and max(length / other, other / length) >= LONGER:
        out.append(f"responses are {length:.0f} tokens long on average, the reference's {other:.0f}")
    if row.end_unknown:
        out.append("no end token is known of some traces: their last token is held to be their end and may be text")
    elif row.end_low > HURDLED:
        what = "stops earlier" if length < other else "stops elsewhere"
        out.append(f"{what}: its end is beyond the budget where the base goes on (end tokens are no hurdles)")
    if row.inside_value > tau and row.inside_body_high <= tau:
        beyond = f"{row.inside_body_value:.3f} is beyond"
        if row.end_unknown:
            out.append(f"without the last token {beyond}: the difference is that token, an end or the last of the text")
        else:
            out.append(f"without the end token {beyond}: the difference is where it stops, the text is the base's")
    return out + surprisal(row) + cut(row)


def mass(row: Evidence, k: int) -> list[str]:
    """What lies beyond k draws at least, by the sizes of the e-values, where any of it does."""
    if not row.mass_low > 0 or too_hot(row):
        return []
    return [f"at least {row.mass_low:.1%} of its probability mass lies beyond {k} times the base's (by e-values)"]


def novelty(novel: dict[int, Estimate | None], row: Evidence) -> list[str]:
    known = {k: e for k, e in novel.items() if e is not None}
    if not known:
        return []
    n = next(iter(known.values())).n
    flagged = [f"{percent(e.value, e.low, e.high)} at k={k}" for k, e in known.items()]
    how = "surprisal and by the words it uses on other problems" if row.taught > 0 else "surprisal"
    out = [f"flagged as novel by {how}: {', '.join(flagged)} (n = {n:,})" if n else UNTESTED]
    if row.wording and any(e.value > 0 for e in known.values()):
        out.append(f"words that tell it from the base: {row.wording}")
    return out


def too_hot(row: Evidence) -> bool:
    """Whether source or reference were drawn hotter than the laws that the e-value is held against."""
    known = [t for t in (row.hottest, row.temperature) if math.isfinite(t)]
    return not max([1.0, *known]) <= row.covered + 1e-9


def ranked(row: Evidence, k: int) -> list[str]:
    """The traces among the base's draws of their problem."""
    share, draws = row.rank_share, row.base_draws
    if not math.isfinite(share) or not draws > 0:
        return []
    line = f"{share:.1%} of the traces are more surprising than all {draws:.0f} base draws of their problem"
    if row.ranked:
        return [f"{line}: about the base as it was sampled, no verdict from it ({row.ranked})"]
    if draws + 1 <= k:
        return [f"{line}; with n + 1 <= {k} ranks can decide nothing of a share"]
    within = f"within {k} draws at most {chance(int(draws), k):.1%} would be, p = {row.rank_p:.2g}"
    return [f"{line} ({within}; at least {row.rank_low:.3f} lies beyond)"]


def told(row: Evidence, source: str) -> list[str]:
    """What the e-values are held against, what they say together, and what the conformal test flags."""
    out, why = [], ""
    if math.isnan(row.temperature):
        why = f"no sampler of {source} is declared, and draws of the base hotter than T = 1 look novel too: "
    if too_hot(row):
        out.append(f"{why}the e-value could not be held against a law of the base that is hot enough: no word from it")
    elif row.hottest > 1:
        out.append(f"{why}held against the base at temperatures up to {row.covered:.3g}, cut or not")
    if row.bets == 1:
        out.append(
            "tested with lambda = 1/2 alone, weak where novelty is spread over many tokens: score the base again"
        )
    if row.log_e_sum > -math.log(ALPHA) and not too_hot(row):
        out.append(
            f"together the traces are not draws of that law (log of the product of e: {row.log_e_sum:.0f}), which says "
            "nothing of reach"
        )
    if math.isfinite(row.conformal_share):
        flagged = percent(row.conformal_share, row.conformal_low, row.conformal_high)
        out.append(f"more surprising than the reference's traces: {flagged} (conformal, certifies nothing)")
    return out


def surprisal(row: Evidence) -> list[str]:
    if not math.isfinite(row.z_median):
        return []
    reference = f", reference {row.z_reference_median:.2f}" if math.isfinite(row.z_reference_median) else ""
    return [f"excess surprisal z: median {row.z_median:.2f}{reference}"]


def cut(row: Evidence) -> list[str]:
    line = f"{row.cut_share:.1%} of the traces are cut off at the length limit; this speaks of their sampled part"
    return [line] if row.cut_share > 0 else []


def no_event(problems: int, high: float, budget: int, tau: float) -> tuple[str, str | None]:
    """For whom the bound holds when no trace exceeds the budget, and how many problems would extend it to new ones."""
    new = float(share_upper(0, problems))
    line = f"no trace beyond {budget} times the base's: the bound {high:.3f} is for these {problems} problems"
    if new <= tau:
        return f"{line}, and for new ones {new:.3f}", None
    least = math.ceil(math.log(ALPHA) / math.log1p(-tau))
    cost = f"for new problems the bound is {new:.3f}; {least} problems without such a trace would bring it to {tau:g}"
    return f"{line}, not for new ones", f"a new problem on which it departs ({cost}), or a wrong sampler or template"


def where(row: Evidence) -> str:
    return f"; flagged: {row.flagged_groups}" if row.flagged_groups else ""


def law(name: str) -> str:
    return f"at {name}" if name.startswith("T=") else name


def percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
