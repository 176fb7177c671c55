"""What warnings need of traces, kept as numbers while the traces stream by: some 70 bytes each, whatever their length.

Texts are kept as 64-bit hashes of this process: two of a million differ and collide with a probability of 1e-8.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from string import digits
from typing import Any, NamedTuple

import numpy as np

from analyzer.dumps import foreign, numbers, settings
from analyzer.dumps.paths import show
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
    "bare": "b",  # 1: an answer and nothing else; 0; -1: no text, ids alone
    "correct": "b",  # 1, 0; -1: no label
    "group": "i",
    "prompt": "q",  # hash; 0: not in the dump
    "gold": "q",  # hash of the reference answer in its normal spelling; 0: none
    "drift": "b",  # 1: the answer equals the reference only after normalising; 0
}
Columns = dict[str, np.ndarray]


class Kind(NamedTuple):
    """What can be said of a trace in one of a few words: there are few kinds, however many traces."""

    finish: str | None
    labelled: bool
    response: str  # text; open: <think> without its end; empty; blank: white space; ids only and labels: no text
    prompt: str  # ids, messages, text; question only; none
    ids: bool  # of the response
    logprobs: str  # none; undeclared: at an unknown temperature; T=1: usable as they stand; other
    gold: bool  # a reference answer
    null_answer: bool
    joined_reasoning: bool
    greedy: bool


@dataclass
class Tally:
    """`counts`: property -> traces that have it; `first`: the place of the first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, origin: str = "", n: int = 1) -> None:
        self.counts[name] += n
        self.first.setdefault(name, origin)


@dataclass
class Source:
    """The account of one source. `kinds`: tuple of a Kind's values -> [its traces, the place of the first], in order of
    appearance; what is counted follows from them."""

    kinds: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)
    samplers: set[Sampler | None] = field(default_factory=set)
    budgets: set[int] = field(default_factory=set)
    other_ends: Counter[str] = field(default_factory=Counter)
    numbers: Tally = field(default_factory=Tally)  # what the rows' own log-probs and masks hold, see _numbers
    laws: dict[float, Counter[str]] = field(default_factory=dict)  # temperature -> of log-probs under the base
    settings: Tally = field(
        default_factory=Tally
    )  # of the draw that no Sampler has, in words; "": rows, "given": of them
    shown: Tally = field(default_factory=Tally)  # prompts that show images, and how many images
    foreign: Tally = field(default_factory=Tally)  # text that the model did not write, see _foreign

    def tally(self) -> Tally:
        out = Tally()
        for values, (n, origin) in self.kinds.items():
            for name in _properties(Kind(*values)):
                out.add(name, origin, n)
        return out

    def by(self, name: str) -> Counter[Any]:
        """Traces by a field of Kind, in order of appearance."""
        at, out = Kind._fields.index(name), Counter()
        for values, (n, _) in self.kinds.items():
            out[values[at]] += n
        return out

    @property
    def traces(self) -> int:
        return sum(n for n, _ in self.kinds.values())

    @property
    def counts(self) -> Counter[str]:
        return self.tally().counts

    @property
    def first(self) -> dict[str, str]:
        return self.tally().first


class Survey:
    """Columns over all traces (COLUMNS) and accounts of sources, in order of appearance."""

    def __init__(self, threshold: float = 1.0) -> None:
        self.threshold = threshold
        self.columns = {name: array(kind) for name, kind in COLUMNS.items()}
        self.sources: dict[str, Source] = {}
        self.numbers: dict[str, dict[Any, int]] = {"source": {}, "problem": {}, "file": {}, "group": {}}
        self.asked = array("q")  # hash of the question of each problem, white space folded; 0: not in the dump
        self.all = Tally()  # what is counted without regard to the source
        self.scores: Counter[float] = Counter()  # that are neither 0 nor 1
        self.golds: dict[int, str] = {}  # hash -> beginning of the reference answer
        self.gold_kinds: Counter[str] = Counter()
        self.drift: tuple[str, Any, str] = ("", None, "")  # the first answer that differs by spelling, reference, place

    def add(self, traces: Iterable[Trace]) -> None:
        """Take in a batch of traces, in their order."""
        rows = []
        sources, problems, files, groups = (self.numbers[n] for n in ("source", "problem", "file", "group"))
        for t in traces:
            meta, origin, text, prompt, gold = t.meta, t.origin, t.response, t.prompt, t.meta.get("gold")
            ids_only = not text and bool(meta.get("ids_only"))
            own = self.sources.get(t.source)
            if own is None:
                own = self.sources[t.source] = Source()
            kind = _kind(t, meta, ids_only, gold)
            known = own.kinds.get(kind)
            if known is None:
                known = own.kinds[kind] = [0, origin]
            known[0] += 1
            own.samplers.add(t.sampler)
            # the dump's own meta may hold anything under these names
            if "sampler_part" in meta and isinstance(meta["sampler_part"], dict):
                _settings(t, own)
            if "max_tokens" in meta and type(meta["max_tokens"]) is int:
                own.budgets.add(meta["max_tokens"])
            if "finish_raw" in meta and type(meta["finish_raw"]) is str:
                own.other_ends[meta["finish_raw"]] += 1
            if t.response_logprobs is not None or t.base_logprobs or t.policy_logprobs or "response_mask" in meta:
                _numbers(t, own)
            if text:
                _foreign(t, own)
            if "images" in meta and isinstance(meta["images"], (list, tuple)) and meta["images"]:
                own.shown.add("rows", origin)
                own.shown.add("images", n=len(meta["images"]))
            if t.score is not None:
                self._score(t)
            if "old_correct" in meta:
                self.all.add("regraded")
                if isinstance(meta["old_correct"], bool) and meta["old_correct"] != t.correct:
                    self.all.add("flipped", origin)
            if (problem := problems.setdefault(t.problem, len(problems))) == len(self.asked):
                self.asked.append(hash(" ".join(t.question.split())) if t.question else 0)
            place = origin.rstrip(digits)
            row = (
                sources.setdefault(t.source, len(sources)),
                problem,
                0 if t.step is None else t.step + 1,
                files.setdefault(place, len(files)),
                int(origin[len(place) :] or 0),
                meta.get("row", 0),
                hash(
                    (origin, t.sample) if not text and meta.get("labels_only") else t.response_ids if ids_only else text
                ),
                len(t.response_ids or ()) if ids_only else len(text),
                -1 if ids_only or (not text and meta.get("labels_only")) else ANSWER_ONLY.match(text) is not None,
                -1 if t.correct is None else t.correct,
                groups.setdefault(t.group, len(groups)),
                0 if prompt is None else hash(prompt if isinstance(prompt, str) else str(prompt)) or 1,
                *((0, False) if gold is None else self._gold(t, gold)),
            )
            rows.append(row)
        for column, values in zip(
            self.columns.values(), zip(*rows, strict=True), strict=False
        ):  # none in an empty batch
            column.extend(values)

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns as arrays [N]; nothing can be added while they are held."""
        return {name: np.frombuffer(column, column.typecode) for name, column in self.columns.items()}

    def origin(self, i: int) -> str:
        """file:line of the i-th trace."""
        return f"{list(self.numbers['file'])[self.columns['file'][i]]}{self.columns['line'][i]}"

    def _score(self, t: Trace) -> None:
        self.all.add("scored")
        if t.score not in (0.0, 1.0):
            self.scores[t.score] += 1
            self.all.add("fractional", t.origin)
        if t.correct is not None and t.correct != (t.score >= self.threshold):
            self.all.add("against", t.origin)

    def _gold(self, t: Trace, gold: Any) -> tuple[int, bool]:
        """The columns gold and drift."""
        self.gold_kinds[type(gold).__name__] += 1
        normal = normal_gold(gold)
        drift = (
            isinstance(t.answer, str)
            and isinstance(gold, (str, int, float))
            and t.answer != str(gold)
            and normal_gold(t.answer) == normal
        )
        if drift and not self.drift[2]:
            self.drift = t.answer, gold, t.origin
        key = hash(normal) or 1
        if key not in self.golds:
            self.golds[key] = normal[:40]
        return key, drift


def _settings(t: Trace, own: Source) -> None:
    """Count the rows that state a penalty or the like, and those of them for which a sampler is given all the same."""
    if held := settings.shaping(t.meta["sampler_part"]):
        own.settings.add("", t.origin)
        own.settings.add(", ".join(f"{name} {show(value)}" for name, value in held.items()))
        if t.sampler is not None:
            own.settings.add("given")


def _foreign(t: Trace, own: Source) -> None:
    """Count the responses that hold text of others, or begin with their prompt, and the characters of both."""
    held, mark = foreign.blocks(t.response)
    for name, n in (("held", held), ("repeated", foreign.repeated(t))):
        if n:
            own.foreign.add(name, t.origin)
            own.foreign.add(f"{name}: characters", n=n)
            own.foreign.add(f"{name}: of", n=len(t.response))
    if held:
        own.foreign.add(f"mark {mark}", t.origin)
        if numbers.mask_of(t) is not None:
            own.foreign.add("masked")


def _numbers(t: Trace, own: Source) -> None:
    """Count what a trace's own numbers leave open. A masked token is known to be none of the policy's: it does not
    count as unknown."""
    tally, mask = own.numbers, numbers.mask_of(t)
    masked = 0 if mask is None else mask.count(0)
    if mask is not None:
        tally.add("masked rows", t.origin)
        tally.add("masked", n=masked)
        tally.add("of masked rows", n=len(mask))
    if t.response_logprobs is not None and (n := numbers.unknown(t.response_logprobs) - masked) > 0:
        tally.add("unknown rows", t.origin)
        tally.add("unknown", n=n)
    for label in t.policy_logprobs or ():
        tally.add(f"policy {label}", t.origin)
    if t.base_logprobs is None:
        return
    tally.add("base rows", t.origin)
    if t.response_logprobs is not None:
        tally.add("both rows", t.origin)
        if "sampler_part" in t.meta:
            tally.add("sampler in part", t.origin)
    for temperature, values in t.base_logprobs.items():
        law = own.laws.setdefault(temperature, Counter())
        law["rows"] += 1
        law["values"] += len(values)
        law["unknown"] += max(0, numbers.unknown(values) - masked)
        law["impossible"] += values.count(-math.inf)


def grouped(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group traces by keys [N]: the order that brings a group together (each in the order of the traces), and where in
    that order groups begin."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    return order, np.flatnonzero(new)


def _kind(t: Trace, meta: dict[str, Any], ids_only: bool, gold: Any) -> tuple[Any, ...]:
    """The values of its Kind; a plain tuple, since this is done for every trace."""
    text, prompt, logprobs = t.response, t.prompt, t.response_logprobs
    return (
        t.finish,
        t.correct is not None,
        "ids only"
        if ids_only
        else "labels"
        if not text and meta.get("labels_only")
        else "empty"
        if not text
        else "blank"
        if text.isspace()
        else "open"
        if "<think>" in text and "</think>" not in text
        else "text",
        "ids"
        if t.prompt_ids is not None
        else "messages"
        if isinstance(prompt, list)
        else "text"
        if prompt is not None
        else "question only"
        if t.question is not None
        else "none",
        t.response_ids is not None,
        "none"
        if logprobs is None
        else "undeclared"
        if t.logprobs_temperature is None
        else "T=1"
        if logprobs and t.logprobs_temperature == 1
        else "other",
        gold is not None,
        bool(meta.get("null_answer")),
        bool(meta.get("joined_reasoning")),
        bool(meta.get("greedy")),
    )


def _properties(kind: Kind) -> Iterator[str]:
    """The names that a kind's traces are counted under."""
    yield kind.response
    if kind.prompt in ("question only", "none") and kind.response != "labels":
        yield "no prompt"
    if kind.finish in (None, "length"):
        yield "cut" if kind.finish else "no finish"
    if kind.logprobs != "none":
        yield "logprobs"
        yield kind.logprobs
    if not kind.labelled:
        yield "unlabelled"
    yield from (name for name in ("ids", "gold", "null_answer", "joined_reasoning", "greedy") if getattr(kind, name))


def normal_gold(value: Any) -> str:
    """A reference answer in one spelling: lists of one opened, numbers without a trailing .0, white space folded."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _one_spelling(str(value))


@lru_cache(1 << 12)  # a reference is asked for with every sample of its problem
def _one_spelling(text: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", " ".join(text.split()))
