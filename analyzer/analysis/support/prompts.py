"""Sources that the base was scored on under the reference's prompts, not their own, and the sentences that say so.

Everything that rests on their scores says so: results and their estimates here, verdicts by `told`, pages from the
parameters of the results.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from analyzer.records import Result, Tables, Verdict
from analyzer.records.display import possessive

APART = ("boundary", "contained")  # rest on labels and texts alone
TEXTS = (*APART, "strategy")  # so do their estimates and figures: of its tables two are of hidden states
OF_NO_SCORE = re.compile(r"\.(truncated|pass_rate|n_tokens|pass@\d+)$")  # estimates of the others that rest on none
FIGURES = ("pass_rate", "by_problem")  # likewise
BOTH = (
    "the prompts differ as well as the models: this does not tell training from prompting (draws of the base after the "
    "prompts of {source} as one more source, with --policy, would)"
)


def moved(tables: Tables) -> dict[str, dict[str, Any]]:
    """Source -> counts of its traces (`asked.Coded.prompts`), of those that the base was asked about under
    other prompts than their own, or than are known to be."""
    found = tables.engines.get(tables.base or "", {}).get("prompts") or {}
    return {source: counts for source, counts in found.items() if counts["other"] + counts["unknown"]}


def phrase(label: str) -> str:
    """What numbers are called that rest on the prompts of this source."""
    return f"scored under {possessive(label)} prompt"


def seams(counts: dict[str, Any]) -> tuple[int, str]:
    """Traces with a seam, and what the seams are, the commonest first."""
    return sum(counts["seams"].values()), _listed(counts["seams"])


def ends(counts: dict[str, Any]) -> tuple[int, str]:
    """Traces that end in what is no end token of the base, and in what."""
    return sum(counts["ends"].values()), _listed(counts["ends"])


def _listed(counts: dict[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{what} ({n:,})" for what, n in found)


def named(result: Result, tables: Tables) -> Result:
    """The result with the phrase in its notes, its parameters and its estimates, where it rests on such scores."""
    if not (sources := moved(tables)) or result.name in APART:
        return result
    said = phrase(tables.reference)
    begins = () if result.name in TEXTS else _prefixes(result, sources)
    estimates = {
        key: replace(e, method=f"{e.method}; {said}".lstrip("; "))
        if key.startswith(begins) and not OF_NO_SCORE.search(key)
        else e
        for key, e in result.estimates.items()
    }
    note = (
        f"{', '.join(sources)}: {said}, not their own: what the base thinks of their tokens is what it thinks after "
        f"the prompt that {tables.reference} was asked with for the same problem."
    )
    params = result.params | {"prompt_of": tables.reference, "prompt_of_sources": list(sources)}
    return replace(result, estimates=estimates, notes=(note, *result.notes), params=params)


def captioned(result: Result, figure: str, caption: str) -> str:
    """The caption of a figure, with the phrase where the figure rests on such scores."""
    if "prompt_of" not in result.params or result.name in TEXTS or figure in FIGURES:
        return caption
    return f"{caption} {', '.join(result.params['prompt_of_sources'])} {phrase(result.params['prompt_of'])}."


def _prefixes(result: Result, sources: Collection[str]) -> tuple[str, ...]:
    """How the keys of these sources begin, or of the pairs with one of them."""
    pairs = result.tables.get("pairs")
    if pairs is None:
        return tuple(f"{source}." for source in sources)
    rows = zip(pairs["a"], pairs["b"], strict=True)
    return tuple(f"{a}{dash}{b}." for a, b in rows if a in sources or b in sources for dash in ("-", " - "))


def _what_differs(tables: Tables, source: str) -> str:
    """Beside every verdict: that a difference between two prompts is no difference that training made."""
    policy, base = (tables.engines.get(label or "", {}) for label in (tables.policies.get(source), tables.base))
    if policy and policy.get("fingerprint") == base.get("fingerprint"):
        return "only prompt and sampler differ: the source is the base's own weights, asked after another prompt"
    return BOTH.format(source=source)


def told(verdicts: Iterable[Verdict], tables: Tables) -> list[Verdict]:
    """The verdicts with the source whose prompts they rest on; among their reasons that prompts differ, and at the
    sequence the seams."""
    out, sources = [], moved(tables)
    for v in verdicts:
        counts = sources.get(v.source)
        if counts is not None:
            why = [*v.why, _what_differs(tables, v.source)]
            if v.level == "sequence":
                (n, what), (closed, by) = seams(counts), ends(counts)
                whose, of = possessive(v.reference), f"of {counts['traces']:,} responses"
                why += [f"seams of {whose} prompt and {n:,} {of}: {what}"] if n else []
                why += [f"{closed:,} {of} end in what is no end token of the base: {by}"] if closed else []
            v = replace(v, prompt_of=v.reference, why=tuple(why))
        out.append(v)
    return out
