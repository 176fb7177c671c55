"""Bytes on disk -> chunks -> lines, unpacked on the way and bounded in memory, whatever the file claims to be."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import zstandard

from analyzer.errors import DumpError

CHUNK = 1 << 17  # small enough for the processor's cache: 15 % faster than 1 MB
PACKED_CHUNK = 1 << 12  # of packed bytes at a time: a bomb unpacks to at most some 100 MB before anyone looks
BOMB = 1 << 25, 500  # unpacked bytes from which on more than 500 for each packed one are no data
MAX_LINE = 1 << 27  # bytes; a longer line is no row of a dump
MAX_DOCUMENT = 1 << 32  # bytes of one JSON document, unpacked
DENSE = 1 << 23  # bytes from which on JSON is weighed before it is parsed
ROW_VALUES, DOCUMENT_VALUES = 10**9, 2 * 10**9  # bytes of memory for the values of a row and of a document
# bytes of memory by the sign that brings them, as orjson builds them: "[],", nests and short texts take 15 to 50 a byte
WEIGHTS = {b",": 72, b"[": 90, b"{": 220}
STEP = 1 << 22  # bytes weighed at a time


def chunks(name: str, opened: Callable[[], BinaryIO]) -> Iterator[bytes]:
    """The file's bytes, gzip and zstd unpacked. Raises DumpError where packed data is damaged or has no end."""
    with opened() as stream:
        head = stream.read(4)
        make: Callable[[], Any] | None = None
        if head[:2] == b"\x1f\x8b":
            make = partial(zlib.decompressobj, 31)
        elif head == b"\x28\xb5\x2f\xfd":
            make = zstandard.ZstdDecompressor().decompressobj
        if make is None:
            yield head
            while chunk := stream.read(CHUNK):
                yield chunk
            return
        try:
            packed, data, given = make(), head, 0
            while data or (data := stream.read(PACKED_CHUNK)):
                taken = stream.tell()
                if packed.eof:  # a further member or frame follows
                    if not data.strip(b"\0"):
                        data = b""
                        continue
                    packed = make()
                out = packed.decompress(data)
                data = packed.unused_data
                given += len(out)
                if is_bomb(given, taken):
                    raise DumpError(
                        f"{name}: unpacks to more than {BOMB[1]} times its size ({given:,} bytes from {taken:,} so "
                        "far), as no dump does; if you trust it, unpack it and give the unpacked file"
                    )
                if out:
                    yield out
            if not packed.eof:
                raise EOFError("the last part has no end")
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as e:
            raise DumpError(f"{name}: the compressed data is damaged or cut short ({e}); copy the file again") from None


def is_bomb(unpacked: int, packed: int) -> bool:
    return unpacked > max(BOMB[0], BOMB[1] * packed)


def weighed(where: str, raw: bytes, limit: int, way: str) -> bytes:
    """`raw` again. Raises DumpError for JSON whose values would take more than `limit` bytes of memory, texts apart."""
    if len(raw) <= DENSE or sum(w * raw.count(sign) for sign, w in WEIGHTS.items()) <= limit:
        return raw
    if (weight := _weight(raw)) > limit:  # the quick count takes signs within texts for values
        raise DumpError(
            f"{where}: {len(raw):,} bytes that hold so many values that they take about {weight / 1e9:.1f} GB of "
            f"memory; at most {limit / 1e9:.1f} GB; {way}"
        )
    return raw


def _weight(raw: bytes) -> int:
    """Bytes of memory that the values of JSON text take, the characters of texts left out."""
    at = weight = inside = 0
    while at < len(raw):
        piece = raw[at : at + STEP]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # never between a backslash and what it escapes
            piece = raw[at : at + STEP + 1]
        at += len(piece)
        signs = np.frombuffer(piece.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
        quotes = np.cumsum(signs == 34, dtype=np.uint8) + np.uint8(inside)
        counts = np.bincount(signs[quotes % 2 == 0], minlength=256)  # within a text their number is odd
        weight += sum(w * int(counts[ord(sign)]) for sign, w in WEIGHTS.items())
        inside = int(quotes[-1]) % 2 if len(quotes) else inside
    return weight


def blocks(name: str, parts: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of chunks again, cut between lines. Raises DumpError for a line that no dump has."""
    rest: list[bytes] = []
    size, number = 0, 0
    way = "write fewer samples a line, or leave out what is not needed (alternatives of tokens, such as top_logprobs)"

    def joined(*end: Any) -> bytes:
        return weighed(f"{name}:{number + 1}", b"".join([*rest, *end]), ROW_VALUES, way)  # only its first line is long

    for part in parts:
        end = part.rfind(b"\n") + 1
        if end:
            block = joined(memoryview(part)[:end])
            number += block.count(b"\n")
            rest, size = [], 0
            yield block
        rest.append(part[end:] if end else part)
        size += len(rest[-1])
        if size > MAX_LINE:
            raise DumpError(
                f"{name}:{number + 1}: this line has more than {MAX_LINE >> 20} MB; expected one JSON object of one "
                "sample or problem per line"
            )
    if size:
        yield joined()


def whole(name: str, parts: Iterator[bytes]) -> bytes:
    """All bytes of a document. Raises DumpError where they are more than a document may have."""
    out, size = [], 0
    for part in parts:
        size += len(part)
        if size > MAX_DOCUMENT:
            raise DumpError(
                f"{name}: a JSON document of more than {MAX_DOCUMENT >> 30} GB; convert it to JSON lines, which are "
                "read one by one"
            )
        out.append(part)
    way = "convert it to JSON lines, which are read one by one (a list: jq -c '.[]')"
    return weighed(name, b"".join(out), DOCUMENT_VALUES, way)
