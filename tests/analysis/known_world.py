"""A world where p and q are known: 24 problems, tokens drawn independently, 14 tokens a trace.

Sources: base (T=1), again (another draw), cool (the base's own weights at T=.8), rlvr (T=.3 by its own weights:
sharpened), distill (half of its traces are of a kind the base would practically never write), teacher (only that kind,
its model unknown). Tokens are columns as scoring gives them, exact; of distill's mixture by the posterior of its kinds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analyzer.analysis.data.ragged import summarise_many
from analyzer.analysis.data.tables import in_memory
from analyzer.records import POWERS, Sampler, Tables

PROBLEMS, SAMPLES, LENGTH, VOCAB = 24, 32, 14, 9


WORDS = ("1", "2", "3", "+", "-", "so", "then", "=", "*")  # the last one is the foreign kind's
IDENTITY = ["key", "source", "problem", "sample", "step"]
INTEGERS = ("token", "rank", "offset", "top_position", "top_token")


def _log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


def _at(law: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.take_along_axis(np.broadcast_to(law, (*tokens.shape, VOCAB)), tokens[..., None], axis=-1)[..., 0]


def _moments(law: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and variance of the surprisal at every token."""
    p = np.exp(law)
    entropy = -(p * law).sum(-1)
    variance = (p * (law + entropy[..., None]) ** 2).sum(-1)
    return np.broadcast_to(entropy, tokens.shape), np.broadcast_to(variance, tokens.shape)


def _columns(
    law: np.ndarray, tokens: np.ndarray, sampled: np.ndarray | None = None, of_source: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Columns [P, n, T] of a model whose next-token law is `law`, log-probs that end in [V]; `sampled`: by its sampler
    where that is not plain; `of_source`: by the sampler of the tokens' own source where that is another."""
    own = _at(law, tokens)
    out = {"token": tokens, "logprob": own, "rank": 1 + (law > own[..., None]).sum(-1)}
    out["entropy"], out["varentropy"] = _moments(law, tokens)
    out["renyi_half"] = np.broadcast_to(2 * np.log(np.exp(law / 2).sum(-1)), tokens.shape)
    for a in POWERS:
        out[f"power_{a:g}"] = np.broadcast_to(np.log(np.exp(a * law).sum(-1)), tokens.shape)
    if sampled is not None:
        out["logprob_s"] = _at(sampled, tokens)
        out["entropy_s"], out["varentropy_s"] = _moments(sampled, tokens)
    if of_source is not None:
        out["logprob_source"] = _at(of_source, tokens)
    width = np.array([len(w) + 1 for w in WORDS])[tokens]
    out["offset"] = width.cumsum(-1) - width
    best = np.argsort(-np.broadcast_to(law, (*tokens.shape, VOCAB)), axis=-1, kind="stable")[..., :3]
    out["top_token"] = best
    out["top_logprob"] = np.take_along_axis(np.broadcast_to(law, (*tokens.shape, VOCAB)), best, axis=-1)
    out["top_position"] = np.broadcast_to(np.arange(LENGTH), tokens.shape)
    return {k: np.ascontiguousarray(v, np.int32 if k in INTEGERS else np.float32) for k, v in out.items()}


def _identity(source: str, problems: int = PROBLEMS, samples: int = SAMPLES) -> pd.DataFrame:
    problem, sample = np.divmod(np.arange(problems * samples), samples)
    return pd.DataFrame(
        {
            "key": [f"{source}/p{a:02d}/{b}" for a, b in zip(problem, sample, strict=True)],
            "source": source,
            "problem": [f"p{a:02d}" for a in problem],
            "step": pd.array([None] * len(problem), dtype="Int64"),
            "sample": sample,
            "correct": pd.array([None] * len(problem), dtype="boolean"),
            "finish": "stop",
            "group": np.where(problem < 12, "easy", "hard"),
        }
    )


def _summaries(model: str, head: pd.DataFrame, columns: dict[str, np.ndarray], sampler: Sampler) -> pd.DataFrame:
    """The numbers of scoring; no token counts as copied, and windows are of four tokens."""
    flat = {k: v.reshape(-1) for k, v in columns.items() if not k.startswith(("top", "power", "offset"))}
    prompts = [np.empty(0, np.int32)] * len(head)
    lengths = np.full(len(head), LENGTH)
    found = summarise_many(lengths, flat, prompts=prompts, sampler=sampler, window=4, ngram=LENGTH + 1)
    hashes = "prompt " + head["problem"].str[1:].astype(int).astype(str)
    return pd.concat([head.assign(model=model, prompt_hash=hashes), pd.DataFrame(found)], axis=1)


def _stream(columns: dict[tuple[str, str], dict[str, np.ndarray]]):
    """`tokens` of Tables: one frame for each source, as arrays; None where a model does not know a column."""

    def tokens(model: str, names: list[str]) -> Iterator[pd.DataFrame]:
        for (label, source), found in columns.items():
            if label == model:
                n = PROBLEMS * SAMPLES
                lists = {c: list(found[c].reshape(n, LENGTH, *found[c].shape[3:])) if c in found else [None] * n
                         for c in names}  # fmt: skip
                head = _identity(source)[IDENTITY]
                yield head.assign(**{c: pd.Series(v, dtype=object) for c, v in lists.items()})

    return tokens


def make_world(seed: int = 0) -> Tables:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (PROBLEMS, VOCAB))
    logits[:, -1] = -7.0  # the token of the foreign kind
    base = _log_softmax(logits)
    foreign = _log_softmax(np.where(np.arange(VOCAB) == VOCAB - 1, 2.0, 0.0) * np.ones((PROBLEMS, 1)))

    def draw(log_p: np.ndarray) -> np.ndarray:
        gumbel = rng.gumbel(size=(PROBLEMS, SAMPLES, LENGTH, VOCAB))
        return (log_p[:, None, None, :] + gumbel).argmax(-1)

    def everywhere(log_p: np.ndarray) -> np.ndarray:
        return log_p[:, None, None, :]

    def mixture(tokens: np.ndarray) -> np.ndarray:
        """The next-token law [P, n, T, V] of a half each, by the posterior of the kinds after the tokens before."""
        runs = np.stack([_at(everywhere(x), tokens) for x in (base, foreign)]).cumsum(-1)
        before = np.concatenate([np.zeros((*runs.shape[:-1], 1)), runs[..., :-1]], -1)
        weight = before - np.logaddexp(before[0], before[1])
        return np.logaddexp(weight[0][..., None] + everywhere(base), weight[1][..., None] + everywhere(foreign))

    cooled = {"cool": _log_softmax(logits / 0.8), "rlvr": _log_softmax(logits / 0.3)}
    tokens = {
        "base": draw(base),
        "again": draw(base),
        "cool": draw(cooled["cool"]),
        "rlvr": draw(cooled["rlvr"]),
        "teacher": draw(foreign),
    }
    tokens["distill"] = np.where(rng.random((PROBLEMS, SAMPLES, 1)) < 0.5, draw(foreign), draw(base))
    samplers = {"base": Sampler(), "again": Sampler(), "cool": Sampler(0.8), "rlvr": Sampler(), "distill": Sampler()}
    samplers["teacher"] = Sampler()
    columns = {
        ("base", s): _columns(everywhere(base), t, of_source=everywhere(cooled["cool"]) if s == "cool" else None)
        for s, t in tokens.items()
    }
    # the policy of cool is the base at T=.8: at T=1 it is the base; rlvr's policy is sharp by itself
    for s in ("cool", "base"):
        columns["policy-cool", s] = _columns(everywhere(base), tokens[s], everywhere(cooled["cool"]))
    for s in ("rlvr", "base"):
        columns["policy-rlvr", s] = _columns(everywhere(cooled["rlvr"]), tokens[s])
    for s in ("distill", "base"):
        columns["policy-distill", s] = _columns(mixture(tokens[s]), tokens[s])
    frames = [
        _summaries(model, _identity(s), found, samplers["cool"] if model == "policy-cool" else Sampler())
        for (model, s), found in columns.items()
    ]
    texts = {s: [" ".join(WORDS[t] for t in row) for row in t.reshape(-1, LENGTH).tolist()] for s, t in tokens.items()}
    traces = pd.concat([_identity(s).assign(response=texts[s], answer=None) for s in tokens], ignore_index=True)
    policies = {
        "base": "base",
        "again": "base",
        "cool": "policy-cool",
        "rlvr": "policy-rlvr",
        "distill": "policy-distill",
    }
    weights = {"base": "base", "policy-cool": "base", "policy-rlvr": "rlvr", "policy-distill": "distill"}
    return Tables(
        **in_memory(traces),
        scores=pd.concat(frames, ignore_index=True),
        tokens=_stream(columns),
        reference="base",
        base="base",
        policies=policies,
        samplers=samplers,
        engines={
            m: {"fingerprint": name, "powers": list(POWERS) if m == "base" else [], "eos_ids": []}
            for m, name in weights.items()
        },
    )
