"""Worlds of texts whose law over (method, answer) is known: problems, methods that solve them, styles that word them.

A method is a sequence of formulas with the numbers of its problem; a style embeds each in a sentence or a line of its
own, writes the signs in its own way, and adds sentences without formulas, up to 150 to 1,500 words. A problem's draws
are a mixture over methods, two sets of numbers for each, and answers; everything that the levels of the ladder compare
is a marginal of it, so that contained@k and the excess are sums.

Axis suffixes: `_P` problems, `_M` methods (the last one is none of the base's), `_V` sets of numbers, `_A` answers (the
first one is right), `_C` classes of a level, `_N` traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyzer.analysis.data.tables import in_memory
from analyzer.analysis.support import copies
from analyzer.records import LEVELS, Tables, trace_key

BASE, RESTYLED, LATEX, SPOKEN = "base's", "other", "LaTeX", "words"
OTHERS = (RESTYLED, LATEX, SPOKEN)
WORDINGS = 3  # texts of one method, one set of numbers and one style
SHORTEST, LONGEST = 150, 1500  # words of a text
VARIANTS, ANSWERS = 2, 4
ABSENT, SPREAD = 0.3, 0.7  # chance that a problem's base lacks a method; Dirichlet parameter of the others
METHODS = ("add, subtract", "subtract, add", "multiply, divide", "root", "remainder", "letter", "loop", "power")
KINDS = np.array([0, 0, 1, 2, 3, 4, 5, 6])  # methods with the same kinds of steps in another order are one class there
NOVEL = len(METHODS) - 1
SIGNS = {
    BASE: {"minus": "-", "times": "*", "root": "√{0}", "mod": "\\bmod", "square": "{0}^2", "over": "{0} / {1}"},
    LATEX: {
        "is": "\\approx",
        "minus": "-",
        "times": "\\cdot",
        "root": "\\sqrt{{\\mathbf{{{0}}}}}",
        "mod": "\\mathbin{\\bmod}",
        "square": "{{{0}}}^{{2}}",
        "over": "\\dfrac{{{0}}}{{\\color{{teal}}{{{1}}}}}",
    },
    SPOKEN: {
        "is": "gives",
        "plus": "plus",
        "minus": "minus",
        "times": "times",
        "root": "the square root of {0}",
        "mod": "mod",
        "square": "{0} squared",
        "over": "{0} divided by {1}",
        "letter": "{0} times x",
    },
    RESTYLED: {
        "minus": "−",
        "times": "\\times",
        "root": "\\sqrt{{{0}}}",
        "mod": "\\mod",
        "square": "{0}²",
        "over": "\\frac{{{0}}}{{{1}}}",
    },
}
OPENERS = {
    BASE: ("Let us look at what the question asks for.", "First we should understand the problem."),
    RESTYLED: ("**Plan**", "Okay, thinking about this one carefully", "Solution sketch"),
    LATEX: ("\\section*{Solution}", "\\textbf{Proof.}", "\\noindent\\textit{Solution.} \\quad"),
    SPOKEN: ("<h2>How to get there</h2>", "<p>Dear reader, this is how it goes.</p>", "<i>Right then.</i>"),
}
HOLDERS = {
    BASE: ("So we get {0}.", "From this it follows that {0}.", "Then {0}.", "Now we find that {0}."),
    RESTYLED: ("$${0}$$", "Compute \\({0}\\)", "- hence ${0}$", "giving us **now** ${0}$"),
    LATEX: (
        "\\begin{{align*}}\n& {0} \\\\\n\\end{{align*}}",
        "\\item $\\displaystyle {0}$ \\checkmark",
        "\\[\n\\boldsymbol{{{0}}} \\tag{{2}}\n\\]",
        "\\begin{{equation}}\\label{{eq:3}}\n\\underbrace{{{0}}}_{{\\text{{so far}}}}\n\\end{{equation}}",
    ),
    SPOKEN: ("<p>We note that {0}.</p>", "<li>{0}</li>", "<p>Here <b>{0}</b>.</p>", "After that, {0}.<br>"),
}
FILLERS = {
    BASE: (
        "The numbers in the question are given and nothing else has to be looked up before we begin.",
        "It helps to write down what is known and what is wanted, since the wording hides the order of things.",
        "We should be careful here because it is easy to mix up the two quantities that were mentioned.",
        "This agrees with what the question says about the whole, so there is no reason to go back.",
        "The remaining part is of the same sort and can be done in the same manner without any new idea.",
        "Let me check once more that every condition of the question has been used exactly as it is stated.",
    ),
    RESTYLED: (
        "Hmm, wait, does that really match the statement above or did I misread something there",
        "Quick sanity check: everything lines up with the setup, moving on",
        "Alternatively one might try another route, but this one seems perfectly fine for now",
        "Note to self: keep track of units and do not skip the boring bits",
        "Right, that part is settled, next comes whatever is left over from the statement",
        "I am fairly confident about it, though a second look never hurts anybody",
    ),
}
FILLERS |= {
    LATEX: (
        "\\item Recall the statement, where \\emph{every} condition matters and $\\triangle ABC$ is not even needed.",
        "\\vspace{2mm} \\textcolor{gray}{This remark is not used below and may be skipped by the reader.}",
        "By the above it is enough to look at what is left, which is of the same sort. $\\square$",
        "\\paragraph{Remark.} Nothing here depends on the order in which the conditions were given. \\hfill",
        "One sees at once, \\ldots, that the assumptions hold $\\forall$ cases that may occur in the question.",
        "\\noindent We write \\texttt{it} down carefully, \\underline{step} by step, as is the custom. \\medskip",
    ),
    SPOKEN: (
        "<p>It is worth saying that the question leaves no room for doubt about what is meant here.</p>",
        "<li>nothing more has to be read from the question at this point, which is a relief</li>",
        "<p>Somebody in a hurry may skip this line &ndash; it adds nothing to what was said before &amp; after.</p>",
        "<blockquote>Slow and steady, as they say, and no stone is left unturned on the way.</blockquote>",
        "That being so, the remaining part is a matter of patience rather than of ideas.<br>",
        '<p style="color:gray">See <a href="https://example.org/a-1/b?c=2">the note</a> for the background.</p>',
    ),
}
CLOSERS = {BASE: "This is what was asked for.", RESTYLED: "All done, that settles it"}
CLOSERS |= {LATEX: "\\hfill $\\blacksquare$", SPOKEN: "<p>And that is all there is to it.</p></s>"}
LOOPS = {
    BASE: "```python\ndef solve():\n    total = 0\n    for i in range({a}):\n        total += {b}\n"
    "    return total\n```",
    RESTYLED: "```\ndef answer():\n  acc = 0  # running value\n  for j in range({a}):\n    acc += {b}\n"
    "  return acc\n```",
    LATEX: "```py\n# the sum\ndef total_of() -> int:\n    out: int = 0\n    for _ in range({a}):\n"
    "        out = out + {b}\n"
    "    return out\n```",
    SPOKEN: "~~~python\ndef go():\n    res = 0\n    for n in range({a}):\n        res += {b}  # one more\n"
    "    return res\n~~~",
}


class Law(NamedTuple):
    """cell_PMV: chance of each method and set of numbers; right_PM: of the right answer given the method; wrong_PA:
    of each wrong one given that it is not right (0 for the right one)."""

    cell: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


class Draws(NamedTuple):
    """Traces, problem by problem: problem, method, variant, wording, answer int [N]; style; times: how often in a row
    each draw stands there (`copied`)."""

    problem: np.ndarray
    method: np.ndarray
    variant: np.ndarray
    wording: np.ndarray
    answer: np.ndarray
    style: str
    times: int = 1


def population(rng: np.random.Generator, problems: int) -> Law:
    """Laws of the base for problems of one population: some methods absent, the others by Dirichlet's law."""
    there = rng.random((problems, NOVEL)) >= ABSENT
    there[np.arange(problems), rng.integers(0, NOVEL, problems)] = True
    weight = np.where(there, rng.gamma(SPREAD, size=there.shape) + 1e-9, 0.0)
    weight = np.pad(weight / weight.sum(1, keepdims=True), ((0, 0), (0, 1)))
    variant = rng.beta(1, 1, (problems, len(METHODS)))
    cell = weight[:, :, None] * np.stack([variant, 1 - variant], 2)
    wrong = np.pad(rng.dirichlet(np.ones(ANSWERS - 1), problems), ((0, 0), (1, 0)))
    return Law(cell, rng.beta(1, 1, (problems, len(METHODS))), wrong)


def again(law: Law, method_PM: np.ndarray) -> Law:
    """The law with other shares of the methods; numbers and answers given the method as before (for a method that the
    base lacks: as `population` made them)."""
    total_PM = law.cell.sum(2)
    half = np.full_like(law.cell, 1 / VARIANTS)
    given = np.divide(law.cell, total_PM[:, :, None], out=half, where=total_PM[:, :, None] > 0)
    return law._replace(cell=method_PM[:, :, None] * given)


def other_method(law: Law, share: float) -> Law:
    """A share of the traces by the method that the base never uses, the rest as the base's."""
    method_PM = (1 - share) * law.cell.sum(2)
    method_PM[:, NOVEL] += share
    return again(law, method_PM)


def concentrated(law: Law, share: float) -> Law:
    """A share of the traces by the base's most frequent method of each problem, the rest as the base's."""
    method_PM = law.cell.sum(2)
    top_PM = np.arange(len(METHODS)) == method_PM.argmax(1)[:, None]
    return again(law, (1 - share) * method_PM + share * top_PM)


def rarest(law: Law) -> Law:
    """All traces by the base's rarest method of at least 2 % (the most frequent one where there is none)."""
    method_PM = law.cell.sum(2)
    pick = np.where(method_PM >= 0.02, method_PM, 2 - method_PM).argmin(1)
    return again(law, (np.arange(len(METHODS)) == pick[:, None]).astype(float))


def chances(law: Law) -> dict[str, np.ndarray]:
    """Level -> chance of each class [P, C], the classes of a level in one order for all laws."""
    method_PM = law.cell.sum(2)
    right_P = np.clip((method_PM * law.right).sum(1), 0, 1)
    answer_PA = (1 - right_P[:, None]) * law.wrong
    answer_PA[:, 0] = right_P
    kinds = np.stack([method_PM[:, c == KINDS].sum(1) for c in range(KINDS.max() + 1)], 1)
    levels = (law.cell.reshape(len(method_PM), -1), method_PM, kinds, answer_PA, np.stack([right_P, 1 - right_P], 1))
    return dict(zip(LEVELS[1:], levels, strict=True))


def contained(source: Law, base: Law, k: int) -> dict[str, np.ndarray]:
    """Level -> the chance that k draws of the base hold the class of a trace of the source, by problem [P]."""
    q, p = chances(source), chances(base)
    return {level: (q[level] * (1 - (1 - p[level]) ** k)).sum(1) for level in q}


def excess(source: Law, base: Law, k: int) -> dict[str, float]:
    """Level -> E_k, the mean over problems of sum (q - k p)+."""
    q, p = chances(source), chances(base)
    return {level: float(np.maximum(q[level] - k * p[level], 0).sum(1).mean()) for level in q}


def draw(law: Law, rng: np.random.Generator, n: int | np.ndarray, style: str = BASE) -> Draws:
    """n traces of each problem, or n_P of them."""
    problems = len(law.cell)
    problem = np.repeat(np.arange(problems), n)
    cell = _pick(law.cell.reshape(problems, -1)[problem], rng)
    method, variant = np.divmod(cell, VARIANTS)
    answer_NA = (1 - law.right[problem, method])[:, None] * law.wrong[problem]
    answer_NA[:, 0] = law.right[problem, method]
    return Draws(problem, method, variant, rng.integers(0, WORDINGS, len(problem)), _pick(answer_NA, rng), style)


def copied(draws: Draws, times: int) -> Draws:
    """Every trace so many times, as a file that was written twice has them."""
    return Draws(*(np.repeat(values, times) for values in draws[:5]), draws.style, times)


def _pick(chance_NC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A column of each row by its chances: int [N]."""
    cumulative = chance_NC.cumsum(1)
    u = rng.random((len(chance_NC), 1)) * cumulative[:, -1:]
    return np.minimum((cumulative <= u).sum(1), chance_NC.shape[1] - 1)


def formulas(problem: int, method: int, variant: int, style: str) -> list[str]:
    """The steps of a method with the numbers of the problem, in the signs of a style; a loop is a block of code."""
    rng = np.random.default_rng([problem, 7])
    b, c = (int(x) for x in rng.integers(3, 40, 2))
    a, b, c = b + c + int(rng.integers(5, 300)) + variant, b + variant, c + 2 * variant
    s = {"plus": "+", "is": "=", "letter": "{0}x"} | SIGNS[style]
    plus, minus, times, mod, eq = (s[name] for name in ("plus", "minus", "times", "mod", "is"))
    if method == 0:
        return [f"{a} {plus} {b} {eq} {a + b}", f"{a + b} {minus} {c} {eq} {a + b - c}"]
    if method == 1:
        return [f"{a} {minus} {c} {eq} {a - c}", f"{a - c} {plus} {b} {eq} {a + b - c}"]
    if method == 2:
        return [f"{a} {times} {b} {eq} {a * b}", f"{s['over'].format(a * b, b)} {eq} {a}"]
    if method == 3:
        return [f"{b} {times} {b} {eq} {b * b}", f"{s['root'].format(b * b)} {eq} {b}"]
    if method == 4:
        return [f"{a} {mod} {b} {eq} {a % b}", f"{a} {minus} {a % b} {eq} {a - a % b}"]
    if method == 5:
        letter = s["letter"].format(b)
        return [f"{letter} {plus} {c} {eq} {a}", f"{letter} {eq} {a - c}"]
    if method == 6:
        return [LOOPS[style].format(a=a, b=b)]
    return [f"{s['square'].format(b)} {eq} {b * b}", f"{b * b} {times} {a} {eq} {a * b * b}"]


@lru_cache(maxsize=1 << 14)
def text(problem: int, method: int, variant: int, wording: int, style: str) -> str:
    """The response: an opener, the formulas in order, each in a sentence or line of its own, fillers between them."""
    rng = np.random.default_rng([problem, method, variant, wording, (RESTYLED, BASE, LATEX, SPOKEN).index(style)])
    own = formulas(problem, method, variant, style)
    words = int(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST))))
    pick = iter(rng.integers(0, 12, LONGEST).tolist())  # 12: every list of wordings has a divisor of it
    pieces = [_next(OPENERS[style], pick)]
    need, fillers = words - sum(len(f.split()) + 3 for f in own) - len(pieces[0].split()), []
    while need > 0:
        fillers.append(_next(FILLERS[style], pick))
        need -= len(fillers[-1].split())
    cuts = np.sort(rng.integers(0, len(fillers) + 1, len(own)))
    for formula, part in zip(own, np.split(np.array(fillers, dtype=object), cuts)[: len(own)], strict=True):
        holder = "\n{0}\n" if method == 6 else _next(HOLDERS[style], pick)
        pieces += [*part, holder.format(formula)]
    pieces += [*fillers[cuts[-1] :], CLOSERS[style]]
    return (" " if style == BASE else "\n").join(pieces)


def _next(wordings: tuple[str, ...], pick: Iterator[int]) -> str:
    return wordings[next(pick) % len(wordings)]


TIMES = "times"  # of each source's draws, in the memo of its tables; missing: once


def told_apart(frame: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Rows of the tables whose texts are equal where a draw was copied and nowhere else: there are few texts here, and
    two draws of one are no copies."""
    times_N = frame["source"].map(tables.memo.get(TIMES, {})).fillna(1).to_numpy(int)
    hashes = pd.array(frame["sample"].to_numpy() // times_N, dtype="UInt64")
    return frame.assign(response_hash=hashes, characters=copies.LONG)


_SKELETONS: dict[Any, str] = {}  # by the hash of a response: the texts of all worlds are the same few thousand


def tables(sources: dict[str, Draws], *, correct: dict[str, np.ndarray] | None = None, **more: Any) -> Tables:
    """Tables of texts and answers alone, the first source is the reference.

    correct: source -> what its grader says, bool [N], instead of the truth; more: `answer`, source -> answers [N],
    missing ones None, instead of the law's.
    """
    parts = []
    for source, d in sources.items():
        at, n = list(zip(*(x.tolist() for x in d[:4]), strict=True)), len(d.problem)
        sample = (np.arange(n) - np.searchsorted(d.problem, d.problem)).tolist()
        said = more.get("answer", {}).get(source)
        said = [f"{100 + 10 * p + a}" for p, a in zip(d.problem, d.answer, strict=True)] if said is None else said
        parts.append(
            pd.DataFrame(
                {
                    "key": [trace_key(source, f"p{p:03d}", i, None) for (p, *_), i in zip(at, sample, strict=True)],
                    "source": source,
                    "problem": [f"p{p:03d}" for p, *_ in at],
                    "sample": sample,
                    "correct": (correct or {}).get(source, d.answer == 0),
                    "answer": pd.Series(said, dtype=object),
                    "response": [text(*cell, d.style) for cell in at],
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True).assign(score=np.nan, finish="stop", group="all", prompt=None)
    frame["correct"], frame["step"] = frame["correct"].astype("boolean"), pd.array([None] * len(frame), dtype="Int64")
    held = Tables(
        **in_memory(frame),
        scores=pd.DataFrame(columns=["key", "source", "model", "problem", "step", "sample"]),
        tokens=lambda model, columns: iter(()),
        reference=next(iter(sources)),
    )
    held.memo["skeleton"], held.memo[TIMES] = _SKELETONS, {source: d.times for source, d in sources.items()}
    return held
