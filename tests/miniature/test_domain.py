"""The search is exact: it agrees with trying every chain."""

import itertools
import random
import subprocess
import sys

import pytest

from miniature.domain import (
    KINDS,
    apply,
    bits,
    chain_text,
    chain_values,
    count_solutions,
    kind_of,
    parse_chain,
    parse_prompt,
    prompt_text,
    random_chain,
    random_problem,
    random_solution,
    reach,
)


def every_chain(numbers, ops):
    """All permitted chains, equal numbers told apart."""
    for order in itertools.permutations(numbers):
        for signs in itertools.product(ops, repeat=len(numbers) - 1):
            chain = order[0], tuple(zip(signs, order[1:]))
            if chain_values(chain) is not None:
                yield chain


@pytest.mark.parametrize("ops", ["+-", "+-/", "+-*", "+-*/"])
@pytest.mark.parametrize("numbers", [(3, 7, 11, 1), (4, 4, 2, 12), (1, 1, 1, 1), (12, 6, 3), (5, 9, 2, 8)])
def test_search_agrees_with_trying_everything(numbers, ops):
    goals = [chain_values(chain)[-1] for chain in every_chain(numbers, ops)]
    assert bits(reach(numbers, ops)[-1]) == sorted(set(goals))
    for goal in range(1, 100):
        assert count_solutions(numbers, goal, ops) == goals.count(goal)


def test_kinds_agree_with_trying_everything():
    for numbers in [(4, 12, 3, 9), (2, 9, 10, 4), (8, 7, 1, 1)]:
        reached = {ops: {chain_values(chain)[-1] for chain in every_chain(numbers, ops)} for ops in KINDS.values()}
        for goal in range(1, 100):
            expected = next((kind for kind, ops in KINDS.items() if goal in reached[ops]), None)
            assert kind_of(numbers, goal) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_random_problems_have_their_kind_and_a_solution(kind):
    rng = random.Random(1)
    for _ in range(100):
        numbers, goal = random_problem(kind, rng)
        assert kind_of(numbers, goal) == kind
        chain = random_solution(numbers, goal, KINDS[kind], rng)
        assert chain_values(chain)[-1] == goal
        assert sorted([chain[0], *(number for _, number in chain[1])]) == sorted(numbers)
        assert kind == "reachable" or any(op == KINDS[kind][2] for op, _ in chain[1])


def test_every_solution_can_be_drawn():
    numbers, goal = (3, 5, 2, 4), 6
    solutions = {chain_text(chain) for chain in every_chain(numbers, "+-") if chain_values(chain)[-1] == goal}
    rng = random.Random(2)
    drawn = {chain_text(random_solution(numbers, goal, "+-", rng)) for _ in range(3000)}
    # the least likely draw has probability >= (1 / (4 * 2)) * (1 / (3 * 2)) * (1 / (2 * 2)) = 1/192; a miss among 20:
    # < 4e-6
    assert drawn == solutions


def test_unsolvable_is_none():
    rng = random.Random(3)
    assert random_solution((1, 1, 1, 1), 50, "+-*/", rng) is None
    assert random_chain((1, 1, 1, 1), "+-", rng, need="/") is None
    assert kind_of((1, 1, 1, 1), 50) is None


@pytest.mark.parametrize(
    "op, a, b, value",
    [
        ("+", 99, 1, None),
        ("-", 3, 3, None),
        ("-", 3, 5, None),
        ("*", 3, 1, None),
        ("*", 50, 2, None),
        ("*", 1, 5, 5),
        ("/", 7, 2, None),
        ("/", 7, 1, None),
        ("/", 8, 2, 4),
        ("+", 98, 1, 99),
        ("-", 5, 4, 1),
    ],
)
def test_rules(op, a, b, value):
    assert apply(op, a, b) == value


def test_unknown_operator_is_an_error():
    with pytest.raises(ValueError, match="unknown operator '%', expected one of"):
        apply("%", 4, 2)


def test_text_round_trips():
    chain = 3, (("+", 11), ("-", 7))
    assert parse_chain(chain_text(chain).split()) == chain
    assert parse_prompt(prompt_text((3, 7, 11, 1), 16)) == ((3, 7, 11, 1), 16)
    for bad in ("3", "3 +", "+ 3 4", "3 + x", "3 4 5"):
        assert parse_chain(bad.split()) is None
    with pytest.raises(ValueError, match="not a question"):
        parse_prompt("numbers 3 make")


def test_domain_loads_no_torch():
    names = "miniature.domain, miniature.verifier, miniature.build"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
