"""uvicorn as we run it: our connections, our signals, a drain before anything closes."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from gateway.connection import BoundedConnection, ConnectionLimits
from gateway.settings import Settings

_log = logging.getLogger("penstock.server")
_CLOSE_WITHIN_S = 1  # what is worth waiting for has been waited for by the drain
_KEEP_ALIVE_S = 75  # above the idle time of common proxies, so that they close first


class Server(uvicorn.Server):
    """uvicorn, but the first signal drains before anything closes, and a drained exit is 0."""

    def __init__(
        self, app: ASGIApp, settings: Settings, drain: Callable[[], Awaitable[None]]
    ) -> None:
        limits = ConnectionLimits(
            settings.max_connections, settings.header_timeout_s, settings.write_stall_s
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(BoundedConnection, limits=limits),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_CLOSE_WITHIN_S,
            )
        )
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.exit_code = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # Left are those whose clients do not read: nothing else will ever close them.
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedConnection):
                connection.cut()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_CLOSE_WITHIN_S)
        if self.force_exit:  # uvicorn leaves it to be cancelled, and reports that as a fault
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """First signal: drain. Second: leave now."""
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.begin_exit)

    def begin_exit(self, exit_code: int = 0) -> None:
        """Drain, then end. Called again it ends at once. On the event loop only."""
        self.exit_code = max(self.exit_code, exit_code)
        if self._draining is not None:
            self.should_exit = self.force_exit = True
            return
        self._draining = asyncio.get_running_loop().create_task(self._drain_and_exit())

    async def _drain_and_exit(self) -> None:
        _log.info("draining")
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._drain()
        finally:
            self.should_exit = True
