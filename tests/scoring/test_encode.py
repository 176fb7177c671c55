"""The boundary between prompt and response, BOS, templates, offsets - on two real tokenizers."""

from __future__ import annotations

import pytest

from analyzer.errors import DumpError, UsageError
from analyzer.records import Trace
from analyzer.scoring.encoding.encode import BEHIND, encode
from analyzer.scoring.encoding.prompts import load_template


@pytest.fixture(scope="module")
def llama(stories):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(stories)


@pytest.fixture(scope="module")
def qwen(shared):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared / "models" / "qwen2-tokenizer")


def trace(**values):
    return Trace("s", "p", 0, **({"response": "x", "origin": "d.jsonl:7"} | values))


def test_ids_of_the_dump_win_over_text(qwen):
    # sampled as "<thi" + "nk" where the tokenizer would write "<th" + "ink"
    ids = tuple(qwen("<thi")["input_ids"] + qwen("nk")["input_ids"])
    prompt = tuple(qwen("hel")["input_ids"] + qwen("lo")["input_ids"])
    assert list(ids) != qwen("<think")["input_ids"] and list(prompt) != qwen("hello")["input_ids"]
    got = encode(
        trace(prompt="hello", response="<think", response_ids=ids, prompt_ids=prompt), qwen, vocab_size=151_936
    )
    assert got.prompt_ids == prompt and got.response_ids == ids
    assert got.decisions == ("prompt: ids from the dump", "response: ids from the dump")


def test_prompt_and_response_are_encoded_apart(qwen):
    got = encode(trace(prompt="Once upon a ti", response="me there"), qwen, vocab_size=151_936)
    assert qwen.decode(got.prompt_ids) == "Once upon a ti" and qwen.decode(got.response_ids) == "me there"
    assert list(got.prompt_ids) + list(got.response_ids) != qwen("Once upon a time there")["input_ids"]


def test_bos_comes_exactly_once(llama):
    bos = llama.bos_token_id
    for prompt in ("Tell me", llama.bos_token + "Tell me"):
        got = encode(trace(prompt=prompt), llama, vocab_size=512)
        assert list(got.prompt_ids).count(bos) == 1 and got.prompt_ids[0] == bos
        assert bos not in got.response_ids


def test_chat_template_on_messages_only_and_once(qwen):
    messages = [{"role": "user", "content": "2+2?"}]
    got = encode(trace(prompt=messages), qwen, vocab_size=151_936)
    text = qwen.decode(got.prompt_ids)
    assert text == qwen.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    plain = encode(trace(prompt="2+2?"), qwen, vocab_size=151_936)
    assert qwen.decode(plain.prompt_ids) == "2+2?"


def test_a_bare_question_needs_a_template(qwen):
    bare = trace(question="2+2?")
    with pytest.raises(DumpError, match=r"d\.jsonl:7: the dump has only the bare question for s/p/0; .*--template"):
        encode(bare, qwen, vocab_size=151_936)
    assert qwen.decode(encode(bare, qwen, vocab_size=151_936, template=load_template("none")).prompt_ids) == "2+2?"
    boxed = qwen.decode(encode(bare, qwen, vocab_size=151_936, template=load_template("qwen-boxed")).prompt_ids)
    assert boxed.endswith("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n") and "\\boxed{}" in boxed
    with pytest.raises(UsageError, match="did you mean 'qwen-boxed'"):
        load_template("qwen-boxd")


def test_template_file_must_have_a_place_for_the_question(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("no place")
    with pytest.raises(UsageError, match=r"has no \{question\}"):
        load_template(str(file))
    file.write_text("Q {question} A")
    assert load_template(str(file)) == "Q {question} A"


@pytest.mark.parametrize("end", ["</s></s></s>", "</s>\n", "</s> \n </s>", "</s><unk><unk>"])
@pytest.mark.parametrize("eos", [None, 2])
def test_what_text_has_behind_its_end_token_is_left_out(llama, end, eos):
    plain = encode(trace(prompt="a", response="b c</s>"), llama, vocab_size=512, eos=eos)
    got = encode(trace(prompt="a", response="b c" + end), llama, vocab_size=512, eos=eos)
    assert got.response_ids == plain.response_ids and got.response_ids.count(2) == 1
    assert got.offset_T.tolist() == plain.offset_T.tolist() and BEHIND in got.decisions
    assert BEHIND not in plain.decisions


@pytest.mark.parametrize("text", ["b</s>c", "b</s> c\n", "b\n", "b <unk>\n", "b 11"])
def test_text_that_goes_on_behind_an_end_token_stays(llama, text):
    got = encode(trace(prompt="a", response=text), llama, vocab_size=512)
    assert BEHIND not in got.decisions
    assert encode(trace(prompt="a", response=text), llama, vocab_size=512, eos=2).response_ids == (*got.response_ids, 2)


def test_eos_is_added_to_text_that_was_not_cut(llama):
    assert encode(trace(prompt="a", response="b"), llama, vocab_size=512, eos=2).response_ids[-1] == 2
    assert encode(trace(prompt="a", response="b", finish="length"), llama, vocab_size=512, eos=2).response_ids[-1] != 2
    assert encode(trace(prompt="a", response_ids=(5,)), llama, vocab_size=512, eos=2).response_ids == (5,)
    unknown = encode(trace(prompt="a", response="b"), llama, vocab_size=512, eos=2)
    assert "although the dump does not say that it stopped" in unknown.decisions[-1]


def test_what_cannot_be_scored_is_refused_with_its_place(llama):
    with pytest.raises(DumpError, match="d.jsonl:7: empty response"):
        encode(trace(prompt="a", response=""), llama, vocab_size=512)
    with pytest.raises(DumpError, match="response id 600 of s/p/0 is not in the model's vocabulary of 512"):
        encode(trace(prompt="a", response_ids=(5, 600)), llama, vocab_size=512)
    with pytest.raises(DumpError, match="no tokenizer"):
        encode(trace(prompt="a"), None, vocab_size=512)


@pytest.mark.parametrize("text", ["Once upon a time.", "  two  blanks", "x²+π≠∞ 你好", "a\n\nb\t"])
def test_offsets_point_at_the_text_of_each_token(qwen, text):
    by_text = encode(trace(prompt="p", response=text), qwen, vocab_size=151_936)
    ids = by_text.response_ids
    by_ids = encode(trace(prompt="p", response=text, response_ids=ids), qwen, vocab_size=151_936)
    assert by_ids.offset_T[0] == 0 and (by_ids.offset_T[1:] >= by_ids.offset_T[:-1]).all()
    for a, b, token in zip(by_ids.offset_T, [*by_ids.offset_T[1:], len(text)], ids):
        piece = qwen.decode([token])
        if "\ufffd" not in piece:  # a token of whole characters
            assert text[a:b] == piece


def test_offsets_are_unknown_when_ids_and_text_disagree(qwen):
    got = encode(
        trace(prompt="p", response="other words", response_ids=tuple(qwen("first words")["input_ids"])),
        qwen,
        vocab_size=151_936,
    )
    assert set(got.offset_T) == {-1}


def test_recorded_ids_of_a_real_dump(shared, qwen):
    """Known answers of the LightEval dump: prompts reproduce, responses often do not (so ids must win)."""
    import pyarrow.parquet as pq

    folder = shared / "dumps" / "lighteval-math500"
    differing = {}
    for file in sorted(folder.glob("*.parquet")):
        rows = pq.read_table(file).to_pylist()
        assert sum(
            list(qwen(r["model_response"]["input"])["input_ids"]) == list(r["model_response"]["input_tokens"])
            for r in rows
        ) == len(rows)
        differing[file.name[:4]] = 0
        for r in rows:
            special = set(qwen.all_special_ids)  # the recorded ids end in <|im_end|>, which the text leaves out
            ids = tuple(i for i in r["model_response"]["output_tokens"][0] if i not in special)
            text = r["model_response"]["text"][0]
            got = encode(trace(prompt_ids=(1,), response=text), qwen, vocab_size=151_936)
            differing[file.name[:4]] += got.response_ids != ids
    assert differing == {"base": 56, "grpo": 283}
