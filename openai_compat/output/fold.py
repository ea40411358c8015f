"""The deltas of a whole answer, added up."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby

from openai_compat.output.delta import (
    CallArguments,
    CallBegin,
    CallEnd,
    Delta,
    Reasoning,
    Text,
)

_MARKS = (CallBegin, CallEnd)  # what has no text


@dataclass(slots=True)
class Call:
    """One tool call; `arguments` is JSON text, complete where `ended`."""

    id: str
    name: str
    arguments: str = ""
    ended: bool = False


@dataclass(slots=True)
class Answer:
    """What one choice said."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """Neighbours that are more of the same as one, so that one frame tells them."""
    found: list[Delta] = []
    for _, run in groupby(deltas, key=_what):
        same = list(run)
        first = same[0]
        if len(same) > 1 and isinstance(first, Text | Reasoning | CallArguments):
            # Of one kind, so each has a text.
            text = "".join([delta.text for delta in same if not isinstance(delta, _MARKS)])
            found.append(replace(first, text=text))
        else:
            found += same
    return found


def _what(delta: Delta) -> tuple[type[Delta], int]:
    return type(delta), -1 if isinstance(delta, Text | Reasoning) else delta.index


def fold(deltas: Iterable[Delta]) -> Answer:
    """The answer that these deltas make, in order."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[Call, list[str]]] = []
    for delta in deltas:
        match delta:
            case Text(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallBegin(_, name, id_):
                calls.append((Call(id_, name), []))
            case CallArguments(index, text):
                calls[index][1].append(text)
            case CallEnd(index):
                calls[index][0].ended = True
    for call, arguments in calls:
        call.arguments = "".join(arguments)
    return Answer("".join(content), "".join(reasoning), [call for call, _ in calls])
