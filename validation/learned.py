"""Learned bets at the lengths of real text (part of V6): the base is never outside, whatever it is sampled with; a
source that writes in another way is, without its log q."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analyzer.analysis.support import run as support
from analyzer.analysis.verdict.decide import decide
from analyzer.records import Sampler
from analyzer.stats import evalue, learned
from validation import bigram
from validation.bigram import PLAIN, Draws, Made
from validation.checks import Gate, GateResult, share

VOCABULARY, PROBLEMS, DRAWS, TOKENS = 101, 20, 8, 120  # the last token of the vocabulary ends a trace
LOOSE = 0.2  # of p <= .05 there are too few for a mutant to show
# name -> (how the base is sampled, whether that is declared)
AGAIN = {
    "T = 1": (PLAIN, True),
    "T = .5, not declared": (Sampler(0.5), False),
    "top-k 5, not declared": (Sampler(1.0, 1.0, 5), False),
    "T = 1.3, not declared": (Sampler(1.3), False),
    "T = 1.3, min-p .1, not declared": (Sampler(1.3, 1.0, 0, 0.1), False),
    "T = 1.25, top-p .98, as declared": (Sampler(1.25, 0.98), True),
}


def gate_learned(rng: np.random.Generator, runs: int) -> Gate:
    """Words of whole worlds, the size of the e-value and what breaks it, selections of k draws."""
    return Gate([*_words(rng, runs), *_size(rng, 5 * runs), *_selected(rng, 20 * runs)], {})


def _walk(cdf_VV: np.ndarray, start_N: np.ndarray, u_NT: np.ndarray) -> np.ndarray:
    """Tokens [N, T] of a law, from its running sums and uniform numbers."""
    out, last = np.empty(u_NT.shape, int), start_N
    for t, u_N in enumerate(u_NT.T):
        rows = cdf_VV[last]
        out[:, t] = last = np.minimum((rows <= (u_N * rows[:, -1])[:, None]).sum(1), VOCABULARY - 2)
    return out


def _draws(rng: np.random.Generator, law_VV: np.ndarray, start_N: np.ndarray, u_NT: np.ndarray | None = None):
    if u_NT is None:
        u_NT = rng.random((len(start_N), TOKENS))
    return _walk(np.exp(law_VV[:, : VOCABULARY - 1]).cumsum(1), start_N, u_NT)


def _styles(rng: np.random.Generator, law_VV: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Sources that no sampler of the base is: name -> start tokens to traces."""
    rare = rng.permutation(VOCABULARY - 1)[:10]
    mixed_VV = law_VV + np.log(0.8)
    mixed_VV[:, rare] = np.logaddexp(mixed_VV[:, rare], np.log(0.2 / 10))

    def phrased(start_N: np.ndarray) -> np.ndarray:
        tokens, at_N = _draws(rng, law_VV, start_N), rng.integers(0, TOKENS - 6, len(start_N))
        for i in np.flatnonzero(rng.random(len(start_N)) < 0.5):
            tokens[i, at_N[i] : at_N[i] + 6] = rare[:6]
        return tokens

    return {
        "a tenth of a vocabulary in a fifth of the places": lambda start_N: _draws(rng, mixed_VV, start_N),
        "six foreign tokens in a row in every second trace": phrased,
        "uniform noise": lambda start_N: rng.integers(0, VOCABULARY - 1, (len(start_N), TOKENS)),
    }


def _made(start_N: np.ndarray, tokens: np.ndarray, sampler: Sampler = PLAIN) -> Made:
    n, longest = tokens.shape
    nothing, problem = np.zeros(n, bool), np.repeat(np.arange(PROBLEMS), DRAWS)
    what = Draws(tokens, np.full(n, longest), start_N, problem, np.zeros((n, longest)), nothing.astype(int), nothing)
    return Made(what, sampler)


def _outside(law_VV: np.ndarray, start_N: np.ndarray, made: dict[str, Made], declared: dict[str, bool]) -> list[str]:
    """The sources that are called outside, log q known of none of them."""
    base = _made(start_N, _draws(np.random.default_rng(len(made)), law_VV, start_N))
    tables = bigram.tables(law_VV, {"base": base, **made}, unknown=tuple(made), undeclared=_not(declared))
    found = decide({"support": support.run(tables, draws=100)}, sources=list(made), reference="base")
    return [v.source for v in found if v.level == "sequence" and v.word == "outside"]


def _not(declared: dict[str, bool]) -> tuple[str, ...]:
    return tuple(name for name, known in declared.items() if not known)


def _words(rng: np.random.Generator, runs: int) -> list[GateResult]:
    outside: dict[str, int] = {}
    for _ in range(runs):
        law_VV = bigram.law(rng, VOCABULARY, 1.0)
        start_N = np.repeat(rng.integers(0, VOCABULARY - 1, PROBLEMS), DRAWS)
        made = {
            name: _made(start_N, _draws(rng, bigram.sampled(law_VV, sampler), start_N), sampler)
            for name, (sampler, _) in AGAIN.items()
        }
        # one seed for all requests: the draws of one number are alike on all problems, which ask alike here
        seeded = np.tile(rng.random((DRAWS, TOKENS)), (PROBLEMS, 1))
        alike_N = np.full(len(start_N), start_N[0])
        made["one seed for all problems"] = _made(alike_N, _draws(rng, law_VV, alike_N, seeded))
        made |= {name: _made(start_N, style(start_N)) for name, style in _styles(rng, law_VV).items()}
        declared = {name: AGAIN[name][1] if name in AGAIN else name not in ("uniform noise",) for name in made}
        found = _outside(law_VV, start_N, made, declared)
        outside = {name: outside.get(name, 0) + (name in found) for name in made}
    out = []
    for name, count in outside.items():
        again = name in AGAIN or name.startswith("one seed")
        what = f"{'the base, ' if again else ''}{name}, log q not known: called outside"
        out.append(share("V6", what, count, runs, **({"at_most": 0.05} if again else {"at_least": 0.9})))
    return out


def _flat(law_VV: np.ndarray, start_N: np.ndarray, tokens: np.ndarray, a: float = 1.0):
    before = np.concatenate([start_N[:, None], tokens[:, :-1]], 1).ravel()
    columns = bigram._columns(law_VV, before, tokens.ravel(), PLAIN)
    return tokens.ravel(), np.full(len(tokens), tokens.shape[1]), learned.log_bound(columns, a)


def _size(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """Draws of the base from its five likeliest tokens, and what was learned from other ones."""
    n = 16
    hits = dict.fromkeys(("right", "uncut", "seeded", "one seed"), 0)
    for _ in range(runs):
        law_VV = bigram.law(rng, VOCABULARY, 1.5)
        cut_VV = bigram.sampled(law_VV, Sampler(1.0, 1.0, 5))
        start_N, u_NT = np.repeat(rng.integers(0, VOCABULARY - 1, 2), n), rng.random((2, n, TOKENS))
        tokens = _draws(rng, cut_VV, start_N)
        here, there = (_flat(law_VV, start_N[i : i + n], tokens[i : i + n]) for i in (0, n))
        hits["right"] += _large(learned.learn(*there), here)
        before = np.concatenate([start_N[:, None], tokens[:, :-1]], 1)
        log_p_NT = law_VV[before, tokens]
        hits["uncut"] += _large(
            learned.learn(there[0], there[1], log_p_NT[n:].ravel()), (here[0], here[1], log_p_NT[:n].ravel())
        )
        one, other = (_flat(law_VV, start_N[:n], _draws(rng, law_VV, start_N[:n], u)) for u in u_NT)
        hits["seeded"] += _large(learned.learn(*other), one)
        hits["one seed"] += _large(learned.learn(*(np.tile(x, 8) for x in one)), one)
    what = f"the base from its five likeliest tokens, learned from another problem: P(e >= {1 / LOOSE:g})"
    mutant = ("held against T = 1 without a cut", hits["uncut"])
    out = [share("V6", what, hits["right"], n * runs, at_most=LOOSE, mutant=mutant)]
    what = f"problems that ask alike, learned from draws of another number: P(e >= {1 / LOOSE:g})"
    mutant = ("one seed for nine problems, learned from draws of the same number", hits["one seed"])
    return [*out, share("V6", what, hits["seeded"], n * runs, at_most=LOOSE, mutant=mutant)]


def _large(bets: learned.Bets, of: tuple[np.ndarray, np.ndarray, np.ndarray]) -> int:
    token_T, lengths_N, bound_T = of
    gain_T = learned.log_factors(bets, token_T, lengths_N, bound_T)
    return int((evalue.p_value(np.add.reduceat(gain_T, lengths_N.cumsum() - lengths_N)) <= LOOSE).sum())


def _selected(rng: np.random.Generator, runs: int) -> list[GateResult]:
    """The largest e of k base draws of one token (dQ/dP <= k exactly), of bets learned from noise."""
    k, n, hits, naive = 64, 10, 0, 0
    for _ in range(runs):
        law_VV = bigram.law(rng, VOCABULARY, 1.0)
        start_N = np.repeat(rng.integers(0, VOCABULARY - 1, n), k)
        style = _styles(rng, law_VV)["uniform noise"]
        bets = learned.learn(*_flat(law_VV, start_N[:100], style(start_N[:100])))
        token_T, lengths_N, bound_T = _flat(
            law_VV, start_N, _draws(rng, law_VV, start_N, rng.random((len(start_N), 1)))
        )
        gain_T = learned.log_factors(bets, token_T, lengths_N, bound_T)
        best = np.add.reduceat(gain_T, lengths_N.cumsum() - lengths_N).reshape(n, k).max(1)
        hits += int((evalue.p_value(best, k) <= LOOSE).sum())
        naive += int((evalue.p_value(best, 1) <= LOOSE).sum())
    what = f"the largest learned e of {k} base draws: P(p <= {LOOSE:g}) at budget {k}"
    return [share("V6", what, hits, n * runs, at_most=LOOSE, mutant=("k = 1 in the place of k", naive))]
