"""Any dump -> Traces, with a Ledger that accounts for every row.

`read_dumps` is the whole interface, `batches` the same for dumps that memory can't hold. What a file holds is decided
by `recognise`: a known dialect, or fields found by their names, or `--map`. Problems are joined on the text of their
question, never on their position. A row is used whole or not at all; what is not used is counted and kept with its
file, line and reason.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from analyzer.dumps import accounts, files, grading, joins, labels, reading, warnings
from analyzer.dumps.accounts import Ledger
from analyzer.dumps.automatic import NoResponseError, RefusedError
from analyzer.dumps.paths import has
from analyzer.dumps.recognise import Plan, checked_map, plan_file, refuse_unused_map
from analyzer.dumps.specs import expand
from analyzer.dumps.survey import Survey
from analyzer.errors import DumpError, UsageError, nearest
from analyzer.records import Trace
from analyzer.records.options import AS_FOUND, ReadOptions
from analyzer.records.steps import signed, taken

__all__ = ["Ledger", "batches", "read_dumps", "stream"]

BATCH, BATCH_TEXT = 4096, 1 << 26  # traces, and characters that they may have


@signed("read_dumps")
def read_dumps(specs: Sequence[str], **options: Any) -> tuple[list[Trace], Ledger]:
    """Read dumps into traces.

    specs: paths, globs, folders, "-" (standard input), each also as LABEL=SPEC. options: `ReadOptions`. map: canonical
    field -> path in the row (`rows`: where the records of a JSON document lie; `format`: the dialect to read as).
    threshold: score >= threshold is correct where a dump has no label of its own. sampler: source -> Sampler, winning
    over what the dump records. max_bad: the share of a file's rows that may be rejected (0 = strict). grade: fill
    missing labels from the reference answers (`grading.grade`).

    Source of a trace: LABEL; else the row's own source field; else the last part of its model name; else the file name
    (or its folder, where the dialect or a number as file name says so, or files of several folders share a name).
    Sample numbers are unique per (source, problem, step): the dump's own where they are, else the order of appearance.
    Raises DumpError (input can't be used) and UsageError (a spec, map, label or setting that does not fit).
    """
    ledger = Ledger()
    [read] = taken("read_dumps", options)
    return [t for batch in batches(specs, ledger, read=read) for t in batch], ledger


def batches(
    specs: Sequence[str], ledger: Ledger, survey: Survey | None = None, read: ReadOptions = AS_FOUND
) -> Iterator[list[Trace]]:
    """The traces of `read_dumps` in lists of at most BATCH; fills `ledger` as that function does, and
    `survey` with what the warnings are found in.

    Nothing of a trace is kept but some hundred bytes; JSON lines and Parquet are read as they come, a JSON document is
    held whole. The ledger is complete, warnings included, when the last batch is out. What is raised late (too many bad
    rows, a label that no source has) makes the batches before it void.
    """
    survey, traces, grades = survey or Survey(), stream(specs, ledger, read), Counter()
    if read.grade:
        traces = grading.grade(traces, grades)
    collecting = gc.isenabled()
    while True:
        gc.disable()  # nothing here makes cycles, and looking for some among many traces takes a third of the time
        try:
            if not (batch := _taken(traces)):
                break
            survey.threshold = ledger.threshold
            survey.add(batch)
        finally:
            if collecting:
                gc.enable()
        yield batch
    ledger.notes += warnings.find(survey, ledger.files)
    if read.grade:
        ledger.notes.append(grading.said(grades))


def _taken(traces: Iterator[Trace]) -> list[Trace]:
    """The next traces, as many as make a batch."""
    batch, text = [], 0
    for t in traces:
        batch.append(t)
        text += len(t.response) + len(t.question or "") + 16 * len(t.response_ids or ())
        if len(batch) == BATCH or text >= BATCH_TEXT:
            break
    return batch


def stream(specs: Sequence[str], ledger: Ledger, read: ReadOptions = AS_FOUND) -> Iterator[Trace]:
    """The traces of `read_dumps` one by one, not graded; the ledger is complete when the last one is out, but for the
    warnings."""
    ledger.threshold = read.threshold
    given = read.sampler
    traces = _walk(specs, checked_map(read.map), read.threshold, read.max_bad, ledger, given)
    yield from (replace(t, sampler=given.get(t.source, t.sampler)) for t in traces) if given else traces
    _refuse_unknown(given, {source for account in ledger.files for source in account["sources"]})
    ledger.check()


def _refuse_unknown(samplers: Iterable[str], known: set[str]) -> None:
    for label in samplers:
        if label not in known:
            raise UsageError(f"--sampler {label}=...: no source is called {label!r}{nearest(label, known)}")


def _plans(
    specs: Sequence[str], names: Sequence[tuple[Any, ...]], field_map: dict[str, str], ledger: Ledger
) -> list[Plan]:
    """How each file is read. What a folder or pattern brought along and holds no responses (a document such as a
    summary, or a file of a known kind) is left out, and said; a file that was named is an error."""
    plans, left, opened = [], [], {}
    for name in names:
        file = files.open_dump(*name)
        opened[file.name] = file.sha256
        try:
            plan = plan_file(file, field_map)
            given = field_map.get("response")
            if file.document is not None and given and not any(has(r, given) for _, r in plan.walk()):
                raise NoResponseError(f"{file.name}: no row has {given!r}")
            plans.append(plan)
        except NoResponseError as error:
            if (file.document is None and not isinstance(error, RefusedError)) or any(
                spec in (name[0], f"{name[2]}={name[0]}") for spec in specs
            ):
                raise
            left.append((file.name, error))
    if ledger.opened and (unlike := sorted({x for x, _ in ledger.opened.items() ^ opened.items()})):
        raise files.changed(unlike[0])
    ledger.opened = opened
    if not plans:
        raise left[0][1]
    reasons: dict[str, list[str]] = {}
    for name, error in left:
        reasons.setdefault(str(error).removeprefix(f"{name}: ").partition(" (its first row has")[0], []).append(name)
    ledger.notes += [f"{warnings.listed(where)}: not read ({why})." for why, where in reasons.items()]
    return plans


def _walk(
    specs: Sequence[str],
    field_map: dict[str, str],
    threshold: float,
    max_bad: float,
    ledger: Ledger,
    samplers: Iterable[str] = (),
) -> Iterator[Trace]:
    """The traces of all files in order. samplers: labels that sources must have, asked beforehand where no row can
    name another one."""
    names, notes = expand(specs)
    ledger.notes += notes
    plans = _plans(specs, names, field_map, ledger)
    sides = []
    for plan in [p for p in plans if p.dialect.shape == "side"]:
        account, rejected, held = joins.account(plan)
        accounts.book(ledger, account, rejected, "", max_bad)
        sides.append((plan, held))
    plans = [p for p in plans if p.dialect.shape != "side"]
    if not plans:
        raise DumpError(
            f"{sides[0][0].file.name}: this is {sides[0][0].format}, which has no responses; give it beside the dump "
            "that belongs to it"
        )
    for plan in plans:
        joins.attach(plan, sides)
    refuse_unused_map(field_map, plans)
    labels.derive(plans)
    told = [p for p in plans if not p.file.label]  # by rows, names of files and models that stand side by side
    if not any({"source", "model"} & p.fields.keys() or p.dialect.name or p.dialect.shape == "wide" for p in told):
        _refuse_unknown(samplers, {p.file.label or p.derived for p in plans})
    numbering: dict[tuple[str, str, int | None], Any] = {}
    owners: dict[str, tuple[str, str]] = {}
    said: dict[str, list[str]] = {}
    for plan in plans:
        yield from reading.traces_of(plan, ledger, threshold, max_bad, numbering, owners)
        for note in plan.notes:
            said.setdefault(note, []).append(plan.file.name)
    found = (f"{warnings.listed(where)}: {note}" for note, where in said.items())
    # the name of a filter may hold half a character
    ledger.notes += [note.encode(errors="backslashreplace").decode() for note in found]
    ledger.notes += labels.said(plans, ledger.files)
    ledger.notes += accounts.same_content(ledger.files)
