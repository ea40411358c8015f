"""Questions about a paragraph that stands in the prompt."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Sample, assistant, chat, pick, system, user
from .words import ANIMALS, CITIES, COLOURS, FOODS, HOBBIES, JOBS, OBJECTS, name, thing

if TYPE_CHECKING:
    import random

# A fact: how the text states it and the questions that ask for it. The answer repeats the text.
_FACTS: list[tuple[str, list[str]]] = [
    ("{n} lives in {city}.", ["Where does {n} live?", "[In which city|Where] does {n} live?"]),
    ("{n} works as a {job}.", ["What does {n} work as?", "What is {n}'s job?"]),
    ("{n} likes {hobby}.", ["What does {n} like?", "What is {n}'s hobby?"]),
    ("{n} has a {colour} {animal}.", ["What [pet|animal] does {n} have?", "What does {n} own?"]),
    ("{n} is {age} years old.", ["How old is {n}?", "What is {n}'s age?"]),
    ("{n} eats {food} every day.", ["What does {n} eat[ every day|]?"]),
    (
        "{n} keeps the {thing} in the {box}.",
        ["Where does {n} keep the {thing}?", "Where is the {thing}?"],
    ),
    ("{n} met {m} in {city}.", ["Who did {n} meet?", "Where did {n} meet {m}?"]),
    ("{n} bought the {thing} for {price} euros.", ["What did {n} buy?", "How much did {n} pay?"]),
]
_UNKNOWN = [
    "How tall is {n}?", "When was {n} born?", "What is {n}'s favourite song?", "Who is {n}'s teacher?",
    "How much money does {n} have?", "What car does {n} drive?",
]  # fmt: skip
_PLACES = ["kitchen", "cellar", "garage", "bedroom", "garden", "attic", "hall", "shed"]
_FRAMES = [
    "{t}\n\n{q}",
    "{t} {q}",
    "Text: {t}\nQuestion: {q}",
    "Context: {t}\n\nQuestion: {q}",
    "Read this: {t}\n\n{q}",
    "Read the text and answer.\n\n{t}\n\n{q}",
]


def _slots(rng: random.Random, who: str) -> dict[str, object]:
    return {
        "n": who, "m": name(rng), "city": rng.choice(CITIES), "job": rng.choice(JOBS), "hobby": rng.choice(HOBBIES),
        "colour": rng.choice(COLOURS), "animal": rng.choice(ANIMALS), "age": rng.randint(3, 99),
        "food": rng.choice(FOODS), "thing": thing(rng), "box": rng.choice((*_PLACES, rng.choice(OBJECTS))),
        "price": rng.randint(2, 99),
    }  # fmt: skip


def context_question(rng: random.Random) -> Sample:
    """State some facts about two or three people and ask for one of them."""
    people = list(dict.fromkeys(name(rng) for _ in range(rng.randint(1, 3))))
    stated: list[tuple[str, str]] = []
    for who in people:
        for text, asks in rng.sample(_FACTS, rng.randint(1, 3)):
            slots = _slots(rng, who)
            stated.append((text.format(**slots), pick(rng, asks, **slots)))
    rng.shuffle(stated)
    paragraph = " ".join(text for text, _ in stated)
    answer, question = rng.choice(stated)
    if rng.random() < 0.12:
        question = pick(rng, _UNKNOWN, n=rng.choice(people))
        answer = "The text does not say."
    if rng.random() < 0.15:
        rule = "Answer from this text: " + paragraph
        return Sample("context", [system(rule), user(question), assistant(answer)], expect=answer)
    return chat(
        "context", rng.choice(_FRAMES).format(t=paragraph, q=question), answer, expect=answer
    )
