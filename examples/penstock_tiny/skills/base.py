"""The sample type and the small template language that every skill module uses."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass
class Sample:
    """One document: a chat (messages, tools) or, when `text` is set, raw text.

    `key` names what must be held out together (an operand pair, a prompt); `expect` is the
    exact answer of the last assistant message where there is only one right answer, and
    `contains` the words a right answer has to hold.
    """

    skill: str
    messages: list[Message] = field(default_factory=list)
    tools: list[Message] = field(default_factory=list)
    text: str = ""
    key: str = ""
    expect: str | None = None
    contains: tuple[str, ...] = ()

    def held_out_key(self) -> str:
        """Return the string whose digest decides between training and evaluation."""
        if self.key:
            return f"{self.skill}:{self.key}"
        if self.text:
            return self.text
        return "\n".join(f"{m['role']}:{m.get('content')}" for m in self.messages[:-1])


Maker = Callable[[random.Random], Sample]


def is_held_out(sample: Sample, one_in: int = 40) -> bool:
    """Tell whether a sample belongs to the evaluation side of the split."""
    digest = hashlib.sha256(sample.held_out_key().encode()).digest()
    return int.from_bytes(digest[:4], "big") % one_in == 0


def spin(rng: random.Random, template: str, **slots: object) -> str:
    """Expand `[a|b|c]` choices (innermost first), then fill `{slots}`."""
    while True:
        found = _CHOICE.search(template)
        if found is None:
            break
        chosen = rng.choice(found.group(1).split("|"))
        template = template[: found.start()] + chosen + template[found.end() :]
    return template.format(**slots) if slots else template


def pick(rng: random.Random, options: Sequence[str], **slots: object) -> str:
    """Choose one template and expand it."""
    return spin(rng, rng.choice(options), **slots)


def user(content: str) -> Message:
    """Make a user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """Make an assistant message."""
    return {"role": "assistant", "content": content}


def system(content: str) -> Message:
    """Make a system message."""
    return {"role": "system", "content": content}


def chat(skill: str, question: str, answer: str, **extra: Any) -> Sample:
    """Make a one-turn chat sample."""
    return Sample(skill, [user(question), assistant(answer)], **extra)


def upper_first(text: str) -> str:
    """Capitalise the first letter only (str.capitalize would lower the rest)."""
    return text[:1].upper() + text[1:]


def article(noun: str) -> str:
    """Put the right indefinite article before a noun."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def join_and(items: Sequence[str]) -> str:
    """Join words as English prose: a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def sloppy(rng: random.Random, text: str) -> str:
    """Vary case and end punctuation the way people type."""
    roll = rng.random()
    if roll < 0.12:
        text = text.lower()
    elif roll < 0.16:
        text = text[:1].lower() + text[1:]
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    return text
