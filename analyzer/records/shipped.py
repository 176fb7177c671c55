"""Where the data that come with the package lie: the miniature; in a checkout also small samples of every format."""

from __future__ import annotations

from pathlib import Path

from analyzer.errors import ResourceError


def data_folder() -> Path | None:
    """data/: inside the installed package, or beside it in a checkout; None where there is neither."""
    package = Path(__file__).resolve().parents[1]
    return next((f / "data" for f in (package, package.parent) if (f / "data" / "miniature").is_dir()), None)


def miniature() -> Path:
    """The folder of the embedded small world: dumps/*.jsonl.gz, models/, card.md. Raises ResourceError."""
    folder = data_folder()
    if folder is None or not (folder / "miniature" / "dumps").is_dir():
        raise ResourceError("the miniature's data is missing; reinstall, or rebuild it: python -m miniature build")
    return folder / "miniature"
