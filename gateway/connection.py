"""One client connection: uvicorn's HTTP protocol with the bounds it leaves to its users.

What this adds, each measured missing in uvicorn 0.54:

- a request head has a size (httptools took a 64 MiB header) and a deadline, from the connection's
  first second and after every answer; so a half-open socket costs seconds, not for ever;
- the same size holds for what is neither head nor body: trailers, and the lines between chunks;
- bytes that still come for a body that was refused are counted, and end the connection;
- a whole answer is kept only for a reader that takes of it;
- what is not HTTP gets the nested error object, like every other refusal;
- a client that leaves is noticed also when it has pipelined a second request, whatever its size;
- a request that asks for another protocol (h2c, websocket) is served as it stands, body and all:
  httptools skips that body, and whatever it holds was then read as a request of its own;
- a response can be cut without the chunk that would make it look whole (`hang_up`, `abort`, `cut`).
"""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.exchange import Exchange, request_id
from gateway.plain_http import new_parser, plain_head
from gateway.replies import raw_refusal
from gateway.rest.sse import WIRE
from openai_compat.errors import ErrorReply, RequestRejected, Unavailable

_log = logging.getLogger("penstock.connections")
_LINGER_S = 5.0
_HEADER_OVERHEAD = 4  # ": " and the line's end


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may take."""

    connections: int
    head_timeout_s: float
    stall_s: float  # in which a reader takes something of a whole answer
    head_bytes: int = 65_536
    discarded_bytes: int = 64 << 20  # of one body that was refused
    pipelined: int = 16  # requests that wait behind the one being answered
    pipelined_bytes: int = 65_536  # of their bodies


class BoundedConnection(HttpToolsProtocol):
    """An HTTP/1.1 connection within `limits`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of the head being parsed
        self._unfinished_bytes = 0  # received without a complete head or any of a body since
        self._in_head = True
        self._gains = 0  # complete heads, parts of bodies and ends of them so far
        self._discarded = 0
        self._deaf = False  # refused or cut: what still comes is for nobody
        self._running: RequestResponseCycle | None = None

    # -- the connection's life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head(self._limits.head_timeout_s)
        if len(self.connections) > self._limits.connections:
            self._refuse(
                Unavailable(
                    f"All {self._limits.connections} connections (--max-connections) are taken.",
                    code="too_many_connections",
                    retry_after_s=1.0,
                ).reply
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        # uvicorn tells only the newest cycle: with pipelining that is not the one that runs.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(_run, cycle, app))

    # -- a request's head

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        gains = self._gains
        self._unset_keepalive_if_required()
        rest = data
        while rest and not self._deaf:
            rest = self._parse(rest)
        # What gained nothing belongs to an unfinished head, trailer or line between chunks.
        self._unfinished_bytes = self._unfinished_bytes + len(data) if self._gains == gains else 0
        self._check_head(self._unfinished_bytes)

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser. What it has to be fed next: nothing, or a declined upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head = plain_head(self.parser, self.url, self.headers)
            self.parser = new_parser(self)
            return head + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self._refuse_malformed()
        return b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self.scope["extensions"] = {WIRE: {"connection": self}}

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + _HEADER_OVERHEAD

    def on_headers_complete(self) -> None:
        self._disarm()
        self._gains += 1
        if self._deaf or not self._check_head(self._head_bytes + len(self.url)):
            return
        if self.parser.should_upgrade():  # comes again as a plain request, see _parse
            if self.parser.get_method() == b"CONNECT":
                self._refuse_malformed()
            return
        super().on_headers_complete()
        self._in_head = False
        self._bound_pipeline()

    def _bound_pipeline(self) -> None:
        if not self.pipeline:
            return
        waiting_bytes = sum(len(cycle.body) for cycle, _ in self.pipeline)
        too_many = len(self.pipeline) > self._limits.pipelined
        if too_many or waiting_bytes > self._limits.pipelined_bytes:
            self.abort()
        else:
            # uvicorn stops reading while a request waits, and so would not see its client leave.
            self.flow.resume_reading()

    def _check_head(self, size: int) -> bool:
        fits = size <= self._limits.head_bytes
        if not fits and not self.transport.is_closing():
            message = f"A head or trailer is larger than {self._limits.head_bytes} bytes."
            self._refuse(RequestRejected(message, code="headers_too_large", status=431).reply)
        return fits

    def _await_head(self, within_s: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(within_s, self.hang_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # -- a request's body and response

    def on_body(self, body: bytes) -> None:
        self._gains += 1
        if self._deaf:
            return
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > self._limits.discarded_bytes:
                self.abort()
        super().on_body(body)
        self._bound_pipeline()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if not self._deaf:
            super().on_message_complete()
        self._in_head, self._head_bytes, self._discarded = True, 0, 0
        self._gains += 1

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self._unanswered() is None:
            self._await_reader()

    def _await_reader(self, before: int | None = None) -> None:
        """Wait for the next head once the answer was taken; cut a reader that takes nothing.

        `before` is what was left of the answer the last time.
        """
        left = self.transport.get_write_buffer_size()
        if left == 0:
            self._await_head(self.timeout_keep_alive + self._limits.head_timeout_s)
        elif before is not None and left >= before:
            self.abort()
        else:
            self._disarm()
            again = partial(self._await_reader, left)
            self._deadline = self.loop.call_later(self._limits.stall_s, again)

    def _unanswered(self) -> RequestResponseCycle | None:
        """The request being answered, while its response is not complete."""
        cycle = self._running
        return cycle if cycle is not None and not cycle.response_complete else None

    # -- ends

    def hang_up(self) -> None:
        """Close after what was written, leaving the chunked body without its end."""
        self.transport.close()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def abort(self) -> None:
        """Close now: what is still buffered is for a reader that does not read."""
        self._deaf = True
        self.transport.abort()

    def cut(self) -> None:
        """Close now because the server ends, which is what the log then says."""
        cycle = self._unanswered()
        if cycle is not None:
            Exchange.mark_cut(cycle.scope)
        self.abort()

    def _refuse_malformed(self) -> None:
        message = "This is not an HTTP/1.1 request."
        self._refuse(RequestRejected(message, code="malformed_http").reply)

    def _refuse(self, reply: ErrorReply) -> None:
        """Answer without the application, which has no request to answer."""
        self._deaf = True
        cycle = self._unanswered()
        if cycle is not None and (cycle.response_started or not self._is_at_body_of(cycle)):
            _log.info("cut", extra={"facts": {"code": reply.code}})
            self.abort()  # bytes of ours would land in the middle of, or before, that answer
            return
        if cycle is not None:  # its own body is at fault: the application is not to answer too
            cycle.disconnected = True
            cycle.message_event.set()
        name = request_id(())
        facts = {"request_id": name, "status": reply.status, "code": reply.code}
        _log.info("refused", extra={"facts": facts})
        self.transport.write(raw_refusal(reply, name))
        self.hang_up()

    def _is_at_body_of(self, cycle: RequestResponseCycle) -> bool:
        return cycle is self.cycle and not self._in_head


async def _run(
    cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run the application as the outermost frame of its task.

    Only the end of the server cancels it. The edge has told; uvicorn would report a fault of ours.
    """
    try:
        await app(scope, receive, send)
    except asyncio.CancelledError:
        if not cycle.response_complete:
            cycle.disconnected = True
            cycle.transport.abort()
