"""What traps need of traces, kept as numbers while the traces stream by: some 70 bytes each, whatever their length.

Texts are kept as 64-bit hashes of this process: two of a million differ and collide with a probability of 1e-8.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from string import digits
from typing import Any

import numpy as np

from analyzer.records import Sampler, Trace

ANSWER_ONLY = re.compile(r"\s*(<answer>.*?</answer>|\\boxed\{[^{}]*\}|[-+]?[\d.,/]+)\s*\Z", re.S)
COLUMNS = {
    "source": "i",
    "problem": "i",
    "step": "q",  # + 1; 0 without a step
    "file": "i",
    "line": "q",
    "row": "q",  # of the problem
    "said": "q",  # hash of the response (of its ids, where there is no text)
    "size": "i",  # characters of the response; ids where there is no text
    "bare": "b",  # 1: an answer and nothing else; 0; -1: no text
    "group": "i",
    "prompt": "q",  # hash; 0: not in the dump
    "gold": "q",  # hash of the reference answer in its normal spelling; 0: none
}


@dataclass
class Source:
    """The account of one source. `counts`: trace property -> traces that have it; `first`: the place of the first."""

    traces: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    budgets: set[int] = field(default_factory=set)
    samplers: set[Sampler | None] = field(default_factory=set)
    other_ends: Counter[str] = field(default_factory=Counter)


class Survey:
    """Columns over all traces (COLUMNS) and accounts of sources, in order of appearance."""

    def __init__(self, threshold: float = 1.0) -> None:
        self.threshold = threshold
        self.columns = {name: array(kind) for name, kind in COLUMNS.items()}
        self.sources: dict[str, Source] = {}
        self.numbers: dict[str, dict[Any, int]] = {"source": {}, "problem": {}, "file": {}, "group": {}}
        self.all = Source()  # what is counted without regard to the source
        self.scores: Counter[float] = Counter()  # that are neither 0 nor 1
        self.golds: dict[int, str] = {}  # hash -> beginning of the reference answer
        self.gold_kinds: Counter[str] = Counter()
        self.drift: tuple[str, Any] = ("", None)

    def add(self, traces: Iterable[Trace]) -> None:
        """Take in traces, in their order."""
        appends = [self.columns[name].append for name in COLUMNS]
        sources, problems, files, groups = (self.numbers[n] for n in ("source", "problem", "file", "group"))
        for t in traces:
            meta, origin, text, ids_only = t.meta, t.origin, t.response, t.meta.get("ids_only", False)
            own = self.sources.get(t.source)
            if own is None:
                own = self.sources[t.source] = Source()
            own.traces += 1
            own.samplers.add(t.sampler)
            for name in _properties(t, meta, ids_only):
                own.counts[name] += 1
                if name not in own.first:
                    own.first[name] = origin
            if type(meta.get("max_tokens")) is int:  # the dump's own meta may hold anything under these names
                own.budgets.add(meta["max_tokens"])
            if type(meta.get("finish_raw")) is str:
                own.other_ends[meta["finish_raw"]] += 1
            if t.score is not None:
                self._score(t)
            if "old_correct" in meta:
                self._count("regraded")
                if isinstance(meta["old_correct"], bool) and meta["old_correct"] != t.correct:
                    self._count("flipped", origin)
            place = origin.rstrip(digits)
            prompt = t.prompt
            values = (
                sources.setdefault(t.source, len(sources)),
                problems.setdefault(t.problem, len(problems)),
                0 if t.step is None else t.step + 1,
                files.setdefault(place, len(files)),
                int(origin[len(place) :] or 0),
                meta.get("row", 0),
                hash(t.response_ids if ids_only else text),
                len(t.response_ids or ()) if ids_only else len(text),
                -1 if ids_only else ANSWER_ONLY.match(text) is not None,
                groups.setdefault(t.group, len(groups)),
                0 if prompt is None else hash(prompt if isinstance(prompt, str) else str(prompt)) or 1,
                0 if meta.get("gold") is None else self._gold(t, meta["gold"]),
            )
            for append, value in zip(appends, values, strict=True):
                append(value)

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns as arrays [N]; nothing can be added while they are held."""
        return {name: np.frombuffer(column, column.typecode) for name, column in self.columns.items()}

    def origin(self, i: int) -> str:
        """file:line of the i-th trace."""
        return f"{list(self.numbers['file'])[self.columns['file'][i]]}{self.columns['line'][i]}"

    def _count(self, name: str, origin: str = "") -> None:
        self.all.counts[name] += 1
        self.all.first.setdefault(name, origin)

    def _score(self, t: Trace) -> None:
        self._count("scored")
        if t.score not in (0.0, 1.0):
            self.scores[t.score] += 1
            self._count("fractional", t.origin)
        if t.correct is not None and t.correct != (t.score >= self.threshold):
            self._count("against", t.origin)

    def _gold(self, t: Trace, gold: Any) -> int:
        self.gold_kinds[type(gold).__name__] += 1
        normal = normal_gold(gold)
        if (
            isinstance(t.answer, str)
            and isinstance(gold, (str, int, float))
            and t.answer != str(gold)
            and normal_gold(t.answer) == normal
        ):
            if "drift" not in self.all.first:
                self.drift = t.answer, gold
            self._count("drift", t.origin)
        key = hash(normal) or 1
        if key not in self.golds:
            self.golds[key] = normal[:40]
        return key


def _properties(t: Trace, meta: dict[str, Any], ids_only: Any) -> list[str]:
    out = []
    if t.correct is None:
        out.append("unlabelled")
    if ids_only:
        out.append("ids only")
    elif not t.response:
        out.append("empty")
    elif "<think>" in t.response and "</think>" not in t.response:
        out.append("open")
    if t.prompt is None and t.prompt_ids is None:
        out.append("no prompt")
    if t.response_ids is not None:
        out.append("ids")
    if t.response_logprobs is not None and t.logprobs_temperature is None:
        out.append("undeclared")
    if t.finish is None:
        out.append("no finish")
    elif t.finish == "length":
        out.append("cut")
    for name in ("null_answer", "joined_reasoning", "greedy"):
        if meta.get(name):
            out.append(name)
    return out


def normal_gold(value: Any) -> str:
    """A reference answer in one spelling: lists of one opened, numbers without a trailing .0, white space folded."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _one_spelling(str(value))


@lru_cache(1 << 12)  # a reference is asked for with every sample of its problem
def _one_spelling(text: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", " ".join(text.split()))
