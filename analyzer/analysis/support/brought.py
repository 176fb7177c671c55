"""What the rows say that bring their own log-probs: how they were drawn, which laws of the base they hold, which token
ends them. No model is asked; what rows do not say is not assumed where they say anything else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.data.tables import GREEDY, OTHER, PARTIAL
from analyzer.analysis.support import membership
from analyzer.records import Sampler, Tables

REPEATED = -14.0  # log-prob of a trace that a second draw repeats once in a million times
SAME = 1e-5  # relative: two temperatures are one


class Said(NamedTuple):
    """What the rows of a source say (those of its last step, with at least one token that the policy wrote).

    temperatures: of their own log-probs, None where it is not said. stated: how they were drawn, in words ("" where
    nothing is said). laws: temperature -> rows with log-probs under the base at it. lacking: law -> the first
    row without, of those that some row has. zero: the list that is 0 in every token, or "". copies: keys of traces that
    repeat another token by token, though no draw would (REPEATED): they are no draws (`copies`).
    """

    temperatures: frozenset[float | None]
    stated: frozenset[str] = frozenset([""])
    laws: dict[Any, int] = {}
    rows: int = 0
    lacking: dict[Any, str] = {}
    zero: str = ""
    copies: frozenset[str] = frozenset()


class Ends(NamedTuple):
    """The ids that end a trace, and of how many traces that ended by themselves they close how many, whose. unsure:
    source -> share of its traces that were not cut whose last token is held to be their end though it is none of the
    ids."""

    ids: frozenset[int]
    closed: int = 0
    total: int = 0
    whose: str = ""
    unsure: Mapping[str, float] = {}


def near(temperature: float, among: Iterable[float]) -> float | None:
    """The one of these temperatures that is the same number, through whatever precision it went."""
    return next((t for t in among if math.isclose(t, temperature, rel_tol=SAME)), None)


def said(tables: Tables) -> dict[str, Said]:
    """Source -> what its rows say, of the sources whose rows bring both log-probs; made once."""
    return _once(tables, "base_logprobs", tables.numbers)


def said_of_policies(tables: Tables) -> dict[str, Said]:
    """The same of rows that bring log-probs under the policies of other sources; a law is (source, temperature)."""
    return _once(tables, "policy_logprobs", tables.policy_numbers)


def _once(tables: Tables, beside: str, numbers: Callable[[], Iterator[pd.DataFrame]]) -> dict[str, Said]:
    name = f"said beside {beside}"
    if name not in tables.memo:
        keys: set[str] = set()
        found: dict[str, list[pd.DataFrame]] = {}
        drawn: set[tuple[str, ...]] = set()
        for frame in numbers():
            keys = keys or set(last_steps(tables.traces)["key"])
            mine = frame[among(frame["key"], keys)]
            mine = pd.DataFrame({name: mine[name] for name in ("key", "source", "logprobs_temperature")}).assign(
                stated=mine.get("stated", ""),
                laws=[tuple(held) for held in mine["laws"]],
                judged=[judged(token, own) for token, own in zip(mine["token"], mine["written"], strict=True)],
                copy=_copies(mine, drawn),
                zero_q=[not np.any(q) for q in mine["logprob_q"]],
                zero_p=[not any(map(np.any, held.values())) for held in mine["laws"]],
            )
            for source, rows in mine.groupby("source", sort=False):
                found.setdefault(str(source), []).append(rows)
        tables.memo[name] = {source: _said(pd.concat(parts), beside) for source, parts in found.items()}
    return tables.memo[name]


def _said(rows: pd.DataFrame, beside: str) -> Said:
    told = frozenset(None if math.isnan(t) else float(t) for t in rows["logprobs_temperature"].unique())
    stated, rows = frozenset(rows["stated"]), rows[rows["judged"] > 0]
    laws = Counter(t for held in rows["laws"] for t in held)
    short = {t: next(k for k, held in zip(rows["key"], rows["laws"], strict=True) if t not in held)
             for t, n in laws.items() if n < len(rows)}  # fmt: skip
    zero = ""
    if len(rows):
        zero = "response_logprobs" if rows["zero_q"].all() else beside if rows["zero_p"].all() else ""
    return Said(told, stated, dict(laws), len(rows), short, zero, frozenset(rows.loc[rows["copy"], "key"]))


def _copies(rows: pd.DataFrame, drawn: set[tuple[str, ...]]) -> list[bool]:
    """Whether each trace was there before, token for token, though too improbable to be drawn twice. Its numbers may
    differ in a digit (another batch, another way to write them), and so may its problem's name. Adds to `drawn`."""
    out = []
    for source, token, q in zip(rows["source"], rows["token"], rows["logprob_q"], strict=True):
        own = (source, blake2b(token.tobytes(), digest_size=16).hexdigest())
        out.append(own in drawn and float(np.nansum(q)) < REPEATED)
        drawn.add(own)
    return out


def judged(token: np.ndarray, written: np.ndarray | None) -> int:
    """How many tokens the policy wrote."""
    return len(token) if written is None else int(np.sum(written))


def why_not(told: Said, sampler: Sampler | None, source: str) -> tuple[str, str]:
    """Why the log-probs that rows bring are not those of the law that drew them, and what would mend it; "" and ""
    where they are. sampler: the one declared for the source, or assumed."""
    known = sorted(t for t in told.temperatures if t is not None)
    if not told.rows:
        return f"no row of {source} has a token that its policy wrote", "rows whose response_mask is 1 somewhere"
    if told.zero:
        what = f"{told.zero} of {source} are 0 in every token, which no model says"
        return what, f"the log-probs themselves in {told.zero} (zeros look like padding)"
    if other := sorted(words for words in told.stated if words.endswith(OTHER)):
        why = f"the rows of {source} state {other[0]}, so that its log-probs are not those of the law that drew it"
        return why, f"response_logprobs of {source} after that setting, without it in the rows; or draws without it"
    if sampler is None:
        return _no_sampler(told, known, source)
    cut = sampler.top_p < 1 or sampler.top_k or sampler.min_p
    wrong = known if cut else [t for t in known if near(t, [sampler.temperature]) is None]
    if not wrong:  # a row that does not say has them with the sampler
        return "", ""
    drawn = membership.words(sampler)
    under = f"response_logprobs of {source} under the sampler that drew it ({drawn})"
    needs = f"{under}: after its temperature and truncation, with logprobs_temperature left out"
    needs += ", or --base MODEL and --policy (no row can bring the base's law under a truncation)" if cut else ""
    if len(known) > 1:
        return f"the log-probs of {source} are at several temperatures: {_listed(known)}", needs
    why = f"the log-probs of {source} are at temperature {known[0]:g} without truncation, its traces were drawn with"
    return f"{why} {drawn}: no log q", needs


def _no_sampler(told: Said, known: list[float], source: str) -> tuple[str, str]:
    """Where no sampler is declared and none may be assumed."""
    stated = sorted(told.stated - {""})
    apart = "the rows of each under a label of their own (LABEL=FILE)"
    if GREEDY in stated:
        why = f"{source} was drawn at {GREEDY} (greedily): the likeliest tokens are no draws of a law, so no log q"
        return why, f"{source} drawn again with a temperature above 0"
    if len(stated) == 1 and stated[0].endswith(PARTIAL):
        why = f"the rows of {source} state {stated[0]}, so that its sampler is not known"
        if not known:
            return why, f"--sampler {source}=T[,top_p[,top_k[,min_p]]], under which its log-probs were taken"
        return why, (
            f"the sampler whole (--sampler {source}=T[,top_p[,top_k[,min_p]]]), and response_logprobs under it: after "
            "its temperature and truncation, with logprobs_temperature left out"
        )
    if len(stated) > 1:
        why = f"the rows of {source} state several samplers ({'; '.join(stated)}): no one law drew them"
        return why, f"{apart}, with response_logprobs under that sampler"
    if stated:
        why = f"only some rows of {source} state a sampler ({stated[0]})"
        return why, f"the sampler in every row, or --sampler {source}=T[,top_p[,top_k[,min_p]]] if one drew all of them"
    if len(known) > 1:
        why = f"the log-probs of {source} are at several temperatures ({_listed(known)}), and no sampler is declared"
        return why, f"{apart}, each with its --sampler LABEL=T"
    if known:
        why = f"the log-probs of {source} are at {known[0]:g} in some rows and at an unknown temperature in others"
        return why, f"logprobs_temperature in every row, or --sampler {source}={known[0]:g} if that drew all of them"
    return membership.unknown(source), f"--sampler {source}=T[,top_p[,top_k[,min_p]]]"


def _listed(temperatures: Iterable[float]) -> str:
    return ", ".join(f"{t:g}" for t in temperatures)


def lacking(told: Said) -> str:
    """Which temperatures only some of the rows have, in words; "" where all rows have the same ones."""
    groups: dict[tuple[int, str], list[float]] = {}
    for t in sorted(told.lacking, reverse=True):
        groups.setdefault((told.laws[t], told.lacking[t]), []).append(t)
    parts = (
        f"T={_listed(group)} in {n:,} of {told.rows:,} rows ({key} is one without)"
        for (n, key), group in groups.items()
    )
    return "; ".join(parts)


def ends(tables: Tables) -> Ends:
    """The end token of rows that bring their own numbers, which no model names: an id that closes at least half of the
    reference's traces that ended by themselves (of the other sources' where it brings none), and closes traces more
    often than it stands inside one. Masked tokens stand nowhere. Without one, the last token of a trace that was not
    cut may be its end, and is no step (`ended`)."""
    if "ends" not in tables.memo:
        last: dict[str, dict[str, Counter[int]]] = {}
        closing: Counter[int] = Counter()
        inside: Counter[int] = Counter()
        for frame in tables.numbers():
            masks = frame["written"] if "written" in frame else [None] * len(frame)
            for source, token, finish, own in zip(frame["source"], frame["token"], frame["finish"], masks, strict=True):
                token = token if own is None else token[own]
                if len(token) == 0:
                    continue
                cut = finish == "length"
                ids, n = np.unique(token if cut else token[:-1], return_counts=True)
                inside.update(dict(zip(ids.tolist(), n.tolist(), strict=True)))
                if not cut:
                    closing[int(token[-1])] += 1
                    finish = finish if finish == "stop" else ""
                    last.setdefault(source, {}).setdefault(finish, Counter())[int(token[-1])] += 1
        sources = [tables.reference] if tables.reference in last else list(last)
        found: list[Ends] = []
        for source in sources:
            held = last[source].get("stop") or last[source][""]  # what is said to have stopped tells more
            total = held.total()
            ids = frozenset(t for t, n in held.items() if 2 * n >= total and closing[t] > inside[t])
            if ids:
                found.append(Ends(ids, sum(held[t] for t in ids), total, source))
        whole = frozenset().union(*(e.ids for e in found))
        counts = (sum(e.closed for e in found), sum(e.total for e in found), ", ".join(e.whose for e in found))
        unsure = {
            source: sum(
                n
                for finish, held in by_finish.items()
                for token, n in held.items()
                if token not in whole and (finish or not whole)  # as `ended`
            )
            / sum(held.total() for held in by_finish.values())
            for source, by_finish in last.items()
        }
        tables.memo["ends"] = Ends(whole, *counts, unsure)
    return tables.memo["ends"]


def ended(last_N: np.ndarray, finish_N: np.ndarray, found: Ends) -> np.ndarray:
    """Whether the last token of each trace is its end, bool [N]: an end token; whatever it is where the row says that
    the trace stopped; where no end token is known, of every trace that is not said to be cut."""
    stopped_N, cut_N = finish_N == "stop", finish_N == "length"
    return np.isin(last_N, list(found.ids)) | stopped_N | (~cut_N if not found.ids else False)


def said_of_ends(found: Ends) -> str:
    """Which end token was taken, in words."""
    if not found.ids:
        return (
            "No end token was found in the rows that bring their numbers: the last token of a trace that is not said "
            "to be cut may be its end and is no step"
        )
    ids = ", ".join(map(str, sorted(found.ids)))
    return (
        f"End token of the rows that bring their numbers: {ids}, which closes {found.closed:,} of the {found.total:,} "
        f"traces of {found.whose} that ended by themselves; where a row says stop, its last token is its end"
    )
