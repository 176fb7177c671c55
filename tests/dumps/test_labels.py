"""What a source is called after its file: parts of one dump, checkpoints of one run, names that paths have."""

import json

import pytest

from analyzer.dumps import read as dumps
from analyzer.dumps.labels import label_of, part_of
from analyzer.errors import DumpError


@pytest.fixture
def write(tmp_path):
    def _write(name, first=0, count=2, **extra):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"question": f"q{i}", "response": f"r{i}", "correct": True, **extra} for i in range(first, first + count)
        ]
        path.write_text("".join(json.dumps({**r, "note": name}) + "\n" for r in rows))
        return str(path)

    return _write


def sources(*specs, **how):
    traces, ledger = dumps.read_dumps(list(specs), **how)
    return sorted({t.source for t in traces}), traces, ledger


@pytest.mark.parametrize(
    ("names", "source"),
    [
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"], "train"),
        (["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"], "run"),
        (["part-00000.jsonl", "part-00001.jsonl"], "run"),
        (["rank0.jsonl", "rank1.jsonl"], "run"),
        (["qwen_rank0.jsonl", "qwen_rank1.jsonl"], "qwen"),
        (["qwen.shard-0.jsonl", "qwen.shard-1.jsonl"], "qwen"),
        (["qwen_0.jsonl", "qwen_1.jsonl", "qwen_2.jsonl"], "qwen"),
        (["qwen_00.jsonl", "qwen_01.jsonl"], "qwen"),
        (["rank_0/out.jsonl", "rank_1/out.jsonl"], "run"),
    ],
)
def test_parts_of_one_dump_are_one_source(write, tmp_path, names, source):
    for i, name in enumerate(names):
        write(f"run/{name}", 2 * i)
    found, traces, ledger = sources(str(tmp_path / "run"))
    assert found == [source] and len(traces) == 2 * len(names)
    (said,) = [n for n in ledger.notes if "parts of one source" in n]
    assert f"{len(names)} files" in said and source in said and "A=" in said


@pytest.mark.parametrize(
    "names",
    [
        ["model_0.jsonl", "model_1.jsonl"],  # a number that names who answered
        ["temp_0.jsonl", "temp_1.jsonl"],
        ["qwen_v0.jsonl", "qwen_v1.jsonl"],
        ["qwen_7.jsonl", "qwen_14.jsonl"],  # not numbered from 0
        ["qwen_1.jsonl", "qwen_2.jsonl"],
        ["qwen_0.jsonl", "qwen_2.jsonl"],  # one is missing
        ["step_0.jsonl", "step_1.jsonl"],
        ["qwen_0.jsonl"],
    ],
)
def test_a_number_alone_makes_no_part(write, tmp_path, names):
    for i, name in enumerate(names):
        write(f"run/{name}", 2 * i)
    found, _, ledger = sources(str(tmp_path / "run"))
    assert found == sorted(n.removesuffix(".jsonl") for n in names)
    assert not [n for n in ledger.notes if "parts of one source" in n]


def test_a_part_that_is_missing_is_said(write, tmp_path):
    write("run/train-00001-of-00003.jsonl")
    found, _, ledger = sources(str(tmp_path / "run"))
    assert found == ["train"] and any("2 of 3 parts of train are not here: 0, 2" in n for n in ledger.notes)


def test_parts_in_two_folders_are_two_sources_and_labels_win(write, tmp_path):
    for run in ("base", "rl"):
        for i in (0, 1):
            write(f"{run}/train-0000{i}-of-00002.jsonl", 2 * i)
    assert sources(str(tmp_path / "base"), str(tmp_path / "rl"))[0] == ["base", "rl"]
    found, _, ledger = sources(f"x={tmp_path}/base/train-00000-of-00002.jsonl", f"y={tmp_path}/rl")
    assert found == ["x", "y"] and not [n for n in ledger.notes if "parts of one source" in n]


def test_rows_that_name_their_source_are_not_pooled(write, tmp_path):
    for i in (0, 1):
        write(f"run/rank{i}.jsonl", model=f"lab/m{i}")
    found, _, ledger = sources(str(tmp_path / "run"))
    assert found == ["m0", "m1"] and not [n for n in ledger.notes if "parts of one source" in n]


@pytest.mark.parametrize(
    ("folders", "steps"),
    [
        (["step-100", "step-500"], [100, 500]),
        (["checkpoint-100", "checkpoint-200"], [100, 200]),
        (["global_step_100", "global_step_300"], [100, 300]),
        (["iter_0000100", "iter_0000200"], [100, 200]),
        (["ckpt100", "ckpt200"], [100, 200]),
        (["tiny-step100-eval", "tiny-step200-eval"], [100, 200]),
    ],
)
def test_checkpoints_of_one_model_are_steps_not_samples(write, tmp_path, folders, steps):
    for i, folder in enumerate(folders):
        write(f"{folder}/out.jsonl", model="lab/tiny", correct=i)
    found, traces, ledger = sources(str(tmp_path))
    assert found == ["tiny"] and sorted({t.step for t in traces}) == steps and {t.sample for t in traces} == {0}
    (said,) = [n for n in ledger.notes if "checkpoints" in n]
    assert "tiny" in said and str(steps[0]) in said and "A=" in said


def test_checkpoints_without_a_models_name(write, tmp_path):
    for n in (100, 300):
        write(f"run/step-{n}/out.jsonl")
    found, traces, ledger = sources(str(tmp_path))
    assert found == ["step-100", "step-300"] and {t.step for t in traces} == {None}
    assert not [n for n in ledger.notes if "checkpoints" in n]
    given, traces, ledger = sources(f"rl={tmp_path}/run")
    assert given == ["rl"] and {t.step for t in traces} == {100, 300}
    assert [n for n in ledger.notes if "checkpoints" in n]


def test_a_step_of_the_row_and_a_single_checkpoint_stay_as_they_are(write, tmp_path):
    write("a/step-100/out.jsonl", model="m", step=7)
    write("a/step-200/out.jsonl", model="m", step=8)
    write("b/step-100/out.jsonl", model="n")
    found, traces, ledger = sources(str(tmp_path))
    assert found == ["m", "n"] and {(t.source, t.step) for t in traces} == {("m", 7), ("m", 8), ("n", None)}
    assert not [n for n in ledger.notes if "checkpoints" in n]


def test_the_label_that_a_message_proposes_works(write, tmp_path):
    for run in ("a", "b"):
        write(f"{run}/x/out.jsonl")
    with pytest.raises(DumpError, match="would be called 'x'.*name the sources: A=") as caught:
        sources(str(tmp_path))
    label = str(caught.value).rsplit(" ", 1)[1]
    other = next(str(p) for p in tmp_path.rglob("out.jsonl") if str(p) not in label)
    assert sources(label, other)[0] == ["A", "out"]


def test_checkpoints_in_the_names_of_files(write, tmp_path):
    for n in (10, 20):
        write(f"out_step_{n}.jsonl", model="m")
    found, traces, _ = sources(str(tmp_path))
    assert found == ["m"] and {t.step for t in traces} == {10, 20}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("C:\\models\\Qwen2.5-7B", "Qwen2.5-7B"),
        ("C:\\runs\\rl\\", "rl"),
        ("\\\\server\\share\\base model", "base-model"),
        ("lab/tiny", "tiny"),
        ("D:/models/tiny/", "tiny"),
    ],
)
def test_a_windows_path_gives_its_last_part(name, label):
    assert label_of(name) == label


def test_the_words_of_a_part():
    assert part_of("x-00003-of-00010") == ("x", 3, 10) and part_of("part-00002") == ("", 2, None)
    assert part_of("part-00000-3f1c2a90-0f3e-4b65-9a53-0d2f4c1e8a77-c000.snappy") == ("", 0, None)
    assert part_of("department-7") is None and part_of("frank0") is None and part_of("qwen_7") is None


def test_the_cases_of_practice(shared):
    found, traces, _ = sources(str(shared / "cases/read-sharded-folder/shards"))
    assert len(found) == 1 and len(traces) == 4
    found, traces, ledger = sources(
        *map(str, sorted((shared / "cases/dump-checkpoints-pooled").glob("step-*/*.jsonl")))
    )
    assert found == ["tiny-ppo"] and {t.step for t in traces} == {100, 500} and max(t.sample for t in traces) == 3
    assert any("checkpoints" in n for n in ledger.notes)
