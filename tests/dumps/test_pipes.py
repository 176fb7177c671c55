"""What is no file on disk: pipes are read as a stream, once; devices, sockets and endless streams are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer.dumps import files
from analyzer.dumps import read as dumps
from analyzer.errors import DumpError

ROWS = "".join(
    json.dumps({"problem": f"p{i}", "prompt": "One", "response": f" day {i}", "sample": 0}) + "\n" for i in range(3)
)
ROOT = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); "


def bash(line: str, cwd) -> subprocess.CompletedProcess:
    """Run a line in which $A is the command, in bounded memory and time."""
    command = f"{sys.executable} -c '{LIMIT}import sys; from analyzer.cli import main as cli; sys.exit(cli.main())'"
    (cwd / "rows.jsonl").write_text(ROWS)
    return run(line.replace("$A", command), cwd)


def run(line: str, cwd) -> subprocess.CompletedProcess:
    environment = os.environ | ROOT
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    "line",
    [
        "cat rows.jsonl | $A check - --json",
        "cat rows.jsonl | $A check /dev/stdin --json",
        "$A check - --json < rows.jsonl",
        "$A check /dev/stdin --json < rows.jsonl",
        "$A check x=<(cat rows.jsonl) --json",
        "$A check <(gzip -c rows.jsonl) --json",
        "mkfifo p; cat rows.jsonl > p & $A check - --json < p",
    ],
)
def test_a_pipe_is_read_as_a_stream(tmp_path, line):
    done = bash(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ledger"]["traces"] == 3


def test_a_stream_that_is_needed_twice_is_read_once(tmp_path):
    """Problems without responses are looked at again."""
    (tmp_path / "q.jsonl").write_text('{"question": "1 + 1?"}\n{"question": "2 + 2?"}\n')
    code = "from analyzer.scoring.sample import read_problems; import sys; print(len(read_problems(sys.argv[1:])[0]))"
    for line in (f"{sys.executable} -c '{code}' <(cat q.jsonl)", f"cat q.jsonl | {sys.executable} -c '{code}' -"):
        done = run(line, tmp_path)
        assert done.stdout == "2\n", done.stderr


@pytest.mark.parametrize(
    "line, said",
    [
        ("$A check /dev/zero", "/dev/zero: this is a device or a socket, no file"),
        ("$A check x=/dev/random", "/dev/random: this is a device or a socket, no file"),
        ("$A check /dev/stdin < /dev/zero", "/dev/stdin: this is a device or a socket, no file"),
        ("$A check - < /dev/zero", "<stdin>:1: the file begins with 1,048,576 NUL bytes"),
        ("$A check <(cat /dev/zero)", "the file begins with 1,048,576 NUL bytes"),
        ("mkfifo p; $A check p", "p: this is a named pipe, which can be read once only; give - and: < p"),
        ("$A check - < /dev/null", "<stdin>: the file is empty"),
    ],
)
def test_what_is_no_file_and_what_has_no_end_is_refused(tmp_path, line, said):
    done = bash(line, tmp_path)
    assert done.returncode == 3 and said in done.stderr and len(done.stderr.splitlines()) <= 3, done.stderr


def test_a_stream_without_an_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_PIPED", 1 << 21)
    read, write = os.pipe()
    feeder = subprocess.Popen(["yes"], stdout=write)
    os.close(write)
    try:
        with pytest.raises(DumpError, match="GB came through the pipe, and they stay in memory; write them to a file"):
            list(dumps.batches([f"/dev/fd/{read}"], dumps.Ledger()))
    finally:
        os.close(read)
        feeder.wait()
