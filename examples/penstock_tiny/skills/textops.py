"""Copying, counting, reversing and changing the case of short words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Sample, chat, join_and, pick, sloppy, upper_first
from .words import ACCENTED, CJK, EMOJI, NUMBER_WORDS, made_up, name, thing, word

if TYPE_CHECKING:
    import random


def _short(rng: random.Random) -> str:
    while True:
        chosen = word(rng)
        if 3 <= len(chosen) <= 7:
            return chosen


def count_to(rng: random.Random) -> Sample:
    """Count up, down, in steps or in words."""
    roll = rng.random()
    if roll < 0.45:
        low, high = 1, 10 if rng.random() < 0.5 else rng.randint(3, 30)
        shown = rng.choice((str(high), NUMBER_WORDS[high] if high <= 20 else str(high)))
        ask = pick(
            rng,
            [
                "Count to {n}.",
                "[Please count|Can you count|Count] [from 1 |from one |]to {n}[.|, please.|]",
            ],
            n=shown,
        )
        numbers = list(range(low, high + 1))
    elif roll < 0.65:
        low = rng.randint(0, 40)
        numbers = list(range(low, low + rng.randint(3, 12)))
        ask = pick(
            rng,
            ["Count from {a} to {b}[.|]", "[List|Write] the numbers from {a} to {b}."],
            a=low,
            b=numbers[-1],
        )
    elif roll < 0.85:
        high = 10 if rng.random() < 0.5 else rng.randint(3, 20)
        numbers = list(range(high, 0, -1))
        ask = pick(rng, ["Count [down|backwards] from {n}[.| to 1.]"], n=high)
    else:
        step = rng.choice((2, 3, 5, 10))
        numbers = list(range(step, step * rng.randint(4, 10) + 1, step))
        ask = pick(rng, ["Count [in|by] {s}s to {n}."], s=step, n=numbers[-1])
    if rng.random() < 0.12 and max(numbers) <= 20:
        ask = ask.rstrip(".,") + " in words."
        answer = upper_first(", ".join(NUMBER_WORDS[n] for n in numbers)) + "."
    else:
        answer = ", ".join(map(str, numbers)) + "."
    return chat("count", sloppy(rng, ask) if "words" not in ask else ask, answer, expect=answer)


def reverse_word(rng: random.Random) -> Sample:
    """Spell a word and turn it round."""
    chosen = _short(rng)
    spelt = "-".join(chosen)
    backwards = chosen[::-1]
    if rng.random() < 0.35:
        ask = pick(
            rng, ["[Spell|How do you spell|Spell out] the word {w}[.|]", "Spell {w}[.|]"], w=chosen
        )
        answer = f"{chosen}: {spelt}."
    elif rng.random() < 0.35:
        ask = pick(
            rng,
            [
                "How many letters are in [the word |]{w}?",
                "How many letters does {w} have?",
                "Count the letters in {w}.",
            ],
            w=chosen,
        )
        answer = f"{spelt}: {chosen} has {len(chosen)} letters."
    else:
        ask = pick(
            rng,
            [
                "[Reverse|Turn round] the word {w}[.|]",
                "Reverse {w}[.|]",
                "[Write|Say|Spell] {w} backwards[.|]",
                "What is {w} backwards?",
            ],
            w=chosen,
        )
        answer = f"{spelt} backwards is {'-'.join(backwards)}: {backwards}."
    return chat("spell", ask, answer, expect=answer, key=chosen)


def change_case(rng: random.Random) -> Sample:
    """Write words in capitals or in lower case."""
    words = [word(rng) for _ in range(rng.randint(1, 4))]
    text = " ".join(words)
    if rng.random() < 0.75:
        ask = pick(
            rng,
            [
                "[Write|Put|Say] {t} in [upper case|uppercase|capitals|capital letters][.|]",
                "Uppercase: {t}",
                "[Convert to|Make] uppercase: {t}",
                "Uppercase the [word|text] {t}.",
            ],
            t=text,
        )
        answer = text.upper()
    else:
        ask = pick(
            rng, ["[Write|Put] {t} in [lower case|lowercase][.|]", "Lowercase: {t}"], t=text.upper()
        )
        answer = text
    return chat("case", ask, answer, expect=answer)


def _phrase(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.35:
        return " ".join(word(rng) for _ in range(rng.randint(1, 5)))
    if roll < 0.5:
        return f"The {thing(rng)} of {name(rng)}"
    if roll < 0.62:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 7)))
    if roll < 0.8:
        pool = rng.choice((ACCENTED, CJK, EMOJI))
        return " ".join(rng.sample(pool, rng.randint(1, 4)))
    if roll < 0.9:
        return f"{made_up(rng, 3)} {rng.choice(EMOJI)} {made_up(rng, 2)}"
    return f"{name(rng)} and {name(rng)} {rng.choice(('like', 'see', 'have'))} {thing(rng)}s"


def copy_text(rng: random.Random) -> Sample:
    """Repeat a phrase exactly, once or several times."""
    text = _phrase(rng)
    if rng.random() < 0.2:
        times = rng.randint(2, 4)
        ask = pick(
            rng,
            ["[Say|Write|Repeat] {t} {n} times[.|]"],
            t=text,
            n=rng.choice((str(times), NUMBER_WORDS[times])),
        )
        answer = " ".join([text] * times)
    else:
        ask = pick(
            rng,
            [
                "Repeat after me: {t}",
                "[Repeat|Copy|Echo|Say|Write][ this|]: {t}",
                'Repeat "{t}"[.|]',
                'Say "{t}"[.|]',
                "[Please repeat|Copy exactly]: {t}",
            ],
            t=text,
        )
        answer = text
    return chat("copy", ask, answer, expect=answer)


def word_list(rng: random.Random) -> Sample:
    """Sort, pick or count the words of a list."""
    words = list(dict.fromkeys(word(rng) for _ in range(rng.randint(3, 6))))
    shown = ", ".join(words)
    roll = rng.random()
    if roll < 0.3:
        ask = pick(
            rng, ["How many words are in this list: {t}?", "Count the [words|items]: {t}"], t=shown
        )
        answer = f"There are {NUMBER_WORDS[len(words)]} words: {join_and(words)}."
    elif roll < 0.5:
        ask = pick(
            rng,
            ["What is the first word [of|in] this list: {t}?", "First [word|item] of: {t}"],
            t=shown,
        )
        answer = f"The first word is {words[0]}."
    elif roll < 0.7:
        ask = pick(
            rng,
            ["What is the last word [of|in] this list: {t}?", "Last [word|item] of: {t}"],
            t=shown,
        )
        answer = f"The last word is {words[-1]}."
    elif roll < 0.85:
        ask = pick(
            rng,
            [
                "[Write|Make] a [bullet |bulleted |]list of these: {t}",
                "Turn this into a bullet list: {t}",
            ],
            t=shown,
        )
        answer = "\n".join(f"- {w}" for w in words)
    else:
        ask = pick(rng, ["[Make|Write] a numbered list[ of these|]: {t}"], t=shown)
        answer = "\n".join(f"{i}. {w}" for i, w in enumerate(words, 1))
    return chat("wordlist", ask, answer, expect=answer)
