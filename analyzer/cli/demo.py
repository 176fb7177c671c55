"""The inputs of `analyzer demo`: the embedded miniature, by names relative to the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analyzer.errors import UsageError
from analyzer.records import Sampler


def settings() -> dict[str, Any]:
    """The arguments of `making.make`."""
    plain, cool = Sampler(), Sampler(0.6, 0.95)
    models = Path("miniature/models")
    return {
        "specs": [
            f"{s}=miniature/dumps/{s}.jsonl.gz" for s in ("base", "base-again", "cool", "rlvr", "distill", "teacher")
        ],
        "ingest": {
            "reference": "base",
            "samplers": {"base": plain, "base-again": plain, "cool": cool, "rlvr": plain, "distill": plain},
        },
        "score": {
            "base": str(models / "base"),
            "at_most": 64,
            "policies": {
                "base-again": str(models / "base"),
                "cool": str(models / "base"),
                "rlvr": str(models / "rlvr"),
                "distill": str(models / "distill"),
            },
        },
        "page": {"folder_mb": 1.0},  # traces to look at, of 24,576: the committed report stays small
    }


def data_folder() -> Path:
    """data/: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "data" if (package / "data").is_dir() else package.parent / "data"
    if not (folder / "miniature" / "dumps").is_dir():
        raise UsageError(
            f"the miniature's data is not at {folder}; reinstall, or rebuild it: python -m miniature build"
        )
    return folder
