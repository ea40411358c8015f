"""The `Engine` port over TensorRT-LLM: its start, what it tells of itself, and its end.

The requests of it are a `Traffic`; TensorRT-LLM owns batching and blocks.
"""

import asyncio
import logging
from collections.abc import Callable

from engines.admittance import check_request
from engines.api import EngineInfo, EngineLoad, GenerationRequest, RequestId, Sampling
from engines.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    RequestFailed,
)
from engines.kv_changes import KvListener
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.self_batching.admission import Bounds
from engines.self_batching.life import STOPPING, Life
from engines.self_batching.runs import Run
from engines.self_batching.stats import EngineStats
from engines.self_batching.traffic import Traffic
from engines.trtllm.calls import Calls, is_request_error
from engines.trtllm.config import Config
from engines.trtllm.runs import follow
from engines.trtllm.sampling import Writer
from engines.trtllm.sizes import sizes
from engines.trtllm.watch import Watch

_log = logging.getLogger(__name__)

_BLOCKS_TOLD_S = 10.0
_FIRST_CALL = GenerationRequest(RequestId("first call"), (0,), Sampling(1, temperature=0.0))


class TrtLlmEngine:
    """Drives an open `tensorrt_llm.LLM`; see docs/engines/tensorrt-llm.md.

    `on_death` is called once, on the loop, when the engine fails: the process should then end,
    since the devices may be held by ranks that do not answer.
    """

    def __init__(
        self,
        calls: Calls,
        config: Config,
        writer: Writer,
        watch: Watch,
        *,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._calls = calls
        self._config = config
        self._writer = writer
        self._watch = watch
        self._life = Life(on_death)
        self._set_blocks(config.num_blocks or 1)
        self._open = True

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def limits(self) -> Limits:
        """What requests are checked against; constant from the end of `start`."""
        return self._limits

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that a finished grammar allows."""
        return self._writer.ends

    async def start(self) -> None:
        """Make one call: the engine tells of itself only after the first.

        Raises EngineDied where that call fails, EngineUnavailable where blocks are not told.
        """
        self._life.start()
        first = Run(Mailbox(_FIRST_CALL, lambda *_: None), 0, [])
        try:
            await follow(first, self._writer, self._calls, lambda _: None)
        except Exception as error:
            self._life.fail()
            raise EngineDied(f"the engine failed at its first call: {error}") from error
        self._watch.start(self._observe)
        blocks = self._config.num_blocks or await self._watch.num_blocks(_BLOCKS_TOLD_S)
        if blocks is None:
            raise EngineUnavailable("the number of KV blocks is not told: set penstock.num_blocks")
        self._set_blocks(blocks)
        self._life.begin()

    def generate(self, request: GenerationRequest) -> Mailbox:
        self._life.check()
        check_request(request, self._info, self._limits)
        self._writer.check(request)
        return self._traffic.open(request)

    def load(self) -> EngineLoad:
        traffic, admission = self._traffic, self._traffic.admission
        return EngineLoad(
            running=admission.running,
            waiting=admission.waiting,
            waiting_tokens=admission.waiting_tokens,
            blocks_used=min(admission.blocks, self._limits.num_blocks),
            blocks_total=self._limits.num_blocks,
            steps=traffic.stats.iteration or traffic.outputs,  # a watchdog must see it work
            prefix_hit_tokens=traffic.hit_tokens,
            prefix_query_tokens=traffic.query_tokens,
            alive=self._life.alive,
        )

    @property
    def kv_namespace(self) -> bytes:
        return self._watch.kv_namespace

    def follow_kv(self, listener: KvListener) -> None:
        self._watch.follow(listener)

    async def stop(self, grace_s: float) -> None:
        self._life.stop()
        await self._traffic.idle(grace_s)
        self._traffic.fail_all(*STOPPING)
        await self._traffic.left(grace_s + 1)
        await self._watch.stop()
        if self._open and self._life.alive:  # a dead engine's shutdown may wait for dead ranks
            self._open = False
            await asyncio.to_thread(self._calls.shutdown)

    def _observe(self, stats: EngineStats) -> None:
        self._traffic.observe(stats)  # of the traffic there is now: blocks are told after the start

    async def _verdict(self, _: Run, error: BaseException) -> EngineError:
        """What the readers of a request are told; where the engine is dead, all are told."""
        if isinstance(error, RequestFailed | InvalidRequest):
            return error
        if is_request_error(error):
            return RequestFailed(str(error))
        return self._life.die(error, self._traffic.fail_all)

    def _set_blocks(self, num_blocks: int) -> None:
        config = self._config
        self._info, self._limits = sizes(config, self._writer, num_blocks)
        bounds = Bounds(config.max_running, config.max_num_tokens, num_blocks, config.block_size)
        self._traffic = Traffic(
            bounds,
            config.own.ageing_s,
            lambda run, told: follow(run, self._writer, self._calls, told),
            self._verdict,
        )
