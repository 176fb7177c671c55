"""From the flags of `report` and `score` to what they make: one study, many, the same again, or a dry run.

Nothing goes to stdout: the command line prints what comes back.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer import __version__
from analyzer.api import pipeline, repeat
from analyzer.cli import studies
from analyzer.cli.arguments import (
    ANALYSING,
    READING,
    SCORING,
    ingest_arguments,
    place_arguments,
    refuse,
    report_arguments,
    score_arguments,
)
from analyzer.cli.progress import Progress, say, say_unused
from analyzer.dumps.files import expand
from analyzer.errors import AnalyzerError, DumpError, GateError, ResourceError, UsageError
from analyzer.pages import index
from analyzer.records.display import counted
from analyzer.runs import outputs
from analyzer.runs.store import Run
from analyzer.scoring import estimate


def make(
    out: Path,
    show: Progress,
    options: dict[str, Any],
    *,
    command: list[str],
    specs: list[str],
    ingest: dict[str, Any],
    score: dict[str, Any] | None,
    page: dict[str, Any],
) -> pipeline.Written:
    """dumps -> run in `out` -> report. A refused command leaves no new run behind."""
    outputs.refuse(out, inputs=files(specs))
    with studies.begun(out / "run") as run:
        read(run, show, [{"specs": specs, **ingest}])
        if score:
            scored(run, show, score)
        return pipeline.report(run, out, command=command, progress=show, **options, **page)


def read(run: Run, show: Progress, calls: list[dict[str, Any]]) -> None:
    """Ingest, and say on stderr what was not used of the input, by reason, and how many notes there are."""
    for call in calls:
        show("reading", 0, len(call["specs"]), 0)
        pipeline.ingest(run, **call)
    show.clear()
    files, notes = run.manifest["inputs"], run.manifest.get("input_notes", [])
    reasons = sum((Counter(f.get("by_reason", {})) for f in files), Counter())
    kept = " (see rejected.jsonl in the run)" if (run.path / "rejected.jsonl").is_file() else ""
    say_unused(reasons, sum(f["rows"] for f in files), kept)
    for note in notes:
        if note.startswith(pipeline.LOOK):
            say(f"input: {note}")
    if notes:
        say(f"input: {counted(len(notes), 'note')}, listed in the report (also: analyzer check)")


def scored(run: Run, show: Progress, settings: dict[str, Any]) -> None:
    """Score, and say on stderr, once per model, how prompts and responses became ids, by which path it went, and what
    was not scored."""
    show("loading", 0, 1, 0)

    def tell(text: str) -> None:
        show.clear()
        say(text)

    pipeline.score(run, progress=show, tell=tell, **settings)
    show.clear()
    for label, record in run.manifest["scorers"].items():
        counts = "; ".join(f"{what} ({n:,})" for what, n in record["decisions"].items())
        kind = record.get("dtype_error") or record["dtype"]
        say(f"{label}: path {record['path']} ({record['path_reason']}), {kind}; {counts}")
        for status, n in run.status_counts(label).items():
            if status != "ok":
                say(f"{label}: {counted(n, 'trace')} not scored: {status}")


def files(specs: list[str]) -> list[Path]:
    """The files that specs stand for, without standard input."""
    return [path for _, path, _ in expand(specs)[0] if path is not None]


def place(a: argparse.Namespace, out: Path, specs: list[str]) -> tuple[str, list[str]]:
    """(run folder, dumps to read into it) of one study."""
    if len(specs) > 1 or not studies.is_run(specs[0]):
        return str(out / "run"), specs
    why = f"{specs[0]} is a run, its dumps have been read already; use another -o folder to read them again"
    refuse(a, READING, why)
    return specs[0], []


def one(a: argparse.Namespace, out: Path, specs: list[str], show: Progress) -> pipeline.Written:
    """One study, from a run or from dumps."""
    folder, dumps = place(a, out, specs)
    run = None if dumps else Run.open(folder)
    if not a.base:
        known = run.manifest["scorers"].get("base", {}).get("model") if run else None
        add = f"; {folder} was scored under {known}: add --base {known}" if known else ""
        refuse(a, SCORING, f"nothing is scored without --base MODEL{add}")
    score = score_arguments(a) | place_arguments(a) if a.base else None
    page = {"style": a.style, "file_mb": a.html_max_mb}
    options = report_arguments(a)
    if run is None:
        ingest = ingest_arguments(a)
        return make(out, show, options, command=a.line, specs=dumps, ingest=ingest, score=score, page=page)
    outputs.refuse(out)
    if score:
        scored(run, show, score)
    return pipeline.report(run, out, command=a.line, progress=show, **options, **page)


def many(a: argparse.Namespace, found: dict[str, list[str]]) -> tuple[dict[str, Any], int]:
    """A report per study, and the index that compares them: (content of index.json, exit code). A study that fails is
    listed there and stops no other; one that the same line has made of the same files before stays as it is. A model
    that several have in common is loaded once where no other comes between."""
    from analyzer.scoring.load import kept

    out, results, fired = Path(a.out), {}, []
    inputs = []
    for specs in found.values():
        with contextlib.suppress(DumpError):  # said of that study, below
            inputs += [] if studies.is_run(specs[0]) else files(specs)
    outputs.refuse(out, found, inputs)
    with outputs.replaced(out, beside=found, at_once=False) as pages, Progress() as show, kept():
        for number, (name, specs) in enumerate(found.items(), 1):
            show.within = f"{name} ({number} of {len(found)}), "
            try:
                results[name] = made_before(a, out / name, specs)
                if results[name] is None:
                    done = one(a, out / name, specs, show)
                    results[name] = json.loads(Path(done.paths["results.json"]).read_text(encoding="utf-8"))
                else:
                    show.clear()
                    say(f"{name} ({number} of {len(found)}): made before by this line of the same files, kept")
                fired += [f"{name} ({source})" for source in gated(a, results[name]["verdicts"])]
            except Exception as error:  # one broken study must not cost the others
                known = refusal(error)
                if known is None:
                    say(traceback.format_exc())
                    known = AnalyzerError(f"internal error: {type(error).__name__}: {error}")
                show.clear()
                say(f"analyzer: {name}: {known}")
                results[name] = known
        content = index.build(results, version=__version__, command=a.line)
        index.write(pages, content)
    if fired:
        say(f"analyzer: --fail-on {a.fail_on}: {', '.join(fired)}")
    codes = [s["exit_code"] for s in content["studies"]] + [GateError.exit_code] * bool(fired)
    return content, studies.worst(codes)


def made_before(a: argparse.Namespace, out: Path, specs: list[str]) -> dict[str, Any] | None:
    """results.json of a study that this version made by the same line of the same files (by their sha256), else None.
    So a batch that was interrupted, or one study of which was mended, goes on where it must."""
    try:
        data = json.loads((out / "results.json").read_text(encoding="utf-8"))
        run = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))
        if (run["command"], data["version"]) != (a.line, __version__) or not (out / "index.html").is_file():
            return None
        used = {f["path"]: f["sha256"] for f in run["inputs"]}
        here = {name: path for name, path, _ in expand(specs)[0] if path is not None}
        notes = "\n".join(run.get("input_notes", []))
        if not used.keys() <= here.keys() or any(n not in used and n not in notes for n in here):
            return None
        for name, sha256 in used.items():
            with here[name].open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    return None
    except (OSError, ValueError, KeyError, TypeError, AnalyzerError):  # said when the study is made
        return None
    return data


def gated(a: argparse.Namespace, verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sources whose headline is the word of --fail-on; verdicts: as in results.json."""
    word = getattr(a, "fail_on", None)
    return [v["source"] for v in verdicts if v["headline"] and v["verdict"] == word]


def again(a: argparse.Namespace) -> tuple[pipeline.Written, str]:
    """A run and its report made again from its run.json: (the report, its folder)."""
    if a.dumps or a.base or a.dry_run:
        raise UsageError("--again takes dumps, models and settings from the run: give only -o, --json and --fail-on")
    refuse(a, READING | SCORING | ANALYSING, "--again takes this from the run")
    run = Run.open(a.again)
    calls, out = repeat.calls(run), repeat.folder(run, a.out)
    outputs.refuse(out, inputs=[path for call in calls["ingest"] for path in files(call["specs"])])
    with Progress() as show, studies.begun(out / "run") as new:
        read(new, show, calls["ingest"])
        if calls["score"]:
            scored(new, show, calls["score"])
        return pipeline.report(new, out, command=a.line, progress=show, **calls["report"]), str(out)


def plans(a: argparse.Namespace, asked: Mapping[str, tuple[str, list[str]]]) -> dict[str, dict[str, Any]]:
    """What scoring would cost, by study; asked: name -> (run folder, dumps, none where the run has been read)."""
    out, settings = {}, score_arguments(a)
    trust = {name: getattr(a, name) for name in ("trust_remote_code", "allow_pickle")}
    for name, (folder, specs) in asked.items():
        with Progress() as show, estimate.rehearsal(folder) as run:
            if specs:
                read(run, show, [{"specs": specs, **ingest_arguments(a)}])
            out[name] = estimate.dry_run(run, progress=show, **settings, **trust)
    return out


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
