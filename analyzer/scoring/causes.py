"""Why log-probs of the same tokens differ from a model's: each known fault is made on purpose, and compared.

A cause is named where making it leaves less than LEFT of the difference. What is left to name is a matter of size:
rounding in a lower precision, or beyond that other weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analyzer.errors import AnalyzerError
from analyzer.scoring import faults, precision, trunk
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.faults import Values, scored, size

TRACES, TOKENS = 16, 64  # of so many traces, the first so many tokens are looked at
SAME = 1e-3  # nats, root mean square: two ways through one model in float32
LEFT = 0.7  # of the difference, root mean square and mean, at most where a cause is named
TINY = 1e-9  # nats
CLEAR = 0.1  # ... below which no further cause is tried
NOISE = 3.0  # times the rounding of the model in a lower precision that another engine's may be


@dataclass(frozen=True)
class Cause:
    """kind: "none", "precision", or a fault: "off by one", "temperature", "truncation", "BOS", "template", "RoPE",
    "quantisation", "weights". said: in words. tried: what was made -> the part of the difference that it leaves."""

    kind: str
    said: str
    size: float  # of the difference, nats, root mean square over the tokens looked at
    tokens: int
    tried: dict[str, float] = field(default_factory=dict)

    @property
    def is_fault(self) -> bool:
        """Whether it is more than rounding."""
        return self.kind not in ("none", "precision")


def find(loaded: Any, items: Sequence[Encoded], other: Sequence[np.ndarray]) -> Cause:
    """Why `other`, the log-probs of the items' response tokens by another engine (NaN: unknown, -inf: impossible),
    differ from those of the model in memory. Tokens are those of all of the response, also where a mask leaves some
    out. Nothing of the model is changed."""
    at = np.unique(np.linspace(0, len(items) - 1, min(TRACES, len(items))).astype(int))
    items = [replace(items[i], response_ids=items[i].response_ids[:TOKENS], own=None) for i in at]
    want = [np.asarray(other[i], float)[:TOKENS] for i in at]
    model = loaded.model
    rows = [faults.logits(model, i.prompt_ids, i.response_ids) for i in items]
    now = [faults.picked(r[:-1], i.response_ids) for r, i in zip(rows, items, strict=True)]
    whole, tokens = size(now, want), int(sum(np.isfinite(w).sum() for w in want))
    if whole <= SAME:
        return Cause("none", "the same up to rounding in float32", whole, tokens)
    tried: dict[str, float] = {}
    found: dict[str, str] = {}
    for kind, said, make in faults.made(loaded, items, rows, now, want):
        try:
            values = make()
        except (trunk.Unsupported, AnalyzerError, RuntimeError, AttributeError, TypeError, ValueError):
            continue  # this model has no such part
        known = [np.where(np.isnan(v), np.nan, w) for v, w in zip(values, want, strict=True)]
        left = max(size(values, known, power) / max(size(now, known, power), TINY) for power in (1, 2))
        if left < tried.get(said, np.inf):
            tried[said], found[said] = left, kind
        if left < CLEAR:
            break
    tried = dict(sorted(tried.items(), key=lambda pair: pair[1]))
    best = next(iter(tried), None)
    if best is not None and tried[best] <= LEFT:
        return Cause(found[best], best, whole, tokens, tried)
    for dtype, noise in _rounding(model, items, now).items():
        if whole <= NOISE * noise:
            return Cause("precision", f"as large as rounding in {dtype} ({noise:.2g} nats)", whole, tokens, tried)
    return Cause("weights", _unexplained(now, want), whole, tokens, tried)


def _unexplained(now: Values, want: Values) -> str:
    one, two = (np.concatenate(v) for v in (now, want))
    known = np.isfinite(one) & np.isfinite(two)
    alike = float(np.corrcoef(one[known], two[known])[0, 1]) if known.sum() > 2 else 0.0
    near = "close ones: an earlier step, another revision" if alike > 0.9 else "another model, or another prompt"
    return f"other weights ({near}; no other cause that is tried explains it; correlation {alike:.2f})"


def _rounding(model: Any, items: list[Encoded], now: Values) -> dict[str, float]:
    """Precision -> size of its rounding under this model, nats; small ones first."""
    out = {}
    for dtype in ("float16", "bfloat16"):
        with contextlib.suppress(trunk.Unsupported, RuntimeError):
            exact = now
            if precision.is_lower(model):
                with precision.computed_in(model):
                    exact = scored(model, items)
            if precision.own(model) == dtype:
                out[dtype] = size(exact, now)
                continue
            with precision.computed_in(model, dtype):
                out[dtype] = size(exact, scored(model, items))
    return dict(sorted(out.items(), key=lambda pair: pair[1]))
