"""What a user names (paths, globs, folders, addresses on the hub, LABEL=any of these) -> the files that are meant."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyzer.dumps import hub
from analyzer.errors import DumpError, UsageError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".eval", ".traj")
LABEL = re.compile(r"[^\W_][\w.+-]*\Z")


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
