"""Raw values -> checked ones, kind by kind: text, numbers, ids, parts of messages, prompts, answers.

A value of the wrong kind is a Fault that says what is allowed.
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

from analyzer.dumps import media
from analyzer.dumps.paths import Fault, show

TEXT_PARTS = ("text", "output_text", "input_text")
TRUE, FALSE = {"true", "1"}, {"false", "0"}


def text(value: Any, name: str) -> str:
    """A string that UTF-8 can hold."""
    if not isinstance(value, str):
        raise Fault(f"{name} is not text", f"{name} = {show(value)} ({type(value).__name__}); expected a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise Fault(
                f"{name} is not valid text",
                f"{name} holds a lone surrogate at character {e.start}, which UTF-8 can't write",
            ) from None
    return value


def integer(value: Any, name: str, top: int = 2**62) -> int:
    """An integer 0 <= value < top; true and false are none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < top:
        raise Fault(f"bad {name}", f"{name} = {show(value)}; expected an integer >= 0 and < 2^{top.bit_length() - 1}")
    return value


def number(value: Any, name: str) -> float:
    """A finite number; true and false count as 1 and 0."""
    if (
        not isinstance(value, (int, float))
        or (isinstance(value, int) and abs(value) > 10**300)
        or not math.isfinite(value)
    ):
        raise Fault(f"bad {name}", f"{name} = {show(value)}; expected a finite number")
    return float(value)


def truth(value: Any, name: str = "correct") -> bool | None:
    """True, False or None; anything that would have to be interpreted is a Fault."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in TRUE | FALSE:
        return value.strip().lower() in TRUE
    graded = isinstance(value, float) and name == "correct"
    hint = "; a grade in between belongs to --map score=FIELD and --threshold" if graded else ""
    raise Fault(f"bad {name}", f"{name} = {show(value)}; expected true, false, 1, 0 or null{hint}")


def votes(value: Any, name: str) -> list[bool]:
    """One verdict or several as a list; null has none."""
    given = value if isinstance(value, list) else [value]
    return [vote for one in given if (vote := truth(one, name)) is not None]


def ids(value: Any, name: str) -> tuple[int, ...]:
    """Token ids: a flat list of integers >= 0."""
    if not isinstance(value, list):
        raise Fault(f"bad {name}", f"{name} = {show(value)}; expected a list of integers >= 0")
    if value and not ({*map(type, value)} == {int} and min(value) >= 0 and max(value) < 2**31):
        i, v = next((i, v) for i, v in enumerate(value) if type(v) is not int or not 0 <= v < 2**31)
        raise Fault(f"bad {name}", f"{name}[{i}] = {show(v)}; expected an integer >= 0 and < 2^31")
    return tuple(value)


def parts(value: list[Any], name: str, shown: list[str] | None = None) -> tuple[str, str]:
    """(text, reasoning) of a content that is a list of parts, as OpenAI and Inspect messages have it. shown: takes
    what images and the like are. Without it these are a Fault, as any other part (a tool call) is: the text alone would
    not be what the model saw or wrote."""
    texts, thoughts = [], []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS:
            texts.append(text(part.get("text", part.get("content")), name))
        elif kind in ("reasoning", "thinking"):
            thoughts.append(text(part.get("reasoning", part.get("thinking")), name))
        elif shown is not None and (one := media.of_part(part)):
            shown.append(one)
        else:
            raise Fault(
                f"bad {name}", f"{name} has the part {show(part)}; expected parts of type text or reasoning only"
            )
    return "".join(texts), "".join(thoughts)


TAGGED = re.compile(r"<(\w+)>.*</\1>\Z", re.S)


def thought(reasoning: str, response: str) -> str:
    """Reasoning and answer that were kept apart, as one text: tags that are there already stay as they are. The tags
    and blanks between the two are an assumption."""
    why = bare(reasoning)
    if not why:
        return response
    between = "" if response[:1] == "\n" else "\n\n"
    if not TAGGED.match(why):
        closed = response.lstrip().startswith("</think>")
        why, between = f"<think>\n{why}\n{'' if closed else '</think>'}", "" if closed else between
        response = response.lstrip() if closed else response
    return why + between + response


def bare(reasoning: str) -> str:
    """Reasoning without the blanks and the tags of thought around it."""
    return reasoning.strip().removeprefix("<think>").removesuffix("</think>").strip()


def prompt(value: Any) -> str | list[dict[str, Any]]:
    """A text, or chat messages with a role and a content (text, or a list of parts: the texts are joined, and what the
    others show is kept beside them as `images`)."""
    if isinstance(value, list):
        if not value:
            raise Fault("bad prompt", "the prompt is an empty list; expected text or chat messages")
        out = []
        for i, message in enumerate(value):
            content = message.get("content") if isinstance(message, dict) else None
            if not isinstance(content, (str, list)) or not isinstance(message.get("role"), str):
                raise Fault(
                    "bad prompt",
                    f'message {i} of the prompt is {show(message)}; expected {{"role": text, "content": text}}',
                )
            shown = list(media.of_column(message.get("images")))
            if isinstance(content, list):
                message = {**message, "content": thought(*parts(content, "prompt", shown)[::-1])}
            text(message["content"], "prompt")
            out.append({**message, "images": shown} if shown else message)
        try:
            orjson.dumps(out)
        except TypeError:  # in a role or a further field of a message
            raise Fault(
                "bad prompt", "a chat message holds a value that JSON can't write (a lone surrogate, ...)"
            ) from None
        return out
    return text(value, "prompt")


def answer(value: Any) -> str | None:
    """An answer as text: numbers as they stand in the file, those of a list joined; None for an empty list."""
    if isinstance(value, list):
        return ", ".join(answer(v) or "" for v in value) if value else None
    if isinstance(value, str):
        return text(value, "answer")
    if isinstance(value, (bool, int, float)):
        return str(value)
    raise Fault("bad answer", f"answer = {show(value)}; expected text, a number or null")


def step(value: Any) -> int:
    """A training step: an integer, or text that ends in one ("checkpoint-500")."""
    if isinstance(value, str) and (found := re.search(r"(\d{1,15})$", value)):
        return int(found[1])
    return integer(value, "step")
