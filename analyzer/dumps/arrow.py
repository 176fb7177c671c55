"""Arrow IPC files and streams (Feather, the `data-*.arrow` of datasets' save_to_disk) -> records."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from analyzer.dumps.parse import BATCH, BATCH_BYTES, Records
from analyzer.errors import DumpError

FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"  # how they begin; a file is a stream between its magic and a footer
SLOTS = {"record batch": (3,), "dictionary": (1, 3)}  # where a message's header says how its body is packed


def is_arrow(magic: bytes) -> bool:
    """Whether a file begins as one of these."""
    return magic.startswith(FILE) or (magic[:4] == STREAM and len(magic) > 8)


def records(name: str, opened: Callable[[], BinaryIO]) -> Records:
    """(row, object), some hundred rows at a time. Raises DumpError for damaged and for packed data."""
    import pyarrow as pa

    number = 0
    try:
        with opened() as stream:
            held = stream.getbuffer() if isinstance(stream, io.BytesIO) else _mapped(stream)
            data = pa.py_buffer(held)
            data = data.slice(8) if held[:6] == FILE else data
            _refuse_packed(name, data)
            for batch in pa.ipc.open_stream(pa.BufferReader(data)):
                batch.validate(full=True)  # else a damaged offset would be followed
                size = max(1, min(BATCH, BATCH_BYTES // max(1, batch.nbytes)))
                for start in range(0, batch.num_rows, size):
                    for row in batch.slice(start, size).to_pylist():
                        number += 1
                        yield number, row
    except MemoryError:  # Arrow's is one of its own errors too, and says nothing of the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error, ValueError) as e:
        raise DumpError(
            f"{name}: the Arrow data is damaged or cut short ({(str(e).splitlines() or [repr(e)])[0][:120]}); copy the "
            "file again"
        ) from None


def _mapped(stream: BinaryIO) -> mmap.mmap:
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _refuse_packed(name: str, data: Any) -> None:
    """Raise DumpError where a batch is packed: what it unpacks to is known only when it is in memory."""
    import pyarrow as pa

    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(data))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        header = message.metadata.to_pybytes()
        at = _field(header, struct.unpack_from("<I", header)[0], 2)
        for slot in SLOTS.get(message.type, ()):
            at = at and _field(header, at, slot)
        if at and message.type in SLOTS:
            raise DumpError(
                f"{name}: its batches are packed inside (lz4 or zstd), which is read in Parquet only; write it "
                "without, or as Parquet"
            )


def _field(header: bytes, table: int, slot: int) -> int:
    """Where the table lies that a flatbuffer's table has in a slot; 0 where it has none."""
    places = table - struct.unpack_from("<i", header, table)[0]
    if places < 0 or 4 + 2 * slot >= struct.unpack_from("<H", header, places)[0]:
        return 0
    offset = struct.unpack_from("<H", header, places + 4 + 2 * slot)[0]
    return table + offset + struct.unpack_from("<I", header, table + offset)[0] if offset else 0
