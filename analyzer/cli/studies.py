"""Which inputs are studies, one or many; what an input is that is none; where a new run begins and what is left of it.

A study is a folder of dumps, or a run. Several folders, or a pattern that only folders match, are one study each; one
folder, files, and anything with a LABEL= are one study together.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from analyzer.cli.arguments import pairs, samplers, score_arguments, share_bad
from analyzer.dumps.benchmarks import benchmarks, told  # noqa: F401 of this module's names, as its callers know it
from analyzer.dumps.files import expand, labels_of
from analyzer.dumps.read import check_settings
from analyzer.errors import DumpError, ResourceError, UsageError, nearest
from analyzer.runs.store import Run

# which of several exit codes is reported: a gate that fired is an answer, an internal error is the worst of all
SEVERITY = (0, 5, 2, 3, 4, 1)


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


def is_run(path: str | Path) -> bool:
    return (Path(path) / "run.json").is_file()


def opened(path: str) -> Run:
    """The run at a path, or of the report at it. Raises for any other folder, and says what it is."""
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


def refuse_missing_models(a: argparse.Namespace) -> None:
    """Raise ResourceError for a model that looks like a folder and is none: a slip of the pen is not looked up on the
    hub. A name looks like a folder when it begins like one, or when the folder above it is there."""
    further = [(flag, pairs(getattr(a, flag[2:]), flag).values()) for flag in ("--policy", "--cross")]
    for flag, names in [("--base", [a.base]), *further]:
        for name in names:
            _refuse_missing(flag, name)


def refuse_wrong_settings(a: argparse.Namespace, specs: Sequence[str]) -> None:
    """Raise UsageError for flags that can't be meant, before a file is read or a model loaded: values, and labels where
    all dumps have one."""
    check_settings(pairs(a.map, "--map"), a.threshold, share_bad(a))
    scoring = score_arguments(a)
    named = {"--sampler": samplers(a.sampler)}
    named |= {
        "--policy": scoring["policies"],
        "--template": {k: v for k, v in scoring["templates"].items() if k != "*"},
    }
    labels = labels_of(specs) or set()
    for flag, given in named.items() if labels else ():
        for label in given:
            if label not in labels:
                raise UsageError(f"{flag} {label}=...: no source has that label{nearest(label, labels)}")
    for flag, label in (("--reference", a.reference), ("--prompt-of", a.prompt_of)) if labels else ():
        if label is not None and label not in labels:
            raise UsageError(f"{flag} {label!r}: no source has that label{nearest(label, labels)}")
    if not a.base:
        return
    from analyzer.scoring import load
    from analyzer.scoring.encoding.prompts import load_template, today

    load.check_settings(a.dtype, a.device, a.scorer)
    today(a.template_date)
    for name in scoring["templates"].values():
        load_template(name)
    if a.cluster and find_spec("ray") is None:
        raise UsageError("--cluster needs Ray, the extra `ray`: pip install 'reasoning-path-analyzer[ray]'")


def _refuse_missing(flag: str, name: str | None) -> None:
    if name is None or "://" in name or Path(name).is_dir():
        return
    if Path(name).is_file():
        raise ResourceError(f"{flag} {name} is a file; a model is a folder with config.json and weights, or a hub name")
    above = Path(name).parent
    inside = sorted(p.name for p in above.iterdir() if p.is_dir()) if above.is_dir() else []
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or ("/" in name and inside):
        close = difflib.get_close_matches(Path(name).name, inside, n=1)
        hint = f"did you mean {str(above / close[0])!r}?" if close else "check the path; a hub name is ORG/NAME"
        raise ResourceError(f"{flag}: model folder {name} does not exist; {hint}")


def worst(codes: Sequence[int]) -> int:
    """The exit code of many studies: that of the one which went worst."""
    return max(codes, key=SEVERITY.index, default=0)


@contextlib.contextmanager
def begun(path: str | Path) -> Iterator[Run]:
    """The run at `path`, opened or new. Where the block raises before anything is scored, what is new goes again, with
    the folders that it made; an interrupted run stays, and so does one that was there before or that another process
    has written into."""
    path = Path(path)
    made = [p for p in (path, *path.parents) if not p.exists()]
    run = None
    try:
        run = Run.create(path)
        yield run
    except Exception:
        if run is None or run.discard():
            for folder in made:
                with contextlib.suppress(OSError):  # one that something else lies in by now stays
                    folder.rmdir()
        raise
