"""Any scorer over Ray actors, one model per worker (see `team`)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from analyzer.errors import ResourceError, UsageError
from analyzer.records import Sampler, Scored
from analyzer.scoring import load as scorers
from analyzer.scoring.encoding.encode import Encoded
from analyzer.scoring.names import absolute
from analyzer.scoring.team import Task, Team, Worker, distribute


class Scorer:
    """What runs in a worker process: a loaded model and the methods that tasks name."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.name, self.options, self.loaded = name, options, None

    def ready(self) -> None:
        """Load the model, the first time."""
        self.loaded = self.loaded or scorers.load(self.name, **self.options)

    def about(self) -> Any:
        """The Loaded record without the weights."""
        return replace(self.loaded, model=None)

    def prepare(self, sampler: Sampler | None, wanted: str) -> tuple[str, str, str | None]:
        return scorers.prepare(self.loaded, sampler, wanted)

    def score(self, items: list[Encoded], options: Mapping[str, Any]) -> tuple[list[Scored], dict[str, Any]]:
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
            whole_name = absolute(name)

            def submit(worker: Worker, task: Task) -> Future:
                return getattr(worker, task[0]).remote(*task[1:]).future()

            def share(tasks: Iterable[tuple[int, Task]]) -> Iterator[tuple[int, Any]]:
                dead = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError)
                try:
                    yield from distribute(tasks, team, lambda: actor.remote(whole_name, options), submit, dead)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None  # as it was raised in the worker

            dismiss()
            team[:] = [actor.remote(whole_name, options) for _ in range(seats)]
            whole = Team(share)
            return replace(whole.ask("about"), name=name, model=whole)

        yield load
        dismiss()
    finally:
        if ours:
            ray.shutdown()
