"""Folders of results: nothing of anyone else's is touched, and a kill at any step leaves the old or the new."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from analyzer.api import inputs as studies
from analyzer.cli import main as cli
from analyzer.errors import DumpError, ResourceError, UsageError
from analyzer.runs import outputs
from analyzer.runs.store import Run

OLD = {"results.json": "1", "index.html": "1", "report.md": "1", "figures/a.svg": "1", "figures/old.svg": "1"}
NEW = {"results.json": "2", "index.html": "2", "report.md": "2", "figures/a.svg": "2", "tables/b.csv": "2"}
THEIRS = {"notes.txt": "mine", "figures/mine/x.svg": "mine", "run/run.json": "{}", "run/traces/part-0": "mine"}


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def held(folder: Path) -> dict[str, str]:
    """What lies there, without hidden files and the marker."""
    found = (p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in found}
    return {
        n: p.read_text() for n, p in names.items() if not n.startswith(".") and n not in ("run/.lock", outputs.MARKER)
    }


def put(folder: Path, files: dict[str, str], **how) -> None:
    with outputs.replaced(folder, **how) as new:
        fill(new, files)


@pytest.fixture()
def world(tmp_path):
    """A folder with a report, and what others put there."""
    put(tmp_path / "out", OLD)
    fill(tmp_path / "out", THEIRS)
    return tmp_path / "out"


def write_dump(path: Path, source: str = "base") -> Path:
    rows = [{"source": source, "problem": f"p{i}", "prompt": "One", "response": f" day {i}"} for i in range(4)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture()
def report(monkeypatch, capsys):
    """Run `analyzer report` without its analyses: (exit code, the error)."""
    monkeypatch.setattr("analyzer.analysis.questions.ANALYSES", {})

    def run(*words) -> tuple[int, str]:
        code = cli.main(["report", *map(str, words), "--no-robustness"])
        return code, capsys.readouterr().err.partition("analyzer: ")[2]

    return run


# --- whose folder it is ------------------------------------------------------------------------------------------


def test_only_our_files_are_replaced_or_removed(world):
    put(world, NEW)
    assert held(world) == NEW | THEIRS
    assert json.loads((world / outputs.MARKER).read_text())["files"] == sorted({*NEW, outputs.MARKER})
    assert not [p for p in (*world.iterdir(), *world.parent.iterdir()) if p.name.startswith(".")]


@pytest.mark.parametrize("where", ["shell inside", "no exchange", "many folders"])
def test_the_same_without_an_exchange_of_folders(world, monkeypatch, where):
    if where == "shell inside":
        monkeypatch.chdir(world)
    if where == "no exchange":
        monkeypatch.setattr(outputs, "_exchange", lambda one, other: (_ for _ in ()).throw(OSError("not here")))
    before = world.stat().st_ino
    put(Path(".") if where == "shell inside" else world, NEW, at_once=where != "many folders")
    assert (
        held(world) == NEW | THEIRS
        and world.stat().st_ino == before
        and outputs.listed(world) == {*NEW, outputs.MARKER}
    )
    assert not [p for p in (*world.iterdir(), *world.parent.iterdir()) if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["results.json", "index.html", "report.md", "data/t0.js", "notes.txt"])
def test_a_folder_of_someone_else_is_refused(tmp_path, name):
    fill(tmp_path / "out", {name: '{"results": []}'})
    said = f"out is not empty and not a report of this program .it holds {name.split('/')[0]}.*a new or an empty folder"
    with pytest.raises(UsageError, match=said):
        put(tmp_path / "out", NEW)
    assert held(tmp_path / "out") == {name: '{"results": []}'} and [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_a_file_that_came_into_our_folder_is_not_written_over(world):
    fill(world, {"tables/b.csv": "mine"})
    with pytest.raises(UsageError, match=r"tables/b.csv is in the way, it is not a file of the report before; move it"):
        put(world, NEW)
    assert held(world) == OLD | THEIRS | {"tables/b.csv": "mine"}
    (world / "tables" / "b.csv").unlink()
    (world / "tables").rmdir()
    (world.parent / "elsewhere").mkdir()
    (world / "tables").symlink_to(world.parent / "elsewhere")  # nothing is written through it
    with pytest.raises(UsageError, match="tables is in the way"):
        put(world, NEW)


def test_a_run_alone_and_hidden_files_are_in_nobodys_way(tmp_path):
    fill(tmp_path / "out", {"run/run.json": "{}", ".DS_Store": "x"})
    put(tmp_path / "out", NEW)
    assert held(tmp_path / "out") == NEW | {"run/run.json": "{}"} and (tmp_path / "out" / ".DS_Store").exists()


@pytest.mark.parametrize("names", [["../x"], ["/etc/passwd"], [1], 7])
def test_a_marker_that_is_not_ours_removes_nothing(world, names):
    (world / outputs.MARKER).write_text(json.dumps({"schema": 1, "files": names}))
    with pytest.raises(UsageError, match="is damaged, it does not list the files of a report"):
        put(world, NEW)
    assert held(world) == OLD | THEIRS


def test_a_report_of_an_earlier_version_is_known_by_its_pages(tmp_path, report):
    dump = write_dump(tmp_path / "base.jsonl")
    out = tmp_path / "out"
    assert report(dump, "-o", out)[0] == 0
    (out / outputs.MARKER).unlink()
    fill(out, {"figures/mine.svg": "mine", "tables/mine.csv": "mine", "data/t0.js": "mine", "notes": "mine"})
    ours = outputs.listed(out)
    assert ours == {"results.json", "index.html", "report.md", "tables/key.tex"}
    assert report(dump, "-o", out)[0] == 0 and outputs.listed(out) == ours | {outputs.MARKER}
    assert all((out / name).read_text() == "mine" for name in ("figures/mine.svg", "tables/mine.csv", "data/t0.js"))


def test_the_committed_report_can_be_made_again(root):
    """Every file of it is known as ours: by its marker, or without one by its pages."""
    folder = root / "reports" / "miniature"
    have = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    have = {name for name in have if not name.startswith("run/")}
    assert outputs.listed(folder) | {outputs.MARKER} == have | {outputs.MARKER}
    assert outputs._unmarked(folder) | {outputs.MARKER} == have | {outputs.MARKER}


# --- the command line ---------------------------------------------------------------------------------------------


def test_a_dump_called_like_a_page_is_not_written_over(tmp_path, report):
    dump = write_dump(tmp_path / "mine" / "results.json")
    before = dump.read_bytes()
    code, said = report(dump, "-o", dump.parent)
    assert code == 2 and "would write over" in said and "which is an input; choose another folder" in said
    assert [*dump.parent.iterdir()] == [dump] and dump.read_bytes() == before
    other = write_dump(tmp_path / "other.jsonl")
    code, said = report(other, "-o", dump.parent)
    assert code == 2 and "is not empty and not a report" in said and [*dump.parent.iterdir()] == [dump]
    assert report(other, "-o", tmp_path / "out")[0] == 0
    inside = write_dump(tmp_path / "out" / "tables" / "x.jsonl")
    code, said = report(inside, "-o", tmp_path / "out")
    assert code == 2 and "would write over" in said


def test_a_run_takes_no_folder_of_someone_else(tmp_path):
    fill(tmp_path / "mine", {"rejected.jsonl": "mine", "traces/mine.csv": "mine"})
    with pytest.raises(UsageError, match="mine/rejected.jsonl is there, but no run is; a run would write over it"):
        Run.create(tmp_path / "mine")
    (tmp_path / "mine" / "rejected.jsonl").rename(tmp_path / "mine" / "notes")
    with pytest.raises(UsageError, match="mine/traces/mine.csv is there, but no run is"):
        Run.create(tmp_path / "mine")
    (tmp_path / "mine" / "notes").rename(tmp_path / "mine" / "rejected.jsonl")
    assert held(tmp_path / "mine") == {"rejected.jsonl": "mine", "traces/mine.csv": "mine"}


def test_a_batch_replaces_its_index_alone(tmp_path, report):
    for name in ("one", "two"):
        write_dump(tmp_path / "dumps" / name / "base.jsonl")
    fill(tmp_path / "full", {"index.html": "mine"})
    line = [tmp_path / "dumps" / "one", tmp_path / "dumps" / "two", "-o"]
    code, said = report(*line, tmp_path / "full")
    assert code == 2 and "not a report of this program (it holds index.html)" in said
    for _ in range(2):
        assert report(*line, tmp_path / "all")[0] == 0
        fill(tmp_path / "all", {"notes.txt": "mine"})
    assert {p.name for p in (tmp_path / "all").iterdir()} == {
        "one", "two", "notes.txt", "index.html", "index.json", outputs.MARKER,
    }  # fmt: skip
    (tmp_path / "all" / outputs.MARKER).unlink()  # an earlier version had none
    assert report(*line, tmp_path / "all")[0] == 0


# --- kills --------------------------------------------------------------------------------------------------------

STEPS = ("fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


@pytest.fixture()
def fast(monkeypatch):
    """No waiting for the disk: a kill is no power cut."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def killed(act: Callable[[], None], at: int) -> bool:
    """Do it in a process that dies at its n-th step of the file system; whether there are so many."""
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    left = [at]

    def counting(step):
        def call(*args, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return step(*args, **options)

        return call

    try:
        for name in STEPS:
            setattr(os, name, counting(getattr(os, name)))
        outputs._exchange = counting(outputs._exchange)
        act()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


@pytest.mark.parametrize("unmarked", [False, True])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path, fast, monkeypatch, unmarked):
    seen, at = [], 0
    while True:
        out = tmp_path / str(at) / "out"
        put(out, OLD)
        fill(out, THEIRS)
        if unmarked:
            monkeypatch.setattr(
                outputs, "_unmarked", lambda folder: {*OLD} if (folder / "results.json").exists() else None
            )
            (out / outputs.MARKER).unlink()
        died = killed(lambda out=out: put(out, NEW), at)
        ours = {n: t for n, t in held(out).items() if n in OLD | NEW}
        assert ours in (OLD, NEW), (at, ours)
        seen.append(ours == NEW)
        put(out, NEW)
        assert held(out) == NEW | THEIRS, at  # nothing of anyone's is lost
        assert not [p for p in (*out.iterdir(), *out.parent.iterdir()) if p.name.startswith(".")], at
        if not died:
            break
        at += 1
    assert at > 20 and seen == sorted(seen) and not seen[0] and seen[-1]
    assert sum(seen) > 5, "the kills after the exchange say something"


def test_a_run_that_a_killed_report_had_moved_is_found_again_before_another_is_begun(tmp_path, fast, report):
    dump, at, hidden = write_dump(tmp_path / "base.jsonl"), 0, 0
    while True:
        out = tmp_path / str(at) / "out"
        put(out, OLD)
        run = Run.create(out / "run")
        fill(run.path, {"traces/mine": "mine"})
        died = killed(lambda out=out: put(out, NEW), at)
        hidden += not run.path.exists()
        found = studies.opened(out) if at % 2 else studies.run_of(str(out / "run"))
        assert found.path == run.path and (run.path / "traces/mine").exists(), at
        if not died:
            break
        at += 1
    assert hidden
    out = tmp_path / "whole" / "out"
    assert report(dump, "-o", out)[0] == 0
    began = (out / "run" / "run.json").read_bytes()
    (out.parent / ".out.1.new").mkdir()  # killed between the exchange and what comes back after it
    (out / "run").rename(out.parent / ".out.1.new" / "run")
    fill(out.parent / ".out.1.new", {outputs.LOCK: "", outputs.MARKER: (out / outputs.MARKER).read_text()})
    assert report(dump, "-o", out) == (0, "") and (out / "run" / "run.json").read_bytes() == began
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_file_by_file_a_kill_never_leaves_pages_of_both(tmp_path, fast):
    at = 0
    while True:
        out = tmp_path / str(at) / "out"
        put(out, OLD)
        fill(out, THEIRS)
        died = killed(lambda out=out: put(out, NEW, at_once=False), at)
        pages = {n: t for n, t in held(out).items() if n in outputs.PAGES}
        assert pages.items() <= OLD.items() or pages.items() <= NEW.items(), at
        if "results.json" in pages:  # where it stands all is of one
            ours = {n: t for n, t in held(out).items() if n in OLD | NEW}
            assert ours.items() <= (OLD | {"tables/b.csv": "2"}).items() or NEW.items() <= ours.items(), at
        assert THEIRS.items() <= held(out).items()
        put(out, NEW, at_once=False)
        assert held(out) == NEW | THEIRS, at
        if not died:
            break
        at += 1
    assert at > 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_leaves_the_old(world):
    said = r"/out can't be written: No space left on device.*same line again"
    with pytest.raises(ResourceError, match=said), outputs.replaced(world) as new:
        (new / "results.json").symlink_to("/dev/full")
        (new / "results.json").write_text("2")
    assert held(world) == OLD | THEIRS and [*world.parent.iterdir()] == [world]


@pytest.mark.skipif(os.name != "posix", reason="modes of folders")
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("closed", ["figures", "mine"])
def test_a_folder_inside_that_must_not_be_written(request, closed, at_once):
    """Of the report's own: refused before anything changes. Of someone else: it stays where it is."""
    above = tempfile.TemporaryDirectory()  # pytest's own folders are closed to other users
    request.addfinalizer(above.cleanup)
    world = Path(above.name) / "out"
    put(world, OLD)
    fill(world, THEIRS | {"mine/notes.txt": "mine"})
    (world / closed).chmod(0o555)
    request.addfinalizer(lambda: (world / closed).chmod(0o755))
    if os.getuid() == 0:
        for path in (world.parent, *world.parent.rglob("*")):
            os.chown(path, 65534, 65534)
        request.addfinalizer(lambda: os.seteuid(0))
        os.seteuid(65534)
    theirs = THEIRS | {"mine/notes.txt": "mine"}
    if closed == "mine":
        put(world, NEW, at_once=at_once)
        assert held(world) == NEW | theirs
    else:
        with pytest.raises(ResourceError, match="out/figures can't be written: Permission denied"):
            put(world, NEW, at_once=at_once)
        assert held(world) == OLD | theirs
    assert not [p for p in (*world.iterdir(), *world.parent.iterdir()) if p.name.startswith(".")]


def test_a_failure_leaves_nothing_new(tmp_path):
    with pytest.raises(DumpError), outputs.replaced(tmp_path / "a" / "out") as new:
        fill(new, NEW)
        raise DumpError("no")
    assert not [*tmp_path.iterdir()]


def test_a_second_report_into_a_folder_is_refused_until_the_first_is_gone(world):
    hold = (
        "import sys, time; from analyzer.runs import outputs\n"
        "with outputs.replaced(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, str(world)], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(ResourceError, match=rf"out is being written by process {other.pid} on .*use another -o"):
        put(world, NEW)
    assert held(world) == OLD | THEIRS
    other.send_signal(signal.SIGKILL)
    other.wait()
    put(world, NEW)
    assert held(world) == NEW | THEIRS


# --- a new run that comes to nothing --------------------------------------------------------------------------------


def test_a_refused_command_removes_what_it_made_alone(tmp_path):
    def fails(*others: Callable[[], object]) -> None:
        with pytest.raises(DumpError), studies.begun(tmp_path / "out" / "run") as run:
            with run.writing():
                run.settle(threshold=1.0)
            run.reject([{"reason": "x"}])
            for other in others:
                other()
            raise DumpError("no")

    fails()
    assert not [*tmp_path.iterdir()]
    fails(lambda: fill(tmp_path, {"out/notes.txt": "mine", "out/run/traces/mine": "mine"}))
    assert held(tmp_path) == {"out/notes.txt": "mine", "out/run/traces/mine": "mine"}


def test_a_run_that_another_process_went_on_with_stays(tmp_path):
    def goes_on() -> None:
        run = Run.open(tmp_path / "run")
        with run.writing():
            run.settle(threshold=0.5)

    with pytest.raises(DumpError), studies.begun(tmp_path / "run"):
        goes_on()
        raise DumpError("no")
    assert Run.open(tmp_path / "run").manifest["settings"] == {"threshold": 0.5}
    with pytest.raises(DumpError), studies.begun(tmp_path / "new") as run:
        with run.writing():
            pass
        other = Run.open(tmp_path / "new")
        with other.writing():
            other.settle(threshold=0.5)
        with run.writing():  # ours again, on top of theirs
            run.settle(grade=False)
        raise DumpError("no")
    assert Run.open(tmp_path / "new").manifest["settings"] == {"threshold": 0.5, "grade": False}


def test_of_calls_that_race_the_winners_run_stays(tmp_path, fast):
    """Each of six processes begins the run; one goes on with it, the others are refused."""
    for n in range(20):
        path, pids = tmp_path / str(n) / "run", []
        gate = os.pipe()
        for who in range(6):
            pid = os.fork()
            if pid:
                pids.append(pid)
                continue
            try:
                os.close(gate[1])
                os.read(gate[0], 1)
                with studies.begun(path) as run, run.writing():
                    if run.manifest.get("settings"):
                        raise DumpError("another was faster")
                    run.settle(winner=who)
            finally:
                os._exit(0)
        os.close(gate[1]), os.close(gate[0])
        for pid in pids:
            os.waitpid(pid, 0)
        assert "winner" in Run.open(path).manifest["settings"]


@pytest.mark.parametrize("to", ["nowhere", "self"])
def test_a_link_that_leads_nowhere_is_refused_as_that_and_stays(tmp_path, monkeypatch, capsys, to):
    monkeypatch.chdir(tmp_path)
    row = {"source": "base", "problem": "p", "sample": 0, "prompt": "1 + 1 =", "response": "2", "correct": True}
    Path("b.jsonl").write_text(json.dumps(row) + "\n")
    for name in ("self", "self.jsonl"):
        Path(name).symlink_to(name if to == "self" else "nowhere")
    model = str(Path(__file__).resolve().parents[2] / "data" / "miniature" / "models" / "base")
    for line in (
        ["report", "b.jsonl", "-o", "self"],
        ["report", "b.jsonl", "-o", "self/below"],
        ["score", "b.jsonl", "--base", model, "-o", "self"],
        ["convert", "b.jsonl", "-o", "self.jsonl"],
        ["sample", "b.jsonl", "--model", model, "-n", "1", "--max-tokens", "2", "-o", "self.jsonl"],
    ):
        assert cli.main(line) == 2, line
        said = capsys.readouterr().err
        assert "is a symbolic link that leads nowhere" in said, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.jsonl", "self", "self.jsonl"]
    assert Path("self").is_symlink() and Path("self.jsonl").is_symlink()
