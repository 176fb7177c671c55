"""The steps of a trace: where each begins, what it computes, and of which kind it is. By rules alone, without a model.

A step is a line, or a sentence within a line: it ends at a line break, and after . ? or ! before a blank, unless an
operator follows (5! = 120). A piece of fewer than SHORT characters joins the next one, the last piece is kept. A block
of code, fenced or not, is one step. After Bogdan et al., "Thought Anchors" (arXiv 2506.19143), whose pieces end at
sentences and paragraphs; here every line ends one, as the lines of a list or of a derivation are steps of their own.

What a step computes are its expressions, and those have the kinds: two formulas are two, on one line as on two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from analyzer.analysis.data import formulas, notation, skeletons

SHORT = 10
MARK = " | "  # between the computations of a trace
# one set of characters first: so the pattern skips to them
_END = re.compile(r"[\r\n.?!。！？](?:(?<=[\r\n])[\r\n]*|(?<=[.?!])[ \t]+(?![ \t]*[-+*/=<>^])|(?<=[。！？])[ \t]*)")
_THOUGHT = "</think>"
_HINT = re.compile(r"\\boxed|####|answer|Answer|ANSWER")
_BOX = re.compile(
    r"\\boxed\s?\{\s{0,9}[^}\s.](?![^{}]{0,200}\d\s?=)"
    r"|####\s{0,9}[-+$\\(\[{]{0,4}\d[\w.,/\\{}]{0,40}[ \t*_$)}\].%]{0,9}$",
    re.M,
)
_IS = re.compile(r"answer\s{1,9}is\s?:?[\s*_]{0,9}(?:[-+(\[{\"']*\d|\(?[A-Z]\b\)?(?! [a-z])|[-+(]*[$\\])", re.I)
_TOLD = re.compile(
    r"answer[\s*_]{0,9}[:=][\s*_]{0,9}[-+$\\(\[{]{0,9}[\w.,/\\{}]{1,40}[ \t*_$)}\].%]{0,9}$", re.I | re.M
)
_TAGGED = re.compile(r"answer>[^<]{1,200}</answer>")
_OPEN = re.compile(r"\b(?:maybe|perhaps|whether|if|unless|suppose|say)[ \t]+(?:that[ \t]+)?(?:the[ \t]+)?\Z", re.I)
_LINE = re.compile(r"^[ \t*_#]*(?:(?:the|final)[ \t]+)*\Z", re.I | re.M)


class Step(NamedTuple):
    """Characters from start to before end of a response; code: a block of code."""

    start: int
    end: int
    code: bool


def steps(text: str) -> list[Step]:
    """The steps of a response in order; without a gap from the first that is no white space to the end of the text."""
    out: list[Step] = []
    for start, end, code in skeletons.blocks(text):
        out += [Step(start, end, True)] if code else [Step(a, b, False) for a, b in _cut(text, start, end)]
    # what stands between two steps is white space, and belongs to the one before it
    ends = [step.start for step in out[1:]] + [len(text)] * bool(out)
    return [step._replace(end=end) for step, end in zip(out, ends, strict=True)]


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the steps of text[start:end], which holds no code, begin and end."""
    begun, at = -1, start
    for found in _END.finditer(text, start, end):
        last = found.start()
        last += text[last] not in "\r\n"
        begun = _begun(text, begun, at, last)
        at = found.end()
        if begun >= 0 and last - begun >= SHORT:
            yield begun, last
            begun = -1
    begun = _begun(text, begun, at, end)
    if begun >= 0:
        yield begun, end


def _begun(text: str, begun: int, start: int, end: int) -> int:
    """Where the open piece begins: as before, or at the first character of text[start:end] that is no white space."""
    if begun >= 0:
        return begun
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()) if piece.strip() else -1


def answered(text: str) -> int | None:
    r"""Where the line or sentence with the first final answer ends; None where none is read.

    Read are "the answer is 12", \boxed{12}, "#### 12", "Answer: 12" on a line of its own and <answer>12</answer>; after
    </think> where there is one.
    """
    for hint in _HINT.finditer(text, max(text.find(_THOUGHT), 0)):
        at = hint.start()
        if found := _TAGGED.match(text, at):
            return found.end()
        found = _BOX.match(text, at) or _IS.match(text, at)
        if found and _OPEN.search(text, max(at - 40, 0), at):
            continue
        if found is None and _LINE.search(text, max(at - 40, 0), at):
            found = _TOLD.match(text, at)
        if found:
            end = _END.search(text, found.end())
            if end is None:
                return len(text)
            last = end.start() + (text[end.start()] not in "\r\n")
            if text[last - 1] != "?":
                return last
    return None


def skeleton_of_steps(text: str) -> str:
    """What a response computes until its first final answer: the skeletons of its computations in order, with MARK
    between them.

    A computation is an expression with an operator or function, or a block of code; numbers without one belong to the
    computation before them, or to the first.
    """
    text = text[: answered(text)]
    parts: list[list[str]] = []
    open_ = False  # whether the last part has no operator yet
    for start, end, code in skeletons.blocks(text):
        for expression in skeletons.of_block(text[start:end], code=True) if code else _expressions(text[start:end]):
            if not parts or (expression.computes and not open_):
                parts.append([])
                open_ = True
            parts[-1] += expression.tokens
            open_ = open_ and not expression.computes
    return MARK.join(map(" ".join, parts))


def _expressions(text: str) -> Iterator[formulas.Expression]:
    """The expressions of the steps of a text without code."""
    text = notation.plain(text)
    for start, end in _cut(text, 0, len(text)):
        yield from formulas.expressions(text[start:end])


def kinds(marked: str) -> tuple[str, ...]:
    """The kinds of the computations of `skeleton_of_steps` in order; those without a kind are left out.

    The kind is the set of operators and functions, and in code of keywords and calls: "+", "* sqrt", "def for in range
    return". Order, repetition, numbers and names within the computation do not matter, and relations are no operations.
    """
    found = (kind(part) for part in marked.split(MARK))
    return tuple(name for name in found if name)


def kind(skeleton: str) -> str:
    """The kind of one computation, from its skeleton; "" for one without operators or code."""
    return " ".join(sorted(skeletons.kind(skeleton.split())))
