"""The definition: one trace at a time, one full forward pass, all logits at once. Every other scorer must agree.

Slow and memory-hungry on purpose ([T, V] logits exist); it does not batch, share, cache or approximate anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from analyzer.records import SAMPLER_COLUMNS, Sampler, Scored
from analyzer.scoring import trunk
from analyzer.scoring.columns import Column, all_columns, sampler_columns, top_alternatives
from analyzer.scoring.encoding.encode import Encoded


def score(
    encoded: Iterable[Encoded], model: Any, sampler: Sampler | None, *, powers: tuple[float, ...] = ()
) -> Iterator[Scored]:
    """Score each trace under `model` (a transformers causal LM, already on its device and in eval mode), in order.

    sampler: of the source that the model produces; powers: exponents of the power columns; both may be none.
    """
    import torch

    layer = trunk.embedding_layer(model)
    for item in encoded:
        ids = torch.tensor([item.prompt_ids + item.response_ids], device=model.device)
        start = len(item.prompt_ids)
        with torch.inference_mode():
            trunk.forget_lengths(model)
            out = model(ids, output_hidden_states=True, use_cache=False)
            logits, targets = out.logits[0, start - 1 : -1][item.at].float(), ids[0, start:][item.at]
            columns = all_columns(logits, targets, sampler, powers)
            beside = {law: sampler_columns(logits, targets, law) for law in item.laws}
            columns |= {(name, law): v for law, of_it in beside.items() for name, v in of_it.items()}
            top = top_alternatives(logits, columns["logprob"])
            embedding = out.hidden_states[layer][0, start:][item.at].float().mean(0)
        computed = {name: values.cpu().numpy() for name, values in columns.items()}
        yield scored(item, computed, embedding.cpu().numpy(), top)


def wanted(columns: Mapping[Column, np.ndarray], item: Encoded) -> dict[Column, np.ndarray]:
    """Of the columns that were computed for several traces those that one asks for."""
    return {name: values for name, values in columns.items() if isinstance(name, str) or name[1] in item.laws}


def scored(item: Encoded, columns: Mapping[Column, np.ndarray], embedding: np.ndarray, top: list) -> Scored:
    """Assemble the record: ids and offsets of the scored tokens beside the computed columns."""
    token_T, offset_T = np.array(item.response_ids, np.int32)[item.at], item.offset_T[item.at]
    own = {name: values for name, values in columns.items() if isinstance(name, str)}
    laws = {law: {name: columns[name, law] for name in SAMPLER_COLUMNS} for law in item.laws}
    return Scored(
        item.trace.key, {"token": token_T, **own, "offset": offset_T}, embedding.astype(np.float16), tuple(top), laws
    )
