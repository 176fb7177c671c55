"""Which model this is: hashes of a folder's weights, config and code, and of its tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from analyzer.scoring import weights

BLOCK = 4096  # bytes that are read at a place
BLOCKS = 256  # places in a file of weights that tells no tensors
END = 1 << 20  # bytes at both ends of a file, which alone went into the fingerprints of earlier runs
MOST_HEADER = 100_000_000  # bytes; the format's own limit
TOKENIZER_FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
    *("chat_template*", "tekken.json"),
)
Places = Iterator[tuple[int, int]]  # offset and length, bytes


def split(name: str) -> tuple[str, str] | None:
    """("MODEL", "URL[#NAME]") of a model spec "MODEL@URL[#NAME]", None where the name holds no address."""
    found = re.fullmatch(r"(.+?)@(https?://.+)", name)
    return (found[1], found[2]) if found else None


def fingerprint(name: str, places: Callable[[Path], Places] | None = None, *, every: bool = False) -> str:
    """16 hex digits over a model folder's config, code and weights, or over a hub name; on a server over that of the
    model named and the address. Of an adapter over its own files and over the base that it names.

    Of each file name and size, of config and code all bytes, of safetensors the header and 4 KiB from the start, the
    middle and the end of every tensor, of other weights 256 blocks of 4 KiB: some MB in all, whatever the size.
    What can escape: a change within a tensor that leaves all three places alone and every other tensor too, as of some
    rows of an embedding; another revision under the same hub name. Weights are those that are loaded (`weights.files`),
    all in the folder where that can't be told, and with `every`. places: of a file, what to read instead.
    """
    if found := split(name):
        return hashlib.sha256(f"{fingerprint(found[0], places, every=every)}@{found[1]}".encode()).hexdigest()[:16]
    folder = Path(name)
    if not folder.is_dir():
        return hashlib.sha256(f"hub:{name}".encode()).hexdigest()[:16]
    digest, loaded = hashlib.sha256(), None if every else weights.files(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin") and loaded is not None and path not in loaded:
            continue
        if path.name == "adapter_config.json":
            digest.update(_base_of(path, places).encode())
        if path.name in ("config.json", "adapter_config.json") or path.suffix in (".safetensors", ".bin", ".py"):
            digest.update(f"{path.name}:{path.stat().st_size};".encode())
            with path.open("rb", buffering=0) as f:
                for offset, length in (places or _places)(path):
                    f.seek(offset)
                    digest.update(f.read(length))
    return digest.hexdigest()[:16]


def _base_of(adapter: Path, places: Callable[[Path], Places] | None) -> str:
    """The fingerprint of the base that an adapter's config names; "" where it names none."""
    try:
        base = json.loads(adapter.read_bytes()).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        return ""
    if not isinstance(base, str) or (Path(base) / adapter.name).is_file():  # no circles
        return ""
    return fingerprint(base, places)


def is_model(recorded: str, name: str) -> bool:
    """Whether a recorded fingerprint is that of a model; earlier runs recorded another one, which is known too."""
    known = ({}, {"every": True}, {"places": _ends, "every": True})
    return any(recorded == fingerprint(name, **how) for how in known)


def tokenizer_fingerprint(name: str) -> str:
    """16 hex digits over all bytes of a model folder's tokenizer files and chat templates, or over a hub name."""
    folder = Path((split(name) or (name,))[0])
    if not folder.is_dir():
        return fingerprint(str(folder))
    digest = hashlib.sha256()
    for path in sorted({p for pattern in TOKENIZER_FILES for p in folder.glob(pattern) if p.is_file()}):
        digest.update(f"{path.name}:{path.stat().st_size};".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _places(path: Path) -> Places:
    size = path.stat().st_size
    if path.suffix not in (".safetensors", ".bin"):
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
