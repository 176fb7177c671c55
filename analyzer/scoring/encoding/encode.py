"""Prompt and response -> token ids, with every decision counted.

Ids of the dump win over text. Without ids the response is encoded as what follows its prompt (see `continuation`). BOS
comes exactly once, an end token at most once. A chat template is applied to messages only, once. A bare question
becomes a prompt only by a template that the user chose. Ids that are no words (padding) are left out, and said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.dumps.numbers import mask_of
from analyzer.errors import DumpError
from analyzer.records import Sampler, Trace
from analyzer.scoring.encoding import continuation, padding, recorded, special
from analyzer.scoring.encoding.prompts import LEFT_OUT, unwritten
from analyzer.scoring.encoding.prompts import prompt_ids as prompt_ids_of

ENCODING = 3  # version of how traces become scored ids: what two versions make can't stand in one run. 1, which no run
# recorded: text encoded apart from its prompt; padding, and what a mask covers, scored. 2: what is repeated behind any
# special token was padding; the padding that a prompt spells stayed
TAG = re.compile(r"(<[^<>\s]{1,40}>|\[[A-Z_]{1,40}\])(\s*)\Z")  # <think>, <|Assistant|>, [THINK]
OTHER_TEXT = "response: ids from the dump that decode to another text than the response"
NOT_WRITTEN = "response: text that the tokenizer can't write as it stands: its ids decode to another one"
NO_TEXT = "response: holds U+FFFD, which stands for bytes that were no text: its ids are not those sampled"
BEHIND = "response: what its text has behind the end token (padding, more end tokens, blanks) left out"
MASKED = "response: tokens that the policy did not write, by its mask, are conditioned on, not scored"
TEXT_PADDED = "prompt: padding that its text spells left out"
NOT_OWN = "response: its mask says that the policy wrote none of it"
UNSCORED = {  # decisions by which a trace has nothing to score -> its status
    padding.NOTHING: "empty response (padding alone)",
    NOT_OWN: "empty response (the mask leaves no token)",
}
EXAMPLES = (
    OTHER_TEXT,
    NOT_WRITTEN,
    NO_TEXT,
    BEHIND,
    LEFT_OUT,
    padding.TWICE,
    padding.REPEATED,
    TEXT_PADDED,
    *padding.PADDED.values(),
    *special.SAID,
    *recorded.SAID,
)  # (beginnings of) decisions of which run.json names the first trace


@dataclass(frozen=True)
class Encoded:
    """One trace as ids. `offset_T`: character offset of each response token in the response, -1 where unknown;
    `laws`: samplers by which the sampler columns are asked for beside those of the scorer's own, none of them plain;
    `own`: whether the policy wrote each response token, only those are scored, None: all."""

    trace: Trace
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    offset_T: np.ndarray
    decisions: tuple[str, ...] = ()  # which way prompt and response became ids
    laws: tuple[Sampler, ...] = ()
    own: tuple[bool, ...] | None = None

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)

    @property
    def at(self) -> slice | np.ndarray:
        """Where the scored tokens stand among those of the response, as an index."""
        return slice(0, len(self.response_ids)) if self.own is None else np.flatnonzero(self.own)

    @property
    def tokens(self) -> int:
        """How many are scored."""
        return len(self.response_ids) if self.own is None else sum(self.own)


def encode(
    trace: Trace,
    tokenizer: Any,
    *,
    vocab_size: int,
    template: str | None = None,
    eos: int | None = None,
    eos_ids: Collection[int] = (),
    date: str | None = None,
    marks: padding.Marks | None = None,
    asked: Trace | None = None,
) -> Encoded:
    """Turn one trace into ids; its `decisions` say which way they were made.

    template: what `prompts.load_template` returned, for traces whose dump holds only the bare question. eos: id
    appended to responses that are encoded from text, did not stop at the length limit and do not end in it, nor in
    another special token or one of eos_ids (the model's end tokens). date: what chat templates write as today,
    YYYY-MM-DD. marks: what padding of recorded ids is told by, None: by this tokenizer and eos_ids. asked: the trace
    whose prompt (and `template`) is taken in place of its own. Raises DumpError (with the trace's file:line) for a
    missing prompt, an empty prompt without BOS, an empty response, messages or text that template or tokenizer refuse,
    or ids beyond the vocabulary.
    """
    said: list[str] = []
    marks, own = marks or marks_of(tokenizer, eos_ids), None
    how = {"vocab_size": vocab_size, "date": date, "marks": marks}
    prompt_ids = encode_prompt(asked or trace, tokenizer, template, said, **how)
    if trace.response_ids is not None:
        _check(trace.response_ids, "response", trace, vocab_size)
        said.append("response: ids from the dump")
        begin, end = padding.of_response(trace.response_ids, marks, said)
        response_ids = tuple(trace.response_ids[begin:end])
        own = _own(trace, begin, end, said)
        if trace.prompt_ids is not None and asked is None:
            said += recorded.of_both(prompt_ids, response_ids)
        offset_T = _offsets(response_ids, prompt_ids, trace.response, tokenizer, own, said)
    else:
        if tokenizer is None:
            raise DumpError(
                f"{trace.origin}: the model has no tokenizer and the dump has no response_ids for {trace.key}"
            )
        ends = (marks.ends | marks.special | {eos}) - {marks.unk}  # the same under every model of a run
        begun = prompt_ids
        if asked is not None:  # the response has the tokens that it has after its own prompt, whatever it is put behind
            begun = () if trace.response[:1] not in "<[" else _own_prompt(trace, tokenizer, template, **how)
        response_ids, offset_T = _of_text(
            trace, prompt_ids, _doubled(trace.response, begun, tokenizer, said), tokenizer, said
        )
        length = _ended(response_ids, offset_T, trace.response, marks, eos)
        if length < len(response_ids):
            said.append(BEHIND)
            response_ids, offset_T = response_ids[:length], offset_T[:length]
        inner = response_ids[:-1] if response_ids and response_ids[-1] in ends else response_ids
        said += [special.IN_RESPONSE + name for name in special.of_text(inner, trace.response, tokenizer)]
        if response_ids and response_ids[-1] in ends:
            said.append("response: its text ends in an end token" + ("" if eos is None else ", no other is appended"))
        elif eos is not None and trace.finish != "length":
            response_ids += (eos,)
            offset_T = np.append(offset_T, np.int32(len(trace.response)))
            known = "" if trace.finish == "stop" else " although the dump does not say that it stopped"
            said.append(f"response: end-of-sequence id {eos} appended{known}")
        _check(response_ids, "response", trace, vocab_size)
    return Encoded(trace, tuple(prompt_ids), response_ids, offset_T.astype(np.int32), tuple(said), own=own)


def encode_prompt(
    trace: Trace,
    tokenizer: Any,
    template: str | None,
    said: list[str],
    *,
    vocab_size: int,
    date: str | None,
    marks: padding.Marks,
) -> tuple[int, ...]:
    """The ids of a trace's prompt without padding; adds to `said` which way they were made. Raises DumpError as
    `encode` does."""
    ids = tuple(prompt_ids_of(trace, tokenizer, template, said, date))
    _check(ids, "prompt", trace, vocab_size)
    if trace.prompt_ids is not None:
        begin, end = padding.of_prompt(ids, marks, said)
        ids = ids[begin:end]
        said += recorded.of_prompt(trace, marks, tokenizer)
    elif isinstance(trace.prompt, str):
        kept = padding.of_text(ids, trace.prompt, marks, continuation.kind(tokenizer).names)
        said += [TEXT_PADDED] * (kept != ids)
        odd, rendered = special.in_rendered(kept, trace.prompt, tokenizer)
        said += [special.IN_PROMPT + name for name in odd] + [special.RENDERED] * rendered
        ids = kept
    said += recorded.of_any_prompt(ids, marks)
    return ids


def _own(trace: Trace, begin: int, end: int, said: list[str]) -> tuple[bool, ...] | None:
    """Whether the policy wrote each of these response ids; None where it wrote all."""
    mask = mask_of(trace)
    if mask is None or all(mask[begin:end]):
        return None
    said.append(MASKED if any(mask[begin:end]) else NOT_OWN)
    return tuple(map(bool, mask[begin:end]))


def marks_of(tokenizer: Any, eos_ids: Collection[int]) -> padding.Marks:
    """By what padding is told: a tokenizer (None: there is none) and a model's end tokens."""
    found = None if tokenizer is None else continuation.kind(tokenizer)
    return padding.marks(tokenizer, eos_ids, *((frozenset(), ()) if found is None else (found.special, found.front)))


def _check(ids: Sequence[int], name: str, trace: Trace, vocab_size: int) -> None:
    if not ids:
        raise DumpError(f"{trace.origin}: empty {name} of {trace.key}: there is no token to score")
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(i for i in ids if not 0 <= i < vocab_size)
        raise DumpError(
            f"{trace.origin}: {name} id {wrong} of {trace.key} is not in the model's vocabulary of {vocab_size}; "
            "the dump's ids belong to another tokenizer"
        )


def _own_prompt(trace: Trace, tokenizer: Any, template: str | None, **how: Any) -> tuple[int, ...]:
    """The ids of a trace's own prompt, none where it has none that can be made."""
    try:
        return encode_prompt(trace, tokenizer, template, [], **how)
    except DumpError:
        return ()


def _of_text(
    trace: Trace, prompt_ids: tuple[int, ...], lead: int, tokenizer: Any, said: list[str]
) -> tuple[tuple[int, ...], np.ndarray]:
    """(ids, offsets) of a response that the dump has as text, without its first `lead` characters."""
    text = trace.response[lead:]
    try:
        ids, offset_T = continuation.encode(text, prompt_ids, tokenizer)
    except Exception as error:  # tokenizers raise bare ones
        raise unwritten(trace, "response", error) from None
    begins = continuation.begins(prompt_ids, tokenizer)
    how = "as the beginning of a text" if begins else "as what follows the prompt"
    said.append(f"response: text, encoded {how} (its ids may differ from those sampled)")
    if not begins and text[:1].isalnum() and continuation.kind(tokenizer).continuing:
        said.append("response: begins without a blank, as it stands (decoders of such tokenizers drop a leading one)")
    if "\ufffd" in text:
        said.append(NO_TEXT)
    if continuation.text_of(ids, prompt_ids, tokenizer, special=True) != text and (
        not begins or continuation.decode(ids, tokenizer, special=True) != text
    ):
        said.append(NOT_WRITTEN)
    return ids, np.where(offset_T < 0, offset_T, offset_T + lead)


def _ended(ids: tuple[int, ...], offset_T: np.ndarray, text: str, marks: padding.Marks, eos: int | None) -> int:
    """How many ids of a text end with its end token, where nothing but special tokens and blanks is behind that; else
    all. (Templates write a line break there, and decoders that keep special tokens the padding.)"""
    length, after = len(ids), len(text)
    ends, special = marks.ends | {eos}, marks.special | marks.ends | {marks.pad, marks.unk}
    for i in range(len(ids) - 1, -1, -1):
        begin = int(offset_T[i])
        if ids[i] in ends:
            length = i + 1
        elif ids[i] not in special and (begin < 0 or text[begin:after].strip()):
            break
        after = begin if begin >= 0 else after
    return length


def _doubled(text: str, prompt_ids: tuple[int, ...], tokenizer: Any, said: list[str]) -> int:
    """How many characters of the response repeat the tag that the prompt ends with: a template wrote <think>, and a
    parser put it before the response once more."""
    if not prompt_ids or text[:1] not in "<[":
        return 0
    end = TAG.search(continuation.decode(prompt_ids[-4 * continuation.TAIL :], tokenizer, special=True) or "")
    if end is None or not text.startswith(end[1]) or not text[len(end[1]) :].strip():
        return 0
    said.append(f"response: begins with the {end[1]} that the prompt ends with, which is left out")
    return len(end[0]) if text.startswith(end[0]) else len(end[1])


def _offsets(
    ids: Sequence[int],
    prompt_ids: Sequence[int],
    response: str,
    tokenizer: Any,
    own: Sequence[bool] | None,
    said: list[str],
) -> np.ndarray:
    """Offsets of recorded ids in a response, which may be the text of all or of those that the policy wrote; -1 where
    they are not known. Says where the ids are those of neither."""
    offset_T = np.full(len(ids), -1, np.int32)
    if tokenizer is None or not response:
        return offset_T
    found = _found(ids, prompt_ids, response, tokenizer)
    if found is not None:
        return found
    if own is not None and any(own):
        at = np.flatnonzero(own)
        found = _found([ids[i] for i in at], prompt_ids, response, tokenizer)
        if found is not None:
            offset_T[at] = found
            return offset_T
    said.append(OTHER_TEXT)
    return offset_T


def _found(ids: Sequence[int], prompt_ids: Sequence[int], response: str, tokenizer: Any) -> np.ndarray | None:
    """Offsets of ids whose text is the response, but for blanks at its ends, which are often stripped; all -1 where
    they can't be told, None for ids of another text."""
    wanted, texts = response.strip(), []
    for keep in (False, True):  # dumps leave special tokens out, or write them
        try:
            text, offset_T = continuation.pieces(ids, prompt_ids, tokenizer, special=keep)
        except Exception:  # bytes that are no text: bare exceptions, and tokenizers without such a stream
            text = None
        if text is not None and text.strip() == wanted:
            shift = len(response) - len(response.lstrip()) - (len(text) - len(text.lstrip()))
            return np.clip(offset_T + shift, 0, len(response))
        texts.append(continuation.text_of(ids, prompt_ids, tokenizer, special=keep))
    return np.full(len(ids), -1, np.int32) if any(t is not None and t.strip() == wanted for t in texts) else None
