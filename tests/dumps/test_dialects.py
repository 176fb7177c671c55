"""Every dialect has a sample file, and every sample file is of exactly one dialect: these tests apply by themselves."""

import json
from pathlib import Path

import pytest

from analyzer.dumps import files, recognise
from analyzer.dumps import read as dumps
from analyzer.dumps.dialects import table as dialects
from analyzer.dumps.fields import CANONICAL

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
EXPECTED = {  # file, or folder of files that belong together -> format, traces, sources, pass@1
    "anthropic-batch": ("anthropic-batch", 3, {"tiny-claude"}, None),
    "bedrock-batch.jsonl": ("bedrock-batch", 3, {"tiny-claude"}, None),
    "bfcl": ("bfcl", 3, {"tiny-chat"}, None),
    "fastchat": ("fastchat", 3, {"tiny-chat"}, None),
    "gemini-batch.jsonl": ("gemini-batch", 3, {"tiny-gemini"}, None),
    "llama-factory": ("llama-factory", 3, {"generated_predictions"}, None),
    "lmms-eval": ("lmms-eval", 3, {"tiny-base"}, 2 / 3),
    "matharena": ("matharena", 6, {"tiny-base"}, 0.5),
    "mini-swe-agent": ("mini-swe-agent", 2, {"tiny-chat"}, None),
    "nemo-gym": ("nemo-gym", 6, {"tiny-chat"}, 0.5),
    "olmes": ("olmes", 3, {"tiny-base"}, 2 / 3),
    "openai-evals.jsonl": ("openai-evals", 3, {"tiny-chat"}, 2 / 3),
    "promptfoo.json": ("promptfoo", 3, {"tiny-chat"}, 2 / 3),
    "roll": ("roll", 6, {"tiny-grpo"}, 0.5),
    "swe-agent": ("swe-agent", 2, {"tiny-agent"}, None),
    "tau-bench.json": ("tau-bench", 6, {"tau-bench"}, 0.5),
    "tau2-bench.json": ("tau2-bench", 6, {"tiny-chat"}, 0.5),
    "bigcode": ("bigcode", 4, {"generations"}, None),
    "canonical.jsonl": ("canonical", 12, {"base", "rlvr"}, 0.75),
    "chat-completions.json": ("chat-completions", 3, {"tiny-chat"}, None),
    "codet": ("codet", 4, {"Tiny_code16_temp0.8_topp0.95_num2_max300_code_solution"}, None),
    "conversation.jsonl": ("conversation", 3, {"tiny-chat"}, None),
    "cruxeval": ("cruxeval", 6, {"scored"}, 0.5),
    "cruxeval-raw.json": ("cruxeval-raw", 6, {"cruxeval-raw"}, None),
    "evalplus": ("evalplus-results", 4, {"tiny_vllm_temp_0.8_eval_results"}, 0.5),
    "evalplus-samples": ("evalplus", 2, {"tiny_vllm_temp_0.8"}, None),
    "evalscope/predictions": ("evalscope", 3, {"tiny-chat"}, None),
    "evalscope/reviews": ("evalscope-reviews", 3, {"tiny-chat"}, 2 / 3),
    "generic-list.jsonl": ("generic-list", 6, {"generic-list"}, 0.5),
    "generic-row.jsonl": ("generic-row", 6, {"generic-row"}, 0.5),
    "helm": ("helm", 6, {"tiny-chat"}, None),
    "humaneval": ("humaneval", 4, {"tiny.jsonl_results"}, 0.5),
    "inspect": ("inspect", 6, {"reasoner"}, 0.5),
    "lighteval": ("lighteval", 3, {"tiny-base"}, 2 / 3),
    "limit-of-rlvr": ("qwen-math", 12, {"tiny-base"}, 0.5),
    "livecodebench": ("livecodebench", 4, {"tiny-coder"}, 0.5),
    "lm-eval/tiny-base": ("lm-eval", 3, {"tiny-base"}, 2 / 3),
    "lm-eval/tiny-chat": ("lm-eval", 3, {"tiny-chat"}, 1 / 3),
    "lm-eval/tiny-filters": ("lm-eval", 3, {"tiny-filters"}, 1 / 3),
    "lm-eval/tiny-old": ("lm-eval", 3, {"tiny-old"}, 2 / 3),
    "long-traces.jsonl": ("long-traces", 3, {"long-traces"}, 1 / 3),
    "nemo-rl": ("nemo-rl", 6, {"tiny-nemo-grpo"}, 0.5),
    "nemo-skills": ("nemo-skills", 6, {"tiny-nemo"}, 0.5),
    "open-instruct": ("open-instruct", 6, {"tiny-grpo__1__1700000000"}, 0.5),
    "openai-batch": ("openai-batch", 6, {"tiny-chat-2025"}, None),
    "openai-gsm8k.jsonl": ("openai-gsm8k", 6, {"6b_finetuning", "175b_verification"}, 2 / 3),
    "opencompass": ("opencompass", 3, {"tiny-chat"}, None),
    "opencompass-rows": ("opencompass-rows", 3, {"tiny-chat"}, None),
    "openr1-math.parquet": ("openr1-math", 6, {"openr1-math"}, 0.5),
    "openrlhf.jsonl": ("openrlhf", 6, {"openrlhf"}, None),
    "polaris": ("polaris", 6, {"tiny-base", "tiny-sft"}, None),
    "prm800k.jsonl": ("prm800k", 3, {"prm800k"}, None),
    "prime-rollouts.json": ("prime-rollouts", 4, {"tinyrun"}, 0.5),
    "qwen-math": ("qwen-math", 6, {"tiny-base"}, 0.5),
    "reasoning-gym-task": ("reasoning-gym-task", 9, {"tiny-teacher"}, 5 / 9),
    "reasoning-gym.json": ("reasoning-gym", 9, {"tiny-base"}, 5 / 9),
    "rllm/tiny-agent": ("rllm", 2, {"tiny-agent"}, 0.5),
    "rllm/tiny-solver-judge.json": ("rllm", 2, {"rllm"}, 0.5),
    "sharegpt.jsonl": ("sharegpt", 3, {"sharegpt"}, None),
    "simple-evals.json": ("simple-evals", 3, {"simple-evals"}, 2 / 3),
    "skythought.json": ("skythought", 6, {"skythought"}, 0.5),
    "tot": ("tot", 8, {f"game24_gpt-4_0.7_naive_{k}_sample_2_start900_end902" for k in ("cot", "standard")}, 3 / 8),
    "trl": ("trl", 12, {"tiny-grpo"}, 0.5),
    "understand-r1-zero.json": ("understand-r1-zero", 6, {"understand-r1-zero"}, 0.5),
    "verl-generation.parquet": ("verl-generation", 6, {"verl-generation"}, None),
    "verl/tiny-grpo": ("verl", 6, {"tiny-grpo"}, 0.5),
    "verl/tiny-validation": ("verl", 6, {"tiny-validation"}, 0.5),
    "verifiers": ("verifiers", 6, {"tiny-chat-2025"}, 0.5),
    "vllm-batch": ("openai-batch", 3, {"reasoner"}, None),
}
SIDES = {
    "open-instruct-metadata", "openai-batch-requests", "humaneval-problems", "rllm-metadata", "verifiers-metadata",
    "anthropic-batch-requests", "fastchat-questions", "olmes-requests",
}  # fmt: skip
FILES = sorted(str(p.relative_to(SAMPLES)) for p in SAMPLES.rglob("*") if p.is_file())


def test_every_sample_is_expected_and_every_dialect_has_one():
    assert [f for f in FILES if not any(f == e or f.startswith(f"{e}/") for e in EXPECTED)] == []
    found = {
        d
        for f in FILES
        for plan in [recognise.plan_file(files.open_dump(f, SAMPLES / f, None), {})]
        for d in [plan.format]
    }
    assert set(dialects.DIALECTS) <= found | {"lighteval-flat", "rllm-metadata", "canonical-parquet"}


@pytest.mark.parametrize("name", EXPECTED)
def test_sample(name):
    kind, count, sources, accuracy = EXPECTED[name]
    traces, ledger = dumps.read_dumps([str(SAMPLES / name)])
    assert {f["format"] for f in ledger.files} - SIDES == {kind}
    assert len(traces) == ledger.traces == count and {t.source for t in traces} == sources
    labels = [t.correct for t in traces if t.correct is not None]
    assert (sum(labels) / len(labels) if labels else None) == (None if accuracy is None else pytest.approx(accuracy))
    assert len({t.key for t in traces}) == count
    assert all(t.origin.startswith(str(SAMPLES / name)) and isinstance(t.meta["row"], int) for t in traces)
    assert all(t.response or t.response_ids for t in traces)


@pytest.mark.parametrize("name", FILES)
def test_sniffing_names_one_dialect(name):
    file = files.open_dump(name, SAMPLES / name, None)
    if file.kind == "eval" or name in ("bigcode/generations.json", "prime-rollouts.json"):
        return  # records of their own making
    found = dialects.sniff_document(file.document) if file.document is not None else []
    found = found or dialects.sniff_records([r for _, r in file.head])
    assert len(found) == (0 if name.startswith("generic") else 1)


@pytest.mark.parametrize("name", dialects.DIALECTS)
def test_the_table_uses_only_known_words(name):
    entry = dialects.DIALECTS[name]
    assert entry.shape in ("row", "list", "dict", "nested", "wide", "side")
    assert bool(entry.fields) != (entry.shape == "side")
    assert all(f in CANONICAL or f.startswith("meta.") for f in entry.fields)
    assert entry.shape == "side" or "response" in entry.fields


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
