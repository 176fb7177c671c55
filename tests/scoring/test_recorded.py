"""Recorded ids that tell against themselves are scored as they stand, and said."""

from __future__ import annotations

import pytest
from made_tokenizers import build

from analyzer.records import Trace
from analyzer.scoring.encoding import recorded
from analyzer.scoring.encoding.encode import encode

TEXT = "Once upon a time there was a little girl"
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}]


@pytest.fixture(scope="module", params=["bytes", "prepend"])
def words(request):
    return build(request.param)


def findings(words, prompt, prompt_ids, response_ids=(70, 71, 72, 73, 74, 75)):
    trace = Trace("s", "p", 0, "", prompt=prompt, prompt_ids=tuple(prompt_ids), response_ids=response_ids, origin="d:1")
    got = encode(trace, words, vocab_size=len(words))
    return [d for d in got.decisions if d in recorded.SAID], got


def test_ids_of_the_prompts_own_text_are_right(words):
    ids = words(TEXT)["input_ids"]
    rendered = words.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    chat = [1, *words(rendered, add_special_tokens=False)["input_ids"]]
    for prompt, some in (
        (TEXT, ids),
        (f"<s>{TEXT}", ids),
        (f" {TEXT}\n", ids),
        (None, ids),
        ("2 + 3?", chat),  # a question, and the ids that a template made of it
        (ASKED, chat),
        (rendered, chat),
        (f"</s></s><s>{TEXT}", [2, 2, *ids]),
    ):
        assert findings(words, prompt, some)[0] == [], prompt


def test_ids_of_another_prompt_are_said(words):
    ids = words(TEXT)["input_ids"]
    assert findings(words, "One day she saw a ball", ids)[0] == [recorded.OTHER_PROMPT]
    assert findings(words, [{"role": "user", "content": "7 * 8?"}], ids)[0] == [recorded.OTHER_PROMPT]
    assert findings(words, TEXT, ids[:1] + ids[4:])[0] == [recorded.OTHER_PROMPT]  # cut on the left
    found, got = findings(words, TEXT, ())
    assert recorded.OTHER_PROMPT in found and got.prompt_ids == (words.bos_token_id,)


def test_a_prompt_without_bos_is_said_where_the_tokenizer_puts_one(words):
    found, got = findings(words, TEXT, words(TEXT)["input_ids"][1:])
    assert found == [recorded.NO_BOS] and words.bos_token_id not in got.prompt_ids  # ids are what was sampled after


def test_a_prompt_of_one_token_is_said(words):
    assert findings(words, None, [0] * 5)[0] == [recorded.NO_BOS, recorded.ONE_TOKEN]


def test_a_prompt_that_has_ended_is_said(words):
    end = words.eos_token_id
    ids = words(TEXT)["input_ids"]
    assert findings(words, TEXT, [*ids, end])[0] == [recorded.ENDED]
    for prompt, wanted in (
        (f"{TEXT}</s>", [recorded.ENDED]),
        ("</s></s></s>", [recorded.ONE_TOKEN]),
        ("<s>", []),
        (TEXT, []),
        (ASKED, []),
    ):
        got = encode(Trace("s", "p", 0, "so", prompt=prompt, origin="d:1"), words, vocab_size=len(words))
        assert [d for d in got.decisions if d in recorded.SAID] == wanted, prompt
    silent = build("bytes", chat="{% for m in messages %}{{ m.content }}</s>{% endfor %}")  # asked to begin a turn
    got = encode(Trace("s", "p", 0, "so", prompt=ASKED, origin="d:1"), silent, vocab_size=len(silent))
    assert recorded.ENDED in got.decisions


def test_a_sequence_in_place_of_its_half_is_said(words):
    prompt, response = (
        tuple(words(TEXT)["input_ids"]),
        tuple(words(" and she was happy", add_special_tokens=False)["input_ids"]),
    )
    assert findings(words, TEXT, prompt + response, response)[0] == [recorded.HOLDS_RESPONSE]
    assert findings(words, TEXT, prompt, prompt + response)[0] == [recorded.HOLDS_PROMPT]
    assert findings(words, TEXT, prompt, response)[0] == []
