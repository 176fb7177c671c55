"""Responses said differently: the same steps and the same verdict, other words or more of them.

Each function takes a response's words (of any quality: a model wrote them) and the question, and gives words. None of
them changes a number, an operator or the order of the steps; `pad` alone adds numbers, by restating.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from miniature.traces import OPENERS, OPENING, OTHER_WORD, SYNONYMS, VERBS, reword

USUAL = {other: usual for usual, other in SYNONYMS.items()}
STYLE_WORDS = {"start": "chain", "first": "step", "maybe": "guess"}  # each begins a derivation

# usual word -> a word of the vocabulary that no solution of pretraining holds: these stand in `note` documents alone.
# The words of arithmetic and `answer` stay: they are operators and formulas in words.
FOREIGN = {
    "well": "okay",
    "hmm": "okay",
    "start": "have",
    "first": "try",
    "then": "just",
    "maybe": "say",
    "get": "check",
    "left": "need",
    "so": "ok",
    "recall": "note",
}
NATIVE = {foreign: usual for usual, foreign in FOREIGN.items()}  # `okay` reads as `hmm`; either opens any style


def restyle_known(words: list[str], prompt: str, rng: random.Random) -> list[str]:
    """Opener and synonyms drawn again by the corpus's own law (`reword`, OPENING), which draws them independently of
    everything else: rewording leaves the corpus's distribution as it is, so it cannot lead out of it.
    """
    usual = [USUAL.get(word, word) for word in words]
    style = next((STYLE_WORDS[word] for word in usual if word in STYLE_WORDS), None)
    openers = [[opener, ","] for opener in OPENERS.values()]
    if style is not None and usual[2:4] not in openers:  # a doubled opener is a fault, and stays
        usual = usual[2:] if usual[:2] in openers else usual
        if rng.random() < OPENING:
            usual = [OPENERS[style], ",", *usual]
    return reword(usual, rng)


def restyle_foreign(words: list[str], prompt: str, rng: random.Random) -> list[str]:
    """Every opener and step word replaced by its FOREIGN word: word for word, in place, always the same."""
    return [FOREIGN.get(USUAL.get(word, word), word) for word in words]


def pad(words: list[str], prompt: str, rng: random.Random) -> list[str]:
    """A recap at every place where the corpus may have one: the question's numbers before the first step, and each
    step after it was made. What is restated is what stands there, right or wrong; a place that has its recap already
    gets no second one.
    """
    recall = SYNONYMS["recall"] if rng.random() < OTHER_WORD else "recall"
    statements = _statements(words)
    made = made_equations([[USUAL.get(word, word) for word in statement] for statement in statements])
    opened = 2 if words[1:2] == [","] else 0
    result = list(words[:opened])
    if USUAL.get(words[opened], words[opened]) != "recall":
        result += [recall, *prompt.split()[:-1], "."]
    for i, statement in enumerate(statements):
        result += (statement[opened:] if i == 0 else statement) + ["."]
        following = statements[i + 1][:1] if i + 1 < len(statements) else []
        if made[i] and [USUAL.get(word, word) for word in following] != ["recall"]:
            result += [recall, *made[i], "."]
    return result[:-1]  # the last statement has no full stop of its own


def made_equations(statements: list[list[str]]) -> list[list[str] | None]:
    """For each statement in usual words the equation that it makes, as a recap would say it, or None."""
    operator = {verb[0]: (op, len(verb)) for op, verb in VERBS.items()}
    value, made = None, []
    for words in statements:
        words = words[2:] if words[1:2] == [","] else words
        head, equation = words[:1], None
        if head == ["start"] and len(words) == 2:
            value = words[1]
        elif head and head[0] in operator and value is not None:
            op, width = operator[head[0]]
            body = words[width:]
            if len(body) == 3 and body[1] == "get":
                equation, value = [value, op, body[0], "=", body[2]], body[2]
        elif head in (["first"], ["then"]) and len(words) >= 6 and words[4] == "=" and "answer" not in words:
            equation = words[1:6]
        elif head == ["maybe"] and words[-4:-1] == [",", "that", "is"]:
            equation = [*words[1:-4], "=", words[-1]]
        made.append(equation)
    return made


def _statements(words: list[str]) -> list[list[str]]:
    """The words between full stops."""
    statements: list[list[str]] = [[]]
    for word in words:
        if word == ".":
            statements.append([])
        else:
            statements[-1].append(word)
    return statements


REWRITES: dict[str, Callable[[list[str], str, random.Random], list[str]]] = {
    "known": restyle_known,
    "foreign": restyle_foreign,
    "pad": pad,
}
