"""Files on disk -> records, or a refusal that says what the file is and what to do.

Reads JSON lines and JSON documents in UTF-8 (also gzip and zstd), Parquet, and Inspect's zip logs. Knows the files that
look like dumps and are not: Git-LFS pointers, empty files, other archives and encodings. Nothing is unpacked to disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from analyzer.dumps import arrow, parse, streams, tables
from analyzer.dumps.paths import show
from analyzer.errors import DumpError

HEAD = 50  # records that decide what a file is
PEEK = 1 << 20  # bytes that decide how it is written


@dataclass
class Opened:
    """One file. `records()` walks its records: (line, object or Fault), where line counts the lines of JSONL and
    tables, else the records (from 1); `head` holds the first of them. `document`: the object of a JSON file that is
    one object."""

    name: str
    path: Path | None
    label: str | None
    sha256: str
    size: int
    kind: str  # jsonl, json, table, parquet, arrow or eval
    records: Callable[[], Iterator[tuple[int, Any]]] = lambda: iter(())
    head: list[tuple[int, Any]] = field(default_factory=list)
    document: dict[str, Any] | None = None

    def at(self, line: int) -> str:
        """file:line of JSONL and tables, file#record of a JSON document."""
        return f"{self.name}:{line}" if self.kind in ("jsonl", "table") else f"{self.name}#{line}"


def first(records: Iterator[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The records that decide what a file is: HEAD of them, fewer where they are huge."""
    out, size = [], 0
    for line, record in records:
        out.append((line, record))
        size += bulk(record, PEEK * HEAD - size)
        if len(out) == HEAD or size > PEEK * HEAD:
            break
    return out


def bulk(record: Any, enough: int) -> int:
    """Characters of a record's texts, and 32 for each other value; counted until there are enough."""
    size, held = 0, [record]
    while held and size <= enough:
        value = held.pop()
        if isinstance(value, (dict, list)):
            held.extend(value.values() if isinstance(value, dict) else value)
        size += len(value) if isinstance(value, str) else 32
    return size


def open_dump(name: str, path: Path | None, label: str | None) -> Opened:
    """Find out how a file is written, and open it. Raises DumpError for a fault of the whole file."""
    shown = "<stdin>" if path is None else name
    states: set[tuple[int, int]] = set()
    try:
        if (raw := _piped(shown, path)) is not None:

            def opened() -> BinaryIO:
                return io.BytesIO(raw)
        else:

            def opened() -> BinaryIO:
                return _still(shown, path, states)

        with opened() as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            magic = stream.read(64)
    except OSError as e:
        raise _unreadable(shown, e) from None
    out = Opened(shown, path, label, digest, size, "jsonl")
    if not size:
        raise DumpError(
            f"{shown}: the file is empty (0 bytes); the run that wrote it produced nothing, or the copy failed: "
            "leave it out or write it again"
        )
    if magic[:4] == b"PAR1":
        out.kind, out.records = "parquet", lambda: parse.parquet(shown, opened)
    elif arrow.is_arrow(magic):
        out.kind, out.records = "arrow", lambda: arrow.records(shown, opened)
    elif magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        out.kind, out.records = "eval", lambda: parse.inspect_log(shown, opened)
    else:
        _open_text(out, opened)
    walk = out.records
    out.records = lambda: _to_its_end(walk, opened)
    if not out.head:
        out.head = first(out.records())
    if out.kind == "jsonl" and len(out.head) == 1 and isinstance(out.head[0][1], dict) and not _named(out, ROWS):
        out.document = out.head[0][1]  # a nested document on one line, or a single row: the dialect decides
    return out


def _unreadable(shown: str, error: OSError) -> DumpError:
    return DumpError(f"{shown}: can't be read ({error.strerror or error}); check the path and its permissions")


def _still(shown: str, path: Path, states: set[tuple[int, int]]) -> BinaryIO:
    """The file, opened. Raises DumpError where it can't be, or is no more what it was: `states` holds size and time."""
    try:
        stream = path.open("rb")
    except OSError as e:
        raise _unreadable(shown, e) from None
    about = os.fstat(stream.fileno())
    states.add((about.st_size, about.st_mtime_ns))
    if len(states) > 1:
        stream.close()
        raise changed(shown)
    return stream


def changed(name: str) -> DumpError:
    return DumpError(f"{name} has changed while it was read; wait until it is written, then run the same line again")


def _to_its_end(
    records: Callable[[], Iterator[tuple[int, Any]]], opened: Callable[[], BinaryIO]
) -> Iterator[tuple[int, Any]]:
    """All records; then the file must still be what it was."""
    yield from records()
    opened().close()


MOST_PIPED = 1 << 31  # bytes of a stream, which stay in memory
_read: dict[tuple[int, int], bytes] = {}  # by device and inode: a stream gives its bytes once, and is opened again


def _piped(shown: str, path: Path | None) -> bytes | None:
    """All bytes of standard input, /dev/stdin or <(command); None for a file. Raises DumpError for what is neither, and
    for a stream without an end."""
    about = path.stat() if path is not None else os.fstat(sys.stdin.fileno()) if _is_open(sys.stdin) else None
    if path is not None and about is not None:
        if stat.S_ISREG(about.st_mode):
            return None
        if not stat.S_ISFIFO(about.st_mode):
            raise DumpError(f"{shown}: this is a device or a socket, no file; give a file, or - for standard input")
        if not path.is_symlink():
            raise DumpError(f"{shown}: this is a named pipe, which can be read once only; give - and: < {shown}")
    place = None if about is None else (about.st_dev, about.st_ino)
    if place in _read:
        return _read[place]
    parts: list[bytes] = []
    size = 0
    with contextlib.ExitStack() as stack:
        stream = sys.stdin.buffer if path is None else stack.enter_context(path.open("rb"))
        while part := stream.read(PEEK):
            parts.append(part)
            size += len(part)
            if not parts[0].strip(b"\0"):
                _refuse_other_kinds(shown, part)
            if size > MOST_PIPED:
                raise DumpError(
                    f"{shown}: more than {MOST_PIPED >> 30} GB came through the pipe, and they stay in memory; write "
                    "them to a file and give that"
                )
    raw = b"".join(parts)
    if place is not None and raw:
        _read[place] = raw
    return raw


def _is_open(stream: Any) -> bool:
    try:
        return stream.fileno() >= 0
    except (AttributeError, OSError, ValueError):
        return False


ROWS = (".jsonl", ".ndjson")


def _named(out: Opened, suffixes: str | tuple[str, ...]) -> bool:
    return out.name.removesuffix(".gz").removesuffix(".zst").endswith(suffixes)


def _open_text(out: Opened, opened: Callable[[], BinaryIO]) -> None:
    """Decide between JSON lines and a document by the beginning of the text; set kind, records and document."""
    parts = streams.chunks(out.name, opened)
    peek = b""
    whole = True
    for part in parts:
        peek += part
        if len(peek) >= PEEK:
            whole = False
            break
    parts.close()
    _refuse_other_kinds(out.name, peek[:PEEK])
    text = peek.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    if not text.strip():
        if not whole:
            raise DumpError(f"{out.name}: the first {PEEK:,} bytes are white space; expected JSON lines or JSON")
        raise DumpError(
            f"{out.name}: the file holds only white space; the run that wrote it produced nothing: leave it out or "
            "write it again"
        )
    if tables.delimiter(out.name):
        out.kind, out.records = "table", lambda: tables.rows(out.name, opened)
        return
    lines = [line for line in text.split("\n") if line.strip()]
    if not whole and len(lines) > 1:
        lines.pop()  # cut by the peek
    first = text.lstrip()[0]
    if first == "{" and len(lines) > 1 and not (_named(out, ".json") and lines[0].strip() == "{"):
        heads = sum(line.lstrip()[:1] == "{" and line.rstrip()[-1:] == "}" for line in lines)
        is_lines = _is_json(lines[0]) or heads > len(lines) / 2
    else:
        is_lines = len(lines) == 1 and first == "{" and not _named(out, ".json")
    if is_lines or first not in "[{":
        if first not in "[{" and not any(line.lstrip()[:1] == "{" for line in lines[:50]):
            kind = "an HTML page" if text.lstrip()[:20].lower().startswith(("<!doctype", "<html")) else "no JSON"
            raise DumpError(
                f"{out.name}:1: this is {kind} (it starts with {show(text.lstrip()[:30])}); expected JSON lines, "
                "one JSON document, or a table whose name ends in .csv or .tsv"
            )
        out.records = lambda: parse.json_lines(out.name, opened)
        return
    value = parse.document(out.name, opened)
    out.kind = "json"
    if isinstance(value, dict):
        out.document = value
        out.records = lambda: iter([(1, value)])
    else:
        if not value:
            raise DumpError(
                f"{out.name}: the JSON list is empty; the run that wrote it produced nothing: leave it out or write "
                "it again"
            )
        out.records = lambda: iter(enumerate(value, 1))


# how a packed file begins -> what it is, and what unpacks it
PACKED = {
    b"\xfd7zXZ\0": ("an xz archive", "xz -dk"),
    b"BZh": ("a bzip2 archive", "bunzip2 -k"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x"),
    b"Rar!\x1a\x07": ("a RAR archive", "unrar x"),
    b"\x04\x22\x4d\x18": ("an lz4 archive", "lz4 -dk"),
    b"\x1f\x8b": ("packed twice, gzip inside", ""),
    b"\x28\xb5\x2f\xfd": ("packed twice, zstd inside", ""),
    b"PK\x03\x04": ("a zip archive that is packed again", ""),
}


def _refuse_other_kinds(name: str, raw: bytes) -> None:
    base = Path(name).name
    kind, way = next((v for magic, v in PACKED.items() if raw.startswith(magic)), ("", ""))
    if raw[257:262] == b"ustar":
        kind, way = "a tar archive", "tar -xf"
    if kind:
        way = f" ({way} {base})" if way else ""
        raise DumpError(f"{name}: this is {kind}; unpack it first{way} and give what was inside")
    if raw and not raw[:64].strip(b"\0"):
        n = len(raw) - len(raw.lstrip(b"\0"))
        raise DumpError(
            f"{name}:1: the file begins with {n:,} NUL bytes, which are no text; the disk or the copy failed: write or "
            "copy it again"
        )
    if raw.startswith(b"version https://git-lfs"):
        raise DumpError(
            f"{name}:1: this is a Git-LFS pointer ({len(raw)} bytes), not the data; run `git lfs pull` in its "
            "repository, then try again"
        )
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw[:64]:
        kind = (
            "UTF-16 text"
            if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or raw[1:8:2].count(0) > 1 or raw[0:8:2].count(0) > 1
            else "binary data"
        )
        way = (
            f"convert: iconv -f UTF-16 -t UTF-8 {base} > utf8-{base}"
            if kind == "UTF-16 text"
            else "expected JSON lines or JSON in UTF-8, Parquet, or an Inspect log"
        )
        raise DumpError(f"{name}:1: this is {kind}, not UTF-8 text (it starts with bytes {raw[:4].hex(' ')}); {way}")


def _is_json(line: str) -> bool:
    try:
        parse.loads(line.encode())
    except ValueError:
        return False
    return True
