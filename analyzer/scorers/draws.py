"""Responses drawn from a local model: a prompt's cache is computed once and shared by its samples, which grow together.

Every sample has random numbers of its own, made from seed, problem and sample number.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.records import Sampler
from analyzer.scorers import columns, trunk

if TYPE_CHECKING:
    import torch

PRUNE = 0.25  # finished samples leave the cache when they are this share of it
CACHE_TOLERANCE = {True: 1e-3, False: 0.25}  # nats, in float32 and in lower precision

Drawn = tuple[tuple[int, ...] | None, tuple[float, ...] | None, str, str | None]  # ids, log-probs, text, finish


def uniforms(seed: int, problem: str, sample: int, count: int) -> np.ndarray:
    """The random numbers of one sample: float64 [count] in [0, 1), the same for the same seed, problem and number."""
    key = hashlib.sha256(f"{seed}\0{problem}\0{sample}".encode()).digest()
    words = [int.from_bytes(key[i : i + 8], "little") for i in (0, 8)]
    return np.random.Generator(np.random.Philox(key=np.array(words, np.uint64))).random(count)


def draw(logits: torch.Tensor, u_N: torch.Tensor, sampler: Sampler) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids int64 [N], their log-probs at T=1 over the full vocabulary, nats float32 [N]), by inverting the cumulative
    distribution of the sampler at u. logits: float32 [N, V]; truncation as in `columns.sampler_columns`."""
    import torch

    kept = logits / sampler.temperature
    for warper in columns.truncations(sampler):
        kept = warper(None, kept)
    p_NV = kept.softmax(-1).double()
    up_to_NV = p_NV.cumsum(-1)
    # the first place whose sum exceeds u: a token of no width is never met
    ids_N1 = torch.searchsorted(up_to_NV, (u_N * up_to_NV[:, -1])[:, None], right=True).clamp(max=logits.shape[-1] - 1)
    # u so close to 1 that rounding carries it beyond the last token that can be drawn
    ids_N1 = ids_N1.where(p_NV.gather(1, ids_N1) > 0, p_NV.argmax(-1, keepdim=True))
    return ids_N1[:, 0], logits.log_softmax(-1).gather(1, ids_N1)[:, 0]


def drawer(loaded: Any, batch: int) -> Callable[..., Iterator[Drawn]]:
    """The function (loaded, asked, samples, sampler, seed) that draws the samples of one problem, `batch` at a time."""
    stop = stop_ids(loaded)
    cached = cache_is_right(loaded.model)
    limit = trunk.rope_limit(loaded.model)

    def one(loaded: Any, asked: Any, samples: range, sampler: Sampler, seed: int) -> Iterator[Drawn]:
        short = limit is None or len(asked.prompt_ids) + asked.max_tokens <= limit
        prefix = prefill(loaded.model, asked.prompt_ids) if cached and short else None
        for start in range(0, len(samples), batch):
            some = samples[start : start + batch]
            u_NT = np.stack([uniforms(seed, asked.trace.problem, s, asked.max_tokens) for s in some])
            for ids, logprobs in grow(loaded.model, asked.prompt_ids, u_NT, sampler, stop=stop, prefix=prefix):
                text = "" if loaded.tokenizer is None else loaded.tokenizer.decode(ids, skip_special_tokens=True)
                rounded = tuple(round(v, 6) + 0.0 for v in logprobs)
                yield tuple(ids), rounded, text, "stop" if ids[-1] in stop else "length"

    return one


def stop_ids(loaded: Any) -> frozenset[int]:
    """The end-of-sequence ids of a model: its generation config's, and its tokenizer's."""
    config = getattr(loaded.model, "generation_config", None)
    found = getattr(config, "eos_token_id", None)
    ids = [*found] if isinstance(found, (list, tuple)) else [found]
    return frozenset(i for i in (*ids, getattr(loaded.tokenizer, "eos_token_id", None)) if i is not None)


def grow(
    model: Any,
    prompt_ids: Sequence[int],
    u_NT: np.ndarray,
    sampler: Sampler,
    *,
    stop: frozenset[int],
    prefix: tuple[Any, Any] | None = None,
) -> list[tuple[list[int], list[float]]]:
    """N responses to one prompt, token t of response n drawn at u_NT[n, t]: their ids (with the stop id iff drawn) and
    log-probs at T=1 (nats). Ends at a stop id or after T tokens.

    prefix: what `prefill` returned for the prompt; without it every step computes everything anew.
    """
    import torch

    n, longest = u_NT.shape
    ids_NT = torch.zeros((n, longest), dtype=torch.long, device=model.device)
    logprob_NT = torch.zeros((n, longest), device=model.device)
    u_NT = torch.from_numpy(u_NT).to(model.device)
    ends = torch.full((n,), longest, device=model.device)
    stops = torch.tensor(sorted(stop), dtype=torch.long, device=model.device)
    held = torch.arange(n, device=model.device)  # the rows that are still computed; a few of them may be finished
    prompt_1P = torch.tensor([list(prompt_ids)], device=model.device)
    with torch.inference_mode():
        cache, logits = copy.deepcopy(prefix) if prefix else (None, _anew(model, prompt_1P))
        logits = logits.expand(n, -1)
        if cache is not None:
            cache.reorder_cache(torch.zeros_like(held))
        for t in range(longest):
            ids_NT[held, t], logprob_NT[held, t] = draw(logits, u_NT[held, t], sampler)
            stopped = torch.isin(ids_NT[held, t], stops) & (ends[held] == longest)
            ends[held[stopped]] = t + 1
            alive = ends[held] > t + 1
            if t + 1 == longest or not alive.any():
                break
            if (~alive).float().mean() > PRUNE:
                held = held[alive]
                if cache is not None:
                    cache.reorder_cache(alive.nonzero()[:, 0])
            if cache is None:
                rows = torch.cat([prompt_1P.expand(len(held), -1), ids_NT[held, : t + 1]], 1)
                logits = _anew(model, rows)
            else:
                out = model(ids_NT[held, t : t + 1], past_key_values=cache, use_cache=True)
                logits = out.logits[:, -1].float()
    lengths = ends.tolist()
    return [(i[:end], v[:end]) for i, v, end in zip(ids_NT.tolist(), logprob_NT.tolist(), lengths)]


def prefill(model: Any, prompt_ids: Sequence[int]) -> tuple[Any, torch.Tensor]:
    """(the prompt's cache, logits float32 [1, V] of what follows it)."""
    import torch

    with torch.inference_mode():
        trunk.forget_lengths(model)
        out = model(torch.tensor([list(prompt_ids)], device=model.device), use_cache=True)
    return out.past_key_values, out.logits[:, -1].float()


def _anew(model: Any, ids_NT: torch.Tensor) -> torch.Tensor:
    trunk.forget_lengths(model)
    return model(ids_NT, use_cache=False).logits[:, -1].float()


def cache_is_right(model: Any) -> bool:
    """Whether growing from a shared cache gives what a model computes anew; some architectures lose their state."""
    import torch

    vocab = model.get_output_embeddings().weight.shape[0]
    rng = np.random.default_rng(0)
    prompt, u_NT = rng.integers(0, vocab, 6).tolist(), rng.random((6, 8))
    try:
        prefix = prefill(model, prompt)
        whole = grow(model, prompt, u_NT, Sampler(), stop=frozenset(), prefix=prefix)
        # two of six end early and leave the cache
        got = grow(model, prompt, u_NT, Sampler(), stop=frozenset(ids[2] for ids, _ in whole[:2]), prefix=prefix)
    except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError):
        return False
    exact = next(model.parameters()).dtype == torch.float32
    worst = 0.0
    for ids, values in got:
        with torch.inference_mode():
            trunk.forget_lengths(model)
            logits = model(torch.tensor([prompt + ids], device=model.device), use_cache=False).logits[0].float()
        ids_T1 = torch.tensor(ids, device=model.device)[:, None]
        want = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, ids_T1)
        worst = max(worst, float((want[:, 0].cpu() - torch.tensor(values)).abs().max()))
    return worst < CACHE_TOLERANCE[exact]
