"""Pure planning, without torch: which traces are scored, and how their tokens are laid out in flat packs.

    group     all responses to one prompt                     prompt | r1 | r2 | r3
    segment   a run of tokens with one parent                 a prompt, a response, or a prefix that responses share
    pack      segments one after another, parents first; the descendants of a segment follow it without a gap
    kept      a pack whose keys and values stay, so that later packs go on from its last token: groups and traces
              that are longer than the token budget are streamed this way

Every token of a pack sees the segments above its own, and its own up to itself. Nothing is padded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from analyzer.records import Trace

SHARE_STEP = 2  # response prefixes are shared in whole steps of at least so many tokens
TRIE_SAVES = 0.03  # ... where a group has at least this part of its tokens less to compute, the price of segments paid


class Segment(NamedTuple):
    """Tokens [start, stop) of a pack; their descendants are [stop, end). parent: number of a segment, -1 for none."""

    start: int
    stop: int
    end: int
    parent: int


class Piece(NamedTuple):
    """The part of one trace's response that a pack holds: token ranges in order; `last`: the response ends here."""

    trace: int
    ranges: tuple[tuple[int, int], ...]
    last: bool


class Pack(NamedTuple):
    """One forward pass.

    ids_N, position_N: int64 [N]. before_N: int64 [N], the token of this pack whose output predicts token n, -1: the
    last kept token, -2: token n is not scored. depth: how many kept packs this one goes on from. keep: keys and values
    of this pack stay, as kept pack number `depth`.
    """

    ids_N: np.ndarray
    position_N: np.ndarray
    before_N: np.ndarray
    segments: tuple[Segment, ...]
    pieces: tuple[Piece, ...]
    depth: int
    keep: bool


def choose(traces: Sequence[Trace], at_most: int | None) -> tuple[list[Trace], list[Trace]]:
    """Split traces into (to score, over the limit): the first `at_most` by sample number per source, problem and step.

    The choice depends on sample numbers only, so that a longer dump scores a superset. None: all are scored.
    """
    if at_most is None:
        return list(traces), []
    seen: Counter = Counter()
    chosen, over = [], []
    for trace in sorted(traces, key=lambda t: (t.source, t.problem, -1 if t.step is None else t.step, t.sample)):
        cell = (trace.source, trace.problem, trace.step)
        seen[cell] += 1
        (chosen if seen[cell] <= at_most else over).append(trace)
    return chosen, over


def packs(
    pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], token_budget: int, *, segment_cost: float = 0.0
) -> Iterator[Pack]:
    """Packs of at most `token_budget` tokens that hold every (prompt ids, response ids) pair once.

    Independent of the order of the pairs, but for the numbers in `Piece.trace`. segment_cost: what one more segment
    costs, in tokens; beginnings that responses share are computed once in groups where that pays (inf: never). Pairs
    must not be empty on either side.
    """
    order = sorted(range(len(pairs)), key=lambda i: pairs[i])
    small: list[tuple] = []  # whole groups that fill one pack together
    filled = 0
    for prompt, members in groupby(order, key=lambda i: pairs[i][0]):
        group = list(members)
        responses = [pairs[i][1] for i in group]
        shared = _shared(responses, segment_cost)
        size = len(prompt) + sum(len(r) - s for r, s in zip(responses, shared or [0] * len(group), strict=True))
        if size > token_budget:
            yield from _stream(prompt, group, responses, shared, token_budget)
            continue
        if filled + size > token_budget:
            yield _pack(small, segment_cost)
            small, filled = [], 0
        small.append((prompt, group, responses, shared))
        filled += size
    if small:
        yield _pack(small, segment_cost)


def units(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, tokens: int, traces: int) -> list[list[int]]:
    """Indices of the (prompt ids, response ids) pairs cut into units of work, whole prompt groups where they fit.

    A unit holds at most `tokens` tokens (a prompt counted once) and `traces` pairs, at least one. It depends on the
    ids alone, not on their order, so that an interrupted run is cut the same way when it goes on.
    """
    order = sorted(range(len(pairs)), key=lambda i: pairs[i])
    out: list[list[int]] = []
    filled = tokens + 1
    for prompt, members in groupby(order, key=lambda i: pairs[i][0]):
        group = list(members)
        size = len(prompt) + sum(len(pairs[i][1]) for i in group)
        if out and filled + size <= tokens and len(out[-1]) + len(group) <= traces:
            out[-1] += group
            filled += size
            continue
        filled = tokens + 1
        for i in group:
            if filled + len(pairs[i][1]) > tokens or len(out[-1]) >= traces:
                out.append([])
                filled = len(prompt)
            out[-1].append(i)
            filled += len(pairs[i][1])
    return out


def shared_tokens(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the common prefix."""
    for n, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return n
    return min(len(a), len(b))


def _shared(responses: list[tuple[int, ...]], segment_cost: float) -> list[int] | None:
    """How many tokens each of the sorted responses takes over from the one before it; None where sharing doesn't pay.

    Whole steps only: a segment costs calls in every layer. The responses differ, so that each has tokens of its own or
    is the beginning of the next.
    """
    if segment_cost == math.inf:
        return None
    step = max(SHARE_STEP, math.ceil(segment_cost))
    out = [0]
    for a, b in zip(responses, responses[1:]):
        out.append(shared_tokens(a, b) // step * step)
    saved = sum(n - segment_cost for n in out if n)
    return out if saved >= TRIE_SAVES * sum(map(len, responses)) else None


class _Layout:
    """Grows the lists of one pack, segment by segment."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[np.ndarray] = []
        self.before: list[np.ndarray] = []
        self.segments: list[list[int]] = []
        self.pieces: list[Piece] = []

    def add(self, ids: Sequence[int], position: int, before: int, parent: int, *, scored: int = 0) -> int:
        """Append a segment; `before` predicts its first token (see Pack), tokens before number `scored` are not."""
        start = len(self.ids)
        self.ids += ids
        self.positions.append(np.arange(position, position + len(ids)))
        by = np.arange(start - 1, start + len(ids) - 1)
        by[0] = before
        by[:scored] = -2
        self.before.append(by)
        self.segments.append([start, len(self.ids), len(self.ids), parent])
        while parent >= 0:
            self.segments[parent][2] = len(self.ids)
            parent = self.segments[parent][3]
        return len(self.segments) - 1

    def tree(self, members: list[int], sequences: list[Sequence[int]], prompts: list[int], cuts: list[int], at: int):
        """Add sorted sequences, each from where it leaves the one before it (`cuts`), as segments below each other.

        The first `prompts` tokens of a sequence are its prompt; what is kept, if anything, ends at position `at`.
        """
        cuts = [*cuts, 0]
        path: list[tuple[int, int]] = []  # (segment, tokens of the sequence up to its end)
        for n, (trace, ids, prompt) in enumerate(zip(members, sequences, prompts, strict=True)):
            while path and path[-1][1] > cuts[n]:
                path.pop()
            # later sequences leave this one at every minimum of the cuts that follow
            ends, leave = [len(ids)], n + 1
            while cuts[leave] > cuts[n]:
                ends.append(cuts[leave])
                leave = next(i for i in range(leave, len(cuts)) if cuts[i] < ends[-1])
            for end in reversed(ends):
                above, done = path[-1] if path else (-1, 0)
                if end > done:
                    last = self.segments[above][1] - 1 if path else -1
                    scored = min(max(prompt - done, 0), end - done)
                    path.append((self.add(ids[done:end], at + done, last, above, scored=scored), end))
            ranges = []
            for segment, end in path:
                start, stop, _, _ = self.segments[segment]
                first = max(start, stop - (end - prompt))
                if first < stop:
                    ranges.append((first, stop))
            self.pieces.append(Piece(trace, tuple(ranges), True))

    def pack(self, depth: int, keep: bool) -> Pack:
        return Pack(
            np.array(self.ids, np.int64),
            np.concatenate(self.positions).astype(np.int64),
            np.concatenate(self.before).astype(np.int64),
            tuple(Segment(*s) for s in self.segments),
            tuple(self.pieces),
            depth,
            keep,
        )


def _pack(
    groups: list[tuple[tuple[int, ...], list[int], list[tuple[int, ...]], list[int] | None]], segment_cost: float
) -> Pack:
    """Whole groups (prompt, traces, responses, shared tokens), one after another; their prompts may begin alike."""
    members, sequences, prompts, cuts, before = [], [], [], [], ()
    for prompt, group, responses, shared in groups:
        alike = shared_tokens(before, prompt)
        members += group
        sequences += [prompt + r for r in responses]
        prompts += [len(prompt)] * len(group)
        # as much as segments cost must be saved; a prompt that begins with the whole one before shares all of it
        cuts += [alike if alike > max(SHARE_STEP, segment_cost) else 0]
        cuts += [len(prompt) + n for n in (shared or [0] * len(group))[1:]]
        before = prompt
    layout = _Layout()
    layout.tree(members, sequences, prompts, cuts, 0)
    return layout.pack(0, False)


def _stream(
    prompt: tuple[int, ...], members: list[int], responses: list[tuple[int, ...]], shared: list[int] | None, budget: int
) -> Iterator[Pack]:
    """One group over several packs: the prompt is kept, then responses in runs, over-long ones in kept chunks."""
    depth = 0
    for at in range(0, len(prompt), budget):
        layout = _Layout()
        chunk = prompt[at : at + budget]
        layout.add(chunk, at, -2, -1, scored=len(chunk))
        yield layout.pack(depth, True)
        depth += 1
    at = 0
    while at < len(members):
        if len(responses[at]) > budget:
            yield from _chunks(members[at], responses[at], len(prompt), depth, budget)
            at += 1
            continue
        # the first of a run shares nothing: what stood before it is in another pack
        end, size, cuts = at, 0, []
        while end < len(members) and len(responses[end]) <= budget:
            cut = shared[end] if shared and cuts else 0
            if size + len(responses[end]) - cut > budget:
                break
            end, size = end + 1, size + len(responses[end]) - cut
            cuts.append(cut)
        layout = _Layout()
        layout.tree(members[at:end], responses[at:end], [0] * (end - at), cuts, len(prompt))
        yield layout.pack(depth, False)
        at = end


def _chunks(trace: int, response: tuple[int, ...], position: int, depth: int, budget: int) -> Iterator[Pack]:
    """A response longer than the budget, in chunks that go on from each other."""
    for n, at in enumerate(range(0, len(response), budget)):
        chunk = response[at : at + budget]
        last = at + len(chunk) == len(response)
        layout = _Layout()
        layout.add(chunk, position + at, -1, -1)
        layout.pieces.append(Piece(trace, ((0, len(chunk)),), last))
        yield layout.pack(depth + n, not last)
