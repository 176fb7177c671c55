"""Files that are small and unpack to much, or large and hold nothing: refused or read in bounded memory."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from analyzer import dumps
from analyzer.errors import DumpError

GOOD = json.dumps({"question": "q", "response": "r"}).encode() + b"\n"
ALLOWED = 1 << 30  # bytes beyond what the process has after its imports
CHILD = """
import itertools, resource, sys
from analyzer import dumps
from analyzer.errors import DumpError
import pyarrow.parquet
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # what is unbounded ends here
for path in sys.argv[1:]:
    try:
        for batch in itertools.islice(dumps.batches([path], dumps.Ledger(), max_bad=0.5), 3):
            pass
        print("read")
    except DumpError as e:
        print(str(e).splitlines()[0].replace(path, "FILE"))
print(peak() - before)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, str]:
    """What a process says to each file, and by how many bytes its memory grew at most."""
    folder = tmp_path_factory.mktemp("bombs")
    zeros, megabyte = b"0" * (1 << 24), 1 << 20
    (folder / "line.jsonl.gz").write_bytes(gzip.compress(GOOD + b'{"response": "') + gzip.compress(zeros, 1) * 64)
    (folder / "document.json.zst").write_bytes(zstandard.compress(b'["') + zstandard.compress(zeros) * 256)
    with (folder / "sparse.jsonl").open("wb") as f:
        f.write(GOOD * 3 + b'{"response": "')
        f.truncate(400 * megabyte)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * (4 * megabyte)]))
    table = pa.table({"question": column, "response": column})
    pq.write_table(table, folder / "dictionary.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30)
    with zipfile.ZipFile(folder / "member.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", zeros * 8)
    raw = (folder / "member.eval").read_bytes()
    (folder / "member.eval").write_bytes(raw.replace(struct.pack("<I", len(zeros) * 8), struct.pack("<I", 10)))
    assert all(p.stat().st_size < 8 * megabyte for p in folder.iterdir() if p.name != "sparse.jsonl")
    files = sorted(folder.iterdir())
    child = [sys.executable, "-c", CHILD, *map(str, files)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *found, grown = done.stdout.splitlines()
    return dict(zip((p.name for p in files), found, strict=True)) | {"grown": grown}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("line.jsonl.gz", "FILE:2: this line has more than 256 MB"),
        ("document.json.zst", "FILE: unpacks to more than 500 times its size"),
        ("sparse.jsonl", "FILE:4: this line has more than 256 MB"),
        ("dictionary.parquet", "read"),
        ("member.eval", "FILE: the zip archive is damaged"),
    ],
)
def test_bombs_are_refused_within_bounds(said, name, start):
    assert said[name].startswith(start)
    assert int(said["grown"]) < ALLOWED


def test_nul_bytes_in_a_row_reject_the_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 2 + b'{"question": "q", "response": "a\0b"}\n' + GOOD.replace(b'"r"', b'"\\u0000"'))
    traces, ledger = dumps.read_dumps([str(path)], max_bad=0.5)
    assert ledger.by_reason == {"broken JSON": 1} and traces[-1].response == "\0"


def test_paths_inside_an_archive_lead_nowhere(tmp_path):
    """Names that point outside are read as the samples they hold, and nothing is written anywhere."""
    sample = {"id": 1, "epoch": 1, "input": "q", "target": "t", "scores": {}, "messages": [], "metadata": {}}
    sample["output"] = {"model": "m", "choices": [{"message": {"role": "assistant", "content": "r"}}]}
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    with zipfile.ZipFile(inner / "log.eval", "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": {"task": "t", "model": "m"}}))
        for name in ("samples/../../../gone.json", "samples//etc/passwd.json", "../../up.json", "/abs.json"):
            archive.writestr(name, json.dumps(sample))
    before = sorted(tmp_path.rglob("*"))
    traces, _ = dumps.read_dumps([str(inner / "log.eval")])
    assert [t.response for t in traces] == ["r", "r"] and sorted(tmp_path.rglob("*")) == before
    with zipfile.ZipFile(inner / "link.eval", "w") as archive:
        link = zipfile.ZipInfo("header.json")
        link.external_attr = 0o120777 << 16  # a symbolic link
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DumpError, match="header is broken JSON"):
        dumps.read_dumps([str(inner / "link.eval")])


def test_packed_parts_follow_each_other(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    data = b"".join(gzip.compress(r) for r in [GOOD] * 3)
    assert len(dumps.read_dumps([write("a.jsonl.gz", data)])[0]) == 3
    data = b"".join(zstandard.compress(r) for r in [GOOD] * 3)
    assert len(dumps.read_dumps([write("a.jsonl.zst", data)])[0]) == 3
    with pytest.raises(DumpError, match="damaged or cut short"):
        dumps.read_dumps([write("b.jsonl.zst", data[:-3])])
