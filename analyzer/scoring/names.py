"""What a model's name means: a folder, a hub name or its revision, a GGUF file, an adapter over any of these.

FOLDER | ORG/NAME | ORG/NAME@REVISION     config and weights
FILE.gguf | FOLDER that holds one         config, weights and tokenizer in one file
ADAPTER | MODEL+ADAPTER                   a folder (or hub name) with adapter_config.json, over the model it names
MODEL@http...                             on a server
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from analyzer.errors import ResourceError

ADAPTER = "adapter_config.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


class Parts(NamedTuple):
    """model: folder or hub name of config and weights. revision: of a hub name. gguf: the file in that folder.
    adapter: folder or hub name of what is merged into it."""

    model: str
    revision: str | None = None
    gguf: Path | None = None
    adapter: str | None = None

    @property
    def base(self) -> str:
        """The name of what is loaded, without the adapter."""
        if self.gguf is not None:
            return str(self.gguf)
        return self.model if self.revision is None else f"{self.model}@{self.revision}"


def is_path(name: str) -> bool:
    """Whether a name can only be that of a file or a folder: a hub name is ORG/NAME."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or Path(name).is_absolute()


def split(name: str) -> tuple[str, str] | None:
    """("MODEL", "URL[#NAME]") of a model spec "MODEL@URL[#NAME]", None where the name holds no address."""
    found = re.fullmatch(r"(.+?)@(https?://.+)", name)
    return (found[1], found[2]) if found else None


def parts(name: str) -> Parts:
    """The parts of a model that is loaded here. Raises ResourceError for a folder that could be two of them, and an
    adapter whose base can't be told."""
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return Parts(str(path.parent), gguf=path)
    if (path / ADAPTER).is_file():
        base = parts(_base_of(path))
        if base.adapter is not None:
            raise ResourceError(f"{name} is an adapter over another one, {base.adapter}; give MODEL+{name}")
        return base._replace(adapter=name)
    if path.is_dir():
        return Parts(name, gguf=_only_gguf(path))
    model, plus, adapter = name.rpartition("+")
    if plus and model and adapter:
        base = parts(model)
        if base.adapter is not None:
            raise ResourceError(f"{name}: {model} is an adapter itself; one adapter is merged into one model")
        return base._replace(adapter=adapter)
    model, at, revision = name.rpartition("@")
    return Parts(model, revision) if at and model and revision else Parts(name)


def absolute(name: str) -> str:
    """The name that means the same in another folder: for processes and machines that read the same disk."""
    if split(name):
        return name
    found = parts(name)
    ends = [str(Path(part).resolve()) if Path(part).exists() else part for part in (found.base, found.adapter) if part]
    return "+".join(ends)


def tokenizer_folder(parts: Parts) -> Path:
    """Where a model's tokenizer lies: beside the adapter if one is there, else beside the weights."""
    own = parts.adapter is not None and (Path(parts.adapter) / "tokenizer_config.json").is_file()
    return Path(parts.adapter if own else parts.model)


def made_from(parts: Parts) -> Path | None:
    """The GGUF file that a model's tokenizer is made from; None where it has one of its own."""
    return None if (tokenizer_folder(parts) / "tokenizer.json").is_file() else parts.gguf


def _base_of(adapter: Path) -> str:
    file = adapter / ADAPTER
    if (adapter / "config.json").is_file():
        raise ResourceError(
            f"{adapter} holds an adapter ({ADAPTER}) and a model (config.json); which one is meant can't be told: "
            f"remove {ADAPTER} where the weights beside it are merged already, else config.json and those weights"
        )
    try:
        config = json.loads(file.read_bytes())
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        base = revision = None
    if not isinstance(base, str) or not base or Path(base).resolve() == adapter.resolve():
        raise ResourceError(f"{file} names no model of its own as base_model_name_or_path; give MODEL+{adapter}")
    is_hub = not Path(base).exists()
    if is_hub and is_path(base):
        raise ResourceError(f"{file} names {base} as its base, which is not here; give MODEL+{adapter}")
    return f"{base}@{revision}" if is_hub and isinstance(revision, str) and revision else base


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder without other weights; None where it holds none."""
    found = sorted(folder.glob("*.gguf"))
    if not found or any(f.suffix in WEIGHTS for f in folder.iterdir()):
        return None
    if len(found) > 1:
        raise ResourceError(
            f"{folder} holds {len(found)} GGUF files; give one of them: {', '.join(map(str, found[:3]))}"
        )
    return found[0]
