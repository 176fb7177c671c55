"""Files that are small and unpack to much, or large and hold nothing: refused or read in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from analyzer.dumps import files, streams
from analyzer.dumps import read as dumps
from analyzer.errors import DumpError

GOOD = json.dumps({"question": "q", "response": "r"}).encode() + b"\n"
ALLOWED = 1 << 29  # bytes beyond what the process has after its imports
CHILD = """
import itertools, resource, sys
from analyzer.dumps import read as dumps
from analyzer.errors import DumpError
from analyzer.records.options import ReadOptions
import pyarrow.parquet
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # what is unbounded ends here
for path in sys.argv[1:]:
    try:
        for batch in itertools.islice(dumps.batches([path], dumps.Ledger(), read=ReadOptions(max_bad=0.5)), 3):
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
    with zipfile.ZipFile(folder / "sample.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}")
        archive.writestr("samples/1_epoch_1.json", b'{"id": "' + zeros * 3)
    (folder / "lists.jsonl.gz").write_bytes(gzip.compress(GOOD + b'{"response": [' + b"[]," * (11 << 20), 1))
    large = b'{"question": "q", "response": "r", "x": [' + b"[]," * (3 << 20) + b"0]}\n"  # 280 MB of lists
    (folder / "large.jsonl").write_bytes(GOOD + large * 2)
    raw = (folder / "member.eval").read_bytes()
    (folder / "member.eval").write_bytes(raw.replace(struct.pack("<I", len(zeros) * 8), struct.pack("<I", 10)))
    assert all(p.stat().st_size < 8 * megabyte for p in folder.iterdir() if p.suffix != ".jsonl")
    files = sorted(folder.iterdir())
    child = [sys.executable, "-c", CHILD, *map(str, files)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *found, grown = done.stdout.splitlines()
    return dict(zip((p.name for p in files), found, strict=True)) | {"grown": grown}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("line.jsonl.gz", "FILE:2: this line has more than 128 MB"),
        ("lists.jsonl.gz", "FILE:2: 34,603,022 bytes that hold so many values that they take about 1.9 GB of memory"),
        ("document.json.zst", "FILE: unpacks to more than 500 times its size"),
        ("sparse.jsonl", "FILE:4: this line has more than 128 MB"),
        ("large.jsonl", "read"),
        ("dictionary.parquet", "read"),
        ("member.eval", "FILE: the zip archive is damaged"),
        ("sample.eval", "FILE: samples/1_epoch_1.json unpacks to more than 500 times its size (50,331,656 bytes from"),
    ],
)
def test_bombs_are_refused_within_bounds(said, name, start):
    assert said[name].startswith(start)
    assert int(said["grown"]) < ALLOWED


JSON = st.recursive(
    st.text(',[{"\\a\u00e9', max_size=9) | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('",[{\\', max_size=3), inner, max_size=3),
)


def _without_texts(value):
    if isinstance(value, dict):
        return {str(i): _without_texts(v) for i, v in enumerate(value.values())}
    return [_without_texts(v) for v in value] if isinstance(value, list) else "" if isinstance(value, str) else value


@given(JSON, st.integers(1, 9))
def test_the_weight_of_json_is_that_of_its_values_without_their_texts(value, step):
    raw, bare = (json.dumps(v, separators=(",", ":")).encode() for v in (value, _without_texts(value)))
    expected = sum(w * bare.count(sign) for sign, w in streams.WEIGHTS.items())
    with patch.object(streams, "STEP", step):
        assert streams._weight(raw) == expected


def test_signs_within_texts_are_no_values(tmp_path, monkeypatch):
    """What is refused as too many values is read where it is the text of a response."""
    monkeypatch.setattr(streams, "DENSE", 1 << 10)
    monkeypatch.setattr(streams, "ROW_VALUES", 1 << 16)
    monkeypatch.setattr(streams, "DOCUMENT_VALUES", 1 << 16)
    row, many = {"question": "q", "response": "r"}, [{}] * 1000
    for name, within in (("a.jsonl", lambda r: r), ("a.json", lambda r: [r])):
        path = tmp_path / name
        path.write_text(json.dumps(within({**row, "x": many})))
        with pytest.raises(DumpError, match=f"{name}.* bytes that hold so many values"):
            dumps.read_dumps([str(path)])
        path.write_text(json.dumps(within({**row, "response": json.dumps(many)})))
        assert dumps.read_dumps([str(path)])[0][0].response == json.dumps(many)


def test_records_of_many_values_decide_what_a_file_is_alone():
    """The records that are looked at first are held together: fewer of them where they are large."""
    record = {"response": "r", "ids": [[1] * 1000] * 500}
    assert len(files.first(iter([(i, record) for i in range(50)]))) == 4
    assert len(files.first(iter([(i, {"response": "r" * 1000}) for i in range(60)]))) == files.HEAD


def test_a_large_row_that_is_rejected_is_kept_by_its_place(tmp_path):
    path = tmp_path / "a.jsonl"
    bad = [json.dumps({"question": "q", "response": 5, "x": "x" * n}) + "\n" for n in (9, 1 << 21)]
    path.write_bytes("".join(bad).encode() + GOOD * 5)
    _, ledger = dumps.read_dumps([str(path)], map={"response": "response", "question": "question"}, max_bad=0.9)
    assert [(r["line"], r["row"] is None) for r in ledger.rejected] == [(1, False), (2, True)]


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


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jsonl"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("zero.jsonl", bytes(5000), "zero.jsonl:1: the file begins with 5,000 NUL bytes.*copy it again"),
        ("hole.jsonl.gz", gzip.compress(bytes(99) + GOOD, mtime=0), "begins with 99 NUL bytes"),
        ("a.jsonl.xz", lzma.compress(GOOD), r"this is an xz archive; unpack it first \(xz -dk a.jsonl.xz\) and give"),
        ("a.jsonl.bz2", bz2.compress(GOOD), r"this is a bzip2 archive; unpack it first \(bunzip2 -k a.jsonl.bz2\)"),
        ("a.tar.gz", gzip.compress(_tar(), mtime=0), r"this is a tar archive; unpack it first \(tar -xf a.tar.gz\)"),
        (
            "a.jsonl.gz",
            gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0),
            "this is packed twice, gzip inside; unpack it first and",
        ),
    ],
)
def test_other_packings_are_named_with_what_unpacks_them(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DumpError, match=message):
        dumps.read_dumps([str(tmp_path / name)])
