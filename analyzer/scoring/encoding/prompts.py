"""A trace's prompt -> ids: recorded ids, text, messages by the tokenizer's chat template, a question by --template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import Any

from analyzer.errors import DumpError, UsageError, nearest
from analyzer.records import Trace
from analyzer.scoring.encoding import special
from analyzer.scoring.encoding.continuation import kind

# How papers of the field rendered a bare question; {question} is replaced. "chat" means the tokenizer's own template.
TEMPLATES = {
    "none": "{question}",
    "chat": "",
    "qwen-boxed": "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    "question-answer": "Question: {question}\nAnswer:",
}
DATED = "prompt: the chat template writes the date of the day, fixed at "  # how that decision begins
LEFT_OUT = "prompt: the chat template does not write, as it stands, a message of role "
UNDATED = "--template-date {}: no chat template wrote a date, so it changed nothing"


def today() -> str:
    """The day that chat templates write where no other is wanted, YYYY-MM-DD."""
    return Date.today().isoformat()


def load_template(name: str | None) -> str | None:
    """The template text for a name of TEMPLATES or a file that contains {question}; None stays None."""
    if name is None or name == "chat":
        return name
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--template {name!r} is neither a file nor a known name{nearest(name, TEMPLATES)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DumpError(f"--template {name}: this file can't be read: {error}") from None
    if "{question}" not in text:
        raise UsageError(f"--template {name}: the file has no {{question}} to put the question into")
    return text


def prompt_ids(
    trace: Trace, tokenizer: Any, template: str | None, said: list[str], date: str | None
) -> tuple[int, ...]:
    """The ids of a trace's prompt, BOS where there would be none; adds to `said` which way they were made. date: what
    chat templates write as today, YYYY-MM-DD, None: today. Raises DumpError with the trace's place."""
    shown = trace.meta.get("images")
    if isinstance(shown, (list, tuple)) and shown:  # the dump's own meta may hold a count under this name
        raise DumpError(
            f"{trace.origin}: the prompt of {trace.key} shows {shown[0]}, which this scorer would not see: its "
            "log-probs would be those of another prompt. Leave such rows out, or bring their log-probs (base_logprobs)"
        )
    if trace.prompt_ids is not None:
        said.append("prompt: ids from the dump")
        return _checked(trace.prompt_ids, trace, tokenizer)
    if tokenizer is None:
        raise DumpError(f"{trace.origin}: the model has no tokenizer and the dump has no prompt_ids for {trace.key}")
    prompt = trace.prompt
    if prompt is not None and template is not None:
        said.append("prompt: --template not used, the dump has the prompt")
    if prompt is None and trace.question is not None and template == "chat":
        prompt = [{"role": "user", "content": trace.question}]
        said.append("prompt: question as one user message")
    elif prompt is None and trace.question is not None and template is not None:
        prompt = template.replace("{question}", trace.question)
        said += [special.INJECTED + name for name in special.spelled(trace.question, tokenizer)]
        said.append("prompt: question rendered by --template")
    if prompt is None:
        what = "only the bare question" if trace.question is not None else "neither prompt nor question"
        raise DumpError(
            f"{trace.origin}: the dump has {what} for {trace.key}; say how it was asked: --template FILE|NAME "
            f"({', '.join(TEMPLATES)}; 'none' = the question itself was the prompt)"
        )
    if isinstance(prompt, list):
        text = _rendered(prompt, trace, tokenizer, said, date)
        return _checked(written(text, trace, tokenizer, "prompt", add_special_tokens=False), trace, tokenizer)
    return _checked(_text(prompt, trace, tokenizer, said), trace, tokenizer)


def written(text: str, trace: Trace, tokenizer: Any, what: str, **options: Any) -> list[int]:
    """The tokenizer's ids of a text. Raises DumpError for text that it can't take (half a surrogate pair, say)."""
    try:
        return list(tokenizer(text, **options)["input_ids"])
    except Exception as error:  # tokenizers raise bare ones
        raise unwritten(trace, what, error) from None


def unwritten(trace: Trace, what: str, error: Exception) -> DumpError:
    """What is to be said of text that the tokenizer refused."""
    return DumpError(
        f"{trace.origin}: the tokenizer can't encode the {what} of {trace.key} ({_line(error)}); leave the row out, or "
        "give its ids"
    )


def _text(prompt: str, trace: Trace, tokenizer: Any, said: list[str]) -> list[int]:
    """What a tokenizer puts before a text stays, once; what it puts behind one would part the response from it."""
    ids = written(prompt, trace, tokenizer, "prompt")
    front, back = kind(tokenizer).front, kind(tokenizer).back
    if back and tuple(ids[-len(back) :]) == back:
        said.append(f"prompt: {_names(back, tokenizer)} that the tokenizer adds at the end left out")
        ids = ids[: -len(back)]
    if front and tuple(ids[: 2 * len(front)]) == front * 2:
        said.append("prompt: the text began with BOS, the tokenizer's second BOS was left out")
        ids = ids[len(front) :]
    bos = tokenizer.bos_token_id
    if front and front != (bos,):
        said.append(f"prompt: {_names(front, tokenizer)} in front, as the tokenizer adds it")
    said.append(f"prompt: text, {'with' if bos is not None and bos in ids[: len(front) or 1] else 'without'} BOS")
    return ids


def _names(ids: Sequence[int], tokenizer: Any) -> str:
    return " ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))


def _rendered(messages: list[dict], trace: Trace, tokenizer: Any, said: list[str], date: str | None) -> str:
    """The text of messages by the tokenizer's chat template. A last message of the assistant is the beginning of the
    response: its turn stays open."""
    if not getattr(tokenizer, "chat_template", None):
        raise DumpError(
            f"{trace.origin}: the prompt of {trace.key} is messages, but the tokenizer has no chat template; "
            "render the prompts in the dump"
        )
    begun = messages[-1].get("content") if messages and messages[-1].get("role") == "assistant" else None
    how = {"add_generation_prompt": True}
    if isinstance(begun, str) and not begun.strip():  # nothing but the turn has begun
        messages = messages[:-1]
    elif begun is not None:
        how = {"continue_final_message": True}
        said.append("prompt: the last message is the assistant's, the response continues it")
    try:
        with _fixed_date(date) as asked:
            text = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    except Exception as error:  # a template is a program and may raise anything
        raise DumpError(
            f"{trace.origin}: the tokenizer's chat template can't render the prompt of {trace.key}: {_line(error)}; "
            "change its messages, or render the prompts in the dump"
        ) from None
    said += [special.INJECTED + name for name in special.of_messages(messages, tokenizer)]
    if isinstance(begun, str) and not text.endswith(end := begun[len(begun.rstrip()) :]):
        text += end  # templates strip what they are given
    if asked:
        said.append(f"{DATED}{asked[0]} (--template-date)")
    given = ((m["role"], m.get("content")) for m in messages if m.get("role") in ("system", "developer", "user"))
    said += [f"{LEFT_OUT}{role}" for role in dict.fromkeys(r for r, c in given if _lacks(text, c))]
    said.append("prompt: messages rendered by the tokenizer's chat template")
    return text


def _lacks(text: str, content: Any) -> bool:
    return isinstance(content, str) and content.strip() not in text


@contextmanager
def _fixed_date(date: str | None) -> Iterator[list[str]]:
    """Chat templates know the day by `strftime_now`; while this lasts it is `date`. The list holds it once it was asked
    for."""
    from transformers.utils import chat_template_utils

    day, asked, before = Date.fromisoformat(date) if date else Date.today(), [], chat_template_utils.datetime

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            asked.append(day.isoformat())
            return datetime(day.year, day.month, day.day, tzinfo=tz)

    chat_template_utils.datetime = Fixed
    try:
        yield asked
    finally:
        chat_template_utils.datetime = before


def _checked(ids: Sequence[int], trace: Trace, tokenizer: Any) -> tuple[int, ...]:
    if ids:
        return tuple(ids)
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None:
        raise DumpError(
            f"{trace.origin}: empty prompt of {trace.key} and no BOS token: nothing predicts the first response token"
        )
    return (bos,)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
