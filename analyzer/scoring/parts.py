"""Traces as ids -> parts on disk, unit by unit, resumable: what is on disk is not done again.

A pass over a model writes for every scorer that is this model: what two of them ask of a trace differs in the sampler
alone, and is told by the same logits.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from analyzer.records import NOVEL_COLUMNS, POWER_COLUMNS, SAMPLER_COLUMNS, Sampler, Scored, Trace
from analyzer.runs.manifests import SCHEMA
from analyzer.runs.rows import prompt_hash
from analyzer.runs.store import Run
from analyzer.scoring.columns import plain_sampler
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.plan import units

UNIT_TRACES = 2000  # a unit of work, and so a part on disk, holds at most this many traces,
UNIT_TOKENS = 2_000_000  # this many tokens,
SERVER_TOKENS = 200_000  # (on a server)
UNIT_FLOPS = {"cpu": 1e13, "cuda": 1e16}  # and about this much work (minutes): what a killed run loses

NOT_FINITE = "log-probabilities that are not finite: the weights hold NaN, or overflow (try --dtype float32)"
Progress = Callable[[str, int, int, int], None]  # what, traces done, traces in all, tokens done


def quiet(what: str, done: int, total: int, tokens: int) -> None:
    """The progress callback that says nothing."""


class Asked(NamedTuple):
    """What a scorer is to have of a pass: its own sampler, the sources whose traces it gets, and key -> status of those
    that are done with."""

    sampler: Sampler | None
    sources: set[str]
    done: dict[str, str]


def score_all(
    run: Run,
    asked: dict[str, Asked],
    encoded: list[Encoded],
    declared: Mapping[str, Sampler | None],
    loaded: Any,
    path: str,
    limit: int | None,
    shard: tuple[int, int] | None,
    progress: Progress,
) -> None:
    """Score unit by unit for the scorers of one pass (label -> what it asks), each unit written as one part per scorer
    by a thread of its own while the next is scored.

    declared: source -> its sampler; where it is neither plain nor the scorer's own, log-probs by it are told too. Units
    are cut from all `encoded` traces, whatever is on disk and whichever share of them this process does: who scores
    what changes no value. An interrupted unit is written as far as it is done. Progress and decisions count what was
    done in earlier, interrupted calls too. `done` grows by what is written.
    """
    from analyzer.scoring import load as scorers

    records = {label: run.manifest["scorers"][label] for label in asked}
    lead, first_asked = next(iter(asked.items()))
    main, powers = first_asked.sampler, tuple(records[lead]["powers"])  # the base's, which no other scorer has
    decisions = {
        label: Counter(d for e in encoded if one.done.get(e.trace.key) == "ok" for d in e.decisions)
        for label, one in asked.items()
    }

    def with_laws(item: Encoded) -> Encoded:
        source = item.trace.source
        samplers = [declared.get(source), *(one.sampler for one in asked.values() if source in one.sources)]
        laws = dict.fromkeys(s for s in samplers if s is not None and not s.is_plain and s != main)
        return replace(item, laws=tuple(laws))

    waiting = {
        e.trace.key: [n for n, one in asked.items() if e.trace.source in one.sources and e.trace.key not in one.done]
        for e in encoded
    }
    cut = units([(e.prompt_ids, e.response_ids) for e in encoded], tokens=unit_tokens(loaded), traces=UNIT_TRACES)
    first, step = shard or (0, 1)
    todo = {
        number: {encoded[i].trace.key: with_laws(encoded[i]) for i in cut[number] if waiting[encoded[i].trace.key]}
        for number in range(first, len(cut), step)
    }
    finished, tokens = sum(not waiting.get(key) for key in first_asked.done), 0
    total = finished + sum(map(len, todo.values()))

    def note(name: str, value: Any) -> None:
        for record in records.values():
            record[name] = value

    def save(number: int, scored: list[Scored]) -> None:
        """What was noted first (nobody notes it again once the last part is on disk), then the parts, then the count of
        the decisions behind them: what is counted was scored."""
        run.save()
        scored = sorted(scored, key=lambda one: one.key)
        status = {s.key: "ok" if np.isfinite(s.columns["logprob"]).all() else NOT_FINITE for s in scored}
        for label, record in records.items():
            mine = [(todo[number][s.key], s) for s in scored if label in waiting[s.key]]
            rows = [(e.trace, e.prompt_ids, _under(s, asked[label].sampler, main, declared.get(e.trace.source), record))
                    for e, s in mine]  # fmt: skip
            part = f"{number:05d}-{_unit_id(rows, record)}"
            found = [(t, ids, s if status[s.key] == "ok" else NOT_FINITE) for t, ids, s in rows]
            run.append_scores(label, found, part=part)
            asked[label].done.update((s.key, status[s.key]) for _, s in mine)
            decisions[label].update(d for e, s in mine if status[s.key] == "ok" for d in e.decisions)
            record["decisions"] = dict(sorted(decisions[label].items()))
        run.save()

    with ThreadPoolExecutor(1) as writer:
        writing = None

        def hand_over(number: int, rows: list[Scored]) -> None:
            nonlocal writing
            if writing is not None:
                writing.result()  # at most one part waits: memory stays bounded, and its error ends the run
            writing = writer.submit(save, number, rows)

        parts: dict[int, list[Scored]] = {}  # by unit, as far as they are done
        work = [(number, list(items.values())) for number, items in todo.items() if items]
        try:
            options = {"path": path, "sampler": main, "limit": limit, "powers": powers}
            for number, scored in scorers.score_units(work, loaded, **options, note=note):
                parts.setdefault(number, []).append(scored)
                finished, tokens = finished + 1, tokens + len(scored)
                progress(lead, finished, total, tokens)
                if len(parts[number]) == len(todo[number]):
                    hand_over(number, parts.pop(number))
        finally:
            for number, rows in parts.items():
                hand_over(number, rows)
            if writing is not None:
                writing.result()
    for label, record in records.items():
        record["decisions"] = dict(sorted(decisions[label].items()))


def _under(
    scored: Scored, sampler: Sampler | None, main: Sampler | None, drawn: Sampler | None, record: Mapping[str, Any]
) -> Scored:
    """A trace under one scorer, by its `sampler`, of what a pass by the sampler `main` tells; drawn: its source's."""

    def by(law: Sampler | None) -> dict[str, np.ndarray]:
        if law is None or law == main:
            return {name: scored.columns[name] for name in SAMPLER_COLUMNS if law and name in scored.columns}
        return plain_sampler(scored.columns) if law.is_plain else scored.laws[law]

    others = {*SAMPLER_COLUMNS, *POWER_COLUMNS, *NOVEL_COLUMNS} - {f"power_{a:g}" for a in record["powers"]}
    columns = {name: values for name, values in scored.columns.items() if name not in others} | by(sampler)
    if drawn is not None and not drawn.is_plain and drawn != sampler:
        columns["logprob_source"] = by(drawn)["logprob_s"]
    return replace(scored, columns=columns, laws={})


def unit_tokens(loaded: Any) -> int:
    """Tokens of a unit, by the work that a token costs on this device."""
    if not loaded.parameters:  # a server: what it costs there is not known
        return SERVER_TOKENS
    work = UNIT_FLOPS.get(loaded.device.partition(":")[0], 1e13) / (2 * loaded.parameters)
    return int(min(UNIT_TOKENS, max(4096, work)))


def _unit_id(rows: list[tuple[Trace, tuple[int, ...], Scored]], record: Mapping[str, Any]) -> str:
    """8 hex digits of what a part depends on: which traces and ids, the model, how it was run, the schema."""
    digest = hashlib.sha256(f"{SCHEMA} {record['fingerprint']} {record['dtype']} {record['sampler']}".encode())
    digest.update(f"{record['powers']}".encode() if record["powers"] else b"")
    for trace, prompt_ids, scored in rows:
        digest.update(f"{trace.key} {prompt_hash(prompt_ids)} ".encode() + scored.columns["token"].tobytes())
    return digest.hexdigest()[:8]
