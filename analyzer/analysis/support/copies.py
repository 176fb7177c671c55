"""Traces that are there more than once though no law would draw them twice: copies, which are no draws.

A bound over independent draws takes 160 copies of ten draws for 160 draws. Where the log-prob of a trace under its own
law is known and below REPEATED, an equal trace of its source is a copy, under whatever name of its problem (data sets
hold a prompt twice, and a seed fixed by request answers both alike); where it is higher, or where the law is not known
(a policy may have collapsed onto one answer), it may be a draw and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import among
from analyzer.analysis.support import brought
from analyzer.records import Tables

REPEATED = brought.REPEATED
GROUP = ["source", "step"]
LONG = 200  # characters from which on two draws with the same text may be copies


def without(tables: Tables) -> tuple[Tables, dict[str, int]]:
    """The tables with every trace once, and source -> copies that were left out."""
    found = of(tables)
    if not found:
        return tables, {}
    copy_N = among(tables.traces["key"], found)
    counts = tables.traces.loc[copy_N, "source"].value_counts()
    scores = tables.scores[~among(tables.scores["key"], found)] if len(tables.scores) else tables.scores
    return replace(tables, traces=tables.traces[~copy_N], scores=scores), {str(s): int(n) for s, n in counts.items()}


def of(tables: Tables) -> set[str]:
    """Keys of the copies, all but the first of each trace: of rows that bring their numbers and of scored ones.

    Looked for once, in the most traces that were asked about: parts of them, and variations without a token stream,
    have the same copies.
    """
    keys = set(tables.traces["key"])
    asked, found = tables.memo.get("copies", (set(), set()))
    if not keys <= asked:
        found = _found(tables)
        tables.memo["copies"] = keys, found
    return found & keys


def same_text(frame: pd.DataFrame) -> np.ndarray:
    """int [N]: one number for the rows of a source and problem with one text of at least LONG characters, a negative
    one of its own for every other row."""
    apart = -1 - np.arange(len(frame))
    if not {"response_hash", "characters"} <= set(frame):
        return apart
    text = frame["response_hash"]
    long = (text.notna() & (frame["characters"].fillna(0) >= LONG)).to_numpy(dtype=bool)
    by = ["source", "problem", text.astype("object").where(long, 0)]
    return np.where(long, frame.groupby(by, sort=False, dropna=False).ngroup().to_numpy(), apart)


def later(frame: pd.DataFrame) -> np.ndarray:
    """Which rows have a text of at least LONG characters that an earlier row of the source and problem has, bool [N].

    Of such rows nobody knows whether they were drawn: an outside holds both with them and without (`larger_p`).
    """
    return pd.Series(same_text(frame)).duplicated().to_numpy()


def larger_p(test: dict[str, Any], once: Mapping[str, Any] | None) -> dict[str, Any]:
    """p and factor of a test that holds with repeated texts and without: of the two readings those with the larger p.
    once: the test with each text once; p is 1 where it could not be made."""
    p = once["p"] if once is not None else float("nan")
    if p <= test["p"]:
        return {"p": test["p"], "factor": test["factor"]}
    return {"p": 1.0 if p != p else p, "factor": once["factor"] if once is not None else float("nan")}


def _found(tables: Tables) -> set[str]:
    found = (*brought.said(tables).values(), *brought.said_of_policies(tables).values())
    out = set().union(*(told.copies for told in found))
    alike = _alike(tables)
    if alike.empty:
        return out
    parts = tables.tokens(str(tables.base), ["token"])
    parts = (part[among(part["key"], set(alike["key"]))] for part in parts)
    token = {k: t.tobytes() for part in parts for k, t in zip(part["key"], part["token"], strict=True)}
    alike = alike.assign(token=alike["key"].map(token)).dropna(subset="token")
    return out | set(alike.loc[alike.duplicated([*GROUP, "token"]), "key"])


def _alike(tables: Tables) -> pd.DataFrame:
    """Scored traces below REPEATED under their own law with a text, or where texts are not known a length and a
    log-prob, that another of their source has too: columns key and GROUP."""
    if tables.base is None or tables.scores.empty:
        return pd.DataFrame(columns=["key", *GROUP])
    scores, found = tables.scores, []
    for source in tables.sources:
        model = tables.policies.get(source, tables.base if source == tables.reference else None)
        mine = scores[(scores["model"] == model) & (scores["source"] == source)]
        sampled = mine.get("logprob_s", mine["logprob"]).fillna(mine["logprob"]).astype(float)
        drawn = np.isfinite(sampled) & (sampled < REPEATED)  # what its law could never draw says nothing of repeats
        found.append(mine.loc[drawn, ["key", *GROUP, "n_tokens", "logprob"]])
    known = tables.traces.reindex(columns=["key", "response_hash"])  # tables made by hand may hold none
    rare = pd.concat(found).merge(known, on="key")
    about = pd.Series(list(zip(rare["n_tokens"], rare["logprob"].astype(float).round(2), strict=True)), rare.index)
    same = rare["response_hash"].astype(object).where(rare["response_hash"].notna(), about)
    rare = rare.assign(same=pd.factorize(same)[0], step=rare["step"].astype(object).where(rare["step"].notna(), -1))
    return rare.loc[rare.duplicated([*GROUP, "same"], keep=False), ["key", *GROUP]]
