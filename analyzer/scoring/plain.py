"""The definition: one trace at a time, one full forward pass, all logits at once. Every other scorer must agree.

Slow and memory-hungry on purpose ([T, V] logits exist); it does not batch, share, cache or approximate anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from analyzer.records import Sampler, Scored
from analyzer.scoring import trunk
from analyzer.scoring.columns import all_columns, sampler_columns, top_alternatives
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
            if item.sampler is not None:
                columns[item.sampler] = sampler_columns(logits, targets, item.sampler)["logprob_s"]
            top = top_alternatives(logits, columns["logprob"])
            embedding = out.hidden_states[layer][0, start:][item.at].float().mean(0)
        computed = {name: values.cpu().numpy() for name, values in columns.items()}
        yield scored(item, own(computed, item.sampler), embedding.cpu().numpy(), top)


def own(columns: dict[str | Sampler, np.ndarray], sampler: Sampler | None) -> dict[str, np.ndarray]:
    """The columns of a trace from those computed beside it: log-probs by the samplers of several sources stand under
    the samplers themselves, and become the trace's logprob_source where its source has that one."""
    mine = {name: values for name, values in columns.items() if isinstance(name, str)}
    return mine if sampler is None else mine | {"logprob_source": columns[sampler]}


def scored(item: Encoded, columns: dict[str, np.ndarray], embedding: np.ndarray, top: list) -> Scored:
    """Assemble the record: ids and offsets of the scored tokens beside the computed columns."""
    token_T, offset_T = np.array(item.response_ids, np.int32)[item.at], item.offset_T[item.at]
    columns = {"token": token_T, **columns, "offset": offset_T}
    return Scored(item.trace.key, columns, embedding.astype(np.float16), tuple(top))
