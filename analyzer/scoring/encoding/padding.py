"""Recorded ids that stand for nothing: the padding that made a batch even, at either end of a prompt or a response."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

PADDED = {
    (name, side): f"{name}: padding at the {side} of the recorded ids left out"
    for name in ("prompt", "response")
    for side in ("beginning", "end")
}
NOTHING = "response: nothing but padding"
REPEATED = "response: one word repeated behind a special token, as it stands (where that token is an end: --eos ID)"
TWICE = "prompt: the recorded ids begin with BOS more than once, as they stand"


class Marks(NamedTuple):
    """What is known of a dump's ids by a tokenizer: padding, BOS and unknown (None: it has none), end tokens, all
    special ones, and what it puts before a text. Of a run it is the first model's: what is padding is the same under
    every model, or they would score different tokens."""

    pad: int | None = None
    bos: int | None = None
    unk: int | None = None
    ends: frozenset[int] = frozenset()
    special: frozenset[int] = frozenset()
    front: tuple[int, ...] = ()


def of_prompt(ids: Sequence[int], marks: Marks, said: list[str]) -> tuple[int, int]:
    """(begin, end) of a prompt without its padding. Padding is: the padding token; whatever is repeated before BOS; a
    special token (an end token, unknown) more than once, at either end."""
    begin, end = 0, len(ids)
    first, last = ids[0], ids[-1]
    n, m = run(ids), run(ids[::-1])
    if n == len(ids):
        return begin, end
    before_bos = n < len(ids) and ids[n] == marks.bos and (n > 1 or first in marks.special)
    if first == marks.bos:
        if first == marks.pad:
            begin = n - 1
        elif n > 1 and marks.front[:2] != (first, first):
            said.append(TWICE)
    elif tuple(ids[: len(marks.front)]) == marks.front and marks.front:
        pass
    elif first == marks.pad or before_bos or (n > 1 and first in marks.special):
        begin = n
    if (last == marks.pad and last not in marks.ends) or (m > 1 and last in marks.special | marks.ends):
        end -= m
    _say("prompt", begin, end, len(ids), said)
    return begin, end


def of_response(ids: Sequence[int], marks: Marks, said: list[str]) -> tuple[int, int]:
    """(begin, end) of a response without its padding: as in a prompt, and what is repeated after an end token. Any
    special token may end a response of some model: behind it padding and special tokens are left out, words only behind
    one that is known to end. Of repeated end tokens the first is the model's own. A response of nothing else is left as
    it is, and said."""
    begin, end = 0, len(ids)
    first, last = ids[0], ids[-1]
    m = run(ids[::-1])
    special = marks.special | marks.ends
    before = ids[-m - 1] if m < len(ids) else None
    filler = last in special or last == marks.pad
    may_end = special - ({marks.pad, marks.bos, marks.unk} - marks.ends)  # padding before an end was drawn
    if before in may_end and (filler or (m > 1 and before in marks.ends)):
        end -= m
    elif last in marks.ends or (last in special and last not in (marks.pad, marks.unk)):
        end -= m - 1
    elif last == marks.pad or (m > 1 and last == marks.unk):
        end -= m
    n = run(ids[:end]) if end else 0
    if n < end and ((first == marks.pad and first not in marks.ends) or (n > 1 and first in special)):
        begin = n
    if end == 0:
        said.append(NOTHING)
        return 0, len(ids)
    if end == len(ids) and m > 1 and before in special and not filler:
        said.append(REPEATED)
    _say("response", begin, end, len(ids), said)
    return begin, end


def of_text(ids: Sequence[int], text: str, marks: Marks, names: tuple[str, ...]) -> tuple[int, ...]:
    """The ids of a prompt's text without the padding that it spells at either end (batches that are decoded with their
    special tokens, `names`). What the tokenizer put in front stays there, once."""
    at_begin, at_end, ids = text.lstrip().startswith(names), text.rstrip().endswith(names), tuple(ids)
    front = marks.front
    added = front if at_begin and ids[: len(front)] == front else ()
    bare = ids[len(added) :]
    if not (at_begin or at_end) or not bare:
        return ids
    begin, end = of_prompt(bare, marks, [])
    kept = bare[begin if at_begin else 0 : end if at_end else len(bare)]
    return kept if kept[: len(front)] == front else added + kept


def run(ids: Sequence[int]) -> int:
    """How often the first id stands at the beginning."""
    return next((n for n, i in enumerate(ids) if i != ids[0]), len(ids))


def marks(tokenizer: object, ends: Collection[int], special: frozenset[int], front: tuple[int, ...]) -> Marks:
    """The Marks of a tokenizer, None for none; ends: the model's end tokens."""
    eos = getattr(tokenizer, "eos_token_id", None)
    pad, bos = getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "bos_token_id", None)
    unk = getattr(tokenizer, "unk_token_id", None)
    return Marks(pad, bos, unk, frozenset(ends) | ({eos} - {None}), special, front)


def as_json(found: Marks) -> dict[str, Any]:
    """The Marks as run.json keeps them."""
    return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in found._asdict().items()}


def of_json(held: Mapping[str, Any]) -> Marks:
    """The inverse of `as_json`."""
    kinds = {"ends": frozenset, "special": frozenset, "front": tuple}
    return Marks(**{k: kinds[k](v) if k in kinds else v for k, v in held.items()})


def _say(name: str, begin: int, end: int, length: int, said: list[str]) -> None:
    if begin:
        said.append(PADDED[name, "beginning"])
    if end < length:
        said.append(PADDED[name, "end"])
