"""What a producer's file looks like and where its fields lie: one record per dialect, all of them in `table`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from analyzer.dumps.paths import has
from analyzer.dumps.shapes import Fields

Record = dict[str, Any]
BY_RECORD = ("row", "list", "wide")  # shapes that a record alone tells


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """An entry of the table; only `shape` and, but for a side file, `fields` are always there."""

    shape: str  # row, list, dict, nested or wide (see shapes), or side: a file that other dumps are joined with

    # what such a file is known by
    needs: tuple[str, ...] = ()  # paths that every record has
    document_needs: tuple[str, ...] = ()  # nested: paths of the document
    either: tuple[str, ...] = ()  # paths of which a record has at least one
    only: tuple[str, ...] = ()  # keys besides which a record has none
    without: tuple[str, ...] = ()  # keys that a record must not have
    when: Callable[[Record], bool] | None = None  # says of a record with all that whether it is one

    # where its fields lie: canonical field (fields.CANONICAL, or meta.NAME) -> path, or paths of which the first that
    # is there counts
    fields: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    rows: str | Callable[[Record], Iterator[tuple[int, Any]]] = ""  # nested: path of the records, or what makes them
    requires: tuple[str, ...] = ()  # fields that may not be null in any row
    absent_nulls: bool = False  # null says no more than a field that is not there
    keep: bool = False  # short values that no field reads are kept in meta
    reads: tuple[str, ...] = ()  # paths that its code reads: any other column that no field maps is told as unused

    # what names the source where neither LABEL= nor the row does: "stem" of the file's name, or its folder's ("parent",
    # "grandparent"), or "named": the folder, where the file's name is as `name` says, else the stem
    label: str = "stem"
    inside: str = "$^"  # regular expression on names of folders that the producer makes inside a run's
    name: str = ""  # regular expression on the file's stem; its groups (temperature, seed ...) are fields of every row
    folder: str = ""  # the same on the path of its folder

    # files that are joined: {side dialect: path of the key}, the joined record is "@join"; with no key, the one record
    # of the side file in the same folder
    join: Mapping[str, str] = field(default_factory=dict)
    key: str = ""  # side: path of the key

    # code
    survey: Callable[[Iterable[tuple[int, Any]]], Any] | None = None  # reads all records once before
    prepare: Callable[[Record, Any], Record] | None = None  # (record, survey): adds "@..." keys, or raises Fault
    refuse: Callable[[list[Any]], str | None] | None = None  # of the first records: why such a file can't be used
    adapt: Callable[[list[Any], Fields], tuple[Fields, str | None]] | None = None  # fits fields to a file, with a note
    note: str = ""  # one sentence for the ledger

    @property
    def paths(self) -> Fields:
        """The field map with every value a tuple of alternatives."""
        return {name: (p,) if isinstance(p, str) else p for name, p in self.fields.items()}

    def fits(self, record: Any) -> bool:
        """True where a record has everything that the dialect needs, and nothing that it can't have."""
        return (
            isinstance(record, dict)
            and all(has(record, p) for p in self.needs)
            and (not self.either or any(has(record, p) for p in self.either))
            and (not self.only or record.keys() <= {*self.only})
            and record.keys().isdisjoint(self.without)
            and (self.when is None or self.when(record))
        )
