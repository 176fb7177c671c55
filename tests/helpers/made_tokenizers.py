"""Small trained tokenizers of every kind that causal LMs have, each with <s>, </s> and a chat template."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = [
    "Once upon a time there was a little girl named Lily. She loved to play outside, in the park.",
    "One day she saw a big red ball!\n\nShe said: is it 12 + 3 = 15?  Yes\tit is (x_1, x_2).",
    "def f(x):\n    return x ** 2  # the square\nna\u00efve caf\u00e9 \u2013 r\u00e9sum\u00e9",
]
SPECIAL = ["<unk>", "<s>", "</s>"]
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
KINDS = ("bytes", "bytes-prefixed", "prepend", "metaspace-always", "metaspace-first", "metaspace-never", "unigram")


def _bpe(back: Tokenizer, **options) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet() if options.pop("byte_level", False) else []
    special = SPECIAL + [f"<0x{b:02X}>" for b in range(256)] * (not alphabet)
    back.train_from_iterator(
        WORDS * 3, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, **options)
    )


def build(kind: str, *, back_added: bool = False, chat: str = CHAT) -> PreTrainedTokenizerFast:
    """A tokenizer of one of KINDS that puts <s> before a text. back_added: and </s> behind it."""
    if kind.startswith("bytes"):
        back = Tokenizer(models.BPE())
        back.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "bytes-prefixed")
        back.decoder = decoders.ByteLevel()
        _bpe(back, byte_level=True)
    elif kind == "unigram":
        back = Tokenizer(models.Unigram())
        back.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        special = SPECIAL + [f"<0x{b:02X}>" for b in range(256)]
        back.train_from_iterator(
            WORDS * 3, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>")
        )
        back = _with_byte_fallback(back)
        back.decoder = _fallback_decoder()
    else:
        back = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        if kind == "prepend":
            back.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        else:
            scheme = kind.removeprefix("metaspace-")
            back.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        plain, back.normalizer = back.normalizer, None
        if kind == "prepend":  # words are cut for training alone
            back.pre_tokenizer = pre_tokenizers.Metaspace()
        _bpe(back)
        if kind == "prepend":
            back.normalizer, back.pre_tokenizer = plain, None
        back = _with_byte_fallback(back)
        back.decoder = _fallback_decoder(strip=kind != "metaspace-never")
    ids = [(t, back.token_to_id(t)) for t in ("<s>", "</s>")]
    back.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if back_added else "<s> $A", special_tokens=ids
    )
    names = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=back, chat_template=chat, **names)


def _fallback_decoder(strip: bool = True) -> decoders.Decoder:
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * strip)


def _with_byte_fallback(back: Tokenizer) -> Tokenizer:
    """Bytes stand in the vocabulary as ordinary tokens, as SentencePiece has them, not as special ones."""
    import json

    spec = json.loads(back.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] in SPECIAL]
    spec["model"]["byte_fallback"] = True
    out = Tokenizer.from_str(json.dumps(spec))
    out.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return out
