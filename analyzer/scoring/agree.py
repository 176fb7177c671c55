"""Do two engines, dtypes or revisions give the same tokens the same log-probs, and if not, why? No run, no report.

A side is a model in memory or by name (MODEL or MODEL:DTYPE), one on a server (MODEL@URL), a dump whose rows carry
log-probs, or a run (RUN or RUN:LABEL of a scorer). The tokens are those of a dump.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analyzer.dumps.read import read_dumps
from analyzer.dumps.specs import is_dump_name
from analyzer.errors import DumpError, UsageError
from analyzer.records import Sampler, Trace, json_value
from analyzer.records.display import counted
from analyzer.records.steps import signed, taken
from analyzer.runs.store import Run
from analyzer.scoring import causes, faults, load
from analyzer.scoring.encoding.asked import encode_all
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.encoding.prompts import load_template
from analyzer.scoring.loaded import Loaded, described
from analyzer.scoring.servers.server import Server

APART = 0.1  # nats: the first token of a trace that differs by more is where it comes apart
FLOOR = 0.99  # quantile over traces of the difference of their sums, whose exponential is the least budget
SHOWN = 5  # traces, the most different first


@dataclass(frozen=True)
class Agreement:
    """How log-probs of one side differ from those of the other, A - B, in nats.

    bias, mean, p99, largest: of the tokens' differences (the last three without sign), cut at `faults.CLIP`;
    impossible: tokens that one side alone calls impossible. k_min: budget below which ratios of whole traces are this
    noise (exp of the 99 % quantile of |sum|). traces: key, tokens, sum of differences, mean without sign, first token
    apart (place, None: none). kl_ab, kl_ba, js: over the full vocabulary, mean and largest per token, where both sides
    are models here; else None. cause: see `causes.Cause`; None where no side is a model here.
    """

    a: str
    b: str
    tokens: int
    bias: float
    mean: float
    p99: float
    largest: float
    impossible: int
    k_min: float
    apart: int  # traces that come apart
    traces: list[dict[str, Any]]
    left_out: int  # traces without log-probs on a side
    kl_ab: tuple[float, float] | None
    kl_ba: tuple[float, float] | None
    js: tuple[float, float] | None
    cause: causes.Cause | None

    def beyond(self, size: float) -> bool:
        """Whether the mean difference without sign exceeds a size in nats, or a token is impossible on one side."""
        return self.mean > size or self.impossible > 0

    def as_json(self) -> dict[str, Any]:
        """JSON values by name; `fault` says whether the cause is more than rounding."""
        return json_value(asdict(self)) | {"fault": None if self.cause is None else self.cause.is_fault}

    def __str__(self) -> str:
        rows = sorted(self.traces, key=lambda row: -row["mean"])
        lines = [
            f"{self.a} against {self.b}: {counted(self.tokens, 'token')} of {counted(len(rows), 'trace')}",
            f"  difference a token: mean {self.mean:.3g} nats, 99 % {self.p99:.3g}, largest {self.largest:.3g}, "
            f"bias {self.bias:+.2g}",
            f"  of whole traces: ratios below a budget of k = {self.k_min:.3g} are this noise; {self.apart:,} come "
            f"apart by more than {APART:g} nats at a token",
        ]
        if self.impossible:
            lines.append(f"  {counted(self.impossible, 'token')} impossible on one side alone")
        if self.left_out:
            lines.append(f"  {counted(self.left_out, 'trace')} left out: no log-probs of these ids on a side")
        if self.kl_ab is not None:
            parts = (("KL(A||B)", self.kl_ab), ("KL(B||A)", self.kl_ba), ("JS", self.js))
            lines.append("  full vocabulary: " + ", ".join(f"{n} {m:.3g} (largest {x:.3g})" for n, (m, x) in parts))
        lines += [
            f"    {row['key']}: mean {row['mean']:.3g}, sum {row['sum']:+.3g}"
            + ("" if row["first"] is None else f", apart from token {row['first']} on")
            for row in rows[:SHOWN]
        ]
        if self.cause is not None:
            lines.append(f"  cause: {self.cause.said}" + (" (no fault)" if not self.cause.is_fault else ""))
        return "\n".join(lines)


class Side(NamedTuple):
    """One side: a model (`loaded`), or log-probs that are stored: trace key -> (response ids, log-probs)."""

    name: str
    loaded: Loaded | None
    stored: dict[str, tuple[tuple[int, ...], np.ndarray]]
    traces: list[Trace]
    temperature: float | None = None  # at which stored log-probs were taken

    @property
    def is_here(self) -> bool:
        return self.loaded is not None and not isinstance(self.loaded.model, Server)


@signed("agree")
def agree(a: Any, b: Any, **options: Any) -> Agreement:
    """Compare two sides (see above; a transformers model in memory is one too) on the same token ids.

    options: `records.options.AgreeOptions`, and device. on: a dump with the ids (text is encoded with the first side's
    tokenizer that there is); by default that of a side that is a dump or a run. Stored log-probs taken at another
    temperature than 1 are compared with the model at that temperature.
    Raises UsageError (sides, no ids), DumpError, ResourceError.
    """
    how, model = taken("agree", options)
    one, two = (_side(spec, model.device) for spec in (a, b))
    found = one.traces or two.traces if how.on is None else read_dumps([how.on])[0]
    if not found:
        raise UsageError("the tokens to compare on are missing; name a dump: --on DUMP")
    known = [t for t in found if all(s.loaded is not None or t.key in s.stored for s in (one, two))]
    some = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(how.traces, len(known))).astype(int))]
    items = _encoded(some, one, two, how.template)
    at = {s.temperature for s in (one, two)} - {None}
    if len(at) > 1:
        raise UsageError(f"log-probs at temperatures {' and '.join(map(str, sorted(at)))} can't be compared")
    temperature = at.pop() if at else 1.0
    values = [_values(side, items, temperature) for side in (one, two)]
    both = [i for i in items if all(i.trace.key in v for v in values)]
    if not both:
        raise DumpError(
            f"{one.name} and {two.name} have no log-probs of the same ids in {counted(len(found), 'trace')}; are the "
            "dump's ids of this tokenizer, and does it carry response_logprobs?"
        )
    left = [values[0][i.trace.key] for i in both], [values[1][i.trace.key] for i in both]
    return _compared(one, two, both, left, len(some) - len(both), temperature)


def _side(spec: Any, device: str) -> Side:
    if not isinstance(spec, str):
        return Side(type(spec).__name__, described(spec, None, "the model", ""), {}, [])
    name, _, after = spec.rpartition(":")
    folder, label = (_run(name), after) if name and _run(name) else (_run(spec), "base")
    path = Path(spec)
    if folder is not None:
        run, stored = Run.open(folder), {}
        for frame in run.tokens(label, ["token", "logprob"]):
            for key, ids, logprob in zip(frame["key"], frame["token"], frame["logprob"], strict=True):
                stored[key] = tuple(map(int, ids)), np.asarray(logprob, float)
        return Side(spec, None, stored, list(run.traces()))
    is_file = path.is_file() and path.suffix != ".gguf"
    if is_file or is_dump_name(path) and not path.is_dir():  # one that is not there is no model of the hub either
        found, _ = read_dumps([spec])
        stored = {
            t.key: (tuple(t.response_ids), np.asarray(t.response_logprobs, float))
            for t in found
            if t.response_ids is not None and t.response_logprobs is not None
        }
        if not stored:
            raise DumpError(f"{spec}: no row has response_ids with response_logprobs, so there is nothing to compare")
        at = {t.logprobs_temperature or 1.0 for t in found if t.key in stored}
        if len(at) > 1:
            raise DumpError(f"{spec}: log-probs at several temperatures ({', '.join(map(str, sorted(at)))})")
        return Side(spec, None, stored, found, at.pop())
    model, dtype = (name, after) if name and after in load.DTYPES else (spec, "auto")
    return Side(spec, load.load(model, dtype=dtype, device=device), {}, [])


def _run(name: str) -> Path | None:
    """The run at a path, or of the report at it."""
    return next((p for p in (Path(name), Path(name) / "run") if (p / "run.json").is_file()), None)


def _encoded(traces: list[Trace], one: Side, two: Side, template: str | None) -> list[Encoded]:
    loaded = next((s.loaded for s in (one, two) if s.loaded is not None and s.loaded.tokenizer is not None), None)
    loaded = loaded or one.loaded or two.loaded
    if loaded is not None:
        return encode_all(traces, loaded, templates={"*": load_template(template)}, texts={}).encoded
    return [
        Encoded(t, t.prompt_ids or (0,), ids, np.full(len(ids), -1, np.int32))
        for t in traces
        for ids in [one.stored[t.key][0]]
    ]


def _values(side: Side, items: list[Encoded], temperature: float) -> dict[str, np.ndarray]:
    """Trace key -> log-probs of all response tokens at a temperature, NaN where unknown."""
    if side.loaded is None:
        found = {i.trace.key: _part(*side.stored[i.trace.key], i.response_ids) for i in items}
        return {key: values for key, values in found.items() if values is not None}
    limit, sampler = side.loaded.context, None if temperature == 1 else Sampler(temperature)
    whole = [Encoded(i.trace, i.prompt_ids, i.response_ids, i.offset_T) for i in items]
    whole = [i for i in whole if limit is None or len(i) <= limit]
    path, _ = load.choose_path(side.loaded, sampler, "local")
    column = "logprob" if sampler is None else "logprob_s"
    scored = load.score(whole, side.loaded, path=path, sampler=sampler, limit=None)
    return {s.key: s.columns[column].astype(float) for s in scored}


def _part(ids: tuple[int, ...], logprobs: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray | None:
    """The log-probs of the ids that are wanted, all but padding; None where other ids are stored."""
    for at in range(len(ids) - len(wanted) + 1):
        if ids[at : at + len(wanted)] == wanted:
            return logprobs[at : at + len(wanted)]
    return None


def _compared(
    one: Side,
    two: Side,
    items: list[Encoded],
    values: tuple[list[np.ndarray], list[np.ndarray]],
    left_out: int,
    temperature: float,
) -> Agreement:
    rows, parts, impossible = [], [], 0
    for item, a, b in zip(items, *values, strict=True):
        off = faults.difference(a, b)
        impossible += int((np.isneginf(a) != np.isneginf(b))[~np.isnan(off)].sum())
        known = off[~np.isnan(off)]
        beyond = np.flatnonzero(np.abs(off) > APART)
        first = int(beyond[0]) if len(beyond) else None
        mean = float(np.abs(known).mean()) if len(known) else 0.0
        rows.append(
            {"key": item.trace.key, "tokens": len(known), "sum": float(known.sum()), "mean": mean, "first": first}
        )
        parts.append(known)
    off = np.concatenate(parts)
    if not len(off):
        raise DumpError(f"all log-probs of {one.name} or of {two.name} are unknown")
    size, sums = np.abs(off), np.abs([row["sum"] for row in rows])
    at = float(np.quantile(sums, FLOOR, method="inverted_cdf"))
    spread = _divergences(one.loaded.model, two.loaded.model, items) if one.is_here and two.is_here else (None,) * 3
    model, other = (one, values[1]) if one.is_here else (two, values[0])
    cause = causes.find(model.loaded, items, other) if model.is_here and temperature == 1 else None
    return Agreement(
        one.name,
        two.name,
        len(off),
        float(off.mean()),
        float(size.mean()),
        float(np.quantile(size, FLOOR)),
        float(size.max()),
        impossible,
        math.exp(min(at, 700.0)),
        sum(row["first"] is not None for row in rows),
        rows,
        left_out,
        *spread,
        cause,
    )


def _divergences(one: Any, two: Any, items: list[Encoded]) -> tuple[tuple[float, float], ...] | tuple[None, ...]:
    """(mean, largest) over tokens of KL(one||two), KL(two||one) and JS in nats; None where vocabularies differ."""
    import torch

    found: list[list[Any]] = [[], [], []]
    for item in items:
        logits = [faults.logits(model, item.prompt_ids, item.response_ids)[:-1].cpu() for model in (one, two)]
        if logits[0].shape != logits[1].shape:
            return None, None, None
        p, q = (rows.double().log_softmax(-1) for rows in logits)
        middle = torch.logaddexp(p, q) - math.log(2)
        to_middle = [(x.exp() * (x - middle)).sum(-1) for x in (p, q)]
        for values, new in zip(
            found, ((p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1), sum(to_middle) / 2), strict=True
        ):
            values.append(new)
    return tuple((float(v.mean()), float(v.max())) for v in (torch.cat(values).clamp(min=0) for values in found))
