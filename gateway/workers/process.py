"""`penstock worker`: load an engine, host it, drain, exit. Nothing here knows HTTP.

It ends at once where its engine dies or hangs: a device is never trusted again after a failure,
and gateways go on elsewhere from what they have seen.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from engines.errors import EngineDied, EngineError, ModelRejected
from engines.kv_changes import KvSource
from engines.wire.facts import WorkerFacts
from engines.worker import WorkerServer
from gateway import __version__
from gateway.config import worker_tls, worker_token
from gateway.daemon_thread import in_daemon_thread
from gateway.logs import configure_logging
from gateway.opening import Loaded, load_engine
from gateway.readiness import settle_memory, warm_up
from gateway.self_batching import IN_MAIN_THREAD, UNWATCHED
from gateway.settings import Settings
from gateway.workers.parenthood import die_with_parent
from gateway.workers.status import ForOperator, ForParent, Status
from gateway.workers.watchdog import watch

if TYPE_CHECKING:
    from gateway.redis.sharing import Sharing

_log = logging.getLogger("penstock.worker")
_EXIT_REJECTED = 1
_EXIT_ENGINE_DIED = 70  # EX_SOFTWARE: a supervisor should start it again
_SEND_REST_S = 1.0


class WorkerProcess:
    """One run of a worker."""

    def __init__(self, settings: Settings, status: Status) -> None:
        self._settings = settings
        self._status = status
        self._told = asyncio.Event()  # to drain
        self._sharing = _sharing(settings)

    async def run(self) -> int:
        """Serve until told to stop, or asked by a gateway. Returns the exit code."""
        self._on_signals(lambda: os._exit(0))  # nothing is lost, and an import cannot be stopped
        try:
            loaded = await self._load()
            server = self._host(loaded)
            address = await self._listen(server)
        except (ModelRejected, EngineError, ValueError, MemoryError, OSError) as error:
            self._status.failed(str(error))
            return _EXIT_REJECTED
        except Exception as error:  # noqa: BLE001 - whatever it was, the process must end
            _log.error("loading failed", exc_info=error)
            self._status.failed("loading failed; the log says where")
            return _EXIT_REJECTED
        self._on_signals(self._tell)
        if self._settings.engine not in UNWATCHED:
            watch(loaded.engine.load, self._settings.step_timeout_s)
        self._status.ready(address, loaded.sizes().kv)
        self._enter(address, loaded)
        await self._drained(server)
        return await self._end(server, loaded)

    def _enter(self, bound: str, loaded: Loaded) -> None:
        """Be found by gateways that share a Redis."""
        if self._sharing is None:
            return
        from gateway.redis.sharing import advertised  # noqa: PLC0415 - as below

        self._sharing.start()
        address = advertised(self._settings.advertise, bound, _log.warning)
        if address is not None:
            self._sharing.enter(address, loaded.engine.info.model)

    async def _load(self) -> Loaded:
        loop = asyncio.get_running_loop()

        def report(phase: str) -> None:  # from the loading thread
            loop.call_soon_threadsafe(self._status.phase, phase)

        if self._settings.engine in IN_MAIN_THREAD:
            loaded = load_engine(self._settings, self._status.phase, _die)
        else:
            loaded = await in_daemon_thread(lambda: load_engine(self._settings, report, _die))
        self._status.phase("first token")
        await loaded.engine.start()
        await warm_up(loaded.engine)
        settle_memory()
        return loaded

    def _host(self, loaded: Loaded) -> WorkerServer:
        engine, sizes = loaded.engine, loaded.sizes()
        facts = WorkerFacts(
            info=engine.info,
            limits=sizes.limits,
            version=__version__,
            epoch=secrets.randbits(64),
            ends=sizes.ends,
            grammars=sizes.grammars,
            kv_bytes=sizes.kv.blocks * sizes.kv.block_bytes,
            kv_namespace=engine.kv_namespace if isinstance(engine, KvSource) else b"",
        )
        token, tls = worker_token(self._settings), worker_tls(self._settings)
        return WorkerServer(engine, facts, token=token, tls=tls)

    async def _listen(self, server: WorkerServer) -> str:
        """The address bound. Raises OSError in words of ours: gRPC's are about gRPC."""
        try:
            return await server.start(self._settings.listen)
        except RuntimeError:
            raise OSError(f"cannot listen on {self._settings.listen}: is it in use?") from None

    async def _drained(self, server: WorkerServer) -> None:
        """Wait until told to stop; then let running requests end within the timeout."""
        drained = asyncio.ensure_future(server.drained())
        told = asyncio.ensure_future(self._told.wait())
        await asyncio.wait({drained, told}, return_when=asyncio.FIRST_COMPLETED)
        _log.info("draining")
        server.drain()
        if self._sharing is not None:
            self._sharing.drain()
        await asyncio.wait({drained}, timeout=self._settings.drain_timeout_s)
        for task in (drained, told):
            task.cancel()

    async def _end(self, server: WorkerServer, loaded: Loaded) -> int:
        await server.stop(_SEND_REST_S)
        if self._sharing is not None:
            await self._sharing.stop()
        try:
            await loaded.engine.stop(grace_s=0)
        except EngineDied as stuck:
            _log.error("the engine did not stop", exc_info=stuck)
            return _EXIT_ENGINE_DIED
        return 0

    def _tell(self) -> None:
        if self._told.is_set():
            os._exit(0)  # told twice: now
        self._told.set()

    def _on_signals(self, action: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, action)


def _sharing(settings: Settings) -> "Sharing | None":
    if settings.redis is None:
        return None
    from gateway.redis.registry import Role  # noqa: PLC0415 - Redis' client comes only where asked
    from gateway.redis.sharing import Sharing  # noqa: PLC0415 - for

    return Sharing(settings.redis, Role.WORKER)


def _die(error: BaseException) -> None:
    """Never go on with a broken device: end now, and let the supervisor begin anew."""
    _log.error("the engine died", exc_info=error)
    logging.shutdown()
    os._exit(_EXIT_ENGINE_DIED)


def run(settings: Settings, status_fd: int | None, name: str) -> int:
    """Run a worker on an event loop of its own. Returns the exit code.

    `status_fd` is where a supervisor listens; the worker then ends when the supervisor does. Lines
    of the log tell `name`, if there is one.
    """
    configure_logging(settings.log_level, sys.stderr, {"worker": name} if name else None)
    if status_fd is not None:
        die_with_parent()
    status = ForOperator(sys.stdout) if status_fd is None else ForParent(status_fd)
    with suppress(KeyboardInterrupt):
        return asyncio.run(WorkerProcess(settings, status).run())
    return 0
