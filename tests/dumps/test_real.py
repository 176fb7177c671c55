"""Real dumps of many producers, with answers known from their makers or counted by hand."""

import pytest

from analyzer.dumps import read as dumps
from analyzer.errors import DumpError
from analyzer.records import Sampler


def shares(traces):
    """pass@1 and share with any correct sample, problem rows as the file counts them."""
    groups = {}
    for t in traces:
        groups.setdefault((t.source, t.origin.rsplit("#", 1)[0], t.meta["row"]), []).append(t.correct)
    return (
        round(sum(sum(g) / len(g) for g in groups.values()) / len(groups), 3),
        round(sum(map(any, groups.values())) / len(groups), 3),
    )


@pytest.mark.parametrize(
    ("name", "first", "some"),
    [
        ("original_to_algebra", 0.234, 0.358),
        ("games_qwen_3b_500_to_algebra", 0.456, 0.522),
        ("algorithmic_qwen_3b_500_to_algebra", 0.529, 0.610),
        ("original_to_graphs", 0.139, 0.234),
        ("games_qwen_3b_500_to_graphs", 0.183, 0.256),
        ("logic_qwen_3b_400_to_graphs", 0.248, 0.332),
    ],
)
def test_reasoning_gym_row_level(shared, name, first, some):
    traces, _ = dumps.read_dumps([str(shared / f"dumps/reasoning-gym-rl/{name}.json")])
    assert shares(traces) == (first, some)
    assert traces[0].sampler == Sampler(0.6, 0.9)


def test_teachers_hide_their_reasoning(shared):
    traces, ledger = dumps.read_dumps([str(shared / "dumps/reasoning-gym-teachers")])
    assert {t.source for t in traces} == {
        "deepseek_deepseek-r1",
        "google_gemma-3-27b-it",
        "meta-llama_llama-3.3-70b-instruct",
    }
    assert any(
        "deepseek_deepseek-r1 on chain_sum: 148 of 150 responses have at most 80 characters" in n for n in ledger.notes
    )
    assert {t.score for t in traces} >= {0.01, 0.05}
    assert all(t.correct == (t.score >= 1) for t in traces)


def test_long_traces_keep_both_label_versions(shared):
    traces, ledger = dumps.read_dumps([str(shared / "dumps/long-traces")])
    assert len(traces) == 25 and sum(t.correct for t in traces) == 2
    assert any("re-grading in 2 of 25 traces" in n for n in ledger.notes)


def test_polaris_has_no_labels_and_open_thoughts(shared):
    traces, ledger = dumps.read_dumps(
        [str(shared / f"dumps/polaris-qwen3/{d}/aime24.jsonl") for d in ("base", "grpo-base", "instruct-sft")]
    )
    assert (
        len(traces) == 90
        and all(t.correct is None for t in traces)
        and {t.source for t in traces} == {"base", "grpo-base", "instruct-sft"}
    )
    assert len({t.problem for t in traces}) == 30
    assert any(n.startswith("base: 15 of 30 responses open <think> and never close it") for n in ledger.notes)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("polaris-qwen3/empty/minerva.jsonl", "0 bytes"),
        ("prm800k/phase2_test.LFS_POINTER.txt", "Git-LFS pointer"),
        ("lm-eval/samples_asdiv_2024-08-21T03-40-10.802679.jsonl", "log-likelihood rows"),
        ("lm-eval/samples_negotiationtom_belief_2026-07-08T16-04-34.219874.jsonl", "log-likelihood rows"),
        ("published-numbers", "no field looks like a sampled response"),
    ],
)
def test_real_files_that_are_no_dumps(shared, path, message):
    with pytest.raises(DumpError, match=message):
        dumps.read_dumps([str(shared / "dumps" / path)])


@pytest.mark.parametrize(
    ("name", "count", "answer"),
    [
        ("log_read_sample.eval", 1, True),
        ("log_read_sample.json", 1, True),
        ("2025-05-12T20-28-13-04-00_popularity.json", 3, None),
        ("2025-02-11T15-17-00-05-00_popularity_dPiJifoWeEQBrfWsAopzWr.eval", 10, None),
    ],
)
def test_inspect_logs_read(shared, name, count, answer):
    traces, ledger = dumps.read_dumps([str(shared / "dumps/inspect" / name)])
    assert len(traces) == count and {f["format"] for f in ledger.files} == {"inspect"}
    assert all(t.prompt[0]["role"] == "system" and t.prompt[-1]["role"] == "user" for t in traces)
    assert answer is None or traces[0].correct is answer


@pytest.mark.parametrize(
    ("name", "accuracy"), [("base_Qwen2.5-1.5B-Instruct", 0.058), ("grpo_Qwen2.5-1.5B-Open-R1-GRPO", 0.3)]
)
def test_lighteval_parquet_holds_ids_and_labels(shared, name, accuracy):
    traces, _ = dumps.read_dumps([str(shared / f"dumps/lighteval-math500/{name}.details.parquet")])
    assert len(traces) == 500 and sum(t.correct for t in traces) / 500 == pytest.approx(accuracy)
    assert all(t.prompt_ids and t.response_ids and t.prompt and t.response for t in traces)


def test_lm_eval_generations_read(shared):
    traces, _ = dumps.read_dumps(
        [str(shared / "dumps/lm-eval/samples_truthfulqa_gen_2025-05-31T14-30-51.983293.jsonl")]
    )
    assert len(traces) == 20 and traces[0].prompt and traces[0].group == "truthfulqa_gen" and traces[0].sampler is None
