"""A run's Parquet parts -> the `Tables` that analyses read: per-trace summaries now, token arrays on demand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analyzer.analysis.data.ragged import summarise_many
from analyzer.analysis.data.summaries import SUMMARY_COLUMNS
from analyzer.errors import DumpError, UsageError
from analyzer.records import NOVEL_COLUMNS, Sampler, Tables, trace_key
from analyzer.runs import handover, review
from analyzer.runs.rows import IDENTITY
from analyzer.runs.store import Run

ORDER = ["source", "problem", "step", "sample"]
NUMBERS = [
    "key", "source", "problem", "sample", "step", "finish", "response_ids", "response_logprobs", "logprobs_temperature",
    "sampler", "meta",
]  # fmt: skip
BASE, POLICY = ["base_temperatures", "base_logprobs"], ["policy_sources", "policy_temperatures", "policy_logprobs"]
GREEDY, PARTIAL, OTHER = "temperature 0", " without a temperature", " (which no sampler here has)"  # see _stated
NAMES = {"temperature": "T=", "top_p": "top-p ", "top_k": "top-k ", "min_p": "min-p "}
TOKEN_COLUMNS = [
    "token", "logprob", "rank", "entropy", "varentropy", "renyi_half",
    "mass_above_s", "logprob_s", "entropy_s", "varentropy_s", "logprob_source", *NOVEL_COLUMNS,
]  # fmt: skip

UNDECLARED = 1 / 0.7  # the hottest law that the stored exponents tell


def build(run: Run) -> Tables:
    """Read a run into Tables; token arrays stream through once for the summaries and are not kept.

    Without scores, `scores` is an empty frame with the right columns and `base` is None.
    """
    run.verify(sums=True)
    traces = run.trace_table()
    facts = [_facts(b["response"].to_pandas()) for b in run.trace_batches(["response"])]
    traces[["characters", "response_hash"]] = pd.concat(facts, ignore_index=True) if facts else _facts(pd.Series())
    traces[["logprob_generated", "n_generated"]] = _generated(run)  # all in the order of the parts
    settings = run.manifest.get("settings", {})
    labels = run.scorers()
    samplers = {label: Sampler(**values) for label, values in run.manifest.get("samplers", {}).items() if values}
    frames = [_summaries(run, label, samplers if label == "base" else {}) for label in labels]
    frames = [f for f in frames if not f.empty]
    columns = ["model", "key", *ORDER, "prompt_hash", *SUMMARY_COLUMNS]
    scores = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    scores = scores.merge(traces[["key", "correct", "finish", "group"]], on="key", how="left", validate="many_to_one")

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        return run.tokens(model, columns)

    def texts(columns: list[str]) -> Iterator[pd.DataFrame]:
        return (batch.to_pandas() for batch in run.trace_batches(["key", *columns]))

    return Tables(
        traces=traces,
        scores=scores,
        tokens=tokens,
        reference=settings["reference"],
        base="base" if "base" in labels else None,
        policies=dict(run.manifest.get("policies", {})),
        samplers=samplers,
        engines={label: dict(run.manifest["scorers"].get(label, {})) for label in labels},
        texts=texts,
        numbers=lambda: _numbers(run, BASE),
        policy_numbers=lambda: _numbers(run, POLICY),
        handovers=lambda: _handovers(run),
        judged=lambda: _judged(run),
    )


def _handovers(run: Run) -> pd.DataFrame | None:
    """A row for each cut of each trace; texts that were drawn stay on disk."""
    base = run.manifest["scorers"].get("base", {}).get("fingerprint", "")
    rows = list(handover.rows(run.path, base, run.manifest.get("handovers", {})))
    return pd.DataFrame(rows) if rows else None


def _judged(run: Run) -> pd.DataFrame:
    """Of the traces that somebody judged: key; yes and votes (of the dump's column `valid`, 0 of 0 without it); person
    (nullable boolean, the answer of a review) and picked (how the review chose it)."""
    votes = [
        {"key": key, "yes": sum(held), "votes": len(held)}
        for batch in run.trace_batches(["key", "meta"])
        for key, meta in zip(*batch.filter(pc.match_substring(batch["meta"], '"valid_votes"')).to_pydict().values())
        if (held := orjson.loads(meta).get("valid_votes"))
    ]
    frame = pd.DataFrame(votes, columns=["key", "yes", "votes"])
    answers = pd.DataFrame(review.answers(run.path), columns=["key", "valid", "picked"])
    frame = frame.merge(answers.rename(columns={"valid": "person"}), on="key", how="outer")
    return frame.astype({"person": "boolean"}).fillna({"yes": 0, "votes": 0}).astype({"yes": int, "votes": int})


def difficulty(run: Run, name: str) -> dict[str, float]:
    """Problem -> its difficulty, from a field that the rows have kept (`meta`); problems without one are left out.

    Raises UsageError where no row has it, and for a value that is no number above 0, or two of one problem.
    """
    found: dict[str, float] = {}
    for batch in run.trace_batches(["key", "problem", "meta"]):
        for key, problem, meta in zip(*batch.to_pydict().values(), strict=True):
            if (value := orjson.loads(meta).get(name)) is None:
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not (math.isfinite(number) and number > 0) or isinstance(value, bool):
                raise UsageError(f"--difficulty {name}: {key} has {value!r}; expected a number above 0")
            if found.setdefault(problem, number) != number:
                raise UsageError(
                    f"--difficulty {name}: problem {problem} has {found[problem]:g} and {number:g} ({key})"
                )
    if not found:
        raise UsageError(
            f"--difficulty {name}: no row has kept such a field; --map meta.{name}=FIELD keeps one (a new -o folder)"
        )
    return found


def in_memory(frame: pd.DataFrame) -> dict[str, Any]:
    """`traces` and `texts` of Tables made by hand: frame is `traces` with any of response, prompt and question."""
    held = frame[["key", *frame.columns.intersection(["response", "prompt", "question"])]]
    rest = frame.drop(columns=held.columns[1:]).reset_index(drop=True)
    return {
        "traces": pd.concat([rest, _facts(held["response"].reset_index(drop=True))], axis=1),
        "texts": lambda columns: iter([held.reindex(columns=["key", *columns])]),
    }


def _facts(response: pd.Series) -> pd.DataFrame:
    """characters and response_hash of texts, both missing where there is none."""
    known = response.notna()
    hashes = np.zeros(len(response), np.uint64)
    hashes[known] = pd.util.hash_array(response[known].to_numpy(dtype=object), categorize=False)
    characters = response.str.len() if known.any() else pd.Series(pd.NA, response.index)
    return pd.DataFrame(
        {"characters": characters.astype("Int64"), "response_hash": pd.array(hashes, dtype="UInt64")}
    ).mask(~known, pd.NA)


def _generated(run: Run) -> pd.DataFrame:
    """logprob_generated (nats), n_generated in the order of the traces: what the dump says that its engine gave the
    tokens, summed.

    Only log-probs that are declared to be at temperature 1 can be compared with scores; else NaN and 0 tokens. So where
    one of them is not known: a sum without it would be that of other tokens.
    """
    totals, lengths = [np.empty(0)], [np.empty(0, np.int64)]
    for batch in run.trace_batches(["response_logprobs", "logprobs_temperature"]):
        lists = batch["response_logprobs"]
        length = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = lists.flatten().to_numpy(zero_copy_only=False)
        temperature = batch["logprobs_temperature"].to_numpy(zero_copy_only=False)
        total, known = np.full(len(length), np.nan), (temperature == 1) & (length > 0)
        if len(values):  # by segment: one infinite value must not reach the other traces
            total[length > 0] = np.add.reduceat(values, (length.cumsum() - length)[length > 0], dtype=float)
        known &= ~np.isnan(total)
        totals.append(np.where(known, total, np.nan))
        lengths.append(np.where(known, length, 0))
    return pd.DataFrame({"logprob_generated": np.concatenate(totals), "n_generated": np.concatenate(lengths)})


def _numbers(run: Run, beside: list[str]) -> Iterator[pd.DataFrame]:
    """`numbers` and `policy_numbers` of Tables: no text is read, and of rows without both log-probs no number is taken
    out. beside: the columns that name the laws, the last one holds their log-probs."""
    *named, values = beside
    for batch in run.trace_batches([*NUMBERS, *beside]):
        lists = ("response_ids", "response_logprobs", values)
        whole = np.logical_and.reduce([batch[n].is_valid().to_numpy(zero_copy_only=False) for n in lists])
        if not whole.any():
            continue
        batch = batch.filter(pa.array(whole))
        frame = batch.select(["key", "source", "problem", "sample", "step", "finish"]).to_pandas()
        frame["step"] = pd.array(batch["step"].to_pylist(), dtype="Int64")
        frame["token"], frame["logprob_q"] = _arrays(batch["response_ids"]), _arrays(batch["response_logprobs"])
        frame["logprobs_temperature"] = batch["logprobs_temperature"].to_numpy(zero_copy_only=False).astype(float)
        laws = iter(_arrays(batch[values].flatten()))
        names = zip(*(batch[name].to_pylist() for name in named), strict=True)
        keys = (own[0] if len(own) == 1 else zip(*own, strict=True) for own in names)
        frame["laws"] = [{key: next(laws) for key in own} for own in keys]
        metas = batch["meta"].to_pylist()
        frame["written"] = [_mask(meta, len(ids)) for meta, ids in zip(metas, frame["token"], strict=True)]
        frame["stated"] = list(map(_stated, batch["sampler"].to_pylist(), metas))
        yield frame


def _mask(meta: str, count: int) -> np.ndarray | None:
    """The mask that the row was read with (it is kept in meta), bool [T]; None where there was none."""
    if '"response_mask"' not in meta:
        return None
    held = orjson.loads(meta).get("response_mask")
    return np.array(held, bool) if isinstance(held, list) and len(held) == count else None


def _stated(sampler: str | None, meta: str) -> str:
    """What a row says about how it was drawn, in words: a sampler, GREEDY, a truncation PARTIAL, a penalty or beams
    OTHER; "" for nothing."""
    if sampler is not None:
        return _words(orjson.loads(sampler))
    if '"greedy"' not in meta and '"sampler_part"' not in meta:
        return ""
    held = orjson.loads(meta)
    if held.get("greedy"):
        return GREEDY
    part = held.get("sampler_part")  # the dump's own meta may hold anything under this name
    if not isinstance(part, dict):
        return ""
    return f"{_words(part)}{PARTIAL if NAMES.keys() >= part.keys() else OTHER}"


def _words(values: dict[str, Any]) -> str:
    off = {"top_p": 1, "top_k": 0, "min_p": 0} if "temperature" in values else {}
    return ", ".join(f"{NAMES.get(k, f'{k} ')}{v}" for k, v in values.items() if k not in off or off[k] != v)


def _arrays(lists: pa.ListArray) -> list[np.ndarray]:
    """Each list as an array; none is missing."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return np.split(values, lengths.cumsum()[:-1]) if len(lengths) else []


def hottest(samplers: Mapping[str, Sampler], reference: str, source: str) -> float:
    """The largest temperature at which a trace of the source counts as drawn from the base: 1, that declared for the
    reference, that declared for the source; of a source that declares none UNDECLARED, as draws of the base that are a
    little hotter than T = 1 are no novelty."""
    known = [samplers[s].temperature for s in (reference, source) if s in samplers]
    return max([1.0, *known, *([UNDECLARED] if source not in samplers and source != reference else [])])


def _summaries(run: Run, label: str, declared: Mapping[str, Sampler]) -> pd.DataFrame:
    """Rows of `scores` of one scorer; declared: the samplers that its e-value has to cover."""
    reference = run.manifest.get("settings", {}).get("reference", "")
    sampler = run.manifest["scorers"].get(label, {}).get("sampler")
    sampler = Sampler(**sampler) if sampler else None
    prompts, none = run.prompts(label), np.empty(0, np.int32)
    frames = []
    for batch in run.score_batches(label, TOKEN_COLUMNS):
        lengths_N = batch["token"].value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        columns = {name: values for name in TOKEN_COLUMNS if (values := _flat(batch[name], lengths_N)) is not None}
        identity = {name: batch[name].to_pylist() for name in (*IDENTITY, "prompt")}
        heat_N = np.array([hottest(declared, reference, source) for source in identity["source"]])
        if unknown := {*filter(None, identity["prompt"])} - prompts.keys():
            raise DumpError(
                f"{run.path / 'scores' / label}: the ids of {len(unknown):,} prompts are not there, for example of "
                f"{min(unknown)}; restore the prompts-*.parquet of this folder, or score in another -o folder"
            )
        asked = [prompts.get(h, none) for h in identity["prompt"]]
        numbers = summarise_many(lengths_N, columns, prompts=asked, sampler=sampler, hottest=heat_N)
        keys = list(map(trace_key, *(identity[name] for name in IDENTITY)))
        steps = pd.array(identity["step"], dtype="Int64")
        head = {"model": label, "key": keys, **identity, "step": steps}
        head["prompt_hash"] = head.pop("prompt")
        frames.append(pd.DataFrame(head | numbers))
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)[["model", "key", *ORDER, "prompt_hash", *SUMMARY_COLUMNS]]
    # parts are written in the scorer's order; the identity's order makes results independent of it
    return frame.sort_values(["source", "problem", "step", "sample"], kind="stable", ignore_index=True)


def _flat(lists: pa.ListArray, lengths_N: np.ndarray) -> np.ndarray | None:
    """The lists end to end, NaN (of integers 0) for a missing one; None where all are missing."""
    if lists.null_count == len(lists):
        return None
    values = lists.flatten().to_numpy(zero_copy_only=False)
    if lists.null_count == 0:
        return values
    out = np.full(lengths_N.sum(), 0 if values.dtype.kind == "i" else np.nan, values.dtype)
    out[np.repeat(lists.is_valid().to_numpy(zero_copy_only=False), lengths_N)] = values
    return out
