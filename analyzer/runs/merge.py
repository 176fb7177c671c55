"""Join the runs of the shards of one `score`: value for value the run that one process would have made.

Only runs over the same inputs, settings and models are joined; their parts are linked, or copied, as they are.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError
from analyzer.runs import manifests
from analyzer.runs.disk import refused
from analyzer.runs.store import Run

# what a shard counts, measures or is told for itself; everything else in a scorer's record has to agree
OWN = (
    "decisions",
    "examples",
    "token_budget",
    "model",
    "path_reason",
    "dtype_error",
    "other_urls",
    "versions",
    "earlier",
)
LATER = ("tokenizer", "eos_ids", "powers")  # earlier runs recorded none
ALIKE = "only shards of one score can be joined: the same dumps, models and flags but --shard"


def merge(paths: Sequence[str | Path], out: str | Path) -> tuple[Run, list[str]]:
    """Join runs into `out`, which is new or an earlier merge of some of them: (the run, what is missing in words).

    Raises UsageError when inputs, settings or models differ, when a shard is given twice, or when `out` holds anything
    else; DumpError for damaged runs; ResourceError when the disk refuses. Then nothing in `out` has changed.
    """
    runs = [Run.open(p) for p in paths]
    shares = _shares(runs)
    manifest = _joined(runs)
    manifest.pop("handovers", None)  # of the first shard's own traces, they stay with it
    _refuse_other_traces(runs)
    for run in runs:  # what is wrong in one must not be recorded as what the merged run has written
        run.verify(sums=True)
    manifest["finished"] = {label: _finished(runs, label, len(shares)) for label in manifest["scorers"]}
    files = _files(runs)
    target = Path(out)
    _refuse_other_content(target, runs, files)
    merged = Run.create(target)
    with merged.writing():
        for name, file in files.items():
            _bring(file, target / name)
        if "handovers" in merged.manifest:
            manifest["handovers"] = merged.manifest["handovers"]
        merged.manifest = manifest
        for label in manifest["scorers"]:
            merged.record(label)
        merged.save()
    unfinished = [r.path for r in runs if not _is_whole(r)]
    given = {r.manifest["settings"].get("shard") for r in runs}
    return merged, [f"shard {s}" for s in shares if s not in given] + [f"the rest of {path}" for path in unfinished]


def _shares(runs: Sequence[Run]) -> list[str]:
    """All shares "i/n" of the division that the runs are shards of. Raises UsageError when they are not, or twice."""
    have = {str(r.path): r.manifest.get("settings", {}).get("shard") for r in runs}
    of = {share.partition("/")[2] if share else None for share in have.values()}
    if len(of) != 1 or None in of or len(set(have.values())) < len(runs):
        told = ", ".join(f"{path} is {f'shard {s}' if s else 'not a shard'}" for path, s in have.items())
        raise UsageError(f"expected different shards of one division, but {told}; {ALIKE}")
    n = int(of.pop() or 0)
    return [f"{i}/{n}" for i in range(n)]


def _joined(runs: Sequence[Run]) -> dict[str, Any]:
    """The manifest of all. Raises UsageError where they differ."""
    first = runs[0]
    settings: dict[str, Any] = {}
    scorers: dict[str, dict] = {}
    policies: dict[str, str] = {}
    for run in runs:
        for name in ("inputs", "settings", "samplers"):
            mine, theirs = (_essence(r.manifest, name) for r in (first, run))
            if name == "settings":  # one that has not begun to score has not settled all
                settings |= theirs
                mine, theirs = ({k: side[k] for k in mine.keys() & theirs.keys()} for side in (mine, theirs))
            _refuse_difference(first, run, name, mine, theirs)
        for label, record in run.manifest["scorers"].items():
            known = scorers.setdefault(label, record | {"decisions": {}})
            for name in LATER:
                if name in record:
                    known.setdefault(name, record[name])
                elif name in known:
                    record = record | {name: known[name]}
            _refuse_difference(first, run, f"scorer {label}", _essence(known), _essence(record))
            if others := (_urls(known) | _urls(record)) - {known.get("server", {}).get("url")}:
                known["other_urls"] = sorted(others)
            known |= manifests.earlier(known, known, record)
            known["decisions"] = dict(sorted((Counter(known["decisions"]) + Counter(record["decisions"])).items()))
        for source, label in run.manifest.get("policies", {}).items():
            _refuse_difference(first, run, f"model of {source}", policies.setdefault(source, label), label)
    parts = {k: v for k, v in first.manifest.get("parts", {}).items() if k == "traces"}
    return first.manifest | {"parts": parts, "settings": settings, "scorers": scorers, "policies": policies}


def _essence(record: Mapping[str, Any], name: str | None = None) -> Any:
    """What two shards must have in common under a name of run.json, or in a scorer's record."""
    if name is None:
        essence: dict[str, Any] = {"columns": 1}  # of runs that record none
        essence |= {k: v for k, v in record.items() if k not in OWN} | {"device": record["device"].partition(":")[0]}
        if "server" in record:  # each shard may ask one of its own; the fingerprint is of its address too
            essence |= {"fingerprint": "", "server": {k: v for k, v in record["server"].items() if k != "url"}}
        return essence
    if name == "inputs":
        return {f"{Path(f['path']).name} ({', '.join(f['sources'])})": f["sha256"] for f in record[name]}
    return {k: v for k, v in record.get(name, {}).items() if k != "shard"}


def _urls(record: Mapping[str, Any]) -> set[str]:
    """Addresses of the servers that scored for a record, if any."""
    return {*record.get("other_urls", ()), *([record["server"]["url"]] if "server" in record else ())}


def _refuse_difference(first: Run, run: Run, what: str, mine: Any, theirs: Any) -> None:
    if mine == theirs:
        return
    if isinstance(mine, dict):
        key = next(k for k in {**mine, **theirs} if (k in mine, mine.get(k)) != (k in theirs, theirs.get(k)))
        what, mine, theirs = f"{what}, {key}", mine.get(key, "nothing"), theirs.get(key, "nothing")
    raise UsageError(f"{first.path} and {run.path} differ in {what}: {mine} and {theirs}; {ALIKE}")


def _refuse_other_traces(runs: Sequence[Run]) -> None:
    """Raise UsageError when the runs hold different traces, or one was scored in two of them."""
    keys = runs[0].origins().keys()
    for run in runs[1:]:
        if odd := keys ^ run.origins().keys():
            raise UsageError(f"trace {min(odd)} is not in both {runs[0].path} and {run.path}; {ALIKE}")
    for label in {label for run in runs for label in run.scorers()}:
        scored: dict[str, Run] = {}
        for run in runs:
            for key in run.done(label):
                if scored.setdefault(key, run) is not run:
                    raise UsageError(f"trace {key} is scored in both {scored[key].path} and {run.path}; {ALIKE}")


def _refuse_other_content(target: Path, runs: Sequence[Run], files: Mapping[str, Path]) -> None:
    """Raise UsageError when the folder to merge into is one of the runs, or holds what none of them has."""
    if any(run.path.resolve() == target.resolve() for run in runs):
        raise UsageError(f"-o {target} is one of the runs to join; name another folder")
    if (target / "run.json").exists():
        earlier = Run.open(target)
        strange = [f for f in _files([earlier]) if f not in files]
        if strange or _essence(earlier.manifest, "inputs") not in ({}, _essence(runs[0].manifest, "inputs")):
            what = strange[0] if strange else "a run of other dumps"
            raise UsageError(f"-o {target} holds {what}, which is in none of the runs; name another folder")


def _is_whole(run: Run) -> bool:
    """Whether a shard has finished, and all that it then had is there."""
    finished = run.manifest.get("finished", {})
    return all(count and count[1] == run.status_counts(label).total() for label, count in finished.items())


def _finished(runs: Sequence[Run], label: str, of: int) -> list[int]:
    """See `scoring`: [traces wanted, traces recorded] once all shards are there and done, else nothing."""
    counts = [c for r in runs if _is_whole(r) and (c := r.manifest.get("finished", {}).get(label))]
    return [counts[0][0], sum(done for _, done in counts)] if len(counts) == of else []


def _files(runs: Sequence[Run]) -> dict[str, Path]:
    """Path in the run -> a file of it: traces of the first run, scores of all."""
    kinds = {"traces/part-*": runs[:1], "rejected.jsonl": runs[:1], "scores/*/p*-*.parquet": runs}
    return {
        str(file.relative_to(run.path)): file
        for kind, some in kinds.items()
        for run in some
        for file in sorted(run.path.glob(kind))
    }


def _bring(file: Path, target: Path) -> None:
    """Link a file, or copy it where that can't be; parts are replaced as a whole, never written into."""
    temporary = target.with_name(f".{target.name}.tmp")
    if target.exists() and target.samefile(file):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
        temporary.replace(target)
    except OSError as error:
        raise refused(target, error) from error
