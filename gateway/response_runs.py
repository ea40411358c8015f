"""Responses in the background: generated apart from any connection, followed by whoever asks."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from gateway.exchange import Exchange, Outcome
from gateway.kept_call import KeptResponse, no_room
from gateway.logs import log_fault, log_request
from gateway.metrics import Metrics
from gateway.replies import reply_for
from gateway.response_store import ResponseStore, StoreFull
from openai_compat.errors import ErrorReply
from openai_compat.responses.frames import Events, error_event
from openai_compat.responses.stored import Key, check_place, no_response

_AT_ONCE = 256  # events that a follower is given together


class Run:
    """One response in the background. Its events are in the store before anybody is told of them.

    It ends once: completed or incomplete by the engine, cancelled by its client, failed otherwise.
    """

    def __init__(self, kept: KeptResponse, exchange: Exchange) -> None:
        self._kept = kept
        self._exchange = exchange
        self.changed = asyncio.Event()

    @property
    def key(self) -> Key:
        return self._kept.key

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
            await self._kept.call.aclose()
            self._notify()

    async def cancel(self) -> None:
        """End one whose task never began to run: its events begin and end here."""
        kept = self._kept
        if not kept.renderer.status.live:
            return
        await kept.append(kept.renderer.begin())
        await self._cancel()
        await kept.settle()
        await kept.call.aclose()
        self._notify()

    async def _generate(self) -> None:
        kept = self._kept
        try:
            async with aclosing(kept.call.frames()) as frames:
                async for some in frames:
                    await kept.append(some)
                    if kept.renderer.status.live:
                        self._notify()
        except asyncio.CancelledError:
            await self._cancel()
        except StoreFull:
            raise
        except Exception as error:  # noqa: BLE001 - told to whoever reads the response
            log_fault(error, self._exchange.id)
            self._exchange.outcome = Outcome.FAILED
            await kept.append(kept.renderer.fail(reply_for(error)))
        await kept.settle()

    async def _cancel(self) -> None:
        self._exchange.outcome = Outcome.CANCELLED
        await self._kept.append(self._kept.renderer.cancel())

    def _notify(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Runs:
    """The responses in the background that this process generates."""

    def __init__(self, store: ResponseStore, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._runs: dict[Key, tuple[Run, asyncio.Task[None]]] = {}

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

    def start(self, kept: KeptResponse, exchange: Exchange) -> Run:
        """Generate from now on."""
        run = Run(kept, exchange)
        self._metrics.begin()
        task = asyncio.create_task(run.generate())
        self._runs[run.key] = run, task
        task.add_done_callback(lambda _: self._ended(run, exchange))
        return run

    def get(self, key: Key) -> Run | None:
        """The run of a response that is live."""
        found = self._runs.get(key)
        return None if found is None else found[0]

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

    async def close(self) -> None:
        """End what still runs."""
        for key in list(self._runs):
            await self.cancel(key)

    def _ended(self, run: Run, exchange: Exchange) -> None:
        self._runs.pop(run.key, None)
        now = self._clock()
        exchange.close()
        self._metrics.finish(exchange, now)
        log_request(exchange.facts(now))


class Follower:
    """The events of a response in the background from a number on: those there are, then live.

    Implements `sse.Source`. It holds a place and no events; the run does not notice it.
    """

    def __init__(self, key: Key, after: int, store: ResponseStore, runs: Runs) -> None:
        self.key = key
        self._place = after + 1
        self._store = store
        self._runs = runs

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Raises NotFound when the response is deleted meanwhile, RequestRejected where the place
        is one that it never came to.
        """
        while True:
            run = self._runs.get(self.key)
            changed = None if run is None else run.changed  # before looking, so none is missed
            stored = await self._store.get(self.key)
            if stored is None:
                raise no_response()
            first = max(0, self._place - stored.first_event)
            events = stored.events[first : first + _AT_ONCE]
            if events:
                self._place = stored.first_event + first + len(events)
                yield b"".join(events)
            elif not stored.status.live:
                check_place(stored, self._place - 1)
                return
            elif changed is None:
                raise no_response()
            else:
                await changed.wait()

    def fail(self, error: ErrorReply) -> bytes:
        return error_event(Events(first=self._place), error)

    async def aclose(self) -> None:
        """The response goes on without us."""
