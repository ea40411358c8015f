"""The items of an answer while they are open: their events, and what they have by now.

```
reasoning      output_item.added  content_part.added  reasoning_text.delta*  reasoning_text.done
               content_part.done  output_item.done
message        output_item.added  content_part.added  output_text.delta*     output_text.done
               content_part.done  output_item.done
function_call  output_item.added  function_call_arguments.delta*  function_call_arguments.done
               output_item.done
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from openai_compat.responses.frames import Deltas, Events

_NO_LOGPROBS = b',"logprobs":[]'


class ItemStatus(StrEnum):
    """How far an item is."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


class OpenItem(Protocol):
    """An open item."""

    def begin(self) -> bytes: ...

    def end(self, status: ItemStatus) -> bytes: ...

    def told(self, status: ItemStatus) -> dict[str, object]:
        """The item as the wire shows it, with what it has by now."""


@dataclass(frozen=True, slots=True)
class Form:
    """What tells an item of text from another, on the wire."""

    prefix: str  # of its id
    item: Mapping[str, object]
    part: Mapping[str, object]
    event: str  # its deltas and its end are called
    logprobs: bool = False


MESSAGE = Form(
    "msg",
    {"type": "message", "role": "assistant"},
    {"type": "output_text", "annotations": []},
    "response.output_text",
    logprobs=True,
)
# In full: there is no summary of it.
THOUGHT = Form(
    "rs",
    {"type": "reasoning", "summary": []},
    {"type": "reasoning_text"},
    "response.reasoning_text",
)


class Said:
    """What the model says, or thinks before it does: an item with one part of text."""

    __slots__ = ("_deltas", "_events", "_id", "_index", "_logprobs", "_texts", "form")

    def __init__(self, events: Events, place: tuple[str, int], form: Form) -> None:
        self.form = form
        self._events = events
        self._id, self._index = place
        self._deltas = Deltas(events, f"{form.event}.delta", self._where())
        self._texts: list[str] = []
        self._logprobs: list[bytes] = []

    def begin(self) -> bytes:
        empty = {**self.told(ItemStatus.IN_PROGRESS), "content": []}
        return _added(self._events, self._index, empty) + self._events.event(
            "response.content_part.added", {**self._where(), "part": self._part()}
        )

    def more(self, text: str, logprobs: bytes = b"") -> bytes:
        self._texts.append(text)
        if not self.form.logprobs:
            return self._deltas.write(text)
        if not logprobs:
            return self._deltas.write(text, _NO_LOGPROBS)
        self._logprobs.append(logprobs)
        return self._deltas.write(text, b',"logprobs":[' + logprobs + b"]")

    def end(self, status: ItemStatus) -> bytes:
        part = self._part()
        told: dict[str, object] = {
            name: part[name] for name in ("text", "logprobs") if name in part
        }
        return (
            self._events.event(f"{self.form.event}.done", {**self._where(), **told})
            + self._events.event("response.content_part.done", {**self._where(), "part": part})
            + _done(self._events, self._index, self.told(status))
        )

    def told(self, status: ItemStatus) -> dict[str, object]:
        head = {"id": self._id, "type": self.form.item["type"], "status": status}
        return {**head, **self.form.item, "content": [self._part()]}

    def _where(self) -> dict[str, object]:
        return {"item_id": self._id, "output_index": self._index, "content_index": 0}

    def _part(self) -> dict[str, object]:
        text: dict[str, object] = {"text": "".join(self._texts)}
        if not self.form.logprobs:
            return {**self.form.part, **text}
        logprobs = msgspec.Raw(b"[" + b",".join(self._logprobs) + b"]")
        return {**self.form.part, "logprobs": logprobs, **text}


class Call:
    """A function that the model calls."""

    __slots__ = ("_arguments", "_call_id", "_deltas", "_events", "_id", "_index", "_name")

    def __init__(self, events: Events, place: tuple[str, int], name: str, call_id: str) -> None:
        self._events = events
        self._id, self._index = place
        self._name = name
        self._call_id = call_id
        self._deltas = Deltas(events, "response.function_call_arguments.delta", self._where())
        self._arguments: list[str] = []

    def _where(self) -> dict[str, object]:
        return {"item_id": self._id, "output_index": self._index}

    def begin(self) -> bytes:
        return _added(self._events, self._index, self.told(ItemStatus.IN_PROGRESS))

    def more(self, text: str) -> bytes:
        self._arguments.append(text)
        return self._deltas.write(text)

    def end(self, status: ItemStatus) -> bytes:
        done = {**self._where(), "arguments": "".join(self._arguments)}
        return self._events.event("response.function_call_arguments.done", done) + _done(
            self._events, self._index, self.told(status)
        )

    def told(self, status: ItemStatus) -> dict[str, object]:
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "arguments": "".join(self._arguments),
            "call_id": self._call_id,
            "name": self._name,
        }


def _added(events: Events, index: int, item: dict[str, object]) -> bytes:
    return events.event("response.output_item.added", {"output_index": index, "item": item})


def _done(events: Events, index: int, item: dict[str, object]) -> bytes:
    return events.event("response.output_item.done", {"output_index": index, "item": item})
