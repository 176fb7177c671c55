"""Bytes -> records: JSON lines, JSON documents, Parquet, Inspect's zip. A bad row is a Fault in its place."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import zstandard

from analyzer.dumps import streams
from analyzer.dumps.paths import Fault, show
from analyzer.errors import DumpError

Records = Iterator[tuple[int, Any]]
MAX_MEMBER = 1 << 28  # bytes of one sample of an Inspect log, unpacked
MAX_GROUP = 1 << 33  # bytes of one Parquet row group, unpacked
BATCH, BATCH_BYTES = 256, 1 << 28  # Parquet rows that are turned into Python at a time, and bytes that they may have


# digits that may be more than orjson's 64 bits hold, which it would round as a float: a run of 19 spans 8 aligned bytes
LONG = re.compile(rb"(?<![\d.eE+])\d{19,}(?![\d.eE])")
HIGH, EIGHT = np.uint64(0xF0F0F0F0F0F0F0F0), np.uint64(0x3030303030303030)  # of a digit, and of : ; < = > ? too


class DuplicateKeyError(ValueError):
    """An object names a key twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        key = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise DuplicateKeyError(f"the key {show(key, 40)} stands twice in one object; which value counts is not said")
    return out


def loads(raw: bytes) -> Any:
    """orjson; what it refuses and Python's json writes (NaN, lone surrogates) is read by json, so that the row can be
    judged by its values. Raises json.JSONDecodeError, DuplicateKeyError, UnicodeDecodeError.

    A key that stands twice would lose a value in silence. The text then holds more quotation marks than its value
    written again; where the counts differ (or quotes are written as \\u0022), the slow parser looks for such a key. So
    it does where digits stand that may be an integer beyond 64 bits."""
    try:
        value = orjson.loads(raw)
        if raw.count(b'"') == orjson.dumps(value).count(b'"') and not _long(raw):
            return value
        del value  # before it is built once more
    except orjson.JSONDecodeError:
        pass
    except orjson.JSONEncodeError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    text = raw.decode()
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text[:80], 0) from None
    except (json.JSONDecodeError, DuplicateKeyError):
        raise
    except ValueError as e:
        raise json.JSONDecodeError(str(e), text[:80], 0) from None


def utf8_fault(name: str, line: int, offset: int, byte: int) -> DumpError:
    base = Path(name).name
    return DumpError(
        f"{name}:{line}: not UTF-8 text (byte 0x{byte:02x} at offset {offset}); "
        f"if it is Latin-1, convert: iconv -f LATIN1 -t UTF-8 {base} > utf8-{base}"
    )


def json_lines(name: str, opened: Callable[[], BinaryIO]) -> Records:
    """(line, object or Fault) of JSON lines, without the blank ones. Raises DumpError for text that is no UTF-8."""
    offset = number = 0
    for block in streams.blocks(name, streams.chunks(name, opened)):
        if offset == 0 and block[:3] == b"\xef\xbb\xbf":
            block, offset = block[3:], 3
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        values = _clean(block, lines)
        yield from _slow_lines(name, lines, number, offset) if values is None else enumerate(values, number + 1)
        values = None  # before the next are built: a line may be large
        number += len(lines)
        offset += len(block)


def _clean(block: bytes, lines: list[bytes]) -> list[Any] | None:
    """The values of a block's lines at once, or None where one of them needs a closer look: nearly all are clean."""
    try:
        values = list(map(orjson.loads, lines))
        return None if _quotes(block) != _quotes(orjson.dumps(values)) or _long(block) else values
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def _quotes(raw: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == 34))


def _long(raw: bytes) -> bool:
    """Whether digits stand in the text that orjson may round."""
    words = np.frombuffer(raw, np.uint64, len(raw) // 8)
    return bool(((words & HIGH) == EIGHT).any()) and LONG.search(raw) is not None


def _slow_lines(name: str, lines: list[bytes], number: int, offset: int) -> Records:
    for line in lines:
        number += 1
        try:
            yield number, loads(line)
        except UnicodeDecodeError as e:
            raise utf8_fault(name, number, offset + e.start, line[e.start]) from None
        except DuplicateKeyError as e:
            yield number, Fault("duplicate key", str(e))
        except json.JSONDecodeError as e:
            if line.strip():
                detail = f"{e.msg} at column {e.colno} in {show(line.decode(errors='replace'))}"
                yield number, Fault("broken JSON", detail)
        offset += len(line) + 1


def document(name: str, opened: Callable[[], BinaryIO]) -> Any:
    """The value of a JSON document. Raises DumpError with the line of a fault."""
    raw = streams.whole(name, streams.chunks(name, opened)).removeprefix(b"\xef\xbb\xbf")
    try:
        return loads(raw)
    except UnicodeDecodeError as e:
        raise utf8_fault(name, raw.count(b"\n", 0, e.start) + 1, e.start, raw[e.start]) from None
    except DuplicateKeyError as e:
        raise DumpError(f"{name}: {e}; write the file again with one of them") from None
    except json.JSONDecodeError as e:
        raise DumpError(
            f"{name}:{e.lineno}: several JSON documents one after the other (the second at column {e.colno}); make "
            f"JSON lines of them: jq -c . {Path(name).name} > lines-{Path(name).stem}.jsonl"
            if e.msg == "Extra data"
            else f"{name}:{e.lineno}: broken JSON ({e.msg} at column {e.colno}; the file may be cut short); "
            "write it again, or convert it to JSON lines, where one bad line can be counted and left out"
        ) from None


def parquet(name: str, opened: Callable[[], BinaryIO]) -> Records:
    """(row, object) of a Parquet file, some hundred rows at a time. Raises DumpError for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with opened() as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
            if max(sizes, default=0) > MAX_GROUP:
                raise DumpError(f"{name}: a row group of {max(sizes):,} bytes; write it with smaller row groups")
            # a dictionary holds a value once for all rows that have it: a row may be as large as its group
            size = max(1, min(BATCH, BATCH_BYTES // max([1, *sizes])))
            for batch in file.iter_batches(batch_size=size):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except MemoryError:  # Arrow's is one of its own errors too, and says nothing of the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as e:
        raise DumpError(
            f"{name}: the Parquet data is damaged or cut short ({str(e).splitlines()[0][:120] if str(e) else e!r}); "
            "copy the file again"
        ) from None


def member(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, stream: BinaryIO) -> bytes:
    """The bytes of a zip member, also of one packed with zstd (which zipfile learns in Python 3.14). Raises DumpError,
    zipfile.BadZipFile, zlib.error, zstandard.ZstdError."""
    where, size = f"{name}: {info.filename}", info.file_size
    if size > MAX_MEMBER:
        raise DumpError(f"{where} unpacks to {size:,} bytes; one sample has at most {MAX_MEMBER:,}")
    packed = min(info.compress_size, stream.seek(0, io.SEEK_END))  # what the archive claims, if it can be
    if streams.is_bomb(size, packed):
        raise DumpError(
            f"{where} unpacks to more than {streams.BOMB[1]} times its size ({size:,} bytes from {packed:,}), as no "
            "sample does; if you trust it, write the log as JSON (inspect log convert --to json)"
        )
    if info.compress_type != 93:
        with archive.open(info) as part:
            raw = part.read(info.file_size + 1)
    else:
        stream.seek(info.header_offset)
        head = stream.read(30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no member at {info.header_offset}")
        names, extra = struct.unpack("<HH", head[26:30])
        stream.seek(names + extra, io.SEEK_CUR)
        data = io.BytesIO(stream.read(info.compress_size))
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        raw = reader.read(info.file_size + 1)
    if len(raw) != info.file_size or zlib.crc32(raw) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} does not have the size and checksum it should have")
    return streams.weighed(where, raw, streams.ROW_VALUES, "write the log again without its events")


def inspect_log(name: str, opened: Callable[[], BinaryIO]) -> Records:
    """(number, sample) of an Inspect .eval log, its header as "@0" of every sample. Nothing is written to disk."""
    try:
        with opened() as stream, zipfile.ZipFile(stream) as archive:
            infos = {i.filename: i for i in archive.infolist()}
            samples = [n for n in infos if n.startswith("samples/") and n.endswith(".json")]
            start = "header.json" if "header.json" in infos else "_journal/start.json"
            if start not in infos:
                raise DumpError(
                    f"{name}: a zip archive that is no Inspect log (it has {', '.join(list(infos)[:4]) or 'nothing'}); "
                    "unpack it and name the files inside"
                )
            header = loads(member(name, archive, infos[start], stream))
            for number, sample in enumerate(samples, 1):
                try:
                    value = loads(member(name, archive, infos[sample], stream))
                    yield number, {**value, "@0": header} if isinstance(value, dict) else value
                except (json.JSONDecodeError, DuplicateKeyError, UnicodeDecodeError) as e:
                    yield number, Fault("broken JSON", f"{sample}: {e}")
    except (zipfile.BadZipFile, zlib.error, zstandard.ZstdError, EOFError, OSError, NotImplementedError, struct.error,
            RuntimeError, ValueError, OverflowError) as e:  # fmt: skip
        if isinstance(e, json.JSONDecodeError):
            raise DumpError(f"{name}: the log's header is broken JSON ({e.msg})") from None
        raise DumpError(f"{name}: the zip archive is damaged or cut short ({e}); copy the file again") from None
