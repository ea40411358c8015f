"""The one way to Redis: bounded in time, through a breaker, counted.

    call, command --closed--> redis-py, a quarter of a second at most --> an answer, or RedisDown
      (hurried)   --silent--> RedisDown at once            what was sent before has its whole time
                  --open----> RedisDown at once            a task of this object probes meanwhile

No caller ever waits for longer than `CALL_S`, and none at all while Redis is known to be down; one
in a hurry, no longer than Redis usually takes to say something. Time in which this loop was busy
does not count: an answer that nobody has read is no failure of Redis. It may be down at the start,
go and come back: nothing need be restarted.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from time import monotonic
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from gateway.redis.address import parse_address
from gateway.redis.breaker import Breaker
from gateway.redis.client import AWAY, LOST, MAX_CONNECTIONS, UNHEARD, Client, open_client
from gateway.redis.errors import (
    FunctionsMissing,
    RedisDown,
    RedisRefused,
    RedisUnusable,
    Unanswered,
    in_a_line,
)
from gateway.redis.library import VERSION, VERSION_FUNCTION, own_version, version_of
from gateway.redis.silence import Silence
from gateway.setting_kinds import Secret

CALL_S = 0.25
_SLICES = 10  # of it: one that this loop ends late counts as one all the same
_CONNECT_S = 1.0  # for a probe to find its way: nobody waits for it
_PROBE_TTL_MS = 10_000
_UNKNOWN_FUNCTION = "Function not found"
_SETUP = "run `penstock redis-setup` with the URL of the user who may load functions"

_log = logging.getLogger("penstock.redis")

T = TypeVar("T")
Word = str | bytes | int | float


class Purpose(StrEnum):
    """What a command is for: a label of the counters."""

    REGISTRY = "registry"
    LIMITS = "limits"
    RECORDS = "records"
    RESPONSES = "responses"
    PROBE = "probe"


class Counts:
    """What a link has done so far."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()  # that were sent
        self.failures: Counter[str] = Counter()  # of these
        self.skipped: Counter[str] = Counter()  # not sent, for the breaker was open


class RedisLink:
    """Redis at a URL, for one process and one event loop."""

    def __init__(self, url: Secret, *, clock: Callable[[], float] = monotonic) -> None:
        self._address = parse_address(url.value)
        self._clock = clock
        self._breaker = Breaker(now=clock())
        self._silence = Silence()
        self._listening: asyncio.TimerHandle | None = None  # looks how long a silence lasts
        self._waiting: set[asyncio.Future[None]] = set()  # one of each in a hurry, to let it go
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._client: Client | None = None
        self._sending: set[asyncio.Task[Any]] = set()
        self._out: set[asyncio.Task[Any] | None] = set()  # of these, those that have a slot
        self._probing: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()  # the breaker is open: the prober has work
        self._opened.set()
        self._came_up = asyncio.Event()
        self._probe_key = "penstock:{probe}"
        self._advised = False  # what to do about its functions was said
        self._refusals: set[str] = set()  # of what was said since it came up: each once
        self.counts = Counts()

    @property
    def up(self) -> bool:
        """Whether it answers, as far as is known."""
        return not self._breaker.open and not self._silence.lasts

    @property
    def openings(self) -> int:
        """How often it went down."""
        return self._breaker.openings

    @property
    def silences(self) -> int:
        """How often it said nothing for so long that nobody waited for it."""
        return self._silence.times

    def start(self) -> None:
        """Begin to look for it; returns at once. Call on the event loop."""
        self._client = open_client(self._address)
        self._probing = asyncio.create_task(self._probe())

    async def close(self) -> None:
        """End. Idempotent; calls raise RedisDown from now on."""
        probing, self._probing = self._probing, None
        client, self._client = self._client, None
        if self._listening is not None:
            self._listening.cancel()
        if probing is not None:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        if self._sending:
            await asyncio.wait(self._sending, timeout=CALL_S)
        if client is not None:
            with contextlib.suppress(*AWAY, RedisError):
                async with asyncio.timeout(CALL_S):
                    await client.aclose()

    async def came_up(self) -> None:
        """Wait until it is up."""
        await self._came_up.wait()

    async def call(
        self,
        function: str,
        keys: Sequence[str],
        args: Sequence[Word] = (),
        *,
        purpose: Purpose,
        again: bool = True,
        hurried: bool = False,
    ) -> Any:
        """Call a function of the library; its keys are in one slot.

        `again`: whether to send it once more where the connection was lost before an answer; the
        first may have been done all the same. `hurried`: somebody waits for a first token, and who
        asks goes on without rather than to wait through a silence. Raises RedisUnusable.
        """
        words = ("FCALL", function, len(keys), *keys, *args)
        return await self._ask(words, keys[0], purpose, again=again, hurried=hurried)

    async def command(
        self, name: str, key: str, *args: Word, purpose: Purpose, again: bool = True
    ) -> Any:
        """Send a data command whose first argument is its only key; else as `call`."""
        return await self._ask((name, key, *args), key, purpose, again=again)

    async def _ask(
        self,
        words: tuple[Word, ...],
        key: str,
        purpose: Purpose,
        *,
        again: bool,
        hurried: bool = False,
    ) -> Any:
        if self._client is None or self._breaker.open or (hurried and self._silence.lasts):
            self.counts.skipped[purpose] += 1
            raise RedisDown("Redis is down")
        sending = self._begun(self._send(self._client, words, purpose, again=again))
        try:
            left = await self._waited(sending, hurried=hurried)
        except asyncio.CancelledError:
            sending.cancel()
            raise
        if not sending.done() and (left or sending not in self._out):
            self.counts.failures[purpose] += 1
            raise self._unheard(sending, left, key)
        try:
            return self._answer(sending, key)
        except RedisUnusable:
            self.counts.failures[purpose] += 1
            raise
        except RedisError as error:
            self.counts.failures[purpose] += 1
            called = words[1] if words[0] == "FCALL" else words[0]  # never a key: it may be long
            raise self._refusal(error, str(called)) from error

    def _begun(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sent)
        return task

    async def _waited(self, sending: asyncio.Task[Any], *, hurried: bool) -> int:
        """Until it is answered, or nobody waits any more, or its time is up; slices left of it."""
        let_go = asyncio.get_running_loop().create_future()
        if hurried:
            self._waiting.add(let_go)
        try:
            return await _first_of({sending, let_go}, CALL_S / _SLICES, _SLICES)
        finally:
            self._waiting.discard(let_go)

    def _unheard(self, sending: asyncio.Task[Any], left: int, key: str) -> RedisDown:
        """Why a caller goes on whose command does so, too, if it went out at all."""
        if sending not in self._out:
            sending.cancel()
            return RedisDown("Redis says nothing, or too much is asked of it")
        outlasting = self._begun(self._outlast(sending, left, key))
        return Unanswered("Redis says nothing", outlasting)

    def _answer(self, sending: asyncio.Task[Any], key: str) -> Any:
        """What it was answered; where it was not, that is the end of it. Raises RedisError."""
        sending.cancel()
        try:
            if not sending.done():
                raise TimeoutError
            answer = sending.result()
        except AWAY as error:
            self._note_failure(error, key)
            sort = Unanswered if isinstance(error, UNHEARD) else RedisDown
            raise sort("Redis did not answer") from error
        except RedisError:
            self._breaker.succeed()  # it is there
            raise
        self._breaker.succeed()
        return answer

    async def _outlast(self, sending: asyncio.Task[Any], left: int, key: str) -> None:
        """Hear of a command for whom nobody waits: an answer ends the silence."""
        await _first_of({sending}, CALL_S / _SLICES, left)
        with contextlib.suppress(RedisUnusable, RedisError):
            self._answer(sending, key)

    async def _within(self, limit_s: float, sending: Coroutine[Any, Any, Any]) -> Any:
        """What a command was answered. Raises TimeoutError.

        It is sent by a task of its own, which is told to end where nobody waits any more: told in
        the caller's task, redis-py now and then hears nothing of it, and waits on.
        """
        task = self._begun(sending)
        try:
            await _first_of({task}, limit_s / _SLICES, _SLICES)
        finally:
            task.cancel()
        if not task.done():
            raise TimeoutError
        return task.result()

    def _sent(self, task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits for it

    async def _send(
        self,
        client: Client,
        words: tuple[Word, ...],
        purpose: Purpose,
        again: bool,  # noqa: FBT001
    ) -> Any:
        task = asyncio.current_task()
        async with self._slots:
            self._out.add(task)
            try:
                return await self._execute(client, words, purpose)
            except LOST:
                if not again:
                    raise
                return await self._execute(client, words, purpose)
            finally:
                self._out.discard(task)

    async def _execute(self, client: Client, words: tuple[Word, ...], purpose: Purpose) -> Any:
        self.counts.commands[purpose] += 1
        begun = self._clock()
        self._silence.asked()
        self._listen()
        answered = False
        try:
            answer = await client.execute_command(*words)
            answered = True
        except ResponseError:
            answered = True
            raise
        finally:
            if answered:
                self._silence.answered(self._clock() - begun)
            else:
                self._silence.given_up()
        return answer

    # -- silence

    def _listen(self) -> None:
        """Look now and then whether it has answered anybody, unless somebody does."""
        look_s = self._silence.look_s
        if self._listening is None and look_s is not None and not self._breaker.open:
            loop = asyncio.get_running_loop()
            self._listening = loop.call_later(look_s, self._look)

    def _look(self) -> None:
        self._listening = None
        if self._silence.look():
            _log.debug("Redis says nothing; nobody waits for it until it does")
            self._let_go()
        self._listen()

    def _let_go(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _note_failure(self, error: BaseException, key: str) -> None:
        if self._breaker.fail(self._clock(), silent=self._silence.lasts):
            self._let_go()
            # In a cluster, what is asked for next is the part that failed.
            tag = key.partition("{")[2].partition("}")[0]
            self._probe_key = f"penstock:{{{tag or 'probe'}}}:probe"
            self._came_up.clear()
            self._opened.set()
            _log.warning("Redis is down: %s; going on without it", in_a_line(error))

    def _refusal(self, error: RedisError, called: str) -> RedisUnusable:
        if _UNKNOWN_FUNCTION not in str(error):
            if called not in self._refusals:
                _log.warning("Redis refused %s: %s", called, in_a_line(error))
            self._refusals.add(called)
            return RedisRefused(f"Redis refused {called}")
        self._advise("Redis has not the functions of Penstock")
        return FunctionsMissing(f"{called} is not in Redis")

    def _advise(self, what: str) -> None:
        if not self._advised:
            _log.warning("%s: %s", what, _SETUP)
        self._advised = True

    # -- the prober

    async def _probe(self) -> None:
        """Close the breaker when Redis is there again. The only one who asks while it is open."""
        told = False
        while True:
            await self._opened.wait()
            await asyncio.sleep(self._breaker.probe_at - self._clock())
            error = await self._try()
            self._breaker.probed(self._clock(), answered=error is None)
            if error is None:
                self._opened.clear()
                self._came_up.set()
                told = False
                _log.info("Redis is up")
                await self._check_functions()
            elif not told and not self._breaker.openings:
                told = True
                _log.warning("Redis cannot be reached: %s; going on without it", in_a_line(error))

    async def _try(self) -> BaseException | None:
        """Whether it takes a write, in time. What connections and topology take is not counted."""
        client = self._client
        if client is None:
            return RedisDown("closed")
        write = "SET", self._probe_key, b"", "PX", _PROBE_TTL_MS
        try:
            await self._within(_CONNECT_S, self._send(client, write, Purpose.PROBE, again=True))
            await self._within(CALL_S, self._send(client, write, Purpose.PROBE, again=False))
        except Exception as error:  # noqa: BLE001 - whatever it was: nobody else would look again
            self.counts.failures[Purpose.PROBE] += 1
            return error
        return None

    async def _check_functions(self) -> None:
        """Say what to run where the library is not the one that this version knows."""
        self._advised = False
        self._refusals.clear()
        try:
            told = await self.call(VERSION_FUNCTION, (self._probe_key,), purpose=Purpose.PROBE)
        except RedisUnusable:
            return  # said, or down again
        there = version_of(told.decode()) if isinstance(told, bytes) else None
        if there is None or (there != own_version() and there.number <= VERSION):
            self._advise(f"Redis has version {there} of the functions, not {own_version()}")


async def _first_of(some: set[asyncio.Future[Any]], slice_s: float, slices: int) -> int:
    """Wait for one of them, for so many slices of time; how many are left."""
    while slices:
        done, _ = await asyncio.wait(some, timeout=slice_s, return_when=asyncio.FIRST_COMPLETED)
        if done:
            break
        slices -= 1
    return slices
