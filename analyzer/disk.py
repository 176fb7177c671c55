"""Files that survive a crash: written whole or not at all, refused by name when damaged, one writer at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from analyzer.errors import DumpError, ResourceError

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

    Raises ResourceError when the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Raise ResourceError, naming the file, when the disk refuses one in the folder."""
    try:
        yield
    except OSError as error:
        raise unwritable(Path(error.filename or folder), error) from error


def unwritable(path: Path, error: OSError) -> ResourceError:
    """What to say when the disk refuses a file."""
    return ResourceError(
        f"{path} can't be written: {error.strerror or error}; what was finished before is intact: make room or "
        "give write access, then run the same line again"
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
        table = pq.read_table(path, columns=held)
        return table if held == names else _with_nulls(table, schema, names)


def part_batches(
    path: Path, schema: pa.Schema, columns: Sequence[str] | None = None, size: int = 4096, *, added: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """The rows of `read_part` by batches of at most `size`, for parts that memory can't hold. A column of `added` that
    the part lacks is null: an older version wrote it."""
    with _damage_named(path):
        names = list(columns or schema.names)
        held = _held(path, schema, names, added)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=size, columns=held):
                yield batch if held == names else _with_nulls(batch, schema, names)


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
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DumpError(f"{path} is damaged ({str(error).splitlines()[0]}); {remedy(path)}") from error


def remedy(path: Path) -> str:
    """What to do about a part that can't be used."""
    it = f"it and {path.name.replace('prompts', 'part', 1)}" if path.name.startswith("prompts") else "it"
    return f"all else is intact: move {it} away and run the same line again, which does only those traces anew"


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


@contextlib.contextmanager
def sole_writer(folder: Path, output: str | None = None) -> Iterator[None]:
    """Keep other processes from writing into a run's folder, or to one output in a folder; the system frees the lock
    when its holder dies, however it does.

    Raises ResourceError, naming the holder, when another process writes, or when the folder can't be written. File
    systems without locks go unguarded.
    """
    lock = folder / (".lock" if output is None else f".{output}.lock")
    try:
        file = lock.open("a+", encoding="utf-8")
    except OSError as error:
        what = "run folder" if output is None else "folder"
        raise ResourceError(f"{what} {folder} can't be written: {error.strerror or error}") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            what, other = f"run {folder}", "use another -o folder, or divide the work with --shard i/n"
            if output is not None:
                what, other = str(folder / output), "or use another -o"
            raise ResourceError(f"{what} is being written by {holder}; wait for it or stop it, {other}") from None
        except (ImportError, OSError):  # Windows; network file systems mounted without locks
            pass
        with contextlib.suppress(OSError):  # who holds it is only for the message
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        try:
            yield
        finally:
            # whoever waits at the removed name finds the output; before there is one, two could lock two files
            if output is not None and (folder / output).exists():
                lock.unlink(missing_ok=True)
