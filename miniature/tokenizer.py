"""The word-level tokenizer: 0..99, operators, punctuation and the words of the domain. One word, one token.

`vocabulary()` needs nothing; `build()` makes the transformers tokenizer that is saved beside each model.
"""

from __future__ import annotations

from miniature.domain import HIGHEST
from miniature.traces import SYNONYMS

SPECIAL = ("<pad>", "<bos>", "<eos>")
PAD, BOS, EOS = range(3)

# `plan` and after: words for teachers that plan backwards; in pretraining they stand in `note` documents alone
WORDS = (
    "numbers", "make", "think", *SYNONYMS, *SYNONYMS.values(), "by", "multiply", "hmm", "well", "that", "is", "fact",
    "note", "plan", "need", "undo", "check", "ok", "no", "retry", "try", "have", "say", "just", "okay",
)  # fmt: skip
_IDS: dict[str, int] = {}
_WORDS: list[str] = []


def vocabulary() -> list[str]:
    """Every word that can stand in a text, without the special tokens."""
    return [*map(str, range(HIGHEST + 1)), "+", "-", "*", "/", "=", ".", ",", *WORDS]


def word_ids() -> dict[str, int]:
    """word -> token id, special tokens first."""
    return {word: i for i, word in enumerate([*SPECIAL, *vocabulary()])}


def encode(words: list[str]) -> list[int]:
    """Token ids of a list of words, without <bos> and <eos>. The same ids as the saved tokenizer gives."""
    if not _IDS:
        _IDS.update(word_ids())
    return [_IDS[word] for word in words]


def decode(ids: list[int]) -> str:
    """The text of token ids, special tokens left out. The same text as the saved tokenizer gives."""
    if not _WORDS:
        _WORDS.extend(vocabulary())
    return " ".join(_WORDS[i - len(SPECIAL)] for i in ids if i >= len(SPECIAL))


def build():
    """The PreTrainedTokenizerFast: whitespace split, <bos> in front, decode joins by one space."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(word_ids(), unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=192,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
