"""Traces longer than the model's context, when the user chose `--on-overlong window`.

    tokens   0 ......... L ......... 2L
    window 0 [prompt+response.........]            scores the response tokens in it
    window 1          [context|scored ]            starts half a window later: context L/2, scores the next L/2
    window 2                   [context|scored ]

Every token is conditioned on at least the L/2 tokens before it, but no longer on the prompt once that has left the
window: these are not the probabilities under which the trace was sampled, and the report names the traces concerned.
"""

from __future__ import annotations

import numpy as np

from analyzer.records import Scored
from analyzer.scoring.encoding.encode import Encoded


def split(item: Encoded, limit: int) -> list[Encoded]:
    """Cut one trace into windows of at most `limit` ids; the scored parts join up to what is scored of the response."""
    if len(item) <= limit:
        return [item]
    ids = item.prompt_ids + item.response_ids
    start = len(item.prompt_ids)
    first = limit if start < limit else 0  # end of the first window, if any response token fits into it
    cuts: list[tuple[int, int, int]] = []  # window begin, first scored, end
    at = start
    if first > start:
        cuts.append((0, start, first))
        at = first
    half = max(1, limit // 2)
    while at < len(ids):
        end = min(len(ids), at + half)
        cuts.append((max(0, end - limit), at, end))
        at = end
    own = item.own or (True,) * len(item.response_ids)
    return [
        Encoded(
            item.trace,
            ids[a:b],
            ids[b:c],
            item.offset_T[b - start : c - start],
            laws=item.laws,
            own=None if item.own is None else own[b - start : c - start],
        )
        for a, b, c in cuts
        if any(own[b - start : c - start])
    ]


def join(parts: list[Scored]) -> Scored:
    """The inverse of `split` on the scored parts, in order; the embedding is their mean weighted by length."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
    lengths = [len(p) for p in parts]
    embedding = None  # a server tells none
    if parts[0].embedding is not None:
        vectors = [p.embedding.astype(np.float32) for p in parts]
        embedding = np.average(vectors, axis=0, weights=lengths).astype(np.float16)
    starts = np.cumsum([0, *lengths[:-1]])
    top = tuple((int(pos + at), ids, values) for p, at in zip(parts, starts) for pos, ids, values in p.top)
    laws = {
        law: {name: np.concatenate([p.laws[law][name] for p in parts]) for name in found}
        for law, found in parts[0].laws.items()
    }
    return Scored(parts[0].key, columns, embedding, top, laws)
