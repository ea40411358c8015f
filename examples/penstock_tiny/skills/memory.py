"""Conversations in which something said earlier is asked for later."""

from __future__ import annotations

import random
from collections.abc import Callable

from . import arithmetic, knowledge, persona, textops
from .base import Message, Sample, assistant, is_held_out, pick, sloppy, user
from .words import ANIMALS, COLOURS, FOODS, HOBBIES, JOBS, city, name

_FILLERS = (
    arithmetic.arithmetic,
    textops.count_to,
    knowledge.facts,
    persona.greeting,
    textops.copy_text,
    knowledge.joke,
    textops.change_case,
)

# What is told: (how to draw it, statements, replies, questions, answers, the answer when untold).
_Kind = tuple[Callable[[random.Random], object], list[str], list[str], list[str], list[str], str]
_KINDS: dict[str, _Kind] = {
    "name": (
        name,
        [
            "My name is {v}.",
            "My name is {v}.",
            "[Hi|Hello|Hey], my name is {v}[.|!]",
            "I am {v}.",
            "I'm {v}.",
            "Call me {v}.",
            "[Hi|Hello], I am {v}[.|!]",
            "my name is {v}",
            "[Hi|Hello]! I'm {v}.",
        ],
        ["Nice to meet you, {v}!", "Hello, {v}! [How can I help you?|Nice to meet you.]"],
        [
            "What is my name?",
            "What is my name?",
            "What's my name?",
            "Who am I?",
            "Do you [remember|know] my name?",
            "What was my name[ again|]?",
            "what is my name",
        ],
        ["Your name is {v}."],
        "You have not told me your name yet.",
    ),
    "city": (
        city,
        [
            "I live in {v}.",
            "I am from {v}.",
            "My home is {v}.",
            "I come from {v}.",
            "My city is {v}.",
        ],
        ["{v} sounds like a nice place.", "I see, you live in {v}."],
        [
            "Where do I live?",
            "[Which|What] city do I live in?",
            "Where am I from?",
            "What is my city?",
        ],
        ["You live in {v}."],
        "You have not told me where you live.",
    ),
    "colour": (
        lambda r: r.choice(COLOURS),
        [
            "My favourite colour is {v}.",
            "I like the colour {v}[ best|].",
            "My favorite color is {v}.",
        ],
        ["{v} is a lovely colour.", "Good choice: {v} is nice."],
        ["What is my favourite colour?", "Which colour do I like?", "What is my favorite color?"],
        ["Your favourite colour is {v}."],
        "You have not told me your favourite colour.",
    ),
    "pet": (
        lambda r: f"{r.choice(ANIMALS)} called {name(r)}",
        ["I have a {v}.", "My pet is a {v}."],
        ["How nice, a {v}!", "A {v}, that is lovely."],
        ["What pet do I have?", "[Which|What] animal do I have?", "What is my pet?"],
        ["You have a {v}."],
        "You have not told me about a pet.",
    ),
    "age": (
        lambda r: r.randint(6, 90),
        ["I am {v} years old.", "I'm {v}.", "My age is {v}."],
        ["{v} is a good age.", "I will remember that you are {v}."],
        ["How old am I?", "What is my age?"],
        ["You are {v} years old."],
        "You have not told me your age.",
    ),
    "job": (
        lambda r: r.choice(JOBS),
        ["I work as a {v}.", "I am a {v}.", "My job is {v}."],
        ["A {v}, that is a fine job.", "It must be interesting to be a {v}."],
        ["What is my job?", "What do I work as?", "What do I do for a living?"],
        ["You work as a {v}."],
        "You have not told me your job.",
    ),
    "food": (
        lambda r: r.choice(FOODS),
        ["I like to eat {v}.", "My favourite food is {v}.", "I love {v}."],
        ["{v} is tasty.", "Good choice, {v} is nice."],
        ["What do I like to eat?", "What is my favourite food?", "Which food do I like?"],
        ["You like {v}."],
        "You have not told me your favourite food.",
    ),
    "hobby": (
        lambda r: r.choice(HOBBIES),
        ["My hobby is {v}.", "I like {v}.", "In my free time I go {v}."],
        ["{v} is a nice hobby.", "That sounds like fun."],
        ["What is my hobby?", "What do I do in my free time?"],
        ["Your hobby is {v}."],
        "You have not told me your hobby.",
    ),
    "number": (
        lambda r: r.randint(10, 9999),
        ["My [lucky |secret |]number is {v}.", "Remember the number {v}.", "The number is {v}."],
        ["I will remember {v}.", "All right, the number is {v}."],
        ["What is [my|the] number?", "Which number did I [tell you|say]?"],
        ["The number is {v}."],
        "You have not told me a number.",
    ),
}


def _tell(rng: random.Random, kinds: list[str], values: dict[str, object]) -> list[Message]:
    """State one or two things in one turn."""
    said = " ".join(pick(rng, _KINDS[k][1], v=values[k]) for k in kinds)
    if len(kinds) == 1:
        reply = pick(rng, _KINDS[kinds[0]][2], v=values[kinds[0]])
    elif "name" in kinds:
        reply = f"Nice to meet you, {values['name']}! I will remember that."
    else:
        reply = "Thank you, I will remember that."
    return [user(said), assistant(reply[0].upper() + reply[1:])]


def memory(rng: random.Random) -> Sample:
    """Tell one to four things over some turns, with small talk between, then ask for one."""
    kinds = ["name"] if rng.random() < 0.6 else []
    extra = rng.choice((0, 0, 1, 1, 2, 3))
    kinds += rng.sample([k for k in _KINDS if k not in kinds], max(extra, 1 - len(kinds)))
    rng.shuffle(kinds)
    values = {kind: _KINDS[kind][0](rng) for kind in kinds}
    messages: list[Message] = []
    todo = list(kinds)
    while todo:
        count = 2 if len(todo) > 1 and rng.random() < 0.35 else 1
        messages += _tell(rng, todo[:count], values)
        todo = todo[count:]
        if rng.random() < 0.3:
            messages += _filler(rng)
    asked = rng.sample(kinds, rng.randint(1, min(2, len(kinds))))
    if rng.random() < 0.12:
        asked.insert(0, rng.choice([k for k in _KINDS if k not in kinds]))
    for kind in asked:
        messages.append(user(sloppy(rng, pick(rng, _KINDS[kind][3]))))
        told = pick(rng, _KINDS[kind][4], v=values[kind]) if kind in values else _KINDS[kind][5]
        messages.append(assistant(told))
    last = asked[-1]
    wanted = (str(values[last]),) if last in values else ("not told me",)
    return Sample("memory", messages, expect=messages[-1]["content"], contains=wanted)


def _filler(rng: random.Random) -> list[Message]:
    """Return one turn about something else that fits the training side of the split."""
    while True:
        sample = rng.choice(_FILLERS)(rng)
        if not is_held_out(sample) and "name" not in sample.messages[0]["content"]:
            return sample.messages
