"""Files that others are joined with: requests of a batch, problems of HumanEval. They hold no samples themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analyzer.dumps.accounts import kept
from analyzer.dumps.paths import MISSING, Fault, get, show
from analyzer.dumps.recognise import Plan
from analyzer.errors import DumpError

KEPT = (
    "prompt",
    "entry_point",
    "body",
    "params",
    "model",
    "sampling_args",
    "turns",
    "category",
)  # of a joined record; tests and solutions are not needed, and large


def account(plan: Plan) -> tuple[dict[str, Any], list[dict[str, Any]], dict[Any, Any]]:
    """(the file's account, its rejected rows, key -> record) of a side file. Raises DumpError for an ambiguous key."""
    held: dict[Any, Any] = {}
    rejected: list[dict[str, Any]] = []
    rows, path = 0, plan.dialect.key
    for line, record in plan.walk():
        rows += 1
        key = get(record, path) if path and isinstance(record, dict) else None
        fault = record if isinstance(record, Fault) else None
        if not isinstance(record, dict) or (path and not isinstance(key, (str, int))):
            fault = fault or Fault("no key", f"{path} = {show(None if key is MISSING else key)}; expected text")
            row = None if isinstance(record, Fault) else kept(record)
            rejected.append(
                {"file": plan.file.name, "line": line, "reason": fault.reason, "detail": fault.detail, "row": row}
            )
            continue
        part = {k: record[k] for k in KEPT if k in record}
        if not path:
            held[None] = part
        elif held.setdefault(key, part) != part:
            raise DumpError(
                f"{plan.file.at(line)}: {path} {show(key)} stands twice in the file with different contents"
            )
    return (
        {
            "path": plan.file.name,
            "sha256": plan.file.sha256,
            "bytes": plan.file.size,
            "format": plan.format,
            "mapping": {"key": path} if path else {},
            "sources": [],
            "models": [],
            "rows": rows,
            "rows_used": rows - len(rejected),
            "rows_rejected": len(rejected),
            "traces": 0,
            "shape": "side",
            "counts": {},
            "unused": {},
        },
        rejected,
        held,
    )


def _folder(plan: Plan) -> Path | None:
    return plan.file.path.absolute().parent if plan.file.path else None


def attach(plan: Plan, sides: list[tuple[Plan, dict[Any, Any]]]) -> None:
    """Let a plan's records carry "@join" from the side files that belong to it: those of its own label, else those
    without one; without a key, the one in its folder. Raises DumpError where two of them tell different things of one
    key; a note where none is given."""
    wanted = plan.dialect.join
    if not wanted:
        return
    ((kind, path),) = wanted.items()
    fitting = [(s, held) for s, held in sides if s.format == kind]
    if not path:
        here = [held[None] for s, held in fitting if None in held and _folder(s) == _folder(plan)]
        plan.join = (lambda record: {**record, "@join": here[0]}) if here else None
        return
    mine = [x for x in fitting if x[0].file.label == plan.file.label] or [x for x in fitting if x[0].file.label is None]
    merged: dict[Any, Any] = {}
    for side, held in mine:
        for key, part in held.items():
            if merged.setdefault(key, part) != part:
                raise DumpError(
                    f"{side.file.name}: {show(key)} is also in another file of {kind} with other contents; give each "
                    "file the label of its dump: LABEL=PATH for both"
                )
    if not mine:
        plan.notes.append(f"the prompts of {plan.format} are in a file of their own ({kind}): give it beside the dump.")
        return

    def join(record: dict[str, Any]) -> dict[str, Any]:
        key = get(record, path)
        found = merged.get(key) if isinstance(key, (str, int)) else None
        if found is None:
            raise Fault("no partner", f"{path} = {show(None if key is MISSING else key)} is not in the file of {kind}")
        return {**record, "@join": found}

    plan.join = join
