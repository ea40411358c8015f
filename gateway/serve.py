"""`penstock serve`: listen at once, load in the background, serve, drain, exit."""

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import TYPE_CHECKING

from engines.errors import EngineDied, EngineError, ModelRejected
from gateway.bootstrap import Parts, build, room, serving
from gateway.config import check_channels, worker_environment, worker_tls, worker_token
from gateway.console import StartScreen
from gateway.lifecycle import Phase
from gateway.logs import configure_logging
from gateway.memory_room import with_share
from gateway.opened import model_names
from gateway.readiness import settle_memory
from gateway.server import Server
from gateway.settings import Settings
from gateway.source import InProcess, Opener, Source, Watch
from gateway.workers.devices import visible_gpus
from gateway.workers.elsewhere import Elsewhere
from gateway.workers.fleet import Fleet
from gateway.workers.socket_folder import socket_folder
from gateway.workers.supervised import Supervised

if TYPE_CHECKING:
    from gateway.redis.sharing import Sharing

_log = logging.getLogger("penstock.server")
_EXIT_REJECTED = 1
_EXIT_ENGINE_DIED = 70  # EX_SOFTWARE: a supervisor should start it again
_SEND_REST_S = 5.0  # for what is computed but not yet read by its client


class Process:
    """One run of the server: the parts, their engine once it is there, and the way out."""

    def __init__(
        self,
        settings: Settings,
        screen: StartScreen,
        url: str,
        source: Source | Opener,
        *,
        settle: Callable[[], None] = lambda: None,
        sharing: "Sharing | None" = None,
    ) -> None:
        self.parts: Parts = build(settings, None if sharing is None else sharing.link)
        self._settings = settings
        self._sharing = sharing
        self._settle = settle
        self._source = InProcess(settings, source) if callable(source) else source
        self._watch = Watch(self._report, self._engine_died, self._workers, self._refused)
        self._screen = screen
        self._url = url
        self.server = Server(self.parts.app, settings, self._drain)

    async def run(self, listener: socket) -> int:
        """Serve until told to stop. Returns the exit code."""
        if self._sharing is not None:
            self._sharing.start()
            self._enter(self._sharing, listener)
        loading = asyncio.create_task(self._load())
        try:
            await self.server.serve(sockets=[listener])
        finally:
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading
            await self._source.close()
            await self._close_checker()
            if self._sharing is not None:
                await self._sharing.stop()
            self.parts.lifecycle.drain()  # where nothing drained: no phase is shown after this
            self._screen.close()
        return self.server.exit_code

    def _enter(self, sharing: "Sharing", listener: socket) -> None:
        host, port = listener.getsockname()[:2]
        bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        sharing.enter(self._settings.advertise or bound, model_names(self._settings)[0])

    def _workers(self, up: int, total: int) -> None:
        """So many workers are up, of so many; calls that wait for room may have more of it."""
        lifecycle = self.parts.lifecycle
        lifecycle.workers(up, total)
        if lifecycle.loaded is not None:
            served = lifecycle.loaded
            most = room(self._settings, served.engine.info, total)
            served.dispatcher.admission.resize(most)

    async def _close_checker(self) -> None:
        loaded = self.parts.lifecycle.loaded
        if loaded is not None and loaded.checker is not None:
            await loaded.checker.close()

    async def _load(self) -> None:
        try:
            opened = await self._source.open(self._watch)
            self._settle()
            self.parts.lifecycle.ready(serving(self._settings, opened, self.parts.metrics))
            self._screen.serving(opened, self._settings, self._url)
        except (ModelRejected, EngineError, ValueError, MemoryError, OSError) as error:
            self.parts.lifecycle.fail()
            self._refused(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the process must end
            _log.error("loading failed", exc_info=error)
            self.parts.lifecycle.fail()
            self._screen.stopped("cannot serve: loading failed; the log says where")
            self.server.begin_exit(_EXIT_REJECTED)

    def _report(self, phase: str) -> None:
        if self.parts.lifecycle.phase is not Phase.LOADING:
            return  # loading goes on after the screen is closed
        self.parts.lifecycle.progress(phase)
        self._screen.phase(phase)

    def _refused(self, error: BaseException) -> None:
        self._screen.stopped(f"cannot serve: {error}")
        self.server.begin_exit(_EXIT_REJECTED)

    def _engine_died(self, error: BaseException) -> None:
        # Never go on with a broken device: end, and let the supervisor begin anew.
        _log.error("the engine died", exc_info=error)
        self.server.begin_exit(_EXIT_ENGINE_DIED)

    async def _drain(self) -> None:
        """Refuse new calls, let running ones end within the timeout, fail the rest."""
        lifecycle = self.parts.lifecycle
        lifecycle.drain()
        if self._sharing is not None:
            self._sharing.drain()
        loaded = lifecycle.loaded
        if loaded is None:
            return
        idle = asyncio.ensure_future(loaded.dispatcher.idle())
        await asyncio.wait({idle}, timeout=self._settings.drain_timeout_s)
        try:
            await loaded.engine.stop(grace_s=0)
        except EngineDied as stuck:
            _log.error("the engine did not stop", exc_info=stuck)
            self.server.exit_code = _EXIT_ENGINE_DIED
        await asyncio.wait({idle}, timeout=_SEND_REST_S)
        idle.cancel()


def serve(settings: Settings, listener: socket, url: str) -> int:
    """Serve over workers that are started here. Returns the exit code."""
    with socket_folder() as folder:
        own = with_share(settings, visible_gpus(worker_environment("")))
        links = [Supervised(number, own, folder) for number in range(settings.replicas)]
        return _run(settings, Fleet(settings, links), listener, url, _sharing(settings))


def front(settings: Settings, listener: socket, url: str) -> int:
    """Serve over workers that somebody else starts: those named, and those found in Redis."""
    token, tls = worker_token(settings), worker_tls(settings)

    def connect(address: str) -> Elsewhere:
        check_channels(settings, (address,))
        return Elsewhere(address, token, tls)

    links = [Elsewhere(address, token, tls) for address in settings.worker]
    sharing, find = _sharing(settings), None
    if sharing is not None:
        from gateway.workers.discovery import Discovery  # noqa: PLC0415 - as below

        find = Discovery(
            sharing.workers(), model_names(settings)[0], connect, given=settings.worker
        ).run
    return _run(settings, Fleet(settings, links, find=find), listener, url, sharing)


def _sharing(settings: Settings) -> "Sharing | None":
    if settings.redis is None:
        return None
    from gateway.redis.registry import Role  # noqa: PLC0415 - Redis' client comes only where asked
    from gateway.redis.sharing import Sharing  # noqa: PLC0415 - for

    return Sharing(settings.redis, Role.GATEWAY)


def _run(
    settings: Settings, fleet: Fleet, listener: socket, url: str, sharing: "Sharing | None"
) -> int:
    """Run the server on an event loop of its own."""
    log = configure_logging(settings.log_level, sys.stderr)
    screen = StartScreen(sys.stdout)
    process = Process(settings, screen, url, fleet, settle=settle_memory, sharing=sharing)
    process.parts.metrics.watch_log(lambda: log.dropped)
    with asyncio.Runner(loop_factory=process.server.config.get_loop_factory()) as runner:
        return runner.run(process.run(listener))
