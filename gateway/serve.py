"""`penstock serve`: listen at once, load in the background, serve, drain, exit."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import TypeVar

from engines.api import GenerationRequest, RequestId, Sampling
from engines.errors import EngineDied, EngineError, ModelRejected
from gateway.bootstrap import Parts, build, serving
from gateway.console import StartScreen
from gateway.lifecycle import Phase
from gateway.logs import configure_logging
from gateway.opened import OnDeath, Opened, Report
from gateway.opening import open_engine
from gateway.server import Server
from gateway.settings import Settings

Opener = Callable[[Settings, Report, OnDeath], Opened]

_T = TypeVar("_T")
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
        opener: Opener = open_engine,
        *,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._settle = settle
        self._opener = opener
        self._screen = screen
        self._url = url
        self.parts: Parts = build(settings)
        self.server = Server(self.parts.app, settings, self._drain)

    async def run(self, listener: socket) -> int:
        """Serve until told to stop. Returns the exit code."""
        loading = asyncio.create_task(self._load())
        try:
            await self.server.serve(sockets=[listener])
        finally:
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading
            await self._close_checker()
            self.parts.lifecycle.drain()  # where nothing drained: no phase is shown after this
            self._screen.close()
        return self.server.exit_code

    async def _close_checker(self) -> None:
        loaded = self.parts.lifecycle.loaded
        if loaded is not None and loaded.checker is not None:
            await loaded.checker.close()

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()

        def report(phase: str) -> None:  # from the loading thread
            loop.call_soon_threadsafe(self._report, phase)

        try:
            opened = await in_daemon_thread(lambda: self._open(report))
            await self._start(opened)
        except (ModelRejected, EngineError, ValueError, MemoryError, OSError) as error:
            self.parts.lifecycle.fail()
            self._screen.stopped(f"cannot serve: {error}")
            self.server.begin_exit(_EXIT_REJECTED)
        except Exception as error:  # noqa: BLE001 - whatever it was, the process must end
            _log.error("loading failed", exc_info=error)
            self.parts.lifecycle.fail()
            self._screen.stopped("cannot serve: loading failed; the log says where")
            self.server.begin_exit(_EXIT_REJECTED)

    def _open(self, report: Report) -> Opened:
        return self._opener(self._settings, report, self._engine_died)

    async def _start(self, opened: Opened) -> None:
        self._report("first token")
        await opened.engine.start()
        await warm_up(opened)
        self._settle()
        self.parts.lifecycle.ready(serving(self._settings, opened, self.parts.metrics))
        self._screen.serving(opened, self._settings, self._url)

    def _report(self, phase: str) -> None:
        if self.parts.lifecycle.phase is not Phase.LOADING:
            return  # the loading thread goes on after the screen is closed
        self.parts.lifecycle.progress(phase)
        self._screen.phase(phase)

    def _engine_died(self, error: BaseException) -> None:
        # Never go on with a broken device: end, and let the supervisor begin anew.
        _log.error("the engine died", exc_info=error)
        self.server.begin_exit(_EXIT_ENGINE_DIED)

    async def _drain(self) -> None:
        """Refuse new calls, let running ones end within the timeout, fail the rest."""
        lifecycle = self.parts.lifecycle
        lifecycle.drain()
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


async def warm_up(opened: Opened) -> None:
    """Compute one token, so that readiness means tokens. Raises what the engine raises."""
    sampling = Sampling(max_tokens=1, temperature=0)
    prompt = (opened.engine.info.vocab_size - 1,) * 2
    request = GenerationRequest(
        RequestId("warm-up"), prompt, sampling, pooled=not opened.engine.info.generates
    )
    stream = opened.engine.generate(request)
    async for _ in stream:
        pass


def settle_memory() -> None:
    """What is loaded by now stays: the collector need not look through it again and again.

    It is half a million objects, most of them torch's: 0.25 to 0.3 s in which no stream goes on,
    each time that requests have made a few thousand objects that outlive others.
    """
    gc.collect()
    gc.freeze()


async def in_daemon_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread that never holds up the exit, unlike an executor's."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - carried to the waiting task
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await done


def serve(settings: Settings, listener: socket, url: str) -> int:
    """Run the server on an event loop of its own. Returns the exit code."""
    configure_logging(settings.log_level, sys.stderr)
    process = Process(settings, StartScreen(sys.stdout), url, settle=settle_memory)
    with asyncio.Runner(loop_factory=process.server.config.get_loop_factory()) as runner:
        return runner.run(process.run(listener))
