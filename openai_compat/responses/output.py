"""The output items of a response as they grow: one open item at a time, with its events.

```
reasoning      output_item.added  content_part.added  reasoning_text.delta*  reasoning_text.done
               content_part.done  output_item.done
message        output_item.added  content_part.added  output_text.delta*     output_text.done
               content_part.done  output_item.done
function_call  output_item.added  function_call_arguments.delta*  function_call_arguments.done
               output_item.done
```
"""

from enum import StrEnum
from typing import Protocol

import msgspec

from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, Delta, Reasoning, Text
from openai_compat.responses.frames import Deltas, Events
from openai_compat.responses.ids import output_id

_NO_LOGPROBS = b',"logprobs":[]'


class ItemStatus(StrEnum):
    """How far an item is."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


class _Item(Protocol):
    """An open item."""

    def begin(self) -> bytes: ...

    def end(self, status: ItemStatus) -> bytes: ...

    def told(self, status: ItemStatus) -> dict[str, object]:
        """The item as the wire shows it, with what it has by now."""


class Output:
    """Takes the deltas of one answer in order. `stem` is what the ids are made from."""

    __slots__ = ("_done", "_events", "_open", "_stem")

    def __init__(self, stem: str, events: Events) -> None:
        self._stem = stem
        self._events = events
        self._done: list[dict[str, object]] = []
        self._open: _Item | None = None

    def items(self) -> list[dict[str, object]]:
        """All items by now; the open one is in progress."""
        if self._open is None:
            return list(self._done)
        return [*self._done, self._open.told(ItemStatus.IN_PROGRESS)]

    def take(self, delta: Delta, logprobs: bytes = b"") -> bytes:
        """The events of a delta; `logprobs` are JSON objects of text tokens, joined by commas."""
        match delta:
            case Text(text):
                return self.say(text, logprobs)
            case Reasoning(text):
                return self._think(text)
            case CallBegin(_, name, call_id):
                return self._switch(_Call(self._events, self._place("fc"), name, call_id))
            case CallArguments(_, text):
                return self._open.more(text) if isinstance(self._open, _Call) else b""
            case CallEnd():
                return self.close(ItemStatus.COMPLETED)

    def close(self, status: ItemStatus) -> bytes:
        """End the open item, if there is one."""
        item, self._open = self._open, None
        if item is None:
            return b""
        frames = item.end(status)
        self._done.append(item.told(status))
        return frames

    def rest(self, logprobs: bytes) -> bytes:
        """Logprobs of tokens that will never show: they go with the message, if one is open."""
        if logprobs and isinstance(self._open, _Message):
            return self._open.more("", logprobs)
        return b""

    def at_least_a_message(self) -> bytes:
        """Open a message where there is nothing at all: an answer may be empty, not absent."""
        if self._done or self._open is not None:
            return b""
        return self._switch(_Message(self._events, self._place("msg")))

    def say(self, text: str, logprobs: bytes = b"") -> bytes:
        """The events of more text."""
        if isinstance(self._open, _Message):
            return self._open.more(text, logprobs)
        message = _Message(self._events, self._place("msg"))
        return self._switch(message) + message.more(text, logprobs)

    def _think(self, text: str) -> bytes:
        if isinstance(self._open, _Thought):
            return self._open.more(text)
        thought = _Thought(self._events, self._place("rs"))
        return self._switch(thought) + thought.more(text)

    def _switch(self, item: _Item) -> bytes:
        frames = self.close(self._left_as())
        self._open = item
        return frames + item.begin()

    def _left_as(self) -> ItemStatus:
        """A call that another item follows without its end has broken off."""
        broken = isinstance(self._open, _Call)
        return ItemStatus.INCOMPLETE if broken else ItemStatus.COMPLETED

    def _place(self, prefix: str) -> tuple[str, int]:
        index = len(self._done) + (self._open is not None)
        return output_id(prefix, self._stem, index), index


class _Message:
    """What the model says."""

    __slots__ = ("_deltas", "_events", "_id", "_index", "_logprobs", "_texts")

    def __init__(self, events: Events, place: tuple[str, int]) -> None:
        self._events = events
        self._id, self._index = place
        self._deltas = Deltas(events, "response.output_text.delta", self._where())
        self._texts: list[str] = []
        self._logprobs: list[bytes] = []

    def _where(self) -> dict[str, object]:
        return {"item_id": self._id, "output_index": self._index, "content_index": 0}

    def begin(self) -> bytes:
        empty = {**self.told(ItemStatus.IN_PROGRESS), "content": []}
        return _added(self._events, self._index, empty) + self._events.event(
            "response.content_part.added", {**self._where(), "part": self._part()}
        )

    def more(self, text: str, logprobs: bytes = b"") -> bytes:
        self._texts.append(text)
        if not logprobs:
            return self._deltas.write(text, _NO_LOGPROBS)
        self._logprobs.append(logprobs)
        return self._deltas.write(text, b',"logprobs":[' + logprobs + b"]")

    def end(self, status: ItemStatus) -> bytes:
        part = self._part()
        done = {**self._where(), "text": part["text"], "logprobs": part["logprobs"]}
        return (
            self._events.event("response.output_text.done", done)
            + self._events.event("response.content_part.done", {**self._where(), "part": part})
            + _done(self._events, self._index, self.told(status))
        )

    def told(self, status: ItemStatus) -> dict[str, object]:
        return {
            "id": self._id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self._part()],
        }

    def _part(self) -> dict[str, object]:
        return {
            "type": "output_text",
            "annotations": [],
            "logprobs": msgspec.Raw(b"[" + b",".join(self._logprobs) + b"]"),
            "text": "".join(self._texts),
        }


class _Thought:
    """What the model thinks before it answers, in full: there is no summary of it."""

    __slots__ = ("_deltas", "_events", "_id", "_index", "_texts")

    def __init__(self, events: Events, place: tuple[str, int]) -> None:
        self._events = events
        self._id, self._index = place
        self._deltas = Deltas(events, "response.reasoning_text.delta", self._where())
        self._texts: list[str] = []

    def _where(self) -> dict[str, object]:
        return {"item_id": self._id, "output_index": self._index, "content_index": 0}

    def begin(self) -> bytes:
        empty = {**self.told(ItemStatus.IN_PROGRESS), "content": []}
        return _added(self._events, self._index, empty) + self._events.event(
            "response.content_part.added", {**self._where(), "part": self._part()}
        )

    def more(self, text: str) -> bytes:
        self._texts.append(text)
        return self._deltas.write(text)

    def end(self, status: ItemStatus) -> bytes:
        part = self._part()
        done = {**self._where(), "text": part["text"]}
        return (
            self._events.event("response.reasoning_text.done", done)
            + self._events.event("response.content_part.done", {**self._where(), "part": part})
            + _done(self._events, self._index, self.told(status))
        )

    def told(self, status: ItemStatus) -> dict[str, object]:
        return {
            "id": self._id,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": [self._part()],
        }

    def _part(self) -> dict[str, object]:
        return {"type": "reasoning_text", "text": "".join(self._texts)}


class _Call:
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
