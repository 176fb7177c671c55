"""Scoring: a model is loaded once, a path is chosen by probing, traces go in, Scored records come out.

torch and transformers are imported inside the functions that need them, never at import time.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analyzer.errors import AnalyzerError, ResourceError, UsageError, nearest
from analyzer.records import Sampler, Scored
from analyzer.scoring import adapters, local, names, weights, windows
from analyzer.scoring.encoding import rebuilt
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.identity import fingerprint
from analyzer.scoring.loaded import Loaded, described, refuse_sizes
from analyzer.scoring.servers import server
from analyzer.scoring.team import Team

# --scorer: the fastest path that agrees with the definition, or one of the slower ones by name
SCORERS = {"local": "shared", "cached": "cached", "plain": "plain", "server": "server"}
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    concurrent: int = server.CONCURRENT,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Loaded:
    """Load a transformers causal LM by a name of `names`: folder, hub name, GGUF file, adapter, or on a server, which
    is asked `concurrent` requests at a time.

    dtype auto: float32 on CPU, the checkpoint's own on CUDA. device "map" spreads the layers over all devices, and
    over memory and disk where they do not fit (accelerate's device_map). Code that comes with the model, and weights
    other than safetensors, are not touched unless the caller says so. Raises ResourceError when it can't be loaded or
    when tensors are missing, unexpected or of another shape (see `weights`), UsageError for an unknown dtype or device.
    Inside of `kept` the weights that were loaded last serve again, also under another adapter; then what was loaded
    before this call must no longer be used.
    """
    check_settings(dtype)
    if names.split(name):
        return server.connect(name, concurrent=concurrent)
    parts = names.parts(name)
    key = (parts.base, dtype, device, trust_remote_code, allow_pickle)
    held = None if _kept is None else _kept.get(key)
    if held is None:
        if _kept is not None:
            _kept.clear()  # one at a time: two need not fit into memory
        held = _Held(*_loaded(parts, dtype, device, trust_remote_code, allow_pickle))
        if _kept is not None:
            _kept[key] = held
    if held.name != name:
        held.restore()
        held.restore, held.name = _as_it_is, ""
        if parts.adapter is not None:
            held.restore = adapters.merge(held.model, parts.adapter, allow_pickle=allow_pickle)
        held.name, held.loaded = name, None
    if held.loaded is None:
        own = names.tokenizer_folder(parts) != Path(parts.model)
        tokenizer = _tokenizer(parts, trust_remote_code) if own else held.tokenizer
        held.loaded = described(held.model, tokenizer, name, fingerprint(name))
    return held.loaded


def _as_it_is() -> None:
    """Restores a model into which nothing was merged."""


@dataclass
class _Held:
    """A model in memory, and under which name: weights are shared by all adapters over them."""

    model: Any
    tokenizer: Any
    name: str = ""
    loaded: Loaded | None = None
    restore: Callable[[], None] = _as_it_is  # takes the adapter out again


_kept: dict[tuple[Any, ...], _Held] | None = None  # None: each call loads


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside, the weights that were loaded last stay in memory: many runs under one base load it once."""
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def _loaded(
    parts: names.Parts, dtype: str, device: str, trust_remote_code: bool, allow_pickle: bool
) -> tuple[Any, Any]:
    """(model, tokenizer or None), without the adapter."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # else transformers asks a service on the hub for it
    check_settings(dtype, device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    if kind is None:
        on_cpu = device == "cpu" or (device == "map" and not torch.cuda.is_available())
        kind = torch.float32 if on_cpu else "auto"
    name, is_folder = parts.model, Path(parts.model).is_dir()
    if not is_folder and (names.is_path(name) or name.endswith(".gguf")):
        raise ResourceError(f"model {'file' if name.endswith('.gguf') else 'folder'} {name} does not exist")
    if parts.gguf is not None and find_spec("gguf") is None:
        raise UsageError(f"{parts.gguf} needs gguf: pip install 'reasoning-path-analyzer[gguf]'")
    if parts.adapter is not None:
        adapters.check_installed(parts.adapter)
    refuse_sizes(name)
    weights.refuse_two_sets(name)
    options = _options(parts, trust_remote_code)
    silent = contextlib.nullcontext() if parts.gguf is None else contextlib.redirect_stderr(io.StringIO())
    try:
        with silent:  # transformers draws a bar of its own there
            model, info = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=kind,
                use_safetensors=None if allow_pickle or parts.gguf else True,
                device_map="auto" if device == "map" else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **options,
            )
        weights.refuse_other_weights(name, model, info)
        model = (model if device == "map" else model.to(device)).eval()
    except Exception as error:  # what a config or weights that are not as they should be raise has no end
        if local.is_out_of_memory(error) or isinstance(error, AnalyzerError):
            raise
        raise weights.refusal(parts.base, error, trust_remote_code, allow_pickle) from error
    return model, _tokenizer(parts._replace(adapter=None), trust_remote_code)


def _options(parts: names.Parts, trust_remote_code: bool) -> dict[str, Any]:
    """What transformers is told beside a model's name."""
    offline = Path(parts.model).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1"
    gguf = {} if parts.gguf is None else {"gguf_file": parts.gguf.name}
    revision = {} if parts.revision is None else {"revision": parts.revision}
    return {"local_files_only": offline, "trust_remote_code": trust_remote_code} | gguf | revision


def _tokenizer(parts: names.Parts, trust_remote_code: bool) -> Any:
    """The model's tokenizer, None where it has none: ids-only dumps need none, and `encode` refuses text without one.
    A tokenizer.json beside a GGUF file goes before the one that is made from the file."""
    from transformers import AutoTokenizer

    folder = names.tokenizer_folder(parts)
    parts = parts._replace(gguf=names.made_from(parts))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_options(parts, trust_remote_code))
    except (OSError, ValueError, KeyError, ImportError):
        return None
    if parts.gguf is not None:
        rebuilt.split_digits(tokenizer, parts.gguf)
    return tokenizer


def check_settings(dtype: str = "auto", device: str = "auto") -> None:
    """Raise UsageError for a dtype or device that is unknown, ResourceError for a device that is not here; nothing is
    loaded but torch, and that for a device by name alone."""
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r} is unknown{nearest(dtype, DTYPES)}")
    if device == "map" and find_spec("accelerate") is None:
        raise UsageError("--device map needs accelerate: pip install 'reasoning-path-analyzer[accelerate]'")
    if device in ("auto", "cpu", "map"):
        return
    import torch

    allowed = "; allowed: auto, cpu, cuda, cuda:1 ..., map"
    for part in device.split(","):
        try:
            kind = torch.device(part)
        except RuntimeError:
            raise UsageError(f"--device {device!r} is unknown{allowed}") from None
        if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
            raise ResourceError(f"--device {device!r}: {torch.cuda.device_count()} GPUs are here (torch.cuda){allowed}")


def choose_path(loaded: Loaded, sampler: Sampler | None, wanted: str) -> tuple[str, str]:
    """(path, why): the wanted scorer's path, or a slower one where the probe shows that it is wrong on this model."""
    if wanted not in SCORERS:
        raise UsageError(f"--scorer {wanted!r} is unknown{nearest(wanted, SCORERS)}")
    if isinstance(loaded.model, server.Server):
        return "server", loaded.model.said()
    return ("plain", "chosen") if wanted == "plain" else local.choose(loaded.model, sampler, SCORERS[wanted])


def prepare(loaded: Loaded, sampler: Sampler | None, wanted: str) -> tuple[str, str, str | None]:
    """(path, why, what lower precision costs): see `choose_path` and `local.half_precision_error`."""
    if isinstance(loaded.model, Team):
        return loaded.model.prepare(sampler, wanted)
    path, why = choose_path(loaded, sampler, wanted)
    return path, why, None if path == "server" else local.half_precision_error(loaded.model, path)


def score_units(
    units: Iterable[tuple[int, list[Encoded]]], loaded: Loaded, **options: Any
) -> Iterator[tuple[int, Scored]]:
    """(number of the unit, Scored) of every trace of the units; options: see `score`. Here the units are done one after
    another, on a cluster as its workers finish them."""
    if isinstance(loaded.model, Team):
        yield from loaded.model.score_units(units, **options)
        return
    for number, items in units:
        for scored in score(items, loaded, **options):
            yield number, scored


def score(
    encoded: Iterable[Encoded],
    loaded: Loaded,
    *,
    path: str,
    sampler: Sampler | None,
    limit: int | None,
    powers: tuple[float, ...] = (),
    note: Callable[[str, Any], None] = lambda name, value: None,
) -> Iterator[Scored]:
    """Score traces by a path of `local`: equal ids once, those longer than `limit` in windows (see `windows`).

    limit: the model's context, or None. powers: exponents of the power columns, which a server does not have. note: see
    `local.score`. Raises ResourceError when memory runs out.
    """
    waiting: dict[str, list[Scored | None]] = {}
    same, twins = _twins(encoded)

    def pieces() -> Iterator[Encoded]:
        for item in same:
            parts = [item] if limit is None else windows.split(item, limit)
            if parts[0] is not item:
                waiting[item.trace.key] = [None] * len(parts)
                for n, part in enumerate(parts):
                    yield replace(part, trace=_Part(item.trace.key, n))
            else:
                yield item

    ask = server.score if path == "server" else partial(local.score, powers=powers)
    try:
        for result in ask(pieces(), loaded.model, sampler, path=path, note=note):
            key, _, n = result.key.rpartition("\x00")
            if key in waiting:  # an id may hold a NUL of its own
                waiting[key][int(n)] = result
                if not all(waiting[key]):
                    continue
                result = replace(windows.join(waiting.pop(key)), key=key)
            yield result
            for twin in twins.pop(result.key, ()):
                columns = result.columns | {"offset": twin.offset_T[twin.at]}
                yield replace(result, key=twin.trace.key, columns=columns)
    except (MemoryError, RuntimeError) as error:
        if not local.is_out_of_memory(error):
            raise
        raise ResourceError(
            f"out of memory while scoring under {loaded.name}: {str(error).splitlines()[0]}; "
            "try --dtype bfloat16, --on-overlong skip or --score-at-most N; --dry-run tells the peak beforehand"
        ) from error


def _twins(encoded: Iterable[Encoded]) -> tuple[list[Encoded], dict[str, list[Encoded]]]:
    """The traces that differ in ids, mask or laws, and for each key of these the further traces that equal it."""
    first: dict[tuple, Encoded] = {}
    twins: dict[str, list[Encoded]] = {}
    for item in encoded:
        known = first.setdefault((item.prompt_ids, item.response_ids, item.laws, item.own), item)
        if known is not item:
            twins.setdefault(known.trace.key, []).append(item)
    return list(first.values()), twins


@dataclass(frozen=True)
class _Part:
    """Stands for a Trace in one window of it; its key names trace and window."""

    trace_key: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.trace_key}\x00{self.number}"
