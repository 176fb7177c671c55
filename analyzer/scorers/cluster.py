"""Any scorer over Ray actors: one model per worker, one unit of work in flight per worker.

Units go out as ids and come back as Scored records; the process that started writes them, so that no disk needs to be
shared. A unit's values depend on the unit alone, not on who scores it, in which order or how often.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analyzer.errors import ResourceError, UsageError
from analyzer.records import Sampler, Scored, Trace
from analyzer.scorers.encode import Encoded

TRIES = 3  # of one unit whose worker dies, and of starting a worker
START_SECONDS = 1800.0  # without any worker ready: give up

Worker = Any  # a handle on whatever does the work
Task = tuple[Any, ...]  # a method of a worker, and its arguments


def distribute(
    tasks: Iterable[tuple[int, Task]],
    team: list[Worker],
    start: Callable[[], Worker],
    submit: Callable[[Worker, Task], Future],
    dead: tuple[type[Exception], ...],
    patience: float = START_SECONDS,
) -> Iterator[tuple[int, Any]]:
    """(number, result) of every numbered task, as they finish; each worker has at most one task in flight.

    team: the workers, kept up to date: one whose task raises one of `dead` leaves it, its task is done by another, and
    `start()` replaces it. A worker is given work once the task ("ready",) has returned. Other exceptions of a task are
    raised here. Raises ResourceError when a task has lost TRIES workers, so many could not be started one after
    another, or none is ready within `patience` seconds.
    """
    waiting, again, idle = iter(tasks), deque[tuple[int, Task]](), deque[Worker]()
    flight: dict[Future, tuple[Worker, int | None, Task]] = {}
    lost: Counter = Counter()

    def send(worker: Worker, number: int | None, task: Task) -> None:
        flight[submit(worker, task)] = (worker, number, task)

    for worker in team:
        send(worker, None, ("ready",))
    while True:
        while idle and (task := again.popleft() if again else next(waiting, None)) is not None:
            send(idle.popleft(), *task)
        busy = any(number is not None for _, number, _ in flight.values())
        if idle and not busy:
            return  # all is done; a worker that is still starting is not waited for
        finished, _ = wait(flight, timeout=None if busy else patience, return_when=FIRST_COMPLETED)
        if not finished:
            raise ResourceError(
                f"no worker of the cluster was ready after {patience:g} s; has it the free CPUs or GPUs, and can its "
                "machines read the model?"
            )
        for future in finished:
            worker, number, task = flight.pop(future)
            try:
                result = future.result()
            except dead as error:
                lost[number] += 1
                if lost[number] == TRIES:
                    what = "workers could not be started" if number is None else f"unit {number} lost its worker"
                    raise ResourceError(
                        f"{what} {TRIES} times ({str(error).strip().splitlines()[0]}); out of memory? What was "
                        "finished is saved: continue with the same line, with fewer --workers"
                    ) from error
                if number is not None:
                    again.append((number, task))
                team.remove(worker)
                team.append(start())
                send(team[-1], None, ("ready",))
                continue
            lost.pop(number, None)
            idle.append(worker)
            if number is not None:
                yield number, result


@dataclass(frozen=True)
class Team:
    """The workers that hold a model. Stands where `Loaded` holds the weights of a model that is loaded here."""

    distribute: Callable[[Iterable[tuple[int, Task]]], Iterator[tuple[int, Any]]]

    def ask(self, *task: Any) -> Any:
        """The result of one task by any worker."""
        return next(result for _, result in self.distribute([(0, task)]))

    def prepare(self, sampler: Sampler | None, wanted: str) -> tuple[str, str, str | None]:
        """See `scorers.prepare`."""
        return self.ask("prepare", sampler, wanted)

    def score_units(
        self,
        units: Iterable[tuple[int, list[Encoded]]],
        *,
        note: Callable[[str, Any], None] = lambda name, value: None,
        **options: Any,
    ) -> Iterator[tuple[int, Scored]]:
        """See `scorers.score_units`. note: of each value that the workers note, the least is passed on."""
        least: dict[str, Any] = {}
        tasks = ((number, ("score", [_light(item) for item in items], options)) for number, items in units)
        for number, (rows, noted) in self.distribute(tasks):
            for name, value in noted.items():
                least[name] = min(value, least.get(name, value))
                note(name, least[name])
            yield from ((number, scored) for scored in rows)


def _light(item: Encoded) -> Encoded:
    """What a worker needs of a trace: its identity, not its texts."""
    t = item.trace
    return replace(item, trace=Trace(t.source, t.problem, t.sample, "", step=t.step), decisions=())


class Scorer:
    """What runs in a worker process: a loaded model and the methods that tasks name."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.name, self.options, self.loaded = name, options, None

    def ready(self) -> None:
        """Load the model, the first time."""
        from analyzer import scorers

        self.loaded = self.loaded or scorers.load(self.name, **self.options)

    def about(self) -> Any:
        """The Loaded record without the weights."""
        return replace(self.loaded, model=None)

    def prepare(self, sampler: Sampler | None, wanted: str) -> tuple[str, str, str | None]:
        from analyzer import scorers

        return scorers.prepare(self.loaded, sampler, wanted)

    def score(self, items: list[Encoded], options: Mapping[str, Any]) -> tuple[list[Scored], dict[str, Any]]:
        from analyzer import scorers

        noted: dict[str, Any] = {}
        return list(scorers.score(items, self.loaded, note=noted.__setitem__, **options)), noted


def _reach(address: str) -> None:
    """Raises OSError or ValueError when nothing listens there; Ray itself would try for many minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()


@contextlib.contextmanager
def crew(address: str, workers: int | None, options: Mapping[str, Any]) -> Iterator[Callable[[str], Any]]:
    """Connect to a Ray cluster; gives the function that loads a model by its workers and returns its Loaded record.

    address: of a running cluster, or "auto": one that this machine belongs to, else one of this machine alone. workers:
    by default one per GPU, without GPUs one per CPU core. A further model takes the place of the one before it. Raises
    UsageError (Ray is missing, a device by number) and ResourceError (no such cluster, no room).
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    try:
        import ray
    except ImportError:
        raise UsageError("--cluster needs Ray, the extra `ray`: pip install 'reasoning-path-analyzer[ray]'") from None
    if ":" in options["device"]:
        raise UsageError(f"--device {options['device']}: Ray gives each worker its own GPU; say --device cuda")
    team: list[Worker] = []
    ours = not ray.is_initialized()
    try:
        if ours:
            _reach(address)
            where = None if address == "auto" else address
            ray.init(where, include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises bare ones, as when a busy machine takes more than 30 s to start it
        raise ResourceError(
            f"--cluster {address}: {str(error).strip().splitlines()[0]}; expected HOST:PORT of a cluster that "
            "`ray start --head` began, or auto"
        ) from error
    try:
        have = ray.cluster_resources()
        gpus = int(have.get("GPU", 0)) if options["device"] in ("auto", "cuda") else 0
        seats = workers or gpus or max(1, int(have.get("CPU", 1)))
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0)(Scorer)

        def dismiss() -> None:
            for worker in team:
                ray.kill(worker)

        def load(name: str) -> Any:
            folder = str(Path(name).resolve()) if Path(name).is_dir() else name

            def submit(worker: Worker, task: Task) -> Future:
                return getattr(worker, task[0]).remote(*task[1:]).future()

            def share(tasks: Iterable[tuple[int, Task]]) -> Iterator[tuple[int, Any]]:
                dead = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError)
                try:
                    yield from distribute(tasks, team, lambda: actor.remote(folder, options), submit, dead)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None  # as it was raised in the worker

            dismiss()
            team[:] = [actor.remote(folder, options) for _ in range(seats)]
            whole = Team(share)
            return replace(whole.ask("about"), name=name, model=whole)

        yield load
        dismiss()
    finally:
        if ours:
            ray.shutdown()
