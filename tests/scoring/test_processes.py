"""A process per device: the same values as one process, also when a process dies in the middle."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest

from analyzer.api import pipeline
from analyzer.errors import UsageError
from analyzer.runs.store import Run
from analyzer.scoring import parts as scoring
from analyzer.scoring import processes


def test_two_processes_score_what_one_does_and_a_dead_one_is_replaced(stories, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "UNIT_TRACES", 4)
    rows = [
        f'{{"source": "base", "problem": "p{p}", "sample": {n}, "prompt": "Once {p}", "response": "upon a time {n}"}}'
        for p in range(8)
        for n in range(4)
    ]
    (tmp_path / "base.jsonl").write_text("\n".join(rows))
    seen: list[set[int]] = []

    def kill_one(what: str, done: int, total: int, tokens: int) -> None:
        seen.append({p.pid for p in multiprocessing.active_children()})
        if len(seen) == 1:
            os.kill(min(seen[0]), signal.SIGKILL)

    values, about = [], []
    for name, device, progress in (("one", "cpu", scoring.quiet), ("two", "cpu,cpu", kill_one)):
        run = Run.create(tmp_path / name)
        pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
        pipeline.score(run, base=str(stories), device=device, progress=progress)
        values.append({r["key"]: r["logprob"] for t in run.tokens("base", ["logprob"]) for r in t.to_dict("records")})
        about.append(run.manifest["scorers"]["base"]["eos_ids"])
    assert about[0] == about[1] != []
    assert values[0].keys() == values[1].keys() and len(values[0]) == 32
    assert all(np.array_equal(values[0][k], values[1][k]) for k in values[0])
    assert len(seen[0]) == 2 and min(seen[0]) not in seen[-1] and len(seen[-1]) == 2
    assert not {p.pid for p in multiprocessing.active_children()} & set.union(*seen)


def test_what_goes_wrong_in_a_process_is_raised_here():
    options = {"dtype": "float23", "trust_remote_code": False, "allow_pickle": False}
    with processes.crew("cpu", options) as load, pytest.raises(UsageError, match="did you mean 'float32'"):
        load("anything")
    with pytest.raises(UsageError, match="empty name"), processes.crew("cpu,", options):
        pass
