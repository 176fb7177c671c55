"""The types that flow through the package, and their invariants.

Frozen dataclasses, no behaviour beyond checking and (de)serialising themselves; no I/O, no torch.
Axis letters: `_T` response tokens, `_N` traces, `_P` problems, `_V` vocabulary. Log-probabilities and surprisals are
in nats; ranks start at 1.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from analyzer.errors import UsageError
from analyzer.records import display

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LEVELS = ("sequence", "skeleton", "steps", "kinds", "answer", "correct")
METHOD, OUTCOME = LEVELS[1:4], LEVELS[4:]  # two branches from the sequence, each from fine to coarse
WORDS = ("inside", "sharpened", "reweighted", "outside", "undetermined")
TESTED = tuple(level for level in LEVELS if level != "answer")  # levels with a test of their own for outside
BUDGET = 64  # the default k
TAU = 0.02  # the mass that may lie beyond the budget inside
HURDLED = 0.05  # the share of traces with a hurdle up to which a source counts as hurdle-free

COLUMNS = 1  # version of what the columns below mean: two can't stand in one run. 1: of runs that record none
# name -> dtype of the per-token columns of a Scored trace. Unit: nats unless said otherwise.
CORE_COLUMNS = {
    "token": "int32",  # id of the response token
    "logprob": "float32",  # log p(token | prompt, earlier tokens) at T=1 over the full vocabulary
    "rank": "int32",  # 1 + number of strictly larger logits
    "mass_above": "float32",  # probability of the strictly likelier tokens (no unit)
    "entropy": "float32",  # of the next-token distribution
    "varentropy": "float32",  # variance of the surprisal under the model, nats squared
    "renyi_half": "float32",  # Renyi entropy of order 1/2: 2 log sum_v sqrt(p_v)
}
SAMPLER_COLUMNS = {
    "mass_above_s": "float32",  # tempered, before truncation (no unit)
    "logprob_s": "float32",  # tempered, truncated, renormalised; -inf where the sampler could never draw the token
    "entropy_s": "float32",
    "varentropy_s": "float32",  # nats squared
}
POWERS = (1.25, 5 / 3, 2.5, 5.0, 10.0)  # exponents of the power columns: temperatures .8, .6, .4, .2, .1
# log sum_v p_v^a at T=1 over the full vocabulary: log p(token) at temperature 1/a is a * logprob - power_a
POWER_COLUMNS = {f"power_{a:g}": "float32" for a in POWERS}
NOVEL_POWERS = (0.95, 0.9, 0.8, 0.7)  # exponents below 1: factors of the e-value of novelty (`stats/evalue.py`)
NOVEL_COLUMNS = {f"power_{a:g}": "float32" for a in NOVEL_POWERS}  # as POWER_COLUMNS, never below 0
ROUNDING = 1e-3  # nats above 0 that a log-prob may be by rounding; more is no log-prob
# log p(token) as SAMPLER_COLUMNS' logprob_s, by the sampler that is declared for the trace's own source; only in traces
# of a source whose sampler is neither plain nor the scoring model's own
SOURCE_COLUMNS = {"logprob_source": "float32"}


@dataclass(frozen=True)
class Sampler:
    """How tokens were drawn from a model's distribution; the neutral values are T=1 and no truncation."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise UsageError(f"sampler {f.name} {value!r} is not a number")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(
                f"sampler temperature {self.temperature!r} must be > 0 (greedy decoding has no sampling distribution)"
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"sampler top_p {self.top_p!r} must be in (0, 1]")
        if not (math.isfinite(self.top_k) and self.top_k >= 0 and self.top_k == int(self.top_k)):
            raise UsageError(f"sampler top_k {self.top_k!r} must be an integer >= 0 (0 = off)")
        if not 0 <= self.min_p < 1:
            raise UsageError(f"sampler min_p {self.min_p!r} must be in [0, 1)")
        for f in fields(self):  # NumPy's numbers become Python's: run.json holds them
            kind: Any = type(f.default)
            object.__setattr__(self, f.name, kind(getattr(self, f.name)))

    @property
    def is_plain(self) -> bool:
        """True at T=1 without truncation: the sampler's distribution is the model's own."""
        return self == Sampler()

    @classmethod
    def parse(cls, text: str) -> Sampler:
        """Read "T[,top_p[,top_k[,min_p]]]", the value of --sampler LABEL=..."""
        parts = [p.strip() for p in text.split(",")]
        if not 1 <= len(parts) <= 4:
            raise UsageError(f"sampler {text!r}: expected T[,top_p[,top_k[,min_p]]], for example 0.6,0.95")
        try:
            kinds = (float, float, int, float)
            return cls(*(kind(p) for kind, p in zip(kinds, parts, strict=False)))
        except ValueError:
            raise UsageError(
                f"sampler {text!r}: expected numbers T[,top_p[,top_k[,min_p]]], for example 0.6,0.95"
            ) from None


@dataclass(frozen=True)
class Trace:
    """One sampled response. Identity: source, problem, sample and (if given) step."""

    source: str
    problem: str
    sample: int
    response: str
    prompt: str | list[dict[str, Any]] | None = None  # text, chat messages, or not in the dump
    question: str | None = None  # the bare question where the dump has no rendered prompt
    step: int | None = None
    prompt_ids: tuple[int, ...] | None = None
    response_ids: tuple[int, ...] | None = None  # ids win over text; log-probs are one per id, NaN where unknown
    response_logprobs: tuple[float, ...] | None = None  # under the generating policy at `logprobs_temperature`
    logprobs_temperature: float | None = None  # None: with its sampler, or not recorded
    base_logprobs: dict[float, tuple[float, ...]] | None = None  # temperature -> under the base; -inf: impossible
    policy_logprobs: dict[str, dict[float, tuple[float, ...]]] | None = None  # source -> the same under its policy
    correct: bool | None = None
    score: float | None = None
    finish: str | None = None  # "stop", "length" or None (not recorded)
    answer: str | None = None
    group: str | None = None  # benchmark or problem kind
    sampler: Sampler | None = None  # None: unknown
    meta: dict[str, Any] = field(default_factory=dict)
    origin: str = ""  # file:line

    @property
    def key(self) -> str:
        """source/problem/sample[@step]"""
        return trace_key(self.source, self.problem, self.sample, self.step)


def trace_key(source: str, problem: str, sample: int, step: int | None) -> str:
    """The written identity of a trace: source/problem/sample[@step]."""
    return f"{source}/{problem}/{sample}" + ("" if step is None else f"@{step}")


def problem_id(question: str) -> str:
    """Identity of a problem: a hash of its question with case kept and white space folded, never its position."""
    folded = re.sub(r"\s+", " ", question).strip()
    return "q" + hashlib.sha256(folded.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Scored:
    """One trace under one model: arrays over the response tokens, all of length T.

    `columns` maps a name of CORE_COLUMNS, SAMPLER_COLUMNS, POWER_COLUMNS, NOVEL_COLUMNS or SOURCE_COLUMNS (plus
    "offset", int32 character offset) to an array [T]; all but the first only where they were asked for and are known.
    `embedding` is float16 [H] or None; `top` holds (position, ids, logprobs) where the surprisal is high. `laws`:
    further samplers -> SAMPLER_COLUMNS under them; not on disk, where each scorer has its own.
    """

    key: str
    columns: dict[str, np.ndarray]
    embedding: np.ndarray | None = None
    top: tuple[tuple[int, tuple[int, ...], tuple[float, ...]], ...] = ()
    laws: dict[Sampler, dict[str, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(v) for v in self.columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"{self.key}: columns of different lengths {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.columns["token"])


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty. No value: NaN, and the reason in `note`."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    method: str = ""
    note: str = ""

    @classmethod
    def of(cls, interval: Any, note: str = "") -> Estimate:
        """Of an interval (`stats.bootstrap.Interval`): anything with value, low, high, n and method."""
        return cls(interval.value, interval.low, interval.high, interval.n, interval.method, note)

    def as_json(self) -> dict[str, Any]:
        """The dict of results.json: a non-finite number becomes null and is named in the note."""
        out = asdict(self)
        for name in ("value", "low", "high"):
            number = float(out[name])
            if not math.isfinite(number):
                if not math.isnan(number):
                    out["note"] = f"{out['note']}; {name} is {number}".lstrip("; ")
                out[name] = None
            else:
                out[name] = number
        if None in (out["value"], out["low"], out["high"]) and not out["note"]:
            out["note"] = "no value" if out["value"] is None else out["method"] or "no interval"
        out["n"] = int(out["n"])
        return out


@dataclass(frozen=True)
class Result:
    """What one analysis found: headline estimates by contract key, tables with their n, notes in plain words."""

    name: str
    question: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None

    @cached_property
    def _rows(self) -> dict[str, dict[str, list[dict[Any, Any]]]]:
        return {}

    def rows(self, table: str) -> dict[str, list[dict[Any, Any]]]:
        """source -> its rows of a table, in their order; empty where there is no such table. Made once: the rules ask
        for them again and again."""
        if table not in self._rows:
            found = self._rows[table] = {}
            for row in self.tables[table].to_dict("records") if table in self.tables else ():
                found.setdefault(row["source"], []).append(row)
        return self._rows[table]

    def as_json(self) -> dict[str, Any]:
        """The dict of results.json: NaN and infinities in tables become null."""
        return {
            "question": self.question,
            "params": json_value({**self.params, **({} if self.seed is None else {"seed": self.seed})}),
            "notes": list(self.notes),
            "estimates": {k: e.as_json() for k, e in self.estimates.items()},
            "tables": {
                k: {
                    "columns": list(map(str, t.columns)),
                    "rows": [[json_value(v) for v in row] for row in t.itertuples(index=False)],
                }
                for k, t in self.tables.items()
            },
        }

    def _repr_html_(self) -> str:
        return display.result(self)

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any]) -> Result:
        """The inverse of `as_json` (null numbers come back as NaN)."""
        import pandas as pd

        def number(x: float | None) -> float:
            return math.nan if x is None else x

        params = dict(data["params"])
        seed = params.pop("seed", None)
        estimates = {
            k: Estimate(number(e["value"]), number(e["low"]), number(e["high"]), e["n"], e["method"], e["note"])
            for k, e in data["estimates"].items()
        }
        tables = {k: pd.DataFrame(t["rows"], columns=t["columns"]) for k, t in data["tables"].items()}
        return cls(name, data["question"], estimates, tables, tuple(data["notes"]), params, seed)


def json_value(value: Any) -> Any:
    """A JSON value: numpy scalars unwrapped, non-finite floats and missing values null."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (int, bool, str)):
        return value
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        return [json_value(v) for v in (value.tolist() if hasattr(value, "tolist") else value)]
    if isinstance(value, dict):
        return {str(k): json_value(v) for k, v in value.items()}
    return str(value) if (value != value) is False else None  # NaT differs from itself; for pandas.NA the answer is NA


@dataclass(frozen=True)
class Verdict:
    """One sentence about one source at one level, with its numbers."""

    source: str
    reference: str
    level: str
    budget: int
    word: str
    headline: bool = False
    why: tuple[str, ...] = ()
    needs: str | None = None
    prompt_of: str | None = None  # the source under whose prompts the base was asked; None: each under its own

    def __post_init__(self) -> None:
        if self.word not in WORDS or self.level not in LEVELS:
            raise ValueError(f"verdict {self.word!r} at level {self.level!r}; allowed: {WORDS}, {LEVELS}")

    def _repr_html_(self) -> str:
        return display.verdicts([self])

    def as_json(self) -> dict[str, Any]:
        """The dict of results.json."""
        return {
            "source": self.source,
            "reference": self.reference,
            "verdict": self.word,
            "level": self.level,
            "budget": self.budget,
            "headline": self.headline,
            "why": list(self.why),
            "needs": self.needs,
            **({} if self.prompt_of is None else {"prompt_of": self.prompt_of}),
        }


@dataclass(frozen=True)
class Tables:
    """What an analysis reads; built from a Run by `tables.build`, or by hand in tests and notebooks.

    traces: one row per trace: key, source, problem, step (nullable Int64), sample, correct (nullable boolean), score,
        finish, answer, group, characters (nullable Int64, length of the response), response_hash (nullable UInt64,
        equal for equal responses), logprob_generated (nats, the generating engine's sum of the token log-probs, NaN
        unless the dump has them at temperature 1), n_generated (tokens in that sum).
    scores: one row per trace and model: model (scorer label), key, source, problem, step, sample, correct, finish,
        group, prompt_hash (of the prompt's ids as scored), and the per-trace summaries of `summaries.py`; empty when
        nothing was scored.
    tokens: tokens(model, columns) yields DataFrames with key, source, problem, sample and the named list columns as
        numpy arrays, a few thousand traces at a time; columns may hold "embedding".
    texts: texts(columns) yields DataFrames with key and the named ones of response, prompt and question, a few thousand
        traces at a time, all traces: text stays on disk.
    numbers: numbers() yields DataFrames, a few thousand traces at a time, of the traces whose rows bring ids and
        log-probs under their policy and under the base: key, source, problem, sample, step, finish, token (int32 array
        of response ids), logprob_q (float32 array, under the policy, NaN unknown), logprobs_temperature (NaN: not
        recorded), laws (dict temperature -> float32 array, under the base, NaN unknown, -inf impossible), written (bool
        array, False: the token was not written by the policy; None: all were).
    policy_numbers: the same of the traces whose rows bring log-probs under the policies of other sources beside those
        under their own; laws: dict (source, temperature) -> float32 array.
    handovers: the prefixes that were handed over to the base (`analyzer handover`): DataFrame with source, by (base or
        policy), problem, key, cut (0 to cuts - 1), cuts, step, of (steps), tokens, next (text), n, correct, unread,
        cut_off; None where none were.
    judged: of the traces whose reasoning somebody judged: DataFrame with key, yes and votes (of the dump's column
        `valid`), person (nullable boolean, the answer of `analyzer review`) and picked (how that chose it).
    difficulty: problem -> how difficult it is, a number above 0; None where no field was named.
    memo: what is worth making once (name -> what was made); copies made by dataclasses.replace share it.
    base: scorer label of the base model, or None. policies: source label -> scorer label of the model it came from.
    samplers: source label -> its Sampler; a source that is missing here has an unknown sampler.
    engines: scorer label -> what it ran with (model, dtype, device, path, eos ...); empty in hand-made tables.
    """

    traces: pd.DataFrame
    scores: pd.DataFrame
    tokens: Callable[[str, list[str]], Iterator[pd.DataFrame]]
    reference: str
    base: str | None = None
    policies: dict[str, str] = field(default_factory=dict)
    samplers: dict[str, Sampler] = field(default_factory=dict)
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: Callable[[list[str]], Iterator[pd.DataFrame]] = lambda columns: iter(())
    numbers: Callable[[], Iterator[pd.DataFrame]] = lambda: iter(())
    policy_numbers: Callable[[], Iterator[pd.DataFrame]] = lambda: iter(())
    handovers: Callable[[], pd.DataFrame | None] = lambda: None
    judged: Callable[[], pd.DataFrame | None] = lambda: None
    difficulty: dict[str, float] | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """All source labels, the reference first, the others in the order of the dumps."""
        labels = list(self.traces["source"].unique())
        return [s for s in labels if s == self.reference] + [s for s in labels if s != self.reference]

    def text_of(self, keys: Collection[str], column: str = "response") -> dict[str, str]:
        """The texts of these traces by key, one pass; a trace without one is left out."""
        wanted = set(keys)
        found: dict[str, Any] = {}
        for part in self.texts([column]) if wanted else ():
            part = part[[key in wanted for key in part["key"].tolist()]]  # before a text becomes an object
            found |= zip(part["key"].tolist(), part[column].tolist(), strict=True)
        return {key: text for key, text in found.items() if isinstance(text, str)}


class Figure(NamedTuple):
    """One drawing of an analysis: `draw(result, ax)` returns ax; `table` names the table it shows (saved as its csv);
    `caption(result)` states the finding with its n, and serves as alt text; `width` in columns of a two-column page."""

    draw: Callable[..., Any]
    table: str
    caption: Callable[[Result], str]
    width: int = 1
