"""Which tokens make the flagged traces of `support` novel: kinds of token, single tokens, and the windows to look at.

log e of a trace is a sum over its tokens of d = (s - h) / 2 nats, so what lifts the flagged traces of a source above
the reference's traces of the same problems divides exactly among kinds of token. The kinds are of the text: number,
sign (operators, punctuation), word, special (no text: end of text and the like).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.excerpts import Place, cut
from analyzer.analysis.data.summaries import WINDOW, among
from analyzer.records import Tables

KINDS = ("number", "sign", "word", "special")
TOKENS = 12  # single tokens per source in the table
CONTEXT = 40  # characters of the response before a window
COLUMNS = ["source", "by", "kind", "text", "n", "n_reference", "excess", "share", "share_reference", "traces"]
ARRAYS = ("token", "logprob", "renyi_half", "offset")
WINDOW_COLUMNS = ["source", "key", "problem", "position", "log_e", "text", "before", "correct"]


def kind(text: str) -> str:
    """number, sign, word or special, by the characters of a token's text."""
    text = text.strip()
    if not text:
        return "special"
    return "number" if any(map(str.isdigit, text)) else "word" if any(map(str.isalpha, text)) else "sign"


def tables_of(
    tables: Tables, flagged: dict[str, Collection[str]], reference: Collection[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(flagged_tokens, flagged_windows) of the flagged keys by source, against the reference's keys.

    flagged_tokens: rows by = "kind" and by = "token" (the TOKENS that carry most); `excess` is the log e (nats per
    flagged trace) beyond the reference's mean trace of the same problem, `share` its part of the whole excess; n and
    n_reference count tokens; `share_reference` is the part in all tokens of the reference there. flagged_windows: every
    flagged trace, with its stretch of 8 tokens of the largest log e; the largest first, one trace for each text of a
    stretch, then the traces that repeat one, then those without token scores; sources take turns.
    One pass over the base scorer's tokens, one over the texts.
    """
    owner = {key: source for source, keys in flagged.items() for key in keys}
    if tables.base is None or not owner:
        return pd.DataFrame(columns=COLUMNS), pd.DataFrame(columns=WINDOW_COLUMNS)
    traces = tables.traces.set_index("key")
    problems = set(traces.loc[list(owner), "problem"])
    own = [key for key in reference if traces.at[key, "problem"] in problems]
    wanted = {**dict.fromkeys(own, ""), **owner}
    sizes = traces["characters"].fillna(0).to_dict()
    first_at: dict[int, Place] = {}
    sums, windows, count = [], [], Counter()
    for part in tables.tokens(tables.base, list(ARRAYS)):
        part = part[among(part["key"], wanted)]
        found = []
        for row in part[["key", "problem", *ARRAYS]].itertuples(index=False):
            if any(getattr(row, name) is None for name in ARRAYS) or not len(row.token):
                continue
            d_T = 0.5 * (-np.asarray(row.logprob, float) - np.asarray(row.renyi_half, float))
            if not np.isfinite(d_T).all():
                continue
            source, offset_T = wanted[row.key], np.append(row.offset, sizes.get(row.key, 0))
            ids, first, inverse = np.unique(row.token, return_index=True, return_inverse=True)
            for token, i in zip(ids.tolist(), first.tolist(), strict=True):
                if token not in first_at:
                    first_at[token] = Place(row.key, *offset_T[i : i + 2].tolist())
            found.append((source, row.problem, ids, np.bincount(inverse, weights=d_T), np.bincount(inverse)))
            count[source, row.problem] += 1
            if source:
                windows.append(_window(source, row, d_T, offset_T))
        if found:
            sums.append(_added(found))
    texts = cut(tables, [*first_at.values(), *(row[c] for row in windows for c in ("text", "before"))])
    names = dict(zip(first_at, map(str.strip, texts)))
    shown = texts[len(first_at) :]
    windows = [
        row | {"text": text.strip(), "before": before}
        for row, text, before in zip(windows, shown[::2], shown[1::2], strict=True)
    ]
    unseen = set(owner) - {row["key"] for row in windows}
    blank = {"position": None, "log_e": np.nan, "text": "", "before": ""}
    windows += [
        {"source": owner[key], "key": key, "problem": traces.at[key, "problem"], **blank} for key in sorted(unseen)
    ]
    if not sums:
        return pd.DataFrame(columns=COLUMNS), _ranked(windows, flagged, traces["correct"])
    whole = pd.concat(sums).groupby(["source", "problem", "token"], as_index=False).sum()
    rows = [row for source in flagged for row in _carriers(source, whole, count, names)]
    return pd.DataFrame(rows, columns=COLUMNS), _ranked(windows, flagged, traces["correct"])


def _added(found: list[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """source, problem, token, sum (nats) and size (tokens) of one part: memory stays with kinds of token."""
    length = [len(row[2]) for row in found]
    frame = pd.DataFrame(
        {
            "source": np.repeat([row[0] for row in found], length),
            "problem": np.repeat([row[1] for row in found], length),
            "token": np.concatenate([row[2] for row in found]),
            "sum": np.concatenate([row[3] for row in found]),
            "size": np.concatenate([row[4] for row in found]),
        }
    )
    return frame.groupby(["source", "problem", "token"], as_index=False).sum()


def _carriers(source: str, sums: pd.DataFrame, count: Counter, names: dict[int, str]) -> list[dict[str, Any]]:
    """Rows of flagged_tokens of one source; problems without the reference are left out."""
    n_P = {p: n for (s, p), n in count.items() if s == source}
    m_P = {p: n for (s, p), n in count.items() if s == ""}
    shared = sorted(set(n_P) & set(m_P))
    total = sum(n_P[p] for p in shared)
    if not total:
        return []
    mine = sums[(sums["source"] == source) & sums["problem"].isin(shared)]
    ref = sums[(sums["source"] == "") & sums["problem"].isin(shared)]
    weight = ref["problem"].map({p: n_P[p] / m_P[p] for p in shared})
    frame = pd.DataFrame(
        {
            "d": mine.groupby("token")["sum"].sum(),
            "n": mine.groupby("token")["size"].sum(),
            "d_ref": (ref["sum"] * weight).groupby(ref["token"]).sum(),
            "n_reference": ref.groupby("token")["size"].sum(),
        }
    ).fillna(0.0)
    frame["text"] = [names.get(int(t), "") for t in frame.index]
    frame["kind"] = [kind(t) for t in frame["text"]]
    frame["excess"] = (frame["d"] - frame["d_ref"]) / total
    out = []
    for by, grouped in (("kind", frame.groupby("kind")), ("token", frame.groupby(["kind", "text"]))):
        found = grouped[["excess", "n", "n_reference"]].sum().sort_values("excess", ascending=False, kind="stable")
        whole, tokens = found["excess"].sum(), found["n_reference"].sum()
        for name, row in (found if by == "kind" else found.head(TOKENS)).iterrows():
            of_kind, text = (name, "") if by == "kind" else name
            out.append(
                {
                    "source": source,
                    "by": by,
                    "kind": of_kind,
                    "text": text,
                    "n": int(row["n"]),
                    "n_reference": int(row["n_reference"]),
                    "excess": row["excess"],
                    "share": row["excess"] / whole if whole > 0 else np.nan,
                    "share_reference": row["n_reference"] / tokens if tokens else np.nan,
                    "traces": total,
                }
            )
    return out


def _window(source: str, row: Any, d_T: np.ndarray, offset_T: np.ndarray) -> dict[str, Any]:
    """The stretch of WINDOW tokens with the largest log e; `text` and `before` are places."""
    width = min(WINDOW, len(d_T))
    total = np.concatenate([[0.0], d_T.cumsum()])
    sums = total[width:] - total[:-width]
    at = int(sums.argmax())
    begin, end = int(offset_T[at]), int(offset_T[at + width])
    out = {"source": source, "key": row.key, "problem": row.problem, "position": at, "log_e": float(sums[at])}
    return out | {"text": Place(row.key, begin, end), "before": Place(row.key, max(0, begin - CONTEXT), begin)}


def _ranked(windows: list[dict[str, Any]], sources: Collection[str], correct: pd.Series) -> pd.DataFrame:
    """flagged_windows in its order; sources take turns."""
    frame = pd.DataFrame(windows).sort_values(["log_e", "key"], ascending=[False, True], kind="stable")
    again = frame.duplicated(["source", "text"]) | frame["log_e"].isna()
    frame = frame.assign(again=again, correct=frame["key"].map(correct)).sort_values("again", kind="stable")
    turn, place = frame.groupby("source").cumcount(), frame["source"].map({s: i for i, s in enumerate(sources)})
    frame = frame.iloc[np.lexsort((place, turn))].astype({"position": "Int64"})
    return frame.reset_index(drop=True)[WINDOW_COLUMNS]


def carried(table: pd.DataFrame, source: str) -> tuple[str, str]:
    """(kind that carries most, "words 71 %, signs 20 % of the excess; most by 'times' 25 %, 'of' 9 %"), or ("", "")."""
    mine = table[(table["source"] == source) & table["share"].notna()] if len(table) else table
    kinds = mine[mine["by"] == "kind"] if len(mine) else mine
    if not len(kinds):
        return "", ""
    parts = [f"{r['kind']}s {r['share']:.0%} ({r['share_reference']:.0%} of tokens)" for r in kinds.to_dict("records")]
    tokens = mine[(mine["by"] == "token") & (mine["share"] >= 0.05)].head(3).to_dict("records")
    named = ", ".join(f"{r['text'] or 'end of text'!r} {r['share']:.0%}" for r in tokens)
    return str(kinds.iloc[0]["kind"]), ", ".join(parts[:3]) + (f"; most by {named}" if named else "")
