"""The places where a source takes a step that the base would not take within the budget, with the text that stands
there: what to look at, and what kind of token carries them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from analyzer.analysis.data.excerpts import cut, place
from analyzer.analysis.data.summaries import among
from analyzer.analysis.support import laws
from analyzer.analysis.support.local import DECILES, OPENING, Local
from analyzer.records import Tables
from analyzer.stats import spans

KINDS = ("opening", "format", "number", "operator", "connective", "other", "unknown")
CONTEXT = 40  # characters of the response before a place
STRETCHES = 50  # listed per source
CONNECTIVES = frozenset([
    "so", "then", "thus", "hence", "therefore", "because", "since", "but", "however", "although", "though", "wait",
    "now", "next", "first", "second", "third", "finally", "also", "and", "or", "if", "when", "while", "let",
    "suppose", "assume", "note", "recall", "alternatively", "instead", "actually", "hmm", "well", "okay", "ok",
    "yes", "no", "maybe", "perhaps", "check", "verify", "again",
])  # fmt: skip
COLUMNS = ["source", "key", "problem", "position", "tokens", "text", "kind", "nats", "log_q", "log_p", "rank"]
COLUMNS += ["likelier", "before", "correct"]
KIND_COLUMNS = ["source", "by", "name", "hurdles", "share", "example"]
STRETCH_COLUMNS = ["source", "key", "problem", "position", "tokens", "nats", "text", "correct"]


def kind(text: str, position: int) -> str:
    """The kind of a token by its text: opening (the first OPENING tokens), format (no letters, digits or operators:
    white space, punctuation, markup, special tokens), number, operator, connective, other; unknown without a text."""
    if position < OPENING:
        return "opening"
    if not text:
        return "unknown"
    bare = text.strip()
    if re.search(r"\d", bare):
        return "number"
    if bare and not re.search(r"\w", bare) and re.search(r"[-+*/=<>^%×÷·±≤≥≠√∑∫]", bare) and "**" not in bare:
        return "operator"
    if re.search(r"\\(times|div|cdot|frac|pm|sqrt|le|ge|ne)\b", bare):
        return "operator"
    if not re.search(r"\w", bare) or bare.startswith(("\\", "<|", "</", "<")):
        return "format"
    return "connective" if bare.lower() in CONNECTIVES else "other"


def tables_of(tables: Tables, local: Local, sources: list[str], keys: Collection[str]) -> dict[str, pd.DataFrame]:
    """Tables `hurdles` (places, the largest first; up to three of a trace), `hurdle_kinds` (share of the expected
    hurdles by kind of token and by tenth of the trace) and `stretches`, of the traces in `keys`. One pass over the
    base's columns for what stands at the places, one over the texts."""
    spots = local.spots[local.spots["source"].isin(sources) & among(local.spots["key"], keys)]
    carriers = local.carriers[local.carriers["source"].isin(sources)]
    long = _stretches(local, sources)
    wanted: dict[str, set[int]] = {}
    for frame in (spots, carriers, long):
        for key, at in zip(frame["key"], frame["at"], strict=True):
            wanted.setdefault(key, set()).add(int(at))
    seen = _looked_up(tables, wanted)
    sizes = dict(zip(tables.traces["key"], tables.traces["characters"], strict=True))
    correct = dict(zip(tables.traces["key"], tables.traces["correct"], strict=True))

    def places(frame: pd.DataFrame, widths: list[int]) -> list[Any]:
        out = []
        for key, at, width in zip(frame["key"], frame["at"], widths, strict=True):
            size = sizes.get(key)
            mine = seen.get(key, {})
            size = None if pd.isna(size) or int(at) not in mine else int(size)
            out.append(None if size is None else place(key, size, mine["offset"], mine[int(at)]["index"], width))
        return out

    ones = [places(frame, [1] * len(frame)) for frame in (spots, carriers)]
    runs = places(long, long["tokens"].tolist())
    before = [None if p is None else p._replace(begin=max(0, p.begin - CONTEXT), end=p.begin) for p in ones[0]]
    others = _others(seen, sizes)
    texts = cut(tables, [*ones[0], *ones[1], *runs, *before, *others.values()])
    cuts = np.cumsum([0, len(spots), len(carriers), len(long), len(spots), len(others)])
    text = [texts[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    pairs = [*zip(others, text[4]), *zip(spots["token"], text[0]), *zip(carriers["token"], text[1])]
    names = {int(token): shown for token, shown in pairs if shown}
    rows = []
    for r, shown, prior in zip(spots.itertuples(), text[0], text[3], strict=True):
        known = seen.get(r.key, {}).get(int(r.at), {})
        likelier = "; ".join(f"{names.get(i, f'#{i}')!r} {np.exp(v):.2g}" for i, v in known.get("top", ()))
        rows.append(
            {
                "source": r.source, "key": r.key, "problem": r.problem, "position": int(r.at), "tokens": int(r.width),
                "text": shown or names.get(r.token, f"#{r.token}"), "kind": kind(shown, int(r.at)), "nats": r.l,
                "log_q": r.log_q, "log_p": r.log_p, "rank": known.get("rank", np.nan), "likelier": likelier,
                "before": prior, "correct": correct.get(r.key),
            }
        )  # fmt: skip
    out = {"hurdles": pd.DataFrame(rows, columns=COLUMNS)}
    out["hurdle_kinds"] = _kinds(local, carriers, text[1], sources)
    stretches = [
        {"source": r.source, "key": r.key, "problem": r.problem, "position": int(r.at), "tokens": int(r.tokens),
         "nats": r.nats, "text": shown, "correct": correct.get(r.key)}
        for r, shown in zip(long.itertuples(), text[2], strict=True)
    ]  # fmt: skip
    return out | {"stretches": pd.DataFrame(stretches, columns=STRETCH_COLUMNS)}


def _stretches(local: Local, sources: list[str]) -> pd.DataFrame:
    """Stretches beyond the budget at every law, the largest of each trace, at most STRETCHES per source."""
    f = local.frame
    if not len(f):
        return pd.DataFrame(columns=["source", "key", "problem", "at", "tokens", "nats"])
    f = f[f["source"].isin(sources) & (f["stretch"] > np.log(local.budget))]
    f = f.sort_values(["stretch", "key"], ascending=[False, True], kind="stable").groupby("source").head(STRETCHES)
    tokens = np.minimum(f["n"], spans.STRETCH)
    return pd.DataFrame(
        {"source": f["source"], "key": f["key"], "problem": f["problem"], "at": f["stretch_at"], "tokens": tokens,
         "nats": f["stretch"]}
    ).reset_index(drop=True)  # fmt: skip


def _looked_up(tables: Tables, wanted: dict[str, set[int]]) -> dict[str, dict[Any, Any]]:
    """key -> {"token": ids, "offset": offsets, position: {"index", "rank", "top": [(id, log-prob)]}} from the base's
    scorer. index: of the position among the tokens that are scored, which lack those that the policy did not write;
    positions of traces that bring their own numbers count these too. Positions that are not scored are left out."""
    out: dict[str, dict[Any, Any]] = {}
    if tables.base is None or not wanted:
        return out
    names = ["token", "offset", "rank", "top_position", "top_token", "top_logprob"]
    masks = _masks(tables, wanted)
    for part in tables.tokens(tables.base, names):
        part = part[among(part["key"], wanted)]
        for key, token, offset, rank, at, ids, values in zip(part["key"], *(part[n] for n in names), strict=True):
            mine: dict[Any, Any] = {"offset": offset, "token": token}
            tops = {} if at is None else {int(p): (i, v) for p, i, v in zip(at, ids, values, strict=True)}
            own = masks.get(key)
            left_out = own is not None and len(token) == own.sum()
            for position in wanted[key]:
                index = int(own[:position].sum()) if left_out else position
                if index >= len(token) or (left_out and not own[position]):
                    continue
                found = tops.get(index, ((), ()))
                top = list(zip(map(int, found[0]), map(float, found[1]), strict=True))
                known = None if rank is None else int(rank[index])
                mine[position] = {"index": index, "rank": known, "top": top[:3]}
            out[key] = mine
    return out


def _masks(tables: Tables, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """key -> which tokens the policy wrote, of the traces whose own numbers are used and of which it wrote not all."""
    sources = {s for s, k in laws.known(tables).items() if k.brought}
    out: dict[str, np.ndarray] = {}
    for frame in tables.numbers() if sources else ():
        mine = frame[frame["source"].isin(sources) & among(frame["key"], wanted)]
        out |= {key: own for key, own in zip(mine["key"], mine["written"], strict=True) if own is not None}
    return out


def _others(seen: dict[str, dict[Any, Any]], sizes: dict[str, Any]) -> dict[int, Any]:
    """Likelier token -> a place where it stands in one of the traces looked up, as far as there is one."""
    wanted = {i for mine in seen.values() for at in mine.values() if isinstance(at, dict) for i, _ in at["top"]}
    out: dict[int, Any] = {}
    for key, mine in seen.items():
        size, ids = sizes.get(key), mine["token"]
        if size is None or pd.isna(size) or mine["offset"] is None:
            continue
        for at in np.flatnonzero(np.isin(ids, list(wanted - set(out)))).tolist():
            out.setdefault(int(ids[at]), place(key, int(size), mine["offset"], at, 1))
    return out


def _kinds(local: Local, carriers: pd.DataFrame, texts: list[str], sources: list[str]) -> pd.DataFrame:
    """Rows by = "kind" and by = "tenth" of each source, at the span that finds more hurdles."""
    rows = []
    frame = carriers.assign(text=texts)
    frame["kind"] = [kind(t, int(at)) for t, at in zip(frame["text"], frame["at"], strict=True)]
    for source in sources:
        mine = frame[frame["source"] == source]
        if not len(mine):
            continue
        width = mine.groupby("width")["weight"].sum().idxmax()
        mine = mine[mine["width"] == width]
        total = mine["weight"].sum()
        for name in KINDS:
            part = mine[mine["kind"] == name].sort_values("weight", ascending=False)
            if len(part):
                weight = float(part["weight"].sum())
                example = ", ".join(repr(t) for t in dict.fromkeys(part["text"].head(5)) if t)
                row = {"source": source, "by": "kind", "name": name, "hurdles": weight, "share": weight / total}
                rows.append(row | {"example": example})
        tenths = local.deciles[source, int(width)]
        for i in range(DECILES):
            row = {"source": source, "by": "tenth", "name": str(i + 1), "hurdles": float(tenths[i])}
            rows.append(row | {"share": float(tenths[i] / tenths.sum()), "example": ""})
    return pd.DataFrame(rows, columns=KIND_COLUMNS)


def carried(kinds: pd.DataFrame, source: str) -> str:
    """ "number 61 % ('17', '12'), operator 30 % ('*')", or ""."""
    mine = kinds[(kinds["source"] == source) & (kinds["by"] == "kind")] if len(kinds) else kinds
    if not len(mine):
        return ""
    best = mine.sort_values("share", ascending=False).head(3).to_dict("records")
    parts = [f"{r['name']} {r['share']:.0%}" + (f" ({r['example']})" if r["example"] else "") for r in best]
    return ", ".join(p for p, r in zip(parts, best, strict=True) if r["share"] >= 0.05)
