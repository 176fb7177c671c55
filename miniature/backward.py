"""The `plan` wording: a chain found backwards from the goal, in words that no solution of pretraining uses.

    plan need 16 . undo + 1 need 15 left 3 7 11 . undo - 3 need 18 left 7 11 . check 11 + 7 = 18 ok .
    answer 11 + 7 - 3 + 1

`undo op b need v` takes the last step off: v op b is what was needed before. `check` tries the two numbers that are
left. A failed attempt ends in `no` and is followed by `retry need GOAL`, from the start. The teacher's words are in
the vocabulary (pretraining's `note` documents train their embeddings), their use is new.
"""

from __future__ import annotations

import random
from collections import Counter

from miniature.domain import HIGHEST, KINDS, Chain, apply, chain_text, chain_values, parse_chain, random_solution

RETRYING = 0.30  # P(a trace makes one failed attempt first)


def plan(numbers: tuple[int, ...], goal: int, kind: str, rng: random.Random) -> list[str]:
    """A correct trace in the `plan` wording, sometimes after one failed attempt."""
    words = ["plan", "need", str(goal), "."]
    if rng.random() < RETRYING and (attempt := failed_attempt(numbers, goal, KINDS[kind], rng)):
        words += [*attempt, "retry", "need", str(goal), "."]
    chain = random_solution(numbers, goal, KINDS[kind], rng)
    return words + backwards(chain) + ["answer", *chain_text(chain).split()]


def backwards(chain: Chain) -> list[str]:
    """The undone steps of a chain, last step first, and the check of its first step."""
    first, steps = chain
    before, words = [first, *chain_values(chain)], []
    for i in range(len(steps) - 1, 0, -1):
        op, number = steps[i]
        rest = [first, *(other for _, other in steps[:i])]
        words += ["undo", op, str(number), "need", str(before[i]), "left", *map(str, rest), "."]
    op, number = steps[0]
    return words + ["check", str(first), op, str(number), "=", str(before[1]), "ok", "."]


def failed_attempt(numbers: tuple[int, ...], goal: int, ops: str, rng: random.Random, tries: int = 10) -> list[str]:
    """Undone steps that lead to two numbers that do not fit, and the check that says `no`; [] when no try fails."""
    for _ in range(tries):
        rest, need, words = list(numbers), goal, []
        while len(rest) > 2 and (choices := undoable(rest, need, ops)):
            number, op, need = rng.choice(choices)
            rest.remove(number)
            words += ["undo", op, str(number), "need", str(need), "left", *map(str, rest), "."]
        rng.shuffle(rest)
        a, b, *more = rest
        checks = [(op, value) for op in ops if (value := apply(op, a, b)) is not None and value != need]
        if not more and checks:
            op, value = rng.choice(checks)
            return words + ["check", str(a), op, str(b), "=", str(value), "no", "."]
    return []


def undoable(rest: list[int], need: int, ops: str) -> list[tuple[int, str, int]]:
    """(number, operator, value before) of every last step that ends in `need`, solvable from there or not."""
    found = []
    for number in rest:
        for op in ops:
            before = {"+": need - number, "-": need + number, "*": need // number, "/": need * number}[op]
            if 1 <= before <= HIGHEST and apply(op, before, number) == need:
                found.append((number, op, before))
    return found


def plan_fault(numbers: tuple[int, ...], goal: int, statements: list[list[str]]) -> str | None:
    """The first thing that strict refuses in a `plan` response cut at the full stops; None when there is nothing.

    Every undo must give back the value needed before, every list must hold the free numbers, every check must be true
    and say rightly whether it fits, and the answer must be the chain that the last attempt found.
    """
    *statements, last = statements
    told: dict = {"need": None, "done": None}
    for statement in statements:
        if (wrong := _read(statement, told, numbers, goal)) is not None:
            return f"{wrong}: {' '.join(statement)}"
    chain = parse_chain(last[1:]) if last[:1] == ["answer"] else None
    if chain is None:
        return "no answer at the end"
    return None if chain == told.get("chain") else "the answer is not what was derived"


def _read(statement: list[str], told: dict, numbers: tuple[int, ...], goal: int) -> str | None:
    """Take one statement into `told`, or say what is wrong with it."""
    head = statement[0] if statement else ""
    if head in ("plan", "retry"):
        opens = told["need"] is None if head == "plan" else told["done"] == "no"
        if not opens or statement[1:] != ["need", str(goal)]:
            return "not the start of an attempt"
        told.update(need=goal, done=None, free=Counter(map(str, numbers)), undone=[])
        return None
    if told["need"] is None or told["done"] is not None:
        return "a step outside an attempt"
    if head == "undo":
        return _undo(statement, told)
    if head == "check":
        return _check(statement, told)
    return "not a sentence of the plan"


def _undo(words: list[str], told: dict) -> str | None:
    """`undo op b need v left ...`"""
    if len(words) < 8 or words[3] != "need" or words[5] != "left" or not (words[2] + words[4]).isdecimal():
        return "not a step back"
    _, op, number, _, before, _, *rest = words
    if told["free"][number] < 1:
        return "the number is not free"
    if op not in ("+", "-", "*", "/") or apply(op, int(before), int(number)) != told["need"]:
        return "the value is wrong"
    told["free"] -= Counter([number])
    if told["free"] != Counter(rest):
        return "the list of numbers left is wrong"
    told["need"] = int(before)
    told["undone"].append((op, int(number)))
    return None


def _check(words: list[str], told: dict) -> str | None:
    """`check a op b = v ok|no`"""
    if len(words) != 7 or words[4] != "=" or words[6] not in ("ok", "no") or not (words[1] + words[3]).isdecimal():
        return "not a check"
    _, a, op, b, _, value, says = words
    if Counter([a, b]) != told["free"]:
        return "the check is not of the numbers left"
    if op not in ("+", "-", "*", "/") or str(apply(op, int(a), int(b))) != value:
        return "the value is wrong"
    if (int(value) == told["need"]) != (says == "ok"):
        return "the check says the wrong thing"
    told["done"] = says
    if says == "ok":
        told["chain"] = int(a), ((op, int(b)), *reversed(told["undone"]))
    return None
