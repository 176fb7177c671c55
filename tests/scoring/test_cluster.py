"""Work over workers: every task once, the dead replaced, the values those of one process.

The division of work is tested here without Ray; with it (RAY=1, `make test-ray`) on a local cluster of two workers, one
of which is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.api import pipeline
from analyzer.errors import ResourceError, UsageError
from analyzer.runs.store import Run
from analyzer.scoring import cluster
from analyzer.scoring import parts as scoring
from analyzer.scoring.team import TRIES, distribute


class Death(Exception):
    """A worker is gone."""


class Crowd:
    """Workers that are threads: each task is counted, and dies when the plan says so."""

    def __init__(self, fate) -> None:
        self.fate = fate  # (task) -> whether its worker dies of it
        self.pool = ThreadPoolExecutor(8)
        self.started, self.gone, self.busy, self.most, self.asked = 0, set(), {}, 0, []

    def start(self) -> int:
        self.started += 1
        return self.started

    def submit(self, worker: int, task: tuple):
        assert worker not in self.gone, "work for a worker that is known to be dead"
        assert not self.busy.get(worker), "two tasks at once"
        self.busy[worker] = True
        self.most = max(self.most, sum(self.busy.values()))
        dies = self.fate(task)
        if task[0] != "ready":
            self.asked.append(task[1])

        def work():
            time.sleep(random.random() / 2000)
            self.busy[worker] = False
            if dies:
                raise Death("killed")
            return task[1] ** 2 if task[0] != "ready" else None

        future = self.pool.submit(work)
        future.add_done_callback(lambda f: self.gone.add(worker) if dies else None)
        return future

    def distribute(self, tasks: int, workers: int, **options):
        team = [self.start() for _ in range(workers)]
        numbered = ((n, ("square", n)) for n in range(tasks))
        return distribute(numbered, team, self.start, self.submit, (Death,), **options)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tasks=st.integers(0, 12), workers=st.integers(1, 5), deaths=st.sets(st.integers(0, 40), max_size=12))
def test_every_task_is_done_once_whoever_dies(tasks, workers, deaths):
    """The n-th task that is handed out kills its worker, for n in `deaths`."""
    count, unlucky = iter(range(10**6)), dict.fromkeys(range(tasks), 0)

    def fate(task) -> bool:
        dies = next(count) in deaths and (task[0] == "ready" or unlucky[task[1]] < TRIES - 1)
        if dies and task[0] != "ready":
            unlucky[task[1]] += 1
        return dies

    crowd = Crowd(fate)
    try:
        done = list(crowd.distribute(tasks, workers))
    except ResourceError as error:  # only where workers die while they start
        assert "workers could not be started 3 times" in str(error)
        return
    assert sorted(done) == [(n, n**2) for n in range(tasks)]
    assert crowd.most <= workers
    assert len(crowd.asked) == tasks + sum(unlucky.values())


def test_work_is_handed_out_as_it_is_taken():
    """Back-pressure: units are drawn from the iterator when a worker is free, not before."""
    drawn = []
    team = [1, 2]
    crowd = Crowd(lambda task: False)
    results = distribute(
        ((n, ("square", n)) for n in range(100) if not drawn.append(n)), team, crowd.start, crowd.submit, (Death,)
    )
    for taken, _ in enumerate(results, 1):
        assert len(drawn) <= taken + len(team)
    assert len(drawn) == 100


def test_a_task_that_kills_its_workers_ends_the_run():
    crowd = Crowd(lambda task: task == ("square", 3))
    with pytest.raises(ResourceError, match=r"unit 3 lost its worker 3 times \(killed\).*continue with the same line"):
        list(crowd.distribute(6, 2))
    assert crowd.asked.count(3) == 3


def test_workers_that_never_start_end_the_run():
    with pytest.raises(ResourceError, match="workers could not be started 3 times"):
        list(Crowd(lambda task: task[0] == "ready").distribute(6, 2))
    with ThreadPoolExecutor(1) as pool, pytest.raises(ResourceError, match="no worker of the cluster was ready after"):
        slow = lambda worker, task: pool.submit(time.sleep, 0.2)  # noqa: E731
        list(distribute([(0, ("square", 0))], [1], int, slow, (Death,), patience=0.01))


def test_an_error_of_the_work_itself_is_raised():
    def submit(worker, task):
        return pool.submit(lambda: None if task[0] == "ready" else 1 / 0)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(distribute([(0, ("divide",))], [1], int, submit, (Death,)))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--cluster needs Ray, the extra `ray`"), cluster.crew("auto", None, {}):
        pass


ray = pytest.mark.skipif(os.environ.get("RAY") != "1", reason="Ray has a command of its own: make test-ray")


def write_dumps(folder: Path) -> list[str]:
    rng = random.Random(0)
    words = ["day", "happy", "saw", "ran", "home", "mom", "dog", "ball", "big", "red"]
    for source in ("base", "rlvr"):
        rows = [
            {
                "problem": f"p{p}",
                "sample": s,
                "prompt": "Once upon a time " * (1 + p % 3) + words[p],
                "response": " ".join(rng.choices(words, k=rng.randint(3, 60))),
            }
            for p in range(8)
            for s in range(40)
        ]
        (folder / f"{source}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return [str(folder / f"{source}.jsonl") for source in ("base", "rlvr")]


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


def scorer_processes() -> list[int]:
    """The workers among the processes that this one started."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return [pid for pid, name in names.items() if name.startswith("ray::Scorer") and is_ours(pid)]


@ray
@pytest.mark.parametrize("workers, kills", [(1, 0), (2, 0), (2, 1)])
def test_workers_of_ray_give_the_run_of_one_process(tmp_path, stories, monkeypatch, workers, kills):
    """Byte for byte, whatever their number, and when one of them is killed in the middle of its work."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(scoring, "UNIT_TRACES", 40)
    dumps, killed = write_dumps(tmp_path), []

    def score(name: str, **options) -> Path:
        run = Run.create(tmp_path / name)
        pipeline.ingest(run, dumps)
        pipeline.score(run, base=str(stories), cross={"again": str(stories)}, **options)
        return run.path

    def kill(what: str, done: int, total: int, tokens: int) -> None:
        if what == "base" and done > total // 4 and len(killed) < kills:
            found = scorer_processes()
            assert len(found) == workers
            killed.append(found[-1])
            os.kill(found[-1], signal.SIGKILL)

    many = score("many", cluster="auto", workers=workers, progress=kill)
    assert len(killed) == kills and not scorer_processes()
    import torch

    torch.set_num_threads(1)
    assert contents(many) == contents(score("one"))


@ray
def test_errors_of_workers_and_clusters_are_told_as_here(tmp_path, stories):
    run = Run.create(tmp_path / "run")
    pipeline.ingest(run, write_dumps(tmp_path))
    with pytest.raises(ResourceError, match="model .* has no weights"):
        (tmp_path / "no-model").mkdir()
        pipeline.score(run, base=str(tmp_path / "no-model"), cluster="auto", workers=1)
    with pytest.raises(ResourceError, match="--cluster 127.0.0.1:1: .*refused; expected HOST:PORT"):
        pipeline.score(run, base=str(stories), cluster="127.0.0.1:1")
    with pytest.raises(UsageError, match="--device cuda:1: Ray gives each worker its own GPU"):
        pipeline.score(run, base=str(stories), cluster="auto", device="cuda:1")
