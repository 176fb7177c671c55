"""Faults of disks and of neighbours: a clear error, nothing lost, and the same line goes on when they are over."""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from growth import growth

from analyzer.cli import main as cli
from analyzer.errors import DumpError, ResourceError
from analyzer.runs import disk
from analyzer.runs.rows import ADDED_SCORES, SCORES, TRACES
from analyzer.runs.store import Run
from analyzer.scoring import load as scorers
from analyzer.scoring import names
from analyzer.scoring import parts as scoring


def write_dump(path: Path, n: int = 12, **changed) -> Path:
    rows = [
        {"problem": f"p{i % 3}", "sample": i // 3, "prompt": f"One day {i % 3}", "response": f" ran home {i}."}
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(r | changed) + "\n" for r in rows))
    return path


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, stories):
    """A folder with a dump and an undisturbed run of it, whole; the model is loaded and probed once for all tests."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "UNIT_TRACES", 4)
        model = scorers.load(str(stories))
        patch.setattr(scorers, "load", lambda name, **options: model)
        patch.setattr(scorers, "choose_path", cache(scorers.choose_path))
        dump = write_dump(folder / "base.jsonl")
        assert cli.main(["score", str(dump), "--base", str(stories), "-o", str(folder / "whole")]) == 0
        yield folder


@pytest.fixture()
def line(world, tmp_path, stories, capsys):
    """Run `analyzer score` into tmp_path/run: (exit code, the error)."""

    def run() -> tuple[int, str]:
        dump, out = str(world / "base.jsonl"), str(tmp_path / "run")
        code = cli.main(["score", dump, "--base", str(stories), "-o", out])
        said = capsys.readouterr().err.partition("analyzer: ")[2]
        assert bool(said) == bool(code) and len(said.splitlines()) <= 3
        return code, said

    return run


@pytest.fixture()
def whole(world):
    """What an undisturbed run holds."""
    return contents(world / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("name", ["run.json", "traces/part-00000.parquet", "score"])
def test_a_full_disk_is_said_and_loses_nothing(tmp_path, line, whole, name):
    """The temporary file leads to /dev/full, where every write fails as on a full disk."""
    if name == "score":
        name = next(n for n in whole if n.startswith("scores/base/part-00001"))
    target = tmp_path / "run" / name
    full = target.with_name(f".{target.name}.tmp")
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    code, said = line()
    assert code == 4 and f"{target} can't be written: No space left on device" in said and "same line again" in said
    for path in (tmp_path / "run").rglob("part-*.parquet"):
        assert path.read_bytes() == whole[str(path.relative_to(tmp_path / "run"))]
    assert line()[0] == 0 and contents(tmp_path / "run") == whole


def test_a_limit_on_file_size_is_said(tmp_path, line, whole):
    """Another way for a disk to be full: the system refuses the bytes beyond a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        code, said = line()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 4 and "can't be written: File too large" in said
    assert line()[0] == 0 and contents(tmp_path / "run") == whole


@pytest.fixture()
def nobody():
    """A folder that this process may read but not write: for root, as another user."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        yield path
        os.seteuid(os.getuid())
        path.chmod(0o755)


def test_a_folder_that_must_not_be_written_is_said(nobody):
    run = Run.create(nobody / "run")
    for path in (nobody, *nobody.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(ResourceError, match="run folder .*/new can't be written: Permission denied"):
        Run.create(nobody / "new")
    with pytest.raises(ResourceError, match="can't be written: Permission denied"), Run.open(run.path).writing():
        pass
    assert Run.open(run.path).manifest["inputs"] == []  # reading is all right
    os.seteuid(os.getuid())
    for path in (nobody, *nobody.rglob("*")):
        path.chmod(0o755)


def test_a_second_writer_is_refused_until_the_first_is_gone(world, tmp_path, line):
    shutil.copytree(world / "whole", tmp_path / "run")
    before = contents(tmp_path / "run")
    hold = (
        "import sys, time; from pathlib import Path; from analyzer.runs.disk import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    code, said = line()
    assert code == 4 and f"is being written by process {other.pid} on " in said and "--shard" in said
    assert contents(tmp_path / "run") == before
    other.send_signal(signal.SIGKILL)  # the lock must not outlive it
    other.wait()
    assert line()[0] == 0 and contents(tmp_path / "run") == before


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "ENOTSUP"])
def test_a_file_system_without_locks_is_said_and_written_to(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl")

    def refused(*about):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.warns(UserWarning, match=r"is on a file system without locks .*: see to it that no other process"):
        run = Run.create(tmp_path / "run")
    assert Run.open(run.path).manifest["inputs"] == []
    monkeypatch.setattr(fcntl, "flock", lambda *about: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
    with pytest.raises(ResourceError, match="run can't be written: broken disk"), run.writing():
        pass


def test_a_lock_is_gone_after_its_block_and_its_folder_is_not_made(tmp_path):
    with disk.sole_writer(tmp_path, "out.jsonl"):
        assert [p.name for p in tmp_path.iterdir()] == [".out.jsonl.lock"]
        for _ in range(2):  # who was refused leaves the holder's name
            with pytest.raises(ResourceError, match=rf"being written by process {os.getpid()} on "):
                disk.sole_writer(tmp_path, "out.jsonl").__enter__()
    assert not [*tmp_path.iterdir()]
    (tmp_path / ".out.jsonl.lock").write_text("process 1 on elsewhere")  # of a holder that was killed
    with disk.sole_writer(tmp_path, "out.jsonl"):
        pass
    with pytest.raises(ResourceError, match="no can't be written: No such file"):
        disk.sole_writer(tmp_path / "no", "x").__enter__()
    assert not [*tmp_path.iterdir()]


VANISHES = {
    "gone": lambda dump: dump.unlink(),
    "cut": lambda dump: dump.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2]),
    "empty": lambda dump: dump.write_bytes(b""),
    "folder": lambda dump: (dump.unlink(), dump.mkdir()),
    "grown": lambda dump: dump.write_bytes(dump.read_bytes() * 2),
}
ENDED = {"act": None, "path": "", "at": 0, "seen": 0}  # what the hook, which can't be taken away, does and to what


def _audit(event, arguments):
    if ENDED["act"] and event == "open" and str(arguments[0]) == ENDED["path"]:
        ENDED["seen"] += 1
        if ENDED["seen"] == ENDED["at"] + 1:
            act, ENDED["act"] = ENDED["act"], None
            act(Path(ENDED["path"]))
            ENDED["act"] = lambda dump: None


sys.addaudithook(_audit)


@pytest.mark.parametrize("how", VANISHES)
@pytest.mark.parametrize("command, name", [("convert", "in.jsonl"), ("check", "in.jsonl.gz"), ("report", "in.json")])
def test_an_input_that_goes_or_changes_while_it_is_read_is_named_as_the_input(
    tmp_path, monkeypatch, capsys, command, name, how
):
    """At any opening of it: exit code 3 and its name, never the output that could not be made of it, nor numbers of a
    part of it."""
    monkeypatch.setattr("analyzer.analysis.questions.ANALYSES", {})
    text = write_dump(tmp_path / "rows", 2000).read_bytes()
    (tmp_path / "rows").unlink()
    if name.endswith(".json"):
        text = b"[" + b",".join(text.splitlines()) + b"]"
    dump, out, at = tmp_path / name, tmp_path / "out.jsonl", 0
    line = [command, str(dump), *([] if command == "check" else ["-o", str(out)])]
    while True:
        shutil.rmtree(dump) if dump.is_dir() else None
        dump.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        ENDED.update(act=VANISHES[how], path=str(dump), at=at, seen=0)
        code, said = cli.main([*line, *(["--no-robustness"] * (command == "report"))]), capsys.readouterr().err
        ENDED["act"] = None
        if ENDED["seen"] <= at:
            break
        if at or how in ("gone", "empty", "folder"):  # at first it is what it is
            assert code == 3 and str(dump) in said and "can't be written" not in said, (at, said)
            assert not out.exists(), at
        elif out.exists():
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        at += 1
    assert code == 0 and at >= 4


@pytest.mark.parametrize("lost", ["traces", "scores/base", "run.json"])
def test_a_run_that_goes_while_it_is_read_is_no_empty_run(world, tmp_path, lost):
    run = Run.open(shutil.copytree(world / "whole", tmp_path / "run"))
    run.verify()
    path = tmp_path / "run" / lost
    path.unlink() if lost == "run.json" else shutil.rmtree(path)
    if lost == "run.json":
        with pytest.raises(DumpError, match="is not a run: it has no run.json"):
            Run.open(run.path)
    elif lost == "traces":
        for read in (run.trace_table, lambda: list(run.traces()), lambda: list(run.trace_batches(["key"]))):
            with pytest.raises(DumpError, match=r"traces/part-00000.parquet is not there, 12 rows"):
                read()
    else:
        reads = (lambda: list(run.tokens("base", ["token"])), lambda: list(run.score_batches("base", ["token"])))
        for read in (*reads, lambda: run.prompts("base")):
            with pytest.raises(DumpError, match=r"scores/base/part-.*parquet is not there, \d+ rows"):
                read()


def test_traces_lost_with_their_folder_come_back(world, tmp_path, line, whole):
    shutil.copytree(world / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "traces")
    assert line() == (0, "") and contents(tmp_path / "run") == whole


def test_two_conversions_to_one_file_do_not_mix(tmp_path, world):
    out = tmp_path / "out.jsonl"
    with disk.sole_writer(tmp_path, "out.jsonl"):
        assert cli.main(["convert", str(world / "base.jsonl"), "-o", str(out)]) == 4
    assert not out.exists() and cli.main(["convert", str(world / "base.jsonl"), "-o", str(out)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("folder, stem", [("traces", "part"), ("scores/base", "part"), ("scores/base", "prompts")])
@pytest.mark.parametrize("how", ["cut", "empty", "noise"])
def test_a_damaged_part_is_named_and_can_be_made_anew(world, tmp_path, line, whole, folder, stem, how):
    shutil.copytree(world / "whole", tmp_path / "run")
    part = sorted((tmp_path / "run" / folder).glob(f"{stem}-*"))[-1]
    data = part.read_bytes()
    part.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": b"PAR1" + bytes(200) + b"PAR1"}[how])
    with pytest.raises(DumpError, match=rf"{part.name} is damaged .*; all else is intact: move it "):
        run = Run.open(tmp_path / "run")
        list(run.traces()), run.done("base"), run.prompts("base")
    if stem != "prompts":  # of these scoring reads none
        code, said = line()
        assert code == 3 and str(part) in said
    part.unlink()
    part.with_name(part.name.replace("prompts", "part")).unlink(missing_ok=True)
    assert line()[0] == 0 and contents(tmp_path / "run") == whole


def test_a_part_of_another_schema_is_named(tmp_path):
    schema = pa.schema([f if f.name != "rank" else pa.field("rank", pa.int64()) for f in SCORES if f.name != "entropy"])
    pq.write_table(schema.empty_table(), tmp_path / "part-00000.parquet")
    said = r"not written by this version: column rank is int64, expected list.*int32.*, column entropy is missing"
    with pytest.raises(DumpError, match=said):
        disk.read_part(tmp_path / "part-00000.parquet", SCORES)
    assert disk.read_part(tmp_path / "part-00000.parquet", SCORES, ["source"]).num_rows == 0
    with pytest.raises(DumpError, match="column key is missing"):
        list(disk.part_batches(tmp_path / "part-00000.parquet", TRACES))


def test_columns_that_an_older_version_did_not_write_are_null(tmp_path):
    part, new = tmp_path / "part-00000.parquet", ("power_5", "logprob_source")
    old = pa.schema([f for f in SCORES if f.name not in ADDED_SCORES])
    values = {f.name: pa.array([None] * 3, f.type) for f in old} | {"source": pa.array(["a", "b", "c"])}
    pq.write_table(pa.table(values, schema=old), part)
    names = ["power_5", "source", "logprob_source"]
    whole = disk.read_part(part, SCORES, names, added=ADDED_SCORES)
    batches = list(disk.part_batches(part, SCORES, names, 2, added=ADDED_SCORES))
    for rows in (whole, pa.Table.from_batches(batches)):
        assert rows.schema.names == names and rows["source"].to_pylist() == ["a", "b", "c"]
        assert all(rows[n].null_count == 3 and rows[n].type == SCORES.field(n).type for n in new)
    assert disk.read_part(part, SCORES, ["power_5"], added=ADDED_SCORES).num_rows == 3
    with pytest.raises(DumpError, match="column power_5 is missing"):
        disk.read_part(part, SCORES, names)


@pytest.mark.parametrize("change", ["content", "rows", "growth"])
def test_a_dump_that_changed_under_its_name_is_told(world, tmp_path, line, whole, change, request):
    shutil.copytree(world / "whole", tmp_path / "run")
    dump = world / "base.jsonl"
    request.addfinalizer(lambda: write_dump(dump))
    if change == "content":
        dump.write_text(dump.read_text().replace("ran home 7.", "ran home 8."))
        want = r"base.jsonl:8: trace base/\w+/2 is already in run .*\(response\): the file has changed since; restore"
    elif change == "rows":
        write_dump(dump, 9)
        want = r"has changed since run .* was made \(sha256 .*\): 3 of the 12 rows used then are gone"
    else:
        write_dump(dump, 15)
        assert line()[0] == 0 and len(Run.open(tmp_path / "run").done("base")) == 15
        return
    code, said = line()
    assert code == 3, said
    assert re.search(want, said), said
    assert contents(tmp_path / "run") == whole


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 1, "inputs": {}, "scorers": {}}', None]
)
def test_a_damaged_manifest_is_refused_and_the_parts_stay(world, tmp_path, line, whole, text):
    shutil.copytree(world / "whole", tmp_path / "run")
    manifest = tmp_path / "run" / "run.json"
    manifest.unlink() if text is None else manifest.write_text(text)
    before = contents(tmp_path / "run")
    code, said = line()
    assert code == 3 and "run.json" in said and "the Parquet parts are untouched" in said
    assert contents(tmp_path / "run") == before


def test_rejected_rows_cut_in_two_by_a_crash_cannot_happen(tmp_path):
    """The file is replaced as a whole: what was there before a failed write is there after it."""
    run = Run.create(tmp_path / "run")
    run.reject([{"file": "d", "line": 1, "reason": "no response", "row": {}}])
    before = (tmp_path / "run" / "rejected.jsonl").read_bytes()
    (tmp_path / "run" / ".rejected.jsonl.tmp").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="rejected.jsonl can't be written"):
        run.reject([{"file": "d", "line": 2, "reason": "no response", "row": {}}])
    assert (tmp_path / "run" / "rejected.jsonl").read_bytes() == before


def test_reading_what_is_scored_stays_linear_in_the_parts(tmp_path):
    """Four times the parts take about four times the time, not sixteen times."""
    from analyzer.records import Trace

    made = itertools.count()

    def write(parts: int) -> None:
        run = Run.create(tmp_path / str(next(made)))
        for n in range(parts):
            run.append_scores("base", [(Trace("s", "p", n, ""), (1, n), "empty response")], part=f"{n:05d}")

    assert growth(write, 20, 80) < 8


def test_reading_ahead_gives_the_same_items_and_the_same_error():
    def items(n):
        yield from range(n)
        raise ValueError("damaged")

    read = disk.ahead(items(3))
    assert [next(read) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(read)
    assert list(disk.ahead(iter([]))) == [] and list(disk.ahead(iter([None, 1]))) == [None, 1]
    made = []
    abandoned = disk.ahead(made.append(i) or i for i in range(100))
    assert next(abandoned) == 0
    abandoned.close()
    assert made == [0, 1]  # one ahead, no more


def test_what_one_system_alone_has_is_asked_for_where_it_is_needed():
    """As on Windows: without these modules every command is there, and what can't be measured is refused in words."""
    code = (
        "import sys\nfor name in ('resource', 'fcntl', 'pwd', 'termios'): sys.modules[name] = None\n"
        "from analyzer.api import making; from analyzer.cli import main; from analyzer.dumps import grading\n"
        "from analyzer.scoring import estimate\n"
        "try: estimate._peak()\nexcept estimate.ResourceError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "does not tell memory" in done.stdout, done.stderr


def test_names_of_files_are_told_from_those_of_the_hub():
    files = ("./a", "/a", "~/a", "a/b/c", r"C:\a", r"a\b")
    assert all(map(names.is_path, files)) and not any(map(names.is_path, ("gpt2", "org/name", "org/name@main")))
