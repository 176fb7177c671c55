"""The everyday scorer: the fastest path that agrees with `plain` on the loaded model.

    shared   prompts computed once, everything in flat packs                      (shared.py)
    cached   a prompt's cache copied for a padded batch of its responses          (cached.py)
    plain    one trace at a time: the definition                                  (plain.py)
Before anything is scored, a made-up group goes through the path and through `plain`; on a mismatch the next path is
tried, and the run records which was taken and why. Traces beyond a length at which a model behaves otherwise (windows,
RoPE that depends on length) leave the shared path one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.errors import ResourceError
from analyzer.records import Sampler, Scored, Trace
from analyzer.scoring import plain, precision, trunk
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.fast import cached, shared

PATHS = ("shared", "cached", "plain")
TOKEN_BUDGET = {"cpu": 4096, "cuda": 16384}  # tokens of a forward pass
LEAST_BUDGET = 128  # below it, running out of memory is final
PROBE_TOLERANCE = 1e-4  # nats, in float32
NOISE = 3.0  # times the error of `plain` in a lower precision that a path may have in it
UNKNOWN_TOLERANCE = 0.25  # nats, in lower precision where the weights can't be computed in float32
PROBE_BUDGETS = (12, 4096)  # a small one streams the made-up group over kept packs, as long traces are
_BEYOND_WINDOW: WeakKeyDictionary = WeakKeyDictionary()  # model -> path of traces beyond its window, probed once


def choose(model: Any, sampler: Sampler | None, wanted: str = "shared") -> tuple[str, str]:
    """(path, why): the first path from `wanted` on that agrees with `plain` on a made-up group."""
    reasons = []
    for path in PATHS[PATHS.index(wanted) : -1]:
        problem = probe(model, sampler, path)
        if problem is None:
            return path, "; ".join([*reasons, *_detours(model, path), "agrees with plain on the loaded model"])
        reasons.append(f"not {path}: {problem}")
    return "plain", "stepped down, " + "; ".join(reasons)


def probe(model: Any, sampler: Sampler | None, path: str) -> str | None:
    """None when a path agrees with `plain` on the loaded model, else the sentence that says how far off it is.

    Two made-up prompts with responses of several lengths, two of which begin alike, in one pack and streamed. They are
    compared in float32, whatever the model's own precision (`precision.computed_in`): 1e-4 nats. In a lower one the
    path may then be off from float32 by NOISE times as much as `plain` is in it, root mean square. Raises ResourceError
    where not even `plain` has numbers.
    """
    if path == "shared" and (problem := shared.refusal(model)):
        return problem
    items = _made_up(model)
    items[2] = replace(items[2], own=tuple(i % 5 > 1 for i in range(len(items[2].response_ids))))  # some are not scored
    rounded = _logprobs(plain.score(items, model, sampler), items)
    if np.isnan(rounded).all():
        raise ResourceError(
            "the model gives no log-probabilities on made-up tokens, only NaN: its weights hold NaN, or overflow in "
            "this precision; copy them again, or try --dtype float32"
        )

    def off(want: np.ndarray) -> np.ndarray:
        runs = (RUN[path](items, model, sampler, token_budget=budget) for budget in PROBE_BUDGETS)
        return np.abs([_logprobs(run, items) - want for run in runs])

    try:
        if not precision.is_lower(model):
            return _architecture(float(off(rounded).max()))
        exact = _in_float32(model, lambda: _logprobs(plain.score(items, model, sampler), items))
        if exact is None:
            worst = float(off(rounded).max())
            said = f"off by {worst:.2g} nats, by architecture or precision ({precision.own(model)})"
            return None if worst <= UNKNOWN_TOLERANCE else said
        with precision.computed_in(model):
            problem = _architecture(float(off(exact).max()))
        ours, plains = (float(np.sqrt((e**2).mean())) for e in (off(exact), rounded - exact))
    except (trunk.Unsupported, AttributeError, TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
        return f"fails on this architecture ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    lossy = not ours <= NOISE * plains + PROBE_TOLERANCE
    kind = precision.own(model)
    return problem or (
        f"loses precision, off by {ours:.2g} nats in {kind} where plain is by {plains:.2g} (root mean square)"
        if lossy
        else None
    )


def _architecture(worst: float) -> str | None:
    return None if worst <= PROBE_TOLERANCE else f"off by {worst:.2g} nats on this architecture"  # NaN is off too


def _in_float32(model: Any, run: Callable[[], Any]) -> Any:
    """What `run` gives where the model computes in float32; None where it can't (weights packed or on disk, or read by
    modules that they are not of)."""
    try:
        with precision.computed_in(model):
            return run()
    except (trunk.Unsupported, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return None


def _logprobs(scored: Iterable[Scored], items: Sequence[Encoded]) -> np.ndarray:
    """The log-probs of all traces, in the order of the items."""
    found = {s.key: s.columns["logprob"] for s in scored}
    return np.concatenate([found[i.trace.key] for i in items]).astype(float)


def half_precision_error(model: Any, path: str) -> str | None:
    """What lower precision costs on a made-up group against the same weights computed in float32; None in float32."""
    if not precision.is_lower(model):
        return None
    name, items = precision.own(model), _made_up(model)
    got = {s.key: s for s in RUN[path](items, model, None, token_budget=PROBE_BUDGETS[-1])}
    want = _in_float32(model, lambda: {s.key: s for s in plain.score(items, model, None)})
    if want is None:
        return f"{name}: error not measured, these weights can't be computed in float32 as they lie"
    off, moved = (
        np.concatenate([np.abs(got[k].columns[c] - want[k].columns[c]) for k in want]) for c in ("logprob", "rank")
    )
    return (
        f"{name} against float32 on {len(off)} made-up tokens: log-prob off by {np.sqrt((off**2).mean()):.2g} nats "
        f"(root mean square; largest {off.max():.2g}), {(moved > 0).mean():.0%} of the ranks changed"
    )


def _made_up(model: Any) -> list[Encoded]:
    """Two prompts with responses of several lengths, two of which begin alike."""
    rng = np.random.default_rng(0)
    vocab = min(model.config.get_text_config().vocab_size, 50_000)
    first = rng.integers(0, vocab, 16).tolist()
    items = []
    for n, (p, r) in enumerate([(5, 1), (5, 9), (5, 13), (5, 12), (3, 7)]):
        ids = rng.integers(0, vocab, p + r).tolist()
        ids[:p] = first[:p]
        if n in (2, 3):
            ids[p : p + 8] = first[8:]
        items.append(Encoded(Trace("probe", "probe", n, ""), tuple(ids[:p]), tuple(ids[p:]), np.full(r, -1, np.int32)))
    return items


def score(
    encoded: Iterable[Encoded],
    model: Any,
    sampler: Sampler | None,
    *,
    path: str = "shared",
    powers: tuple[float, ...] = (),
    token_budget: int | None = None,
    note: Callable[[str, Any], None] = lambda name, value: None,
) -> Iterator[Scored]:
    """Score traces that differ in ids or sampler under `model` by a path; yields them in an order of its own.

    powers: exponents of the power columns. token_budget: tokens of a forward pass (TOKEN_BUDGET by device). When memory
    runs out the budget is halved and what is left goes on with it; note("token_budget", tokens) is called with the
    budget at first and whenever it changes.
    """
    budget = token_budget or TOKEN_BUDGET.get(model.device.type, 4096)
    note("token_budget", budget)
    for way, items in _routes(list(encoded), model, path):
        left = {item.trace.key: item for item in items}
        while left:
            try:
                for scored in RUN[way](list(left.values()), model, sampler, token_budget=budget, powers=powers):
                    yield scored
                    del left[scored.key]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or budget // 2 < LEAST_BUDGET:
                    raise
                budget //= 2
                note("token_budget", budget)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or Python says that memory ran out (CPU allocations fail as RuntimeError)."""
    import torch

    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text


def _routes(items: list[Encoded], model: Any, path: str) -> list[tuple[str, list[Encoded]]]:
    """Which traces take which path: those beyond the model's limits leave the chosen one."""
    rope = trunk.rope_limit(model) if path != "plain" else None
    window = trunk.window(model) if path == "shared" else None
    ways: dict[str, list[Encoded]] = {path: [], "window": [], "plain": []}
    for item in items:
        alone, wide = rope is not None and len(item) > rope, window is not None and len(item) > window
        ways["plain" if alone else "window" if wide else path].append(item)
    wide = ways.pop("window")
    if wide:
        if model not in _BEYOND_WINDOW:
            _BEYOND_WINDOW[model] = "cached" if probe(model, None, "cached") is None else "plain"
        ways.setdefault(_BEYOND_WINDOW[model], []).extend(wide)
    return [(way, some) for way, some in ways.items() if some]


def _detours(model: Any, path: str) -> list[str]:
    """What a path's record says about traces that leave it."""
    rope, window = trunk.rope_limit(model), trunk.window(model)
    out = [f"traces beyond {rope} tokens one by one (RoPE depends on length)"] if rope is not None else []
    if path == "shared" and window is not None:
        out.append(f"traces beyond {window} tokens (attention window) by their prompt's cache")
    return out


def _one_by_one(
    items: list[Encoded], model: Any, sampler: Sampler | None, *, token_budget: int, powers: tuple[float, ...] = ()
) -> Iterator[Scored]:
    return plain.score(items, model, sampler, powers=powers)


RUN: dict[str, Callable[..., Iterator[Scored]]] = {"shared": shared.score, "cached": cached.score, "plain": _one_by_one}
