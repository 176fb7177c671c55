"""One process per device of this machine (--device cuda:0,cuda:1), over the same units as one process would take.

The workers are those of `cluster`, in child processes instead of Ray actors: units go out as ids, records come back,
a worker that dies is started again and its unit done again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from analyzer.errors import UsageError
from analyzer.scoring.cluster import Scorer
from analyzer.scoring.names import absolute
from analyzer.scoring.team import Task, Team, distribute

_scorer: Scorer | None = None  # of a child process


@contextlib.contextmanager
def crew(devices: str, options: Mapping[str, Any]) -> Iterator[Callable[[str], Any]]:
    """Child processes, one per device named in `devices` (by commas; the same one twice gives it two); gives the
    function that loads a model in each and returns its Loaded record.

    options: of `load.load`; its device is each worker's own. A further model takes the place of the one before it.
    Raises UsageError for an empty name among the devices.
    """
    names = [d.strip() for d in devices.split(",")]
    if "" in names:
        raise UsageError(f"--device {devices}: an empty name; write it like cuda:0,cuda:1")
    threads = max(1, (os.cpu_count() or 1) // len(names))
    team: list[_Worker] = []

    def load(model: str) -> Any:
        whole_name = absolute(model)

        def start() -> _Worker:
            device = next(d for d in names if names.count(d) > sum(w.device == d for w in team))
            return _Worker(device, whole_name, options, threads)

        def share(tasks: Iterable[tuple[int, Task]]) -> Iterator[tuple[int, Any]]:
            yield from distribute(tasks, team, start, lambda worker, task: worker.submit(task), (BrokenProcessPool,))

        dismiss()
        while len(team) < len(names):
            team.append(start())
        whole = Team(share)
        return replace(whole.ask("about"), name=model, model=whole)

    def dismiss() -> None:
        for worker in team:
            worker.stop()
        team.clear()

    try:
        yield load
    finally:
        dismiss()


class _Worker:
    """A child process that holds a model on one device."""

    def __init__(self, device: str, model: str, options: Mapping[str, Any], threads: int) -> None:
        self.device = device
        given = (model, dict(options) | {"device": device}, threads)
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_become, initargs=given)

    def submit(self, task: Task) -> Future:
        return self.pool.submit(_do, task)

    def stop(self) -> None:
        """End it at once, also in the middle of a unit: what it has not given back is done again."""
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.join()


def _become(model: str, options: Mapping[str, Any], threads: int) -> None:
    global _scorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends this process
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(threads)
    _scorer = Scorer(model, options)


def _do(task: Task) -> Any:
    return getattr(_scorer, task[0])(*task[1:])
