"""The same again: run.json holds the calls that made a run, with the hashes of what they read.

    calls   {"ingest": [{"files": [{"path", "label", "sha256"}], ...}], "score": {...}, "report": {...}}

An input that is not there or not the same any more is refused: another input gives another run, not this one again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.errors import DumpError
from analyzer.records.options import ModelOptions, ScoreOptions
from analyzer.records.steps import restored, stored, taken
from analyzer.runs.store import Run

MERGED = ("policies", "cross", "templates")  # of later calls of score, added to those of earlier ones


def remember(run: Run, step: str, call: Mapping[str, Any]) -> None:
    """Put a call into the manifest; it is on disk when the run saves it next. An equal call is not repeated, and score
    and report keep their last arguments."""
    calls = run.manifest.setdefault("calls", {})
    if step == "ingest":
        known = calls.setdefault(step, [])
        if call not in known:
            known.append(dict(call))
        return
    before = calls.get(step, {})
    merged = {k: {**(before.get(k) or {}), **(call.get(k) or {})} for k in MERGED if before.get(k) or call.get(k)}
    calls[step] = {**call, **merged}


def scoring(how: ScoreOptions, model: ModelOptions) -> dict[str, Any]:
    """A call of score, as it is remembered: with the hashes of its template files; names of templates have none."""
    files = {name: sha256(name) for name in how.template.values() if Path(name).is_file()}
    return stored(how) | stored(model) | {"template_files": files}


def is_call(known: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the calls that a run keeps are those of `report` with these options, whatever the dumps."""
    read, how, model, report = taken("report", options)
    last = {name: value for name, value in known["ingest"][-1].items() if name != "files"}
    score = scoring(how, model) if how.base else None
    return [last, known.get("score"), known["report"]] == [stored(read), score, stored(report)]


def sha256(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DumpError(
            f"{path}: can't be read ({error.strerror or error}); put it back, or give its new place"
        ) from None


def calls(run: Run) -> dict[str, Any]:
    """The keyword arguments that make the run again: {"ingest": [{"specs": ..., ...}], "score": {...} or None,
    "report": {...}}.

    Raises DumpError where the run does not say how it was made, or where a dump, a template or a model is missing or
    has changed.
    """
    found = run.manifest.get("calls")
    if not found or not found.get("ingest"):
        raise DumpError(
            f"{run.path / 'run.json'} does not say how the run was made (an earlier version wrote it); give its dumps "
            "and flags again: analyzer report DUMP... --base MODEL -o DIR"
        )
    settings = run.manifest.get("settings", {})
    ingests = []
    # a file that was read again had grown, and holds what it held before
    last = {file["path"]: file["sha256"] for call in found["ingest"] for file in call["files"]}
    for name, digest in last.items():
        _check_file(run, name, digest)
    for call in found["ingest"]:
        specs = [f["path"] if f["label"] is None else f"{f['label']}={f['path']}" for f in call["files"]]
        ingests.append({"specs": specs, "reference": settings["reference"], **restored("load", call)})
    score = found.get("score")
    if score is None and run.scorers():
        raise DumpError(f"the scoring of run {run.path} was cut off before it was complete; finish it, then --again")
    if score:
        for name, digest in score.get("template_files", {}).items():
            _check_file(run, name, digest)
        _check_models(run)
        dated = {name: settings[name] for name in ("template_date",) if name in settings}
        score = restored("score_run", score | dated)
    return {"ingest": ingests, "score": score, "report": restored("report_run", found.get("report", {}))}


def _check_file(run: Run, path: str, digest: str) -> None:
    if path == "<stdin>":
        raise DumpError(f"run {run.path} was read from standard input, which can't be read again; give the file")
    if not Path(path).is_file():
        raise DumpError(
            f"{path}, which run {run.path} was made from, is not there; run this in the folder where the run was made, "
            "or put the file back"
        )
    now = sha256(path)
    if now != digest:
        raise DumpError(
            f"{path} has changed since run {run.path} was made (sha256 {digest[:12]}, now {now[:12]}); restore it, or "
            "make a new run from what it is now"
        )


def _check_models(run: Run) -> None:
    from analyzer.scoring.identity import fingerprint, is_model, tokenizer_fingerprint

    for label, record in run.manifest["scorers"].items():
        model, wrong = record["model"], ""
        if not is_model(record["fingerprint"], model):
            wrong = f"fingerprint {record['fingerprint']}, now {fingerprint(model)}"
        elif record.get("tokenizer", now := tokenizer_fingerprint(model)) != now:
            wrong = f"tokenizer {record['tokenizer']}, now {now}"
        if wrong:
            raise DumpError(
                f"model {model} is not the one that run {run.path} was scored under as {label} ({wrong}); restore it, "
                "or make a new run"
            )
