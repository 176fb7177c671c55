import io
import json
import random

import pyarrow as pa
import pytest

from analyzer.dumps import read as dumps

ROWS = [
    {"question": f"q{i // 2}", "responses": ["a", "b"], "correct": [True, False], "info": {"n": i}, "day": None}
    for i in range(600)
]


def arrow(rows, how=pa.ipc.new_stream, packing=None, encode=False, batch=None):
    table = pa.Table.from_pylist(rows)
    if encode:
        table = table.set_column(0, "question", table["question"].dictionary_encode())
    out = io.BytesIO()
    with how(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=packing)) as writer:
        writer.write_table(table, max_chunksize=batch)
    return out.getvalue()


@pytest.mark.parametrize("how", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("encode", [False, True])
def test_arrow_is_read_as_its_rows(tmp_path, how, encode):
    (tmp_path / "a.arrow").write_bytes(arrow(ROWS, how, encode=encode, batch=100))
    traces, ledger = dumps.read_dumps([str(tmp_path / "a.arrow")])
    assert [(t.question, t.response, t.correct) for t in traces] == [
        (r["question"], text, right) for r in ROWS for text, right in (("a", True), ("b", False))
    ]
    assert ledger.rows == 600 and traces[-1].origin.endswith("a.arrow#600") and traces[0].source == "a"
    assert {*ledger.files[0]["unused"]} == {"info"}


def test_a_folder_of_save_to_disk_is_one_source(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    for i in range(2):
        (folder / f"data-0000{i}-of-00002.arrow").write_bytes(arrow(ROWS[i * 300 : i * 300 + 300]))
    features = {k: {"dtype": "string", "_type": "Value"} for k in ("question", "response")}
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": features, "license": ""}))
    state = {"_data_files": [{"filename": "data-00000-of-00002.arrow"}], "_fingerprint": "x", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    traces, ledger = dumps.read_dumps([str(folder)])
    assert {t.source for t in traces} == {"samples"} and len(traces) == 1200
    assert [f["path"].rsplit("/", 1)[-1] for f in ledger.files] == [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    assert any("dataset_info.json" in n and "not read" in n for n in ledger.notes)


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
@pytest.mark.parametrize("encode", [False, True])
def test_packed_batches_are_refused(tmp_path, packing, encode):
    (tmp_path / "a.arrow").write_bytes(arrow(ROWS, pa.ipc.new_file, packing, encode))
    with pytest.raises(dumps.DumpError, match="a.arrow: its batches are packed inside"):
        dumps.read_dumps([str(tmp_path / "a.arrow")])


def test_damaged_arrow_is_refused_or_read_and_never_more(tmp_path):
    whole, path = arrow(ROWS[:20]), tmp_path / "a.arrow"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(dumps.DumpError, match="the Arrow data is damaged or cut short .*copy the file again"):
        dumps.read_dumps([str(path)])
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            dumps.read_dumps([str(path)], max_bad=1)
        except dumps.DumpError as e:
            assert "a.arrow" in str(e)
