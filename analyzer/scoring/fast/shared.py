"""The fast path: a prompt and all its responses in one flat forward pass, hidden states only where tokens are scored.

The model's own modules run; only attention is replaced (see attention.py), so that any architecture whose layers know
the past by attention alone is served. What is not - recurrent layers, short windows, chunked attention - is refused
before or while it runs, never scored wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from analyzer.records import Sampler, Scored
from analyzer.scoring import plain, trunk
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.fast import attention, head
from analyzer.scoring.plan import Pack, Piece, packs

SEGMENT_FLOPS = 4e6  # work that would take as long as a segment's calls in one layer (measured: about 100 us of a core)
FULL = {"full_attention", "sliding_attention"}  # layer types that know the past by attention alone
REFUSED = ("attention_chunk_size", "attn_logit_softcapping", "alibi", "position_embedding_type")


def refusal(model: Any) -> str | None:
    """Why this model can't take flat packs, as far as its config tells; None where it may (then the probe decides)."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - FULL
    if kinds:
        return f"layers of type {', '.join(sorted(kinds))}"
    for name in REFUSED:
        if getattr(config, name, None):
            return f"{name} in the config"
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_causal", True) is False:
        return "not a causal decoder"
    return None


def score(
    items: Sequence[Encoded], model: Any, sampler: Sampler | None, *, token_budget: int, powers: tuple[float, ...] = ()
) -> Iterator[Scored]:
    """Score traces that differ in ids or laws; yields each when its last token is done, group by group.

    Raises trunk.Unsupported where the model asks for more than a flat pack can give.
    """
    import torch

    work = head.prepare(model)
    configs = list({id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values())
    kept: list[dict] = []  # keys and values of kept packs, one entry per depth
    last: list[Any] = []  # the hidden state of each kept pack's last token
    waiting: dict[int, list[tuple]] = {}  # trace -> what its earlier packs gave
    pairs = [(i.prompt_ids, i.response_ids) for i in items]
    past = [0] * len(items)  # tokens of each response that earlier packs held
    for pack in packs(pairs, token_budget, segment_cost=_segment_cost(model)):
        del kept[pack.depth :], last[pack.depth :]
        with torch.inference_mode(), _replaced_attention(configs):
            now = attention.flight(pack, kept, model.device)
            hidden_NH, middle_NH = _forward(model, pack, now)
            if pack.keep:
                kept.append(now.keep)
                last.append(hidden_NH[-1:].clone())
            if not pack.pieces:  # part of a prompt: nothing in it is scored
                continue
            pack = _of_the_policy(pack, items, past)
            if scored := [p for p in pack.pieces if p.ranges]:
                before_1H = last[pack.depth - 1] if pack.depth else None
                found = _statistics(pack, hidden_NH, before_1H, work, sampler, powers, items)
                for piece, total_H in zip(scored, _sums(scored, middle_NH), strict=True):
                    waiting.setdefault(piece.trace, []).append((*_part(piece, found, items[piece.trace]), total_H))
        for piece in pack.pieces:
            if piece.last:
                yield _joined(items[piece.trace], waiting.pop(piece.trace))


def _of_the_policy(pack: Pack, items: Sequence[Encoded], past: list[int]) -> Pack:
    """The pack without what masks leave out: ranges of tokens that the policy wrote, and nothing else predicted. `past`
    goes on by the tokens that the pack holds."""
    if all(items[p.trace].own is None for p in pack.pieces):
        return pack
    pieces, wanted_N = [], np.zeros(len(pack.ids_N), bool)
    for piece in pack.pieces:
        own, ranges = items[piece.trace].own, []
        for start, stop in piece.ranges:
            at = past[piece.trace]
            past[piece.trace] += stop - start
            mine = np.ones(stop - start, bool) if own is None else np.array(own[at : at + stop - start])
            edges = np.flatnonzero(np.diff(np.r_[False, mine, False])).reshape(-1, 2) + start
            ranges += [(int(a), int(b)) for a, b in edges]
            wanted_N[start:stop] |= mine
        pieces.append(piece._replace(ranges=tuple(ranges)))
    return pack._replace(pieces=tuple(pieces), before_N=np.where(wanted_N, pack.before_N, -2))


def _segment_cost(model: Any) -> float:
    """What a segment's calls of attention cost, in tokens of this model: much for a tiny one, nothing for a large."""
    layers = model.config.get_text_config().num_hidden_layers
    return layers * SEGMENT_FLOPS / (2 * sum(p.numel() for p in model.parameters()))


@contextmanager
def _replaced_attention(configs: list[Any]) -> Iterator[None]:
    """The model of these configs calls `attention.attend` instead of its own; undone on leaving."""
    from transformers import AttentionInterface

    AttentionInterface.register(attention.NAME, attention.attend)
    before = [c._attn_implementation for c in configs]
    try:
        for c in configs:
            c._attn_implementation = attention.NAME
        yield
    finally:
        for c, name in zip(configs, before, strict=True):
            c._attn_implementation = name


def _forward(model: Any, pack: Pack, now: attention.Flight) -> tuple[Any, Any]:
    """Hidden states [N, H] after the final norm, and those of the embedding layer."""
    import torch

    ids_1N = torch.from_numpy(pack.ids_N)[None].to(model.device)
    position_1N = torch.from_numpy(pack.position_N)[None].to(model.device)
    token = attention.CURRENT.set(now)
    try:
        last_1NH, middle_1NH, _ = trunk.forward(model, ids_1N, position_ids=position_1N, use_cache=False)
    finally:
        attention.CURRENT.reset(token)
    layers = model.config.get_text_config().num_hidden_layers
    if len(now.calls) != layers:
        raise trunk.Unsupported(f"{len(now.calls)} of {layers} layers call the replaceable attention")
    return last_1NH[0], middle_1NH[0]


def _statistics(
    pack: Pack,
    hidden_NH: Any,
    last_1H: Any,
    work: head.Head,
    sampler: Sampler | None,
    powers: tuple[float, ...],
    items: Sequence[Encoded],
) -> tuple:
    """(number of each token among the scored ones int64 [N], columns of the scored tokens, alternatives by number).

    items: traces with different laws may share tokens.
    """
    import torch

    scored = np.flatnonzero(pack.before_N != -2)
    number_N = np.full(len(pack.ids_N), -1, np.int64)
    number_N[scored] = np.arange(len(scored))
    before = pack.before_N[scored]
    rows = hidden_NH[torch.from_numpy(before).to(hidden_NH.device)]
    if last_1H is not None:  # a row that the kept token predicts
        rows[torch.from_numpy(before == -1).to(rows.device)] = last_1H
    ranges = [(items[p.trace].laws, number_N[a], number_N[b - 1] + 1) for p in pack.pieces for a, b in p.ranges]
    targets = torch.from_numpy(pack.ids_N[scored]).to(rows.device)
    columns, tops = head.columns(rows, targets, work, sampler, powers, head.by_law(ranges, len(targets)))
    return number_N, columns, tops


def _sums(pieces: Sequence[Piece], middle_NH: Any) -> np.ndarray:
    """Sums of the middle states over each piece's tokens (at least one), float64 [pieces, H]."""
    import torch

    start_R, stop_R = np.array([r for p in pieces for r in p.ranges]).T
    upto_NH = middle_NH.double().cumsum_(0)  # in double: a short range's sum is the difference of two long ones
    sum_RH = upto_NH[torch.from_numpy(stop_R - 1)]
    after = torch.from_numpy(np.flatnonzero(start_R))
    sum_RH[after] -= upto_NH[torch.from_numpy(start_R[start_R > 0] - 1)]
    first_P = np.cumsum([0, *(len(p.ranges) for p in pieces[:-1])])
    return np.add.reduceat(sum_RH.cpu().numpy(), first_P, axis=0)


def _part(piece: Piece, found: tuple, item: Encoded) -> tuple:
    """(columns, alternatives as (position, ids, log-probs), tokens) of a piece of a trace."""
    number_N, columns, tops = found
    columns = plain.wanted(columns, item)
    parts = [slice(number_N[a], number_N[b - 1] + 1) for a, b in piece.ranges]
    if len(parts) == 1:
        mine = {name: values[parts[0]].copy() for name, values in columns.items()}
    else:
        mine = {name: np.concatenate([values[p] for p in parts]) for name, values in columns.items()}
    top, at = [], 0
    for p in parts:
        top += [(at + n - p.start, *tops[n]) for n in range(p.start, p.stop) if n in tops]
        at += p.stop - p.start
    return mine, top, at


def _joined(item: Encoded, parts: list[tuple]) -> Scored:
    """The whole response from the parts of its packs: (columns, alternatives, tokens, sum of middle states [H])."""
    columns, top, at, total_H = parts[0]
    if len(parts) > 1:
        columns = {name: np.concatenate([p[0][name] for p in parts]) for name in columns}
        for _, more, tokens, sum_H in parts[1:]:
            top = top + [(at + position, ids, values) for position, ids, values in more]
            at, total_H = at + tokens, total_H + sum_H
    return plain.scored(item, columns, total_H / at, top)
