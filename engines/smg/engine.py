"""The `Engine` port over an SMG server: its start, its health and its end."""

import asyncio
import logging
from collections.abc import Callable

import grpc.aio

from engines.admittance import check_request
from engines.api import EngineInfo, EngineLoad, GenerationRequest
from engines.errors import (
    EngineDied,
    EngineError,
    InvalidRequest,
    RequestFailed,
)
from engines.mailbox import Mailbox
from engines.self_batching.life import NOT_STARTED, STOPPING, Life, refused
from engines.self_batching.runs import Run
from engines.self_batching.traffic import Traffic
from engines.smg.answer import Lie
from engines.smg.facts import Facts, Given, read_facts
from engines.smg.messages import Phrases
from engines.smg.runs import follow
from engines.smg.server import Server
from engines.smg.stubs import load_stubs
from engines.wire.channels import Tls

_log = logging.getLogger(__name__)

_HEALTH_S = 5.0  # between two questions
_MISSES = 3  # questions in a row without an answer, after which the server is dead


class SmgEngine:
    """Drives an unmodified `trtllm-serve --grpc`; see docs/engines/smg.md.

    One server, one life: when it fails, every open stream fails once with EngineDied, `on_death` is
    called once on the loop, and this engine is over. Raises ModelRejected without the stubs.
    """

    def __init__(
        self,
        address: str,
        given: Given,
        *,
        tls: Tls | None = None,
        on_death: Callable[[BaseException], None] | None = None,
        health_s: float = _HEALTH_S,
    ) -> None:
        self._address = address
        self._given = given
        self._tls = tls
        self._life = Life(on_death)
        self._health_s = health_s
        self._stubs = load_stubs()
        self._facts: Facts | None = None
        self._phrases: Phrases | None = None
        self._server: Server | None = None
        self._traffic: Traffic | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def facts(self) -> Facts:
        """What the server is. Raises EngineUnavailable before the end of `start`."""
        if self._facts is None:
            raise refused(NOT_STARTED)
        return self._facts

    @property
    def info(self) -> EngineInfo:
        return self.facts.info

    async def start(self) -> None:
        """Connect and read the facts.

        Raises EngineUnavailable where the server does not answer or is not well, ModelRejected
        where facts are missing, Unsafe where the address needs TLS.
        """
        self._life.start()
        server = Server(self._address, self._stubs, self._tls)
        try:
            facts = read_facts(await server.connect(), self._given)
        except BaseException:
            await server.close()
            raise
        self._facts = facts
        self._server = server
        phrases = self._phrases = Phrases(facts, self._stubs.pb)
        self._traffic = Traffic(
            facts.bounds,
            self._given.ageing_s,
            lambda run, told: follow(run, phrases, server, told),
            self._verdict,
        )
        self._life.begin()
        self._watch = asyncio.get_running_loop().create_task(self._ask(server))

    def generate(self, request: GenerationRequest) -> Mailbox:
        self._life.check()
        if self._traffic is None or self._phrases is None:
            raise refused(NOT_STARTED)
        check_request(request, self.facts.info, self.facts.limits)
        self._phrases.check(request)
        return self._traffic.open(request)

    def load(self) -> EngineLoad:
        traffic = self._traffic
        if traffic is None:
            return EngineLoad(0, 0, 0, 0, 0)
        total = self.info.num_blocks
        return EngineLoad(
            running=traffic.admission.running,
            waiting=traffic.admission.waiting,
            waiting_tokens=traffic.admission.waiting_tokens,
            blocks_used=min(traffic.admission.blocks, total),
            blocks_total=total,
            steps=traffic.outputs,  # the server tells of none; a watchdog must see it work
            prefix_hit_tokens=traffic.hit_tokens,
            prefix_query_tokens=traffic.query_tokens,
            alive=self._life.alive,
        )

    async def stop(self, grace_s: float) -> None:
        """End what is open here, and the connection; the server goes on."""
        self._life.stop()
        if self._traffic is None or self._server is None:
            return
        await self._traffic.idle(grace_s)
        self._life.silence()
        self._traffic.fail_all(*STOPPING)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._server.close()  # it tells what is aborted first
        await self._traffic.close()

    async def _ask(self, server: Server) -> None:
        """Ask for the server's health for ever: an idle engine learns of its death, too."""
        misses = 0
        while misses < _MISSES and self._life.alive:
            await asyncio.sleep(self._health_s)
            try:
                trouble = await server.trouble()
            except grpc.aio.AioRpcError as error:
                misses, trouble = misses + 1, f"no answer: {error.code().name}"
                continue
            misses = 0
            if trouble:
                break
        ill = EngineDied(f"the server at {self._address} is not well: {trouble}")
        self._life.die(ill, self._fail_all)

    async def _verdict(self, run: Run, error: BaseException) -> EngineError:
        """What the readers of a request are told; where the engine is dead, all are told."""
        if isinstance(error, RequestFailed | InvalidRequest):
            return error
        if isinstance(error, Lie):
            _log.error("the server lied about request %s: %s", run.box.request.id, error)
            return EngineDied("the server gave what cannot be")
        if isinstance(error, grpc.aio.AioRpcError) and self._server is not None:
            verdict = await self._server.verdict(error)
            if not isinstance(verdict, EngineDied):
                return verdict
            error = verdict
        return self._life.die(error, self._fail_all)

    def _fail_all(self, kind: type[EngineError], message: str) -> None:
        if self._traffic is not None:
            self._traffic.fail_all(kind, message)
