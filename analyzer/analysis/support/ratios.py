"""Log-ratios of whole traces and the excess at every budget that they make.

They come from the scorers' summaries, where the source's own model and sampler are known, did write it, and count the
same tokens as the base; what a policy lost also from the numbers that the reference's rows bring.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.support import brought, engine, laws, membership, novelty
from analyzer.records import Sampler, Tables
from analyzer.stats import reach

SAME = 1e-3  # nats: a smaller log-ratio of a trace is rounding, and rounding must not count as an event at k = 1


class Ratios(NamedTuple):
    """l of each trace (nats, NaN: none), a number for its problem, why they may not be used ("": they may), and the
    share of the traces left out, with what these did."""

    ratio_N: np.ndarray
    unit_N: np.ndarray
    why: str
    omitted: float = 0.0
    left: str = "left their own declared sampler"
    note: str = ""


def curve(found: Ratios, budgets: tuple[int, ...], floor: float) -> list[dict[str, Any]]:
    """E_k and Cov_k at every budget; NaN if there is a reason not to use the ratios, or below the engine floor.

    The share of the traces without a usable ratio counts as 0 at the lower end and as 1 at the upper end.
    """
    why, omitted = found.why, found.omitted
    values = np.full(len(found.ratio_N), np.nan) if why else np.asarray(found.ratio_N, dtype=float)
    values = np.where(np.abs(values) < SAME, 0.0, values)  # two passes of one model differ in the last bits
    note = why or found.note or ("" if len(values) else "no trace scored")
    if omitted and not why:
        left = f"{omitted:.2%} of the traces {found.left}; counted against both ends of the interval"
        note = f"{note}; {left}" if note else left
    out = []
    for k, interval in reach.curve(values, np.asarray(found.unit_N), budgets).items():
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


def lost(tables: Tables, scores: pd.DataFrame, own: pd.DataFrame, source: str) -> Ratios:
    """log p (reference's own sampler) - log q of the reference's traces.

    log q is the largest of the policy's laws: at T = 1, with its own sampler, with the reference's. A sampler that both
    sides share, or a cooler policy, then loses nothing. Without a policy model they are those of the rows.
    """
    policy = tables.policies.get(source)
    if policy is None or tables.base is None:
        if source in of_policies(tables):
            return _lost_by_rows(tables, source)
        why = f"the model that produced {source} is not known; give --policy {source}=MODEL"
        return Ratios(own["logprob"], own["unit"], why)
    reason = sampler_gap(tables, own)
    rows = scores[(scores["model"] == policy) & (scores["source"] == tables.reference)].set_index("key")
    names = [c for c in ("logprob", "logprob_s", "logprob_source") if c in rows]
    log_q = np.fmax.reduce(rows[names].reindex(own["key"]).to_numpy(dtype=float), axis=1)
    if not reason and np.isnan(log_q).all():
        reason = f"the traces of {tables.reference} were not scored under {policy}"
    ratio = own["logprob_s"] - log_q
    return Ratios(ratio.where(~np.isneginf(ratio)), own["unit"], reason)


def of_policies(tables: Tables) -> set[str]:
    """The sources under whose policies rows of the reference bring log-probs."""
    told = brought.said_of_policies(tables).get(tables.reference)
    return {source for source, _ in told.laws} if told else set()


def _lost_by_rows(tables: Tables, source: str) -> Ratios:
    """`lost` from response_logprobs and policy_logprobs of the reference's rows. The same laws of the policy are asked,
    and all of them: without one of them more would seem lost. A trace without one of the numbers is left out."""
    reference, declared = tables.reference, laws.samplers(tables)
    told = brought.said_of_policies(tables)[reference]
    drawn = {laws.PLAIN: Sampler(), laws.REFERENCE: declared.get(reference), laws.SOURCE: declared.get(source)}
    asked = [drawn[name] for name in laws.counted(tables, source)]
    known = [t for label, t in told.laws if label == source]
    at = [brought.near(s.temperature, known) if s == Sampler(s.temperature) else None for s in asked]
    why, _ = brought.why_not(told, declared.get(reference), reference)
    if missing := " and ".join(membership.words(s) for s, t in zip(asked, at, strict=True) if t is None):
        why = why or (
            f"policy_logprobs of {source} are not known under {missing}; they are needed at T=1 and as both sides were "
            "sampled, and a truncation they can't tell"
        )
    keys = set(last_steps(tables.traces[tables.traces["source"] == reference])["key"])
    ratio: dict[str, float] = {}
    problem: dict[str, str] = {}
    for frame in tables.policy_numbers() if not why else ():
        for row in frame[among(frame["key"], keys)].itertuples():
            own_T = slice(None) if row.written is None else row.written
            log_q = [row.laws[source, t][own_T].sum(dtype=float) if (source, t) in row.laws else math.nan
                     for t in at]  # fmt: skip
            ratio[row.key], problem[row.key] = row.logprob_q[own_T].sum(dtype=float) - np.max(log_q), row.problem
    values = np.array([*ratio.values()])
    unit = pd.factorize(np.array([*problem.values()], object), sort=True)[0]
    omitted = 1 - float((~np.isnan(values)).sum()) / len(keys)
    left, note = "lack such a number of some token", "from the log-probs that the rows bring"
    return Ratios(values, unit, why, omitted, left, note)


def sampler_gap(tables: Tables, own: pd.DataFrame) -> str:
    """Why the reference's own sampler cannot be used, or the empty string."""
    if tables.reference not in tables.samplers or own["logprob_s"].isna().all():
        return membership.unknown(tables.reference)
    return engine.contradiction(float(np.isneginf(own["logprob_s"]).mean()), tables.reference)
