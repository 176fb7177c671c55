"""What is true of each source: the verdict words that are right, by level.

The words are those of the package's verdict at budget 64. At the levels of the method and of the outcome, and at the
sequence level where log q is not known, they follow from how a source was made, the same at every level of a branch. At
the sequence level of the other sources they are computed: the exact numbers of all draws against the thresholds
(`validation` computes them again). A list holds every word that is not wrong: `undetermined` stands where the
samples, or a missing log q, may not be enough to say more. Inside at a fine level implies inside at the coarser ones;
outside at a coarse level implies outside at the finer ones.
"""

from __future__ import annotations

from typing import Any

from analyzer.records import METHOD, OUTCOME

ANY = ["inside", "outside", "undetermined"]
NOT_OUTSIDE = ["inside", "undetermined"]
INSIDE_OR_OPEN = ["inside", "undetermined"]
OUTSIDE_OR_OPEN = ["outside", "undetermined"]


def truth(made_by: str, sequence: list[str], method: list[str], outcome: list[str]) -> dict[str, Any]:
    """One entry of the table: the words that are right at the sequence and at every level of the two branches."""
    levels = {**dict.fromkeys(METHOD, method), **dict.fromkeys(OUTCOME, outcome)}
    levels |= {level: sorted({*levels[level], "undetermined"}) for level in METHOD[1:]}  # a text may have no such steps
    return {"made_by": made_by, "truth": {"sequence": sequence, **levels}}


SHARPENED = (["sharpened"], NOT_OUTSIDE, NOT_OUTSIDE)
REWEIGHTED = (["reweighted"], NOT_OUTSIDE, NOT_OUTSIDE)

TRUTHS = {
    "base": truth("the reference itself", ["inside"], INSIDE_OR_OPEN, INSIDE_OR_OPEN),
    "base-again": truth("the base, an independent draw", ["inside"], INSIDE_OR_OPEN, INSIDE_OR_OPEN),
    "cool": truth("the base at T = 0.6, top-p 0.95: E_64 = 0", ["inside"], INSIDE_OR_OPEN, INSIDE_OR_OPEN),
    "cold": truth("the base at T = 0.1", *SHARPENED),
    "best-of-16": truth(
        "the best of 16 base draws by the strict verdict: within 16 draws by construction, log q not known",
        ["undetermined"],
        NOT_OUTSIDE,
        NOT_OUTSIDE,
    ),
    "rlvr": truth("GRPO paid by the strict verdict: a temperature explains 9 % of what it moved", *REWEIGHTED),
    "rlvr-early": truth("the same run after step 100", *REWEIGHTED),
    "rlvr-unfaithful": truth(
        "GRPO paid by the final expression alone: the steps become a private code, the answers do not leave",
        ["outside"],
        ANY,  # wrong values change the skeleton too, and how far is not built in
        NOT_OUTSIDE,
    ),
    "restyle-known": truth(
        "base draws, opener and synonyms drawn anew by the corpus's own law", NOT_OUTSIDE, NOT_OUTSIDE, NOT_OUTSIDE
    ),
    "restyle-foreign": truth(
        "base draws, openers and step words replaced by words that no solution holds",
        ["outside"],
        NOT_OUTSIDE,
        NOT_OUTSIDE,
    ),
    "padded": truth("draws of rlvr with recaps put in: log q is not known", ["undetermined"], NOT_OUTSIDE, NOT_OUTSIDE),
    "distill": truth(
        "fine-tuned on a teacher that multiplies and divides in the base's wording",
        ["outside"],
        ["outside"],
        OUTSIDE_OR_OPEN,
    ),
    "distill-plan": truth(
        "fine-tuned on a teacher that plans backwards in words of its own", ["outside"], ["outside"], OUTSIDE_OR_OPEN
    ),
    "teacher": truth(
        "the solver that distill learned from; no log q, so by novelty", ["outside"], ["outside"], OUTSIDE_OR_OPEN
    ),
}
