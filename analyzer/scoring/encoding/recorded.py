"""What ids tell against themselves: ids of another prompt, without BOS, of prompt and response at once, ended prompts.

They are scored as they stand, since they are what was sampled; what is found is counted, and said before scoring.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from analyzer.records import Trace
from analyzer.scoring.encoding.continuation import decode
from analyzer.scoring.encoding.padding import Marks

OTHER_PROMPT = "prompt: ids from the dump that do not hold the text of its prompt"
NO_BOS = "prompt: ids from the dump without BOS, which the tokenizer puts before a text"
ONE_TOKEN = "prompt: nothing but one special token again and again, as it stands"
ENDED = "prompt: ends in an end token, behind which models write nothing (has the template no generation prompt?)"
HOLDS_RESPONSE = "prompt: the recorded ids end in those of the response, as they stand"
HOLDS_PROMPT = "response: the recorded ids begin with those of the prompt, as they stand"
SAID = (OTHER_PROMPT, NO_BOS, ONE_TOKEN, ENDED, HOLDS_RESPONSE, HOLDS_PROMPT)
LEAST = 4  # ids in a row that are no coincidence

Ids = tuple[int, ...]


def of_prompt(trace: Trace, marks: Marks, tokenizer: Any) -> list[str]:
    """The findings on the recorded ids of a trace's prompt."""
    ids, text, out = tuple(trace.prompt_ids or ()), _text(trace), []
    if marks.bos is not None and marks.bos in marks.front and marks.bos not in ids:
        out.append(NO_BOS)
    if tokenizer is not None and text and not _holds(ids, text, tokenizer):
        out.append(OTHER_PROMPT)
    return out


def of_any_prompt(ids: Ids, marks: Marks) -> list[str]:
    """The findings on a prompt's ids, recorded or made from text."""
    bare = ids[len(marks.front) :] if ids[: len(marks.front)] == marks.front else ids
    if len(bare) > 1 and len(set(bare)) == 1 and bare[0] in marks.special | marks.ends | {marks.pad}:
        return [ONE_TOKEN]
    return [ENDED] if len(ids) > 1 and ids[-1] in marks.ends - {marks.bos} else []


def of_both(prompt_ids: Ids, response_ids: Ids) -> list[str]:
    """The findings on where the two repeat each other."""
    out, n, m = [], len(prompt_ids), len(response_ids)
    if LEAST <= m < n and prompt_ids[-m:] == response_ids:
        out.append(HOLDS_RESPONSE)
    if LEAST <= n < m and response_ids[:n] == prompt_ids:
        out.append(HOLDS_PROMPT)
    return out


def _text(trace: Trace) -> str:
    """What a prompt's ids should hold: its text, or that of its last message; "" where the dump has none."""
    prompt = trace.prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], dict):
        prompt = prompt[-1].get("content")
    return "".join(prompt.split()) if isinstance(prompt, str) else ""


@lru_cache(maxsize=64)  # the samples of a prompt stand together
def _holds(ids: Ids, text: str, tokenizer: Any) -> bool:
    """Whether ids hold a text, but for white space and special tokens; True where it can't be told."""
    texts = [decode(ids, tokenizer, special=special) for special in (True, False)]
    return None in texts or any(text in "".join(found.split()) for found in texts)
