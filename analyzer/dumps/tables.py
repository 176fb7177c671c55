"""CSV and TSV -> records. All cells are text; which of them are numbers is told by their columns' names."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from analyzer.dumps import parse, streams
from analyzer.dumps.paths import Fault, show
from analyzer.errors import DumpError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def delimiter(name: str) -> str | None:
    """What stands between the cells of a file of this name; None where it is no table."""
    return DELIMITERS.get(Path(name.removesuffix(".gz").removesuffix(".zst")).suffix.lower())


def rows(name: str, opened: Callable[[], BinaryIO]) -> parse.Records:
    """(line on which a row begins, {column: cell, or None where it is empty} or Fault). Raises DumpError for a table
    that has no header, or whose quotes have no end."""
    lines = _lines(name, opened)
    first = next(lines, "")
    mark = next((m for m in (delimiter(name) or ",", ";", "\t") if m in first), ",")  # some spreadsheets write others
    reader = csv.reader(chain([first] if first else [], lines), delimiter=mark, strict=True)
    header: list[str] | None = None
    while True:
        line, limit = reader.line_num + 1, csv.field_size_limit(streams.MAX_LINE)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            raise DumpError(
                f"{name}:{line}: broken table ({e}): a cell that holds quotes, line breaks or the delimiter is put in "
                'quotes, and its own quotes are doubled (""); write it with a CSV library, or as JSON lines'
            ) from None
        finally:
            csv.field_size_limit(limit)  # of this process, whoever else reads tables in it
        if header is None:
            header = _header(name, line, cells)
        elif len(cells) == len(header):
            yield line, {k: v or None for k, v in zip(header, cells, strict=True)}
        elif cells:
            detail = f"{len(cells)} cells under {len(header)} columns, the first {show(cells[0])}"
            yield line, Fault("ragged row", detail)


def _header(name: str, line: int, cells: list[str]) -> list[str]:
    twice = next((c for i, c in enumerate(cells) if c in cells[:i]), None)
    if twice is not None:
        raise DumpError(f"{name}:{line}: two columns are called {show(twice)}; which one counts is not said")
    return cells


def _lines(name: str, opened: Callable[[], BinaryIO]) -> Iterator[str]:
    number, offset, first = 0, 0, True
    for block in streams.blocks(name, streams.chunks(name, opened)):
        if first:
            block, first = block.removeprefix(b"\xef\xbb\xbf"), False
        for line in io.BytesIO(block):
            number += 1
            try:
                yield line.decode()
            except UnicodeDecodeError as e:
                raise parse.utf8_fault(name, number, offset + e.start, line[e.start]) from None
            offset += len(line)
