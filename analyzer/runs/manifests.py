"""run.json, the manifest of a run: read with its faults named, written whole, with a sum that tells whether it is as it
was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from analyzer.errors import DumpError
from analyzer.runs.disk import refuse_no_text, write_atomically

SCHEMA = 1
MADE = ("versions", "path", "dtype", "device")  # of a scorer's record: by what its numbers were made
REPAIR = "restore run.json from a copy, or make the run again in another -o folder; the Parquet parts are untouched"


def read(path: Path) -> dict[str, Any]:
    """The manifest of the run in a folder. Raises DumpError when it is none or damaged,
    UsageError for a path that is no text."""
    refuse_no_text(path)
    file = path / "run.json"
    try:
        manifest = orjson.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DumpError(
            f"{path} is not a run: it has no run.json; make one with: analyzer score DUMP... --base MODEL -o {path}"
        ) from None
    except ValueError as error:
        raise DumpError(f"{file}: not valid JSON ({error}); {REPAIR}") from None
    if not isinstance(manifest, dict) or "schema" not in manifest:
        raise DumpError(f"{file}: not the manifest of a run; {REPAIR}")
    if manifest["schema"] != SCHEMA:
        raise DumpError(f"{file}: schema {manifest['schema']!r}, this version reads {SCHEMA}")
    for name, kind in {"inputs": list, "scorers": dict, "settings": dict, "samplers": dict}.items():
        if not isinstance(({"settings": {}, "samplers": {}} | manifest).get(name), kind):
            raise DumpError(f"{file}: {name!r} is missing or damaged; {REPAIR}")
    check = manifest.pop("check", None)  # earlier versions wrote none
    if check not in (None, _check(manifest)):
        raise DumpError(
            f"{file} is not as it was written: a disk or a hand has changed it; {REPAIR}. If it is to be as it is "
            'now, take the line with "check" out of it'
        )
    cut = manifest.pop("adding", None)  # killed in `adding`: with the part in place all is there, else nothing
    return cut["manifest"] if cut and (path / "traces" / cut["part"]).exists() else manifest


def write(path: Path, manifest: Mapping[str, Any]) -> bytes:
    """Write it atomically; returns what the file holds. Raises ResourceError when the disk refuses."""
    data = orjson.dumps(dict(manifest) | {"check": _check(manifest)}, option=orjson.OPT_INDENT_2)
    write_atomically(path / "run.json", data)
    return data


def made_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """By what a scorer's record says that its last numbers were made; which of several devices makes none other."""
    made = {name: record[name] for name in MADE if name in record}
    return made | ({"device": made["device"].partition(":")[0]} if "device" in made else {})


def earlier(now: Mapping[str, Any], *records: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{"earlier": by what else than now the records say that their numbers were made}; empty where by nothing else."""
    known = [made for record in records for made in (*record.get("earlier", ()), made_by(record))]
    is_now = made_by(now)
    others = [made for made in known if any(is_now.get(name) != value for name, value in made.items())]
    return {"earlier": [made for i, made in enumerate(others) if made not in others[:i]]} if others else {}


def _check(manifest: Mapping[str, Any]) -> str:
    """16 hex digits of what a manifest says."""
    return hashlib.sha256(orjson.dumps(manifest)).hexdigest()[:16]
