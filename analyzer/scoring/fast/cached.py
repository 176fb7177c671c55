"""The fallback path: a prompt's cache is computed once and copied for a right-padded batch of its responses.

For models whose layers know the past by more than plain attention (windows, ALiBi, softcapping, most recurrent
hybrids): their own attention and their own cache do the work. Some architectures continue a cache wrongly without a
word (Mamba-1, Jamba); the probe of `local` finds them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from analyzer.records import Sampler, Scored
from analyzer.scoring import plain, trunk
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.fast import head

CACHE_SHARE = 4  # tokens of copied prompt per token of response that a batch may hold: memory, not time


def score(
    items: Sequence[Encoded], model: Any, sampler: Sampler | None, *, token_budget: int, powers: tuple[float, ...] = ()
) -> Iterator[Scored]:
    """Score traces that differ in ids or laws by prompts, short responses first; at least one response a batch."""
    import torch

    work = head.prepare(model)
    order = sorted(items, key=lambda i: (i.prompt_ids, len(i.response_ids), i.response_ids))
    for prompt, members in groupby(order, key=lambda i: i.prompt_ids):
        with torch.inference_mode():
            ids_1P = torch.tensor([prompt], device=model.device)
            last_1PH, _, out = trunk.forward(model, ids_1P, use_cache=True)
            cache = getattr(out, "past_key_values", None)
            if cache is None or not hasattr(cache, "reorder_cache"):
                raise trunk.Unsupported("no cache that can be copied")
        batch: list[Encoded] = []
        for item in members:
            longest = len(item.response_ids)
            full = (len(batch) + 1) * max(longest, (longest + len(prompt)) // CACHE_SHARE) > token_budget
            if batch and full:
                yield from _batch(batch, model, cache, last_1PH[0, -1], work, sampler, powers)
                batch = []
            batch.append(item)
        yield from _batch(batch, model, cache, last_1PH[0, -1], work, sampler, powers)


def _batch(
    batch: list[Encoded],
    model: Any,
    cache: Any,
    last_H: Any,
    work: head.Head,
    sampler: Sampler | None,
    powers: tuple[float, ...],
) -> Iterator[Scored]:
    import torch

    longest, past = max(len(i.response_ids) for i in batch), len(batch[0].prompt_ids)
    ends = np.cumsum([i.tokens for i in batch]).tolist()
    ids_BT = torch.zeros((len(batch), longest), dtype=torch.long)
    mask_BL = torch.ones((len(batch), past + longest), dtype=torch.long)
    for b, item in enumerate(batch):
        ids_BT[b, : len(item.response_ids)] = torch.tensor(item.response_ids)
        mask_BL[b, past + len(item.response_ids) :] = 0
    with torch.inference_mode():
        mine = copy.deepcopy(cache)  # recurrent states are changed in place
        mine.reorder_cache(torch.zeros(len(batch), dtype=torch.long, device=model.device))
        position_BT = torch.arange(past, past + longest, device=model.device).expand(len(batch), -1)
        last_BTH, middle_BTH, _ = trunk.forward(
            model,
            ids_BT.to(model.device),
            attention_mask=mask_BL.to(model.device),
            position_ids=position_BT,
            past_key_values=mine,
            use_cache=True,
        )
        before_BTH = torch.cat([last_H.expand(len(batch), 1, -1), last_BTH[:, :-1]], 1)
        rows = torch.cat([before_BTH[b, i.at] for b, i in enumerate(batch)])
        targets = torch.cat([ids_BT[b, i.at] for b, i in enumerate(batch)]).to(model.device)
        ranges = [(i.laws, end - i.tokens, end) for i, end in zip(batch, ends, strict=True)]
        columns, tops = head.columns(rows, targets, work, sampler, powers, head.by_law(ranges, len(targets)))
    at = 0
    for b, (item, end) in enumerate(zip(batch, ends, strict=True)):
        top = [(n - at, *tops[n]) for n in range(at, end) if n in tops]
        embedding_H = middle_BTH[b, item.at].float().mean(0).cpu().numpy().astype(np.float32)
        mine = plain.wanted(columns, item)
        yield plain.scored(item, {name: v[at:end].copy() for name, v in mine.items()}, embedding_H, top)
        at = end
