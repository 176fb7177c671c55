"""Known faults of engines, made on purpose: what the log-probs of the same tokens would be with each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.errors import AnalyzerError
from analyzer.scoring import precision, trunk
from analyzer.scoring.encoding import continuation
from analyzer.scoring.encoding.encode import Encoded, encode_prompt, marks_of
from analyzer.scoring.encoding.prompts import TEMPLATES

CELLS = 1 << 25  # logits at most that are sorted for samplers
CLIP = 20.0  # nats at which a difference is cut: log-probs of minus infinity have a size
SHIFTS = (1, -1)
TEMPERATURES = (0.6, 0.7, 0.8, 0.9)  # tried with truncations, beside 1; alone the best one is sought
TOP_P, TOP_K = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99), (5, 10, 20, 40, 50, 100)
ROPE = (2.0, 4.0, 8.0, 16.0, 0.5, 0.25, 0.125)  # positions divided by
THETA = (10.0, 100.0, 50.0, 0.1, 0.01, 0.02)  # base of the frequencies multiplied by
QUANTISED = {  # bits, weights of a group (0: a row), whether without zero points
    "int8 by rows": (8, 0, True),
    "int8 in groups of 32": (8, 32, True),
    **{f"int4 in groups of {n}": (4, n, True) for n in (32, 64, 128)},
    **{f"int4 with zero points in groups of {n}": (4, n, False) for n in (32, 64, 128)},
}

Values = list[np.ndarray]  # log-probs of the items' tokens, NaN where a fault says nothing


def made(
    loaded: Any, items: list[Encoded], rows: list[Any], now: Values, want: Values
) -> Iterator[tuple[str, str, Callable[[], Values]]]:
    """(kind, in words, the function that makes the log-probs) of every known fault, cheap ones first.

    rows: the items' `logits`. now: log-probs by these. want: those of the other engine, to which a temperature is fit.
    """
    for n in SHIFTS:
        said = f"off by one: each token has the log-prob of the {'next' if n > 0 else 'previous'} one"
        yield "off by one", said, lambda n=n: [_shifted(v, n) for v in now]
    row = "off by one: each token is looked up in the row behind its own"
    yield "off by one", row, lambda: [picked(r[1:], i.response_ids) for r, i in zip(rows, items, strict=True)]
    yield from _samplers(items, rows, want)
    for kind, said, prompts in _prompts(loaded, items):
        yield kind, said, lambda prompts=prompts: scored(loaded.model, items, prompts)
    changes = [("RoPE", f"RoPE: positions divided by {f:g}", _rope(lambda v, f=f: v / f)) for f in ROPE]
    theta = loaded.model.config.get_text_config()
    theta = (getattr(theta, "rope_parameters", None) or {}).get("rope_theta") or getattr(theta, "rope_theta", 1e4)
    for f in THETA:
        power = np.log(theta * f) / np.log(theta)
        changes.append(("RoPE", f"RoPE: theta {theta * f:g} for {theta:g}", _rope(lambda v, a=power: v**a)))
    for name, shape in QUANTISED.items():
        changes.append(("quantisation", f"quantisation: {name}", _quantised(*shape, loaded.model)))
    for kind, said, change in changes:
        yield kind, said, lambda change=change: scored(loaded.model, items, change=change)


def _samplers(items: list[Encoded], rows: list[Any], want: Values) -> Iterator[tuple[str, str, Callable[[], Values]]]:
    """Temperature and truncation, of some tokens; the temperature that fits best is sought."""
    import torch

    few = max(1, CELLS // rows[0].shape[-1] // len(rows))
    some = [r[:-1][:few] for r in rows]
    ids = [i.response_ids[:few] for i in items]

    def padded(values: list[Any]) -> Values:
        return [np.concatenate([v, np.full(len(w) - len(v), np.nan)]) for v, w in zip(values, want, strict=True)]

    def cooled(t: float) -> Values:
        return padded([picked(r / t, i) for r, i in zip(some, ids, strict=True)])

    known = [np.where(np.arange(len(w)) < few, w, np.nan) for w in want]
    low, high = np.log(0.05), np.log(5.0)
    for _ in range(24):  # golden section: the size of the difference falls and rises
        a, b = (low + (high - low) * part for part in (0.382, 0.618))
        low, high = (low, b) if size(cooled(np.exp(a)), known) < size(cooled(np.exp(b)), known) else (a, high)
    best = float(np.exp((low + high) / 2))
    yield "temperature", f"temperature {best:.3g} applied", lambda: cooled(best)

    def cut(t: float) -> tuple[list[Any], list[Any], list[Any]]:
        """(log-probs by falling probability, cumulated probabilities, place of each target)"""
        falling = [(r / t).log_softmax(-1).sort(-1, descending=True) for r in some]
        place = [
            (f.indices == torch.tensor(i, device=f.indices.device)[:, None]).int().argmax(-1)
            for f, i in zip(falling, ids, strict=True)
        ]
        return [f.values for f in falling], [f.values.exp().cumsum(-1) for f in falling], place

    for t in (1.0, *TEMPERATURES):
        made: list[Any] = []

        def truncated(kept_of: Callable[[Any], Any], t: float = t, made: list[Any] = made) -> Values:
            made[:] = made or [cut(t)]
            out = []
            for values, upto, place in zip(*made[0], strict=True):
                kept = kept_of(upto).clamp(1, values.shape[-1])
                logp = values.gather(1, place[:, None])[:, 0] - upto.gather(1, kept[:, None] - 1)[:, 0].log()
                out.append(logp.masked_fill(place >= kept, -torch.inf).double().cpu().numpy())
            return padded(out)

        after = "" if t == 1 else f" after temperature {t:g}"
        for p in TOP_P:
            said = f"truncation: top-p {p:g}{after}, renormalised"
            yield "truncation", said, lambda p=p, f=truncated: f(lambda upto: (upto < p).sum(-1) + 1)
        for k in TOP_K:
            said = f"truncation: top-k {k}{after}, renormalised"
            yield "truncation", said, lambda k=k, f=truncated: f(lambda upto: torch.full_like(upto[:, 0], k).long())


def _prompts(loaded: Any, items: list[Encoded]) -> Iterator[tuple[str, str, list[tuple[int, ...]]]]:
    """(kind, in words, the prompts' ids) of ways to ask otherwise; None for an item that can't be asked so."""
    tokenizer, config = loaded.tokenizer, loaded.model.config.get_text_config()
    bos = getattr(tokenizer, "bos_token_id", None)
    bos = getattr(config, "bos_token_id", None) if bos is None else bos
    own = [i.prompt_ids for i in items]
    if isinstance(bos, int):
        has = own[0][:1] == (bos,)
        yield "BOS", "BOS twice" if has else "BOS added", [(bos, *p) for p in own]
        if has:
            yield "BOS", "BOS left out", [p[1:] for p in own]
    yield "template", "template: nothing but the prompt's last token", [p[-1:] for p in own]
    if tokenizer is None:
        return
    special = continuation.kind(tokenizer).special
    yield "template", "template: special tokens left out", [tuple(i for i in p if i not in special) for p in own]
    names = [n for n in TEMPLATES if n != "chat" or getattr(tokenizer, "chat_template", None)]
    for name in names:
        template = "chat" if name == "chat" else TEMPLATES[name]
        found = [_asked(i, loaded, template) for i in items]
        yield "template", f"template: {name} over the bare question", found


def _asked(item: Encoded, loaded: Any, template: str) -> tuple[int, ...]:
    """The prompt of a trace's bare question by a template; none where it can't be made."""
    trace, tokenizer = item.trace, loaded.tokenizer
    question = trace.question
    if question is None and isinstance(trace.prompt, list):
        users = [m.get("content") for m in trace.prompt if isinstance(m, dict) and m.get("role") == "user"]
        question = next((u for u in reversed(users) if isinstance(u, str)), None)
    if question is None:
        question = trace.prompt if isinstance(trace.prompt, str) else None
    if question is None:
        question = continuation.decode(item.prompt_ids, tokenizer, special=False)
    if not question:
        return ()
    bare = replace(trace, prompt=None, prompt_ids=None, question=question)
    how = {"vocab_size": loaded.vocab_size, "date": None, "marks": marks_of(tokenizer, loaded.eos_ids)}
    with contextlib.suppress(AnalyzerError):
        return encode_prompt(bare, tokenizer, template, [], **how)
    return ()


def scored(
    model: Any,
    items: list[Encoded],
    prompts: list[tuple[int, ...]] | None = None,
    change: Callable[[Any, str, Any], Any] | None = None,
) -> Values:
    """Log-probs of the items after other prompts, or with changed weights."""
    prompts = [i.prompt_ids for i in items] if prompts is None else prompts
    with contextlib.nullcontext() if change is None else precision.replaced(model, change):
        return [
            picked(logits(model, p, i.response_ids)[:-1], i.response_ids) if p else np.full(len(i.response_ids), np.nan)
            for p, i in zip(prompts, items, strict=True)
        ]


def _rope(change: Callable[[Any], Any]) -> Callable[[Any, str, Any], Any]:
    return lambda module, name, value: change(value) if name.endswith("inv_freq") else value


def _quantised(bits: int, group: int, even: bool, model: Any) -> Callable[[Any, str, Any], Any]:
    """Weights of the layers' products rounded to so many bits: round to nearest, the largest of a group kept."""
    import torch

    head = model.get_output_embeddings()

    def change(module: Any, name: str, value: Any) -> Any:
        if not isinstance(module, torch.nn.Linear) or module is head or name != "weight":
            return value
        width = value.shape[1]
        if group and width % group:
            raise ValueError("weights that do not fall into whole groups")
        w = value.float().reshape(-1, group or width)
        if even:
            most = 2 ** (bits - 1) - 1
            scale = (w.abs().amax(1, keepdim=True) / most).clamp(min=1e-12)
            w = (w / scale).round().clamp(-most - 1, most) * scale
        else:
            least, span = w.amin(1, keepdim=True), w.amax(1, keepdim=True) - w.amin(1, keepdim=True)
            scale = (span / (2**bits - 1)).clamp(min=1e-12)
            w = ((w - least) / scale).round() * scale + least
        return w.reshape(value.shape).to(value.dtype)

    return change


def logits(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Any:
    """Float32 logits [T + 1, V]: the rows that predict the response's tokens, and the one behind its last."""
    import torch

    ids = torch.tensor([[*prompt, *response]], device=model.device)
    with torch.inference_mode():
        trunk.forget_lengths(model)
        return model(ids, use_cache=False).logits[0, len(prompt) - 1 :].float()


def picked(rows: Any, ids: Sequence[int]) -> np.ndarray:
    """Log-probs float64 [T] of the ids by their rows."""
    import torch

    return rows.log_softmax(-1).gather(1, torch.tensor(ids, device=rows.device)[:, None])[:, 0].double().cpu().numpy()


def _shifted(values: np.ndarray, n: int) -> np.ndarray:
    out = np.full(len(values), np.nan)
    out[max(0, -n) : len(values) - max(0, n)] = values[max(0, n) : len(values) - max(0, -n)]
    return out


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """one - other, cut at CLIP; 0 where both are -inf, NaN where either is unknown."""
    floor = -1e4
    both = np.maximum(one, floor) - np.maximum(other, floor)
    return np.clip(both, -CLIP, CLIP)


def size(one: Values, other: Values, power: int = 2) -> float:
    """Root mean square of the differences that are known (power 1: mean without sign); infinite where none is."""
    off = np.concatenate([difference(a, b) for a, b in zip(one, other, strict=True)])
    off = np.abs(off[~np.isnan(off)])
    return float((off**power).mean() ** (1 / power)) if len(off) else np.inf
