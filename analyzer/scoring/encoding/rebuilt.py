"""Tokenizers that transformers makes from a GGUF file: what it leaves out is put back where the file says what, and
the dump's own ids tell whether the rest is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyzer.scoring.encoding import continuation
from analyzer.scoring.encoding.encode import Encoded

# values of tokenizer.ggml.pre under which llama.cpp splits every digit before anything else
DIGITS = frozenset(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"))


def split_digits(tokenizer: Any, file: Path) -> None:
    """Give a tokenizer the splitter of digits that its GGUF file names and transformers drops, in place."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    if field is None or field.contents() not in DIGITS or not tokenizer.is_fast:
        return
    backend = tokenizer.backend_tokenizer
    before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), *before])


def differing(encoded: Sequence[Encoded], tokenizer: Any, file: Path) -> str | None:
    """A sentence on the dump's own ids that encode(decode(ids)) does not give back; None where it gives all, or the
    dump has none. A model may sample a word in other pieces than its tokenizer writes; at digits it hardly does."""
    compared, other, digits, first = 0, 0, 0, ""
    for item in encoded:
        if tokenizer is None or item.trace.response_ids is None:
            continue
        text = continuation.text_of(item.response_ids, item.prompt_ids, tokenizer, special=True)
        if text is None:
            continue
        compared += 1
        ids, _ = continuation.encode(text, item.prompt_ids, tokenizer)
        at = next((n for n, (a, b) in enumerate(zip(ids, item.response_ids)) if a != b), min(len(ids), len(item)))
        if ids == item.response_ids:
            continue
        other += 1
        want, got = (tokenizer.convert_ids_to_tokens(list(some[at : at + 2])) for some in (item.response_ids, ids))
        digits += any(c.isdigit() for token in (*want, *got) for c in str(token))
        first = (
            first or f"{item.trace.key} ({item.trace.origin}), token {at}: {want} in the dump, {got} by the tokenizer"
        )
    if not other:
        return None
    at_digits = f", {digits:,} of them at digits (is its splitter of digits lost?)" if digits else ""
    return (
        f"tokenizer: the one made from {file} writes {other:,} of {compared:,} responses in other ids than the dump "
        f"has{at_digits}; first {first}. The dump's ids are scored as they are; for text put the model's own "
        f"tokenizer.json into {file.parent}"
    )
