"""Every dialect has a sample file, and every sample file is of exactly one dialect: these tests apply by themselves."""

import json
from pathlib import Path

import pytest

from analyzer import dumps
from analyzer.formats import dialects, files
from analyzer.formats.fields import CANONICAL

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
EXPECTED = {  # file -> format, traces, sources, pass@1
    "canonical.jsonl": ("canonical", 12, {"base", "rlvr"}, 0.75),
    "generic-list.jsonl": ("generic-list", 6, {"generic-list"}, 0.5),
    "generic-row.jsonl": ("generic-row", 6, {"generic-row"}, 0.5),
    "lm-eval/tiny-base/samples_arithmetic_2025-05-31T14-30-51.983293.jsonl": ("lm-eval", 3, {"tiny-base"}, 2 / 3),
    "long-traces.jsonl": ("long-traces", 3, {"long-traces"}, 1 / 3),
    "openai-gsm8k.jsonl": ("openai-gsm8k", 6, {"6b_finetuning", "175b_verification"}, 2 / 3),
    "polaris/tiny-base/arithmetic.jsonl": ("polaris", 3, {"tiny-base"}, None),
    "polaris/tiny-sft/arithmetic.jsonl": ("polaris", 3, {"tiny-sft"}, None),
    "qwen-math/tiny-base/arithmetic/test_qwen25-math-cot_-1_seed0_t0.7_s0_e-1.jsonl": (
        "qwen-math",
        6,
        {"tiny-base"},
        0.5,
    ),
    "reasoning-gym-task/tiny-teacher/basic_arithmetic.json": ("reasoning-gym-task", 9, {"tiny-teacher"}, 5 / 9),
    "reasoning-gym.json": ("reasoning-gym", 9, {"tiny-base"}, 5 / 9),
    "skythought.json": ("skythought", 6, {"skythought"}, 0.5),
    "tot/game24_gpt-4_0.7_naive_cot_sample_2_start900_end902.json": (
        "tot",
        4,
        {"game24_gpt-4_0.7_naive_cot_sample_2_start900_end902"},
        0.5,
    ),
    "tot/game24_gpt-4_0.7_naive_standard_sample_2_start900_end902.json": (
        "tot",
        4,
        {"game24_gpt-4_0.7_naive_standard_sample_2_start900_end902"},
        0.25,
    ),
    "verl/tiny-grpo/20.jsonl": ("verl", 6, {"tiny-grpo"}, 0.5),
}


def test_every_sample_is_expected_and_every_dialect_has_one():
    assert {str(p.relative_to(SAMPLES)) for p in SAMPLES.rglob("*") if p.is_file()} == set(EXPECTED)
    assert set(dialects.DIALECTS) <= {v[0] for v in EXPECTED.values()}


@pytest.mark.parametrize("name", EXPECTED)
def test_sample(name):
    kind, count, sources, accuracy = EXPECTED[name]
    traces, ledger = dumps.read_dumps([str(SAMPLES / name)])
    assert ledger.files[0]["format"] == kind
    assert len(traces) == ledger.traces == count and {t.source for t in traces} == sources
    labels = [t.correct for t in traces if t.correct is not None]
    assert (sum(labels) / len(labels) if labels else None) == (None if accuracy is None else pytest.approx(accuracy))
    assert len({t.key for t in traces}) == count
    assert all(t.origin.startswith(str(SAMPLES / name)) and isinstance(t.meta["row"], int) for t in traces)


@pytest.mark.parametrize("name", EXPECTED)
def test_sniffing_names_one_dialect(name):
    file = files.open_dump(str(SAMPLES / name), SAMPLES / name, None)
    records = [r for _, r in file.records]
    found = dialects.sniff_document(file.document) if file.document is not None else []
    found = found or dialects.sniff_records(records)
    assert found == ([] if EXPECTED[name][0].startswith("generic") else [EXPECTED[name][0]])


@pytest.mark.parametrize("name", dialects.DIALECTS)
def test_the_table_uses_only_known_words(name):
    entry = dialects.DIALECTS[name]
    words = {
        "shape",
        "needs",
        "any",
        "document_needs",
        "rows",
        "fields",
        "label",
        "name",
        "prepare",
        "refuse",
        "note",
        "requires",
    }
    assert set(entry) <= words and entry["shape"] in ("row", "list", "dict", "nested", "wide")
    assert all(f in CANONICAL or f.startswith("meta.") for f in entry["fields"])
    assert "response" in entry["fields"]


@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_packed_files_read_the_same(tmp_path, packed):
    raw = (SAMPLES / "canonical.jsonl").read_bytes()
    if packed == "gz":
        import gzip

        data = gzip.compress(raw)
    else:
        import zstandard

        data = zstandard.ZstdCompressor().compress(raw)
    path = tmp_path / f"canonical.jsonl.{packed}"
    path.write_bytes(data)
    plain, _ = dumps.read_dumps([str(SAMPLES / "canonical.jsonl")])
    unpacked, ledger = dumps.read_dumps([str(path)])
    assert [(t.key, t.response, t.response_ids, t.sampler) for t in unpacked] == [
        (t.key, t.response, t.response_ids, t.sampler) for t in plain
    ]
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(dumps.DumpError, match=r"damaged or cut short .*copy the file again"):
        dumps.read_dumps([str(path)])


def test_the_samples_of_one_format_are_valid_in_json_and_jsonl(tmp_path):
    rows = [json.loads(line) for line in (SAMPLES / "generic-row.jsonl").read_text().splitlines()]
    path = tmp_path / "generic-row.json"
    path.write_text(json.dumps(rows, indent=2))
    a, _ = dumps.read_dumps([str(SAMPLES / "generic-row.jsonl")])
    b, _ = dumps.read_dumps([str(path)])
    assert [(t.key, t.response, t.correct) for t in a] == [(t.key, t.response, t.correct) for t in b]
    assert a[0].origin.endswith("generic-row.jsonl:1") and b[0].origin.endswith("generic-row.json#1")
