"""Small sums with their steps, and word problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Sample, chat, pick, sloppy
from .words import FOODS, OBJECTS, name

if TYPE_CHECKING:
    import random


def add_steps(a: int, b: int) -> str:
    """Add two numbers below 100, column by column."""
    total = a + b
    if a < 10 and b < 10:
        return f"{a} + {b} = {total}."
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10
    if ones < 10:
        steps = f"Ones: {a % 10} + {b % 10} = {ones}. Tens: {a // 10} + {b // 10} = {tens}."
    else:
        steps = (
            f"Ones: {a % 10} + {b % 10} = {ones}, carry 1. "
            f"Tens: {a // 10} + {b // 10} + 1 = {tens + 1}."
        )
    return f"{steps} So {a} + {b} = {total}."


def subtract_steps(a: int, b: int) -> str:
    """Subtract two numbers below 100, with a borrow where one is needed."""
    if a < b:
        return f"{b} - {a} = {b - a}, so {a} - {b} = {a - b}."
    if a < 10 and b < 10:
        return f"{a} - {b} = {a - b}."
    ones, tens = a % 10 - b % 10, a // 10 - b // 10
    if ones >= 0:
        steps = f"Ones: {a % 10} - {b % 10} = {ones}. Tens: {a // 10} - {b // 10} = {tens}."
    else:
        steps = (
            f"Ones: {a % 10 + 10} - {b % 10} = {ones + 10}, borrow 1. "
            f"Tens: {a // 10} - {b // 10} - 1 = {tens - 1}."
        )
    return f"{steps} So {a} - {b} = {a - b}."


def multiply_steps(a: int, b: int) -> str:
    """Multiply: the table by heart, larger factors split into tens and ones."""
    if a <= 12 and b <= 12:
        return f"{a} x {b} = {a * b}."
    if a < b:
        return f"{multiply_steps(b, a)[:-1]}, and {a} x {b} is the same."
    tens, ones = a // 10 * 10, a % 10
    if b < 10:
        left, right = tens * b, ones * b
        return f"{tens} x {b} = {left}. {ones} x {b} = {right}. So {a} x {b} = {left + right}."
    left, right = a * (b // 10 * 10), a * (b % 10)
    return (
        f"{a} x {b // 10 * 10} = {left}. {a} x {b % 10} = {right}. So {a} x {b} = {left + right}."
    )


_ASK = [
    "What is {e}?",
    "What is {e}?",
    "[What's|How much is|Calculate|Compute|Work out|Solve] {e}[?|]",
    "{e}",
    "{e} =",
    "{e} = ?",
    "[Can you tell me|Please tell me|Tell me] what {e} is[?|.]",
    "I need to know {e}.",
    "Please [compute|calculate] {e}.",
    "What does {e} [equal|make]?",
]
_SIGNS = {
    "+": ["+", "+", "+", "+", "plus"],
    "-": ["-", "-", "-", "minus"],
    "x": ["x", "x", "*", "\u00d7", "times"],
}


def _numbers(rng: random.Random, sign: str) -> tuple[int, int]:
    if sign == "x":
        roll = rng.random()
        if roll < 0.6:
            return rng.randint(0, 12), rng.randint(0, 12)
        if roll < 0.9:
            pair = [rng.randint(10, 99), rng.randint(2, 9)]
            return (pair[0], pair[1]) if rng.random() < 0.7 else (pair[1], pair[0])
        return rng.randint(11, 30), rng.randint(11, 30)
    top = rng.choice((10, 20, 100, 100, 100))
    a, b = rng.randrange(top), rng.randrange(top)
    if sign == "-" and rng.random() < 0.93 and a < b:
        a, b = b, a
    return a, b


def arithmetic(rng: random.Random) -> Sample:
    """Ask for one sum, difference or product."""
    sign = rng.choice("+++--x")
    a, b = _numbers(rng, sign)
    shown = f"{a} {rng.choice(_SIGNS[sign])} {b}"
    if rng.random() < 0.1:
        shown = (
            shown.replace(" ", "") if not any(c.isalpha() and c != "x" for c in shown) else shown
        )
    steps = {"+": add_steps, "-": subtract_steps, "x": multiply_steps}[sign](a, b)
    value = {"+": a + b, "-": a - b, "x": a * b}[sign]
    question = sloppy(rng, pick(rng, _ASK, e=shown))
    return chat(
        "arithmetic", question, steps, key=f"{a}{sign}{b}", expect=steps, contains=(f"= {value}",)
    )


_GET = [
    "{n} has {a} {o}s and [gets|buys|finds] {b} more. How many {o}s does {n} have[ now|]?",
    "There are {a} {o}s in a box. {n} puts in {b} more. How many {o}s are [in the box|there now]?",
    "I have {a} {o}s and [buy|get] {b} more. How many {o}s do I have[ now|]?",
]
_LOSE = [
    "{n} has {a} {o}s and [gives away|loses|sells] {b}. How many {o}s are left?",
    "There are {a} {o}s on the table. {n} takes {b}. How many {o}s are left?",
    "I have {a} {o}s and [eat|use|sell] {b}. How many [are left|do I have now]?",
]
_MANY = [
    "There are {a} boxes with {b} {o}s each. How many {o}s are there?",
    "{n} buys {a} bags of {b} {o}s. How many {o}s is that?",
]
_NOUNS = [
    w for w in FOODS + OBJECTS if w[-1] not in "syho" and w not in ("bread", "cheese", "rice")
]


def word_problem(rng: random.Random) -> Sample:
    """Ask the same kinds of sums in words."""
    sign = rng.choice("+-x")
    a, b = _numbers(rng, sign)
    if a < b and sign == "-":
        a, b = b, a
    if sign == "x":
        a, b = rng.randint(2, 9), rng.randint(2, 12)
    noun = rng.choice(_NOUNS)
    question = pick(rng, {"+": _GET, "-": _LOSE, "x": _MANY}[sign], n=name(rng), a=a, b=b, o=noun)
    value = {"+": a + b, "-": a - b, "x": a * b}[sign]
    steps = {"+": add_steps, "-": subtract_steps, "x": multiply_steps}[sign](a, b)
    answer = f"{steps} The answer is {value}."
    return chat("arithmetic", question, answer, key=f"{a}{sign}{b}", contains=(f"is {value}.",))
