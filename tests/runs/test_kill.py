"""kill -9 at random moments and at every write: the same line again ends in the uninterrupted run, byte for byte.

KILLS=50 (`make test-kill`): so many random moments, and every write. Without it a few of both. Children are forked from
one process that has loaded and probed the model, so that a kill costs half a second and not ten.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from functools import cache
from pathlib import Path

KILLS = int(os.environ.get("KILLS", "0"))
ENDS = [" was happy.", " saw a big red ball in the park.", " ran home to mom and they had fun.", " zq 17 x!"]


def write_dumps(folder: Path) -> list[str]:
    """Two sources with shared prompts; rows that are rejected, too long and empty."""
    for source in ("base", "rlvr"):
        rows = [
            {"problem": f"p{p}", "sample": s, "prompt": start, "response": ENDS[(s + p) % 4] * (1 + s % 5) + str(s)}
            for p, start in enumerate(["Once upon a time", "One day", "Lily and Tom", "The dog"])
            for s in range(25)
        ]
        rows[7]["response"] = ""
        rows[8]["response"] = "word and " * 600
        lines = [*map(json.dumps, rows), '{"no": "response"}']
        (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n")
    return [str(folder / f"{source}.jsonl") for source in ("base", "rlvr")]


def files(run: Path) -> dict[str, bytes]:
    """Every file of a run but the lock."""
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_killed_run_continues_to_the_same_bytes(tmp_path, stories):
    moments, writes = KILLS or 3, "all" if KILLS else "3"
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(stories), str(moments), writes],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) >= moments + (50 if KILLS else 3)
    assert [r for r in rows if r["differs"]] == []
    within = [r for r in rows if 0 < r["parts"] < rows[0]["of"]]
    assert len(within) >= len(rows) // 4, "too few of the kills fell into scoring to say anything"


# what follows runs in a process of its own


def main(folder: Path, model: str, moments: int, writes: str) -> None:
    import torch

    from analyzer.cli import main as cli
    from analyzer.scoring import load as scorers
    from analyzer.scoring import parts as scoring

    torch.set_num_threads(1)
    scoring.UNIT_TRACES = 20
    loaded = scorers.load(model)
    scorers.load, scorers.choose_path = lambda name, **options: loaded, cache(scorers.choose_path)
    scorers.choose_path(loaded, None, "local")
    dumps = write_dumps(folder)

    def child(run: Path, die_at: int | None = None) -> int:
        """Fork a process that scores into `run`, and dies by itself at its n-th step of a write."""
        pid = os.fork()
        if pid:
            return pid
        for name in (1, 2):
            os.dup2(os.open(folder / f"log{name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), name)
        left = _die_at(10**9 if die_at is None else die_at)
        line = [
            "score",
            *dumps,
            "--base",
            model,
            "--cross",
            f"again={model}",
            "--sampler",
            "rlvr=0.6,0.95",
            "--policy",
            f"rlvr={model}",
            "--on-overlong",
            "skip",
            "--max-bad",
            ".1",
        ]
        code = 99
        try:
            code = cli.main([*line, "-o", str(run)])
            (folder / "steps").write_text(str(10**9 - left[0]))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def finish(run: Path) -> None:
        _, status = os.waitpid(child(run), 0)
        if status:
            raise SystemExit((folder / "log2").read_text()[-3000:])

    since = time.monotonic()
    finish(folder / "whole")
    took, steps = time.monotonic() - since, int((folder / "steps").read_text())
    want = files(folder / "whole")
    of = sum("/part-" in name and name.startswith("scores") for name in want)

    def tell(run: Path, what: str) -> None:
        parts = len(list(run.glob("scores/*/part-*")))
        finish(run)
        have = files(run)
        differs = sorted(n for n in want.keys() | have.keys() if want.get(n) != have.get(n))
        sys.stdout.write(json.dumps({"kill": what, "parts": parts, "of": of, "differs": differs}) + "\n")
        sys.stdout.flush()

    rng = random.Random(0)
    for n in range(moments):  # one in each stretch of the time that a run takes
        run = folder / f"moment-{n}"
        for again in range(1 + n % 2):  # every second run is killed twice
            pid = child(run)
            time.sleep(took * (n + rng.random()) / moments / (1 + again))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        tell(run, f"moment {n}")

    # of a few, one falls between the last part and the end, where only run.json is left to write
    chosen = range(steps) if writes == "all" else [steps - 5, *rng.sample(range(steps), int(writes) - 1)]
    for n in chosen:
        run = folder / f"write-{n}"
        _, status = os.waitpid(child(run, n), 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"step {n} of {steps} was not reached: {(folder / 'log2').read_text()[-3000:]}")
        tell(run, f"step {n} of the writes")


def _die_at(n: int) -> list[int]:
    """SIGKILL for this process at its n-th flush (the file is cut in half) or rename; returns the steps still left."""
    left, fsync, replace = [n], os.fsync, Path.replace

    def step() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def cut(file: int) -> None:
        if left[0] == 0:
            os.ftruncate(file, os.fstat(file).st_size // 2)
        step()
        fsync(file)

    def rename(path: Path, target: Path) -> Path:
        step()
        return replace(path, target)

    os.fsync, Path.replace = cut, rename
    return left


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
