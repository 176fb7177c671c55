"""The support horizon in steps: how many steps of its text a source has begun when half of it is beyond the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from analyzer.analysis.data import steps
from analyzer.analysis.data.summaries import among, last_steps
from analyzer.records import Estimate, Tables

AT_MOST = 1000  # traces of a source whose steps are counted, the first ones by key


def in_steps(tables: Tables, horizons: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Source -> mean number of steps begun within its horizon in tokens (`local.horizon`), its ends at the horizon's.

    One pass over the offsets of the base's tokens and one over the texts, of AT_MOST traces of each source. NaN where
    the horizon is, or where no text or no place of a token in it is known.
    """
    known = {s: e for s, e in horizons.items() if math.isfinite(e.value)}
    found: dict[str, list[tuple[float, float, float]]] = {s: [] for s in known}
    traces = last_steps(tables.traces)
    wanted: dict[str, str] = {}
    for source in known:
        wanted |= dict.fromkeys(traces.loc[traces["source"] == source, "key"].sort_values().head(AT_MOST), source)
    offsets: dict[str, np.ndarray] = {}
    for part in tables.tokens(tables.base, ["offset"]) if wanted and tables.base is not None else ():
        part = part[among(part["key"], set(wanted))]
        offsets |= {k: np.array(o) for k, o in zip(part["key"], part["offset"], strict=True) if o is not None}
    for part in tables.texts(["response"]) if offsets else ():
        part = part[among(part["key"], set(offsets))]
        for key, text in zip(part["key"], part["response"], strict=True):
            if isinstance(text, str) and len(offsets[key]) and offsets[key].min() >= 0:
                e = known[wanted[key]]
                starts = np.array([step.start for step in steps.steps(text)])
                found[wanted[key]].append(tuple(_begun(starts, offsets[key], w) for w in (e.value, e.low, e.high)))
    return {s: _estimate(e, found.get(s, [])) for s, e in horizons.items()}


def _begun(start_S: np.ndarray, offset_T: np.ndarray, tokens: float) -> float:
    """Steps that begin before the first `tokens` tokens end; NaN for NaN."""
    if math.isnan(tokens):
        return math.nan
    at = math.ceil(tokens)
    return float((start_S < offset_T[at]).sum() if at < len(offset_T) else len(start_S))


def _estimate(horizon: Estimate, counts: list[tuple[float, float, float]]) -> Estimate:
    if not math.isfinite(horizon.value):
        return Estimate(math.nan, n=horizon.n, note=horizon.note)
    if not counts:
        return Estimate(math.nan, note="no text with the places of its tokens: the horizon in steps is not known")
    value, low, high = np.array(counts).mean(0)
    how = "mean steps begun at the horizon in tokens"
    return Estimate(float(value), float(low), float(high), len(counts), how, horizon.note)
