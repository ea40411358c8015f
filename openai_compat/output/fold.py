"""The deltas of a whole answer, added up."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from openai_compat.output.delta import (
    CallArguments,
    CallBegin,
    CallEnd,
    Delta,
    Reasoning,
    Text,
)


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
