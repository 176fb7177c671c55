"""Files on disk -> parsed records, or a refusal that says what the file is and what to do.

Reads JSON lines and JSON documents in UTF-8, also gzip and zstd. Knows the files that look like dumps and are not:
Git-LFS pointers, empty files, Parquet, zip, other encodings. Nothing is unpacked to disk.
"""

from __future__ import annotations

import difflib
import glob
import gzip
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonlines
import orjson
import zstandard

from analyzer.errors import DumpError, UsageError
from analyzer.formats.paths import Fault, show

SUFFIXES = (".jsonl", ".ndjson", ".json")
LABEL = re.compile(r"[^\W_][\w.+-]*\Z")
PARQUET = (
    'Parquet files are not read by this version; convert: python -c "import pandas; '
    "pandas.read_parquet('{name}').to_json('{stem}.jsonl', orient='records', lines=True)\""
)


@dataclass
class Opened:
    """One parsed file. `records`: (line, object or Fault); line counts lines of JSONL, records of a JSON list (from 1).
    `document`: the object of a JSON file that is one object, else None. `ignored`: other files of the same folder."""

    name: str
    path: Path | None
    label: str | None
    sha256: str
    size: int
    kind: str  # jsonl or json
    records: list[tuple[int, Any]] = field(default_factory=list)
    document: dict[str, Any] | None = None

    def at(self, line: int) -> str:
        """file:line of JSONL, file#record of a JSON document."""
        return f"{self.name}:{line}" if self.kind == "jsonl" else f"{self.name}#{line}"


def _is_dump_name(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(SUFFIXES) and not path.name.startswith(
        "."
    )


def expand(specs: Sequence[str]) -> tuple[list[tuple[str, Path | None, str | None]], list[str]]:
    """Specs (path, glob, folder, "-", LABEL=any of these) -> (name as typed, path, label) in order, each file once, and
    notes about what a folder held besides. Raises DumpError where nothing is there, UsageError for a bad label."""
    if isinstance(specs, str) or not specs:
        raise UsageError(f"no dump given (got {specs!r}); expected paths, globs, folders, '-', or LABEL=PATH")
    found: dict[Any, tuple[str, Path | None, str | None]] = {}
    notes: list[str] = []
    for spec in specs:
        label, rest = _split_label(spec)
        for name in _matches(rest, notes):
            path = None if name == "-" else Path(name)
            key = "-" if path is None else path.resolve()
            if key in found and found[key][2] != label:
                raise UsageError(f"{name} is given twice, as {found[key][2]!r} and as {label!r}; give each file once")
            found.setdefault(key, (name, path, label))
    return list(found.values()), notes


def _split_label(spec: str) -> tuple[str | None, str]:
    if "\0" in spec:
        raise UsageError(f"dump {spec!r}: a path can't hold a NUL character")
    if spec == "-" or "=" not in spec or Path(spec).exists():
        return None, spec
    label, rest = spec.split("=", 1)
    if "/" in label or (label.startswith(".") and rest):
        return None, spec
    if not LABEL.match(label) or not rest:
        raise UsageError(
            f"dump {spec!r}: expected LABEL=PATH, the label from letters, digits and . + - _ (it names the source)"
        )
    return label, rest


def _matches(text: str, notes: list[str]) -> list[str]:
    if text == "-":
        return ["-"]
    path = Path(text)
    if path.is_dir():
        inside = sorted(
            p
            for p in path.rglob("*")
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts)
        )
        dumps = [p for p in inside if _is_dump_name(p)]
        if not dumps:
            kinds = sorted({p.suffix or p.name for p in inside}) or ["nothing"]
            raise DumpError(
                f"{text}: no .jsonl or .json file in this folder (it holds {', '.join(kinds[:6])}); name the files"
            )
        if len(dumps) < len(inside):
            others = [p for p in inside if p not in set(dumps)]
            notes.append(
                f"{len(others)} of {len(inside)} files in {text} are no .jsonl or .json and were not read, for "
                f"example {others[0].name}."
            )
        return [str(p) for p in dumps]
    if path.exists():
        return [text]
    if any(c in text for c in "*?["):
        hits = sorted(h for h in glob.glob(text, recursive=True) if Path(h).is_file())
        if not hits:
            raise DumpError(
                f"{text}: no file matches this pattern; check the folder, and quote the pattern so that the shell "
                "leaves it alone"
            )
        return hits
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = (
        f"; did you mean {str(path.parent / close[0])!r}?"
        if close
        else "; expected a file, a folder, a pattern, '-' for standard input, or LABEL=PATH"
    )
    raise DumpError(f"{text}: no such file{hint}")


def open_dump(name: str, path: Path | None, label: str | None) -> Opened:
    """Read, unpack, decode and parse one file. Raises DumpError for a fault of the whole file."""
    shown = "<stdin>" if path is None else name
    try:
        raw = sys.stdin.buffer.read() if path is None else path.read_bytes()
    except OSError as e:
        raise DumpError(f"{shown}: can't be read ({e.strerror or e}); check the path and its permissions") from None
    out = Opened(shown, path, label, hashlib.sha256(raw).hexdigest(), len(raw), "jsonl")
    text = _decode(shown, _unpack(shown, raw))
    _parse(out, text)
    return out


def _unpack(name: str, raw: bytes) -> bytes:
    if not raw:
        raise DumpError(
            f"{name}: the file is empty (0 bytes); the run that wrote it produced nothing, or the copy failed: "
            "leave it out or write it again"
        )
    try:
        if raw[:2] == b"\x1f\x8b":
            return gzip.decompress(raw)
        if raw[:4] == b"\x28\xb5\x2f\xfd":
            return _unzstd(raw)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as e:
        raise DumpError(f"{name}: the compressed data is damaged or cut short ({e}); copy the file again") from None
    return raw


def _unzstd(raw: bytes) -> bytes:
    """All frames; a frame without its end is an error (a stream reader would return what there is in silence)."""
    out = []
    while raw:
        reader = zstandard.ZstdDecompressor().decompressobj()
        out.append(reader.decompress(raw))
        if not reader.eof:
            raise EOFError("the last frame has no end")
        raw = reader.unused_data
    return b"".join(out)


def _decode(name: str, raw: bytes) -> str:
    base = Path(name).name
    if raw.startswith(b"version https://git-lfs"):
        raise DumpError(
            f"{name}:1: this is a Git-LFS pointer ({len(raw)} bytes), not the data; run `git lfs pull` in its "
            "repository, then try again"
        )
    if raw[:4] == b"PAR1":
        raise DumpError(f"{name}: {PARQUET.format(name=base, stem=Path(base).stem)}")
    if raw[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        hint = (
            "`inspect log dump FILE` prints an .eval log as JSON; write one row per sample from it (question, "
            "response, correct)"
            if base.endswith(".eval")
            else "unpack it and name the .jsonl or .json files inside"
        )
        raise DumpError(f"{name}: zip archives (.zip, .eval) are not read by this version; {hint}")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw[:64]:
        kind = (
            "UTF-16 text"
            if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or raw[1:8:2].count(0) > 1 or raw[0:8:2].count(0) > 1
            else "binary data"
        )
        way = (
            f"convert: iconv -f UTF-16 -t UTF-8 {base} > utf8-{base}"
            if kind == "UTF-16 text"
            else "expected JSON lines or JSON in UTF-8"
        )
        raise DumpError(f"{name}:1: this is {kind}, not UTF-8 text (it starts with bytes {raw[:4].hex(' ')}); {way}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise DumpError(
            f"{name}:{line}: not UTF-8 text (byte 0x{raw[e.start]:02x} at offset {e.start}); "
            f"if it is Latin-1, convert: iconv -f LATIN1 -t UTF-8 {base} > utf8-{base}"
        ) from None
    if not text.strip():
        raise DumpError(
            f"{name}: the file holds only white space; the run that wrote it produced nothing: leave it out or "
            "write it again"
        )
    return text


def loads(text: str) -> Any:
    """orjson; what it refuses and Python's json writes (NaN, huge integers) is read by json, so that the row can be
    judged
    by its values. Raises json.JSONDecodeError."""
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        try:
            return json.loads(text)
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", text[:80], 0) from None
        except ValueError as e:
            raise e if isinstance(e, json.JSONDecodeError) else json.JSONDecodeError(str(e), text[:80], 0) from None


def _parse(out: Opened, text: str) -> None:
    lines = [line for line in text.split("\n") if line.strip()]
    first = text.lstrip()[0]
    if (
        first == "{"
        and len(lines) > 1
        and not (out.name.removesuffix(".gz").removesuffix(".zst").endswith(".json") and lines[0].strip() == "{")
    ):
        heads = sum(line.lstrip()[:1] == "{" and line.rstrip()[-1:] == "}" for line in lines)
        is_lines = _is_json(lines[0]) or heads > len(lines) / 2
    else:
        is_lines = len(lines) == 1 and first == "{" and not _json_suffix(out.name)
    if is_lines or first not in "[{":
        if first not in "[{" and not any(line.lstrip()[:1] == "{" for line in lines[:50]):
            kind = "an HTML page" if text.lstrip()[:20].lower().startswith(("<!doctype", "<html")) else "no JSON"
            raise DumpError(
                f"{out.name}:1: this is {kind} (it starts with {show(text.lstrip()[:30])}); expected JSON lines or "
                "one JSON document"
            )
        out.records = _lines(text)
        is_rows = out.name.removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".ndjson"))
        if len(out.records) == 1 and isinstance(out.records[0][1], dict) and not is_rows:
            out.document = out.records[0][1]  # a nested document on one line, or a single row: the dialect decides
        return
    try:
        value = loads(text)
    except json.JSONDecodeError as e:
        raise DumpError(
            f"{out.name}:{e.lineno}: broken JSON ({e.msg} at column {e.colno}; the file may be cut short); "
            "write it again, or convert it to JSON lines, where one bad line can be counted and left out"
        ) from None
    out.kind = "json"
    if isinstance(value, dict):
        out.document = value
        out.records = [(1, value)]
    else:
        out.records = list(enumerate(value, 1))
        if not out.records:
            raise DumpError(
                f"{out.name}: the JSON list is empty; the run that wrote it produced nothing: leave it out or write "
                "it again"
            )


def _json_suffix(name: str) -> bool:
    return name.removesuffix(".gz").removesuffix(".zst").endswith(".json")


def _is_json(line: str) -> bool:
    try:
        loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _lines(text: str) -> list[tuple[int, Any]]:
    records: list[tuple[int, Any]] = []
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    reader = jsonlines.Reader([line for _, line in numbered], loads=loads)
    for n, line in numbered:
        try:
            records.append((n, reader.read()))
        except jsonlines.InvalidLineError as e:
            cause = e.__cause__
            where = f" at column {cause.colno}" if isinstance(cause, json.JSONDecodeError) else ""
            records.append((n, Fault("broken JSON", f"{getattr(cause, 'msg', e)}{where} in {show(line)}")))
    return records
