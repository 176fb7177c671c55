"""Text that follows a prompt -> the ids that a model would have sampled, for every kind of tokenizer."""

from __future__ import annotations

import random

import numpy as np
import pytest
from made_tokenizers import KINDS, WORDS, build

from analyzer.errors import DumpError
from analyzer.records import Trace
from analyzer.scoring.encoding import continuation
from analyzer.scoring.encoding.encode import NO_TEXT, NOT_WRITTEN, OTHER_TEXT, encode


@pytest.fixture(scope="module", params=KINDS)
def words(request):
    return build(request.param)


@pytest.fixture(scope="module")
def prefixed():
    return build("prepend")


def encoded(tokenizer, response, prompt=None, **values):
    trace = Trace("s", "p", 0, response, prompt=prompt, origin="d.jsonl:7", **values)
    return encode(trace, tokenizer, vocab_size=len(tokenizer))


def test_the_continuation_of_a_text_has_the_ids_of_the_whole(words):
    """The oracle is the tokenizer's own encoding of prompt and response in one, where it has a boundary there."""
    found = 0
    for text in WORDS:
        for cut in range(1, len(text)):
            prompt = list(words(text[:cut])["input_ids"])
            whole = list(words(text)["input_ids"])
            if whole[: len(prompt)] != prompt:
                continue
            got = encoded(words, text[cut:], text[:cut])
            assert list(got.prompt_ids) == prompt and NOT_WRITTEN not in got.decisions
            if list(got.response_ids) == whole[len(prompt) :]:
                found += 1
            else:  # a piece that reaches over the boundary by its rules of cutting, as "\n\n" in two
                assert continuation.text_of(got.response_ids, prompt, words, special=True) == text[cut:]
    assert found > 50


def test_ids_come_back_from_their_text_or_are_counted(words):
    """Random ids, most of them nothing that a tokenizer writes: the same text, or a count; never in silence."""
    rng = random.Random(0)
    prompt = words(WORDS[0])["input_ids"]
    known = [i for i in range(len(words)) if i not in words.all_special_ids]
    same = counted = 0
    for _ in range(300):
        ids = tuple(rng.choices(known, k=rng.randint(1, 12)))
        text = continuation.text_of(ids, prompt, words, special=True)
        if not text:
            continue
        got = encoded(words, text, prompt_ids=tuple(prompt))
        if NOT_WRITTEN in got.decisions:
            counted += 1
        else:
            assert continuation.text_of(got.response_ids, prompt, words, special=True) == text
            same += 1
        again = encoded(words, text, prompt_ids=tuple(prompt), response_ids=got.response_ids)
        assert (OTHER_TEXT in again.decisions) == (NOT_WRITTEN in got.decisions)
    assert same > 20 and same + counted > 200


def test_no_blank_is_put_before_a_response(words):
    got = encoded(words, "girl", "a little ")
    assert words.decode(got.prompt_ids + got.response_ids).removeprefix("<s>").strip() == "a little girl"
    comma = encoded(words, ", in", "outside")
    assert continuation.text_of(comma.response_ids, comma.prompt_ids, words, special=True) == ", in"
    assert comma.offset_T[0] == 0 and (np.diff(comma.offset_T) >= 0).all()


def test_a_response_that_begins_the_text_is_encoded_as_one(prefixed):
    got = encoded(prefixed, "Once upon", prompt_ids=(prefixed.bos_token_id,))
    assert list(got.response_ids) == prefixed("Once upon", add_special_tokens=False)["input_ids"]
    assert "response: text, encoded as the beginning of a text (its ids may differ from those sampled)" in got.decisions


def test_a_response_that_may_have_lost_its_blank_is_counted(prefixed):
    told = "response: begins without a blank, as it stands (decoders of such tokenizers drop a leading one)"
    assert told in encoded(prefixed, "girl", "a little").decisions
    assert told not in encoded(prefixed, " girl", "a little").decisions
    assert told not in encoded(build("bytes"), "girl", "a little").decisions


def test_offsets_of_recorded_ids_know_the_blank_after_the_prompt(words):
    prompt = tuple(words("a little")["input_ids"])
    text = " girl named Lily."
    ids = encoded(words, text, prompt_ids=prompt).response_ids
    for written in (text, text.strip()):
        got = encoded(words, written, prompt_ids=prompt, response_ids=ids)
        assert OTHER_TEXT not in got.decisions and got.offset_T[0] == 0
        pieces = [written[a:b] for a, b in zip(got.offset_T, [*got.offset_T[1:], len(written)], strict=True)]
        assert "".join(pieces) == written and "Lily" in "".join(pieces[-6:])


def test_ids_of_another_text_are_counted(words):
    got = encoded(words, "other words", prompt_ids=(1, 9), response_ids=tuple(words("little girl")["input_ids"][1:]))
    assert got.decisions[-1] == OTHER_TEXT and set(got.offset_T) == {-1}
    text = "a girl</s>"
    ids = tuple(words(text, add_special_tokens=False)["input_ids"])
    for written in (text, "a girl"):  # special tokens written, or left out
        assert OTHER_TEXT not in encoded(words, written, prompt_ids=(1, 9), response_ids=ids).decisions


def test_the_text_may_be_that_of_the_policys_own_ids(words):
    own, tool = (words(t, add_special_tokens=False)["input_ids"] for t in ("a little girl", "x_1 = 15"))
    mask = [1] * len(own) + [0] * len(tool)
    more = {"prompt_ids": (1, 9), "response_ids": (*own, *tool), "meta": {"response_mask": mask}}
    for text in ("a little girl", words.decode([*own, *tool])):
        got = encoded(words, text, **more)
        assert OTHER_TEXT not in got.decisions and got.offset_T[got.at][0] == 0
        assert (np.diff(got.offset_T[got.at]) >= 0).all()
    assert OTHER_TEXT in encoded(words, "x_1", **more).decisions


def test_bytes_that_are_no_text_cost_their_trace_its_offsets_and_nothing_more(prefixed):
    byte = {b: prefixed.convert_tokens_to_ids(f"<0x{b:02X}>") for b in (0xE2, 0x80, 0xFF)}
    a = prefixed("a", add_special_tokens=False)["input_ids"]
    for ids in ([byte[0xE2]], [byte[0xFF], *a], [*a, byte[0xE2], byte[0x80]], [byte[0xE2], *a, byte[0xFF], byte[0x80]]):
        text = continuation.text_of(ids, (1, *a), prefixed, special=True)
        got = encoded(prefixed, text, prompt_ids=(1, *a), response_ids=tuple(ids))
        assert got.response_ids == tuple(ids) and len(got.offset_T) == len(ids)
        assert NO_TEXT in encoded(prefixed, text, prompt_ids=(1, *a)).decisions


def test_text_that_no_tokenizer_takes_is_refused_with_its_place(words):
    for values in ({"response": "a \ud800 b", "prompt": "a"}, {"response": "a", "prompt": "\udfff"}):
        with pytest.raises(DumpError, match=r"d\.jsonl:7: the tokenizer can't encode the (response|prompt) of s/p/0"):
            encoded(words, **values)


def test_a_tokenizer_without_parts_is_asked_after_an_anchor(prefixed):
    class Slow:
        """SentencePiece behind a wall: text to ids, nothing else."""

        is_fast, all_special_ids = False, [0, 1, 2]

        def __call__(self, text, **options):
            options.pop("return_offsets_mapping", None)
            return prefixed(text, **options)

    ids, offset_T = continuation.encode(", in the park", (1, 9, 300), Slow())
    assert ids == continuation.encode(", in the park", (1, 9, 300), prefixed)[0] and set(offset_T) == {-1}


def test_a_vocabulary_of_words_needs_no_word_for_the_probe():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    back = Tokenizer(models.WordLevel({"<s>": 0, "go": 1, "on": 2}))
    back.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=back, bos_token="<s>")
    assert encoded(words, "on", "go").response_ids == (2,)
    with pytest.raises(DumpError, match=r"d\.jsonl:7: the tokenizer can't encode the response of s/p/0 \(WordLevel"):
        encoded(words, "off", "go")
