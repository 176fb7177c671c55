"""Log-ratios of whole traces from the scorers' summaries, and the excess at every budget that they make.

A ratio exists where the source's own model and sampler are known, did write it, and count the same tokens as the base.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.support import engine, membership, novelty
from analyzer.records import Tables
from analyzer.stats import reach

SAME = 1e-3  # nats: a smaller log-ratio of a trace is rounding, and rounding must not count as an event at k = 1


def curve(
    ratio: pd.Series, unit: pd.Series, why: str, omitted: float, budgets: tuple[int, ...], floor: float
) -> list[dict[str, Any]]:
    """E_k and Cov_k at every budget; NaN if there is a reason `why` not to use the ratios, or below the engine floor.

    A share `omitted` of the traces without a usable ratio counts as 0 at the lower end and as 1 at the upper end.
    """
    values = np.full(len(ratio), np.nan) if why else ratio.to_numpy(dtype=float)
    values = np.where(np.abs(values) < SAME, 0.0, values)  # two passes of one model differ in the last bits
    note = why or ("" if len(values) else "no trace scored")
    if omitted and not why:
        note = f"{omitted:.2%} of the traces left their own declared sampler; counted against both ends of the interval"
    out = []
    for k, interval in reach.curve(values, unit.to_numpy(), budgets).items():
        if omitted:
            interval = interval._replace(low=interval.low * (1 - omitted), high=min(1.0, interval.high + omitted))
        row = {"k": k, **novelty.columns(interval), "coverage": reach.coverage(values, k), "note": note}
        if not why and engine.below(k, floor):
            row |= dict.fromkeys(("share", "low", "high", "coverage"), math.nan)
            row["note"] = f"k is below the engine floor k_min = {floor:.3g}: log-probs of two engines differ by more"
        out.append(row)
    return out


def log_q(tables: Tables, scores: pd.DataFrame, frame: pd.DataFrame, source: str) -> tuple[np.ndarray, str, float]:
    """log q of the source's traces under its own sampler [N], the reason if there is none, and the share left out.

    A trace that the declared sampler could not have drawn has no log q: -inf would count as "inside". More than
    CONTRADICTED of them say that the declaration is wrong, and nothing is computed.
    """
    policy, nothing_known = tables.policies.get(source), np.full(len(frame), np.nan)
    if policy is None:
        return nothing_known, f"the model that produced {source} is not known; give --policy {source}=MODEL", 0.0
    if source not in tables.samplers:
        return nothing_known, membership.unknown(source), 0.0
    rows = scores[(scores["model"] == policy) & (scores["source"] == source)].set_index("key").reindex(frame["key"])
    log_q = rows["logprob_s"].to_numpy(dtype=float)
    if np.isnan(log_q).all():
        return nothing_known, f"{source} was not scored under {policy} with its sampler", 0.0
    both = rows["n_tokens"].notna().to_numpy()
    if (rows["n_tokens"].to_numpy()[both] != frame["n_tokens"].to_numpy()[both]).any():
        why = f"{policy} and the base cut the traces of {source} into different numbers of tokens"
        return nothing_known, why + ": log-ratios need one tokenizer", 0.0
    exits = float(np.isneginf(log_q).mean())
    advice = f"check --policy {source}=MODEL and --template"
    why = engine.contradiction(exits, source) or engine.foreign(tables, rows, source, policy, advice)
    why = why or _misdeclared(tables, rows, source)
    return (nothing_known, why, 0.0) if why else (np.where(np.isneginf(log_q), np.nan, log_q), "", exits)


def _misdeclared(tables: Tables, rows: pd.DataFrame, source: str) -> str:
    """Why a source's declaration is refused, or "". Judged once, of all its traces: a choice among them by what they
    are (short, correct) shifts the surprisal of a true source too."""
    name = f"declared: {source}, {tables.policies[source]}, {tables.samplers[source]}"
    if name not in tables.memo:
        found = engine.declared(rows)
        wrong = found is not None and found.wrong
        what = f"the traces of {source} are not draws of what is declared for it"
        tables.memo[name] = f"{what}: {engine.misdeclared(found, source)}" if wrong else ""
    return tables.memo[name]


def lost(tables: Tables, scores: pd.DataFrame, own: pd.DataFrame, source: str) -> tuple[pd.Series, str]:
    """log p (reference's own sampler) - log q of the reference's traces, and a reason.

    log q is the largest of the policy's laws: at T = 1, with its own sampler, with the reference's. A sampler that both
    sides share, or a cooler policy, then loses nothing.
    """
    policy = tables.policies.get(source)
    if policy is None:
        return own["logprob"], f"the model that produced {source} is not known; give --policy {source}=MODEL"
    reason = sampler_gap(tables, own)
    rows = scores[(scores["model"] == policy) & (scores["source"] == tables.reference)].set_index("key")
    names = [c for c in ("logprob", "logprob_s", "logprob_source") if c in rows]
    log_q = np.fmax.reduce(rows[names].reindex(own["key"]).to_numpy(dtype=float), axis=1)
    if not reason and np.isnan(log_q).all():
        reason = f"the traces of {tables.reference} were not scored under {policy}"
    ratio = own["logprob_s"] - log_q
    return ratio.where(~np.isneginf(ratio)), reason


def sampler_gap(tables: Tables, own: pd.DataFrame) -> str:
    """Why the reference's own sampler cannot be used, or the empty string."""
    if tables.reference not in tables.samplers or own["logprob_s"].isna().all():
        return membership.unknown(tables.reference)
    return engine.contradiction(float(np.isneginf(own["logprob_s"]).mean()), tables.reference)
