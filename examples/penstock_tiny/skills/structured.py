"""Answers in exact JSON, from a list of keys or from a small schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .base import Message, Sample, assistant, pick, spin, system, user
from .words import ANIMALS, CITIES, COLOURS, FOODS, HOBBIES, JOBS, OBJECTS, city, name, word

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

# One key: how to draw its value, how English prose states it, and its JSON type.
_PERSON: dict[str, tuple[Callable[[random.Random], Any], str]] = {
    "age": (lambda r: r.randint(2, 99), "is {v} years old"),
    "city": (city, "lives in {v}"),
    "job": (lambda r: r.choice(JOBS), "works as a {v}"),
    "hobby": (lambda r: r.choice(HOBBIES), "likes {v}"),
    "colour": (lambda r: r.choice(COLOURS), "likes the colour {v}"),
    "pet": (lambda r: r.choice(ANIMALS), "has a pet {v}"),
    "food": (lambda r: r.choice(FOODS), "likes to eat {v}"),
    "friend": (name, "has a friend called {v}"),
}
_PRODUCT: dict[str, tuple[Callable[[random.Random], Any], str]] = {
    "price": (lambda r: r.randint(1, 99), "costs {v} euros"),
    "colour": (lambda r: r.choice(COLOURS), "is {v}"),
    "quantity": (lambda r: r.randint(1, 60), "is in stock {v} times"),
    "brand": (name, "is made by {v}"),
    "city": (city, "is sold in {v}"),
    "size": (lambda r: r.choice(("small", "medium", "large")), "comes in size {v}"),
}


def dumps(value: Any) -> str:
    """Write JSON the way the model is taught to."""
    return json.dumps(value, ensure_ascii=False)


def _record(rng: random.Random) -> tuple[dict[str, Any], str]:
    """Draw a record and the sentence that states it."""
    person = rng.random() < 0.7
    table = _PERSON if person else _PRODUCT
    head = "name" if person else "item"
    record: dict[str, Any] = {head: name(rng) if person else rng.choice(OBJECTS)}
    said = []
    keys = ["age"] if person and rng.random() < 0.3 else rng.sample(list(table), rng.randint(1, 3))
    for key in keys:
        draw, phrase = table[key]
        record[key] = draw(rng)
        said.append(phrase.format(v=record[key]))
    subject = record[head] if person else f"The {record[head]}"
    joined = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    return record, f"{subject} {joined}."


def _schema(record: dict[str, Any]) -> Message:
    kinds = {int: "integer", str: "string", bool: "boolean", list: "array"}
    return {
        "type": "object",
        "properties": {key: {"type": kinds[type(value)]} for key, value in record.items()},
        "required": list(record),
    }


def _keys(rng: random.Random, record: dict[str, Any]) -> str:
    names = [f'"{key}"' if rng.random() < 0.3 else key for key in record]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


_BY_KEYS = [
    "[Reply|Answer|Respond] in JSON with [the |]keys {k}. {s}",
    "[Reply|Answer|Respond] in JSON with [the |]keys {k}: {s}",
    "{s} [Reply|Answer|Return it] [in|as] JSON with [the |]keys {k}.",
    "[Extract|Give me|Return] {k} as JSON[.|:] {s}",
    "Turn this into JSON with [the |]keys {k}: {s}",
    "{s} Give me that as JSON.",
    "{s} Put this into JSON[.| with the keys {k}.]",
    "[Make|Write] JSON[ with the keys {k}|]: {s}",
]


def json_keys(rng: random.Random) -> Sample:
    """Put what a sentence says into JSON with the keys asked for."""
    record, said = _record(rng)
    if rng.random() < 0.25 and len(record) > 2:
        dropped = rng.choice(list(record)[1:])
        record = {k: v for k, v in record.items() if k != dropped}
        asks = _BY_KEYS[:5]
    else:
        asks = _BY_KEYS
    question = pick(rng, asks, k=_keys(rng, record), s=said)
    messages = [user(question), assistant(dumps(record))]
    if rng.random() < 0.2:
        messages.insert(
            0, system(pick(rng, ["[Answer|Reply] [only |]in JSON.", "You answer in JSON."]))
        )
    return Sample("json", messages, expect=dumps(record))


def json_invent(rng: random.Random) -> Sample:
    """Reply in JSON with the given keys and values of the model's own choice."""
    record, _ = _record(rng)
    question = pick(
        rng,
        [
            "[Reply|Answer|Respond] in JSON with [the |]keys {k}.",
            "[Give me|Write|Make|Return] [a JSON object|JSON] with [the |]keys {k}.",
            "[Make up|Invent] a person and [answer|reply] in JSON with keys {k}.",
        ],
        k=_keys(rng, record),
    )
    return Sample(
        "json", [user(question), assistant(dumps(record))], contains=tuple(f'"{k}"' for k in record)
    )


def json_schema(rng: random.Random) -> Sample:
    """Answer by a JSON schema."""
    record, said = _record(rng)
    schema = dumps(_schema(record))
    if rng.random() < 0.4:
        rule = pick(rng, ["[Answer|Reply] in JSON by this schema: ", "Use this JSON schema: "])
        messages = [system(rule + schema), user(said), assistant(dumps(record))]
    else:
        ask = pick(
            rng, ["[Answer|Reply] in JSON by this schema: ", "Fill this JSON schema: ", "Schema: "]
        )
        ask += schema + rng.choice(("\n", " ")) + said
        messages = [user(ask), assistant(dumps(record))]
    return Sample("json", messages, expect=dumps(record))


def json_list(rng: random.Random) -> Sample:
    """Put a list of words into a JSON array or under one key."""
    if rng.random() < 0.5:
        words = [word(rng) for _ in range(rng.randint(2, 5))]
        kind = "words"
    else:
        kind, pool = rng.choice((("colours", COLOURS), ("cities", CITIES), ("foods", FOODS)))
        words = rng.sample(pool, rng.randint(2, 4))
    shown = ", ".join(words)
    if rng.random() < 0.5:
        ask = pick(
            rng,
            [
                "[Write|Give me] [this|these] as a JSON [array|list]: {t}",
                "JSON [array|list] of: {t}",
            ],
            t=shown,
        )
        answer = dumps(words)
    else:
        ask = spin(rng, "[Reply|Answer] in JSON with the key {k}: {t}", k=kind, t=shown)
        answer = dumps({kind: words})
    return Sample("json", [user(ask), assistant(answer)], expect=answer)


def json_any(rng: random.Random) -> Sample:
    """Choose one of the JSON tasks."""
    return rng.choice(
        (json_keys, json_keys, json_keys, json_invent, json_schema, json_schema, json_list)
    )(rng)
