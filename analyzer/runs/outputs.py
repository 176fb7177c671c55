"""Folders of results: one writer at a time, the old until the new is whole, and nothing that is not ours touched.

A folder of ours holds MARKER, which lists the files that we wrote into it: those alone are ever replaced or removed.
What else lies there stays (a run, a neighbour's notes). A new report is written into a hidden folder beside the old
one, and the two are exchanged in one step of the file system; where it has none, file by file in an order that never
shows parts of both.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from analyzer.errors import ResourceError, UsageError
from analyzer.runs.disk import lock, refuse_dangling, sole_writer, unwritable, write_atomically

MARKER, LOCK = "made-by-analyzer.json", ".analyzer.lock"
PAGES = ("results.json", "index.json", "index.html", "report.md")  # what is read first: gone before anything is mixed
FOLDERS = ("figures", "tables", "data")  # of a report, beside its pages
NAMED = 3  # of what is in the way


def refuse(directory: str | Path, beside: Collection[str] = ("run",), inputs: Iterable[Path] = ()) -> None:
    """Raise UsageError where `directory` can't take results: it holds something and is no folder of ours, or one of the
    `inputs` has the place of a file that would be written. beside: folders in it that belong to it all the same."""
    directory = Path(directory)
    refuse_dangling(directory)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"-o {directory} is a file; the report is a folder: choose another name")
    home, known = directory.resolve(), listed(directory)
    for path in inputs:
        inside = path.resolve()
        if not inside.is_relative_to(home):
            continue
        name = inside.relative_to(home).as_posix()
        if name in (known or ()) or name.split("/")[0] in (*PAGES, *FOLDERS, MARKER):
            raise UsageError(
                f"-o {directory} would write over {path}, which is an input; choose another folder for the report"
            )
    if known is not None or not directory.is_dir():
        return
    foreign = [p.name for p in _entries(directory) if not (p.name in beside and p.is_dir())]
    if foreign:
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        raise UsageError(
            f"-o {directory} is not empty and not a report of this program (it holds "
            f"{', '.join(sorted(foreign)[:NAMED])}{more}); choose a new or an empty folder"
        )


def listed(directory: Path) -> set[str] | None:
    """The files that we wrote into a folder, as paths below it; None where it is not ours. Raises UsageError for a
    marker that can't be read."""
    marker = directory / MARKER
    if not marker.is_file():
        return _unmarked(directory)
    try:
        names = json.loads(marker.read_text(encoding="utf-8"))["files"]
        paths = [PurePosixPath(n) for n in names]
    except (ValueError, KeyError, TypeError):
        paths = [PurePosixPath("/")]
    if any(p.is_absolute() or ".." in p.parts for p in paths):
        raise UsageError(
            f"{marker} is damaged, it does not list the files of a report; choose another folder, or remove this one"
        )
    return {p.as_posix() for p in paths} | {MARKER}


def _unmarked(directory: Path) -> set[str] | None:
    """The same for a folder that an earlier version wrote, known by what its pages say; else None."""
    files = {}
    try:
        for name in ("results.json", "index.json"):
            if (directory / name).is_file():
                with (directory / name).open("rb") as file:  # a dump of that name may be large
                    files[name] = json.load(file) if re.match(rb'\{\s*"schema"', file.peek(64)) else None
        page = directory / "index.html"
        ours = not page.exists() or b'name="referrer" content="no-referrer"' in page.read_bytes()[:2000]
    except (OSError, ValueError):
        return None
    if not ours:
        return None
    keys = {"schema", "version", "command"}
    index, results = files.get("index.json"), files.get("results.json")
    if isinstance(index, dict) and keys | {"studies"} <= index.keys():
        return {"index.json", "index.html"}
    if not isinstance(results, dict) or not keys | {"ledger", "sources", "verdicts", "analyses"} <= results.keys():
        return None
    names = {"results.json", "index.html", "report.md", "tables/key.tex"}
    stems = "|".join(re.escape(str(name)) for name in results["analyses"]) or "(?!)"
    numbered = re.compile(rf"figures/({stems})-.*\.(svg|pdf|csv)|tables/({stems})-.*\.csv|data/t\d+\.js")
    for folder in FOLDERS:
        found = () if (directory / folder).is_symlink() else (directory / folder).glob("*")
        inside = {f"{folder}/{p.name}": p for p in found if p.is_file()}
        names |= {n for n, p in inside.items() if numbered.fullmatch(n) and (folder != "data" or _is_pack(p))}
    return names


def _is_pack(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(13) == b"analyzerPack("


def _entries(directory: Path) -> list[Path]:
    return [p for p in directory.iterdir() if not p.name.startswith(".")]


def _is_staging(path: Path, name: str) -> bool:
    return bool(re.fullmatch(rf"\.{re.escape(name)}\.\d+\.new", path.name))


@contextlib.contextmanager
def replaced(directory: str | Path, *, beside: Collection[str] = ("run",), at_once: bool = True) -> Iterator[Path]:
    """A hidden folder to write into, which takes the place of our files in `directory` when all went well and is gone
    otherwise. Killed at any moment, the old or the new is there whole. beside: as for `refuse`.

    at_once: exchange the whole folders where the system can; where much else lies in `directory` (a batch and its
    studies), file by file is kinder: a kill then costs the pages until the same line again, and moves nothing.
    Raises UsageError (a folder that is not ours, a file in the way), ResourceError (another writer, the disk).
    """
    directory = Path(directory)
    refuse(directory, beside)
    home = directory.resolve()
    made = [p for p in (home, *home.parents) if not p.exists()]
    staging = None
    try:
        with _told(directory, home, home):
            home.mkdir(parents=True, exist_ok=True)
        with lock(home / LOCK, str(directory), "use another -o folder"):
            _clear_leftovers(home)
            refuse(directory, beside)  # again: nobody else writes from here on
            with _told(directory, home):
                staging = _staging(home, at_once)
            with _told(directory, home, staging):
                yield staging
                _put(staging, home, listed(home) or set())
    finally:
        if staging is not None and not (staging / LOCK).exists():  # else it holds what could not be brought back
            shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # nothing came of it: the folders that were made for it go again
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def _told(directory: Path, *hidden: Path) -> Iterator[None]:
    """What the disk refuses in one of the `hidden` folders is said of `directory`, the name that the user knows."""
    try:
        yield
    except OSError as error:
        full = error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
        path = hidden[-1] if full else Path(error.filename or "")
        above = next((h for h in hidden if path.is_relative_to(h)), None)
        if above is None:  # a file of something else
            raise
        raise unwritable(directory / path.relative_to(above), error) from error
    except ResourceError as error:
        text = str(error)
        for folder in hidden:
            text = text.replace(str(folder), str(directory))
        raise ResourceError(text) from error


def _staging(home: Path, at_once: bool) -> Path:
    """A new hidden folder: beside `home`, so that the two can be exchanged, or in it where that is not possible or a
    shell stands in it."""
    name = f".{home.name}.{os.getpid()}.new"
    inside = home / name
    with contextlib.suppress(OSError):
        if at_once and home.parent.stat().st_dev == home.stat().st_dev and not Path.cwd().is_relative_to(home):
            (home.parent / name).mkdir()
            return home.parent / name
    inside.mkdir()
    return inside


def _clear_leftovers(home: Path) -> None:
    """Finish what a killed writer left: from a folder that was exchanged everything that is not ours comes back, one
    that was not exchanged yet goes."""
    restore(home)
    for left in _leftovers(home):
        shutil.rmtree(left, ignore_errors=True)


def restore(directory: str | Path) -> None:
    """Bring back what is not ours (a run) from a folder that stood in the place of `directory` when a report was
    killed.
    Raises ResourceError where another process writes there, UsageError where its place is taken."""
    home = Path(os.path.realpath(directory))  # links may lead round in a circle
    for left in _leftovers(home):
        if (left / LOCK).exists():  # it stood in the place of `home`
            with lock(left / LOCK, str(home), "use another -o folder"):
                _bring_back(left, home, listed(left) or set())


def _leftovers(home: Path) -> list[Path]:
    found = [p for folder in (home.parent, home) for p in folder.glob(f".{_glob(home.name)}.*.new")]
    return [p for p in found if _is_staging(p, home.name) and p.is_dir() and not p.is_symlink()]


def _glob(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _put(new: Path, home: Path, before: set[str]) -> None:
    """Let the files in `new` take the place of those of `before` in `home`."""
    names = {p.relative_to(new).as_posix() for p in new.rglob("*") if not p.is_dir()} | {MARKER}
    _refuse_in_the_way(home, names, before)
    _mark(new, names)
    with ThreadPoolExecutor(16) as pool:  # together they take a thirtieth of one after the other
        list(pool.map(_flush, [new / name for name in names]))
    if before and not (home / MARKER).exists():  # of an earlier version: what is left by a kill must be known as ours
        before = before | {MARKER}
        _mark(home, before)
    if new.parent == home.parent and _exchanged(new, home):
        _bring_back(new, home, before)
    else:
        if new.parent == home.parent:
            new = Path(shutil.move(new, home / new.name))
        _file_by_file(new, home, names, before)
        shutil.rmtree(new, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes no file that is open for reading
        os.fsync(file.fileno())


def _mark(folder: Path, names: set[str]) -> None:
    text = json.dumps({"schema": 1, "files": sorted(names)}, indent=1)
    write_atomically(folder / MARKER, f"{text}\n".encode())


def _refuse_in_the_way(home: Path, names: set[str], before: set[str]) -> None:
    """Raise UsageError where a file to be written would have to replace what is not ours, PermissionError where a
    folder of ours is closed."""
    for name in sorted(names):
        path = home / name
        above = [p for p in path.parents if p != home and p.is_relative_to(home)]
        found = next((p for p in above if p.is_symlink() or (p.exists() and not p.is_dir())), None)
        if (
            found is None
            and os.path.lexists(path)
            and (name not in before or (path.is_dir() and not path.is_symlink()))
        ):
            found = path
        if found is not None:
            raise UsageError(
                f"{found} is in the way, it is not a file of the report before; move it, then run the same line again"
            )
    for folder in sorted({(home / name).parent for name in names | before}):
        if folder.is_dir() and not _is_writable(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _exchanged(new: Path, home: Path) -> bool:
    """Exchange two folders in one step, unless the system can't, another process writes into the run inside, or a
    folder is closed, which then could not be brought back."""
    if not all(_is_writable(p) for p in home.iterdir() if p.is_dir() and not p.is_symlink()):
        return False
    with contextlib.ExitStack() as held:
        run = home / "run"
        try:
            if (run / "run.json").is_file():
                held.enter_context(sole_writer(run))
            shutil.copymode(home, new)
            _exchange(new, home)
        except (OSError, ResourceError):
            return False
    return True


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names in one step. Raises OSError where the system or the file system can't."""
    libc: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    a, b = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        code = libc.renamex_np(a, b, 2)  # RENAME_SWAP
    elif hasattr(libc, "renameat2"):
        code = libc.renameat2(-100, a, -100, b, 2)  # AT_FDCWD, RENAME_EXCHANGE
    else:
        raise OSError("folders can't be exchanged here")
    if code:
        raise OSError(ctypes.get_errno(), "folders can't be exchanged here")


def _bring_back(old: Path, home: Path, before: set[str]) -> None:
    """What is not of `before` in the folder that was exchanged goes back to its place, the rest goes."""
    for path in sorted(old.iterdir()):
        if path.name == LOCK or path.name in before:
            continue
        target = home / path.name
        ours = path.is_dir() and not path.is_symlink() and any(n.startswith(f"{path.name}/") for n in before)
        if not ours:
            _move(path, target)
            continue
        for file in sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir()):
            place = file.relative_to(old)
            if place.as_posix() not in before:
                (home / place).parent.mkdir(parents=True, exist_ok=True)
                _move(file, home / place)
    for name in before - {MARKER}:
        (old / name).unlink(missing_ok=True)
    for folder in sorted((p for p in old.rglob("*") if p.is_dir()), reverse=True):
        folder.rmdir()
    for name in (MARKER, LOCK):  # last: until then they say what this folder is
        (old / name).unlink(missing_ok=True)
    old.rmdir()


def _move(path: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"{path} was kept from a report that was killed, but {target} is there; move one of the two")
    path.rename(target)


def _file_by_file(new: Path, home: Path, names: set[str], before: set[str]) -> None:
    """The pages of the old go first and those of the new come last: between, there are none, never some of each."""
    _mark(home, names | before)
    for name in sorted(before & {*PAGES}):
        (home / name).unlink(missing_ok=True)
    for name in sorted(names - {MARKER}, key=lambda n: (n in PAGES, n != "report.md", n == "results.json", n)):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).replace(home / name)
    for name in before - names:
        (home / name).unlink(missing_ok=True)
    for folder in {str(PurePosixPath(n).parent) for n in before - names} - {"."}:
        with contextlib.suppress(OSError):
            (home / folder).rmdir()
    _mark(home, names)
