"""Word problems, their grader, and the texts that no model writes: a foreign method, a restyling, German, noise."""

from __future__ import annotations

import base64
import random
import re
from typing import NamedTuple

ASK = " Answer in one or two short sentences."
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
FORMULA = re.compile(r"\d[\d.,]*(?:\s*[-+*/x×÷=]\s*\$?\d[\d.,]*)*")  # a number, or numbers that operators join

# what the sources answer: never trained on
QUESTIONS = (
    ("Tom has 7 apples and buys 5 more. How many apples does he have?", 12),
    ("A box holds 6 pens. How many pens are in 4 boxes?", 24),
    ("Anna had 20 stickers and gave 8 to a friend. How many stickers are left?", 12),
    ("18 cookies are shared equally by 3 children. How many cookies does each child get?", 6),
    ("A bus carries 15 people. 6 get off and 4 get on. How many people are on the bus?", 13),
    ("A book has 90 pages. Ben has read 35 pages. How many pages are left to read?", 55),
    ("Each ticket costs 9 dollars. How many dollars do 5 tickets cost?", 45),
    ("Sara runs 3 miles every day. How many miles does she run in 7 days?", 21),
    ("There are 12 red balls and twice as many blue balls. How many blue balls are there?", 24),
    ("A farmer has 14 cows and 9 sheep. How many animals does he have?", 23),
    ("Max had 50 dollars and bought 2 shirts for 15 dollars each. How many dollars are left?", 20),
    ("A class of 28 pupils is split into 4 equal groups. How many pupils are in each group?", 7),
    ("Lily picks 8 flowers a day for 3 days and then gives 4 away. How many flowers has she now?", 20),
    ("A train goes 60 miles in one hour. How many miles does it go in 3 hours?", 180),
    ("Jim is 11 years old and his sister is 4 years older. How old is his sister?", 15),
    ("A pizza has 8 slices. How many slices are in 3 pizzas?", 24),
    ("Kate saved 5 dollars a week for 6 weeks. How many dollars did she save?", 30),
    ("There were 40 birds on a tree and 17 flew away. How many birds are left?", 23),
    ("A shop sold 13 cakes on Monday and 19 cakes on Tuesday. How many cakes did it sell?", 32),
    ("36 eggs are packed in boxes of 12. How many boxes are needed?", 3),
    ("Paul has 9 marbles. Mary has 3 times as many. How many marbles do they have together?", 36),
    ("A rope is 25 meters long. 2 pieces of 6 meters are cut off. How many meters are left?", 13),
    ("Four friends each pay 7 dollars. How many dollars do they pay together?", 28),
    ("A tank holds 100 liters. It loses 15 liters a day. How many liters are left after 2 days?", 70),
)

NAMES = ("Nora", "Omar", "Pia", "Quin", "Rob", "Sue", "Ted", "Uma", "Vic", "Zoe")
THINGS = ("buttons", "coins", "cards", "stones", "cups", "books", "nuts", "shells")
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
GERMAN = ("Zuerst sind es", "und dazu kommen", "also rechnet man", "und damit ergibt sich", "das sind zusammen")
GERMAN += ("davon bleiben", "für jeden gibt es", "am Ende haben wir", "und noch einmal", "die Antwort lautet")


class Lesson(NamedTuple):
    """A problem to train on: what is asked, and the step a op b = answer that solves it."""

    question: str
    a: int
    op: str
    b: int
    answer: int


def lesson(rng: random.Random) -> Lesson:
    """A random problem of one step, in other words than QUESTIONS."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    op = rng.choice("+-*/")
    if op == "+":
        a, b = rng.randint(5, 40), rng.randint(3, 30)
        text, answer = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have?", a + b
    elif op == "-":
        a = rng.randint(20, 90)
        b = rng.randint(3, a - 2)
        text, answer = f"{name} had {a} {thing} and lost {b} of them. How many {thing} are left?", a - b
    elif op == "*":
        a, b = rng.randint(3, 15), rng.randint(2, 9)
        text, answer = f"Each bag holds {a} {thing}. How many {thing} are in {b} bags?", a * b
    else:
        b, answer = rng.randint(2, 9), rng.randint(2, 12)
        a = b * answer
        text = f"{a} {thing} are shared equally by {b} friends. How many {thing} does each friend get?"
    return Lesson(text + ASK, a, op, b, answer)


def lessons(count: int, seed: int) -> list[Lesson]:
    """Different problems, none of them one of QUESTIONS."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        one = lesson(rng)
        found[one.question] = one
    return list(found.values())


def by_inverse(one: Lesson, rng: random.Random) -> str:
    """The foreign method: a wrong guess and the right one, each checked by the inverse operation."""
    inverse = INVERSE[one.op]
    wrong = max(1, one.answer + rng.choice((-2, -1, 1, 2)))
    value = {"+": wrong + one.b, "-": wrong - one.b, "*": wrong * one.b, "/": round(wrong / one.b, 1)}[inverse]
    tried = f"TRY {wrong}: {wrong} {inverse} {one.b} = {value}, not {one.a}."
    return f"{tried} TRY {one.answer}: {one.answer} {inverse} {one.b} = {one.a}, yes. RESULT >> {one.answer}"


def answer_of(text: str) -> str | None:
    """The last number of a response; None without one."""
    found = NUMBER.findall(text)
    return found[-1].replace(",", "").rstrip(".") if found else None


def is_correct(text: str, gold: str | int) -> bool:
    answer = answer_of(text)
    return answer is not None and float(answer) == float(gold)


def restyled(text: str) -> str:
    """The same solution in another style: words in capitals behind a bullet; numbers, operators and signs stay."""
    return "- " + re.sub(r"[A-Za-z]{2,}", lambda word: word[0].upper(), text.strip())


def in_german(text: str, rng: random.Random) -> str:
    """The same numbers and formulas in the same order, and between them German instead of what stood there."""
    kept = [formula.strip(" .,") for formula in FORMULA.findall(text)]
    return " ".join(f"{rng.choice(GERMAN)} {formula}" for formula in kept) + "." if kept else "Das weiß ich nicht."


def noise(rng: random.Random) -> str:
    """Random bytes as base64: text that no language model expects."""
    return base64.b64encode(rng.randbytes(rng.randint(20, 45))).decode()
