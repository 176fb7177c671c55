"""Files that survive a crash: written whole or not at all, refused by name when damaged, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from analyzer.errors import AnalyzerError, DumpError, ResourceError, UsageError

PACKED = {"compression": "zstd", "write_page_checksum": True}  # how parts are written; a part without sums is read too
WAIT = 0.5  # seconds for a lock that another process holds
LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)  # what systems say that have no locks
T = TypeVar("T")
Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


def write_atomically(path: Path, data: bytes | pa.Buffer) -> None:
    """Write to a temporary name, flush to disk, rename. Raises ResourceError when the disk refuses."""
    with replacing(path) as temporary, temporary.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside a file, which takes the file's place when all went well and is gone otherwise.

    Raises ResourceError when the disk refuses, DumpError when what is read meanwhile is gone.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def refused(path: Path, error: OSError) -> AnalyzerError:
    """What to say when a file could not be made: the disk refuses it, or what was read for it is gone."""
    at = error.filename
    ours = at is None or Path(at).name in (path.name, f".{path.name}.tmp") or path.is_relative_to(at)
    if ours or error.errno != errno.ENOENT:
        return unwritable(path, error)
    return DumpError(f"{at} is gone while it was read, {path} was not made; restore it, then run the same line again")


def unwritable(path: Path, error: OSError) -> ResourceError:
    """What to say when the disk refuses a file."""
    why = os.strerror(error.errno) if error.errno else error  # pyarrow puts words of its own around it
    return ResourceError(
        f"{path} can't be written: {why}; what was finished before is intact: make room or "
        "give write access, then run the same line again"
    )


def refuse_no_text(path: Path) -> None:
    """Raise UsageError for a path that is no UTF-8, which Arrow opens no file by."""
    if re.search("[\ud800-\udfff]", str(path)):
        raise UsageError(f"{path}: the name holds bytes that are no UTF-8, which no run can be read by; rename it")


def refuse_dangling(path: Path) -> None:
    """Raise UsageError where an output, or a folder above it, is a symbolic link to what is not there: its folder can't
    be made, and a file would take the link's place. The same of a name that is no text."""
    refuse_no_text(path)
    for link in (path, *path.parents):
        if link.is_symlink() and not os.path.exists(link):  # pathlib raises for links that lead round in a circle
            raise UsageError(
                f"{link} is a symbolic link that leads nowhere ({os.readlink(link)}); make its target, or remove it"
            )


def saved(error: ResourceError) -> ResourceError:
    """The error, for where something was finished before it: with what to do then, unless it says so itself."""
    if "same line" in str(error):
        return error
    return ResourceError(f"{error}; what was finished is saved, the same line again continues")


def read_part(
    path: Path, schema: pa.Schema, columns: Sequence[str] | None = None, *, added: Sequence[str] = ()
) -> pa.Table:
    """Columns of one Parquet part (all of `schema` by default). A column of `added` that the part lacks is null: an
    older version wrote it.

    Raises DumpError, naming the file, when it is cut off or damaged, or when its columns are not those of `schema`.
    """
    with _damage_named(path):
        names = list(columns or schema.names)
        held = _held(path, schema, names, added)
        table = pq.read_table(path, columns=held, page_checksum_verification=True)
        _refuse_other_count(path, table.num_rows)
        table.validate(full=True)  # of a part without sums: half a character would stop whoever reads it
        return table if held == names else _with_nulls(table, schema, names)


def part_batches(
    path: Path, schema: pa.Schema, columns: Sequence[str] | None = None, size: int = 4096, *, added: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """The rows of `read_part` by batches of at most `size`, for parts that memory can't hold. A column of `added` that
    the part lacks is null: an older version wrote it."""
    with _damage_named(path):
        names = list(columns or schema.names)
        held = _held(path, schema, names, added)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            count = 0
            for batch in file.iter_batches(batch_size=size, columns=held):
                count += batch.num_rows
                batch.validate(full=True)
                yield batch if held == names else _with_nulls(batch, schema, names)
        _refuse_other_count(path, count)


def _refuse_other_count(path: Path, rows: int) -> None:
    if rows != (said := pq.read_metadata(path).num_rows):
        raise damaged(path, f"{rows:,} rows, its footer says {said:,}")


def _held(path: Path, schema: pa.Schema, names: list[str], added: Sequence[str]) -> list[str]:
    """The names without those of `added` that the part lacks; at least one, which tells how many rows there are."""
    lacking = {n for n in names if n in added} - {*pq.read_schema(path).names}
    held = [n for n in names if n not in lacking] or schema.names[:1]
    _refuse_other_columns(path, schema, held)
    return held


def _with_nulls(rows: Rows, schema: pa.Schema, names: Sequence[str]) -> Rows:
    held = {*rows.schema.names}
    arrays = [rows[n] if n in held else pa.nulls(rows.num_rows, schema.field(n).type) for n in names]
    return type(rows).from_arrays(arrays, schema=pa.schema([schema.field(n) for n in names]))


def row_count(path: Path) -> int:
    """Rows of a Parquet part, by its footer. Raises DumpError when it is damaged."""
    with _damage_named(path):
        return pq.read_metadata(path).num_rows


def part_sum(path: Path) -> str:
    """8 hex digits of all bytes of a part, which a flipped bit anywhere changes (pages have sums of their own, the
    footer and the heads of pages have none)."""
    value = 0
    with _damage_named(path), path.open("rb") as file:
        while data := file.read(1 << 22):
            value = zlib.crc32(data, value)
    return f"{value:08x}"


def damaged(path: Path, why: str) -> DumpError:
    """What to say of a part whose bytes are wrong."""
    return DumpError(f"{path} is damaged ({why}); {remedy(path)}")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before it is used."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """DumpError for a part whose bytes are wrong; what memory or the system refuses says nothing of them."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"reading {path}: {str(error).partition(chr(10))[0] or 'no more'}") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            raise DumpError(f"{path} is gone while the run was read; run the same line again") from error
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise ResourceError(f"{path} can't be read: {error.strerror or error}") from error
        raise damaged(path, str(error).partition("\n")[0]) from error


def remedy(path: Path) -> str:
    """What to do about a part that can't be used."""
    it = f"it and {path.name.replace('prompts', 'part', 1)}" if path.name.startswith("prompts") else "it"
    return f"all else is intact: move {it} away and run the same line again, which does only those traces again"


def _refuse_other_columns(path: Path, schema: pa.Schema, names: Sequence[str]) -> None:
    found = pq.read_schema(path)
    have = {
        n: str(found.field(n).type) if n in found.names else "missing"
        for n in names
        if n not in found.names or not found.field(n).type.equals(schema.field(n).type)
    }
    if have:
        raise DumpError(
            f"{path} was not written by this version: "
            + ", ".join(f"column {n} is {kind}, expected {schema.field(n).type}" for n, kind in have.items())
            + f"; {remedy(path)}"
        )


def sole_writer(folder: Path, output: str | None = None) -> AbstractContextManager[None]:
    """Keep other processes from writing into a run's folder, or to one output in a folder; see `lock`."""
    if output is None:
        other = "use another -o folder, or divide the work with --shard i/n"
        return lock(folder / ".lock", f"run {folder}", other, stays=True)
    return lock(folder / f".{output}.lock", str(folder / output), "or use another -o")


@contextlib.contextmanager
def lock(path: Path, what: str, other: str, *, stays: bool = False) -> Iterator[None]:
    """Hold a lock file in a folder that is there; the system frees it when its holder dies, however it does.

    stays: whether the file is left when the block ends. Raises ResourceError, naming the holder of `what` and the
    `other` way, when another process has it, or when the file can't be written. Warns where the file system has no
    locks: nobody is kept out there.
    """
    held = FileLock(path, timeout=0, fallback_to_soft=False)
    ours = None
    try:
        path.parent.stat()  # FileLock would make it
        held.acquire(timeout=WAIT, poll_interval=0.02)  # who only looks whether a run is there holds it for a moment
        with contextlib.suppress(OSError):  # who holds it is only for the message; Windows lets nobody read it
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            ours = path.stat()
    except Timeout:
        holder = ""
        with contextlib.suppress(OSError):
            holder = path.read_text(encoding="utf-8", errors="replace").strip()
        raise ResourceError(
            f"{what} is being written by {holder or 'another process'}; wait for it or stop it, {other}"
        ) from None
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise ResourceError(f"{path.parent} can't be written: {error.strerror or error}") from error
        warnings.warn(
            f"{path.parent} is on a file system without locks ({error.strerror}): see to it that no other process "
            f"writes {what} meanwhile",
            stacklevel=3,
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if ours and not stays and os.path.samestat(path.stat(), ours):  # else its folder was exchanged
                path.unlink()
        held.release()
