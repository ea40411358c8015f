"""Responses in the background: generated apart from any connection, followed by whoever asks."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress

from engines.errors import EngineUnavailable, RequestTaken
from gateway.dispatch import Call
from gateway.durable.ending import ending_of
from gateway.durable.journal import Fenced, JournalAway, Leases, Name
from gateway.durable.written import WrittenFrames
from gateway.exchange import Exchange, Outcome
from gateway.logs import log_fault, log_request
from gateway.metrics import Metrics
from gateway.replies import reply_for
from gateway.responses.kept_call import KeptResponse, no_room
from gateway.responses.store import StoreFull
from openai_compat.responses.stored import Key

# Of one that is written down: another gateway has it, or this one has no engine for it any more.
_LEFT = (Fenced, RequestTaken, EngineUnavailable)
_WRITTEN_WITHIN_S = 1.0  # the ends of what ran to the end of this process


class Run:
    """One response in the background. Its events are in the store before anybody is told of them.

    It ends once: completed or incomplete by the engine, cancelled by its client, failed otherwise.
    One that is written down may also leave: it is another gateway's then.
    """

    def __init__(
        self, kept: KeptResponse, source: Call | WrittenFrames, exchange: Exchange
    ) -> None:
        self._kept = kept
        self._source = source
        self._exchange = exchange
        self._leaves = False
        self.changed = asyncio.Event()

    @property
    def key(self) -> Key:
        return self._kept.key

    @property
    def name(self) -> Name | None:
        """What stands for it in the journal, if it is written down."""
        return self._source.writer.name if isinstance(self._source, WrittenFrames) else None

    @property
    def adopted(self) -> bool:
        """Whether another gateway has begun it."""
        return isinstance(self._source, WrittenFrames) and self._source.writer.fence > 1

    @property
    def left(self) -> bool:
        """Whether it is another gateway's by now."""
        return self._leaves

    def body(self) -> bytes:
        """The response as it is at this moment."""
        return self._kept.renderer.body()

    async def generate(self) -> None:
        """Run to the end, whatever it is."""
        try:
            await self._generate()
        except StoreFull as full:
            self._exchange.outcome = Outcome.FAILED
            await self._kept.give_up(no_room(full).reply)
        except Exception as error:  # noqa: BLE001 - whatever it was, no response stays live
            log_fault(error, self._exchange.id)
            self._exchange.outcome = Outcome.FAILED
            await self._kept.give_up(reply_for(error))
        finally:
            await self._source.aclose()
            self._notify()

    async def cancel(self) -> None:
        """End one whose task never began to run: its events begin and end here."""
        kept = self._kept
        if not kept.renderer.status.live or self._leaves:
            return
        await self._keep(kept.renderer.begin())
        await self._cancel()
        await kept.settle()
        await self._source.aclose()
        self._notify()

    def leave(self) -> None:
        """Be ready to end as one that another gateway has, or will have."""
        self._leaves = True
        if isinstance(self._source, WrittenFrames):
            self._source.call.outlives_reader = True

    async def let_go(self) -> None:
        """End one that is left, also where its task never began to run. Idempotent."""
        if self._kept.renderer.status.live:
            await self._kept.drop()
        await self._source.aclose()
        self._notify()

    async def _generate(self) -> None:
        kept = self._kept
        try:
            async with aclosing(self._source.frames()) as frames:
                async for some in frames:
                    await self._keep(some)
                    if kept.renderer.status.live:
                        self._notify()
        except asyncio.CancelledError:
            if isinstance(self._source, WrittenFrames):
                await self._source.stop()
            if self._leaves:
                await kept.drop()
                return
            await self._cancel()
        except StoreFull:
            raise
        except Exception as error:  # noqa: BLE001 - told to whoever reads the response
            if self.name is not None and isinstance(error, _LEFT):
                self.leave()
                await kept.drop()
                return
            log_fault(error, self._exchange.id)
            self._exchange.outcome = Outcome.FAILED
            await self._keep(self._source.fail(reply_for(error)))
        await kept.settle()

    async def _cancel(self) -> None:
        self._exchange.outcome = Outcome.CANCELLED
        held = self._source.take() if isinstance(self._source, WrittenFrames) else b""
        await self._keep(held + self._kept.renderer.cancel())

    async def _keep(self, frames: bytes) -> None:
        """Events of an adopted one are told from its log alone: their numbers may have gaps."""
        if not self.adopted:
            await self._kept.append(frames)

    async def write_ending(self) -> None:
        """Have the journal know how it ended: who follows it here has been told."""
        if isinstance(self._source, WrittenFrames):
            await self._source.writer.settle(ending_of(self._kept.renderer))

    def _notify(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Runs:
    """The responses in the background that this process generates."""

    def __init__(
        self, metrics: Metrics, clock: Callable[[], float], leases: Leases | None = None
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._leases = leases
        self._runs: dict[Key, tuple[Run, asyncio.Task[None]]] = {}
        self._endings: dict[Name, asyncio.Task[None]] = {}  # being written

    def exchange(self, asked: Exchange) -> Exchange:
        """What the log will tell of a run, beside the request that asked for it."""
        return Exchange(
            asked.id,
            asked.method,
            self._clock(),
            call_id=asked.call_id,
            route="/v1/responses (background)",
            caller=asked.caller,
            status=200,
            model=asked.model,
        )

    def start(self, kept: KeptResponse, source: Call | WrittenFrames, exchange: Exchange) -> Run:
        """Generate from now on."""
        run = Run(kept, source, exchange)
        self._metrics.begin()
        task = asyncio.create_task(run.generate())
        self._runs[run.key] = run, task
        task.add_done_callback(lambda _: self._ended(run, exchange))
        return run

    def get(self, key: Key) -> Run | None:
        """The run of a response that is live."""
        found = self._runs.get(key)
        return None if found is None else found[0]

    @property
    def written(self) -> dict[Name, Key]:
        """Those that the journal has, and that run."""
        names = ((run.name, key) for key, (run, _) in self._runs.items())
        return {name: key for name, key in names if name is not None}

    @property
    def ending(self) -> list[Name]:
        """Those whose end the journal has not yet."""
        return list(self._endings)

    async def forget(self, name: Name) -> None:
        """Write no end of it."""
        if (task := self._endings.get(name)) is not None:
            task.cancel()
            await asyncio.wait({task})

    async def cancel(self, key: Key) -> None:
        """Abort a run; returns when it has ended and its engine stream is closed."""
        found = self._runs.get(key)
        if found is None:
            return
        run, task = found
        if not task.cancelling():  # else it is ending: a second time would cut short how it ends
            task.cancel()
        await asyncio.wait({task})
        await run.cancel()

    async def leave(self, key: Key) -> None:
        """Read a run no more: it goes on unread until another gateway has it."""
        found = self._runs.get(key)
        if found is None:
            return
        run, task = found
        if task.cancelling():  # it ends: what it is told to do first is done
            await asyncio.wait({task})
            return
        run.leave()
        task.cancel()
        await asyncio.wait({task})
        await run.let_go()

    async def close(self) -> None:
        """End what still runs."""
        for key in list(self._runs):
            await self.cancel(key)
        if self._endings:
            await asyncio.wait(self._endings.values(), timeout=_WRITTEN_WITHIN_S)
        for name in list(self._endings):
            await self.forget(name)

    def _ended(self, run: Run, exchange: Exchange) -> None:
        self._runs.pop(run.key, None)
        now = self._clock()
        exchange.close()
        self._metrics.finish(exchange, now)
        if run.left:
            return  # who has it tells of it
        log_request(exchange.facts(now))
        if run.name is not None and self._leases is not None:
            task = asyncio.create_task(self._end(run, run.name, self._leases))
            self._endings[run.name] = task
            name = run.name
            task.add_done_callback(lambda _: self._endings.pop(name, None))

    async def _end(self, run: Run, name: Name, leases: Leases) -> None:
        with suppress(Fenced, JournalAway):
            await run.write_ending()
            await leases.done(name)
