"""The Parquet parts of a run: which there are, and whether they are those that its manifest lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from analyzer.errors import DumpError
from analyzer.runs import manifests
from analyzer.runs.disk import damaged, part_batches, part_sum, read_part, row_count
from analyzer.runs.rows import ADDED, BATCH, SCORES, TRACES

PART = re.compile(r"(part|prompts)-\d{5,}(-[0-9a-f]{8})?\.parquet")  # the names of parts
AGAIN = "run the same line again, which does only those traces again, or"


class Parts:
    """A run's folder and what its manifest says of it."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    def verify(self, *, sums: bool = False) -> None:
        """Raise DumpError, naming the part, when one that was recorded is not there, has another number of rows or,
        with `sums` (which reads every byte), is not as it was written."""
        self._refuse_strangers()
        recorded = self.manifest.get("parts", {})
        for folder, known in recorded.items():
            self._refuse_lost(folder)
            for name, wrote in known.items():
                path = self.path / folder / name
                if (rows := row_count(path)) != wrote["rows"]:
                    raise damaged(path, f"{rows:,} rows, {wrote['rows']:,} were written")
                if sums and part_sum(path) != wrote["crc32"]:
                    raise damaged(path, "its bytes are not those that were written")
        for label, counts in self.manifest.get("finished", {}).items():  # of earlier versions no more is known
            if counts and f"scores/{label}" not in recorded and (n := self.status_counts(label).total()) < counts[1]:
                raise DumpError(
                    f"{self.path / 'scores' / label} holds {n:,} traces, {counts[1]:,} were scored: a part is not "
                    f"there; {AGAIN} restore it"
                )

    def _refuse_strangers(self) -> None:
        """Raise DumpError for a part that the run did not write, naming it."""
        if self._strangers(self.manifest) and (found := self._strangers(manifests.read(self.path))):  # as it is now
            raise DumpError(
                f"{found[0]} is no part that run {self.path} wrote: run.json does not list it (a copy, or of another "
                "run?), and its rows would count twice or be of other traces; move it out of the run"
            )

    def _strangers(self, manifest: Mapping[str, Any]) -> list[Path]:
        """Parts of a name that the run gives none, or not recorded where all are: of a scorer once it has finished.
        Until then a killed call may have left parts, with which the next one goes on."""
        recorded, out = manifest.get("parts", {}), []
        for folder in ("traces", *(f"scores/{label}" for label in self.scorers())):
            whole = folder == "traces" or manifest.get("finished", {}).get(folder.removeprefix("scores/"))
            known = recorded.get(folder) if whole else None
            parts = (p for stem in ("part", "prompts") for p in self._parts(folder, stem))
            out += [p for p in parts if not PART.fullmatch(p.name) or (known is not None and p.name not in known)]
        return out

    def _held(self, folder: str) -> dict[str, dict[str, Any]]:
        """Part -> {"rows", "crc32"}, of what is there; of what was recorded before, as it was then."""
        known = self.manifest.get("parts", {}).get(folder, {})
        parts = (p for stem in ("part", "prompts") for p in self._parts(folder, stem))
        return {p.name: known.get(p.name) or {"rows": row_count(p), "crc32": part_sum(p)} for p in parts}

    def _recorded(self, folder: str) -> dict[str, dict[str, Any]]:
        """The same of what was recorded; of an earlier version's run, what is there."""
        known = self.manifest.get("parts", {}).get(folder)
        return self._held(folder) if known is None else known

    def _lost(self, folder: str) -> dict[str, int]:
        """Part -> rows, of what was recorded and is not there."""
        known = self.manifest.get("parts", {}).get(folder, {})
        return {n: wrote["rows"] for n, wrote in known.items() if not (self.path / folder / n).is_file()}

    def _refuse_lost(self, folder: str) -> None:
        """Raise DumpError for a part that was recorded and is not there: its rows would be missing without a word."""
        if lost := self._lost(folder):
            raise self._lost_part(folder, min(lost), AGAIN)

    def _lost_part(self, folder: str, name: str, remedy: str) -> DumpError:
        rows = self.manifest["parts"][folder][name]["rows"]
        return DumpError(
            f"{self.path / folder / name} is not there, {rows:,} rows of the run were in it; {remedy} restore the file"
        )

    def scorers(self) -> list[str]:
        """Labels of the models that something was scored under."""
        folder = self.path / "scores"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def status_counts(self, scorer: str) -> Counter[str]:
        """Status ("ok" or the reason for not scoring) -> traces recorded under a scorer."""
        counts: Counter[str] = Counter()
        for part in self._parts(f"scores/{scorer}"):
            counts.update(read_part(part, SCORES, ["status"])["status"].to_pylist())
        return counts

    def held_traces(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Columns of the traces in the parts that are there, whether or not they are all."""
        for part in self._parts("traces"):
            yield from part_batches(part, TRACES, columns, BATCH, added=ADDED)

    def _parts(self, folder: str, stem: str = "part") -> list[Path]:
        return sorted((self.path / folder).glob(f"{stem}-*.parquet"))

    def _whole(self, folder: str, stem: str = "part") -> list[Path]:
        """The same, none of which is lost. Raises DumpError."""
        self._refuse_lost(folder)
        return self._parts(folder, stem)

    def _next(self, folder: str) -> str:
        """The number of a new part."""
        return f"{1 + max((int(p.stem.split('-')[1]) for p in self._parts(folder)), default=-1):05d}"
