"""Traces as ids, after their own prompts or after those of one source: which prompt, and where it and a response do
not meet.

Another source's prompt is found by problem. A response that was written after `<think>` and is put behind a prompt that
does not end in it, or the other way round, is glued at a seam: it is scored as it is told, and the seam is counted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from analyzer.errors import DumpError
from analyzer.records import Trace
from analyzer.records.display import possessive
from analyzer.scoring.encoding.continuation import kind
from analyzer.scoring.encoding.encode import UNSCORED, Encoded, encode, encode_prompt, marks_of

READ = 24  # tokens on each side of the seam that are read
# what a template opens or closes as its last word: <think>, </think>, <|begin_of_thought|>, [THINK]
TAG = re.compile(r"(</?[A-Za-z][\w.-]{0,31}>|<\|begin_of_\w{1,31}\|>|\[THINK\]|◁/?\w{1,31}▷)\s*$")
OPEN = re.compile(r"[\w.,:;!?)]$")  # a prompt that ends so wants white space before a word

Ids = tuple[int, ...]


class Asked(NamedTuple):
    """The prompts of one source. label: whose. first: problem -> a trace that asks it. several: problem -> two traces
    that ask it differently. strict: such a problem is refused, else its traces are not scored."""

    label: str
    template: str | None
    first: dict[str, Trace]
    several: dict[str, tuple[Trace, Trace]]
    strict: bool


class Coded(NamedTuple):
    """encoded: traces as ids. unscored: those that can't be, with their prompt (if known) and the reason.

    prompts: source -> counts of its traces that were to be scored after another source's prompt: traces, other (their
    own is another), unknown (their own can't be told), missing (the source has none of their problem), unread (other,
    and no text to read a seam in), seams (sentence -> traces; one a trace), ends (a special token that closes responses
    and is no end token of the model -> traces).
    """

    encoded: list[Encoded]
    unscored: list[tuple[Trace, Ids, str]]
    prompts: dict[str, dict[str, Any]]

    def of(self, sources: Collection[str]) -> Coded:
        """Those of some sources."""
        return Coded(
            [e for e in self.encoded if e.trace.source in sources],
            [row for row in self.unscored if row[0].source in sources],
            {source: counts for source, counts in self.prompts.items() if source in sources},
        )


def of_source(
    traces: Iterable[Trace], label: str, loaded: Any, template: str | None, texts: Mapping[str, Any], *, strict: bool
) -> Asked:
    """The prompts of a source, compared as ids under this model. Raises DumpError where they can't be made."""
    first: dict[str, tuple[Trace, Ids]] = {}
    several: dict[str, tuple[Trace, Trace]] = {}
    known: dict[Any, Ids] = {}
    for t in traces:
        if t.source != label:
            continue
        raw = _raw(t)
        if raw not in known:
            known[raw] = _prompt(t, loaded, template, texts)
        one, ids = first.setdefault(t.problem, (t, known[raw]))
        if ids != known[raw]:
            several.setdefault(t.problem, (one, t))
    return Asked(label, template, {p: t for p, (t, _) in first.items()}, several, strict)


def encode_all(
    traces: Iterable[Trace],
    loaded: Any,
    *,
    templates: Mapping[str, str | None],
    texts: Mapping[str, Any],
    asked: Asked | None = None,
) -> Coded:
    """Turn traces into ids, after the prompts of one source where `asked` names it; texts: `eos`, `date` and `marks` of
    `encode`. Raises DumpError as `encode` does, and where it is not clear which of several prompts is meant."""
    coded, reader = Coded([], [], {}), _Reader(loaded, asked, texts)
    how = {"vocab_size": loaded.vocab_size, "eos_ids": loaded.eos_ids, **texts}
    for trace in traces:
        if not trace.response_ids and not trace.response:
            coded.unscored.append((trace, (), "empty response"))
            continue
        template = templates.get(trace.source, templates.get("*"))
        if asked is None or trace.source == asked.label:
            _add(coded, encode(trace, loaded.tokenizer, template=template, **how))
            continue
        new = {"traces": 0, "other": 0, "unknown": 0, "missing": 0, "unread": 0, "seams": {}, "ends": {}}
        counts = coded.prompts.setdefault(trace.source, new)
        counts["traces"] += 1
        if why := _no_prompt(asked, trace):
            counts["missing"] += 1
            coded.unscored.append((trace, (), why))
            continue
        item = encode(trace, loaded.tokenizer, template=asked.template, asked=asked.first[trace.problem], **how)
        own = reader.own(trace, template)
        if own != item.prompt_ids:
            counts["unknown" if own is None else "other"] += 1
            glued = (f"prompt: that of {asked.label} in place of its own",)
            seam = reader.seam(own, item)
            counts["unread"] += seam is None
            if seam:
                counts["seams"][seam] = counts["seams"].get(seam, 0) + 1
                glued += (f"seam: {seam}",)
            if end := reader.end(item):
                counts["ends"][end] = counts["ends"].get(end, 0) + 1
                glued += (f"response: ends in {end}, which is no end token of the model",)
            item = replace(item, decisions=item.decisions + glued)
        _add(coded, item)
    return coded


def _add(coded: Coded, item: Encoded) -> None:
    why = next((UNSCORED[d] for d in item.decisions if d in UNSCORED), None)
    if why:
        coded.unscored.append((item.trace, item.prompt_ids, why))
    else:
        coded.encoded.append(item)


def _prompt(trace: Trace, loaded: Any, template: str | None, texts: Mapping[str, Any]) -> Ids:
    marks = texts.get("marks") or marks_of(loaded.tokenizer, loaded.eos_ids)
    how = {"vocab_size": loaded.vocab_size, "date": texts.get("date"), "marks": marks}
    return encode_prompt(trace, loaded.tokenizer, template, [], **how)


def _no_prompt(asked: Asked, trace: Trace) -> str:
    """Why a trace has no prompt of the source, "" where it has one. Raises DumpError where it is one of several."""
    label, problem = asked.label, trace.problem
    if problem not in asked.first:
        return f"{label} has no prompt of its problem"
    if problem not in asked.several:
        return ""
    if not asked.strict:
        return f"{label} has several prompts of its problem"
    one, two = asked.several[problem]
    others = len(asked.several) - 1
    raise DumpError(
        f"--prompt-of {label}: {label} asks problem {problem} after different prompts ({one.origin}, {two.origin}"
        f"{f'; and {others} more problems' if others else ''}), and {trace.key} can be scored after one of them only; "
        f"keep one prompt a problem in the dump of {label}, or give the rows of each a label of their own (LABEL=FILE)"
    )


def _raw(trace: Trace) -> Any:
    """What a prompt is made of."""
    if trace.prompt_ids is not None:
        return trace.prompt_ids
    return trace.prompt if isinstance(trace.prompt, str) else (repr(trace.prompt), trace.question)


class _Reader:
    """Reads prompts and seams; each prompt once."""

    def __init__(self, loaded: Any, asked: Asked | None, texts: Mapping[str, Any]) -> None:
        self.loaded, self.prompt_texts, eos = loaded, texts, texts.get("eos")
        self.tokenizer, self.vocab_size = loaded.tokenizer, loaded.vocab_size
        self.whose = "" if asked is None else possessive(asked.label)
        self.ids: dict[Any, Ids | None] = {}
        self.texts: dict[Ids, str | None] = {}
        self.ends = {*loaded.eos_ids, *(() if eos is None else (eos,))}
        self.special = frozenset() if self.tokenizer is None else kind(self.tokenizer).special
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        self.marks = {getattr(self.tokenizer, name, None) for name in names}

    def own(self, trace: Trace, template: str | None) -> Ids | None:
        """The ids of a trace's own prompt; None where the dump has none, or this tokenizer can't make them (messages
        without a chat template): it is not scored after them."""
        name = trace.source, _raw(trace)
        if name not in self.ids:
            try:
                self.ids[name] = _prompt(trace, self.loaded, template, self.prompt_texts)
            except DumpError:
                self.ids[name] = None
        return self.ids[name]

    def seam(self, own: Ids | None, item: Encoded) -> str | None:
        """Where the prompt and the response disagree other than after its own prompt, "" where they don't; None where
        there is no text to read."""
        tail = item.prompt_ids[-READ:]
        new, whole = self._text(tail), self._text(tail + item.response_ids[:READ], keep=False)
        before = None if own is None else self._text(own[-READ:])
        if new is None or whole is None or (own is not None and before is None):
            return None
        begins = whole[len(new) :] if whole.startswith(new) else item.trace.response
        return self._tags(before, new, begins) or self._spaces(before, new, begins)

    def end(self, item: Encoded) -> str:
        """The special token that closes a response and is no end token of this model (another template's), or ""."""
        last = item.response_ids[-1]
        return f"{self.tokenizer.decode([last])} (id {last})" if last in self.special - self.ends else ""

    def _tags(self, own: str | None, new: str, begins: str) -> str:
        theirs, mine = self._tag(new), "" if own is None else self._tag(own)
        if theirs == mine:
            return ""
        if theirs and begins.lstrip().startswith(theirs):
            return f"{self.whose} prompt ends in {theirs}, and the response begins with it again"
        if mine and theirs:
            return f"its own prompt ends in {mine}, {self.whose} in {theirs}"
        if theirs:
            return "" if own is None else f"{self.whose} prompt ends in {theirs}, its own does not"
        return "" if begins.lstrip().startswith(mine) else f"its own prompt ends in {mine}, {self.whose} does not"

    def _spaces(self, own: str | None, new: str, begins: str) -> str:
        if own is None or not begins or own[-1:].isspace() == new[-1:].isspace():
            return ""
        if begins[0].isspace() and new[-1:].isspace():
            return f"{self.whose} prompt ends in white space, its own does not, and the response begins with some"
        if not begins[0].isspace() and OPEN.search(new):
            return f"its own prompt ends in white space, {self.whose} does not, and the response begins with none"
        return ""

    def _tag(self, text: str) -> str:
        found = TAG.search(text)
        return found[1] if found and found[1] not in self.marks else ""

    def _text(self, ids: Sequence[int], keep: bool = True) -> str | None:
        """What ids look like; None where they are not of this tokenizer."""
        ids = tuple(ids)
        if ids not in self.texts:
            readable = self.tokenizer is not None and all(0 <= i < self.vocab_size for i in ids)
            text = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False) if readable else None
            if not keep:
                return text
            self.texts[ids] = text
        return self.texts[ids]
