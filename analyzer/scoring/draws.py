"""Responses drawn from a local model: samples of many prompts grow together, every prompt is computed once for its own.

Prompts of different lengths are padded on the left under a mask, where the loaded model is seen to take that. Each
sample has random numbers of its own, made from seed, problem and sample number, and no other row of its batch enters
into it but by rounding: sums in another order move the last bits of a logit, and a random number that lies so close to
a border draws the neighbour, from where the response goes its own way. Measured on a small model: one token in 14,000
to 87,000 in float32, one in 36 in bfloat16. Either is a draw of the model, and the log-probs are of what was drawn.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.errors import ResourceError
from analyzer.records import Sampler
from analyzer.scoring import columns, local, precision, trunk

if TYPE_CHECKING:
    import torch

PRUNE = 0.25  # finished samples leave the cache when they are this share of it
PADDING = 1.5  # prompts of different lengths grow together up to this much padding, responses counted at their longest
CACHE_TOLERANCE = {True: 1e-3, False: 0.25}  # nats, in float32 and where a model can only be computed lower

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


def drawer(loaded: Any, batch: int) -> Callable[..., list[Drawn]]:
    """The function (loaded, problems, n, sampler, seed) that draws n samples of each problem (`sample.Asked`), in
    their order, at most `batch` at a time. When memory runs out the batch is halved from then on.

    Raises ResourceError where memory does not suffice for one sample.
    """
    model, stop, limit = loaded.model, stop_ids(loaded), trunk.rope_limit(loaded.model)
    cached = cache_is_right(model)
    mixed = cached and cache_is_right(model, (6, 3, 9))

    def draw_all(loaded: Any, problems: Sequence[Any], n: int, sampler: Sampler, seed: int) -> list[Drawn]:
        nonlocal batch
        rows = [(p, s) for p in problems for s in range(n)]
        left = sorted(range(len(rows)), key=lambda i: (len(rows[i][0].prompt_ids), rows[i][0].prompt_ids))
        drawn: list[Any] = [None] * len(rows)
        known, prefix = None, None
        while left:
            some = left[: alike([rows[i][0] for i in left[:batch]], mixed, limit)]
            asked = [rows[i][0] for i in some]
            prompts = list(dict.fromkeys(a.prompt_ids for a in asked))
            of_N = [prompts.index(a.prompt_ids) for a in asked]
            u_N = [uniforms(seed, a.trace.problem, rows[i][1], a.max_tokens) for i, a in zip(some, asked)]
            try:
                if prompts != known:
                    known, prefix = prompts, None
                    if cached and (limit is None or longest(asked[0]) <= limit):
                        prefix = prefill(model, prompts)
                grown = grow(model, prompts, of_N, u_N, sampler, stop=stop, prefix=prefix)
            except (MemoryError, RuntimeError) as error:
                if not local.is_out_of_memory(error):
                    raise
                if len(some) == 1:
                    raise ResourceError(
                        f"out of memory while {loaded.name} draws one response of up to {asked[0].max_tokens} tokens; "
                        "try a smaller --max-tokens, --dtype bfloat16, or --server"
                    ) from error
                known, prefix, batch = None, None, len(some) // 2
                continue
            for i, (ids, logprobs) in zip(some, grown, strict=True):
                text = "" if loaded.tokenizer is None else loaded.tokenizer.decode(ids, skip_special_tokens=True)
                rounded = tuple(round(v, 6) + 0.0 for v in logprobs)
                drawn[i] = tuple(ids), rounded, text, "stop" if ids[-1] in stop else "length"
            left = left[len(some) :]
        return drawn

    return draw_all


def longest(asked: Any) -> int:
    """Tokens of a problem's prompt and of its longest response."""
    return len(asked.prompt_ids) + asked.max_tokens


def alike(asked: Sequence[Any], mixed: bool, limit: int | None) -> int:
    """How many of the rows (`sample.Asked`, by length of their prompts) grow together: those of one length, and where
    the model takes mixed lengths, those up to its limit (see `trunk.rope_limit`) under little padding."""
    used = 0
    for n, one in enumerate(asked):
        used += longest(one)
        cells = (n + 1) * (len(one.prompt_ids) + asked[0].max_tokens)
        apart = not mixed or (limit is not None and longest(one) > limit) or cells > PADDING * used
        if apart and len(one.prompt_ids) > len(asked[0].prompt_ids):
            return n
    return len(asked)


def stop_ids(loaded: Any) -> frozenset[int]:
    """The end-of-sequence ids of a model: its generation config's, and its tokenizer's."""
    config = getattr(loaded.model, "generation_config", None)
    found = getattr(config, "eos_token_id", None)
    ids = [*found] if isinstance(found, (list, tuple)) else [found]
    return frozenset(i for i in (*ids, getattr(loaded.tokenizer, "eos_token_id", None)) if i is not None)


def grow(
    model: Any,
    prompts: Sequence[Sequence[int]],
    of_N: Sequence[int],
    u_N: Sequence[np.ndarray],
    sampler: Sampler,
    *,
    stop: frozenset[int],
    prefix: tuple[Any, Any, Any] | None = None,
) -> list[tuple[list[int], list[float]]]:
    """N responses, the n-th to prompts[of_N[n]] with token t drawn at u_N[n][t]: their ids (with the stop id iff drawn)
    and log-probs at T=1 (nats). Each ends at a stop id or after len(u_N[n]) tokens.

    prefix: what `prefill` returned for the prompts; without it every step computes everything again, and the prompts
    must be of one length.
    """
    import torch

    n, most = len(u_N), max(map(len, u_N))
    ids_NT = torch.zeros((n, most), dtype=torch.long, device=model.device)
    logprob_NT = torch.zeros((n, most), device=model.device)
    u_NT = torch.from_numpy(np.stack([np.pad(u, (0, most - len(u))) for u in u_N])).to(model.device)
    ends = torch.tensor([len(u) for u in u_N], device=model.device)
    stops = torch.tensor(sorted(stop), dtype=torch.long, device=model.device)
    of = torch.tensor(of_N, device=model.device)
    held = torch.arange(n, device=model.device)  # the rows that are still computed; a few of them may be finished
    with torch.inference_mode():
        if prefix is None:
            cache, mask_NL, prompts_PL = None, None, torch.tensor(prompts, device=model.device)
            logits = _anew(model, prompts_PL)[of]
        else:
            cache, logits, mask_PL = copy.deepcopy(prefix)
            cache.reorder_cache(of)
            logits = logits[of]
            mask_NL = None if mask_PL is None else torch.nn.functional.pad(mask_PL[of], (0, most))
        for t in range(most):
            ids_NT[held, t], logprob_NT[held, t] = draw(logits, u_NT[held, t], sampler)
            stopped = torch.isin(ids_NT[held, t], stops) & (ends[held] > t)
            ends[held[stopped]] = t + 1
            alive = ends[held] > t + 1
            if not alive.any():
                break
            if (~alive).float().mean() > PRUNE:
                if cache is not None:
                    cache.reorder_cache(alive.nonzero()[:, 0])
                held, alive = held[alive], alive[alive]
            if cache is None:
                logits = _anew(model, torch.cat([prompts_PL[of[held]], ids_NT[held, : t + 1]], 1))
                continue
            padded = {}
            if mask_NL is not None:
                past = mask_NL.shape[1] - most
                mask_NL[held, past + t] = alive.long()  # a finished row must not walk out of the context
                seen = mask_NL[held, : past + t + 1]
                padded = {"attention_mask": seen, "position_ids": seen.sum(1, keepdim=True) - 1}
            out = model(ids_NT[held, t : t + 1], past_key_values=cache, use_cache=True, **padded)
            logits = out.logits[:, -1].float()
    return [(i[:end], v[:end]) for i, v, end in zip(ids_NT.tolist(), logprob_NT.tolist(), ends.tolist())]


def prefill(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
    """(the prompts' cache, logits float32 [P, V] of what follows them, mask int64 [P, L] of what is no padding on the
    left: None where the prompts are of one length)."""
    import torch

    length = max(map(len, prompts))
    ids_PL = torch.tensor([[0] * (length - len(p)) + list(p) for p in prompts], device=model.device)
    options: dict[str, Any] = {}
    if any(len(p) < length for p in prompts):
        mask_PL = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        options = {"attention_mask": mask_PL, "position_ids": (mask_PL.cumsum(1) - 1).clamp(min=0)}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    with torch.inference_mode():
        trunk.forget_lengths(model)
        out = model(ids_PL, use_cache=True, **options)
    return out.past_key_values, out.logits[:, -1].float(), options.get("attention_mask")


def _anew(model: Any, ids_NT: torch.Tensor) -> torch.Tensor:
    trunk.forget_lengths(model)
    return model(ids_NT, use_cache=False).logits[:, -1].float()


def cache_is_right(model: Any, lengths: Sequence[int] = (6,)) -> bool:
    """Whether growing from the cache of prompts of these lengths gives what a model computes again; some architectures
    lose their state, some do not heed a mask. Asked in float32, whatever the model's own precision."""
    if precision.is_lower(model):
        with contextlib.suppress(trunk.Unsupported), precision.computed_in(model):
            return _cache_is_right(model, lengths, CACHE_TOLERANCE[True])
    return _cache_is_right(model, lengths, CACHE_TOLERANCE[not precision.is_lower(model)])


def _cache_is_right(model: Any, lengths: Sequence[int], tolerance: float) -> bool:
    import torch

    vocab = model.get_output_embeddings().weight.shape[0]
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, vocab, length).tolist() for length in lengths]
    of_N, u_N = [i % len(prompts) for i in range(6)], [rng.random(8 - i % len(prompts)) for i in range(6)]
    try:
        prefix = prefill(model, prompts)
        whole = grow(model, prompts, of_N, u_N, Sampler(), stop=frozenset(), prefix=prefix)
        # two of six end early and leave the cache
        early = frozenset(ids[2] for ids, _ in whole[:2])
        got = grow(model, prompts, of_N, u_N, Sampler(), stop=early, prefix=prefix)
    except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        if local.is_out_of_memory(error):
            raise
        return False
    for prompt, (ids, values) in zip((prompts[p] for p in of_N), got):
        with torch.inference_mode():
            trunk.forget_lengths(model)
            logits = model(torch.tensor([prompt + ids], device=model.device), use_cache=False).logits[0].float()
        ids_T1 = torch.tensor(ids, device=model.device)[:, None]
        want = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, ids_T1)
        if not (want[:, 0].cpu() - torch.tensor(values)).abs().max() < tolerance:  # NaN is wrong too
            return False
    return True
