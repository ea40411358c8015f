"""The channels of gpt-oss: a turn is a row of messages, each with a header that says what it is.

    <|channel|>analysis<|message|>...<|end|>
    <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
    <|start|>assistant<|channel|>final<|message|>...<|return|>

without the line ends. `analysis` is reasoning, `final` is content, and so is `commentary`, unless
it is addressed to a function; the recipient may also stand before `<|channel|>`. The prompt ends in
`<|start|>assistant`. What ends the last message is a stop token, so it need not come.

Two messages of the same kind in a row are set apart by a line end of ours.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from openai_compat.output import lark, reading
from openai_compat.output.calls import Writer
from openai_compat.output.cursor import Cursor, ScriptedParser, Steps
from openai_compat.output.delta import OutputParser, Reasoning, Text
from openai_compat.output.markers import Markers
from openai_compat.output.syntax import Function, LarkFragment

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_CONSTRAIN, _END, _CALL, _RETURN = "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"
_ENDS = (_END, _CALL, _RETURN)
_BODY_ENDS = Markers(_END, _CALL, _RETURN, _START)
_KINDS: dict[str, type[Text | Reasoning]] = {
    "analysis": Reasoning,
    "commentary": Text,
    "final": Text,
}
_OPENING = Markers(_START, _CHANNEL)
_HEADER_END = Markers(_MESSAGE, _END)
_MAX_HEADER = 600


class _Header(NamedTuple):
    channel: str
    recipient: str

    @classmethod
    def read(cls, text: str) -> "_Header | None":
        """A header from its opening marker to its last; None if it is not of that form."""
        role, channel, rest = text.removeprefix(_START).partition(_CHANNEL)
        words = rest.removesuffix(_MESSAGE).replace(_CONSTRAIN, " ").split()
        named = [word for word in (*role.split(), *words[1:]) if word.startswith("to=")]
        others = [word for word in role.split() if word not in ("assistant", *named)]
        types = [word for word in words[1:] if word not in named]
        if not channel or not words or others or len(named) > 1 or len(types) > 1:
            return None
        return cls(words[0], named[0].removeprefix("to=") if named else "")


class Harmony:
    """gpt-oss. One object is the reasoning and the tool syntax: its messages cannot be parted."""

    name = "harmony"
    specials = (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, _END, _CALL, _RETURN)
    id_length = 0
    begin = f"{_CHANNEL}analysis{_MESSAGE}"
    end = _END

    def parser(
        self,
        functions: Sequence[Function] = (),
        *,
        open: bool = False,  # noqa: A002 - as in ReasoningSyntax
    ) -> OutputParser:
        return self.joint(functions, open=open)

    def joint(self, functions: Sequence[Function], *, open: bool) -> OutputParser:  # noqa: A002
        opened = open

        def script(cursor: Cursor) -> Steps[None]:
            yield from _Turn(cursor, Writer(cursor, functions)).read(opened=opened)

        return ScriptedParser(script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        channel, message, constrain, call, start = (
            lark.marker(text, special) for text in (_CHANNEL, _MESSAGE, _CONSTRAIN, _CALL, _START)
        )

        def head(name: str) -> str:
            recipient = lark.quoted(f"commentary to=functions.{name} ")
            return lark.joined(channel, recipient, constrain, lark.quoted("json"), message)

        rules = lark.json_calls(functions, head, "")
        frame = ("", lark.joined(call, start, lark.quoted("assistant")), "")
        trigger = f"{_CHANNEL}commentary to="
        return lark.section(trigger, rules, len(functions), frame=frame, parallel=parallel)


class _Turn:
    """The messages of one answer."""

    __slots__ = ("_cursor", "_last", "_writer")

    def __init__(self, cursor: Cursor, writer: Writer) -> None:
        self._cursor = cursor
        self._writer = writer
        self._last: type[Text | Reasoning] | None = None
        """The kind of the message just read."""

    def read(self, *, opened: bool) -> Steps[None]:
        cursor = self._cursor
        marker = (yield from self._prose(Reasoning)) if opened else ""
        after_message = opened
        while True:
            if marker != _START:
                cursor.keep()
                yield from cursor.spaces()
                if after_message and not (yield from cursor.peek()):
                    cursor.drop()
                    return
                marker = yield from cursor.literal(_START, _CHANNEL, "to=")
            if not marker:
                self._stray()
                marker = yield from reading.prose(cursor, _OPENING)
                if not marker:
                    return
            header = yield from self._header(marker)
            after_message = header is not None
            marker = ""
            if header is None:
                self._stray()
            else:
                marker = yield from self._message(header)

    def _stray(self) -> None:
        """What is kept belongs to no message: it is content."""
        self._cursor.prose_kind = Text
        self._cursor.restore()
        self._last = None

    def _header(self, opening: str) -> Steps[_Header | None]:
        """The header that begins so, which stays kept; None if it is none."""
        text, stop = yield from reading.name(self._cursor, _HEADER_END, _MAX_HEADER)
        return _Header.read(opening + text + stop) if stop == _MESSAGE else None

    def _message(self, header: _Header) -> Steps[str]:
        """Reads a message's body; gives the marker that opens the next, if that ended it."""
        cursor = self._cursor
        if header.recipient:
            name = header.recipient.removeprefix("functions.")
            if self._writer.begin(name):
                return (yield from self._call())
        elif header.channel in _KINDS:
            cursor.drop()
            return (yield from self._prose(_KINDS[header.channel]))
        self._stray()
        marker = yield from reading.prose(cursor, _BODY_ENDS)
        if marker != _START:
            self._stray()
        return marker

    def _prose(self, kind: type[Text | Reasoning]) -> Steps[str]:
        """Reads prose to the end of its message; an opening marker is kept."""
        cursor = self._cursor
        if self._last is kind and (yield from cursor.peek()):
            cursor.out.append(kind("\n"))
        self._last = kind
        marker = yield from reading.prose(cursor, _BODY_ENDS, kind)
        if marker != _START:
            cursor.drop()
        return marker

    def _call(self) -> Steps[str]:
        """Reads a call's arguments and the end of its message."""
        cursor, writer = self._cursor, self._writer
        self._last = None
        yield from cursor.spaces()
        if (yield from cursor.literal(*_ENDS)):
            writer.arguments("{}")
            writer.end()
            return ""
        if not (yield from reading.json_value(cursor, writer.arguments)):
            return (yield from self._prose(Text))
        writer.end()
        yield from cursor.spaces()
        if (yield from cursor.literal(*_ENDS)) or (yield from reading.closing(cursor, _CALL)):
            cursor.drop()
        return ""
