"""What scoring would cost, before it is done: exact tokens, peak memory, disk, and a time from a probe.

Tokens are counted exactly: the traces are encoded as scoring encodes them and laid out as scoring lays them out. Memory
is what the process holds by then plus the parts of scoring that the layout decides. Time and disk come from scoring a
small sample by the chosen path. A run that exists is read, never written.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from analyzer.errors import AnalyzerError, ResourceError
from analyzer.records import Sampler, Trace
from analyzer.records.options import ModelOptions, ScoreOptions
from analyzer.runs.store import Run
from analyzer.scoring.parts import UNIT_TRACES, Progress, quiet, unit_tokens
from analyzer.scoring.plan import packs, units
from analyzer.scoring.work import day, exponents, padding_marks, planned

PROBE_FLOPS = {"cpu": 3e11, "cuda": 3e14}  # work of a probe: seconds
PROBE_TOKENS = 256, 16_384  # a probe has at least and at most so many tokens
ROW_BYTES = 3 * 4 * 13  # per response token of a finished unit: its columns, and their copy on the way to disk
PLAIN_LOGITS = 8  # float32 copies of all logits of a trace that the plain path holds at its worst
NOTHING = {"traces": 0, "tokens": 0, "seconds": 0.0, "cut": 0, "layout": (0, 0), "peaks": (0, 0)}
SLACK = 2  # on the CPU the allocator keeps about as much again of what comes and goes (measured)
Pair = tuple[tuple[int, ...], tuple[int, ...]]


@contextlib.contextmanager
def rehearsal(path: str | Path | None) -> Iterator[Run]:
    """A run in a temporary folder that holds what the run at `path` holds, if there is one; what is added to it is gone
    afterwards, and nothing is written at `path`."""
    with tempfile.TemporaryDirectory(prefix="analyzer-") as folder:
        own = Path(folder) / "run"
        (own / "traces").mkdir(parents=True)
        if path is not None and ((path := Path(path)) / "run.json").is_file():
            for part in (path / "traces").glob("part-*.parquet"):
                _linked(own / "traces" / part.name, part)
            if (path / "scores").is_dir():
                _linked(own / "scores", path / "scores")
            shutil.copy(path / "run.json", own)
        try:
            yield Run.create(own)
        except AnalyzerError as error:
            raise type(error)(str(error).replace(str(own), str(path or "in memory"))) from None


def _linked(link: Path, target: Path) -> None:
    """A symbolic link, or a copy where the system allows none."""
    try:
        link.symlink_to(target.resolve(), target_is_directory=target.is_dir())
    except OSError:
        (shutil.copytree if target.is_dir() else shutil.copy)(target, link)


def dry_run(run: Run, how: ScoreOptions, model: ModelOptions, *, progress: Progress = quiet) -> dict[str, Any]:
    """What `scoring.run.score` with the same options would cost, as JSON values; nothing is scored but a sample.

    Keys: traces_to_score (under the base), traces_scored, traces_over_the_limit, devices (named by --device; all else
    is of one), models (scorer label -> what it would cost, see `_model`), and of all models together seconds,
    disk_bytes, peak_bytes (of this process), device_bytes (peak on a device of its own, 0 on CPU). Raises what scoring
    would raise about models, labels and prompts; over-long traces are counted, not refused.
    """
    from analyzer.scoring import load as scorers
    from analyzer.scoring.encoding import special
    from analyzer.scoring.servers import served, server

    devices = model.device.split(",")  # a process each, all alike: one is looked at
    options = vars(model) | {"device": devices[0].strip(), "concurrent": how.concurrent}
    work, texts = planned(run, how), {"eos": how.eos, "date": day(run, how.template_date)}
    loaded, models, scored, on_servers, marks = None, {}, 0, {}, None
    lead_of = {label: labels[0] for labels in work.passes() for label in labels}
    computed: dict[str, set[str]] = {lead: set() for lead in lead_of.values()}  # traces that a pass computes already
    for number, (label, lead) in enumerate(lead_of.items()):
        progress("probe", number, len(work.jobs), 0)
        (name, _, _), (_, sampler, sources) = work.jobs[lead], work.jobs[label]
        done, took = run.done(label), 0.0
        if label == "base":
            scored = sum(status == "ok" for status in done.values())
        todo = [t for t in work.traces if t.source in sources and t.key not in done]
        if loaded is None or loaded.name != name:
            loaded, begin = None, time.perf_counter()
            loaded = scorers.load(name, **options)
            took = time.perf_counter() - begin
        if server.split(name):
            on_servers[label] = name, loaded.model.about()
            served.refuse_one_for_two(on_servers)
        powers = () if server.split(name) else exponents(work, label)
        marks = marks or padding_marks(run.manifest, loaded, how.eos)
        encoded = work.encode(label, todo, loaded, texts | {"marks": marks}).encoded
        if how.eos is not None:
            special.checked_end(how.eos, loaded, encoded, work.reference)
        new = [e for e in encoded if e.trace.key not in computed[lead]]
        computed[lead] |= {e.trace.key for e in new}
        models[label] = _model(todo, encoded, new, loaded, sampler, how, powers)
        models[label]["seconds"] += took
        models[label]["pass"] = lead
    return {
        "traces_to_score": models["base"]["traces"],
        "traces_scored": scored,
        "traces_over_the_limit": len(work.over),
        "devices": len(devices),
        "models": models,
        **{key: sum(m[key] for m in models.values()) for key in ("seconds", "disk_bytes")},
        **{key: max(m["memory"][key] for m in models.values()) for key in ("peak_bytes", "device_bytes")},
    }


def _model(
    todo: Sequence[Trace],
    encoded: Sequence[Any],
    new: Sequence[Any],
    loaded: Any,
    sampler: Sampler | None,
    how: ScoreOptions,
    powers: tuple[float, ...],
) -> dict[str, Any]:
    """What one scorer would cost, `new`: the traces that no scorer before it in its pass over the model computes:

    model, dtype, device, path and why, traces, empty (not scored), tokens of prompts and responses, computed_tokens
    (of the new ones, after what is shared), length {median, q95, longest, trace}, context, overlong, memory (bytes by
    part, and their sum `peak_bytes`), disk_bytes, seconds, probe {traces, tokens, seconds}. `dry_run` adds `pass`: the
    scorer that comes first in its pass."""
    from analyzer.scoring import load as scorers
    from analyzer.scoring import local, windows

    longest = max(encoded, key=len, default=None)
    lengths = sorted(map(len, encoded))
    overlong = [e for e in encoded if loaded.context is not None and len(e) > loaded.context]
    if how.on_overlong == "skip" and overlong:
        encoded, new = ([e for e in some if len(e) <= loaded.context] for some in (encoded, new))
    path, why = scorers.choose_path(loaded, sampler, how.scorer)

    def ids(items: Sequence[Any]) -> list[Pair]:
        parts = items if how.on_overlong != "window" else [p for e in items for p in windows.split(e, loaded.context)]
        return sorted({(e.prompt_ids, e.response_ids) for e in parts})

    pairs = ids(encoded)
    if hasattr(loaded.model, "parameters"):
        budget = local.TOKEN_BUDGET.get(loaded.model.device.type, 4096)
        computed, widest, kept = _layout(pairs, loaded.model, path, budget, unit_tokens(loaded))
        memory = _memory(loaded, path, pairs, widest, kept)
        if len(new) < len(encoded):
            computed = _layout(ids(new), loaded.model, path, budget, unit_tokens(loaded))[0]
        rate, probe, disk = _probe(encoded, pairs, loaded, sampler, powers, path, budget)
        memory |= _peaks(loaded, memory, _memory(loaded, path, pairs, *probe.pop("layout")), probe.pop("peaks"))
    else:  # on a server: what it needs there is not known here, and a probe would cost its owner
        computed, rate, disk = sum(len(p) + len(r) for p, r in pairs), 0.0, 0
        probe, memory = (
            {k: 0 for k in ("traces", "tokens", "seconds", "cut")},
            {"peak_bytes": _peak(), "device_bytes": 0},
        )
    return {
        **{k: getattr(loaded, k) for k in ("name", "dtype", "device", "context")},
        "path": path,
        "path_reason": why,
        "traces": len(encoded),
        "empty": len(todo) - len(lengths),
        "overlong": len(overlong),
        "prompt_tokens": sum(len(e.prompt_ids) for e in encoded),
        "response_tokens": sum(len(e.response_ids) for e in encoded),
        "computed_tokens": computed,
        "length": {
            "median": lengths[len(lengths) // 2] if lengths else 0,
            "q95": lengths[int(0.95 * (len(lengths) - 1))] if lengths else 0,
            "longest": len(longest) if longest else 0,
            "trace": longest.trace.key if longest else None,
        },
        "memory": memory,
        "disk_bytes": disk,
        "seconds": rate * computed,
        "probe": probe,
    }


def _layout(pairs: Sequence[Pair], model: Any, path: str, budget: int, unit: int) -> tuple[int, int, int]:
    """(tokens that go through the model, tokens of its largest pass, positions whose keys and values are kept)."""
    from analyzer.scoring.fast import shared
    from analyzer.scoring.fast.cached import CACHE_SHARE

    if path == "plain":
        lengths = [len(p) + len(r) for p, r in pairs]
        return sum(lengths), max(lengths, default=0), 0
    if path == "cached":
        prompts = {p for p, _ in pairs}
        longest = max((len(p) + len(r) for p, r in pairs), default=0)
        computed = sum(map(len, prompts)) + sum(len(r) for _, r in pairs)
        return computed, max(longest, min(budget, computed)), min(CACHE_SHARE + 1, len(pairs)) * max(longest, budget)
    computed = widest = most = 0
    stack: list[int] = []  # tokens of the kept packs, by depth
    for members in units(pairs, tokens=unit, traces=UNIT_TRACES):
        for pack in packs([pairs[i] for i in members], budget, segment_cost=shared._segment_cost(model)):
            del stack[pack.depth :]
            tokens = len(pack.ids_N)
            stack += [tokens] if pack.keep else []
            computed, widest, most = computed + tokens, max(widest, tokens), max(most, sum(stack))
    return computed, widest, most


def _memory(loaded: Any, path: str, pairs: Sequence[Pair], widest: int, kept: int) -> dict[str, int]:
    """Bytes by part. weights: of the model. head: a row block of logits over the vocabulary, the work space of their
    statistics, the head's float32 copy if there is one. activation: of the largest pass, in the wider of a layer's
    two halves, or of the states that the statistics need. kept: keys and values of all layers. rows: finished rows of
    one unit of work and of the one that is being written."""
    from analyzer.scoring.fast import head

    model, config = loaded.model, loaded.model.config.get_text_config()
    each = next(model.parameters()).element_size()
    hidden, heads = config.hidden_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    keys = (getattr(config, "num_key_value_heads", None) or heads) * width
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    attention, feed = 4 * hidden + 4 * heads * width + 4 * keys, 3 * hidden + 3 * inner
    states = 3 * hidden * each + 8 * hidden  # last and middle ones, the rows scored, and a sum in double
    work = head.prepare(model)
    tensors = [work.logits, work.work]
    if work.weight_HV.data_ptr() != model.get_output_embeddings().weight.data_ptr():
        tensors.append(work.weight_HV)
    buffers = sum(t.numel() * t.element_size() for t in tensors)
    if path == "plain":
        longest = max((len(r) for _, r in pairs), default=0)
        buffers = PLAIN_LOGITS * 4 * longest * loaded.vocab_size
        states += config.num_hidden_layers * hidden * each
    rows = 2 * min(unit_tokens(loaded), sum(len(r) for _, r in pairs))
    return {
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "head_bytes": buffers,
        "activation_bytes": widest * max(max(attention, feed) * each, states),
        "kept_bytes": kept * 2 * config.num_hidden_layers * keys * each,
        "rows_bytes": rows * ROW_BYTES,
    }


def _probe(
    encoded: Sequence[Any],
    pairs: Sequence[Pair],
    loaded: Any,
    sampler: Sampler | None,
    powers: tuple[float, ...],
    path: str,
    budget: int,
) -> tuple[float, dict[str, Any], int]:
    """(seconds per computed token, what was scored for it, bytes on disk of all traces), from a sample of whole prompts
    of every size; what is longer than the sample may be is cut."""
    from analyzer.scoring import load as scorers

    if not pairs:
        return 0.0, dict(NOTHING), 0
    parameters = sum(p.numel() for p in loaded.model.parameters())
    least, most = PROBE_TOKENS
    flops = PROBE_FLOPS.get(loaded.model.device.type, PROBE_FLOPS["cpu"])
    context = loaded.context or max(map(len, encoded))
    items, cut = _sample(encoded, pairs, max(least, min(most, int(flops / (2 * parameters)))), context)
    if not items:
        return 0.0, dict(NOTHING), 0
    wanted = sorted((i.prompt_ids, i.response_ids) for i in items)
    computed, *layout = _layout(wanted, loaded.model, path, budget, unit_tokens(loaded))
    _touch(loaded.model)
    before = _peak(again=True)
    for _ in range(2):  # the first round warms up; where it is long, it counts
        begin = time.perf_counter()
        rows = list(scorers.score(items, loaded, path=path, sampler=sampler, limit=None, powers=powers))
        took = time.perf_counter() - begin
        if took > 2:
            break
    parts = len(units(pairs, tokens=unit_tokens(loaded), traces=UNIT_TRACES))
    disk = _disk(encoded, items, rows, parts)
    probe = {"traces": len(items), "tokens": computed, "seconds": took, "cut": cut}
    return took / computed, probe | {"layout": layout, "peaks": (before, _peak())}, disk


def _sample(encoded: Sequence[Any], pairs: Sequence[Pair], tokens: int, context: int) -> tuple[list[Any], int]:
    """Some of the traces with distinct ids, of about so many tokens in all: prompts of every size with their first
    responses. What does not fit is cut where nothing else is there; second value: how many were."""
    first = {(e.prompt_ids, e.response_ids): e for e in reversed(encoded)}
    groups = [list(members) for _, members in groupby((first[p] for p in pairs if p in first), lambda e: e.prompt_ids)]
    groups = [g for g in groups if len(g[0].prompt_ids) < context]
    groups.sort(key=lambda g: sum(map(len, g)))
    total = sum(len(e.response_ids) for g in groups for e in g) + sum(len(g[0].prompt_ids) for g in groups)
    number = min(len(groups), max(1, round(len(groups) * tokens / max(1, total))))
    items, cut = [], 0
    for n in range(number):
        group = groups[(2 * n + 1) * len(groups) // (2 * number)]
        prompt, taken = len(group[0].prompt_ids), 0
        for e in group:
            left = min(max(16, tokens // number - prompt) - taken, context - prompt)
            if len(e.response_ids) > left:
                if taken:
                    break
                e, cut = replace(e, response_ids=e.response_ids[:left], offset_T=e.offset_T[:left], own=None), cut + 1
            items.append(e)
            taken += len(e.response_ids)
    return items, cut


def _disk(encoded: Sequence[Any], items: Sequence[Any], rows: Sequence[Any], parts: int) -> int:
    """Bytes of all traces on disk, from those of the sample: so much per part, per trace (embeddings) and per token."""
    by_key = {i.trace.key: i for i in items}
    found = [(by_key[r.key].trace, by_key[r.key].prompt_ids, r) for r in rows]

    def written(some: list) -> int:
        with tempfile.TemporaryDirectory(prefix="analyzer-") as folder:
            run = Run.create(Path(folder) / "run")
            run.append_scores("probe", some)
            return sum(f.stat().st_size for f in (run.path / "scores" / "probe").iterdir())

    vector = 0 if rows[0].embedding is None else rows[0].embedding.nbytes
    one, all_, tokens = written(found[:1]) - vector, written(found) - vector * len(rows), sum(map(len, rows))
    each = max(0, all_ - one) / (tokens - len(rows[0])) if len(rows) > 1 else one / tokens
    fixed = max(0.0, one - each * len(rows[0])) if len(rows) > 1 else 0.0
    return round(parts * fixed + vector * len(encoded) + each * sum(len(e.response_ids) for e in encoded))


def _peaks(loaded: Any, whole: Mapping[str, int], sample: Mapping[str, int], seen: tuple[int, int]) -> dict[str, int]:
    """The process's peak, and a device's: what was measured while the sample was scored, plus what the largest pass,
    the kept keys and values, and the rows of a unit take more than those of the sample. `seen`: the peak before it,
    and that of it."""
    growth = {k: max(0, whole[k] - sample[k]) for k in ("head_bytes", "activation_bytes", "kept_bytes")}
    before, during = seen
    during = during or _peak()
    if loaded.model.device.type == "cpu":
        growth["activation_bytes"] *= SLACK
        return {"peak_bytes": max(before, during + sum(growth.values()) + whole["rows_bytes"]), "device_bytes": 0}
    import torch

    on_device = torch.cuda.max_memory_allocated() if loaded.model.device.type == "cuda" else whole["weights_bytes"]
    return {"peak_bytes": max(before, during + whole["rows_bytes"]), "device_bytes": on_device + sum(growth.values())}


def _touch(model: Any) -> None:
    """Read from every page of the weights: those of a mapped file count only from then on."""
    for p in model.parameters():
        if p.device.type == "cpu":
            p.detach().flatten()[:: 4096 // p.element_size()].sum()


def _peak(*, again: bool = False) -> int:
    """The most bytes of memory that this process has held so far; `again`: from now on that of what follows,
    where the system can do that."""
    try:
        import resource
    except ImportError:
        raise ResourceError("what scoring would cost is measured, and this system does not tell memory") from None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if again:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return found
