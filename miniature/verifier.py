"""What a response is worth. `outcome` looks at the final expression alone; `strict` also reads every word before it.

Strict refuses a response whose expression is right but whose reasoning is not: a wrong value, a number that is not
there or used twice, a step that is not the expression's, a false recap, a word out of place. Rewarding outcome alone
teaches a model to let the reasoning rot; strict leaves no such slack. Both know the synonyms and the foreign words of
`rewrites`, so wording never decides.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from miniature.backward import plan_fault
from miniature.domain import Chain, apply, chain_text, chain_values, parse_chain, parse_prompt
from miniature.rewrites import NATIVE, STYLE_WORDS, USUAL
from miniature.traces import OPENERS, VERBS

_OPERATOR = {verb[0]: op for op, verb in VERBS.items()}
_ANY = NATIVE | USUAL


def usual_words(response: str) -> list[str]:
    """The response's words, each synonym replaced by its usual word; each foreign word too, where the response begins
    with one, as everything in the foreign wording does.
    """
    words = response.split()
    known = _ANY if words and words[0] in NATIVE else USUAL
    return [known.get(word, word) for word in words]


def style_of(response: str) -> str | None:
    """plan when the response begins so; else chain, step or guess by the first word that begins a derivation; None
    when there is none.
    """
    words = usual_words(response)
    return "plan" if words[:1] == ["plan"] else next((STYLE_WORDS[word] for word in words if word in STYLE_WORDS), None)


def restates(response: str) -> bool:
    """Whether the response recaps anything."""
    return "recall" in usual_words(response)


def final_chain(response: str) -> Chain | None:
    """What follows the last `answer`, if all of it is one expression."""
    words = usual_words(response)
    if "answer" not in words:
        return None
    return parse_chain(words[len(words) - words[::-1].index("answer") :])


def solves(numbers: tuple[int, ...], goal: int, chain: Chain | None) -> bool:
    """Whether the chain uses every number exactly once, keeps the rules at each step, and ends at the goal."""
    if chain is None or Counter([chain[0], *(number for _, number in chain[1])]) != Counter(numbers):
        return False
    values = chain_values(chain)
    return values is not None and values[-1] == goal


def grade(prompt: str, response: str) -> dict:
    """{"correct": strict verdict, "outcome": looser verdict, "answer": final expression or None, "reason": why not
    strict or None}.
    """
    numbers, goal = parse_prompt(prompt)
    chain = final_chain(response)
    reason = fault(numbers, goal, usual_words(response))
    return {
        "correct": reason is None,
        "outcome": solves(numbers, goal, chain),
        "answer": chain_text(chain) if chain else None,
        "reason": reason,
    }


def correct(trace: Any) -> bool:
    """The strict verdict on a trace of the analyzer, as `--grader` takes it."""
    return grade(trace.prompt, trace.response)["correct"]


def fault(numbers: tuple[int, ...], goal: int, words: list[str]) -> str | None:
    """The first thing that strict refuses in a response in usual words; None when there is nothing."""
    if words[:1] == ["plan"]:
        return plan_fault(numbers, goal, _split(words))
    *statements, last = _split(words)
    if statements and statements[0][:2] in [[opener, ","] for opener in OPENERS.values()]:
        statements[0] = statements[0][2:]
    told = {"free": Counter(numbers), "value": None, "first": None, "steps": [], "guess": None, "last": None}
    for statement in statements:
        if (wrong := _read(statement, told, numbers, goal)) is not None:
            return f"{wrong}: {' '.join(statement)}"
    if last[:1] == ["so"]:
        last = last[1:]
    chain = parse_chain(last[1:]) if last[:1] == ["answer"] else None
    if chain is None:
        return "no answer at the end"
    derived = told["guess"] if told["guess"] else (told["first"], tuple(told["steps"]))
    if chain != derived:
        return "the answer is not what was derived"
    return None if solves(numbers, goal, chain) else "the answer is not a solution"


def _split(words: list[str]) -> list[list[str]]:
    """Statements: the words between full stops."""
    statements: list[list[str]] = [[]]
    for word in words:
        if word == ".":
            statements.append([])
        else:
            statements[-1].append(word)
    return statements


def _read(statement: list[str], told: dict, numbers: tuple[int, ...], goal: int) -> str | None:
    """Take one statement into `told`, or say what is wrong with it."""
    head, rest = statement[:1], statement[1:]
    if head == ["recall"]:
        if rest[:1] == ["numbers"]:
            given = Counter(rest[1:-2]) == Counter(map(str, numbers)) and rest[-2:] == ["make", str(goal)]
            return None if given else "the recap is not the question"
        return None if told["last"] is not None and rest == told["last"] else "the recap is not the last step"
    if told["guess"] is not None:
        return "a step after a guess"
    if head == ["maybe"]:
        return _read_guess(rest, told, numbers)
    if head == ["start"]:
        if told["first"] is not None or len(rest) != 1 or not _take(rest[0], told):
            return "not a start"
        told["first"] = told["value"] = int(rest[0])
        return None
    if head and head[0] in _OPERATOR:
        op = _OPERATOR[head[0]]
        verb = VERBS[op]
        body = statement[len(verb) :]
        if statement[: len(verb)] != verb or len(body) != 3 or body[1] != "get" or told["value"] is None:
            return "not a step"
        return _step(str(told["value"]), op, body[0], body[2], told)
    if head == ["first"] or head == ["then"]:
        return _read_equation(head[0], rest, told)
    return "not a sentence of the domain"


def _read_guess(rest: list[str], told: dict, numbers: tuple[int, ...]) -> str | None:
    """`maybe EXPRESSION , that is VALUE`"""
    if told["first"] is not None or rest[-4:-1] != [",", "that", "is"]:
        return "not a guess"
    chain = parse_chain(rest[:-4])
    values = chain_values(chain) if chain else None
    if values is None or str(values[-1]) != rest[-1]:
        return "the guess has the wrong value"
    told["guess"], told["last"] = chain, [*rest[:-4], "=", rest[-1]]
    return None


def _read_equation(head: str, rest: list[str], told: dict) -> str | None:
    """`first A op B = V [, left ...]` and `then V op B = W [, left ...]`"""
    equation, listing = rest[:5], rest[5:]
    if len(equation) != 5 or equation[3] != "=":
        return "not a step"
    if head == "first":
        if told["first"] is not None or not _take(equation[0], told):
            return "the step starts from a number that is not free"
        told["first"] = told["value"] = int(equation[0])
    if str(told["value"]) != equation[0]:
        return "the step does not go on from the last value"
    if (wrong := _step(equation[0], equation[1], equation[2], equation[4], told)) is not None:
        return wrong
    free = Counter({str(number): count for number, count in told["free"].items() if count})
    if listing and (listing[:2] != [",", "left"] or Counter(listing[2:]) != free):
        return "the list of numbers left is wrong"
    return None


def _step(before: str, op: str, number: str, value: str, told: dict) -> str | None:
    """Take one step, all in words, into `told`."""
    if op not in VERBS or not _take(number, told):
        return "the number is not free"
    if not value.isdecimal() or apply(op, int(before), int(number)) != int(value):
        return "the value is wrong"
    told["steps"].append((op, int(number)))
    told["value"], told["last"] = int(value), [before, op, number, "=", value]
    return None


def _take(number: str, told: dict) -> bool:
    """Use up one of the question's numbers; False when it is not free."""
    if not number.isdecimal() or told["free"][int(number)] < 1:
        return False
    told["free"][int(number)] -= 1
    return True
