"""What is given to a step: dumps, runs, reports, studies; what is refused before anything is read; where a new run
begins and what is left of it.

A study is a folder of dumps, a run, or a study file. Several folders, or a pattern that only folders match, are one
study each; one folder, files, and anything with a LABEL= are one study together.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import shutil
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analyzer.dumps.benchmarks import benchmarks
from analyzer.dumps.recognise import checked_map
from analyzer.dumps.specs import expand, labels_of
from analyzer.errors import DumpError, ResourceError, UsageError, nearest
from analyzer.records.options import ModelOptions, ReadOptions, ScoreOptions
from analyzer.records.steps import taken
from analyzer.runs import outputs
from analyzer.runs.store import Run
from analyzer.scoring.names import is_path, parts


def find(specs: Sequence[str]) -> dict[str, str] | None:
    """Name -> folder of every study in order, or None where the specs are one study.

    The name is that of the folder, with its parents' where two would be the same. Raises UsageError where folders that
    are given twice leave no difference.
    """
    folders: list[str] = []
    patterns = False
    for spec in specs:
        if Path(spec).is_dir():
            folders.append(spec)
            continue
        hits = sorted(glob.glob(spec, recursive=True)) if any(c in spec for c in "*?[") else []
        if not hits or not all(Path(h).is_dir() for h in hits):
            return None
        folders += hits
        patterns = True
    if len(folders) < 2 and not patterns:
        return None
    paths = [Path(f).resolve() for f in folders]
    again = [f for f, n in Counter(paths).items() if n > 1]
    if again:
        raise UsageError(f"{folders[paths.index(again[0])]} is given twice; give each study once")
    depth = 1
    while len({p.parts[-depth:] for p in paths}) < len(paths):
        depth += 1
    same = Counter(p.name for p in paths)
    names = ["-".join(p.parts[-depth:]) if same[p.name] > 1 else p.name for p in paths]
    return dict(zip(names, folders, strict=True))


def studies(specs: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    """Name -> options of `report`, with the dumps (or the run) as `dumps`, of every study that the inputs are; None
    where they are one study, given by its dumps."""
    files = [spec for spec in specs if spec.endswith(".toml")]
    if files and len(files) < len(specs):
        raise UsageError(f"{files[0]} and a dump: study files stand alone; name the dump in one of them")
    for name, n in Counter(Path(file).stem for file in files).items():
        if n > 1:
            raise UsageError(f"{n} studies are called {name!r}, after their files; rename one")
    if files:
        return {Path(file).stem: study_file(file) for file in files}
    found = {name: [folder] for name, folder in (find(specs) or {}).items()} or benchmarks(specs) or {}
    return {name: {"dumps": own} for name, own in found.items()} or None


def study_file(path: str) -> dict[str, Any]:
    """A study in TOML: `dumps`, a list, and options of `report` by name, as on the command line. Paths are from the
    folder that the command is given in. Raises UsageError for what it can't hold, DumpError where it can't be read."""
    try:
        held = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DumpError(f"{path}: this study file can't be read: {error}") from None
    dumps = held.pop("dumps", None)
    dumps = [dumps] if isinstance(dumps, str) else dumps
    if not (isinstance(dumps, list) and dumps and all(isinstance(spec, str) for spec in dumps)):
        raise UsageError(f'{path}: a study file says what is read: dumps = ["base=base.jsonl", "rlvr=rlvr.jsonl"]')
    taken("report", held, f"{path}: ")
    return {"dumps": dumps, **held}


def is_run(path: str | os.PathLike[str]) -> bool:
    return (Path(path) / "run.json").is_file()


def run_of(data: Any) -> Run | None:
    """The run that the data are, or whose folder they name; None where they are to be read."""
    [only] = data if isinstance(data, (list, tuple)) and len(data) == 1 else [data]
    if isinstance(only, Run):
        return only
    if not isinstance(only, (str, os.PathLike)):
        return None
    _restore(only)
    return Run.open(os.fspath(only)) if is_run(os.fspath(only)) else None


def _restore(path: str | os.PathLike[str]) -> None:
    """Where no run is at a path, bring back one that a killed report had moved out of its folder for a moment."""
    for folder in (Path(path), Path(path).parent):
        if not is_run(path):
            outputs.restore(folder)


def paths(data: Any) -> list[str]:
    """The data as specs of dumps, where they are paths and nothing else, by label or not; else none."""
    specs = []
    for label, part in data.items() if isinstance(data, Mapping) else [("", data)]:
        some = [part] if isinstance(part, (str, os.PathLike)) else part
        if not (isinstance(some, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in some)):
            return []
        specs += [f"{label}={os.fspath(path)}".removeprefix("=") for path in some]
    return specs


def opened(path: str | Path) -> Run:
    """The run at a path, or of the report at it. Raises for any other folder, and says what it is."""
    path = os.fspath(path)
    _restore(path)
    if is_run(Path(path) / "run") and not is_run(path):
        path = str(Path(path) / "run")
    elif Path(path).is_dir() and not is_run(path):
        refuse_other_folders([path], runs=True)
    return Run.open(path)


def refuse_other_folders(specs: Sequence[str], *, runs: bool) -> None:
    """Raise for a folder that can't be what is asked for, and say what it is: a report, several runs, neither a run nor
    one of dumps. runs: whether a run may be given."""
    for spec in specs:
        folder = Path(spec)
        if not folder.is_dir():
            continue
        if is_run(folder):
            if not runs:
                raise UsageError(f"{spec} is a run; what it lacks is scored by: analyzer report {spec} --base MODEL")
            continue
        if is_run(folder / "run"):
            raise UsageError(f"{spec} is the folder of a report; its run is {folder / 'run'}: give that one")
        inside = sorted(str(f.parent) for pattern in ("*/run.json", "*/*/run.json") for f in folder.glob(pattern))
        if inside:
            more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
            raise UsageError(
                f"{spec} is neither a run nor a folder of dumps alone, it holds runs: {', '.join(inside[:3])}{more}; "
                "give a run, several, or name the dumps"
            )
        if (folder / "results.json").is_file() and (folder / "index.html").is_file():
            raise UsageError(f"{spec} is the folder of a report, without its run; give the run, or the dumps")
        try:
            expand([spec])
        except DumpError as error:
            raise DumpError(f"{spec} is neither a run (it has no run.json) nor a folder of dumps: {error}") from None


def files(specs: Sequence[str]) -> list[Path]:
    """The files that specs stand for, without standard input."""
    return [path for _, path, _ in (expand(specs)[0] if specs else []) if path is not None]


def refuse_wrong(read: ReadOptions, how: ScoreOptions, model: ModelOptions, specs: Sequence[str] = ()) -> None:
    """Raise for options that can't be meant, before a file is read or a model loaded: models that look like folders
    and are none, fields, devices, templates, and labels where all dumps have one."""
    for flag, model_name in how.models.items():
        _refuse_missing(flag.partition(" ")[0], model_name)
    checked_map(read.map)
    labels = labels_of(specs) or set()
    named = {"--sampler": read.sampler, "--policy": how.policy, "--template": how.template.keys() - {"*"}}
    for flag, given in named.items() if labels else ():
        for label in given:
            if label not in labels:
                raise UsageError(f"{flag} {label}=...: no source has that label{nearest(label, labels)}")
    for flag, one in (("--reference", read.reference), ("--prompt-of", how.prompt_of)) if labels else ():
        if one is not None and one not in labels:
            raise UsageError(f"{flag} {one!r}: no source has that label{nearest(one, labels)}")
    if not how.base:
        return
    from analyzer.scoring import load
    from analyzer.scoring.encoding.prompts import load_template

    load.check_settings(model.dtype, model.device)
    for name in how.template.values():
        load_template(name)
    if how.cluster and find_spec("ray") is None:
        raise UsageError("--cluster needs Ray, the extra `ray`: pip install 'reasoning-path-analyzer[ray]'")


def _refuse_missing(flag: str, name: str) -> None:
    if "://" in name:
        return
    found = parts(name)
    for part in (found.base, found.adapter):
        if part is not None:
            _refuse_missing_part(flag, part)


def _refuse_missing_part(flag: str, name: str) -> None:
    if Path(name).is_dir() or (name.endswith(".gguf") and Path(name).is_file()):
        return
    if Path(name).is_file():
        raise ResourceError(f"{flag} {name} is a file; a model is a folder with config.json and weights, or a hub name")
    if name.endswith(".gguf"):
        raise ResourceError(f"{flag}: the file {name} does not exist; a GGUF file is downloaded first")
    above = Path(name).parent
    inside = sorted(p.name for p in above.iterdir() if p.is_dir()) if above.is_dir() else []
    if is_path(name) or name.endswith("/") or ("/" in name and inside):
        close = difflib.get_close_matches(Path(name).name, inside, n=1)
        hint = f"did you mean {str(above / close[0])!r}?" if close else "check the path; a hub name is ORG/NAME"
        raise ResourceError(f"{flag}: model folder {name} does not exist; {hint}")


@contextlib.contextmanager
def begun(path: str | Path | None) -> Iterator[Run]:
    """The run at `path`, opened or new; without a path in a new temporary folder. Where the block raises before
    anything is scored, what is new goes again, with the folders that it made; an interrupted run stays, and so does one
    that was there before or that another process has written into."""
    if path is not None:
        _restore(path)
    temporary = Path(tempfile.mkdtemp(prefix="analyzer-run-")) if path is None else None
    path = temporary or Path(str(path))
    made = [p for p in (path, *path.parents) if not p.exists()]
    run = None
    try:
        run = Run.create(path)
        yield run
    except Exception:
        if run is None or run.discard():
            if temporary:  # with the tables that were written into it
                shutil.rmtree(temporary, ignore_errors=True)
            for folder in made:
                with contextlib.suppress(OSError):  # one that something else lies in by now stays
                    folder.rmdir()
        raise
