"""Draw responses from a lab model: a static key-value cache, written out for these small Llamas.

Every row starts at position 0 and all rows are at the same position in every step, so nothing is padded: a row whose
prompt is longer than another's is fed its own prompt while the other already writes. Finished rows leave the cache.

Truncation follows transformers' logits processors to the letter, in their order: temperature, top_k, top_p, min_p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from miniature.recipe import UNTRUNCATED
from miniature.tokenizer import EOS

NEW_TOKENS = 112  # the longest document of the corpus answers in under 90
PRUNE = 0.2  # finished rows leave the cache when they are this share of it


def truncate(
    logits: torch.Tensor, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> torch.Tensor:
    """Logits (N, V) tempered, with the tokens that the sampler could never draw at -inf."""
    scores = logits / temperature
    if top_k > 0:
        scores = scores.masked_fill(scores < scores.topk(min(top_k, scores.shape[-1])).values[:, -1:], -torch.inf)
    if top_p < 1.0:
        ascending, order = scores.sort(descending=False)
        cut = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        cut[:, -1:] = False
        scores = scores.masked_fill(cut.scatter(1, order, cut), -torch.inf)
    if min_p > 0.0:
        p = scores.softmax(-1)
        cut = p < min_p * p.amax(-1, keepdim=True)
        scores = scores.masked_fill(cut.scatter(1, p.argmax(-1, keepdim=True), False), -torch.inf)
    return scores


def weights(model) -> dict:
    """The model's parameters as the sampler reads them: query, key and value in one matrix per layer."""
    config, layers = model.config, []
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        layers.append(
            {
                "norm": layer.input_layernorm.weight.detach(),
                "norm_mlp": layer.post_attention_layernorm.weight.detach(),
                "qkv": torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).detach(),
                "out": attention.o_proj.weight.detach(),
                "down": mlp.down_proj.weight.detach(),
                "gate_up": torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).detach(),
            }
        )
    d = config.hidden_size // config.num_attention_heads
    frequency = config.rope_parameters["rope_theta"] ** (-torch.arange(0, d, 2) / d)
    angle = torch.arange(config.max_position_embeddings)[:, None] * torch.cat([frequency, frequency])  # (positions, d)
    return {
        "embedding": model.model.embed_tokens.weight.detach(),
        "norm": model.model.norm.weight.detach(),
        "layers": layers,
        "heads": config.num_attention_heads,
        "d": d,
        "eps": config.rms_norm_eps,
        "cos": angle.cos(),
        "sin": angle.sin(),
    }


def _forward(w: dict, ids: torch.Tensor, cache: list[list[torch.Tensor]], position: int) -> torch.Tensor:
    """Logits (N, V) after the last of `ids` (N, T), which stand at `position` and on; writes their keys and values to
    the cache.
    """
    n, t = ids.shape
    end = position + t
    x = w["embedding"][ids]
    cos, sin = w["cos"][position:end], w["sin"][position:end]
    for layer, (keys, values) in zip(w["layers"], cache):
        h = F.rms_norm(x, x.shape[-1:], layer["norm"], w["eps"])
        q, k, v = (
            part.view(n, t, w["heads"], w["d"]).transpose(1, 2) for part in F.linear(h, layer["qkv"]).chunk(3, -1)
        )
        keys[:, :, position:end] = _turn(k, cos, sin)
        values[:, :, position:end] = v
        # one new token sees everything; a first block is causal. There is no third case.
        a = F.scaled_dot_product_attention(_turn(q, cos, sin), keys[:, :, :end], values[:, :, :end], is_causal=t > 1)
        x = x + F.linear(a.transpose(1, 2).reshape(n, t, -1), layer["out"])
        h = F.rms_norm(x, x.shape[-1:], layer["norm_mlp"], w["eps"])
        gate, up = F.linear(h, layer["gate_up"]).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, layer["down"])
    return F.linear(F.rms_norm(x[:, -1], x.shape[-1:], w["norm"], w["eps"]), w["embedding"])


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions, halves rotated, for (N, heads, T, d)."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


@torch.no_grad()
def sample(
    w: dict,
    prompts: Sequence[Sequence[int]],
    generator: torch.Generator,
    *,
    sampler: dict = UNTRUNCATED,
    new_tokens: int = NEW_TOKENS,
    batch: int = 768,
) -> list[tuple[list[int], list[float], str]]:
    """For each prompt (ids with <bos>): the response's ids (with <eos> iff drawn), their log p at T=1 in nats over
    the full vocabulary, and why it ended, `stop` or `length`. Reproducible for the same prompts, batch size and
    generator.
    """
    results = []
    for start in range(0, len(prompts), batch):
        results += _sample_batch(w, prompts[start : start + batch], generator, sampler, new_tokens)
    return results


def _sample_batch(
    w: dict, prompts, generator, sampler: dict, new_tokens: int
) -> list[tuple[list[int], list[float], str]]:
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    width = int(lengths.max()) + new_tokens
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, : len(prompt)] = torch.tensor(prompt)
    logprobs = torch.zeros(len(prompts), width)
    ends = lengths + new_tokens
    done = torch.zeros(len(prompts), dtype=torch.bool)
    stopped = done.clone()
    kept = torch.arange(len(prompts))  # the rows that the cache still holds
    shape = (len(prompts), w["heads"], width, w["d"])
    cache = [[torch.zeros(shape), torch.zeros(shape)] for _ in w["layers"]]

    position, fed = 0, int(lengths.min())
    while len(kept):
        logits = _forward(w, ids[kept, position : position + fed], cache, position)
        position, fed = position + fed, 1
        drawn = torch.multinomial(truncate(logits, **sampler).softmax(-1), 1, generator=generator)
        writing = (lengths[kept] <= position) & ~done[kept]  # the others still read their prompt, or are done
        rows, tokens = kept[writing], drawn[writing, 0]
        ids[rows, position] = tokens
        logprobs[rows, position] = logits.log_softmax(-1).gather(1, drawn)[writing, 0]
        stopped[rows] = tokens == EOS
        ends[rows[tokens == EOS]] = position + 1
        done[rows] = position + 1 >= ends[rows]
        finished = done[kept]
        if finished.all() or finished.float().mean() > PRUNE:  # shrinking copies the cache, so not at every step
            kept = kept[~finished]
            cache = [[part[~finished] for part in layer] for layer in cache]
    return [
        (ids[i, len(prompt) : end].tolist(), logprobs[i, len(prompt) : end].tolist(), "stop" if stop else "length")
        for i, (prompt, end, stop) in enumerate(zip(prompts, ends.tolist(), stopped.tolist()))
    ]
