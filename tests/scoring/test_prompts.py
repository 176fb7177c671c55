"""Between prompt and response: begun turns, repeated tags, end tokens; templates that refuse or tell the day."""

from __future__ import annotations

import json
from datetime import date

import pytest
from made_tokenizers import build

from analyzer.api import pipeline, repeat
from analyzer.errors import DumpError, UsageError
from analyzer.records import Trace
from analyzer.runs.store import Run
from analyzer.scoring.encoding.encode import EXAMPLES, encode
from analyzer.scoring.encoding.prompts import LEFT_OUT

ASKED = [{"role": "user", "content": "2 + 3?"}]
REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('No\\nsystem') }}{% endif %}" + "{{ messages[9].x.y }}"
)
STRIPPING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y') }} {% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def words():
    return build("prepend")


def encoded(tokenizer, prompt=ASKED, response="5", *, date=None, eos=None, eos_ids=(), **values):
    trace = Trace("s", "p", 0, response, prompt=prompt, origin="d.jsonl:7", **values)
    return encode(trace, tokenizer, vocab_size=len(tokenizer), date=date, eos=eos, eos_ids=eos_ids)


def text(tokenizer, ids):
    return tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("chat", [None, STRIPPING])
@pytest.mark.parametrize("begun", ["<think>\nso", "<think>\n", "so ", "so"])
def test_a_begun_turn_of_the_assistant_stays_open(chat, begun):
    words = build("bytes", **({"chat": chat} if chat else {}))
    got = encoded(words, [*ASKED, {"role": "assistant", "content": begun}])
    assert text(words, got.prompt_ids) == f"<|user|>2 + 3?</s><|assistant|>{begun}"
    assert "prompt: the last message is the assistant's, the response continues it" in got.decisions


@pytest.mark.parametrize("begun", ["", "\n"])
def test_a_turn_of_which_nothing_is_there_is_begun_by_the_template(begun):
    words = build("bytes")
    got = encoded(words, [*ASKED, {"role": "assistant", "content": begun}])
    assert text(words, got.prompt_ids) == f"<|user|>2 + 3?</s><|assistant|>{begun}"
    assert not any("continues" in d for d in got.decisions)


@pytest.mark.parametrize("kind", ["bytes", "prepend"])
@pytest.mark.parametrize("tag", ["<think>", "[THINK]"])
def test_a_tag_that_the_prompt_ends_with_is_not_there_twice(kind, tag):
    words = build(kind, chat=STRIPPING.replace("<think>", tag))
    told = f"response: begins with the {tag} that the prompt ends with, which is left out"
    for prompt in (ASKED, f"2 + 3?{tag}\n"):
        got = encoded(words, prompt, f"{tag}\nso 5")
        assert told in got.decisions and text(words, got.response_ids).strip() == "so 5"
        assert got.offset_T[0] == len(tag) + 1
        alone = encoded(words, prompt, "so 5")
        assert alone.response_ids == got.response_ids and told not in alone.decisions
    other = encoded(words, f"2 + 3?{tag}\n", "<answer>5")
    assert text(words, other.response_ids).strip() == "<answer>5"
    assert text(words, encoded(words, f"2 + 3?{tag}", tag).response_ids).strip() == tag  # else nothing is left
    ids = tuple(words(f"{tag}\nso", add_special_tokens=False)["input_ids"])
    assert encoded(words, f"2 + 3?{tag}\n", f"{tag}\nso", response_ids=ids).response_ids == ids  # ids win


def test_an_end_token_is_there_once(words):
    end, other = words.eos_token_id, 9
    plain = encoded(words, "a", "b", eos=end)
    assert plain.response_ids[-1] == end and plain.response_ids.count(end) == 1
    assert encoded(words, "a", "b</s>", eos=end).response_ids == plain.response_ids
    # the text ends in one of the model's end tokens, and --eos names another one
    assert encoded(words, "a", "b</s>", eos=other, eos_ids=(end,)).response_ids == plain.response_ids
    told = [d for d in encoded(words, "a", "b</s>").decisions if "end token" in d]
    assert told == ["response: its text ends in an end token"]
    assert encoded(words, "a", "b", eos=end, finish="length").response_ids == plain.response_ids[:-1]


@pytest.mark.parametrize("kind", ["bytes", "prepend", "unigram"])
def test_what_a_tokenizer_adds_behind_a_text_is_left_out(kind):
    words = build(kind, back_added=True)
    for prompt in ("a", "a</s>", "<s>a"):
        got = encoded(words, prompt, "b")
        assert text(words, got.prompt_ids).replace(" ", "") == f"<s>{prompt.removeprefix('<s>')}"
        assert "prompt: </s> that the tokenizer adds at the end left out" in got.decisions
        assert words.eos_token_id not in got.response_ids and words.bos_token_id not in got.response_ids


def test_more_than_bos_in_front_stays_and_is_said(words):
    from tokenizers.processors import TemplateProcessing

    words = build("bytes")
    ids = [(t, words.convert_tokens_to_ids(t)) for t in ("<s>", "</s>")]
    words.backend_tokenizer.post_processor = TemplateProcessing(single="</s> <s> $A", special_tokens=ids)
    for prompt in ("a", "</s><s>a"):
        got = encoded(words, prompt, "b")
        assert text(words, got.prompt_ids) == "</s><s>a"
        assert "prompt: </s> <s> in front, as the tokenizer adds it" in got.decisions


def test_a_template_that_refuses_is_one_line_with_the_place():
    words = build("bytes", chat=REFUSING)
    for prompt, said in (
        ([{"role": "system", "content": "x"}, *ASKED], "No"),
        (ASKED, ".* has no (element|attribute) "),
    ):
        with pytest.raises(
            DumpError, match=rf"d\.jsonl:7: .*template can't render the prompt of s/p/0: {said}"
        ) as error:
            encoded(words, prompt)
        assert "\n" not in str(error.value)
    with pytest.raises(DumpError, match="can't render the prompt of s/p/0"):
        encoded(words, [])


SKIPPING = "{% for m in messages if m.role == 'user' %}<|user|>{{ m.content | trim }}</s>{% endfor %}<|assistant|>"


@pytest.mark.parametrize(
    ("chat", "system", "said"),
    [
        (SKIPPING, "Be brief.", ["system"]),
        (SKIPPING, " \n", []),
        ("<|user|>", "Be brief.", ["system", "user"]),
        (STRIPPING, " Be brief.\n", []),
        (DATED, "Be brief.", []),
    ],
)
def test_messages_that_a_template_does_not_write_are_counted(chat, system, said):
    """A system message is dropped in silence by some; the response would be scored after another prompt."""
    asked = [{"role": "system", "content": system}, {"role": "user", "content": " 2 + 3? "}]
    got = encoded(build("bytes", chat=chat), asked)
    assert [d.removeprefix(LEFT_OUT) for d in got.decisions if d.startswith(LEFT_OUT)] == said
    assert LEFT_OUT in EXAMPLES


def test_the_day_that_a_template_writes_is_fixed_and_said():
    import transformers.utils.chat_template_utils as used

    words, before = build("bytes", chat=DATED), used.datetime
    got = encoded(words, date="2024-07-26")
    assert text(words, got.prompt_ids).startswith("26 Jul 2024 ") and used.datetime is before
    told = "prompt: the chat template writes the date of the day, fixed at 2024-07-26 (--template-date)"
    assert told in got.decisions
    assert text(words, encoded(words).prompt_ids).startswith(date.today().strftime("%d %b %Y"))
    assert not any("date" in d for d in encoded(build("bytes"), date="2024-07-26").decisions)


@pytest.fixture()
def dated(tmp_path):
    """A model whose template tells the day, and a run with one trace."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words, folder = build("bytes", chat=DATED), tmp_path / "model"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    words.save_pretrained(folder)
    (tmp_path / "base.jsonl").write_text(json.dumps({"source": "base", "prompt": ASKED, "response": "5"}) + "\n")

    def make(name):
        run = Run.create(tmp_path / name)
        pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
        return run

    return make, str(folder)


def test_a_day_that_no_template_writes_is_said_once(tiny, tmp_path):
    row = {"source": "base", "prompt_ids": [1, 2], "response_ids": [3, 4], "response": "5"}
    (tmp_path / "base.jsonl").write_text(json.dumps(row) + "\n")
    run, said = Run.create(tmp_path / "run"), []
    pipeline.ingest(run, [str(tmp_path / "base.jsonl")])
    for times in (1, 2):  # once in each call
        pipeline.score(run, base=tiny.name, cross={"again": tiny.name}, template_date="2020-02-29", tell=said.append)
        told = [text for text in said if "template" in text]
        assert told == ["--template-date 2020-02-29: no chat template wrote a date, so it changed nothing"] * times
    assert run.manifest["calls"]["score"]["template_date"] == "2020-02-29"


def test_a_run_keeps_its_day(dated, monkeypatch):
    make, model = dated
    run = make("run")
    pipeline.score(run, base=model)
    today = date.today().isoformat()
    assert run.manifest["settings"]["template_date"] == today
    assert any(today in d for d in run.manifest["scorers"]["base"]["decisions"])
    with pytest.raises(UsageError, match=f'made with template_date="{today}", now template_date="2020-02-29"'):
        pipeline.score(run, base=model, template_date="2020-02-29")
    for wrong in ("2020-02-30", "20200229", "today"):
        with pytest.raises(UsageError, match="expected a day as YYYY-MM-DD"):
            pipeline.score(make("other"), base=model, template_date=wrong)
    old, said = make("old"), []
    for _ in range(2):  # also where all is there
        pipeline.score(old, base=model, template_date="2020-02-29", tell=said.append)
    assert not [text for text in said if "--template-date" in text]
    pipeline.score(Run.open(old.path), base=model)  # on another day it is still that one
    assert repeat.calls(Run.open(old.path))["score"]["template_date"] == "2020-02-29"
    assert old.prompts("base").keys() != run.prompts("base").keys()
