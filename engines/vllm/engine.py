"""The `Engine` port over vLLM: its start, its health and its end.

The requests of it are a `Traffic`; vLLM owns batching and blocks.
"""

import asyncio
import logging
from collections.abc import Callable

from engines.admittance import check_request
from engines.api import EngineInfo, EngineLoad, GenerationRequest, RequestId, Sampling
from engines.errors import EngineDied, EngineError
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.self_batching.life import STOPPING, Life
from engines.self_batching.runs import Run
from engines.self_batching.traffic import Traffic
from engines.vllm.calls import Calls
from engines.vllm.runs import follow
from engines.vllm.sampling import Writer
from engines.vllm.sizes import Sizes
from engines.vllm.stats import StatsReader

_log = logging.getLogger(__name__)

_HEALTH_S = 1.0  # between two looks at an engine that may have died while idle
_FIRST_CALL = GenerationRequest(RequestId("first call"), (0,), Sampling(1, temperature=0.0))


class VllmEngine:
    """Drives an open AsyncLLM; see docs/engines/vllm.md.

    `on_death` is called once, on the loop, when the engine fails: the process should then end.
    """

    def __init__(
        self,
        calls: Calls,
        writer: Writer,
        sizes: Sizes,
        stats: StatsReader,
        *,
        ageing_s: float = 5.0,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._calls = calls
        self._writer = writer
        self._sizes = sizes
        self._stats = stats
        self._life = Life(on_death)
        self._traffic = Traffic(
            sizes.bounds,
            ageing_s,
            lambda run, told: follow(run, writer, calls, told),
            self._verdict,
        )
        self._watch: asyncio.Task[None] | None = None
        self._open = True

    @property
    def info(self) -> EngineInfo:
        return self._sizes.info

    @property
    def limits(self) -> Limits:
        """What requests are checked against; constant."""
        return self._sizes.limits

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that a finished grammar allows."""
        return self._writer.ends

    async def start(self) -> None:
        """Make one call, which shows that it computes. Raises EngineDied where that fails."""
        self._life.start()
        first = Run(Mailbox(_FIRST_CALL, lambda *_: None), 0, [])
        try:
            await follow(first, self._writer, self._calls, lambda _: None)
        except Exception as error:
            self._life.fail()
            raise EngineDied(f"the engine failed at its first call: {error}") from error
        self._stats.observed = self._traffic.observe
        self._watch = asyncio.get_running_loop().create_task(self._look())
        self._life.begin()

    def generate(self, request: GenerationRequest) -> Mailbox:
        self._life.check()
        check_request(request, self.info, self.limits)
        self._writer.check(request)
        return self._traffic.open(request)

    def load(self) -> EngineLoad:
        traffic, admission = self._traffic, self._traffic.admission
        return EngineLoad(
            running=admission.running,
            waiting=admission.waiting,
            waiting_tokens=admission.waiting_tokens,
            # vLLM's own figure stands still with the last iteration: it would never come to 0.
            blocks_used=min(admission.blocks, self.limits.num_blocks),
            blocks_total=self.limits.num_blocks,
            steps=traffic.stats.iteration or traffic.outputs,  # a watchdog must see it work
            preemptions=traffic.stats.preemptions,
            prefix_hit_tokens=traffic.hit_tokens,
            prefix_query_tokens=traffic.query_tokens,
            alive=self._life.alive,
        )

    async def stop(self, grace_s: float) -> None:
        self._life.stop()
        await self._traffic.idle(grace_s)
        self._traffic.fail_all(*STOPPING)
        await self._traffic.left(grace_s + 1)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._open and self._life.alive:
            self._open = False
            await asyncio.to_thread(self._calls.shutdown)

    async def _look(self) -> None:
        """Ask for ever whether it lives: nothing else tells of the death of an idle engine."""
        while True:
            await asyncio.sleep(_HEALTH_S)
            if self._calls.failed:
                gone = EngineDied("a process of the engine has ended")
                self._life.die(gone, self._traffic.fail_all)
                return

    async def _verdict(self, _: Run, error: BaseException) -> EngineError:
        """What the readers of a request are told; where the engine is dead, all are told."""
        meant = self._calls.meaning(error)
        if meant is not None:
            return meant
        return self._life.die(error, self._traffic.fail_all)
