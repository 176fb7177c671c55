"""Layer 1 of `support`: are a source's tokens inside the set that the reference's sampler could draw? Exact, per token.

Only meaningful for a source drawn with the same truncation: under another sampler the share falls with the length of
the trace (64 % of a base's own T=1 traces lie inside its T=.6, top-p .95 nucleus), hence the note beside the number.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analyzer.records import Estimate, Sampler, Tables
from analyzer.stats.bootstrap import rate


def unknown(source: str) -> str:
    """What to say where a sampler is missing."""
    ways = f"give --sampler {source}=T[,top_p[,top_k[,min_p]]]"
    return f"the sampler of {source} is not known; {ways} (greedy responses have none: draw at a temperature above 0)"


def inside(tables: Tables, frame: pd.DataFrame, source: str) -> tuple[dict[str, Any], Estimate]:
    """Row of the membership table and `<source>.sampler_inside`: share of traces without a token outside the set.

    `frame`: the source's rows of the base scorer, with an integer `unit` per problem. Exits and tokens near the
    cut-off are per 1,000 tokens.
    """
    here, there = tables.samplers.get(source), tables.samplers.get(tables.reference)
    row: dict[str, Any] = {"source": source, "sampler": words(here), "reference_sampler": words(there)}
    row |= {"n": len(frame), "problems": frame["problem"].nunique()}
    numbers = ("inside", "low", "high", "exits_per_1000", "first_exit_median", "near_boundary_per_1000")
    if here is None or there is None or frame["logprob_s"].isna().all():
        note = unknown(source if here is None else tables.reference)
        if here is not None and there is not None:
            note = "the base's scorer (a server?) does not know which tokens the sampler cuts off"
        return row | dict.fromkeys(numbers, math.nan) | {"note": note}, Estimate(math.nan, note=note)
    share = rate((frame["exits"] == 0).to_numpy(dtype=float), frame["unit"].to_numpy())
    note = ""
    if there.top_p == 1 and there.top_k == 0 and there.min_p == 0:
        note = "the reference's sampler cuts nothing off: every token is inside"
    elif here != there:
        note = "drawn with another sampler than the reference's: the share falls with length and is no evidence alone"
    tokens, exited = frame["n_tokens"].sum(), frame.loc[frame["first_exit"] >= 0, "first_exit"]
    exits, near = (1000 * frame[name].sum() / tokens for name in ("exits", "near_boundary"))
    found = (share.value, share.low, share.high, exits, exited.median() if len(exited) else math.nan, near)
    return row | dict(zip(numbers, found, strict=True)) | {"note": note}, Estimate.of(share, note)


def words(sampler: Sampler | None) -> str:
    """ "T=0.6, top-p 0.95", or "unknown"."""
    if sampler is None:
        return "unknown"
    cuts = {"top-p": (sampler.top_p, 1), "top-k": (sampler.top_k, 0), "min-p": (sampler.min_p, 0)}
    return ", ".join([f"T={sampler.temperature:g}"] + [f"{name} {v:g}" for name, (v, off) in cuts.items() if v != off])
