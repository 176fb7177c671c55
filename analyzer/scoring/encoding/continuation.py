"""A response's text -> ids, as what follows its prompt; ids -> the text that they add to a prompt.

SentencePiece kinds of tokenizers put a blank before every text: right at its beginning, a token that nobody sampled
before a response. They are used without that here, unless the prompt holds no text, so that the response begins one.
No token spans the boundary: the model sampled none that does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

TAIL = 8  # ids of the prompt that are decoded with what follows: what a decoder does at a beginning stays out of it
PROBES = ("a", "1", "the", "+", "x")  # texts, one of which a tokenizer should know
ANCHORS = (".", "\n", "a")  # texts to encode before a response where the tokenizer's parts are not to be had
_KINDS: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> its Kind


class Kind(NamedTuple):
    """What is looked up once of a tokenizer. special: the tokens that it names for a purpose, and those that are marked
    as special and have no other name (of chat templates). continuing: its backend without what marks the beginning of a
    text, None where that is the backend itself (or is not to be had)."""

    special: frozenset[int]
    names: tuple[str, ...]  # theirs, as texts spell them
    front: tuple[int, ...]  # ids that it adds before a text,
    back: tuple[int, ...]  # and behind it
    continuing: Any


def kind(tokenizer: Any) -> Kind:
    """The Kind of a tokenizer."""
    if tokenizer not in _KINDS:
        marked = {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
        special = frozenset(tokenizer.all_special_ids) | marked
        spell = getattr(tokenizer, "convert_ids_to_tokens", None)
        names = tuple(sorted(map(str, spell(sorted(special))))) if spell else ()
        _KINDS[tokenizer] = Kind(special, names, *_added(tokenizer), _continuing(tokenizer))
    return _KINDS[tokenizer]


def _added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokenizer adds before and behind a text."""
    for text in PROBES:
        try:
            whole, bare = (tuple(tokenizer(text, add_special_tokens=add)["input_ids"]) for add in (True, False))
        except Exception:  # a vocabulary of words may have none for this text
            continue
        for at in range(len(whole) - len(bare) + 1 if bare else 0):
            if whole[at : at + len(bare)] == bare:
                return whole[:at], whole[at + len(bare) :]
    return (), ()


def encode(text: str, prompt_ids: Sequence[int], tokenizer: Any) -> tuple[tuple[int, ...], np.ndarray]:
    """(ids, character offset of each int32 [T], -1 unknown) of a text after a prompt. Raises what the tokenizer does
    for text that it can't take."""
    if begins(prompt_ids, tokenizer) or (tokenizer.is_fast and kind(tokenizer).continuing is None):
        out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
        ids, spans = out["input_ids"], out["offset_mapping"] if tokenizer.is_fast else None
    elif tokenizer.is_fast:
        found = kind(tokenizer).continuing.encode(text, add_special_tokens=False)
        ids, spans = found.ids, found.offsets
    else:
        ids, spans = _after_anchor(text, tokenizer), None
    return tuple(ids), np.array([-1] * len(ids) if spans is None else [a for a, _ in spans], np.int32)


def begins(prompt_ids: Sequence[int], tokenizer: Any) -> bool:
    """Whether what follows these ids begins a text: there are only special ones."""
    return all(i in kind(tokenizer).special for i in prompt_ids)


def text_of(ids: Sequence[int], prompt_ids: Sequence[int], tokenizer: Any, *, special: bool) -> str | None:
    """The text that ids add to a prompt, special tokens as text or left out; None where it can't be told."""
    tail = list(prompt_ids[-TAIL:])
    before, both = (decode(some, tokenizer, special=special) for some in (tail, tail + list(ids)))
    return both[len(before) :] if both is not None and before is not None and both.startswith(before) else None


def decode(ids: Sequence[int], tokenizer: Any, *, special: bool) -> str | None:
    """The text of ids; None where the tokenizer fails on them."""
    try:
        return tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
    except Exception:  # tokenizers raise bare ones for ids that are no text
        return None


def pieces(ids: Sequence[int], prompt_ids: Sequence[int], tokenizer: Any, *, special: bool) -> tuple[str, np.ndarray]:
    """(text that ids add to a prompt, offset of each int32 [T]) id by id, for fast tokenizers. Raises what the
    tokenizer does for ids that are no text; the text lacks what bytes at its end leave open."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(ids=list(prompt_ids[-TAIL:]), skip_special_tokens=not special)
    parts, at, offsets = [], 0, []
    for i in ids:
        offsets.append(at)
        part = stream.step(tokenizer.backend_tokenizer, i)
        if part:
            parts.append(part)
            at += len(part)
    return "".join(parts), np.array(offsets, np.int32)


def _continuing(tokenizer: Any) -> Any:
    if not tokenizer.is_fast:
        return None
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: _unmarked(spec.get(name)) for name in ("normalizer", "pre_tokenizer")}
    if all(parts[name] == spec.get(name) for name in parts):
        return None
    return Tokenizer.from_str(json.dumps(spec | {**parts, "truncation": None, "padding": None}))


def _unmarked(part: Any) -> Any:
    """A normalizer or pre-tokenizer (as in tokenizer.json) without what it does at the beginning of a text alone."""
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "Sequence":
        name = "normalizers" if "normalizers" in part else "pretokenizers"
        kept = [p for p in map(_unmarked, part[name]) if p is not None]
        return part | {name: kept}
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        return part | {"prepend_scheme": "never"} | ({"add_prefix_space": False} if "add_prefix_space" in part else {})
    if kind == "ByteLevel" and part.get("add_prefix_space"):
        return part | {"add_prefix_space": False}
    if kind == "Strip" and part.get("strip_left"):
        return part | {"strip_left": False}
    return part


def _after_anchor(text: str, tokenizer: Any) -> list[int]:
    """The ids that a text adds to another one, the first of ANCHORS whose own ids stay as they are."""
    for anchor in ANCHORS:
        alone, both = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (anchor, anchor + text))
        if both[: len(alone)] == alone:
            return both[len(alone) :]
    return tokenizer(text, add_special_tokens=False)["input_ids"]
