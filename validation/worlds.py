"""Simulated worlds in which everything is known: Markov mixtures with exact log p and log q, as arrays and as Tables.

A problem is a mixture of four strategies over 12 tokens, each a Markov chain with its own length; a fifth, novel one
has weight 0 under the base. Whether a trace is correct depends on its strategy, so tilting by correctness, keeping
correct traces and best-of-k only change the weights, and a teacher gives weight to the novel strategy: all of them are
mixtures, with exact token-level q. A temperature acts on the base's next-token distribution, as a sampler does.
Axis letters: `_P` problems, `_S` strategies, `_V` tokens (the last one ends the trace), `_N` traces, `_T` positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.tables import hottest, in_memory
from analyzer.records import NOVEL_COLUMNS, NOVEL_POWERS, POWER_COLUMNS, POWERS, Sampler, Tables, trace_key
from analyzer.stats import evalue

TOKENS = 12
END = TOKENS
STRATEGIES = 5  # the last one is novel
SHORTEST, LONGEST = 12, 28  # tokens of a trace, its end included
FLOOR = 2e-3  # least probability of a next token within a strategy
WINDOW = 8
# functions, each of the next, which a skeleton keeps by name: every level sees the whole trace
NAMES = ("sqrt", "sin", "cos", "tan", "cot", "log", "exp", "max", "min", "gcd", "lcm", "det")
WORDS = tuple(f"\\{name}" for name in NAMES)
SHARED = 0.6  # of a strategy's next-token law is the same in all problems
IDENTITY = ["key", "source", "problem", "step", "sample"]


class World(NamedTuple):
    """start_PSV, step_PSVV next-token laws; stop_ST chance to end at a position; weights_PS of the base; right_PS."""

    start: np.ndarray
    step: np.ndarray
    stop: np.ndarray
    weights: np.ndarray
    right: np.ndarray

    @property
    def pass_rate(self) -> np.ndarray:
        """Chance that a base draw is correct, float [P]."""
        return (self.weights * self.right).sum(1)


class Draws(NamedTuple):
    """Traces of one law. tokens int [N, T], -1 after the end; problem [N]; length [N]; strategy [N]; correct bool [N];
    columns: for the base "logprob", "entropy", "varentropy", "renyi_half", "rank", power columns [N, T], and "log_q"
    under the source, 0 after the end; log_p, log_q [N] nats."""

    tokens: np.ndarray
    problem: np.ndarray
    length: np.ndarray
    strategy: np.ndarray
    correct: np.ndarray
    columns: dict[str, np.ndarray]
    log_p: np.ndarray
    log_q: np.ndarray


def make(rng: np.random.Generator, problems: int) -> World:
    """A world whose base solves each problem at a rate of about .1 to .9 (one to three of its strategies are right)."""

    def rows(*shape: int) -> np.ndarray:
        x = rng.gamma(0.3, size=(problems, *shape, TOKENS)) + 1e-12
        common = rng.gamma(0.2, size=(*shape, TOKENS)) + 1e-12
        x = (1 - SHARED) * x / x.sum(-1, keepdims=True) + SHARED * common / common.sum(-1, keepdims=True)
        return (x + FLOOR) / (1 + TOKENS * FLOOR)

    at = np.arange(LONGEST)
    stop = np.where(at < SHORTEST - 1, 0.0, rng.uniform(0.05, 0.25, (STRATEGIES, 1)) * np.ones(LONGEST))
    stop[:, -1] = 1.0
    weights = np.zeros((problems, STRATEGIES))
    weights[:, :-1] = 0.1 + 0.9 * rng.dirichlet(np.ones(STRATEGIES - 1), problems)
    weights /= weights.sum(1, keepdims=True)
    right = np.zeros((problems, STRATEGIES), bool)
    order = rng.random((problems, STRATEGIES - 1)).argsort(1).argsort(1)
    right[:, :-1] = order < rng.integers(1, STRATEGIES - 1, problems)[:, None]
    right[:, -1] = rng.random(problems) < 0.7
    return World(rows(STRATEGIES), rows(STRATEGIES, TOKENS), stop, weights, right)


def tilt(world: World, beta: float) -> np.ndarray:
    """Weights of Q ~ P exp(r / beta): what KL-regularised training with a 0/1 reward converges to."""
    w = world.weights * np.exp(world.right / beta)
    return w / w.sum(1, keepdims=True)


def correct_only(world: World) -> np.ndarray:
    """Weights of P(. | correct)."""
    w = world.weights * world.right
    return w / w.sum(1, keepdims=True)


def best_of(world: World, k: int) -> np.ndarray:
    """Weights of the first correct one of k base draws (the last draw if none is): the ratio to the base is below k."""
    miss = (1 - world.pass_rate)[:, None]
    w = world.weights * np.where(world.right, (1 - miss**k) / (1 - miss), miss ** (k - 1))
    return w / w.sum(1, keepdims=True)


def teacher(world: World, share: float | np.ndarray) -> np.ndarray:
    """Weights of (1 - share) P + share novel; share: a number or one per problem [P]."""
    share_P1 = np.broadcast_to(np.asarray(share, float), len(world.weights))[:, None]
    w = (1 - share_P1) * world.weights
    w[:, -1:] = share_P1
    return w


def draw(
    world: World,
    rng: np.random.Generator,
    n: int,
    *,
    weights: np.ndarray | None = None,
    temperature: float = 1.0,
    stop: np.ndarray | None = None,
) -> Draws:
    """n traces per problem, problem by problem, from the mixture with these weights (the base's by default).

    temperature: of the next-token distribution of that mixture. stop [S, T]: its chances to end, if not the base's.
    """
    problem = np.repeat(np.arange(len(world.weights)), n)
    weights = world.weights if weights is None else weights
    return _walk(world, problem, weights, temperature, rng, stop=world.stop if stop is None else stop)


def longer(world: World) -> np.ndarray:
    """Chances to end of a source that goes on for longer: a third of the base's, the same last position."""
    return np.where(np.arange(LONGEST) < LONGEST - 1, world.stop / 3, world.stop)


def _walk(
    world: World,
    problem: np.ndarray,
    weights: np.ndarray,
    temperature: float,
    rng: np.random.Generator,
    *,
    stop: np.ndarray,
) -> Draws:
    """Draw position by position; the posterior over strategies, one under p and one under q, gives the exact laws."""
    n, strategies = len(problem), np.arange(STRATEGIES)
    own, base = weights[problem], world.weights[problem]
    same = np.array_equal(weights, world.weights) and np.array_equal(stop, world.stop)
    out = np.full((n, LONGEST), -1)
    names = ("logprob", "entropy", "varentropy", "renyi_half", "rank", "log_q", *POWER_COLUMNS, *NOVEL_COLUMNS)
    columns = {name: np.zeros((n, LONGEST)) for name in names}
    live = np.arange(n)
    for t in range(LONGEST):
        if len(live) == 0:
            break
        x = problem[live]
        law = world.start[x] if t == 0 else world.step[x[:, None], strategies, out[live, t - 1][:, None]]
        law_p = _ending(law, world.stop[:, t])
        law_q = law_p if same else _ending(law, stop[:, t])
        q = np.einsum("ns,nsv->nv", own[live], law_q)
        p = q if same else np.einsum("ns,nsv->nv", base[live], law_p)
        drawn = q
        if temperature != 1:
            drawn = q ** (1 / temperature)
            drawn /= drawn.sum(1, keepdims=True)
        u = rng.random(len(live))[:, None] * drawn.sum(1, keepdims=True)
        out[live, t] = np.minimum((drawn.cumsum(1) <= u).sum(1), END)
        y, row = out[live, t], np.arange(len(live))
        with np.errstate(divide="ignore", invalid="ignore"):
            s = np.where(p > 0, -np.log(p), 0.0)
        mean = (p * s).sum(1)
        for name, value in (
            ("logprob", np.log(p[row, y])),
            ("entropy", mean),
            ("varentropy", (p * (s - mean[:, None]) ** 2).sum(1)),
            ("renyi_half", 2 * np.log(np.sqrt(p).sum(1))),
            ("rank", 1 + (p > p[row, y][:, None]).sum(1)),
            ("log_q", np.log(drawn[row, y])),
            *((f"power_{a:g}", np.log((p**a).sum(1))) for a in (*POWERS, *NOVEL_POWERS)),
        ):
            columns[name][live, t] = value
        for posterior, law in ((own, law_q),) if same else ((own, law_q), (base, law_p)):
            updated = posterior[live] * law[row, :, y]
            posterior[live] = updated / updated.sum(1, keepdims=True)
        if same:
            base[live] = own[live]
        live = live[y != END]
    length = (out >= 0).sum(1)
    u = rng.random((n, 1))
    strategy = np.minimum((own.cumsum(1) <= u * own.sum(1, keepdims=True)).sum(1), STRATEGIES - 1)
    correct = world.right[problem, strategy]
    totals = columns["logprob"].sum(1), columns["log_q"].sum(1)
    return Draws(out, problem, length, strategy, correct, columns, *totals)


def _ending(law_NSV: np.ndarray, stop_S: np.ndarray) -> np.ndarray:
    """The next-token laws with the end of the trace as one more token: [N, S, V + 1]."""
    end = np.broadcast_to(stop_S[:, None], (*law_NSV.shape[:2], 1))
    return np.concatenate([law_NSV * (1 - stop_S)[:, None], end], 2)


def take(draws: Draws, keep: np.ndarray) -> Draws:
    """The traces at `keep` (bool or integer index [M])."""
    columns = {name: value[keep] for name, value in draws.columns.items()}
    parts = [columns if value is draws.columns else value[keep] for value in draws]
    return Draws(*parts)


def summaries(draws: Draws, heat: float = 1.0) -> dict[str, np.ndarray]:
    """The columns of summaries.SUMMARY_COLUMNS that the analyses read, [N] each; nothing counts as copied. heat: the
    hottest declared temperature."""
    s, n = -draws.columns["logprob"], draws.length
    inside = np.arange(LONGEST) < n[:, None]
    total, rank = s.sum(1), np.where(inside, draws.columns["rank"], np.inf)
    sums = np.concatenate([np.zeros((len(n), 1)), s.cumsum(1)], 1)
    windows = np.where(np.arange(WINDOW, LONGEST + 1) <= n[:, None], sums[:, WINDOW:] - sums[:, :-WINDOW], -np.inf)
    tail = -(-n // 5)
    largest = -np.sort(-np.where(inside, s, 0.0), 1)
    cvar = np.where(np.arange(LONGEST) < tail[:, None], largest, 0.0).sum(1) / tail
    z = (s.sum(1) - draws.columns["entropy"].sum(1)) / np.sqrt(draws.columns["varentropy"].sum(1))
    window, mean = windows.max(1) / WINDOW, total / n
    ranks = {"n_rank1": rank == 1, "n_rank2_3": (rank > 1) & (rank <= 3), "n_rank_gt3": (rank > 3) & inside}
    return {
        "n_tokens": n,
        "logprob": -total,
        "nll_mean": mean,
        "ppl": np.exp(mean),
        "entropy_mean": draws.columns["entropy"].sum(1) / n,
        "varentropy_mean": draws.columns["varentropy"].sum(1) / n,
        "excess_z": z,
        "log_e": evalue.log_e_many({c: x[inside] for c, x in draws.columns.items()}, n, heat),
        "surprisal_max": largest[:, 0],
        "logprob_min": -largest[:, 0],
        "window_max": window,
        "cvar20": cvar,
        "rank_max": np.where(inside, rank, 0).max(1),
        **{name: value.sum(1) for name, value in ranks.items()},
        "n_top5": (rank <= 5).sum(1),
        "n_copied": np.zeros(len(n), int),
        "nll_masked_mean": mean,
        "z_masked": z,
        "window_max_masked": window,
        "cvar20_masked": cvar,
        "logprob_s": -total,
        "exits": np.zeros(len(n), int),
        "first_exit": np.full(len(n), -1),
        "near_boundary": np.zeros(len(n), int),
        "logprob_source": np.full(len(n), np.nan),
        "excess_s": total - draws.columns["entropy"].sum(1),
        "variance_s": draws.columns["varentropy"].sum(1),
    }


def tables(
    sources: dict[str, Draws], *, samplers: dict[str, float] | None = None, unknown: tuple[str, ...] = ()
) -> Tables:
    """Tables as a scored run gives them; the first source is the reference, drawn from the base at T=1.

    samplers: temperature of a source that a sampler cooled (its policy is the base's model). unknown: sources whose
    policy is not given. Reference traces are not scored under the policies, so `lost` has no value.
    """
    reference = next(iter(sources))
    traces, scores, policies, tokens, cooled = [], [], {reference: "base"}, {}, set()
    declared = {source: Sampler(temperature=t) for source, t in (samplers or {}).items()}
    for source, draws in sources.items():
        head = _identity(source, draws)
        strategy = draws.strategy.astype(str)
        words = [[WORDS[v] for v in row[: n - 1]] for row, n in zip(draws.tokens, draws.length, strict=True)]
        text = [" ".join([*found, "1"]) if found else "" for found in words]
        head["correct"] = pd.array(draws.correct, dtype="boolean")
        head["finish"], head["group"] = "stop", np.where(draws.problem % 2, "odd", "even")
        answer = np.where(draws.correct, "right", np.char.add("wrong", strategy))
        prompt = np.char.add("problem ", draws.problem.astype(str))
        traces.append(head.assign(score=np.nan, answer=answer, response=text, prompt=prompt))
        found = pd.DataFrame(summaries(draws, hottest(declared, reference, source)))
        scores.append(pd.concat([head.assign(model="base"), found], axis=1))
        tokens["base", source] = head, draws
        if source != reference and source not in unknown:
            policies[source] = f"policy-{source}"
            tokens[policies[source], source] = head, draws
            if (samplers or {}).get(source, 1.0) != 1.0:  # the base with the source's sampler is the source
                cooled.add(source)
            # the policy's own columns: only log q is exact here; the e-value under the true policy has nothing to flag
            own = found.assign(logprob_s=draws.log_q, logprob=draws.log_q, log_e=-1.0, excess_s=np.nan)
            scores.append(pd.concat([head.assign(model=policies[source]), own], axis=1))
    temperatures = {source: 1.0 for source in policies} | (samplers or {})
    return Tables(
        scores=pd.concat(scores, ignore_index=True),
        tokens=_tokens(tokens, cooled),
        engines={"base": {"powers": [*NOVEL_POWERS, *POWERS], "eos_ids": [END], "fingerprint": "base"}}
        | {policies[source]: {"fingerprint": "base"} for source in cooled},
        reference=reference,
        base="base",
        policies=policies,
        samplers={source: Sampler(temperature=value) for source, value in temperatures.items()},
        **in_memory(pd.concat(traces, ignore_index=True)),
    )


def _tokens(
    parts: dict[tuple[str, str], tuple[pd.DataFrame, Draws]], cooled: set[str]
) -> Callable[..., Iterator[pd.DataFrame]]:
    """The token stream: parts maps (scorer, source) to its rows and draws. A policy knows log q alone; of the sources
    that are the base cooled, the base with their sampler has log q."""

    def stream(model: str, names: list[str]) -> Iterator[pd.DataFrame]:
        for (label, source), (head, draws) in parts.items():
            if label != model:
                continue
            known = {"token": draws.tokens, **draws.columns}
            if source in cooled:
                known["logprob_source"] = draws.columns["log_q"]
            if model != "base":
                known = {"token": draws.tokens, "logprob": draws.columns["log_q"], "logprob_s": draws.columns["log_q"]}
            lists = {
                name: [row[:n] for row, n in zip(known[name], draws.length)] if name in known else [None] * len(head)
                for name in names
            }
            columns = {name: pd.Series(values, dtype=object, index=head.index) for name, values in lists.items()}
            yield head[IDENTITY].assign(**columns)

    return stream


def _identity(source: str, draws: Draws) -> pd.DataFrame:
    problem = np.char.add("p", np.char.zfill(draws.problem.astype(str), 4))
    sample = pd.Series(problem).groupby(problem).cumcount().to_numpy()
    key = [trace_key(source, p, int(i), None) for p, i in zip(problem, sample, strict=True)]
    frame: dict[str, Any] = {"key": key, "source": source, "problem": problem, "sample": sample}
    return pd.DataFrame(frame).assign(step=pd.array([None] * len(key), dtype="Int64"))
