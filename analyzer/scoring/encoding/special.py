"""Special tokens that a text spells: control tokens, or words that look like them; a text alone does not tell which.

They are read as the tokenizer reads them, as tokens of their own: so does every engine that is given the text. Each is
counted by its name. What is put into a template (a question, a message) can so end a turn that the template began.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from analyzer.errors import UsageError
from analyzer.scoring.encoding.continuation import kind

IN_RESPONSE = "response: its text holds a special token before its end, read as one (ids would tell): "
IN_PROMPT = "prompt: its text holds a special token after its beginning, read as one (a quotation?): "
INJECTED = "prompt: what is put into the template holds a special token, read as one: "
RENDERED = "prompt: special tokens in its text read as such (text is taken as rendered)"
SAID = (IN_RESPONSE, IN_PROMPT, INJECTED)  # how decisions begin that name their first trace


def of_text(ids: Sequence[int], text: str, tokenizer: Any, among: Collection[int] | None = None) -> list[str]:
    """The special tokens that a text spells and that are among its ids, by name, sorted. among: only these."""
    known = kind(tokenizer).special
    found = [i for i in set(ids) if i in known and (among is None or i in among)]
    names = map(str, tokenizer.convert_ids_to_tokens(found)) if found else ()
    return sorted(name for name in names if name in text)


def of_messages(messages: Iterable[Any], tokenizer: Any) -> list[str]:
    """The special tokens that the contents of messages spell, by name, sorted."""
    found: set[str] = set()
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            found |= set(spelled(text, tokenizer)) if isinstance(text, str) else set()
    return sorted(found)


def spelled(text: str, tokenizer: Any) -> list[str]:
    """The special tokens that a text spells, by name, sorted; none where the tokenizer takes none from text."""
    if getattr(tokenizer, "split_special_tokens", False):
        return []
    return [name for name in kind(tokenizer).names if name in text]


def in_rendered(ids: Sequence[int], text: str, tokenizer: Any) -> tuple[list[str], bool]:
    """(tokens that no template writes after the beginning of a prompt, by name; whether there are any special ones) of
    a prompt that is text: BOS, the unknown token, a padding token that ends nothing."""
    about = kind(tokenizer)
    inner = ids[next((n for n, i in enumerate(ids) if i not in about.special), len(ids)) :]
    odd = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "unk", "pad")}
    odd -= {getattr(tokenizer, "eos_token_id", None)}
    unknown = getattr(tokenizer, "unk_token_id", None)
    return of_text(inner, text, tokenizer, odd), any(i in about.special and i != unknown for i in inner)


def checked_end(eos: int, loaded: Any, encoded: Iterable[Any], reference: str) -> str | None:
    """What is to be said of --eos under a model, None where it is one of its end tokens. Raises UsageError for an
    ordinary token that does not end half of the reference's recorded responses (those not said to be cut): it would
    be scored at the end of every text, and cut what stands behind it.

    encoded: the run's traces as ids, with `eos` among the end tokens.
    """
    name, tokenizer = f"id {eos}", loaded.tokenizer
    declared = sorted({*loaded.eos_ids, getattr(tokenizer, "eos_token_id", None)} - {None})  # a server declares none
    if eos in declared:
        return None
    if tokenizer is not None:
        name = str(tokenizer.convert_ids_to_tokens(eos))
    ends = [
        e.response_ids[-1] == eos
        for e in encoded
        if e.trace.source == reference and e.trace.response_ids is not None and e.trace.finish != "length"
    ]
    model = ", ".join(f"{i} ({tokenizer.convert_ids_to_tokens(i)})" if tokenizer else str(i) for i in declared)
    known = f"no end token of the model ({model or 'it names none'})"
    if tokenizer is None or eos in getattr(tokenizer, "added_tokens_decoder", {}) or eos in kind(tokenizer).special:
        return f"--eos {eos} is {name}, which is {known}"
    if ends and sum(ends) * 2 >= len(ends):
        return (
            f"--eos {eos} is {name}, an ordinary token and {known}; {sum(ends):,} of {len(ends):,} recorded responses "
            f"of {reference} end in it"
        )
    raise UsageError(
        f"--eos {eos} is {name!r}, an ordinary token of {loaded.name}: every response that is text would end in a "
        f"word, and no recorded responses of {reference} do; the model's end tokens: {model or 'it names none'}"
    )
