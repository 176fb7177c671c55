"""The steps of a trace: where each begins, what it computes, and of which kind it is. By rules alone, without a model.

A step is a line, or a sentence within a line: it ends at a line break, and after . ? or ! before a blank, unless an
operator follows (5! = 120). A piece of fewer than SHORT characters joins the next one, the last piece is kept. A block
of code, fenced or not, is one step. After Bogdan et al., "Thought Anchors" (arXiv 2506.19143), whose pieces end at
sentences and paragraphs; here every line ends one, as the lines of a list or of a derivation are steps of their own.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from analyzer import skeletons

SHORT = 10
MARK = " | "  # between the steps of a trace
_END = re.compile(r"\n+|(?<=[.?!])[ \t]+(?![ \t]*[-+*/=<>^])")
_PLAIN_TOKENS = frozenset("Nv()[]s")  # of `skeletons.shape`: numbers, letters, brackets and strings tell no kind


class Step(NamedTuple):
    """Characters from start to before end of a response; code: a block of code."""

    start: int
    end: int
    code: bool


def steps(text: str) -> list[Step]:
    """The steps of a response in order; without a gap from the first that is no white space to the end of the text."""
    out: list[Step] = []
    for start, end, code in skeletons.blocks(text):
        if code:
            out.append(Step(start, end, True))
            continue
        begun, at = -1, start
        for found in _END.finditer(text, start, end):
            begun = _begun(text, begun, at, found.start())
            at = found.end()
            if begun >= 0 and found.start() - begun >= SHORT:
                out.append(Step(begun, found.start(), False))
                begun = -1
        begun = _begun(text, begun, at, end)
        if begun >= 0:
            out.append(Step(begun, end, False))
    # what stands between two steps is white space, and belongs to the one before it
    ends = [step.start for step in out[1:]] + [len(text)] * bool(out)
    return [step._replace(end=end) for step, end in zip(out, ends, strict=True)]


def _begun(text: str, begun: int, start: int, end: int) -> int:
    """Where the open piece begins: as before, or at the first character of text[start:end] that is no white space."""
    if begun >= 0:
        return begun
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()) if piece.strip() else -1


def skeleton_of_steps(text: str) -> str:
    """The skeletons of the steps of a response in order, joined by MARK; steps without one are left out."""
    found = (skeletons.of_block(text[step.start : step.end], code=step.code) for step in steps(text))
    return MARK.join(skeleton for skeleton in found if skeleton)


def kinds(marked: str) -> tuple[str, ...]:
    """The kinds of the steps of `skeleton_of_steps` in order; steps without a kind are left out.

    The kind of a step is the set of its operators, functions and symbols, and in code of its keywords and calls: "+ =",
    "* sqrt", "def for in range return". Order, repetition, numbers and names within the step do not matter.
    """
    found = (kind(step) for step in marked.split(MARK))
    return tuple(name for name in found if name)


def kind(skeleton: str) -> str:
    """The kind of one step, from its skeleton; "" for one without operators or code."""
    return " ".join(sorted(set(skeletons.shape(skeleton).split()) - _PLAIN_TOKENS))
