"""From what is given to what is made: one study, many, the same again, what scoring would cost.

Nothing prints: `tell` is called with what is to be known, one sentence at a time, `progress` as it goes.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import __version__
from analyzer.api import inputs, pipeline, repeat
from analyzer.api.reading import LOOK
from analyzer.dumps import frames
from analyzer.dumps.specs import expand
from analyzer.errors import AnalyzerError, DumpError, ResourceError, UsageError
from analyzer.pages import index
from analyzer.records.display import counted
from analyzer.records.options import ModelOptions, ReadOptions, ScoreOptions, given_flags
from analyzer.records.steps import taken
from analyzer.runs import outputs
from analyzer.runs.store import Run
from analyzer.scoring import estimate as estimating
from analyzer.scoring.parts import Progress, quiet

Tell = Callable[[str], None]
REASONS = 5  # why rows were not used: so many are named


def silent(text: str) -> None:
    """The callback that tells nobody."""


def unused(reasons: Mapping[str, int], rows: int, kept: str = "") -> str:
    """How many of the rows that were read were not used, and why; empty where all were."""
    reasons = Counter(reasons)
    said = "; ".join(f"{n:,} {reason}" for reason, n in reasons.most_common(REASONS))
    return f"input: {reasons.total():,} of {counted(rows, 'row')} not used: {said}{kept}" if reasons else ""


@contextlib.contextmanager
def opened(
    data: Any, path: str | Path | None, given: Mapping[str, Any], *, progress: Progress = quiet, tell: Tell = silent
) -> Iterator[Run]:
    """The run that the data are, or a run at `path` (None: in a temporary folder) that they are read into; what is new
    goes again where the block raises (`inputs.begun`). given: options by name, of which those of reading count."""
    run = inputs.run_of(data)
    if run is not None:
        if path is not None and Path(path) != run.path:
            raise UsageError(f"path={str(path)!r}: the data is the run {run.path} already")
        if flags := given_flags(given, ReadOptions):
            why = "is a run, its dumps have been read already; use another -o folder to read them again"
            raise UsageError(f"{flags}: {run.path} {why}")
        yield run
        return
    with inputs.begun(path) as run:
        taken_in(run, data, given, progress, tell)
        yield run


def taken_in(run: Run, data: Any, given: Mapping[str, Any], progress: Progress, tell: Tell) -> None:
    """Read what `load` takes into the run, and tell as `ingested`."""
    [read] = taken("load", {name: given[name] for name in given if name in ReadOptions.__dataclass_fields__})
    specs = frames.specs(data, run.path / "inputs")
    frames.refuse_unnamed(specs, read)
    ingested(run, [{"specs": specs, **vars(read)}], progress, tell)


def ingested(run: Run, calls: Sequence[Mapping[str, Any]], progress: Progress, tell: Tell) -> None:
    """Read dumps, and tell what was not used of the input, by reason, and how many notes there are."""
    for call in calls:
        progress("reading", 0, len(call["specs"]), 0)
        pipeline.ingest(run, **call)
    files, notes = run.manifest["inputs"], run.manifest.get("input_notes", [])
    reasons = sum((Counter(f.get("by_reason", {})) for f in files), Counter())
    kept = " (see rejected.jsonl in the run)" if (run.path / "rejected.jsonl").is_file() else ""
    if said := unused(reasons, sum(f["rows"] for f in files), kept):
        tell(said)
    for note in notes:
        if note.startswith(LOOK):
            tell(f"input: {note}")
    if notes:
        tell(f"input: {counted(len(notes), 'note')}, listed in the report (also: analyzer check)")


def scored(run: Run, options: Mapping[str, Any], progress: Progress, tell: Tell) -> None:
    """Score, and tell, once per model, how prompts and responses became ids, by which path it went, and what was not
    scored."""
    progress("loading", 0, 1, 0)
    pipeline.score(run, progress=progress, tell=tell, **options)
    for label, record in run.manifest["scorers"].items():
        counts = "; ".join(f"{what} ({n:,})" for what, n in record["decisions"].items())
        kind = record.get("dtype_error") or record["dtype"]
        tell(f"{label}: path {record['path']} ({record['path_reason']}), {kind}; {counts}")
        for status, n in run.status_counts(label).items():
            if status != "ok":
                tell(f"{label}: {counted(n, 'trace')} not scored: {status}")


class Told(NamedTuple):
    """Whom a study tells what, and what its report says that made it."""

    command: Sequence[str] = ()
    progress: Progress = quiet
    tell: Tell = silent


def one(data: Any, directory: str | Path, options: Mapping[str, Any], to: Told) -> pipeline.Written:
    """Dumps, tables or a run -> the report in `directory`: everything that is still missing, first. A run made from
    dumps is kept in DIRECTORY/run. Raises before a dump is read where options or folders are wrong."""
    run = inputs.run_of(data)
    specs = inputs.paths(data)
    read, how, model, report = taken("report", options)
    inputs.refuse_wrong(read, how, model, specs)
    inputs.refuse_other_folders(specs, runs=True)
    if not how.base and (flags := given_flags(options, ScoreOptions, ModelOptions)):
        known = run.manifest["scorers"].get("base", {}).get("model") if run else None
        add = f"; {run.path} was scored under {known}: add --base {known}" if run and known else ""
        raise UsageError(f"{flags}: nothing is scored without --base MODEL{add}")
    outputs.refuse(directory, inputs=[] if run else inputs.files(specs))
    path = None if run else Path(directory) / "run"
    with opened(run or data, path, options, progress=to.progress, tell=to.tell) as run:
        if how.base:
            scored(run, vars(how) | vars(model), to.progress, to.tell)
        return pipeline.report(run, directory, command=to.command, progress=to.progress, **vars(report))


def estimate(data: Any, path: str | Path | None, options: Mapping[str, Any], to: Told) -> dict[str, Any]:
    """What scoring the data would cost, in the run at `path` where there is one; see `scoring.estimate.dry_run`."""
    read, how, model = taken("estimate", options)
    inputs.refuse_wrong(read, how, model, inputs.paths(data))
    inputs.refuse_other_folders(inputs.paths(data), runs=True)
    run = inputs.run_of(data)
    if run and (flags := given_flags(options, ReadOptions)):
        raise UsageError(f"{flags}: {run.path} is a run, its dumps have been read already")
    with estimating.rehearsal(run.path if run else path) as shadow:
        if run is None:
            taken_in(shadow, data, options, to.progress, to.tell)
        return estimating.dry_run(shadow, how, model, progress=to.progress)


def reproduce(run: Run, directory: str | Path | None, to: Told) -> pipeline.Written:
    """A run and its report made again from its run.json: see `repeat.calls`. Raises UsageError where the folder is the
    run's own."""
    calls, home = repeat.calls(run), run.path.resolve()
    beside = home.parent if home.name == "run" else home
    out = Path(directory) if directory else beside.with_name(f"{beside.name}-again")
    if home in ((out / "run").resolve(), out.resolve()):
        raise UsageError(f"-o {directory}: the run {run.path} lies there; choose another folder for the new one")
    outputs.refuse(out, inputs=[path for call in calls["ingest"] for path in inputs.files(call["specs"])])
    with inputs.begun(out / "run") as new:
        ingested(new, calls["ingest"], to.progress, to.tell)
        if calls["score"]:
            scored(new, calls["score"], to.progress, to.tell)
        return pipeline.report(new, out, command=to.command, progress=to.progress, **calls["report"])


def many(
    found: Mapping[str, Mapping[str, Any]],
    directory: str | Path,
    options: Mapping[str, Any],
    to: Told,
    begins: Callable[[str, int, int], None] = lambda name, number, of: None,
) -> dict[str, Any]:
    """A report per study, and the index that compares them: the content of index.json. found: name -> options of its
    own, and `dumps` (see `inputs.studies`); options: of all, which win over a study's own. begins(name, number, of) is
    called before each. A study that fails is listed there and stops no other; one that the same call has made of the
    same files before stays as it is. A model that several have in common is loaded once where no other comes
    between."""
    from analyzer.scoring.load import kept

    out = Path(directory)
    results: dict[str, Any] = {}
    asked = {name: {**own, **options} for name, own in found.items()}
    files: list[Path] = []
    for name, own in asked.items():
        try:
            read, how, model, _ = taken("report", {key: value for key, value in own.items() if key != "dumps"})
            inputs.refuse_wrong(read, how, model, own["dumps"])
        except AnalyzerError as error:
            raise type(error)(f"study {name}: {error}") from None
        with contextlib.suppress(DumpError):  # said of that study, below
            files += [] if inputs.is_run(own["dumps"][0]) else inputs.files(own["dumps"])
    outputs.refuse(out, found, files)
    with outputs.replaced(out, beside=found, at_once=False) as pages, kept():
        for number, (name, own) in enumerate(asked.items(), 1):
            dumps = own.pop("dumps")
            begins(name, number, len(asked))
            try:
                results[name] = made_before(out / name, dumps, own, to.command)
                if results[name] is None:
                    done = one(dumps, out / name, own, to)
                    results[name] = json.loads(Path(done.paths["results.json"]).read_text(encoding="utf-8"))
                else:
                    to.tell(f"{name} ({number} of {len(asked)}): made before by this line of the same files, kept")
            except Exception as error:  # one broken study must not cost the others
                known = refusal(error)
                if known is None:
                    for line in traceback.format_exc().splitlines():
                        to.tell(line)
                    known = AnalyzerError(f"internal error: {type(error).__name__}: {error}")
                to.tell(f"analyzer: {name}: {known}")
                results[name] = known
        content = index.build(results, version=__version__, command=to.command)
        index.write(pages, content)
    return content


def made_before(
    out: Path, specs: Sequence[str], options: Mapping[str, Any], command: Sequence[str]
) -> dict[str, Any] | None:
    """results.json of a study that this version made by the same command and options of the same files (by their
    sha256), else None. So a batch that was interrupted, or one study of which was mended, goes on where it must."""
    try:
        data = json.loads((out / "results.json").read_text(encoding="utf-8"))
        run = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))
        if (run["command"], data["version"]) != (list(command), __version__) or not (out / "index.html").is_file():
            return None
        if not repeat.is_call(run["calls"], options):
            return None
        used = {f["path"]: f["sha256"] for f in run["inputs"]}
        here = {name: path for name, path, _ in expand(specs)[0] if path is not None}
        notes = "\n".join(run.get("input_notes", []))
        if not used.keys() <= here.keys() or any(n not in used and n not in notes for n in here):
            return None
        if any(repeat.sha256(here[name]) != sha256 for name, sha256 in used.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AnalyzerError):  # said when the study is made
        return None
    return data


def refusal(error: BaseException) -> AnalyzerError | None:
    """The error as one of ours, where it is one, or says that memory ran out or that the system refused a file or a
    connection; None: a fault of the program."""
    if isinstance(error, AnalyzerError):
        return error
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return ResourceError(f"{where}{error.strerror or error}; check the disk, the path and its permissions")
    return _out_of_memory(error)


def _out_of_memory(error: BaseException) -> ResourceError | None:
    """The error with what to try next, where it says that memory ran out."""
    text = str(error).partition("\n")[0] or type(error).__name__
    if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
        return None
    return ResourceError(
        f"out of memory: {text}; try --limit N (fewer problems) or --score-at-most N (fewer samples of each) in "
        "another -o folder, or --dtype bfloat16 (half the weights); --dry-run tells the peak beforehand"
    )
