"""Tables -> altered Tables, for `robustness` to decide the verdicts again. Nothing is scored, nothing is decided here.

`cases` lists the variations in the order of the page, those that can't be made with the reason; one after the other, so
that memory holds one altered table. An altered table streams no tokens: what reads them (the tokens behind a flag)
explains a word and never makes one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.summaries import among, last_steps
from analyzer.analysis.data.tables import hottest
from analyzer.analysis.support import local
from analyzer.analysis.support.engine import SLACK
from analyzer.records import NOVEL_COLUMNS, TAU, Result, Tables
from analyzer.stats import evalue

TAIL = 0.10  # of each source's traces that a cut on length drops
LABELS = {"model", "key", "source", "problem", "finish", "group"}  # columns of names
ALL = ("support", "strategy", "contained", "boundary")  # what the levels read
AS_RUN = "as run"
OF_TRACES = ("correct traces only", "longest tenth dropped", "shortest tenth dropped")
OF_TRACES += ("even samples only", "odd samples only", "another seed")
OF_SCORES = ("without the closing token", "engine floor doubled", "engine floor halved")
OF_SCORES += ("tolerance doubled", "tolerance halved")
TO_SCORE = ("BOS", "prompt template", "precision")  # what only another scoring can tell
NAMES = (AS_RUN, *OF_TRACES, *OF_SCORES, *TO_SCORE)
AGAIN = "analyzer report DUMP... --base MODEL"
SUMS = ("logprob", "entropy", "varentropy", "renyi_half", "logprob_s")  # token columns whose sums make the summaries


class Case(NamedTuple):
    """One variation: a name, what is computed again on which tables, and what a word that differs would mean."""

    name: str
    tables: Tables | None = None  # None: nothing to decide, and `note` says why
    redo: tuple[str, ...] = ()  # analyses
    drop: tuple[str, ...] = ()  # analyses whose question makes no sense under the variation
    tau: float = TAU
    seed: int = 0
    note: str = ""


def cases(tables: Tables, main: Mapping[str, Result], seed: int) -> Iterator[Case]:
    """One case for each of NAMES, in that order; `main`: results of the run by name, of which `support` says whether
    traces were scored and where the engine floor lies."""
    whole = last(tables)
    yield Case(AS_RUN, whole, seed=seed)
    yield from _of_traces(whole, seed)
    if "support" not in main or tables.base is None:
        for name in (*OF_SCORES, *TO_SCORE):
            yield Case(name, note=f"no token probabilities under the base model: {AGAIN} -o OTHER")
        return
    yield from _of_scores(tables, whole, main["support"], seed)
    yield from _to_score(tables)


def _of_traces(whole: Tables, seed: int) -> Iterator[Case]:
    """Other traces, or another seed: every level is asked."""
    right = correct(whole)
    note = (
        "conditional on a correct answer, which is another question: a word that differs says on which side of "
        "`correct` the evidence lies, not that the run's word is wrong; reach is the mean of the same terms over "
        "correct traces, problems that one side never solves drop out of the strategies; what k draws contain is not "
        "asked, nor are answers, which are about `correct` itself"
    )
    if right.any():
        yield Case(OF_TRACES[0], kept(whole, right), ALL[:2], ALL[2:], seed=seed, note=note)
    else:
        yield Case(OF_TRACES[0], note="no trace is known to be correct: give `correct` or a score in the dump")
    for name, longest in zip(OF_TRACES[1:3], (True, False), strict=True):
        note = f"a word that differs hangs on the {'longest' if longest else 'shortest'} traces of the source"
        yield Case(name, kept(whole, length_cut(whole, longest=longest)), ALL, seed=seed, note=note)
    half = halves(whole)
    for i, name in enumerate(OF_TRACES[3:5]):
        note = "half of the traces of each problem: a word that turns undetermined was short of traces"
        yield Case(name, kept(whole, half == i), ALL, seed=seed, note=note)
    note = "resampling, halves, clusterings and A/A of another seed: a word that differs hangs on the draw"
    yield Case(OF_TRACES[5], whole, ("preflight", *ALL[:2]), seed=seed + 1, note=note)


def _of_scores(tables: Tables, whole: Tables, support: Result, seed: int) -> Iterator[Case]:
    """Other tokens, noise or tolerance: the sequence level alone is asked."""
    shorter, counts = without_end(whole, tables.tokens)
    held = ", ".join(f"{source} {n:,}" for source, n in counts.items())
    note = f"traces that had one under the base: {held}; the e-value is only about valid without its last factor"
    if counts.sum():
        yield Case(OF_SCORES[0], shorter, ALL[:1], seed=seed, note=note)
    else:
        note = f"no trace holds an end-of-sequence token behind its text; with one: {AGAIN} --eos ID -o OTHER"
        yield Case(OF_SCORES[0], note=note)
    evidence = support.tables["evidence"]
    floor = pd.to_numeric(evidence["k_min"]).max() if len(evidence) else math.nan
    for name, factor in zip(OF_SCORES[1:3], (2.0, 0.5), strict=True):
        note = f"k_min about {factor * floor:.3g} for the worst source; budgets below it are not used"
        if math.isnan(floor):
            yield Case(name, note="not known: the dumps have no log-probs of generation at temperature 1")
        elif factor < 1 and floor <= SLACK:
            yield Case(name, note=f"nothing to halve: the floor is k = {floor:.4g}, below any budget")
        else:
            yield Case(name, noise(whole, factor), ALL[:1], seed=seed, note=note)
    for name, factor in zip(OF_SCORES[3:], (2.0, 0.5), strict=True):
        note = f"tau = {factor * TAU:g}; p of the primary endpoint keeps the tolerance {TAU:g}"
        yield Case(name, whole, tau=factor * TAU, seed=seed, note=note)


def _to_score(tables: Tables) -> Iterator[Case]:
    engine = tables.engines.get(tables.base or "", {})
    ways = [d.removeprefix("prompt: ") for d in engine.get("decisions", {}) if d.startswith("prompt: ")]
    how, now = f"now {'; '.join(ways)}; " if ways else "", engine.get("dtype")
    notes = (
        f"{how}put prompt_ids with (or without) BOS into copies of the dumps and score them: {AGAIN} -o OTHER",
        f"{how}bare questions can be scored with another: {AGAIN} --template NAME -o OTHER",
        f"{f'now {now}; ' if now else ''}{AGAIN} --dtype {'bfloat16' if now == 'float32' else 'float32'} -o OTHER",
    )
    for name, note in zip(TO_SCORE, notes, strict=True):
        yield Case(name, note=note)


def last(tables: Tables) -> Tables:
    """Each source's last training step, without the token stream: what every other function here starts from."""
    frames = [last_steps(f) if len(f) else f for f in (tables.traces, tables.scores)]
    # plain objects: names in Arrow are slow to group by, and they are grouped by again in every variation
    known: dict[str, str] = {}  # each name once: a million traces have as many keys, and twice as many scores
    traces, scores = (f.assign(**{c: _objects(f[c], known) for c in f.columns if c in LABELS}) for f in frames)
    return replace(tables, traces=traces, scores=scores, tokens=_silent)


def _objects(names: pd.Series, known: dict[str, str]) -> np.ndarray:
    """The names as Python objects, equal ones the same object; a missing one is NaN."""
    codes, distinct = pd.factorize(names)
    own = np.array([*(known.setdefault(name, name) for name in distinct.tolist()), np.nan], dtype=object)
    return own[codes]


def _silent(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
    return iter(())


def kept(tables: Tables, mask_N: np.ndarray) -> Tables:
    """The traces (and their scores) where `mask_N`, bool by row of `traces`, is True."""
    traces = tables.traces[mask_N]
    keys = set(traces["key"])
    return replace(tables, traces=traces, scores=tables.scores[among(tables.scores["key"], keys)])


def correct(tables: Tables) -> np.ndarray:
    """Traces that are known to be correct: bool [N]."""
    return tables.traces["correct"].astype("boolean").fillna(False).to_numpy(dtype=bool)


def lengths(tables: Tables) -> np.ndarray:
    """Characters of the response, or scored tokens where no trace has a text: float [N]."""
    size = tables.traces["characters"].astype(float)
    if not (size > 0).any() and tables.base:
        tokens = tables.scores[tables.scores["model"] == tables.base].set_index("key")["n_tokens"]
        size = tables.traces["key"].map(tokens).astype(float)
    return size.to_numpy()


def length_cut(tables: Tables, *, longest: bool) -> np.ndarray:
    """False for the longest (or shortest) TAIL of each source's traces, never for more: bool [N]."""
    size = pd.Series(lengths(tables)) * (1 if longest else -1)
    source = tables.traces["source"].to_numpy()
    edge = size.groupby(source).transform(lambda x: x.quantile(1 - TAIL, interpolation="higher"))
    return ~(size > edge).to_numpy()


def halves(tables: Tables) -> np.ndarray:
    """0 or 1 by turns within source and problem, in the order of the sample numbers: int [N]."""
    order = tables.traces.sort_values(["source", "problem", "sample"], kind="stable")
    rank = order.groupby(["source", "problem"], sort=False).cumcount()
    return rank.reindex(tables.traces.index).to_numpy() % 2


def noise(tables: Tables, factor: float) -> Tables:
    """The gap between log-probs of generation and scoring moved by log factor: engine floors times `factor`."""
    model = tables.traces["source"].map(tables.policies)
    scored = tables.scores.set_index(["model", "key"])["logprob"].astype(float)
    at = pd.MultiIndex.from_arrays([model, tables.traces["key"]])
    own = scored[~scored.index.duplicated()].reindex(at).to_numpy()
    gap = tables.traces["logprob_generated"].to_numpy(float) - own
    size = np.maximum(np.abs(gap) + math.log(factor), 0.0)
    return replace(tables, traces=tables.traces.assign(logprob_generated=own + np.where(gap < 0, -size, size)))


def without_end(tables: Tables, tokens: Any) -> tuple[Tables, pd.Series]:
    """Scores without the token that closes a trace, and how many traces of each source had one under the base.

    tokens: the token stream of the whole run. A closing token is the id that --eos appended, else a last token that
    stands behind the whole text. Its terms leave the sums (log-probs, log e, z, surprisal per token) and the log-ratios
    of whole traces; the largest window and the mean of the largest fifth are kept as they are.
    """
    texts = tables.traces.set_index("key")["characters"].fillna(0).astype(float)
    models = [m for m in dict.fromkeys([tables.base, *tables.policies.values()]) if m is not None]
    parts, counts = [], pd.Series(0, index=tables.sources)
    for model in models:
        eos = tables.engines.get(model, {}).get("eos")
        wanted = set(tables.scores.loc[tables.scores["model"] == model, "key"])
        closed: set[str] = set()
        for part in tokens(model, ["token", "offset"]):  # many runs have none, and these are two columns of seven
            part = part[among(part["key"], wanted)]
            closed.update(part.loc[_closed(part, texts, eos), "key"])
        for part in tokens(model, ["token", *SUMS, *NOVEL_COLUMNS]) if closed else ():
            part = part[among(part["key"], closed)]
            if len(part):
                heats = {s: hottest(tables.samplers, tables.reference, s) for s in part["source"].unique()}
                heat_N = part["source"].map(heats).to_numpy(float) if model == tables.base else 1.0
                parts.append(_rest(part, heat_N).assign(model=model))
                if model == tables.base:
                    counts = counts.add(part["source"].value_counts(), fill_value=0)
    if not parts:
        return tables, counts.astype(int)
    rest = pd.concat(parts).set_index(["model", "key"])
    at = pd.MultiIndex.from_frame(tables.scores[["model", "key"]])
    memo = {name: local.without_end(m) if name.startswith("local@") else m for name, m in tables.memo.items()}
    shorter = replace(tables, scores=_shortened(tables.scores, rest.reindex(at)), memo=memo)
    return shorter, counts.astype(int)


def _closed(part: pd.DataFrame, texts: pd.Series, eos: int | None) -> np.ndarray:
    """Which traces end in a closing token, bool [N]."""
    whole = texts.reindex(part["key"]).to_numpy()
    out = np.zeros(len(part), dtype=bool)
    for i, (token, offset) in enumerate(zip(part["token"], part["offset"])):
        if len(token):
            behind = offset is not None and 0 < whole[i] <= offset[-1]
            out[i] = token[-1] == eos if eos is not None else behind
    return out


def _rest(part: pd.DataFrame, heat_N: float | np.ndarray) -> pd.DataFrame:
    """key and, for each of SUMS, the sum without the last token and the last value; `exits`, `log_e`: of the rest.
    heat_N: the hottest temperature declared for each trace."""
    size = part["token"].map(len).to_numpy()
    last_N = size.cumsum() - 1
    first_N = last_N - size + 1
    out = {"key": part["key"].to_numpy()}
    for name in SUMS:
        columns = [np.full(n, np.nan) if x is None else x for x, n in zip(part[name], size)]
        flat = np.concatenate(columns).astype(float)
        out[f"{name}.last"] = flat[last_N]
        flat[last_N] = 0.0
        out[name] = np.add.reduceat(flat, first_N)
        if name == "logprob_s":
            out["exits"] = np.where(np.isnan(out[name]), np.nan, np.add.reduceat(np.isneginf(flat), first_N, dtype=int))
    whole = {}
    for name in ("logprob", "renyi_half", *NOVEL_COLUMNS):
        if part[name].notna().any():
            values = [np.full(max(n - 1, 0), np.nan) if x is None else x[:-1] for x, n in zip(part[name], size)]
            whole[name] = np.concatenate(values).astype(float)
    out["log_e"] = evalue.log_e_many(whole, np.maximum(size - 1, 0), heat_N)
    return pd.DataFrame(out)


def _shortened(scores: pd.DataFrame, rest: pd.DataFrame) -> pd.DataFrame:
    """The scores with the sums of `rest` (in the order of their rows, NaN where there was no closing token)."""
    old, new = scores, {}
    rest = rest.reset_index(drop=True).set_axis(scores.index)
    there = rest["logprob"].notna() & (scores["n_tokens"] > 1)
    n = old["n_tokens"].astype(float) - 1
    # the column of the sampler is missing where it is the model's own distribution
    plain = rest["logprob_s"].isna()
    new["n_tokens"], new["logprob"], new["nll_mean"] = n, rest["logprob"], -rest["logprob"] / n
    new["logprob_s"] = rest["logprob_s"].where(~plain, rest["logprob"].where(old["logprob_s"].notna()))
    new["exits"] = rest["exits"].where(~plain, old["exits"])
    new["log_e"] = rest["log_e"]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(rest["varentropy"].where(rest["varentropy"] > 0))
        new["excess_z"] = (-rest["logprob"] - rest["entropy"]) / spread
        seen = old["n_tokens"] - old["n_copied"]
        new["nll_masked_mean"] = (old["nll_masked_mean"] * seen + rest["logprob.last"]) / (seen - 1).where(seen > 1)
    return scores.assign(**{k: v.where(there, old[k]) for k, v in new.items() if k in old})
