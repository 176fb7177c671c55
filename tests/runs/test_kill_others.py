"""kill -9 and a full disk at steps of `sample`, of a batch of reports and of `score` taken up with other flags, and by
another version.

After each, the same line again, or one that may follow it, ends in the files of its own uninterrupted call, byte for
byte; any other line is refused and changes nothing. KILLS=15: so many steps of each, the last ones among them;
KILLS=50 (`make test-kill`): every step; without it some of them. Children are forked from one process that has loaded
the model, as in test_kill.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pyarrow.parquet as pq
import pytest

KILLS = int(os.environ.get("KILLS", "0"))
TRACES = 48  # of the world
LAST = 6  # of the steps of a call, one of which is always among those that are chosen
STEPS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
MODELS = Path(__file__).resolve().parents[2] / "data" / "miniature" / "models"


@pytest.mark.parametrize("what", ["sample", "batch", "score"])
def test_killed_or_without_room_the_same_line_ends_in_the_same_bytes(tmp_path, what):
    done = subprocess.run(
        [sys.executable, __file__, what, str(tmp_path), "all" if KILLS >= 50 else str(KILLS or 3)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(MODELS.parent.parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r for r in rows if r["wrong"]] == []
    assert len(rows) >= 6 and {r["how"] for r in rows} == {"kill", "full"}
    assert sum(r["begun"] for r in rows) >= len(rows) // 3, "too few fell into the work to say anything"
    assert what == "batch" or sum(r["refused"] for r in rows) >= len(rows) // 4, "other lines were hardly tried"


# what follows runs in a process of its own


def rows_of(source: str, problems: int = 4, samples: int = 6) -> str:
    made = (
        {"source": source, "problem": f"p{p}", "sample": s, "prompt": f"{p} + {s} =", "response": f" {p + s}" * (1 + s)}
        for p in range(problems)
        for s in range(samples)
    )
    return "".join(json.dumps(r | {"correct": r["sample"] % 2 == 0}) + "\n" for r in made)


BASE = str(MODELS / "base")
LINES = {
    "sample": ["sample", "q.jsonl", "--model", BASE, "-n", "3", "--batch", "6", "--max-tokens", "8", "--template"]
    + ["none", "-o", "out.jsonl.gz"],
    "batch": ["report", "dumps/one", "dumps/two", "-o", "all", "--no-robustness"],
    "score": ["score", "base.jsonl", "rlvr.jsonl", "--base", BASE, "-o", "run"],
}
ENCODING, COLUMNS, LIBRARIES = ["encoding"], ["columns"], ["libraries"]  # no words: what a version has otherwise
# each may follow the line of a call that was killed, and ends as if it had been the first
FOLLOWING = {
    "sample": [],
    "batch": [["--seed", "7"], ["--budget", "8"]],
    "score": [["--cross", f"x={BASE}"], LIBRARIES],
}
OTHERS = {  # each is another call, and says so: (words in place of others, words added)
    "sample": [({"3": "4"}, []), ({"8": "9"}, []), ({}, ["--seed", "7"]), ({}, ["--label", "x"])]
    + [({}, ["--temperature", "0.6"]), ({BASE: str(MODELS / "rlvr")}, []), ({"q.jsonl": "q2.jsonl"}, [])],
    "batch": [],
    "score": [
        ({}, ENCODING),
        ({}, COLUMNS),
        ({}, ["--score-at-most", "2"]),
        ({}, ["--dtype", "bfloat16"]),
        ({}, ["--on-overlong", "skip"]),
    ]
    + [({}, ["--eos", "1"]), ({}, ["--threshold", "0.5"]), ({BASE: str(MODELS / "rlvr")}, [])]
    + [({"base.jsonl": "base=changed.jsonl"}, []), ({}, ["--sampler", "base=0.5"]), ({}, ["--reference", "rlvr"])],
}


def main(what: str, folder: Path, steps: str) -> None:
    import torch

    from analyzer import records
    from analyzer.analysis import questions as analyses
    from analyzer.analysis.pairs import run as paired
    from analyzer.cli import main as cli
    from analyzer.scoring import changes
    from analyzer.scoring import load as scorers
    from analyzer.scoring import parts as scoring
    from analyzer.scoring.encoding import encode

    torch.set_num_threads(1)
    scoring.UNIT_TRACES = 8
    versions = {"encoding": (encode, "ENCODING", 99), "columns": (records, "COLUMNS", 99)}
    versions["libraries"] = (changes, "versions", lambda: {"torch": "0"})
    analyses.ANALYSES.clear()
    paired.run = none
    load = scorers.load
    known = {str(MODELS / name): load(str(MODELS / name)) for name in ("base", "rlvr")} if what != "batch" else {}
    scorers.load = lambda name, **options: load(name, **options) if options.get("dtype") != "auto" else known[name]
    if what == "score":
        path = scorers.choose_path(known[BASE], None, "local")
        scorers.choose_path = lambda *about: path

    def world(name: str) -> None:
        (folder / name).mkdir()
        os.chdir(folder / name)
        for source in ("base", "rlvr"):
            Path(f"{source}.jsonl").write_text(rows_of(source))
        Path("changed.jsonl").write_text(rows_of("base").replace(" 1", " 2"))
        Path("q.jsonl").write_text("".join(json.dumps({"question": f"{i} + 1 ="}) + "\n" for i in range(5)))
        Path("q2.jsonl").write_text("".join(json.dumps({"question": f"{i} + 2 ="}) + "\n" for i in range(5)))
        for study in ("one", "two"):
            Path("dumps", study).mkdir(parents=True)
            Path("dumps", study, "base.jsonl").write_text(rows_of("base") + rows_of("rlvr"))

    def call(line: list[str], at: int = 10**9, how: str = "kill") -> tuple[int, str]:
        """(exit code, what it said) of a line in a forked process; -9 where it died at its n-th step."""
        Path(folder, "said").write_text("")
        pid = os.fork()
        if not pid:
            code = 99
            try:
                for number in (1, 2):
                    os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_APPEND), number)
                if line[-1] in versions:
                    setattr(*versions[line.pop()])
                left = failing(at, how)
                try:
                    code = cli.main(line)
                except SystemExit as ended:  # a flag that does not exist
                    code = ended.code + 90
                Path(folder, "steps").write_text(str(at - left[0]))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        said = Path(folder, "said").read_text()
        return -9 if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status), said

    def held() -> dict[str, bytes]:
        """What the call made: every file that is no lock and no input."""
        found = (p for p in Path(".").rglob("*") if p.is_file() and p.parts[0] != "dumps" and p.name != ".lock")
        files = (p for p in found if not p.name.endswith(".tmp"))  # what was never whole is anyone's to write over
        given = {"base.jsonl", "rlvr.jsonl", "changed.jsonl", "q.jsonl", "q2.jsonl"}
        return {str(p): p.read_bytes() for p in files if str(p) not in given and not p.name.endswith(".lock")}

    line, wants = LINES[what], []
    for number, added in enumerate([*FOLLOWING[what], []]):
        world(f"whole-{number}")
        code, said = call(line + added)
        wants.append((added, held()))
        if code or not wants[-1][1]:
            raise SystemExit(said)
    count, rng = int(Path(folder, "steps").read_text()), random.Random(0)
    some = count if steps == "all" else min(count, int(steps))
    chosen = sorted({count - 1 - rng.randrange(LAST), *rng.sample(range(count), some if steps == "all" else some - 1)})
    for how in ("kill", "full"):
        for n in chosen:
            world(f"{how}-{n}")
            wrong = []
            code, said = call(line, n, how)
            if code == 99 or "Traceback" in said or (how == "kill") != (code == -9):
                wrong.append(f"exit code {code}: {said[-600:]}")
            if how == "full" and code not in (0, 4):  # a step that may fail, such as the removal of what is left over
                wrong.append(f"exit code {code}: {said[-600:]}")
            before = held()
            mine = any(name.endswith((".part", ".gz")) or "part-" in name for name in before)
            refused = 0
            others = OTHERS[what] if settled(what) else []
            if what == "score" and scored() == TRACES:  # nothing is left to do in another way
                others = [other for other in others if other[1] not in (ENCODING, COLUMNS)]
            for replaced, added in others if steps == "all" else rng.sample(others, min(3, len(others))):
                code, said = call([replaced.get(word, word) for word in line] + added)
                refused += code in (2, 3)
                if code not in (2, 3) or "Traceback" in said:
                    wrong.append(f"{replaced or added} was taken, exit code {code}: {said[-300:]}")
                elif held() != before:
                    wrong.append(f"{replaced or added} changed something")
            added, want = rng.choice(wants)
            code, said = call(line + added)
            if code:
                wrong.append(f"the line again, with {added}: exit code {code}: {said[-600:]}")
            have = held()
            if added == LIBRARIES:
                have, want = (without_versions(files) for files in (have, want))
            wrong += [f"{name} differs" for name in want.keys() | have.keys() if want.get(name) != have.get(name)]
            row = {"what": what, "how": how, "step": n, "begun": mine or what == "batch", "refused": refused}
            sys.stdout.write(json.dumps(row | {"wrong": wrong}) + "\n")
            sys.stdout.flush()


def without_versions(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files, run.json without what it tells of versions."""
    said = json.loads(files["run/run.json"])
    del said["check"], said["versions"]
    for scorer in said["scorers"].values():
        told = [made["versions"] for made in [*scorer.pop("earlier", ()), scorer]]
        assert told.pop() == {"torch": "0"} or not told, "what another version did would be said to be its own"
        del scorer["versions"]
    return files | {"run/run.json": json.dumps(said).encode()}


def none(*about, **more):
    """In place of an analysis: what is asked here is what reaches the disk."""
    from analyzer.errors import UsageError

    raise UsageError("left out")


def settled(what: str) -> bool:
    """Whether enough is on disk for another line to be another call."""
    if what == "sample":
        part = Path(".out.jsonl.gz.part")
        return Path("out.jsonl.gz").exists() or (part.exists() and part.read_bytes().count(b"\n") > 0)
    return any(Path("run").glob("scores/base/part-*"))


def scored() -> int:
    """Rows of scores on disk."""
    return sum(pq.read_metadata(part).num_rows for part in Path("run").glob("scores/base/part-*"))


def failing(at: int, how: str) -> list[int]:
    """From now on the n-th step of the file system kills this process (a file that is flushed is cut in half before),
    or finds the disk full; returns the steps still left."""
    left = [at]

    def counting(name: str):
        step = getattr(os, name)

        def call(*args, **options):
            left[0] -= 1
            if left[0] == -1 and how == "kill":
                if name == "fsync" and os.fstat(args[0]).st_size:
                    with contextlib.suppress(OSError):  # open for reading
                        os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            if left[0] == -1 and name not in ("unlink", "rmdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return step(*args, **options)

        return call

    for name in STEPS:
        setattr(os, name, counting(name))
    return left


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
