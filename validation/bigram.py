"""Exact worlds at the lengths of real text: a base whose next token depends on the last one, and sources made from it.

Everything that scoring would tell is a table by (last token, token), so that thousands of tokens cost nothing; log q of
a mixture is exact, by the running likelihoods of its components. `checkpoint` writes such a law as a transformers model
(one layer that adds nothing, the identity as embedding, log P as head): the same world through the whole command line.
Axis letters: `_V` tokens (the last one ends a trace), `_N` traces, `_T` positions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.ragged import summarise_many
from analyzer.analysis.data.tables import hottest, in_memory
from analyzer.records import NOVEL_COLUMNS, NOVEL_POWERS, POWER_COLUMNS, POWERS, Sampler, Tables, trace_key

PLAIN = Sampler()


class Component(NamedTuple):
    """One way in which a source writes: a law, and tokens that stand at given positions whatever the law says.

    weight: its share of the traces. law_VV: log-probs, a row per last token. script: position -> token.
    """

    weight: float
    law_VV: np.ndarray
    script: dict[int, int] = {}


class Draws(NamedTuple):
    """Traces of one source: tokens int [N, T], -1 behind the end; length [N]; start [N] the prompt's token; problem
    [N]; log_q float [N, T] of each token under the source (0 behind the end); component [N]; ended bool [N]."""

    tokens: np.ndarray
    length: np.ndarray
    start: np.ndarray
    problem: np.ndarray
    log_q: np.ndarray
    component: np.ndarray
    ended: np.ndarray


def law(rng: np.random.Generator, vocabulary: int, nats: float, *, stop: float = 0.0) -> np.ndarray:
    """A random law, log-probs [V, V], with about `nats` of entropy a token; the last token comes with chance `stop`.

    Rows are softmax(scale * normal); the scale is found by bisection.
    """
    z = rng.normal(size=(vocabulary, vocabulary - 1))

    def body(scale: float) -> np.ndarray:
        x = scale * z
        return x - np.logaddexp.reduce(x, 1, keepdims=True)

    low, high = 0.0, 50.0
    for _ in range(50):
        middle = (low + high) / 2
        x = body(middle)
        low, high = (middle, high) if -(np.exp(x) * x).sum(1).mean() > nats else (low, middle)
    with np.errstate(divide="ignore"):
        end = np.full((vocabulary, 1), np.log(stop) if stop else -np.inf)
    return np.concatenate([body(high) + np.log1p(-stop), end], 1)


def normalised(law_VV: np.ndarray) -> np.ndarray:
    return law_VV - np.logaddexp.reduce(law_VV, 1, keepdims=True)


def sampled(law_VV: np.ndarray, sampler: Sampler) -> np.ndarray:
    """The law under a sampler: tempered, cut by top-k, top-p and min-p in the order of transformers, normalised."""
    out = normalised(law_VV / sampler.temperature)
    order = np.argsort(-out, 1, kind="stable")
    ranked = np.take_along_axis(out, order, 1)
    keep = np.ones(ranked.shape, bool)
    if sampler.top_k:
        keep[:, sampler.top_k :] = False
    if sampler.top_p < 1:
        p = np.where(keep, np.exp(ranked), 0.0)
        p /= p.sum(1, keepdims=True)
        keep &= p.cumsum(1) - p < sampler.top_p
    if sampler.min_p:
        keep &= ranked >= ranked[:, :1] + np.log(sampler.min_p)
    mask = np.zeros(keep.shape, bool)
    np.put_along_axis(mask, order, keep, 1)
    return normalised(np.where(mask, out, -np.inf))


def draw(rng: np.random.Generator, components: Sequence[Component], problems: int, n: int, longest: int) -> Draws:
    """n traces of each problem; the prompt of problem x is token x (modulo the vocabulary without its end)."""
    vocabulary = components[0].law_VV.shape[0]
    problem = np.repeat(np.arange(problems), n)
    count, start = len(problem), problem % (vocabulary - 1)
    weight = np.array([c.weight for c in components])
    which = rng.choice(len(components), count, p=weight / weight.sum())
    cdf = [np.exp(c.law_VV).cumsum(1) for c in components]
    tokens, state, live = np.full((count, longest), -1), start.copy(), np.ones(count, bool)
    for t in range(longest):
        u = rng.random(count)
        for i, c in enumerate(components):
            mine = np.flatnonzero(live & (which == i))
            if not len(mine):
                continue
            if t in c.script:
                tokens[mine, t] = c.script[t]
                continue
            rows = cdf[i][state[mine]]
            tokens[mine, t] = np.minimum((rows <= (u[mine] * rows[:, -1])[:, None]).sum(1), vocabulary - 1)
        state = np.where(live, tokens[:, t], state)
        live &= tokens[:, t] != vocabulary - 1
        if not live.any():
            break
    length = (tokens >= 0).sum(1)
    last = tokens[np.arange(count), length - 1]
    log_q = mixture(components, tokens, start)
    return Draws(tokens, length, start, problem, log_q, which, last == vocabulary - 1)


def mixture(components: Sequence[Component], tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Log-probs [N, T] of each token under the mixture, given the tokens before it."""
    before = np.concatenate([start[:, None], np.maximum(tokens[:, :-1], 0)], 1)
    there = tokens >= 0
    total = np.array([c.weight for c in components]).sum()
    runs = []
    for c in components:
        step = c.law_VV[before, np.maximum(tokens, 0)]
        for t, token in c.script.items():
            if t < tokens.shape[1]:
                step[:, t] = np.where(tokens[:, t] == token, 0.0, -np.inf)
        runs.append(np.log(c.weight / total) + np.where(there, step, 0.0).cumsum(1))
    joint = np.logaddexp.reduce(runs, 0)
    first = np.zeros((len(tokens), 1))
    return np.where(there, np.diff(np.concatenate([first, joint], 1), axis=1), 0.0)


class Made(NamedTuple):
    """A source in a world: its draws, the sampler that is declared for it, whether its model is the base's, and columns
    that take the place of the exact ones (a wrong declaration, noise): name -> [N, T]."""

    draws: Draws
    sampler: Sampler = PLAIN
    same: bool = False
    said: dict[str, np.ndarray] = {}
    law_VV: np.ndarray | None = None  # of the declared model, for its entropies; None: where log q is a mixture


def tables(
    base_VV: np.ndarray,
    sources: dict[str, Made],
    *,
    reference_sampler: Sampler = PLAIN,
    unknown: Collection[str] = (),
    undeclared: Collection[str] = (),
) -> Tables:
    """Tables as a scored run gives them; the first source is the reference, drawn with `reference_sampler`. Sources in
    `unknown` have no policy; where there are any, the base also tells what novelty is told by. Of those in `undeclared`
    no sampler is declared."""
    reference = next(iter(sources))
    laws = {"logprob": base_VV}
    traces, scores, columns = [], [], {}
    policies, samplers, engines = {}, {}, {"base": _engine(base_VV, "base", NOVEL_POWERS if unknown else ())}
    declared = {s: reference_sampler if s == reference else m.sampler for s, m in sources.items()}
    declared = {s: sampler for s, sampler in declared.items() if s not in undeclared}
    for source, made in sources.items():
        d = made.draws
        head = _identity(source, d)
        traces.append(head)
        lengths, flat = d.length, d.tokens[d.tokens >= 0]
        before = np.concatenate([d.start[:, None], np.maximum(d.tokens[:, :-1], 0)], 1)[d.tokens >= 0]
        own = source == reference or (made.same and made.sampler == reference_sampler)
        found = _columns(base_VV, before, flat, reference_sampler)
        if made.sampler not in (PLAIN, reference_sampler):
            found["logprob_source"] = sampled(base_VV, made.sampler)[before, flat]
        found = {k: v.astype(np.int32 if k in ("token", "rank") else np.float32) for k, v in found.items()}
        columns["base", source] = (head, lengths, found)
        if not unknown:
            found = {k: v for k, v in found.items() if k not in NOVEL_COLUMNS}
        heat = hottest(declared, reference, source)
        scores.append(_scores(head, lengths, found, "base", reference_sampler, heat))
        if source in declared:
            samplers[source] = made.sampler
        if source not in unknown:
            policies[source] = "base" if own else f"policy-{source}"
        if own or source in unknown:
            continue
        engines[policies[source]] = _engine(base_VV, "base" if made.same else source)
        mine = _columns(made.law_VV if made.law_VV is not None else base_VV, before, flat, made.sampler)
        mine["logprob_s"] = made.said.get("logprob_s", d.log_q)[d.tokens >= 0]
        if made.sampler.is_plain:
            mine["logprob"] = mine["logprob_s"]
        if made.law_VV is None:  # what a mixture's next-token law is, is not in a table: surprisal as expected
            mine["entropy_s"], mine["varentropy_s"] = -mine["logprob_s"], np.ones(len(flat))
        mine = {
            k: v.astype(np.int32 if k in ("token", "rank") else np.float32)
            for k, v in mine.items()
            if k not in NOVEL_COLUMNS
        }
        columns[policies[source], source] = (head, lengths, mine)
        scores.append(_scores(head, lengths, mine, policies[source], made.sampler))
    del laws
    whole = pd.concat(traces, ignore_index=True)
    return Tables(
        scores=pd.concat(scores, ignore_index=True),
        tokens=_tokens(columns),
        reference=reference,
        base="base",
        policies=policies,
        samplers=samplers,
        engines=engines,
        **in_memory(whole.assign(response=None)),
    )


def _engine(base_VV: np.ndarray, name: str, more: tuple[float, ...] = ()) -> dict[str, Any]:
    return {"fingerprint": name, "powers": [*more, *POWERS], "eos_ids": [len(base_VV) - 1], "dtype": "float32"}


def _columns(law_VV: np.ndarray, before: np.ndarray, token: np.ndarray, sampler: Sampler) -> dict[str, np.ndarray]:
    """The columns of tokens [T] after the tokens before them, exact, as float64."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p_VV = np.exp(law_VV)
        s_VV = np.where(p_VV > 0, -law_VV, 0.0)
        entropy_V = (p_VV * s_VV).sum(1)
        out = {
            "token": token,
            "logprob": law_VV[before, token],
            "rank": _ranks(law_VV)[before, token],
            "mass_above": _above(p_VV)[before, token],
            "entropy": entropy_V[before],
            "varentropy": (p_VV * (s_VV - entropy_V[:, None]) ** 2).sum(1)[before],
            "renyi_half": 2 * np.log(np.sqrt(p_VV).sum(1))[before],
        }
        for a in (*POWERS, *NOVEL_POWERS):
            out[f"power_{a:g}"] = np.log((p_VV**a).sum(1))[before]
        cut_VV = sampled(law_VV, sampler)
        p_VV = np.exp(cut_VV)
        s_VV = np.where(p_VV > 0, -cut_VV, 0.0)
        entropy_V = (p_VV * s_VV).sum(1)
        out["logprob_s"] = cut_VV[before, token]
        out["entropy_s"] = entropy_V[before]
        out["varentropy_s"] = (p_VV * (s_VV - entropy_V[:, None]) ** 2).sum(1)[before]
    return out


def _ranks(law_VV: np.ndarray) -> np.ndarray:
    return 1 + (law_VV[:, None, :] > law_VV[:, :, None]).sum(2) if len(law_VV) <= 200 else np.ones(law_VV.shape, int)


def _above(p_VV: np.ndarray) -> np.ndarray:
    """The probability of the strictly likelier tokens [V, V]; equally likely ones are counted in, which is no more."""
    order = np.argsort(-p_VV, 1, kind="stable")
    ranked = np.take_along_axis(p_VV, order, 1)
    out = np.empty_like(p_VV)
    np.put_along_axis(out, order, ranked.cumsum(1) - ranked, 1)
    return out


def _identity(source: str, d: Draws) -> pd.DataFrame:
    problem = np.char.add("p", np.char.zfill(d.problem.astype(str), 4))
    sample = pd.Series(problem).groupby(problem).cumcount().to_numpy()
    key = [trace_key(source, p, int(i), None) for p, i in zip(problem, sample, strict=True)]
    frame: dict[str, Any] = {"key": key, "source": source, "problem": problem, "sample": sample}
    frame |= {"step": pd.array([None] * len(key), dtype="Int64"), "finish": np.where(d.ended, "stop", "length")}
    frame |= {"correct": pd.array([None] * len(key), dtype="boolean"), "group": None, "score": np.nan, "answer": None}
    return pd.DataFrame(frame)


def _scores(
    head: pd.DataFrame,
    lengths: np.ndarray,
    columns: dict[str, np.ndarray],
    model: str,
    sampler: Sampler,
    heat: float = 1.0,
) -> pd.DataFrame:
    prompts = [np.empty(0, np.int32)] * len(lengths)
    known = {k: v for k, v in columns.items() if k not in POWER_COLUMNS}
    return pd.concat(
        [
            head.assign(model=model),
            pd.DataFrame(summarise_many(lengths, known, prompts=prompts, sampler=sampler, hottest=heat)),
        ],
        axis=1,
    )


def _tokens(columns: dict[tuple[str, str], Any]) -> Callable[[str, list[str]], Iterator[pd.DataFrame]]:
    def tokens(model: str, names: list[str]) -> Iterator[pd.DataFrame]:
        for (label, _), (head, lengths, found) in columns.items():
            if label != model:
                continue
            cuts = lengths.cumsum()[:-1]
            lists = {n: np.split(found[n], cuts) if n in found else [None] * len(head) for n in names}
            yield head[["key", "source", "problem", "sample", "step"]].assign(
                **{n: pd.Series(v, dtype=object, index=head.index) for n, v in lists.items()}
            )

    return tokens


def checkpoint(folder: Path, law_VV: np.ndarray) -> Path:
    """Write the law as a Llama whose logits are its log-probs (-1e4 for -inf), with its end token in the config.

    Hidden size V: the embedding is the identity, the one layer's output and down projections are zero, and the norm
    makes sqrt(V) of a unit vector, which the head divides by.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = len(law_VV)
    heads = next(h for h in (4, 2, 1) if size % h == 0 and (size // h) % 2 == 0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=8192, tie_word_embeddings=False, rms_norm_eps=1e-12,
        bos_token_id=None, eos_token_id=size - 1, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        logits = torch.from_numpy(np.maximum(law_VV, -1e4).T / np.sqrt(size)).float()
        model.lm_head.weight.copy_(logits)
    model.save_pretrained(folder)
    return folder


def rows(source: str, made: Made, *, numbers: dict[str, np.ndarray] | None = None) -> Iterator[str]:
    """The draws as canonical JSON lines with ids; numbers: further fields, a list per token [N, T]."""
    d, sampler = made.draws, made.sampler
    head = _identity(source, d)
    named = {"temperature": sampler.temperature, "top_p": sampler.top_p, "top_k": sampler.top_k, "min_p": sampler.min_p}
    for i, row in enumerate(head.to_dict("records")):
        n = int(d.length[i])
        out = {"source": source, "problem": row["problem"], "sample": int(row["sample"]), "finish": row["finish"]}
        out |= {"prompt_ids": [int(d.start[i])], "response_ids": d.tokens[i, :n].tolist(), "sampler": named}
        out |= {name: values[i, :n].tolist() for name, values in (numbers or {}).items()}
        yield json.dumps(out)
