"""Files on disk -> records, or a refusal that says what the file is and what to do.

Reads JSON lines and JSON documents in UTF-8 (also gzip and zstd), Parquet, and Inspect's zip logs. Knows the files that
look like dumps and are not: Git-LFS pointers, empty files, other archives and encodings. Nothing is unpacked to disk.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import hashlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from analyzer.dumps import arrow, hub, parse, streams, tables
from analyzer.dumps.paths import show
from analyzer.errors import DumpError, UsageError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".eval", ".traj")
HEAD = 50  # records that decide what a file is
PEEK = 1 << 20  # bytes that decide how it is written
LABEL = re.compile(r"[^\W_][\w.+-]*\Z")


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


def is_dump_name(path: Path) -> bool:
    """Whether a file of that name, there or not, would be a dump."""
    return path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(SUFFIXES) and not path.name.startswith(
        "."
    )


def expand(specs: Sequence[str]) -> tuple[list[tuple[str, Path | None, str | None]], list[str]]:
    """Specs (path, glob, folder, address on the hub, "-", LABEL=any of these) -> (name, path, label) in order, each
    file once, and notes about what a folder held besides. Raises DumpError where nothing is there, UsageError for a bad
    label."""
    if isinstance(specs, str) or not specs:
        raise UsageError(f"no dump given (got {specs!r}); expected paths, globs, folders, '-', or LABEL=PATH")
    found: dict[Any, tuple[str, Path | None, str | None]] = {}
    notes: list[str] = []
    for spec in specs:
        label, rest = _split_label(spec)
        for name in _without_superseded(_matches(rest, notes), notes):
            if re.search("[\ud800-\udfff]", name):
                raise DumpError(
                    f"{name}: the name holds bytes that are no UTF-8, which no run can keep; rename the file"
                )
            path = None if name == "-" else hub.fetched(name) if name.startswith(hub.SCHEME) else Path(name)
            key = "-" if path is None else path.resolve()
            if key in found and found[key][2] != label:
                raise UsageError(f"{name} is given twice, as {found[key][2]!r} and as {label!r}; give each file once")
            found.setdefault(key, (name, path, label))
    return list(found.values()), notes


def _without_superseded(names: list[str], notes: list[str]) -> list[str]:
    """Names without the files whose samples an evaluator has written again, with results, in a file beside them."""
    held, out, dropped = set(names), [], set()
    for name in names:
        stem = name.removesuffix(".jsonl")
        better = [
            n for n in (f"{name}_results.jsonl", f"{stem}_eval_results.json", f"{stem}.eval_results.json") if n in held
        ]
        if better and _statuses_only(better[0]):
            notes.append(
                f"{better[0]} was not read: it holds statuses of tests without solutions (EvalPlus before 0.2.1), so "
                f"the samples of {name} have no labels."
            )
            dropped.add(better[0])
            out.append(name)
        elif better:
            notes.append(f"{name} was not read: {better[0]} holds its samples with their results.")
        else:
            out.append(name)
    return [name for name in out if name not in dropped]


def _statuses_only(name: str) -> bool:
    """True for the results of old EvalPlus, by how they begin."""
    try:
        with Path(name).open("rb") as stream:
            return b'"nfiles"' in stream.read(1 << 12)
    except OSError:  # said when the file is opened to be read
        return False


def labels_of(specs: Sequence[str]) -> set[str] | None:
    """The labels of specs that all have one, else None: then the files tell more sources."""
    labels = [_split_label(spec)[0] for spec in specs]
    return None if not labels or None in labels else {label for label in labels if label}


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
    if text.startswith(hub.SCHEME):
        return hub.addresses(text, is_dump_name)
    path = Path(text)
    if path.is_dir():
        inside = sorted(
            p
            for p in path.rglob("*")
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts)
        )
        dumps = [p for p in inside if is_dump_name(p)]
        if not dumps:
            kinds = sorted({p.suffix or p.name for p in inside}) or ["nothing"]
            raise DumpError(
                f"{text}: no .jsonl, .json, .parquet, .arrow or .eval file in this folder (it holds "
                f"{', '.join(kinds[:6])}); name the files"
            )
        if len(dumps) < len(inside):
            others = [p for p in inside if p not in set(dumps)]
            notes.append(
                f"{len(others)} of {len(inside)} files in {text} are no dump by their name and were not read, for "
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
