"""Which model this is: hashes of a folder's weights, config and code, and of its tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from analyzer.scoring import names, weights

BLOCK = 4096  # bytes that are read at a place
BLOCKS = 256  # places in a file of weights that tells no tensors
END = 1 << 20  # bytes at both ends of a file, which alone went into the fingerprints of earlier runs
MOST_HEADER = 100_000_000  # bytes; the format's own limit
TOKENIZER_FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
    *("chat_template*", "tekken.json"),
)
Places = Iterator[tuple[int, int]]  # offset and length, bytes


def fingerprint(name: str, places: Callable[[Path], Places] | None = None, *, every: bool = False) -> str:
    """16 hex digits over a model folder's config, code and weights, over a GGUF file, or over a hub name and revision;
    on a server over that of the model named and the address. Of an adapter over its own files and over its base.

    Of each file name and size, of config and code all bytes, of safetensors the header and 4 KiB from the start, the
    middle and the end of every tensor, of other weights 256 blocks of 4 KiB: some MB in all, whatever the size.
    What can escape: a change within a tensor that leaves all three places alone and every other tensor too, as of some
    rows of an embedding; another revision under the same hub name. Weights are those that are loaded (`weights.files`),
    all in the folder where that can't be told, and with `every`. places: of a file, what to read instead.
    """
    if found := names.split(name):
        return _hashed(f"{fingerprint(found[0], places, every=every)}@{found[1]}")
    parts = names.parts(name)
    if parts.adapter is not None:
        base = fingerprint(parts.base, places, every=every)
        return _hashed(f"{base}+{_of_folder(Path(parts.adapter), places, every)}")
    return _of_folder(parts.gguf or Path(parts.base), places, every)


def _of_folder(folder: Path, places: Callable[[Path], Places] | None, every: bool) -> str:
    if not folder.exists():
        return _hashed(f"hub:{folder}")
    digest = hashlib.sha256()
    loaded = None if every or folder.is_file() else weights.files(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
        if path.suffix in (".safetensors", ".bin") and loaded is not None and path not in loaded:
            continue
        known = path.name in ("config.json", names.ADAPTER) or path.suffix in (".safetensors", ".bin", ".py")
        if known or path is folder:
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
            with path.open("rb", buffering=0) as f:
                for offset, length in (places or _places)(path):
                    f.seek(offset)
                    digest.update(f.read(length))
    return digest.hexdigest()[:16]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_model(recorded: str, name: str) -> bool:
    """Whether a recorded fingerprint is that of a model; earlier runs recorded another one, which is known too."""
    known = ({}, {"every": True}, {"places": _ends, "every": True})
    return any(recorded == fingerprint(name, **how) for how in known)


def tokenizer_fingerprint(name: str) -> str:
    """16 hex digits over all bytes of a model folder's tokenizer files and chat templates, or over a hub name."""
    parts = names.parts((names.split(name) or (name,))[0])
    folder = names.tokenizer_folder(parts)
    if not folder.is_dir():
        return fingerprint(parts.base)
    if (file := names.made_from(parts)) is not None:
        return _of_folder(file, None, False)
    digest = hashlib.sha256()
    for path in sorted({p for pattern in TOKENIZER_FILES for p in folder.glob(pattern) if p.is_file()}):
        digest.update(f"{path.name}:{path.stat().st_size};".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _places(path: Path) -> Places:
    size = path.stat().st_size
    if path.suffix not in (".safetensors", ".bin", ".gguf"):
        yield 0, size
        return
    found = _tensors(path, size) if path.suffix == ".safetensors" else None
    if found is None:
        yield from ((i * max(0, size - BLOCK) // (BLOCKS - 1), BLOCK) for i in range(BLOCKS))
        return
    header, tensors = found
    yield 0, header
    for start, end in tensors:
        for offset in sorted({start, max(start, (start + end - BLOCK) // 2), max(start, end - BLOCK)}):
            yield offset, min(BLOCK, end - offset)


def _tensors(path: Path, size: int) -> tuple[int, list[tuple[int, int]]] | None:
    """Length of the header, and start and end of every tensor; None for a damaged file, which can't be loaded."""
    with path.open("rb") as f:
        length = 8 + int.from_bytes(f.read(8), "little")
        if length > min(size, MOST_HEADER):
            return None
        try:
            header = json.loads(f.read(length - 8))
            offsets = [tensor["data_offsets"] for key, tensor in header.items() if key != "__metadata__"]
            spans = sorted((length + int(start), length + int(end)) for start, end in offsets)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
    return (length, spans) if all(length <= start <= end <= size for start, end in spans) else None


def _ends(path: Path) -> Places:
    yield 0, END
    yield max(0, path.stat().st_size - END), END
