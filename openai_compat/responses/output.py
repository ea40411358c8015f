"""The output of a response as it grows: deltas of its answer become items, one open at a time."""

from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, Delta, Reasoning, Text
from openai_compat.responses.frames import Events
from openai_compat.responses.ids import output_id
from openai_compat.responses.open_items import (
    MESSAGE,
    THOUGHT,
    Call,
    Form,
    ItemStatus,
    OpenItem,
    Said,
)


class Output:
    """Takes the deltas of one answer in order. `stem` is what the ids are made from."""

    __slots__ = ("_done", "_events", "_open", "_stem")

    def __init__(self, stem: str, events: Events) -> None:
        self._stem = stem
        self._events = events
        self._done: list[dict[str, object]] = []
        self._open: OpenItem | None = None

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
                return self.say(text, form=THOUGHT)
            case CallBegin(_, name, call_id):
                return self._switch(Call(self._events, self._place("fc"), name, call_id))
            case CallArguments(_, text):
                return self._open.more(text) if isinstance(self._open, Call) else b""
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
        item = self._open
        told = logprobs and isinstance(item, Said) and item.form is MESSAGE
        return self.say("", logprobs) if told else b""

    def at_least_a_message(self) -> bytes:
        """Open a message where there is nothing at all: an answer may be empty, not absent."""
        if self._done or self._open is not None:
            return b""
        return self._switch(self._said(MESSAGE))

    def say(self, text: str, logprobs: bytes = b"", form: Form = MESSAGE) -> bytes:
        """The events of more text, or of more reasoning."""
        item = self._open
        if isinstance(item, Said) and item.form is form:
            return item.more(text, logprobs)
        item = self._said(form)
        return self._switch(item) + item.more(text, logprobs)

    def _said(self, form: Form) -> Said:
        return Said(self._events, self._place(form.prefix), form)

    def _switch(self, item: OpenItem) -> bytes:
        frames = self.close(self._left_as())
        self._open = item
        return frames + item.begin()

    def _left_as(self) -> ItemStatus:
        """A call that another item follows without its end has broken off."""
        broken = isinstance(self._open, Call)
        return ItemStatus.INCOMPLETE if broken else ItemStatus.COMPLETED

    def _place(self, prefix: str) -> tuple[str, int]:
        index = len(self._done) + (self._open is not None)
        return output_id(prefix, self._stem, index), index
