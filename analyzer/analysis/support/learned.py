"""The learned bets of `stats/learned.py` for the sources whose own law is not known: from a run to log e of each trace.

A trace is judged by what was learned from the other half of the prompts, from draws with another number among their
problem's draws (modulo 4): a prompt that stands in a data set twice, copies, and one seed for all requests then make no
evidence. (One seed does where rows were dropped and the rest renumbered: no dump shows which seed a row had.) So a
source needs two prompts and two draws of some of them. What judges one half of the prompts depends on nothing that was
drawn for them, so that within a half the e-values are independent.

A trace's first token and its end token gain nothing: they tell how a dump was written. Texts are stripped of the space
or line that the base begins with and cut anywhere before an end token is appended; draws of the base, from ids on one
side and from texts on the other, would be told apart by them alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.excerpts import Place, cut
from analyzer.analysis.data.tables import hottest
from analyzer.records import Tables
from analyzer.stats import evalue
from analyzer.stats import learned as bets

NUMBERS = 4  # draws whose numbers are equal modulo this one don't judge each other
LESSON = 1 << 17  # tokens learned from, of one class in one half of a source
AT_ONCE = 8  # sources in two passes over the tokens; what is held of each takes up to 60 MB
CLEAR = 1.0  # nats that a token gains to be named
WORDS = 8  # tokens of each source in the table
NAMED = 0.03  # share of the gain from which on a token is named in a sentence
COLUMNS = ["source", "text", "n", "gain", "share", "traces"]
ENDS = -2  # in the place of an offset: where the response ends


class Learned(NamedTuple):
    """by_key: log_e (nats) and half (of the prompts, 0 or 1) of the traces that could be judged. words: COLUMNS, the
    tokens that gain most: text, how often, gain (nats per trace), share of what all tokens gain that gain more than
    CLEAR, over so many traces."""

    by_key: pd.DataFrame
    words: pd.DataFrame


def of(tables: Tables, sources: Collection[str]) -> Learned:
    """What could be learned of these sources. Made once for a run: a variation with fewer traces reads the same."""
    held: dict[str, Learned] = tables.memo.setdefault("learned", {})
    alike: dict[float, list[str]] = defaultdict(list)  # held against one null
    for source in [s for s in sources if s not in held] if tables.base is not None else ():
        alike[evalue.null_exponent(hottest(tables.samplers, tables.reference, source))].append(source)
    for a, fresh in alike.items():
        for i in range(0, len(fresh), AT_ONCE):
            held |= _of(tables, fresh[i : i + AT_ONCE], a)
    known = [held[s] for s in sources if s in held]
    if not known:
        return Learned(pd.DataFrame(columns=["log_e", "half"]), pd.DataFrame(columns=COLUMNS))
    return Learned(pd.concat([x.by_key for x in known]), pd.concat([x.words for x in known], ignore_index=True))


def said(words: pd.DataFrame, source: str) -> str:
    """What gains most, for a sentence: "' Und' 34%, '\\r' 8%"; "" for nothing. Blanks too: a dump may add them."""
    mine = words[(words["source"] == source) & (words["share"] >= NAMED) & (words["text"] != "")].head(4)
    return ", ".join(f"{text!r} {share:.0%}" for text, share in zip(mine["text"], mine["share"], strict=True))


def mixed(log_e_N: np.ndarray, learned_N: np.ndarray) -> np.ndarray:
    """log of the mean of the two e-values (nats); the first alone where the second is not known."""
    known_N, out_N = ~np.isnan(learned_N), np.array(log_e_N, dtype=float)
    out_N[known_N] = np.logaddexp(out_N[known_N], learned_N[known_N]) - math.log(2)
    return out_N


def _of(tables: Tables, sources: list[str], a: float) -> dict[str, Learned]:
    rows = tables.scores[(tables.scores["model"] == tables.base) & tables.scores["source"].isin(sources)]
    rows = rows[rows["n_tokens"] > 0]
    cells = {key: cell for i, s in enumerate(sources) for key, cell in _cells(rows[rows["source"] == s], 2 * i).items()}
    taught = {} if math.isnan(a) else _taught(tables, rows, cells, a)
    judged = [key for key, cell in cells.items() if cell in taught]
    log_e, gains = pd.Series(math.nan, index=judged, dtype=float), []
    for keys, lengths_N, flat in _parts(tables, judged, a, "offset") if judged else ():
        gain_T, ends = np.empty(len(flat["token"])), lengths_N.cumsum()
        cell_N = np.array([cells[key] for key in keys])
        for cell in np.unique(cell_N).tolist():
            mine_T = np.repeat(cell_N == cell, lengths_N)
            parts = flat["token"][mine_T], lengths_N[cell_N == cell], flat["log_bound"][mine_T]
            gain_T[mine_T] = bets.log_factors(taught[cell], *parts)
        log_e[keys] = np.add.reduceat(gain_T, ends - lengths_N)
        gains.append(_gains(keys, cell_N // NUMBERS // 2, ends, flat, gain_T))
    log_e = log_e.dropna()
    half_N = np.array([cells[key] // NUMBERS for key in log_e.index], int)
    by_key, words = pd.DataFrame({"log_e": log_e, "half": half_N % 2}), _words(tables, gains)
    out = {}
    for i, source in enumerate(sources):
        mine, own = by_key[half_N // 2 == i], words[words["number"] == i]
        own = own.assign(source=source, gain=own["gain"] / max(1, len(mine)), traces=len(mine))
        out[source] = Learned(mine, own[COLUMNS])
    return out


def _cells(rows: pd.DataFrame, first: int) -> dict[str, int]:
    """key -> NUMBERS * (half of the prompts, first or first + 1) + the rank of the draw's number modulo NUMBERS, of the
    rows of one source; first: an even number of its own."""
    prompt = rows["prompt_hash"] if "prompt_hash" in rows else rows["problem"]  # tables made by hand may have none
    half_N, number_N = (pd.factorize(c, sort=True)[0] for c in (prompt, rows["sample"]))
    return dict(zip(rows["key"], (NUMBERS * (first + half_N % 2) + number_N % NUMBERS).tolist(), strict=True))


def _taught(tables: Tables, rows: pd.DataFrame, cells: dict[str, int], a: float) -> dict[int, bets.Bets]:
    """cell -> what the cells of the other half with other numbers teach; cells that none teaches are left out."""
    lessons: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for keys, lengths_N, flat in _parts(tables, _lesson(rows, cells), a):
        ends = lengths_N.cumsum()
        for key, begin, end in zip(keys, ends - lengths_N, ends, strict=True):
            lessons[cells[key]].append((flat["token"][begin:end], flat["log_bound"][begin:end]))
    out = {}
    for cell in sorted(set(cells.values())):
        half, number = divmod(cell, NUMBERS)
        others = [m + NUMBERS * (half ^ 1) for m in range(NUMBERS) if m != number]
        some = [trace for other in others for trace in lessons.get(other, ())]
        if some:
            token, bound = map(np.concatenate, zip(*some, strict=True))
            out[cell] = bets.learn(token, np.array([len(trace) for trace, _ in some]), bound)
    return out


def _lesson(rows: pd.DataFrame, cells: dict[str, int]) -> list[str]:
    """The keys learned from: in an order of their own (not that of the run), until LESSON is full in a cell."""
    order = pd.util.hash_array(rows["key"].to_numpy(dtype=object))
    rows = rows.assign(order=order, cell=rows["key"].map(cells)).sort_values("order")
    before = rows.groupby("cell")["n_tokens"].cumsum() - rows["n_tokens"]
    return rows.loc[before < LESSON, "key"].tolist()


def _parts(
    tables: Tables, keys: Collection[str], a: float, *more: str
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """(keys [N], lengths [N], columns end to end [T]) part by part, of the traces among `keys` whose numbers are known:
    token, log_bound (infinite where nothing shall be won), and `offset` where it is asked for (-1: unknown)."""
    wanted, used = set(keys), bets.needed(a)
    ends = list(tables.engines.get(tables.base or "", {}).get("eos_ids") or ())
    for part in tables.tokens(tables.base or "", [*used, *more]):
        part = part[[key in wanted for key in part["key"]]]
        whole = [all(x is not None and len(x) for x in row) for row in zip(*(part[c] for c in used), strict=True)]
        if not any(whole):
            continue
        part = part[whole]
        lengths_N = part["token"].map(len).to_numpy()
        columns = {c: np.concatenate(part[c].to_list()) for c in used}
        flat = {"token": columns["token"], "log_bound": bets.log_bound(columns, a)}
        flat["log_bound"][np.isin(flat["token"], ends)] = math.inf
        flat["log_bound"][lengths_N.cumsum() - lengths_N] = math.inf
        for c in more:
            held = zip(part[c], lengths_N, strict=True)
            flat[c] = np.concatenate([np.full(n, -1) if x is None else x for x, n in held])
        yield part["key"].to_numpy(dtype=object), lengths_N, flat


def _gains(
    keys: np.ndarray, number_N: np.ndarray, ends: np.ndarray, flat: dict[str, np.ndarray], gain_T: np.ndarray
) -> pd.DataFrame:
    """number (of the source), token, n, gain (nats, summed) and the place of one, of the tokens that gain clearly."""
    at = np.flatnonzero(gain_T > CLEAR)
    frame = pd.DataFrame({"token": flat["token"][at], "gain": gain_T[at], "n": 1, "at": at})
    frame["number"] = number_N[np.searchsorted(ends, at, side="right")]
    found = frame.groupby(["number", "token"], as_index=False).agg({"gain": "sum", "n": "sum", "at": "first"})
    at = found.pop("at").to_numpy()
    owner = np.searchsorted(ends, at, side="right")
    next_T = np.append(flat["offset"][1:], ENDS)
    next_T[ends - 1] = ENDS
    return found.assign(key=keys[owner], begin=flat["offset"][at], end=next_T[at])


def _words(tables: Tables, gains: list[pd.DataFrame]) -> pd.DataFrame:
    """number (of the source), text, n, gain (nats, summed) and share of the WORDS tokens of each source that gain most;
    one pass over the texts."""
    if not gains:
        return pd.DataFrame(columns=["number", "text", "n", "gain", "share"])
    how = {"gain": "sum", "n": "sum", "key": "first", "begin": "first", "end": "first"}
    frame = pd.concat(gains, ignore_index=True).groupby(["number", "token"], as_index=False).agg(how)
    frame["share"] = frame["gain"] / frame.groupby("number")["gain"].transform("sum")
    frame = frame.sort_values("gain", ascending=False, kind="stable").groupby("number").head(WORDS)
    frame = frame.reset_index(drop=True)
    sizes = tables.traces.set_index("key")["characters"].fillna(0)
    last = frame["end"] == ENDS
    frame.loc[last, "end"] = sizes.reindex(frame.loc[last, "key"]).to_numpy(int)
    places = zip(frame["key"], frame["begin"].tolist(), frame["end"].tolist(), strict=True)
    return frame.assign(text=cut(tables, [Place(*row) for row in places]))
