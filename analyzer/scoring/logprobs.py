"""The one call: lists of ids and a model that is in memory -> the per-token columns; no run, no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.errors import UsageError, nearest
from analyzer.records import CORE_COLUMNS, SAMPLER_COLUMNS, Sampler, Trace
from analyzer.scoring import load
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.loaded import described

_PATHS: WeakKeyDictionary = WeakKeyDictionary()  # model -> {(sampler, precision): path}, probed once
Ids = Sequence[int]


def logprobs(
    model: Any,
    prompt_ids: Ids | Sequence[Ids],
    response_ids: Sequence[Ids],
    *,
    columns: Sequence[str] | None = None,
    sampler: Sampler | None = None,
) -> list[dict[str, np.ndarray]]:
    """Exact per-token columns of responses under a transformers causal LM, by the path that `analyzer score` takes.

    prompt_ids: of each response, or one prompt for all. response_ids: one list per response. columns: names of
    CORE_COLUMNS, with a sampler of SAMPLER_COLUMNS, and power_A for any exponent A > 0 (log sum_v p_v^A); None: all of
    the first two. Returns for each response, in order, {name: array [T]}: nats, but for rank (from 1, int32), token
    (int32) and the masses. A prompt that responses share is computed once. Raises UsageError for ids, lengths or names
    that can't be meant, ResourceError when memory runs out.
    """
    here = described(model, None, "the model", "")
    responses = [_ids(r, f"response_ids[{n}]", here.vocab_size) for n, r in enumerate(response_ids)]
    prompts = _prompts(prompt_ids, len(responses), here.vocab_size)
    for n, (p, r) in enumerate(zip(prompts, responses, strict=True)):
        if here.context is not None and len(p) + len(r) > here.context:
            raise UsageError(
                f"prompt and response_ids[{n}] are {len(p) + len(r):,} tokens long, more than the model's context of "
                f"{here.context:,}"
            )
    names, powers = _columns(columns, sampler)
    items = [
        Encoded(Trace("", "", n, ""), p, r, np.full(len(r), -1, np.int32))
        for n, (p, r) in enumerate(zip(prompts, responses, strict=True))
    ]
    training = model.training
    model.eval()
    try:
        known = _PATHS.setdefault(model, {})
        key = sampler, here.dtype
        if key not in known:
            known[key] = load.choose_path(here, sampler, "local")[0]
        options = {"path": known[key], "sampler": sampler, "limit": None, "powers": powers}
        found = {scored.key: scored.columns for scored in load.score(items, here, **options)}
    finally:
        model.train(training)
    return [{name: found[item.trace.key][name] for name in names} for item in items]


def _ids(given: Any, name: str, vocab: int) -> tuple[int, ...]:
    if not isinstance(given, Iterable):
        raise UsageError(f"{name} is {given!r}; expected a list of ids")
    ids = tuple(given.tolist() if hasattr(given, "tolist") else given)
    wrong = next((i for i in ids if not isinstance(i, Integral) or isinstance(i, bool) or not 0 <= i < vocab), None)
    if wrong is not None or not ids:
        what = "is empty" if not ids else f"holds {wrong!r}"
        raise UsageError(f"{name} {what}; expected at least one id from 0 to {vocab - 1}")
    return tuple(map(int, ids))


def _prompts(given: Any, count: int, vocab: int) -> list[tuple[int, ...]]:
    given = given.tolist() if hasattr(given, "tolist") else given
    if not len(given) or isinstance(given[0], Integral):
        return [_ids(given, "prompt_ids", vocab)] * count
    if len(given) != count:
        raise UsageError(
            f"{len(given):,} prompts for {count:,} responses; expected one each, or one list of ids for all"
        )
    return [_ids(p, f"prompt_ids[{n}]", vocab) for n, p in enumerate(given)]


def _columns(wanted: Sequence[str] | None, sampler: Sampler | None) -> tuple[list[str], tuple[float, ...]]:
    """The names of columns, and the exponents of power columns among them."""
    known = [*CORE_COLUMNS, *(SAMPLER_COLUMNS if sampler is not None else ())]
    if wanted is None:
        return known, ()
    if isinstance(wanted, str):
        raise UsageError(f"columns={wanted!r}: expected a list of names, [{wanted!r}]")
    powers = {}
    for name in wanted:
        kind, _, number = name.partition("_")
        try:
            powers[name] = float(number) if kind == "power" else 0.0
        except ValueError:
            powers[name] = 0.0
        if name not in known and not 0 < powers[name] < np.inf:
            with_sampler = "; it needs a sampler" if name in SAMPLER_COLUMNS else nearest(name, [*known, "power_2"])
            raise UsageError(f"column {name!r} is not known here{with_sampler}")
    exponents = {name: a for name, a in powers.items() if a}
    if wrong := next((name for name, a in exponents.items() if name != f"power_{a:g}"), None):
        raise UsageError(f"column {wrong!r}: write it power_{exponents[wrong]:g}")
    return list(wanted), tuple(exponents.values())
