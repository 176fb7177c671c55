"""Work over workers that hold a model each, processes or Ray actors: one unit of work in flight per worker.

Units go out as ids and come back as Scored records; the process that started writes them, so that no disk needs to be
shared. A unit's values depend on the unit alone, not on who scores it, in which order or how often.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from analyzer.errors import ResourceError
from analyzer.records import Sampler, Scored, Trace
from analyzer.scoring.encoding.encode import Encoded

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
        """See `scoring.load.prepare`."""
        return self.ask("prepare", sampler, wanted)

    def score_units(
        self,
        units: Iterable[tuple[int, list[Encoded]]],
        *,
        note: Callable[[str, Any], None] = lambda name, value: None,
        **options: Any,
    ) -> Iterator[tuple[int, Scored]]:
        """See `scoring.load.score_units`. note: of each value that the workers note, the least is passed on."""
        least: dict[str, Any] = {}
        tasks = ((number, ("score", [light(item) for item in items], options)) for number, items in units)
        for number, (rows, noted) in self.distribute(tasks):
            for name, value in noted.items():
                least[name] = min(value, least.get(name, value))
                note(name, least[name])
            yield from ((number, scored) for scored in rows)


def light(item: Encoded) -> Encoded:
    """What a worker needs of a trace: its identity, not its texts."""
    t = item.trace
    return replace(item, trace=Trace(t.source, t.problem, t.sample, "", step=t.step), decisions=())
