"""Made-up traces of any number for the page: tokens with scores, repeated prefixes, hostile and odd text."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analyzer.analysis.data.tables import in_memory
from analyzer.records import Sampler, Tables

PART = 2000  # traces that the store yields at a time


def tables(
    labels: list[str],
    *,
    problems: int = 4,
    samples: int = 6,
    tokens: int = 30,
    long: int = 0,
    texts: dict[str, str] | None = None,
    base: str | None = "base",
    seed: int = 0,
) -> Tables:
    """Tables of len(labels) x problems x samples traces; the first label is the reference.

    Tokens are words; traces of a problem share prefixes. `long`: tokens of the very first trace. `texts`: key -> a
    response to use, split into tokens of four characters.
    """
    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(500)])
    rows, ids = [], []
    for label in labels:
        for p in range(problems):
            for s in range(samples):
                n = long if long and not rows else tokens
                kind = rng.integers(0, 500, n)
                kind[: n // 3] = (np.arange(n // 3) + p + (s % 3) * 7) % 500  # three openings a problem
                key = f"{label}/p{p}/{s}"
                pieces = [f" {w}" for w in words[kind]]
                if texts and key in texts:
                    pieces = [texts[key][i : i + 4] for i in range(0, len(texts[key]), 4)]
                ids.append(pieces)
                rows.append(
                    {
                        "key": key,
                        "source": label,
                        "problem": f"p{p}",
                        "step": None,
                        "sample": s,
                        "correct": bool((s + p) % 2) if s else None,
                        "finish": "stop",
                        "answer": str(s),
                        "group": None,
                        "response": "".join(pieces),
                        "prompt": f"What is {p}?",
                    }
                )
    frame = pd.DataFrame(rows).astype({"step": "Int64", "correct": "boolean"})
    number = np.array([len(x) for x in ids])
    scores = frame[["key", "source", "problem", "step", "sample"]].assign(
        model="base", n_tokens=number, nll_mean=rng.gamma(2, 0.3, len(frame)), excess_z=rng.normal(size=len(frame))
    )

    def stream(model: str, columns: list[str]) -> Iterator[pd.DataFrame]:
        for start in range(0, len(frame), PART):
            part = range(start, min(len(frame), start + PART))
            yield pd.DataFrame([_scored(frame.at[i, "key"], ids[i], i) for i in part])

    return Tables(
        **in_memory(frame),
        scores=scores if base else scores.iloc[:0],
        tokens=stream,
        reference=labels[0],
        base=base,
        samplers={labels[0]: Sampler(1.0, 0.95)},
    )


def _scored(key: str, pieces: list[str], seed: int) -> dict:
    rng, n = np.random.default_rng(seed), len(pieces)
    surprisal = rng.gamma(0.4, 1.5, n)
    surprisal[: n // 3] = 0.2
    if n > 20:
        surprisal[12] = 8.0
    high = np.flatnonzero(surprisal >= 3)
    return {
        "key": key,
        "token": np.array([zlib.crc32(p.encode()) % 1000 for p in pieces], np.int32),
        "offset": np.cumsum([0, *map(len, pieces[:-1])]).astype(np.int32) if n else np.empty(0, np.int32),
        "logprob": -surprisal,
        "rank": (1 + surprisal**2).astype(np.int32),
        "mass_above": np.clip(surprisal / 10, 0, 0.999),
        "entropy": rng.gamma(1, 0.5, n),
        "top_position": high.astype(np.int32),
        "top_token": [np.array([1, 2, 3], np.int32) for _ in high],
        "top_logprob": [np.log([0.6, 0.3, 0.05]) for _ in high],
    }


def many(labels: list[str], n: int) -> Tables:
    """Tables of n short traces without scores, on n / 500 problems."""
    at = np.arange(n)
    frame = pd.DataFrame(
        {
            "source": np.array(labels)[at % len(labels)],
            "problem": [f"p{i // 500}" for i in at],
            "step": pd.array([None] * n, dtype="Int64"),
            "sample": at // len(labels) % 100,
            "correct": pd.array(at % 3 == 0, dtype="boolean"),
            "finish": "stop",
            "answer": None,
            "group": None,
            "response": [f"answer {i}" for i in at],
            "prompt": "?",
        }
    )
    frame.insert(0, "key", frame["source"] + "/" + frame["problem"] + "/" + frame["sample"].astype(str))
    scores = pd.DataFrame(
        columns=["model", "key", "source", "problem", "step", "sample", "n_tokens", "nll_mean", "excess_z"]
    )
    return Tables(**in_memory(frame), scores=scores, tokens=lambda model, columns: iter(()), reference=labels[0])
