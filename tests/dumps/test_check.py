import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from analyzer.dumps import check as checks
from analyzer.dumps import read as dumps
from analyzer.dumps.survey import Survey
from analyzer.records import HURDLED, TAU
from analyzer.stats import bounds
from analyzer.stats.bootstrap import ALPHA

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


def check(*specs):
    survey, ledger = Survey(), dumps.Ledger()
    for _ in dumps.batches([str(s) for s in specs], ledger, survey):
        pass
    description = checks.describe(survey, ledger)
    json.dumps(description, allow_nan=False)
    return description


def test_nothing_is_kept_of_a_trace_but_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(dumps, "BATCH", 100)
    peaks = []
    for n in (10, 1000, 2000):  # the first: imports and caches
        rows = ({"question": f"q{i // 8}", "response": f"{i} {'x' * 2000}", "correct": True} for i in range(n))
        (tmp_path / f"{n}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tracemalloc.start()
        check(tmp_path / f"{n}.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 400 * 1000, peaks


def test_canonical_description():
    d = check(SAMPLES / "canonical.jsonl")
    base = d["sources"]["base"]
    assert (base["traces"], base["problems"]) == (6, 3)
    assert base["samples_per_problem"] == {"min": 2, "max": 2, "most": 2, "problems": 3, "of": 3}
    assert (base["labelled"], base["correct"], base["pass@1"], base["any_correct"]) == (6, 3, 0.5, 1.0)
    assert base["prompts"] == {"ids": 6} and base["response_ids"] == 6 and base["sampler"]["temperature"] == 1.0
    assert d["sources"]["rlvr"]["steps"] == {"min": 300, "max": 300, "count": 1}
    assert d["joins"][0]["shared"] == 3 and d["joins"][0]["only"] == [0, 0]
    assert any("Scoring with --base: ready for base, rlvr." in n for n in d["next"])
    assert not any("no sampler" in n for n in d["next"])


def test_what_is_missing_is_said():
    text = " ".join(check(SAMPLES / "polaris")["next"])
    for part in (
        "pass@k: not for tiny-base, tiny-sft",
        "need --template",
        "tokenised again",
        "no sampler is recorded",
        "--policy LABEL=MODEL",
    ):
        assert part in text
    text = " ".join(check(SAMPLES / "tot/game24_gpt-4_0.7_naive_cot_sample_2_start900_end902.json")["next"])
    assert "no question either" in text and "one source only" in text


def test_render_says_everything_once():
    d = check(SAMPLES / "canonical.jsonl", SAMPLES / "generic-row.jsonl")
    text = checks.render(d)
    for head in ("FILES", "SOURCES", "ACCURACY", "JOINED ON", "WARNINGS", "WHAT THE NEXT STEPS CAN SAY"):
        assert text.count(head) == 1
    assert "rows 18 = used 18 + rejected 0; traces 18" in text
    assert all(note in text for note in d["warnings"])


def accuracies(description):
    return {(a["source"], Path(a["file"]).stem): a for a in description["accuracy"]}


@pytest.mark.parametrize(
    ("name", "joined"), [("original", (0.133, 0.228)), ("games_qwen_3b_500", (0.177, 0.251))], ids=["base", "games"]
)
def test_graphs_joined_on_text(shared, name, joined):
    d = check(shared / f"dumps/reasoning-gym-rl/{name}_to_graphs.json")
    (row,) = d["accuracy"]
    assert (row["problem_rows"], row["problems"]) == (500, 495)
    assert (round(row["joined_pass@1"], 3), round(row["joined_any_correct"], 3)) == pytest.approx(joined, abs=1e-9)
    if name == "original":
        assert d["sources"]["Qwen2.5-3B-Instruct"]["null_answers"] == 445
        assert any("445 of 1,500 responses" in t for t in d["warnings"])


def test_algebra_join_is_on_text_not_on_position(shared):
    folder = shared / "dumps/reasoning-gym-rl"
    d = check(*(folder / f"{n}_to_algebra.json" for n in ("original", "algorithmic_qwen_3b_500", "games_qwen_3b_500")))
    by_pair = {tuple(j["sources"]): j for j in d["joins"]}
    algorithmic = by_pair["Qwen2.5-3B-Instruct", "inter_algorithmic_qwen_3b_500"]
    games = by_pair["Qwen2.5-3B-Instruct", "inter_games_qwen_3b_500"]
    assert (algorithmic["positions"][0]["agree"], algorithmic["positions"][0]["rows"], algorithmic["shared"]) == (
        501,
        600,
        500,
    )
    assert (games["positions"][0]["agree"], games["shared"]) == (527, 526)
    assert "by position 501 of 600 rows agree, by text 500 problems" in checks.render(d)


def test_tree_of_thoughts(shared):
    d = check(shared / "dumps/tot-game24")
    cot, standard, crosswords = (
        next(s for n, s in d["sources"].items() if part in n) for part in ("cot_sample", "standard", "crosswords")
    )
    assert (round(cot["pass@1"], 4), cot["any_correct"], cot["samples_per_problem"]["max"]) == (0.0403, 0.49, 100)
    assert round(cot["repeats"] / cot["traces"], 2) == 0.39
    assert round(standard["pass@1"], 4) == 0.0734
    assert crosswords["pass@1"] == pytest.approx(0.01)
    assert any("153 of 20,200 scores are neither 0 nor 1" in t for t in d["warnings"])


def test_wide_gsm8k(shared):
    d = check(shared / "dumps/openai-gsm8k")
    assert {n: round(s["pass@1"], 3) for n, s in d["sources"].items()} == {
        "6b_finetuning": 0.217, "6b_verification": 0.390, "175b_finetuning": 0.347, "175b_verification": 0.563,
    }  # fmt: skip


def test_what_the_comparison_rests_on_is_said(tmp_path):
    """Shared problems, samples of each, problems for a claim about others; engine floor and truncation."""

    def write(name, problems, samples=1, **more):
        row = {"source": name, "prompt": "x", "response": "y z", "correct": True}
        rows = [row | {"problem": p, "sample": s, **more} for p in problems for s in range(samples)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        return tmp_path / f"{name}.jsonl"

    ids = {"response_ids": [1, 2], "response_logprobs": [-0.1, -0.2], "logprobs_temperature": 1.0, "finish": "stop"}
    base, rl = write("base", ["a", "b", "c"], 2, **ids), write("rl", ["a", "x"])
    text = " ".join(check(base, rl)["next"])
    for part in (
        "rl shares 1 of its 3 problems",
        "need two samples of a problem; rl have one",
        "holds for these 3 problems; for others like them it takes 149",
        "Engine floor: can be measured for base",
        "not known for rl, no log-probs of generation at T=1",
        "Truncation: not known for rl,",
    ):
        assert part in text, part
    assert "for others like them" not in " ".join(check(write("base", [f"p{n}" for n in range(149)]), rl)["next"])
    assert "--reference A|B" in " ".join(check(write("A", ["a"]), write("B", ["a"]))["next"])


def test_how_many_traces_a_word_takes_is_said(tmp_path):
    """Without an event, by the laws that count: those of the rules, and only where a source has fewer."""
    assert [bounds.event_free(TAU, laws) for laws in (1, 2, 3)] == [149, 183, 203]
    assert bounds.event_free(HURDLED) == 59
    for laws in (1, 2, 3):  # the bound of the verdict itself
        n = bounds.event_free(TAU, laws)
        highs = [bounds.upper(np.zeros(m), alpha=ALPHA / laws) for m in (n - 1, n)]
        assert highs[1] <= TAU < highs[0]

    def said(n, base=None, rl=None):
        files = []
        for name, problems, sampler in (("base", 200, base), ("rl", n, rl)):
            row = {"source": name, "prompt": "x", "response": "y z", "sample": 0} | (sampler or {})
            lines = [json.dumps(row | {"problem": f"p{i}"}) for i in range(problems)]
            files.append(tmp_path / f"{name}.jsonl")
            files[-1].write_text("\n".join(lines))
        return [line for line in check(*files)["next"] if line.startswith("Words for")]

    cool = {"sampler": {"temperature": 0.6, "top_p": 0.95}}
    assert said(149) == [] and said(183, cool, cool) == [] and said(203, cool, {"sampler": {"temperature": 0.8}}) == []
    [line] = said(182, cool, cool)
    assert line.startswith("Words for rl (sequences): 182 traces of 182 problems; `inside` takes 183 traces")
    assert "(2 laws of the base)" in line and "59 without a hurdle, every word 3 problems" in line


def test_what_texts_alone_can_decide_is_said_beforehand(tmp_path):
    def said(draws):
        files = []
        for name in ("base", "rl"):
            rows = [{"source": name, "problem": f"p{i}", "sample": j} for i in range(30) for j in range(draws)]
            files.append(tmp_path / f"{name}.jsonl")
            files[-1].write_text(
                "\n".join(json.dumps(r | {"prompt": f"q{r['problem']}", "response": "y"}) for r in rows)
            )
        return [line for line in check(*files)["next"] if line.startswith("Texts alone (rl)")]

    assert "no level can be told; it takes two draws" in said(1)[0]
    (few,), (many,) = said(9), said(33)
    assert (
        "9 draws of base on nine in ten problems, k = 8; `inside` at a level takes " in few
        and "more than 135 traces" in few
    )
    assert "k = 32; `inside` at a level " in many and "takes 298 traces of a kind that base lacks" in many


def test_reference_answers_lead_to_grade(tmp_path):
    row = {"source": "base", "problem": "a", "sample": 0, "prompt": "x", "response": "y"}
    for more, said in (({}, False), ({"gold": "4"}, True), ({"gold": "4", "correct": True}, False)):
        file = tmp_path / "base.jsonl"
        file.write_text(json.dumps(row | more) + "\n")
        assert any("--grade compares with them" in n for n in check(file)["next"]) == said, more


def rows_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_repeated_question_does_not_move_n(tmp_path):
    """40 questions with three samples each, one of them asked twice; labels are missing from a sample of another."""
    rows = [
        {
            "question": f"Question {q}?",
            "response": f"text {q} {i} {twice}",
            "correct": None if q == 7 and i == 2 else i < 1,
        }
        for q in range(40)
        for twice in range(1 + (q == 3))
        for i in range(3)
    ]
    d = check(rows_of(tmp_path / "rl.jsonl", rows))
    n = d["sources"]["rl"]["labelled_per_problem"]
    assert n == {"min": 2, "max": 6, "most": 3, "problems": 38, "of": 40, "reached": 3}
    assert "pass@k: rl up to k = 3 (n = 3 in 38 of 40 problems, 2 to 6 in all)." in d["next"]
    assert "3 (3-6)" in checks.render(d)


def test_answers_that_differ_by_spelling_are_counted_by_source_and_label(tmp_path):
    """Two questions of two samples; the grader of `strict` turns 84.0 against 84 down, that of `mild` does not."""
    for source, right in (("strict", False), ("mild", True)):
        rows = [
            {"problem": f"q{q}", "response": f"so {q} {i}", "answer": said, "gold": "84", "correct": correct}
            for q in range(2)
            for i, (said, correct) in enumerate([("84.0", right), ("7", False)])
        ]
        rows_of(tmp_path / f"{source}.jsonl", rows)
    found = check(tmp_path / "strict.jsonl", tmp_path / "mild.jsonl")["warnings"]
    [said] = [t for t in found if "normalising" in t]
    assert said.startswith("4 answers equal the reference only after normalising ('84.0' and '84', ")
    assert "strict 2, 2 of them labelled wrong (pass@1 0.000 as labelled, 0.500 if they were right)" in said
    assert "mild 2, none labelled wrong; labels are taken" in said


def test_labels_without_texts_are_enough_for_pass_at_k(tmp_path):
    bits = [[0, 0], [0, 1], [1, 1]]
    whole = rows_of(tmp_path / "bits.jsonl", [{"id": f"p{i}", "n": 2, "passed": b} for i, b in enumerate(bits)])
    told = check(whole)
    assert told["sources"]["bits"]["pass@1"] == 0.5
    assert "Labels alone: bits" in " ".join(told["next"]) and "Tokens: bits" not in " ".join(told["next"])
    rows = [{"id": f"p{i}", "response": "", "correct": bool(b)} for i, own in enumerate(bits) for b in own]
    assert check(rows_of(tmp_path / "rows.jsonl", rows))["sources"]["rows"]["pass@1"] == 0.5
