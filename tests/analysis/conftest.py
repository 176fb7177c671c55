"""Small hand-made Tables: token columns in, the summaries computed as in a real run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyzer.analysis.data.summaries import SUMMARY_COLUMNS, summarise
from analyzer.analysis.data.tables import in_memory
from analyzer.records import Sampler, Tables, trace_key

IDENTITY = ["key", "source", "problem", "step", "sample"]


def build(
    rows: Iterable[dict[str, Any]],
    *,
    base: str | None = "base",
    policies: dict[str, str] | None = None,
    samplers: dict[str, Sampler] | None = None,
    part: int = 5,
) -> Tables:
    """rows: source, problem, sample, and any of step, correct, finish, group, response, prompt_ids, embedding, models
    (scorer label -> token columns). `part`: traces per part of the token stream. `reads` counts the streams taken."""
    rows = [
        {"step": None, "correct": None, "finish": "stop", "group": None, "response": "", "models": {}} | r for r in rows
    ]
    for r in rows:
        r["key"] = trace_key(r["source"], r["problem"], r["sample"], r["step"])
    scores = []
    for r in rows:
        for model, columns in r["models"].items():
            own = (samplers or {}).get(next((s for s, m in (policies or {}).items() if m == model), "base"))
            found = summarise(columns, prompt_ids=r.get("prompt_ids", ()), sampler=own)
            scores.append({"model": model, **{k: r[k] for k in (*IDENTITY, "correct", "finish", "group")}, **found})
    names = ["model", *IDENTITY, "correct", "finish", "group", *SUMMARY_COLUMNS]
    kinds = {"step": "Int64", "correct": "boolean"}
    traces = pd.DataFrame(rows).reindex(
        columns=[*IDENTITY, "correct", "score", "finish", "answer", "group", "response", "prompt"]
    )
    reads: list[tuple[str, tuple[str, ...]]] = []

    def tokens(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        reads.append((model, tuple(columns)))
        mine = [r for r in rows if model in r["models"]]
        for at in range(0, len(mine), part):
            yield pd.DataFrame(
                [
                    {k: r[k] for k in IDENTITY}
                    | {c: r.get("embedding") if c == "embedding" else r["models"][model].get(c) for c in columns}
                    for r in mine[at : at + part]
                ]
            )

    tokens.reads = reads
    policies = {"base": "base"} if policies is None and base else policies or {}
    return Tables(
        **in_memory(traces.astype(kinds)),
        scores=pd.DataFrame(scores, columns=names).astype(kinds),
        tokens=tokens,
        reference="base",
        base=base,
        policies=policies,
        samplers=samplers or {},
    )


def flat(surprisals: Iterable[float], **more: Any) -> dict[str, np.ndarray]:
    """Token columns with these surprisals, entropy and varentropy 1, distinct ids unless given."""
    s = np.asarray(list(surprisals), float)
    columns = {
        "token": np.arange(len(s)),
        "logprob": -s,
        "rank": np.ones(len(s), int),
        "entropy": np.ones(len(s)),
        "varentropy": np.ones(len(s)),
        "renyi_half": np.ones(len(s)),
    }
    return columns | {k: np.asarray(v) for k, v in more.items()}


def world(
    seed: int = 0, *, sources: dict[str, float], problems: int = 8, samples: int = 10, length: int = 12
) -> list[dict[str, Any]]:
    """Rows of traces whose surprisals are exponential with the given mean by source; problems differ by a factor."""
    rng = np.random.default_rng(seed)
    out = []
    for source, mean in sources.items():
        for p in range(problems):
            for i in range(samples):
                n = int(rng.integers(length // 2, length + 1))
                s = rng.exponential(mean * (1 + p / problems), n)
                columns = flat(
                    s, token=rng.integers(0, 9, n), rank=rng.integers(1, 7, n), entropy=rng.exponential(mean, n)
                )
                out.append(
                    {
                        "source": source,
                        "problem": f"p{p}",
                        "sample": i,
                        "response": f"text {i} of {source}",
                        "models": {"base": columns},
                    }
                )
    return out


@pytest.fixture(scope="session")
def make_tables() -> Callable[..., Tables]:
    return build


@pytest.fixture(scope="session")
def make_columns() -> Callable[..., dict[str, np.ndarray]]:
    return flat


@pytest.fixture(scope="session")
def make_world() -> Callable[..., list[dict[str, Any]]]:
    return world
