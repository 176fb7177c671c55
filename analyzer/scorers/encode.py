"""Prompt and response -> token ids, with every decision counted.

Ids of the dump win over text. Without ids, prompt and response are encoded separately, so that no token spans the
boundary. BOS comes exactly once. A chat template is applied to messages only, once. A bare question becomes a prompt
only by a template that the user chose. Nothing is cut here.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import AnalyzerError, DumpError, UsageError, nearest
from analyzer.records import Sampler, Trace

# How papers of the field rendered a bare question; {question} is replaced. "chat" means the tokenizer's own template.
TEMPLATES = {
    "none": "{question}",
    "chat": "",
    "qwen-boxed": "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    "question-answer": "Question: {question}\nAnswer:",
}


@dataclass(frozen=True)
class Encoded:
    """One trace as ids. `offset_T`: character offset of each response token in the response, -1 where unknown;
    `sampler`: the one by which logprob_source is asked for, None: not asked for."""

    trace: Trace
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    offset_T: np.ndarray
    decisions: tuple[str, ...] = ()  # which way prompt and response became ids
    sampler: Sampler | None = None

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def load_template(name: str | None) -> str | None:
    """The template text for a name of TEMPLATES or a file that contains {question}; None stays None."""
    if name is None or name == "chat":
        return name
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--template {name!r} is neither a file nor a known name{nearest(name, TEMPLATES)}")
    text = path.read_text(encoding="utf-8")
    if "{question}" not in text:
        raise UsageError(f"--template {name}: the file has no {{question}} to put the question into")
    return text


def encode(
    trace: Trace,
    tokenizer: Any,
    *,
    vocab_size: int,
    template: str | None = None,
    eos: int | None = None,
    asked: Trace | None = None,
) -> Encoded:
    """Turn one trace into ids; its `decisions` say which way they were made.

    template: what `load_template` returned, for traces whose dump holds only the bare question. eos: id appended to
    responses that are encoded from text and did not stop at the length limit. asked: the trace whose prompt (and
    `template`) is taken in place of its own. Raises DumpError (with the trace's file:line) for a missing prompt, an
    empty prompt without BOS, an empty response, or ids beyond the vocabulary.
    """
    counts: Counter = Counter()
    prompt_ids = encode_prompt(asked or trace, tokenizer, template, counts)
    if trace.response_ids is not None:
        response_ids = trace.response_ids
        offset_T = _offsets_of_ids(response_ids, trace.response, tokenizer)
        counts["response: ids from the dump"] += 1
    else:
        if tokenizer is None:
            raise DumpError(
                f"{trace.origin}: the model has no tokenizer and the dump has no response_ids for {trace.key}"
            )
        with _telling(trace, "response"):
            out = tokenizer(trace.response, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
        response_ids = tuple(out["input_ids"])
        offset_T = np.array(
            [a for a, _ in out["offset_mapping"]] if tokenizer.is_fast else [-1] * len(response_ids), np.int32
        )
        counts["response: text, encoded apart from the prompt (its ids may differ from those sampled)"] += 1
        if eos is not None and trace.finish != "length":
            response_ids += (eos,)
            offset_T = np.append(offset_T, np.int32(len(trace.response)))
            known = "" if trace.finish == "stop" else " although the dump does not say that it stopped"
            counts[f"response: end-of-sequence id {eos} appended{known}"] += 1
    if not response_ids:
        raise DumpError(f"{trace.origin}: empty response of {trace.key}: there is no token to score")
    for name, ids, of in (("prompt", prompt_ids, asked or trace), ("response", response_ids, trace)):
        worst = max(ids)
        if worst >= vocab_size or min(ids) < 0:
            raise DumpError(
                f"{of.origin}: {name} id {worst} of {of.key} is not in the model's vocabulary of {vocab_size}; "
                "the dump's ids belong to another tokenizer"
            )
    return Encoded(trace, tuple(prompt_ids), tuple(response_ids), offset_T.astype(np.int32), tuple(counts))


def encode_prompt(trace: Trace, tokenizer: Any, template: str | None, counts: Counter) -> tuple[int, ...]:
    """The ids of a trace's prompt; `counts` learns which way they were made. Raises DumpError as `encode` does."""
    if trace.prompt_ids is not None:
        counts["prompt: ids from the dump"] += 1
        return _checked(trace.prompt_ids, trace, tokenizer)
    if tokenizer is None:
        raise DumpError(f"{trace.origin}: the model has no tokenizer and the dump has no prompt_ids for {trace.key}")
    prompt = trace.prompt
    if prompt is not None and template is not None:
        counts["prompt: --template not used, the dump has the prompt"] += 1
    if prompt is None and trace.question is not None and template == "chat":
        prompt = [{"role": "user", "content": trace.question}]
        counts["prompt: question as one user message"] += 1
    elif prompt is None and trace.question is not None and template is not None:
        prompt = template.replace("{question}", trace.question)
        counts["prompt: question rendered by --template"] += 1
    if prompt is None:
        what = "only the bare question" if trace.question is not None else "neither prompt nor question"
        raise DumpError(
            f"{trace.origin}: the dump has {what} for {trace.key}; say how it was asked: --template FILE|NAME "
            f"({', '.join(TEMPLATES)}; 'none' = the question itself was the prompt)"
        )
    if isinstance(prompt, list):
        if not getattr(tokenizer, "chat_template", None):
            raise DumpError(
                f"{trace.origin}: the prompt of {trace.key} is messages, but the tokenizer has no chat template; "
                "render the prompts in the dump"
            )
        counts["prompt: messages rendered by the tokenizer's chat template"] += 1
        return tuple(
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        )
    with _telling(trace, "prompt"):
        ids = list(tokenizer(prompt)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        counts["prompt: the text began with BOS, the tokenizer's second BOS was left out"] += 1
        ids = ids[1:]
    if eos is not None and eos != bos and ids and ids[-1] == eos and not prompt.endswith(str(tokenizer.eos_token)):
        counts["prompt: end-of-sequence id that the tokenizer adds was left out"] += 1
        ids = ids[:-1]
    counts[f"prompt: text, {'with' if bos is not None and ids[:1] == [bos] else 'without'} BOS"] += 1
    return _checked(tuple(ids), trace, tokenizer)


@contextlib.contextmanager
def _telling(trace: Trace, what: str) -> Iterator[None]:
    """Say of which trace a text is that the tokenizer can't encode (a character that it has no piece for)."""
    try:
        yield
    except Exception as error:  # tokenizers raise Exception itself
        if isinstance(error, (AnalyzerError, MemoryError)):
            raise
        raise DumpError(
            f"{trace.origin}: the tokenizer can't encode the {what} of {trace.key} "
            f"({' '.join(str(error).split())[:200] or type(error).__name__}); leave the row out, or give its ids"
        ) from error


def _checked(ids: Sequence[int], trace: Trace, tokenizer: Any) -> tuple[int, ...]:
    if ids:
        return tuple(ids)
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None:
        raise DumpError(
            f"{trace.origin}: empty prompt of {trace.key} and no BOS token: nothing predicts the first response token"
        )
    return (bos,)


def _offsets_of_ids(ids: Sequence[int], response: str, tokenizer: Any) -> np.ndarray:
    """Offsets by decoding the ids piece by piece; all -1 where the pieces do not add up to the response."""
    unknown = np.full(len(ids), -1, np.int32)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return unknown
    from tokenizers.decoders import DecodeStream

    stream, text, offsets = DecodeStream(skip_special_tokens=True), "", []
    for i in ids:
        offsets.append(len(text))
        text += stream.step(backend, i) or ""
    lead = re.match(r"\s*", text).end()
    if text == response:
        return np.array(offsets, np.int32)
    if text[lead:] == response:  # dumps often strip the first blank
        return np.maximum(np.array(offsets, np.int32) - lead, 0)
    return unknown
