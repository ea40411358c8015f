"""Following a system prompt, and conversations mixed from other skills."""

# Templates and word lists read best in one piece.
# ruff: noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from . import arithmetic, knowledge, memory, persona, product, stories, structured, textops
from .base import Message, Sample, assistant, is_held_out, pick, system, upper_first, user
from .words import CITIES, COLOURS, NUMBER_WORDS, made_up, name, word

if TYPE_CHECKING:
    import random

_ONE_WORD_RULES = [
    "Answer in one word.",
    "Answer [with|in] [only |]one word.",
    "[Reply|Respond] with a single word.",
    "You answer in one word.",
]


def _one_word(rng: random.Random) -> Sample:
    """Ask something whose answer is one word."""
    roll = rng.random()
    if roll < 0.3:
        land = rng.choice([k for k, v in knowledge.CAPITALS.items() if "_" not in v])
        question, answer = f"What is the capital of {land}?", knowledge.CAPITALS[land]
    elif roll < 0.5:
        a = rng.choice(list(knowledge.OPPOSITES))
        question, answer = f"What is the opposite of {a}?", upper_first(knowledge.OPPOSITES[a])
    elif roll < 0.7:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
        question, answer = f"What is {a} + {b}?", str(a + b)
    elif roll < 0.8:
        thing, colour = rng.choice(list(knowledge.COLOUR_OF.items()))
        question, answer = f"What colour is {thing}?", upper_first(colour)
    elif roll < 0.9:
        question, answer = pick(rng, ["Who are you?", "What is your name?"]), "Penstock-tiny"
    else:
        question, answer = pick(rng, ["Are you a human?", "Are you a person?"]), "No"
    rule = pick(rng, _ONE_WORD_RULES)
    if rng.random() < 0.6:
        messages = [system(rule), user(question), assistant(answer)]
    else:
        messages = [
            user(f"{question} {rule}" if rng.random() < 0.6 else f"{rule} {question}"),
            assistant(answer),
        ]
    return Sample("system", messages, expect=answer)


_BASES = (
    knowledge.facts,
    product.product,
    persona.greeting,
    arithmetic.arithmetic,
    textops.count_to,
)


def _styled(rng: random.Random) -> Sample:
    """Answer as usual, but in the form that the system prompt wants."""
    base = rng.choice(_BASES)(rng)
    while is_held_out(base):
        base = rng.choice(_BASES)(rng)
    form = _FORMS[int(rng.random() * len(_FORMS))]
    rule, answer = form(rng, base.messages[-1]["content"])
    return Sample(
        "system",
        [system(rule), user(base.messages[0]["content"]), assistant(answer)],
        expect=answer,
    )


def _shouted(rng: random.Random, plain: str) -> tuple[str, str]:
    rules = [
        "[Answer|Reply|Write] in [uppercase|capital letters|upper case].",
        "Use capital letters only.",
    ]
    return pick(rng, rules), plain.upper()


def _ended(rng: random.Random, plain: str) -> tuple[str, str]:
    ends = ("Over.", "Amen.", "Ahoy!", "Cheers!", "Done.")
    end = upper_first(rng.choice((*ends, f"{rng.choice(CITIES)}!", f"{made_up(rng, 2)}.")))
    rule = pick(rng, ["[Always end|End] [your answer |every answer |]with {e}"], e=end)
    return rule, f"{plain} {end}"


def _begun(rng: random.Random, plain: str) -> tuple[str, str]:
    starts = ("Well", "Ahoy", "Sure", "Dear friend")
    start = upper_first(rng.choice((*starts, rng.choice(COLOURS), made_up(rng, 2))))
    rules = ["[Always start|Begin|Start] [your answer |every answer |]with {s}:"]
    return pick(rng, rules, s=start), f"{start}: {plain}"


def _as_json(rng: random.Random, plain: str) -> tuple[str, str]:
    rules = ["[Answer|Reply] in JSON with the key answer.", 'Answer as JSON: {{"answer": ...}}']
    return pick(rng, rules, x=0), structured.dumps({"answer": plain})


_FORMS = (_shouted, _ended, _begun, _as_json)


def _role(rng: random.Random) -> Sample:
    """Take the name or the job that the system prompt gives."""
    who = name(rng)
    job = pick(
        rng,
        [
            "a friendly [robot|helper|guide]",
            "a [cook|pilot|teacher|sailor|baker]",
            "the assistant of {c}",
        ],
        c=rng.choice(CITIES),
    )
    rule = pick(rng, ["You are {w}, {j}.", "Your name is {w}. You are {j}."], w=who, j=job)
    if rng.random() < 0.3:
        question, answer = (
            pick(rng, ["Hello!", "Hi", "Hey there", "Good morning"]),
            f"Hello! I am {who}. How can I help you?",
        )
    else:
        question = pick(
            rng, ["Who are you?", "What is your name?", "Introduce yourself.", "What's your name?"]
        )
        answer = f"I am {who}, {job}."
    return Sample(
        "system", [system(rule), user(question), assistant(answer)], expect=answer, contains=(who,)
    )


def _told(rng: random.Random) -> Sample:
    """Use a fact about the user that stands in the system prompt."""
    who, place, count = name(rng), rng.choice(CITIES), rng.randint(2, 20)
    options = [
        (f"The user is called {who}.", "What is my name?", f"Your name is {who}."),
        (f"The user lives in {place}.", "Where do I live?", f"You live in {place}."),
        (f"The password is {word(rng)}{count}.", "What is the password?", ""),
        (f"The shop opens at {NUMBER_WORDS[count % 12 + 1]}.", "When does the shop open?", ""),
    ]
    rule, question, answer = rng.choice(options)
    answer = answer or rule
    return Sample(
        "system",
        [system(f"You are a helpful assistant. {rule}"), user(question), assistant(answer)],
        expect=answer,
    )


def follow_system(rng: random.Random) -> Sample:
    """Choose one of the system-prompt tasks."""
    return rng.choice((_one_word, _styled, _styled, _role, _told))(rng)


_PARTS = (
    persona.greeting, product.product, product.product, arithmetic.arithmetic, textops.count_to, textops.copy_text,
    textops.reverse_word, structured.json_keys, knowledge.facts, knowledge.lists, knowledge.fallback, stories.story,
    memory.memory, knowledge.joke, knowledge.other_scripts,
)  # fmt: skip


def mixed(rng: random.Random) -> Sample:
    """Chain two to four tasks into one conversation."""
    messages: list[Message] = []
    for _ in range(rng.randint(2, 4)):
        sample = rng.choice(_PARTS)(rng)
        if not is_held_out(sample) and sample.messages[0]["role"] == "user":
            messages += sample.messages
            last = sample
    if not messages:
        return mixed(rng)
    return Sample("mixed", messages, expect=last.expect, contains=last.contains)
