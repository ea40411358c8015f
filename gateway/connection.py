"""One client connection: uvicorn's HTTP protocol with the bounds it leaves to its users.

What this adds, each measured missing in uvicorn 0.54:

- a request head has a size (httptools took a 64 MiB header) and a deadline, from the connection's
  first second and after every answer; so a half-open socket costs seconds, not for ever;
- bytes that still come for a body that was refused are counted, and end the connection;
- what is not HTTP gets the nested error object, like every other refusal;
- a client that leaves is noticed also when it has pipelined a second request;
- a response can be cut without the chunk that would make it look whole (`hang_up`, `abort`).
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.exchange import request_id
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
    head_bytes: int = 65_536
    discarded_bytes: int = 64 << 20  # of one body that was refused
    pipelined: int = 16  # requests that wait behind the one being answered


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
        self._unfinished_bytes = 0  # received since the last complete head
        self._in_head = True
        self._ends = 0  # of heads and of bodies seen so far
        self._discarded = 0
        self._refused = False
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
        super()._start_asgi_task(cycle, app)

    # -- a request's head

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        ends = self._ends
        super().data_received(data)
        if self._ends == ends and self._in_head:  # all of it belongs to one unfinished head
            self._unfinished_bytes += len(data)
            self._check_head(self._unfinished_bytes)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self.scope["extensions"] = {WIRE: {"connection": self}}

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + _HEADER_OVERHEAD

    def on_headers_complete(self) -> None:
        self._disarm()
        self._in_head = False
        self._ends += 1
        self._unfinished_bytes = 0
        if self._check_head(self._head_bytes + len(self.url)):
            super().on_headers_complete()
            self._bound_pipeline()

    def _bound_pipeline(self) -> None:
        if len(self.pipeline) > self._limits.pipelined:
            self.transport.abort()
        elif self.pipeline:
            # uvicorn stops reading while a request waits, and so would not see its client leave.
            self.flow.resume_reading()

    def _check_head(self, size: int) -> bool:
        fits = size <= self._limits.head_bytes
        if not fits and not self.transport.is_closing():
            message = f"The request head is larger than {self._limits.head_bytes} bytes."
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
        if self._refused:
            return
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > self._limits.discarded_bytes:
                self.transport.abort()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()
        self._in_head, self._head_bytes, self._discarded = True, 0, 0
        self._ends += 1

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self._running_is_done():
            self._await_head(self.timeout_keep_alive + self._limits.head_timeout_s)

    def _running_is_done(self) -> bool:
        return self._running is not None and self._running.response_complete

    # -- ends

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says what to do about it
        message = "This is not an HTTP/1.1 request."
        self._refuse(RequestRejected(message, code="malformed_http").reply)

    def hang_up(self) -> None:
        """Close after what was written, leaving the chunked body without its end."""
        self.transport.close()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def abort(self) -> None:
        """Close now: what is still buffered is for a reader that does not read."""
        self.transport.abort()

    def _refuse(self, reply: ErrorReply) -> None:
        """Answer without the application, which has no request to answer."""
        self._refused = True
        body = reply.body()
        name = request_id(())
        facts = {"request_id": name, "status": reply.status, "code": reply.code}
        _log.info("refused", extra={"facts": facts})
        head = (
            f"HTTP/1.1 {reply.status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-should-retry: {str(reply.retryable).lower()}\r\n"
            f"x-request-id: {name}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.hang_up()
