"""Attention over a flat pack (see plan.py): prompts are computed once, nothing is padded, no mask exists.

    own      every segment causally over itself; short segments of like length go through one call together
    above    the tokens below a segment over all of it, without a mask
    kept     all tokens of the pack over the keys and values of the packs that it goes on from
Parts over disjoint keys are merged by their log-sum-exp, which is exact (Hydragen, arXiv 2402.05099; in a tree of
segments as in SpecInfer, arXiv 2305.09781). The function is registered with transformers' AttentionInterface; the pack
reaches it by a context variable, because not every architecture passes keyword arguments on.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.scoring.plan import Pack, Segment
from analyzer.scoring.trunk import Unsupported

if TYPE_CHECKING:
    import torch

NAME = "analyzer_shared_prefix"
PADDING = 1.25  # segments of like length are attended to together up to this much padding, inside this call only
ALONE = 128  # segments at least this long get a call of their own: nothing is copied for them


@dataclass
class Flight:
    """The pack that is under way: where its segments lie, what was kept before, how often attention was called."""

    above: list[Segment]  # segments with descendants
    alone: list[Segment]  # own attention without copies
    buckets: list[tuple[torch.Tensor, torch.Tensor]]  # (token of each cell [B, L], cells that are tokens [tokens])
    kept: list[dict[int, tuple[torch.Tensor, torch.Tensor]]]  # per kept pack: layer -> keys, values [1, H, N, D]
    keep: dict[int, tuple[torch.Tensor, torch.Tensor]] | None  # filled where this pack is to be kept
    longest: int  # positions in use
    calls: set[int] = field(default_factory=set)


CURRENT: ContextVar[Flight | None] = ContextVar("pack", default=None)


def flight(pack: Pack, kept: list[dict], device: Any) -> Flight:
    """Prepare a pack for attention; `kept` holds the keys and values of at least `pack.depth` kept packs."""
    import torch

    below = [s for s in pack.segments if s.end > s.stop]
    alone = [s for s in pack.segments if s.stop - s.start >= ALONE]
    short = sorted((s for s in pack.segments if s.stop - s.start < ALONE), key=lambda s: s.stop - s.start)
    buckets, at = [], 0
    while at < len(short):
        end, tokens = at, 0
        while end < len(short):
            length = short[end].stop - short[end].start
            if length * (end - at + 1) > PADDING * (tokens + length):
                break
            end, tokens = end + 1, tokens + length
        start_B = np.array([s.start for s in short[at:end]])
        length_B = np.array([s.stop - s.start for s in short[at:end]])
        step_L = np.arange(length_B[-1])
        inside_BL = step_L < length_B[:, None]
        # a padded cell repeats the segment's first token; it comes after all others, and causality hides it
        cell_BL = start_B[:, None] + np.where(inside_BL, step_L, 0)
        cells = torch.from_numpy(np.flatnonzero(inside_BL))
        buckets.append((torch.from_numpy(cell_BL).to(device), cells.to(device)))
        at = end
    longest = int(pack.position_N.max()) + 1
    return Flight(below, alone, buckets, kept[: pack.depth], {} if pack.keep else None, longest)


def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> tuple[Any, None]:
    """The registered function: query [1, H, N, D], key and value [1, G, N, D] after RoPE -> output [1, N, H, D].

    Raises Unsupported where the model wants a window shorter than the pack's longest trace, softcapping, sinks or a
    position bias: those are left to the model's own attention.
    """
    import torch

    now = CURRENT.get()
    window = options.get("sliding_window")
    if window is not None and window < now.longest:
        raise Unsupported(f"attention window of {window} under a trace of {now.longest} tokens")
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise Unsupported(f"attention with {name}")
    if query.shape[0] != 1 or query.shape[-1] != value.shape[-1]:
        raise Unsupported("attention with values of another width than the keys")
    layer = module.layer_idx
    now.calls.add(layer)
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if now.keep is not None:
        now.keep[layer] = (key, value)

    heads, tokens, width = query.shape[1:]
    out = torch.empty((tokens, heads, width), dtype=query.dtype, device=query.device)
    lse = torch.empty((tokens, heads), dtype=torch.float32, device=query.device)
    q_NHD, k_NGD, v_NGD = (x[0].transpose(0, 1) for x in (query, key, value))
    for s in now.alone:
        a, b = s.start, s.stop
        part, weight = _attention(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], scale, causal=True)
        out[a:b], lse[a:b] = part[0].transpose(0, 1), weight[0].transpose(0, 1)
    for cell_BL, inside in now.buckets:
        flat, inside = cell_BL.flatten().to(query.device), inside.to(query.device)  # layers may lie on several devices
        q, k, v = (x[flat].view(*cell_BL.shape, *x.shape[1:]).transpose(1, 2) for x in (q_NHD, k_NGD, v_NGD))
        part, weight = _attention(q, k, v, scale, causal=True)
        where = flat[inside]
        out[where] = part.transpose(1, 2).flatten(0, 1)[inside]
        lse[where] = weight.transpose(1, 2).flatten(0, 1)[inside]
    for s in now.above:
        _merge(out, lse, s.stop, s.end, query, key[:, :, s.start : s.stop], value[:, :, s.start : s.stop], scale)
    for entry in now.kept:
        _merge(out, lse, 0, tokens, query, *entry[layer], scale)
    return out[None], None


def _merge(out: Any, lse: Any, start: int, end: int, query: Any, key: Any, value: Any, scale: float) -> None:
    """Add attention of tokens [start, end) over further keys, all visible, to what they have (in place)."""
    import torch

    part, weight = _attention(query[:, :, start:end], key, value, scale, causal=False)
    part, weight = part[0].transpose(0, 1), weight[0].transpose(0, 1)
    before = lse[start:end]
    share = torch.sigmoid(weight - before)[..., None].to(out.dtype)
    out[start:end].lerp_(part, share)
    lse[start:end] = torch.logaddexp(before, weight)


def _attention(q: Any, k: Any, v: Any, scale: float, *, causal: bool) -> tuple[Any, Any]:
    """q [B, H, M, D], k and v [B, G, N, D] -> (output [B, H, M, D], log-sum-exp float32 [B, H, M])."""

    groups = q.shape[1] // k.shape[1]
    if not causal and groups > 1:  # without a mask, the queries of all heads that share a key are one long query
        shape = q.shape
        out, lse = _kernel(q.reshape(shape[0], k.shape[1], groups * shape[2], shape[3]), k, v, scale, causal=False)
        return out.reshape(shape), lse.reshape(shape[:3])
    if groups > 1:
        k, v = (x[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for x in (k, v))
    return _kernel(q, k, v, scale, causal=causal)


def _kernel(q: Any, k: Any, v: Any, scale: float, *, causal: bool) -> tuple[Any, Any]:
    """One fused kernel that also returns its log-sum-exp; plain products where the device has none."""
    import torch

    ops = torch.ops.aten
    if q.device.type == "cpu" and q.dtype != torch.float64:
        return ops._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    if q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16):
        return ops._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)[:2]
    if q.device.type == "cuda" and q.dtype == torch.float32:
        out, lse = ops._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)[:2]
        return out, lse[..., : q.shape[2]]  # padded to whole tiles
    scores = (q @ k.transpose(-1, -2)) * scale
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], device=q.device).triu(1).bool(), -torch.inf)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp() @ v, lse.float()
