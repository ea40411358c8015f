"""A client that goes on with its streams: wherever a connection breaks, behind another gateway.

Keeps what it was told of each stream, so that joined text can be held against that of a stream
which nothing happened to.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

Request = dict[str, object]
_GAP_S = 0.05  # shorter pauses are no stalls
_GIVE_UP_S = 20.0  # without anything new
_AGAIN_S = 0.02


class Lost(Exception):  # noqa: N818 - reads as what it is
    """A stream is over before its end, and says so; its code."""


class Refused(Exception):  # noqa: N818
    """Not now: another gateway, or a later time, may do."""


@dataclass
class Told:
    """What a client has of one stream."""

    pieces: dict[int, list[str]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    usage: int | None = None
    place: str = ""
    stream: str = ""
    done: bool = False
    error: str = ""
    heard: float = 0.0  # when something new came last, or it was asked for

    def take(self, line: bytes) -> None:
        """One line of the stream. Raises Lost for an error event."""
        if line.startswith(b"id: "):
            self.place = line[4:].decode()
        elif line.startswith(b"stream: "):  # from the head
            self.stream = line[8:].decode()
        elif line == b"data: [DONE]":
            self.done = True
        elif line.startswith(b"data: "):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                self.error = chunk["error"]["code"]
                raise Lost(self.error)
            self.usage = chunk["usage"]["completion_tokens"] if chunk.get("usage") else self.usage
            for choice in chunk["choices"]:
                self._take(choice)

    def _take(self, choice: dict[str, Any]) -> None:
        index, delta = choice["index"], choice["delta"]
        pieces = self.pieces.setdefault(index, [])
        pieces.append(delta.get("content") or "")
        for call in delta.get("tool_calls", ()):
            pieces.append("".join(call["function"].values()))
        if choice["finish_reason"]:
            if index in self.ends:
                raise ValueError(f"choice {index} has ended twice")
            self.ends[index] = choice["finish_reason"]

    def copy(self) -> "Told":
        """With lists of its own."""
        pieces = {index: list(some) for index, some in self.pieces.items()}
        return Told(pieces, dict(self.ends), self.usage, self.place, self.stream)

    @property
    def texts(self) -> dict[int, str]:
        """By choice."""
        return {index: "".join(pieces) for index, pieces in sorted(self.pieces.items())}

    @property
    def whole(self) -> tuple[object, ...]:
        """What must not depend on how it came."""
        return self.texts, self.ends, self.usage

    def begins(self, control: "Told") -> bool:
        """Whether it is a part of the control from its start on."""
        return all(control.texts[index].startswith(text) for index, text in self.texts.items())


@dataclass
class Tally:
    """What was seen by all clients together."""

    usages: dict[str, int] = field(default_factory=dict)  # of streams that came to their ends
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)  # by code: told clearly
    failed: list[str] = field(default_factory=list)  # any other end
    breaks: Counter[str] = field(default_factory=Counter)  # why clients went elsewhere
    waits: list[float] = field(default_factory=list)  # from the break to the next event, seconds
    gaps: list[tuple[float, float]] = field(default_factory=list)  # (when, seconds) of any stream
    overheard: Counter[str] = field(default_factory=Counter)  # of connections left open


class Connection:
    """One request for a stream, and its answer: read by a task, whoever waits for it or leaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._lines: asyncio.Queue[list[bytes] | Exception] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def ask(cls, port: int, head: str, body: bytes) -> "Connection":
        """Send it. Raises OSError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Host: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return cls(reader, writer)

    async def follow(self, told: Told) -> AsyncIterator[None]:
        """Take what comes into `told`, and yield after it; no event is taken in part.

        Raises Refused, Lost, OSError, EOFError.
        """
        while not told.done:
            lines = await self._lines.get()
            if isinstance(lines, Exception):
                raise lines
            for line in lines:
                told.take(line)
            yield

    def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        put = self._lines.put_nowait
        try:
            put(await _head(reader))
            while size := int(await reader.readuntil(b"\r\n"), 16):
                put((await reader.readexactly(size + 2))[:-2].splitlines())
            put(ConnectionAbortedError("an end without [DONE]"))
        except (OSError, EOFError, Refused, Lost, ValueError) as error:
            put(error)


async def _head(reader: asyncio.StreamReader) -> list[bytes]:
    """The stream's id, as a line. Raises Refused, Lost, OSError, EOFError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if head.startswith("HTTP/1.1 200"):
        names = (line.partition(": ") for line in head.lower().split("\r\n"))
        return [b"stream: " + value.encode() for name, _, value in names if name == "x-stream-id"]
    body = await reader.read(2000)
    code = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["error"]["code"]
    raise Lost(code) if head.startswith(("HTTP/1.1 404", "HTTP/1.1 410")) else Refused(code)


@dataclass
class Client:
    """Asks the gateways at these ports. `quiet_s`: who says nothing for so long is left alone.

    `listens_on`: such a connection is kept open, and what comes of it later is overheard.
    """

    ports: list[int]
    tally: Tally
    quiet_s: float = 30.0
    listens_on: bool = False
    headers: str = ""
    events: int = 0  # a connection is cut after so many; 0: never
    _overhearing: set["asyncio.Task[None]"] = field(default_factory=set)

    async def follow(self, request: Request, name: str, control: Told | None = None) -> Told:
        """One stream to its end. Raises Lost, or ConnectionError where nobody goes on with it."""
        asked = {"model": "penstock-tiny", **request, "user": name, "stream": True}
        body = json.dumps({**asked, "stream_options": {"include_usage": True}}).encode()
        told, port = Told(), random.choice(self.ports)
        head = "POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
        head += self.headers
        told.heard, broke = time.monotonic(), 0.0  # when the connection broke
        while not told.done:
            before = told.place
            try:
                await self._read(port, head, body, told, control, broke)
            except (OSError, EOFError, Refused) as error:
                now = time.monotonic()
                why = str(error) if isinstance(error, Refused) else type(error).__name__
                self.tally.breaks[why] += 1
                broke = now if told.place != before else broke or now
                if now - told.heard > _GIVE_UP_S:
                    raise ConnectionError(f"given up: {type(error).__name__} {error}") from error
                await asyncio.sleep(_AGAIN_S)
            port = next((other for other in self.ports if other != port), port)
            if told.stream and not told.done:
                self.tally.resumed += bool(body)
                body, head = b"", f"GET /v1/chat/completions/{told.stream}/stream HTTP/1.1\r\n"
                head += f"Last-Event-ID: {told.place}\r\n" if told.place else ""
        return told

    async def _read(
        self, port: int, head: str, body: bytes, told: Told, control: Told | None, broke: float
    ) -> None:
        """One connection, until it ends or says nothing. Raises OSError, Lost and so on."""
        before = told.place
        connection, left = await Connection.ask(port, head, body), False
        count = 0
        try:
            async with asyncio.timeout(self.quiet_s) as quiet:
                async for _ in connection.follow(told):
                    now = time.monotonic()
                    quiet.reschedule(asyncio.get_running_loop().time() + self.quiet_s)
                    if told.place == before:
                        continue  # the head alone
                    if broke and not body:
                        self.tally.waits.append(now - broke)
                    if now - told.heard > _GAP_S:
                        self.tally.gaps.append((now, now - told.heard))
                    told.heard, broke, count = now, 0.0, count + 1
                    if count == self.events and not told.done:
                        raise ConnectionAbortedError("cut by us")
        except TimeoutError:
            left = self.listens_on and count > 0  # else nobody can be told two things
            if left and control is not None:
                self._overhear(connection, told.copy(), control)
            raise
        finally:
            if not left:
                connection.close()

    def _overhear(self, connection: Connection, told: Told, control: Told) -> None:
        task = asyncio.create_task(self._listen_on(connection, told, control))
        self._overhearing.add(task)
        task.add_done_callback(self._overhearing.discard)

    async def _listen_on(self, connection: Connection, told: Told, control: Told) -> None:
        """What a gateway still says that was left alone: nothing but the truth, to its end."""
        end = "done"
        try:
            async with asyncio.timeout(60):
                async for _ in connection.follow(told):
                    pass
        except Lost as lost:
            end = str(lost)
        except TimeoutError:
            end = "hung"
        except (OSError, EOFError, Refused) as error:
            end = f"cut: {type(error).__name__}"
        finally:
            connection.close()
        self.tally.overheard[end if told.begins(control) else "WRONG"] += 1
        if end == "done" and told.whole != control.whole:
            self.tally.overheard["WRONG end"] += 1

    async def overheard(self) -> None:
        """Wait for all that is left open."""
        await asyncio.gather(*self._overhearing)
