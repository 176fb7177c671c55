"""Scoring: a model is loaded once, a path is chosen by probing, traces go in, Scored records come out.

torch and transformers are imported inside the functions that need them, never at import time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analyzer.errors import ResourceError, UsageError, nearest
from analyzer.records import Sampler, Scored
from analyzer.scorers import local, windows
from analyzer.scorers.encode import Encoded

# --scorer: the fastest path that agrees with the definition, or one of the slower ones by name
SCORERS = {"local": "shared", "cached": "cached", "plain": "plain"}
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Loaded:
    """A causal LM ready to score: what it is, and where it came from."""

    name: str  # as the user gave it
    fingerprint: str  # of config and weights
    model: Any
    tokenizer: Any  # None when the folder has none
    vocab_size: int
    context: int | None  # longest sequence the config declares
    dtype: str
    device: str


def load(name: str, *, dtype: str = "auto", device: str = "auto") -> Loaded:
    """Load a transformers causal LM from a folder or by hub name.

    dtype auto: float32 on CPU, the checkpoint's own on CUDA. Raises ResourceError when it can't be loaded,
    UsageError for an unknown dtype or device.
    """
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r} is unknown{nearest(dtype, DTYPES)}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    if kind is None:
        kind = torch.float32 if device == "cpu" else "auto"
    is_folder = Path(name).is_dir()
    if not is_folder and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ResourceError(f"model folder {name} does not exist")
    offline = is_folder or os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=kind, local_files_only=offline).to(device).eval()
    except (OSError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise ResourceError(
            f"model {name!r} can't be loaded as a causal LM: {str(error).splitlines()[0]}; "
            "expected a folder with config.json and weights, or a hub name with network access"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=offline)
    except (OSError, ValueError, KeyError, ImportError):
        tokenizer = None  # ids-only dumps need none; `encode` refuses text without one
    config = model.config.get_text_config()
    return Loaded(
        name,
        fingerprint(name),
        model,
        tokenizer,
        model.get_output_embeddings().weight.shape[0],
        getattr(config, "max_position_embeddings", None),
        str(model.dtype).removeprefix("torch."),
        str(model.device),
    )


def fingerprint(name: str) -> str:
    """16 hex digits over a model folder's config and weights (name, size, both ends of each file), or the hub name.

    Reads at most 2 MiB per file, so that it costs nothing for large models; it notices exchanged files.
    """
    folder = Path(name)
    digest = hashlib.sha256()
    if not folder.is_dir():
        return hashlib.sha256(f"hub:{name}".encode()).hexdigest()[:16]
    for path in sorted(folder.iterdir()):
        if path.name == "config.json" or path.suffix in (".safetensors", ".bin"):
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
            with path.open("rb") as f:
                digest.update(f.read(1 << 20))
                f.seek(max(0, path.stat().st_size - (1 << 20)))
                digest.update(f.read())
    return digest.hexdigest()[:16]


def choose_path(loaded: Loaded, sampler: Sampler | None, wanted: str) -> tuple[str, str]:
    """(path, why): the wanted scorer's path, or a slower one where the probe shows that it is wrong on this model."""
    if wanted not in SCORERS:
        raise UsageError(f"--scorer {wanted!r} is unknown{nearest(wanted, SCORERS)}")
    return ("plain", "chosen") if wanted == "plain" else local.choose(loaded.model, sampler, SCORERS[wanted])


def score(
    encoded: Iterable[Encoded],
    loaded: Loaded,
    *,
    path: str,
    sampler: Sampler | None,
    limit: int | None,
    note: Callable[[str, Any], None] = lambda name, value: None,
) -> Iterator[Scored]:
    """Score traces by a path of `local`: equal ids once, those longer than `limit` in windows (see `windows`).

    limit: the model's context, or None. note: see `local.score`. Raises ResourceError when memory runs out.
    """
    waiting: dict[str, list[Scored | None]] = {}
    same, twins = _twins(encoded)

    def pieces() -> Iterator[Encoded]:
        for item in same:
            parts = [item] if limit is None else windows.split(item, limit)
            if len(parts) > 1:
                waiting[item.trace.key] = [None] * len(parts)
                for n, part in enumerate(parts):
                    yield Encoded(_Part(item.trace.key, n), part.prompt_ids, part.response_ids, part.offset_T)
            else:
                yield item

    try:
        for result in local.score(pieces(), loaded.model, sampler, path=path, note=note):
            key, _, n = result.key.rpartition("\x00")
            if key:
                waiting[key][int(n)] = result
                if not all(waiting[key]):
                    continue
                result = replace(windows.join(waiting.pop(key)), key=key)
            yield result
            for twin in twins.pop(result.key, ()):
                yield Scored(twin.trace.key, result.columns | {"offset": twin.offset_T}, result.embedding, result.top)
    except (MemoryError, RuntimeError) as error:
        if not local.is_out_of_memory(error):
            raise
        raise ResourceError(
            f"out of memory while scoring under {loaded.name}: {str(error).splitlines()[0]}; "
            "try --scorer plain, --dtype bfloat16 or a machine with more memory"
        ) from error


def _twins(encoded: Iterable[Encoded]) -> tuple[list[Encoded], dict[str, list[Encoded]]]:
    """The traces with distinct ids, and for each key of these the further traces with the same ids."""
    first: dict[tuple, Encoded] = {}
    twins: dict[str, list[Encoded]] = {}
    for item in encoded:
        known = first.setdefault((item.prompt_ids, item.response_ids), item)
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
