"""Hidden states -> columns: the LM head over blocks of rows into one reused buffer, statistics while rows are in cache.

The same columns as `columns.py`, which defines them; here every pass over the vocabulary counts. With x_v = (l_v - max
l) / 2 and h_v = exp x_v for all tokens but the target (whose share is added afterwards):

    S0 = sum h^2    S1 = sum h (h x)    S2 = sum (h x)^2    R = sum h      one exponential, three products, four sums
    log p = 2 x_t - log(S0 + h_t^2), or -log1p(S0) where the target is the arg-max: exact next to p = 1
    H = log Z - E[d]    var = E[d^2] - E[d]^2    Renyi_1/2 = 2 log(R + h_t) - log Z       with d = 2 x

Rows for which this form would lose digits (cancellation in the variance) take the definition instead. The power columns
take an exponential more for each exponent, or a product where it is twice another one (`sums.exponentials`). The
sampler columns under further samplers (laws) are computed for the rows that ask for them.
Rank and mass above are needed only where the target is not the arg-max. They compare raw float32 logits strictly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np

from analyzer.records import SAMPLER_COLUMNS, Sampler
from analyzer.scoring.columns import (
    Column,
    all_columns,
    core_columns,
    plain_sampler,
    power,
    powers,
    sampler_columns,
    top_alternatives,
)
from analyzer.scoring.fast import nucleus, sums

# rows of one head product: fewer read the head's weights too often (CPU: 64 are 1.4 times slower)
ROW_BLOCK = {"cpu": 512, "cuda": 4096}
LOGIT_CELLS = {"cpu": 1 << 24, "cuda": 1 << 28}  # at most this many float32 logits at once (64 MiB, 1 GiB)
EAGER_CELLS = 1 << 26  # where a device has no kernel, the definition runs over so many logits at a time
CACHE_CELLS = 1 << 18  # statistics run over so many logits at a time (1 MiB)
GATHER_CELLS = 1 << 20  # rows that are looked at once more are copied so many logits at a time
SURE = 1 / 64  # probability beside the likeliest token below which a power needs a sum that leaves that token out


@dataclass(frozen=True)
class Head:
    """The output layer, what the architecture does to its logits, and the buffers that every block reuses."""

    weight_HV: Any  # float32 on CPU, the model's dtype elsewhere
    bias_V: Any | None
    factor: float  # Cohere's logit_scale, one over Granite's logits_scaling
    cap: float | None  # Gemma 2's softcapping
    logits: Any  # float32 [rows, V]
    work: Any  # float32 [threads, 3, cells]


def prepare(model: Any) -> Head:
    """The head of a transformers causal LM; further transforms of logits that it may have are the probe's to find."""
    import torch

    layer = model.get_output_embeddings()
    config = model.config.get_text_config()
    factor = getattr(config, "logit_scale", None) or 1.0
    factor /= getattr(config, "logits_scaling", None) or 1.0
    weight, bias = layer.weight.detach(), getattr(layer, "bias", None)
    if weight.device.type == "cpu":  # half-precision logits tie, and ties change ranks: the product is float32
        weight = weight.float()
        bias = None if bias is None else bias.detach().float()
    vocab = weight.shape[0]
    threads, stretch = torch.get_num_threads(), max(1, CACHE_CELLS // vocab)
    device = weight.device
    rows, cells = (limit.get(device.type, limit["cpu"]) for limit in (ROW_BLOCK, LOGIT_CELLS))
    rows = max(1, min(max(rows, threads * stretch), cells // vocab))  # a tiny vocabulary: one block a pack
    return Head(
        weight.t(),
        bias,
        factor,
        getattr(config, "final_logit_softcapping", None),
        torch.empty((rows, vocab), dtype=torch.float32, device=device),
        torch.empty((threads, 3, stretch * vocab), dtype=torch.float32, device=device),
    )


def by_law(ranges: Iterable[tuple[tuple[Sampler, ...], int, int]], count: int) -> dict[Sampler, Any]:
    """(laws that a trace asks for, begin, end of its rows) -> law -> which rows need it, bool [count]."""
    import torch

    out: dict[Sampler, Any] = {}
    for laws, begin, end in ranges:
        for law in laws:
            out.setdefault(law, torch.zeros(count, dtype=torch.bool))[begin:end] = True
    return out


def columns(
    hidden_MH: Any,
    targets_M: Any,
    head: Head,
    sampler: Sampler | None,
    exponents: tuple[float, ...] = (),
    laws: Mapping[Sampler, Any] = MappingProxyType({}),
) -> tuple[dict[Column, np.ndarray], dict[int, tuple[tuple[int, ...], tuple[float, ...]]]]:
    """All columns of M scored tokens as numpy arrays [M], and row -> (ids, log-probs) of kept alternatives.

    exponents: of the power columns. laws: see `by_law`; under (name, law) stand the sampler columns by each, NaN in the
    rows that do not need it.
    """
    import torch

    rows, device = len(head.logits), head.logits.device
    hidden_MH, targets_M = hidden_MH.to(device), targets_M.to(device)  # the last layer may lie on another one
    parts, tops = [], {}
    for at in range(0, len(targets_M), rows):
        targets = targets_M[at : at + rows]
        logits = _logits(hidden_MH[at : at + rows], head)
        here = {law: needed_M[at : at + rows].to(device) for law, needed_M in laws.items()}
        if logits.device.type == "cpu":
            found = _columns_by_threads(logits, targets, head.work, sampler, exponents, here)
        else:
            found = _columns_on_device(logits, targets, sampler, exponents, here)
        parts.append(found)
        tops |= {at + r: (ids, values) for r, ids, values in top_alternatives(logits, found["logprob"])}
    kinds = {name: np.int32 if name == "rank" else np.float32 for name in parts[0]}
    return {name: torch.cat([p[name] for p in parts]).cpu().numpy().astype(kinds[name]) for name in kinds}, tops


def _logits(hidden_RH: Any, head: Head) -> Any:
    """Float32 logits [R, V] in the reused buffer."""
    import torch

    out = head.logits[: len(hidden_RH)]
    if out.device.type == "cpu":
        torch.mm(hidden_RH.float(), head.weight_HV, out=out)
    elif hidden_RH.dtype == torch.float32:  # also where a model in lower precision is computed in this one
        torch.mm(hidden_RH, head.weight_HV.float(), out=out)
    else:
        torch.mm(hidden_RH, head.weight_HV, out_dtype=torch.float32, out=out)
    if head.bias_V is not None:
        out += head.bias_V
    if head.factor != 1:
        out *= head.factor
    if head.cap is not None:
        out.div_(head.cap).tanh_().mul_(head.cap)
    return out


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that each run torch's operations alone: a small operation on two cores waits longer than it works."""
    import torch

    out = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1))
    list(out.map(lambda n: time.sleep(0.01), range(count)))  # all of them start
    torch.set_num_threads(count)  # what this thread may use, said again: the initializers changed the default
    return out


def _columns_by_threads(
    logits: Any,
    targets: Any,
    work: Any,
    sampler: Sampler | None,
    exponents: tuple[float, ...],
    laws: Mapping[Sampler, Any],
) -> dict[Column, Any]:
    """`_columns_on_cpu`, the rows divided among threads."""
    import torch

    count = len(work)
    if count == 1 or len(logits) < 2 * count:
        return _columns_on_cpu(logits, targets, work[0], sampler, exponents, laws)

    def part(n: int) -> dict[Column, Any]:
        with torch.inference_mode():
            mine = slice(n * len(logits) // count, (n + 1) * len(logits) // count)
            needed = {law: needed_R[mine] for law, needed_R in laws.items()}
            return _columns_on_cpu(logits[mine], targets[mine], work[n], sampler, exponents, needed)

    parts = list(_threads(count).map(part, range(count)))
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _columns_on_cpu(
    logits: Any,
    targets: Any,
    work: Any,
    sampler: Sampler | None,
    exponents: tuple[float, ...] = (),
    laws: Mapping[Sampler, Any] = MappingProxyType({}),
) -> dict[Column, Any]:
    """`columns.all_columns`, with every pass but the first over few rows at a time that stay in cache."""
    import torch

    top_R = logits.amax(-1)
    target_R = logits.gather(1, targets[:, None])[:, 0]
    drawn = [law for law in (sampler, *laws) if law is not None]
    count_R, mass_R, *masses_R = _above(logits, target_R, top_R, (1.0, *(law.temperature for law in drawn)))
    out = sums.moments(logits, targets, top_R, target_R, work)
    total_R = out.pop("total")
    out |= {"rank": 1 + count_R, "mass_above": (mass_R / total_R).float()}
    _take_definition(out, logits, targets)
    if exponents:
        sums_AR = sums.exponentials(logits, targets, top_R, exponents, work)
        out |= _powers(sums_AR, exponents, logits, top_R, target_R, total_R, out["logprob"])
    mass_of, given = dict(zip(drawn, masses_R, strict=True)), (work, top_R, target_R, total_R)
    for law, needed_R in laws.items():
        out |= {(name, law): torch.full((len(logits),), torch.nan) for name in SAMPLER_COLUMNS}
        if len(rows := needed_R.nonzero()[:, 0]):
            for name, values in nucleus.columns(logits, targets, rows, law, *given, mass_of[law]).items():
                out[name, law][rows] = values[rows]
    if sampler is None:
        return out
    if sampler.is_plain:
        return out | plain_sampler(out)
    return out | nucleus.columns(logits, targets, torch.arange(len(logits)), sampler, *given, mass_of[sampler])


def _columns_on_device(
    logits: Any,
    targets: Any,
    sampler: Sampler | None,
    exponents: tuple[float, ...] = (),
    laws: Mapping[Sampler, Any] = MappingProxyType({}),
) -> dict[Column, Any]:
    """`columns.all_columns` by the one-pass kernel; by the definition, some rows at a time, where Triton is missing."""
    import torch

    step = max(1, EAGER_CELLS // logits.shape[1])
    some_logits, some_targets = logits.split(step), targets.split(step)
    beside: dict[Column, Any] = {}
    for law, needed_R in laws.items():
        beside |= {(name, law): torch.full((len(logits),), torch.nan, device=logits.device) for name in SAMPLER_COLUMNS}
        for rows in needed_R.nonzero()[:, 0].split(step):
            for name, values in sampler_columns(logits[rows], targets[rows], law).items():
                beside[name, law][rows] = values
    if find_spec("triton") is None:
        parts = [all_columns(*some, sampler, exponents) for some in zip(some_logits, some_targets, strict=True)]
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]} | beside
    from analyzer.scoring.fast import kernel

    others_R, roots_R, first_R, second_R, above_R, mass_R, top_R, target_R, *sums_AR = kernel.sums(
        logits, targets, exponents
    )
    out = sums.finished(others_R, roots_R, first_R, second_R, top_R, target_R)
    total_R = out.pop("total")
    out |= {"rank": 1 + above_R.int(), "mass_above": (mass_R / total_R).float()}
    _take_definition(out, logits, targets)
    if exponents:
        out |= _powers(sums_AR, exponents, logits, top_R, target_R, total_R, out["logprob"])
    out |= beside
    if sampler is None:
        return out
    if sampler.is_plain:
        return out | plain_sampler(out)
    parts = [sampler_columns(*some, sampler) for some in zip(some_logits, some_targets, strict=True)]
    return out | {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _take_definition(out: dict[str, Any], logits: Any, targets: Any) -> None:
    """The core columns again, in place, for rows where the one-pass form has no value."""
    again = (out["varentropy"] + out["entropy"] + out["logprob"]).isnan().nonzero()[:, 0]
    if len(again):
        for name, values in core_columns(logits[again], targets[again]).items():
            out[name][again] = values


def _above(logits: Any, target_R: Any, top_R: Any, temperatures: Sequence[float]) -> tuple[Any, ...]:
    """The tokens that are strictly likelier than the target: how many, int32 [R], and the sum of exp((l - max l) / T)
    over them at each temperature, float64 [R].

    Only rows whose target is not the arg-max are looked at; there are few, and few tokens above.
    """
    import torch

    vocab = logits.shape[1]
    count_R, masses_R = np.zeros(len(logits), np.int32), np.zeros((len(temperatures), len(logits)))
    for some in (target_R < top_R).nonzero()[:, 0].split(max(1, GATHER_CELLS // vocab)):
        block, rows = logits[some].numpy(), some.numpy()
        flat = np.flatnonzero(block > target_R[some, None].numpy())  # numpy compares into bool six times faster
        row = flat // vocab
        below_top = block.ravel()[flat].astype(np.float64) - top_R[some].numpy().astype(np.float64)[row]
        count_R[rows] = np.bincount(row, minlength=len(rows))
        for mass_R, t in zip(masses_R, temperatures, strict=True):
            mass_R[rows] = np.bincount(row, np.exp(below_top / t), minlength=len(rows))
    return torch.from_numpy(count_R), *torch.from_numpy(masses_R)


def _powers(
    sums_AR: Any, exponents: tuple[float, ...], logits: Any, top_R: Any, target_R: Any, total_R: Any, logprob_R: Any
) -> dict[str, Any]:
    """`columns.powers` from `sums.exponentials`; by the definition where a likelier token than the target has nearly
    all of the probability."""
    import torch

    is_top = target_R == top_R
    log_total_R = torch.where(is_top, -logprob_R.double(), total_R.log())
    out = {
        f"power_{a:g}": power(sums.log_sums(others_R, a, top_R, target_R), log_total_R, a)
        for a, others_R in zip(exponents, sums_AR, strict=True)
    }
    unclear = (~is_top & (total_R < 1 + SURE)) | sum(out.values()).isnan()
    for rows in unclear.nonzero()[:, 0].split(max(1, GATHER_CELLS // logits.shape[1])):
        for name, values in powers(logits[rows], exponents).items():
            out[name][rows] = values
    return out
