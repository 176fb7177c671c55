"""The everyday scorer: length-sorted batches, hidden states first, then the LM head over blocks of rows.

[T, V] logits never exist at once: the head runs only at scored positions, `ROW_BLOCK` rows at a time. Prompts are not
shared between responses yet. `probe` compares this path with `plain` on the loaded model before anything is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from analyzer.plan import batches
from analyzer.records import Sampler, Scored
from analyzer.scorers import plain
from analyzer.scorers.columns import all_columns, top_alternatives
from analyzer.scorers.encode import Encoded

ROW_BLOCK = 512
LOGIT_CELLS = 1 << 24  # at most this many float32 logits at once (64 MiB), so large vocabularies take fewer rows
TOKEN_BUDGET = 4096  # padded tokens per batch; larger batches leave the caches of a CPU core and were slower there
PROBE_TOLERANCE = 1e-4  # nats
POOL = 4096  # traces sorted by length together


def probe(model: Any, sampler: Sampler | None) -> str | None:
    """None when this path agrees with `plain` on the loaded model, else the sentence that says how far off it is.

    Two made-up traces of different lengths, so that padding is tested too. Tolerance: 1e-4 nats in float32; in lower
    precision the two orders of summation differ more, and 0.25 nats only catches wrong heads, caches and masks.
    """
    import torch

    from analyzer.records import Trace

    rng = np.random.default_rng(0)
    vocab = min(model.config.get_text_config().vocab_size, 50_000)
    items = []
    for n, (p, r) in enumerate([(3, 5), (4, 11)]):
        ids = tuple(int(i) for i in rng.integers(0, vocab, p + r))
        items.append(Encoded(Trace("probe", "probe", n, ""), ids[:p], ids[p:], np.full(r, -1, np.int32)))
    want = list(plain.score(items, model, sampler))
    try:
        got = {s.key: s for s in score(items, model, sampler)}
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        return f"batched path failed on this architecture ({type(error).__name__}: {error})"
    tolerance = PROBE_TOLERANCE if next(model.parameters()).dtype == torch.float32 else 0.25
    worst = max(float(np.abs(got[w.key].columns["logprob"] - w.columns["logprob"]).max()) for w in want)
    return None if worst <= tolerance else f"batched path is off by {worst:.2g} nats on this architecture"


def score(
    encoded: Iterable[Encoded], model: Any, sampler: Sampler | None, *, token_budget: int = TOKEN_BUDGET
) -> Iterator[Scored]:
    """Score traces under `model`; yields them in an order of its own (sorted by length within pools of 4,096).

    token_budget: padded tokens per forward pass; a trace longer than it gets a pass of its own.
    """
    pool: list[Encoded] = []
    for item in encoded:
        pool.append(item)
        if len(pool) == POOL:
            yield from _score_pool(pool, model, sampler, token_budget)
            pool = []
    yield from _score_pool(pool, model, sampler, token_budget)


def _score_pool(pool: list[Encoded], model: Any, sampler: Sampler | None, token_budget: int) -> Iterator[Scored]:
    for batch in batches([len(item) for item in pool], token_budget):
        yield from _score_batch([pool[i] for i in batch], model, sampler)


def _score_batch(batch: list[Encoded], model: Any, sampler: Sampler | None) -> Iterator[Scored]:
    import torch

    device = model.device
    longest = max(map(len, batch))
    ids_BT = torch.zeros((len(batch), longest), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for b, item in enumerate(batch):
        ids_BT[b, : len(item)] = torch.tensor(item.prompt_ids + item.response_ids)
        mask_BT[b, : len(item)] = 1
    ids_BT, mask_BT = ids_BT.to(device), mask_BT.to(device)
    with torch.inference_mode():
        last_BTH, middle_BTH = _hidden_states(model, ids_BT, mask_BT)
        # rows that predict response tokens, all traces of the batch one after another
        rows = torch.cat(
            [torch.arange(len(i.prompt_ids) - 1, len(i) - 1) + b * longest for b, i in enumerate(batch)]
        ).to(device)
        targets = ids_BT.flatten()[rows + 1]
        hidden_RH = last_BTH.flatten(0, 1)[rows]
        head = model.get_output_embeddings()
        block = max(1, min(ROW_BLOCK, LOGIT_CELLS // head.weight.shape[0]))
        parts: list[dict[str, Any]] = []
        tops: list = []
        for at in range(0, len(rows), block):
            logits = _post_head(model, head(hidden_RH[at : at + block]).float())
            parts.append(all_columns(logits, targets[at : at + block], sampler))
            tops += [(at + r, ids, values) for r, ids, values in top_alternatives(logits, parts[-1]["logprob"])]
        columns = {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}
        embeddings = [
            middle_BTH[b, len(i.prompt_ids) : len(i)].float().mean(0).cpu().numpy() for b, i in enumerate(batch)
        ]
    at = 0
    for item, embedding in zip(batch, embeddings):
        end = at + len(item.response_ids)
        top = [(r - at, ids, values) for r, ids, values in tops if at <= r < end]
        yield plain.scored(item, {name: values[at:end] for name, values in columns.items()}, embedding, top)
        at = end


def _hidden_states(model: Any, ids_BT: Any, mask_BT: Any) -> tuple[Any, Any]:
    """Last hidden states (after the final norm) and those of the embedding layer, each [B, T, H]."""
    out = model.base_model(ids_BT, attention_mask=mask_BT, use_cache=False, output_hidden_states=True)
    return out.last_hidden_state, out.hidden_states[plain.embedding_layer(model)]


def _post_head(model: Any, logits: Any) -> Any:
    """What some architectures do to logits after the head: scaling (Cohere, Granite), then softcapping (Gemma 2)."""
    config = model.config.get_text_config()
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (scaling := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / scaling
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = (logits / cap).tanh() * cap
    return logits
