"""Server-sent events out of bytes, as they come: each byte is looked at a fixed number of times.

https://html.spec.whatwg.org/multipage/server-sent-events.html, of which only `data` matters here.
"""


class TooLong(Exception):  # noqa: N818 - says what the event is
    """An event, or all of them, are longer than anybody should have to read."""


class EventReader:
    """The data of each event; an event that is not complete at the end is none."""

    def __init__(self, *, event_bytes: int, stream_bytes: int) -> None:
        """At most so many bytes of one event, and of the stream."""
        self._event_bytes = event_bytes
        self._stream_bytes = stream_bytes
        self._came = 0
        self._line: list[bytes] = []  # pieces of the line that has not ended
        self._data: list[bytes] | None = None  # lines of the event that has not ended
        self._held = 0  # bytes of both
        self._after_cr = False  # a line feed that comes now belongs to the last line's end
        self._first = True

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that this piece of the stream completes. Raises TooLong."""
        if not piece:
            return []
        self._came += len(piece)
        if self._came > self._stream_bytes:
            raise TooLong(f"the stream is longer than {self._stream_bytes} bytes")
        begins_within = self._after_cr and piece[:1] == b"\n"
        self._after_cr = piece[-1:] == b"\r"
        piece = piece[begins_within:].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = piece.split(b"\n")
        events = []
        for line in ended:
            self._hold(line)
            whole, self._line = b"".join(self._line), []
            if (data := self._take(whole)) is not None:
                events.append(data)
        self._hold(rest)
        return events

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self._event_bytes:
            raise TooLong(f"an event is longer than {self._event_bytes} bytes")
        if piece:
            self._line.append(piece)

    def _take(self, line: bytes) -> bytes | None:
        """The data of the event that this line ends, if it ends one."""
        if self._first:
            self._first, line = False, line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            data, self._data, self._held = self._data, None, 0
            return None if data is None else b"\n".join(data)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data = self._data or []
            self._data.append(value.removeprefix(b" "))
        else:
            self._held -= len(line)  # a comment, or a field without meaning here
        return None
