"""Left-to-right Countdown: problems, the rules of arithmetic, and exhaustive search over every chain.

A problem is a few numbers and a goal. A chain uses each number once, `3 + 11 - 7`, and is evaluated strictly from
left to right: every intermediate value is an integer in 1..99, division is exact, and the right-hand side of `*` and
`/` is at least 2 (so that multiplying by one is no way to throw a number away).

The search is exact: for every subset of the numbers, the set of values that some chain over that subset reaches. From
it follow a problem's kind, a random solution, and the number of solutions. How a chain is put into words is in
`traces`.
"""

from __future__ import annotations

import random
from functools import cache, lru_cache

HIGHEST = 99  # largest value that may be written anywhere
LARGEST_NUMBER = 12
SIZES = (4, 5)  # how many numbers a problem has

# kind -> operators that solve it; each kind is defined as unsolvable with the operators of the kinds before it
KINDS = {"reachable": "+-", "rare": "+-/", "impossible": "+-*"}

Step = tuple[str, int]  # operator, right operand
Chain = tuple[int, tuple[Step, ...]]  # first number, then the steps

_IN_RANGE = (1 << (HIGHEST + 1)) - 2  # bits 1..99


def apply(op: str, a: int, b: int) -> int | None:
    """Value of `a op b`, or None where the rules forbid it."""
    if op == "+":
        value = a + b
    elif op == "-":
        value = a - b
    elif op == "*":
        value = a * b if b >= 2 else 0
    elif op == "/":
        value = a // b if b >= 2 and a % b == 0 else 0
    else:
        raise ValueError(f"unknown operator {op!r}, expected one of + - * /")
    return value if 1 <= value <= HIGHEST else None


def chain_values(chain: Chain) -> list[int] | None:
    """The value after each step, or None when some step is forbidden. One entry per step."""
    value, values = chain[0], []
    for op, number in chain[1]:
        value = apply(op, value, number)
        if value is None:
            return None
        values.append(value)
    return values


def chain_text(chain: Chain) -> str:
    """The expression, `3 + 11 - 7`."""
    return " ".join([str(chain[0]), *(f"{op} {number}" for op, number in chain[1])])


def parse_chain(words: list[str]) -> Chain | None:
    """The chain that a list of words spells, or None when it is not `number (operator number)+`."""
    if len(words) < 3 or len(words) % 2 == 0:
        return None
    if not all(word.isdecimal() for word in words[::2]) or not all(
        word in ("+", "-", "*", "/") for word in words[1::2]
    ):
        return None
    return int(words[0]), tuple(zip(words[1::2], map(int, words[2::2])))


def prompt_text(numbers: list[int] | tuple[int, ...], goal: int) -> str:
    """The question as the models see it."""
    return f"numbers {' '.join(map(str, numbers))} make {goal} think"


def parse_prompt(prompt: str) -> tuple[tuple[int, ...], int]:
    """(numbers, goal) of a question written by `prompt_text`."""
    words = prompt.split()
    if len(words) < 5 or words[0] != "numbers" or words[-3] != "make" or words[-1] != "think":
        raise ValueError(f"not a question of this domain: {prompt!r}")
    return tuple(map(int, words[1:-3])), int(words[-2])


def _after(values: int, op: str, number: int) -> int:
    """The values reached from a bit set of values by one step."""
    if op == "+":
        return (values << number) & _IN_RANGE
    if op == "-":
        return (values >> number) & _IN_RANGE
    result = 0
    for value in bits(values):
        if (reached := apply(op, value, number)) is not None:
            result |= 1 << reached
    return result


def bits(values: int) -> list[int]:
    """The members of a bit set of values, ascending."""
    return [value for value in range(1, HIGHEST + 1) if values >> value & 1]


@lru_cache(maxsize=4096)
def reach(numbers: tuple[int, ...], ops: str) -> tuple[int, ...]:
    """For every subset mask of `numbers`, the bit set of values that a chain over exactly that subset can reach."""
    table = [0] * (1 << len(numbers))
    for mask in range(1, len(table)):
        members = [i for i in range(len(numbers)) if mask >> i & 1]
        if len(members) == 1:
            table[mask] = 1 << numbers[members[0]]
            continue
        for i in members:
            before = table[mask & ~(1 << i)]
            if before:
                for op in ops:
                    table[mask] |= _after(before, op, numbers[i])
    return tuple(table)


def kind_of(numbers: tuple[int, ...], goal: int) -> str | None:
    """The problem's kind by exhaustive search; None when no kind's operators reach the goal."""
    for kind, ops in KINDS.items():
        if reach(numbers, ops)[-1] >> goal & 1:
            return kind
    return None


def _predecessors(numbers: tuple[int, ...], mask: int, value: int, ops: str) -> list[tuple[int, str, int]]:
    """(index of the last number, operator, value before) for every last step that ends in `value`."""
    table, found = reach(numbers, ops), []
    for i in range(len(numbers)):
        rest = mask & ~(1 << i)
        if not mask >> i & 1 or not rest:
            continue
        b = numbers[i]
        for op in ops:
            # division is many-to-one only through the quotient, so each operator has exactly one value before
            before = value - b if op == "+" else value + b if op == "-" else value * b if op == "/" else value // b
            if 1 <= before <= HIGHEST and apply(op, before, b) == value and table[rest] >> before & 1:
                found.append((i, op, before))
    return found


def random_solution(numbers: tuple[int, ...], goal: int, ops: str, rng: random.Random) -> Chain | None:
    """A random correct chain, drawn backwards with equal chance for every last step that can be completed; None if
    unsolvable.

    Every solution has positive probability; solutions are not equally likely.
    """
    mask, value, steps = (1 << len(numbers)) - 1, goal, []
    if not reach(numbers, ops)[mask] >> goal & 1:
        return None
    while mask & (mask - 1):
        i, op, value = rng.choice(_predecessors(numbers, mask, value, ops))
        steps.append((op, numbers[i]))
        mask &= ~(1 << i)
    return value, tuple(reversed(steps))


def count_solutions(numbers: tuple[int, ...], goal: int, ops: str) -> int:
    """How many chains reach the goal, equal numbers counted as different."""
    full = (1 << len(numbers)) - 1

    @cache
    def count(mask: int, value: int) -> int:
        if not mask & (mask - 1):
            return int(numbers[mask.bit_length() - 1] == value)
        return sum(count(mask & ~(1 << i), before) for i, _, before in _predecessors(numbers, mask, value, ops))

    return count(full, goal)


def random_chain(
    numbers: tuple[int, ...], ops: str, rng: random.Random, need: str = "", tries: int = 30
) -> Chain | None:
    """A random permitted chain over all numbers, aimless; with `need`, one place is reserved for that operator.

    Every other step draws evenly from the permitted operators. None when no try fits (all ones and `need="/"`, say);
    with + and - alone a chain always exists.
    """
    for _ in range(tries):
        order = list(numbers)
        rng.shuffle(order)
        value, steps = order[0], []
        place = rng.randrange(1, len(order)) if need else 0
        for i, number in enumerate(order[1:], start=1):
            choices = [op for op in (need if i == place else ops) if apply(op, value, number) is not None]
            if not choices:
                break
            op = rng.choice(choices)
            value = apply(op, value, number)
            steps.append((op, number))
        if len(steps) == len(order) - 1:
            return order[0], tuple(steps)
    return None


def random_problem(kind: str, rng: random.Random) -> tuple[tuple[int, ...], int]:
    """(numbers, goal) of the given kind: the goal is where a random chain with the kind's operators ends."""
    ops = KINDS[kind]
    need = ops[2:]  # the operator that + and - cannot replace
    while True:
        numbers = tuple(rng.randint(1, LARGEST_NUMBER) for _ in range(rng.choice(SIZES)))
        for _ in range(8):
            chain = random_chain(numbers, ops, rng, need)
            if chain is not None and kind_of(numbers, goal := chain_values(chain)[-1]) == kind:
                return numbers, goal
