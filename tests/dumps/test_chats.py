"""Conversations in the roles and shapes that producers give them."""

import json

import pytest

from analyzer.dumps import read as dumps


def read(tmp_path, rows, name="logs/train_data_step12.jsonl"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return dumps.read_dumps([str(path)])


@pytest.mark.parametrize(
    "roles",
    [("human", "gpt"), ("user", "assistant"), ("prompter", "assistant"), ("Human", "Assistant"), ("human", "chatgpt"),
     ("USER", "ASSISTANT"), ("user", "model"), ("user", "bot"), ("human", "AI")],
)  # fmt: skip
@pytest.mark.parametrize("names", [("from", "value"), ("role", "content"), ("role", "text"), ("from", "content")])
def test_the_roles_of_conversations(tmp_path, roles, names):
    said = [{names[0]: role, names[1]: text} for role, text in zip(roles, ("What is 1+1?", "It is 2"), strict=True)]
    (trace,), _ = read(tmp_path, [{"conversations": said}])
    assert trace.response == "It is 2" and trace.question == "What is 1+1?"
    assert trace.prompt == [{"role": "user", "content": "What is 1+1?"}]


def test_a_tool_is_not_the_assistant(tmp_path):
    said = [("human", "q"), ("function_call", "{}"), ("observation", "3"), ("gpt", "It is 3")]
    (trace,), _ = read(tmp_path, [{"conversations": [{"from": r, "value": v} for r, v in said]}])
    assert trace.response == "It is 3" and [m["role"] for m in trace.prompt] == ["user", "function_call", "observation"]


@pytest.mark.parametrize("packed", [False, True])
def test_prompt_and_response_in_one_list_are_one_sample(tmp_path, packed):
    """NeMo-RL logs the texts of a sample as one list, and every value in a list of one."""
    rows = [
        {"content": [f"<user>q{i // 2}</user>", f"r{i}"], "rewards": float(i % 2), "input_lengths": 5,
         "generation_logprobs": [0.0, -0.1, -0.2, -0.1, -0.3], "idx": i}
        for i in range(4)
    ]  # fmt: skip
    if packed:
        rows = [{k: v if k == "idx" else [v] for k, v in row.items()} for row in rows]
    traces, ledger = read(tmp_path, rows)
    assert [t.response for t in traces] == ["r0", "r1", "r2", "r3"] and [t.correct for t in traces] == [0, 1, 0, 1]
    assert traces[0].prompt == "<user>q0</user>" and len({t.problem for t in traces}) == 2
    assert {t.source for t in traces} == {"logs"} and {t.step for t in traces} == {12}
    assert ledger.files[0]["format"] == "nemo-rl"


def test_a_list_of_more_texts_is_said(tmp_path):
    rows = [{"content": ["system", "q", "r"], "rewards": 1.0, "input_lengths": 3}]
    (trace,), ledger = read(tmp_path, rows)
    assert trace.response == "r" and trace.prompt == "systemq"
    assert any("last text" in n for n in ledger.notes)
