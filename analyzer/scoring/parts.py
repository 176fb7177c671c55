"""Traces as ids -> parts on disk, unit by unit, resumable: what is on disk is not done again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from analyzer.records import Sampler, Scored, Trace
from analyzer.runs.manifests import SCHEMA
from analyzer.runs.rows import prompt_hash
from analyzer.runs.store import Run
from analyzer.scoring.plan import units

UNIT_TRACES = 2000  # a unit of work, and so a part on disk, holds at most this many traces,
UNIT_TOKENS = 2_000_000  # this many tokens,
SERVER_TOKENS = 200_000  # (on a server)
UNIT_FLOPS = {"cpu": 1e13, "cuda": 1e16}  # and about this much work (minutes): what a killed run loses

NOT_FINITE = "log-probabilities that are not finite: the weights hold NaN, or overflow (try --dtype float32)"
Progress = Callable[[str, int, int, int], None]  # what, traces done, traces in all, tokens done


def quiet(what: str, done: int, total: int, tokens: int) -> None:
    """The progress callback that says nothing."""


def score_all(
    run: Run,
    label: str,
    encoded: list,
    loaded: Any,
    path: str,
    sampler: Sampler | None,
    limit: int | None,
    shard: tuple[int, int] | None,
    progress: Progress,
    done: dict[str, str],
) -> None:
    """Score unit by unit, each written as one part by a thread of its own while the next is scored.

    Units are cut from all traces that the run wants under this model, whatever is on disk and whichever share of them
    this process does: who scores what changes no value. An interrupted unit is written as far as it is done. Progress
    and decisions count what was done in earlier, interrupted calls too. `done` grows by what is written.
    """
    from analyzer.scoring import load as scorers

    record = run.manifest["scorers"][label]
    earlier = [e for e in encoded if done.get(e.trace.key) == "ok"]
    decisions = Counter(d for e in earlier for d in e.decisions)
    since = tokens = sum(e.tokens for e in earlier)
    cut = units([(e.prompt_ids, e.response_ids) for e in encoded], tokens=unit_tokens(loaded), traces=UNIT_TRACES)
    first, step = shard or (0, 1)
    todo = {
        number: {encoded[i].trace.key: encoded[i] for i in cut[number] if encoded[i].trace.key not in done}
        for number in range(first, len(cut), step)
    }
    finished, total = len(done), len(done) + sum(map(len, todo.values()))

    def note(name: str, value: Any) -> None:
        record[name] = value

    def save(number: int, rows: list[Scored]) -> None:
        """What was noted first (nobody notes it again once the last part is on disk), then the part, then the count of
        the decisions behind it: what is counted was scored."""
        run.save()
        rows = sorted(rows, key=lambda scored: scored.key)
        items = [todo[number][s.key] for s in rows]
        found = [(item.trace, item.prompt_ids, s) for item, s in zip(items, rows, strict=True)]
        part = f"{number:05d}-{_unit_id(found, record)}"
        status = {s.key: "ok" if np.isfinite(s.columns["logprob"]).all() else NOT_FINITE for s in rows}
        found = [(t, ids, s if status[s.key] == "ok" else NOT_FINITE) for t, ids, s in found]
        run.append_scores(label, found, part=part)
        done.update(status)
        decisions.update(d for item in items if status[item.trace.key] == "ok" for d in item.decisions)
        record["decisions"] = dict(sorted(decisions.items()))
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
            options = {"path": path, "sampler": sampler, "limit": limit, "powers": tuple(record["powers"])}
            for number, scored in scorers.score_units(work, loaded, **options, note=note):
                parts.setdefault(number, []).append(scored)
                finished, tokens = finished + 1, tokens + len(scored)
                progress(label, finished, total, tokens - since)
                if len(parts[number]) == len(todo[number]):
                    hand_over(number, parts.pop(number))
        finally:
            for number, rows in parts.items():
                hand_over(number, rows)
            if writing is not None:
                writing.result()
    record["decisions"] = dict(sorted(decisions.items()))


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
