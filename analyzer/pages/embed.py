"""The traces inside the page: an index of all of them, and tokens in packs that the page decodes when asked for.

A pack is base64 of gzip of: the length of a JSON head (4 bytes, little-endian), the head in UTF-8, then the arrays that
the head names, each split into its bytes' planes (all low bytes first), which is what makes them small. Token numbers
are rounded to what a page shows: surprisal and entropy to 0.01 nats, probability mass to 1 / 65,000.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import last_steps
from analyzer.pages import vocabulary
from analyzer.records import Result, Tables

FOLDER_MB = 100.0  # beyond it traces are left out, and the page says which; making them takes ten times the memory
PACK_TOKENS, PACK_CHARACTERS = 60_000, 400_000  # decoded in some 10 ms
TOKEN_BYTES, CHARACTER_BYTES = 3.5, 0.4  # in base64, measured; decides only how many are embedded
COLUMNS = ("token", "offset", "logprob", "rank", "mass_above", "entropy", "top_position", "top_token", "top_logprob")
ASKED, ASKED_CHARACTERS = 5000, 100  # problems whose question stands in the index, and how much of it
NONE = 0xFFFFFFFF
UNKNOWN, ENDLESS = 65534, 65535  # codes of NaN and infinity


class Embedded(NamedTuple):
    """What the page gets: `index` (a pack), `packs` in order, and a sentence on which traces are in them."""

    index: str
    packs: list[str]
    note: str


def build(
    tables: Tables,
    results: Mapping[str, Result],
    looks: Mapping[str, Mapping[str, Any]],
    *,
    megabytes: float = FOLDER_MB,
) -> Embedded:
    """Pack the traces of `tables` for the page; `looks` gives each source's colour and marker, in the page's order.

    Of a run whose traces would take more than `megabytes`, those that an analysis points at come first, then equally
    many samples of every source and problem. Without a base model traces are embedded as text alone.
    """
    frame = _frame(tables, results, list(looks))
    chosen, note = _choose(frame, tables.base, megabytes * 1e6)
    found = _tokens(tables, frame, chosen)
    problems = list(dict.fromkeys(frame["problem"]))
    number = {p: i for i, p in enumerate(problems)}
    prompts = _prompts(tables, frame)
    packs, place = _packs(found, frame, number, prompts)
    exemplars = _table(results, "clusters", "clusters", ("exemplar",))
    arrays = {
        "source": frame["source"].map({s: i for i, s in enumerate(looks)}).to_numpy(np.uint16),
        "problem": frame["problem"].map(number).to_numpy(np.uint32),
        "sample": frame["sample"].to_numpy(np.uint32),
        "step": frame["step"].fillna(NONE).to_numpy(np.uint32),
        "correct": frame["correct"].astype("boolean").astype("Float64").fillna(2).to_numpy(np.uint8),
        "flagged": frame["flagged"].to_numpy(np.uint8),
        "cluster": frame["cluster"].fillna(UNKNOWN).to_numpy(np.uint16),
        "tokens": frame["n_tokens"].fillna(0).to_numpy(np.uint32),
        "nll": frame["nll_mean"].to_numpy(np.float32),
        "z": frame["excess_z"].to_numpy(np.float32),
        "x": frame["x"].to_numpy(np.float32),
        "y": frame["y"].to_numpy(np.float32),
        "exemplar": frame["key"].isin(exemplars["exemplar"]).to_numpy(np.uint8),
        "pack": place,
    }
    head = {
        "sources": [{"label": s, "color": look["color"], "marker": look["marker"]} for s, look in looks.items()],
        "problems": problems,
        "asked": _asked(prompts) if len(problems) <= ASKED else [],
        "reference": tables.reference,
        "base": tables.base,
        "samplers": {s: {"temperature": v.temperature, "top_p": v.top_p} for s, v in tables.samplers.items()},
    }
    return Embedded(pack(head, arrays), packs, note)


def pack(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """A pack as base64 text; arrays of u1, u2, u4 or f4."""
    spec = {name: [a.dtype.str[1:], len(a)] for name, a in arrays.items()}
    value = {**head, "arrays": spec}
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, from a broken dump
        text = json.dumps(value, separators=(",", ":")).encode()
    planes = [
        np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).view(np.uint8).reshape(len(a), a.itemsize).T.tobytes()
        for a in arrays.values()
    ]
    data = b"".join([struct.pack("<I", len(text)), text, *planes])
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _frame(tables: Tables, results: Mapping[str, Result], sources: Sequence[str]) -> pd.DataFrame:
    """One row per trace in the order of sources, problems and samples, with what analyses say about it."""
    frame = tables.traces.reset_index(drop=True)
    place = {s: i for i, s in enumerate(sources)}
    frame = frame.assign(_place=frame["source"].map(place)).sort_values(
        ["_place", "problem", "step", "sample"], kind="stable", ignore_index=True
    )
    scores = tables.scores[tables.scores["model"] == tables.base] if tables.base else tables.scores.iloc[:0]
    wanted = scores[["key", "n_tokens", "nll_mean", "excess_z"]]
    frame = frame.merge(wanted, on="key", how="left", validate="one_to_one")
    points = _table(results, "clusters", "members", ("key", "cluster", "x", "y"))
    frame = frame.merge(points.drop_duplicates("key"), on="key", how="left")
    yes, no = _flags(results, scores)
    frame["flagged"] = np.where(frame["key"].isin(yes), 1, np.where(frame["key"].isin(no), 0, 2))
    frame["pointed"] = frame["key"].isin(_pointed(results)) | (frame["flagged"] == 1)
    return frame


def _table(results: Mapping[str, Result], analysis: str, name: str, columns: Sequence[str]) -> pd.DataFrame:
    found = results[analysis].tables.get(name) if analysis in results else None
    if found is None or not set(columns) <= set(found.columns):
        return pd.DataFrame({c: pd.Series(dtype=object if c == "key" else float) for c in columns})
    return found[list(columns)]


def _flags(results: Mapping[str, Result], scores: pd.DataFrame) -> tuple[set[str], set[str]]:
    """(keys flagged as novel by `support`, keys tested and not flagged); `scores` under the base."""
    yes = set(_table(results, "support", "flagged_windows", ("key",))["key"])
    tested = set(_table(results, "support", "plane_counts", ("source",))["source"])
    return yes, set(last_steps(scores[scores["source"].isin(tested)])["key"]) - yes


def _pointed(results: Mapping[str, Result]) -> set[str]:
    """Keys that a short table of any analysis names: exemplars, worst windows, flagged traces."""
    keys: set[str] = set()
    for result in results.values():
        for name, table in result.tables.items():
            if name in ("map", "members", "plane"):  # a sample of all traces, not a selection
                continue
            for column in ("key", "exemplar"):
                if column in table and len(table) <= 5000:
                    keys.update(map(str, table[column].dropna()))
    return keys


def _choose(frame: pd.DataFrame, base: str | None, room: float) -> tuple[np.ndarray, str]:
    """(positions of the embedded traces, the sentence about them); `room` in bytes."""
    able = frame["n_tokens"].notna() if base else frame["characters"].notna()
    at = np.flatnonzero(able.to_numpy(bool))
    total, unit = len(frame), "traces are in the viewer"
    left = f"{total - len(at):,} {'are not scored' if base else 'have no text'}"
    tokens, characters = (frame.loc[able, name].fillna(0).astype(float) for name in ("n_tokens", "characters"))
    cost = tokens * TOKEN_BYTES + characters * CHARACTER_BYTES + 40
    if cost.sum() <= room:
        return at, f"All {total:,} {unit}." if len(at) == total else f"{len(at):,} of {total:,} {unit}; {left}."
    part = frame.loc[able, ["source", "problem", "step", "pointed"]]
    turn = part.groupby(["source", "problem", "step"], dropna=False).cumcount()
    order = np.lexsort((turn.to_numpy(), ~part["pointed"].to_numpy(bool)))
    fits = order[: np.searchsorted(cost.to_numpy()[order].cumsum(), room)]
    pointed = int(part["pointed"].iloc[fits].sum())
    plain = fits[~part["pointed"].to_numpy(bool)[fits]]
    reach = int(turn.iloc[plain].max() + 1) if len(plain) else 0
    of = int(part["pointed"].sum())
    note = (
        f"{len(fits):,} of {total:,} {unit}, as many as {room / 1e6:g} MB hold: {pointed:,} of {of:,} that an analysis "
        f"points at (flagged traces, worst windows, exemplars), then the first samples of every source and problem, up "
        f"to {reach}. Every number in the report rests on all traces."
    )
    return np.sort(at[fits]), note


def _tokens(tables: Tables, frame: pd.DataFrame, chosen: np.ndarray) -> dict[int, dict[str, Any]]:
    """Position in `frame` -> the trace's text and token columns, for the chosen traces; one pass over the tokens."""
    where = dict(zip(frame["key"].iloc[chosen].tolist(), chosen.tolist(), strict=True))
    texts = tables.text_of(where)
    if tables.base is None:
        empty = {name: np.empty(0) for name in CODES}
        return {i: {"text": texts[key], "top": [], **empty} for key, i in where.items()}
    found: dict[int, dict[str, Any]] = {}
    names: dict[int, str] = {}
    for part in tables.tokens(tables.base, [*COLUMNS]):
        here = [k in where for k in part["key"].tolist()]
        for row in part.loc[here, ["key", *COLUMNS]].to_dict("records"):
            i = where[row["key"]]
            found[i] = _one(row, texts.get(row["key"], ""), names)
    wanted = {t for row in found.values() for _, ids, _ in row["top"] for t in ids}
    names |= vocabulary.texts(tables.engines.get(tables.base, {}).get("model"), wanted - set(names), names)
    for row in found.values():
        row["top"] = [[p, [names.get(t, f"#{t}") for t in ids], lp] for p, ids, lp in row["top"]]
    return found


def _one(row: Mapping[str, Any], text: str, names: dict[int, str]) -> dict[str, Any]:
    """A trace's text, its alternatives and its columns [T]; `names` learns what tokens look like."""
    ids = np.asarray(row["token"])
    offsets = row["offset"]
    bounds = np.append(np.asarray(offsets if offsets is not None else [-1]), len(text)).astype(np.int64)
    if len(bounds) != len(ids) + 1 or (bounds < 0).any() or (bounds[1:] < bounds[:-1]).any() or not text:
        pieces = [f"<{t}>" for t in ids.tolist()]  # the text of each token is not known
        text, bounds = "".join(pieces), np.cumsum([0, *map(len, pieces)])
    else:
        bounds[:1] = 0
        listed = ids.tolist()
        for t in set(listed).difference(names):
            at = listed.index(t)
            if piece := text[bounds[at] : bounds[at + 1]]:
                names[t] = piece
    if text and max(text) > "\uffff":  # the page counts in UTF-16 units
        units = np.fromiter((1 + (c > "\uffff") for c in text), np.int64, len(text))
        bounds = np.concatenate([[0], units.cumsum()])[bounds]
    top = []
    if row.get("top_position") is not None:
        for p, t, lp in zip(row["top_position"], row["top_token"], row["top_logprob"], strict=True):
            top.append((int(p), [int(v) for v in t], [round(float(v), 2) if np.isfinite(v) else None for v in lp]))
    columns = {name: _known(row[name], len(ids)) for name in ("logprob", "entropy", "mass_above", "rank")}
    return {"text": text, "top": top, "length": bounds[1:] - bounds[:-1], **columns}


def _known(values: Any, n: int) -> np.ndarray:
    return np.full(n, np.nan, np.float32) if values is None else np.array(values)  # a view would keep the whole part


def _coded(values: np.ndarray, scale: float) -> np.ndarray:
    """uint16: the value times `scale`, rounded; UNKNOWN and ENDLESS for NaN and infinity."""
    with np.errstate(invalid="ignore"):
        out = np.clip(np.round(values.astype(float) * scale), 0, UNKNOWN - 1)
    return np.where(np.isnan(values), UNKNOWN, np.where(np.isinf(values), ENDLESS, out)).astype(np.uint16)


# column of a trace -> its name in the page and how it is coded
CODES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "length": ("length", lambda x: x.astype(np.uint32)),
    "logprob": ("surprisal", lambda x: _coded(-x, 100)),
    "entropy": ("entropy", lambda x: _coded(x, 100)),
    "mass_above": ("mass", lambda x: _coded(x, 65000)),
    "rank": ("rank", lambda x: np.nan_to_num(x).astype(np.uint32)),
}


def _packs(
    found: Mapping[int, Mapping[str, Any]], frame: pd.DataFrame, number: Mapping[str, int], prompts: Mapping[str, str]
) -> tuple[list[str], np.ndarray]:
    """(packs with the traces of a problem side by side, pack of each trace or NONE)."""
    place = np.full(len(frame), NONE, np.uint32)
    packs: list[str] = []
    held: list[int] = []
    problems = frame["problem"].tolist()
    facts = {name: frame[name].tolist() for name in ("answer", "finish")}

    def close() -> None:
        rows = [
            {
                "i": i,
                "text": found[i]["text"],
                "n": len(found[i]["rank"]),
                "top": found[i]["top"],
                **{name: str(values[i]) for name, values in facts.items() if _said(values[i])},
            }
            for i in held
        ]
        arrays = {name: code(np.concatenate([found[i][c] for i in held])) for c, (name, code) in CODES.items()}
        place[held] = len(packs)
        asked = {number[p]: prompts[p] for p in dict.fromkeys(problems[i] for i in held)}
        packs.append(pack({"traces": rows, "prompts": asked}, arrays))
        held.clear()

    tokens = characters = 0
    for i in sorted(found, key=lambda i: (number[problems[i]], i)):
        if held and (tokens > PACK_TOKENS or characters > PACK_CHARACTERS):
            close()
            tokens = characters = 0
        held.append(i)
        tokens, characters = tokens + len(found[i]["rank"]), characters + len(found[i]["text"])
    if held:
        close()
    return packs, place


def _prompts(tables: Tables, frame: pd.DataFrame) -> dict[str, str]:
    """problem -> its question, else its prompt (of its first trace), in the order of the problems."""
    first = frame.drop_duplicates("problem")
    asked, prompt = (tables.text_of(first["key"], column) for column in ("question", "prompt"))
    return {p: asked.get(k, prompt.get(k, "")) for p, k in zip(first["problem"], first["key"], strict=True)}


def _asked(prompts: Mapping[str, str]) -> list[str]:
    """The beginning of each problem's question."""
    lines = (" ".join(text.split()) for text in prompts.values())
    return [t if len(t) <= ASKED_CHARACTERS else f"{t[:ASKED_CHARACTERS]}…" for t in lines]


def _said(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and np.isnan(value)) and value is not pd.NA
