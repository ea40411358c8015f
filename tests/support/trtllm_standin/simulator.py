"""The stand-in's executor: a thread with a waiting queue, a batch, blocks, events, statistics."""

import heapq
import queue
import threading
from dataclasses import dataclass, field

from tests.support.trtllm_standin.cache import Cache
from tests.support.trtllm_standin.model import Model
from tests.support.trtllm_standin.results import RequestError, RequestOutput


@dataclass(eq=False)
class Sequence:
    """One request inside."""

    prompt: list[int]
    params: object
    salt: str | None
    priority: float
    result: RequestOutput = None
    log: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    promised: int = 0
    untold: tuple[list, list] = field(default_factory=lambda: ([], []))


@dataclass
class Faults:
    """What goes wrong, and the freedoms that versions take."""

    refuses: str = ""  # generate_async raises ValueError with these words
    fails_request: int = 0  # so many tokens, then RequestError
    gives_up: int = 0  # so many tokens, then finish_reason "cancelled"
    dies_at: int = 0  # this step ends the executor
    withholds_stop: bool = False  # a stop token is not returned
    untold_stop: bool = False  # nor named
    ignores_stops: bool = False
    late_logprobs: bool = False
    no_cached_tokens: bool = False
    interval: int = 1  # tokens per response


class Simulator:
    """Steps in a thread of its own. `gate`: its `launch` is called before each step."""

    def __init__(self, args: dict, vocab_size: int, faults: Faults) -> None:
        cache = args["kv_cache_config"]
        size = cache["tokens_per_block"]
        self.cache = Cache((cache["max_tokens"] or 200 * size) // size, size)
        self.model = Model(vocab_size)
        self.stats: list[dict] = []
        self.faults = faults
        self.gate = None
        self.deepest = 0  # requests in its own queue, at most
        self.order: list[list[int]] = []  # prompts, as they were begun
        self._most = args.get("max_batch_size") or 2048
        self._by_priority = str(args.get("policy")).lower() == "priority"
        self._keeps_stats = bool(args.get("enable_iter_perf_stats"))
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting: list[tuple] = []
        self._running: list[Sequence] = []
        self._steps = self._arrivals = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        self._inbox.put(("submit", sequence))

    def abort(self, sequence: Sequence) -> None:
        self._inbox.put(("abort", sequence))

    def close(self) -> None:
        self._inbox.put(("close", None))
        self._thread.join(timeout=30)

    @property
    def empty(self) -> bool:
        return not (self._running or self._waiting or self._inbox.qsize())

    @property
    def prompts(self) -> list[list[int]]:
        """Of those in the batch."""
        return [sequence.prompt for sequence in self._running]

    @property
    def closed(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._take():
                self._step()
        except BaseException as error:  # noqa: BLE001
            for sequence in [*self._running, *(entry[-1] for entry in self._waiting)]:
                sequence.result.respond(error)

    def _take(self) -> bool:
        if self._running or self._waiting:
            self._stand_at_gate()
        while True:
            idle = not (self._running or self._waiting)
            try:
                kind, sequence = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if kind == "close":
                return False
            if kind == "abort":
                self._drop(sequence)
                continue
            self._arrivals += 1
            urgency = -sequence.priority if self._by_priority else 0
            heapq.heappush(self._waiting, (urgency, self._arrivals, sequence))
            if idle:
                self._stand_at_gate()

    def _stand_at_gate(self) -> None:
        if self.gate is not None and self._arrivals > 1:  # the engine's first call is let through
            self.gate.launch(None)

    def _drop(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        self._waiting = [entry for entry in self._waiting if entry[-1] is not sequence]
        heapq.heapify(self._waiting)
        self.cache.free(sequence.held)

    def _step(self) -> None:
        self._steps += 1
        if self.faults.dies_at and self._steps > self.faults.dies_at:
            raise RuntimeError("device lost")
        self._admit()
        self.deepest = max(self.deepest, len(self._waiting))
        for sequence in list(self._running):
            self._advance(sequence)
        if self._keeps_stats:
            self.stats.append(self._record())

    def _admit(self) -> None:
        size = self.cache.block_size
        while self._waiting and len(self._running) < self._most:
            sequence = self._waiting[0][-1]
            longest = len(sequence.prompt) + sequence.params.max_tokens
            sequence.promised = -(-longest // size)
            promised = sum(each.promised for each in self._running)
            if self._running and promised + sequence.promised > self.cache.num_blocks:
                return
            heapq.heappop(self._waiting)
            self._running.append(sequence)
            self.order.append(sequence.prompt)

    def _advance(self, sequence: Sequence) -> None:
        params, faults = sequence.params, self.faults
        cached = None
        if not sequence.log and not faults.no_cached_tokens:
            cached = self.cache.cached(sequence.prompt, sequence.salt)
        token, raw = self.model.next([*sequence.prompt, *sequence.log], params)
        self.cache.hold([*sequence.prompt, *sequence.log], sequence.salt, sequence.held)
        sequence.log.append(token)
        said = len(sequence.log)
        if faults.fails_request and said > faults.fails_request:
            self._drop(sequence)
            sequence.result.respond(RequestError("the grammar matcher failed"))
            return
        reason = self._reason(sequence, token)
        tokens, logprobs = sequence.untold
        tokens.append(token)
        if params.logprobs:
            logprobs.append(_entry(raw, token, params.logprobs))
        self._tell(sequence, reason, cached)
        if reason is not None:
            self._drop(sequence)

    def _reason(self, sequence: Sequence, token: int) -> str | None:
        said = len(sequence.log)
        if self.faults.gives_up and said >= self.faults.gives_up:
            return "cancelled"
        if said >= sequence.params.max_tokens:
            return "length"
        stops = () if self.faults.ignores_stops else sequence.params.stop_token_ids or ()
        return "stop" if token in stops else None

    def _tell(self, sequence: Sequence, reason: str | None, cached: int | None) -> None:
        tokens, logprobs = sequence.untold
        if reason is None and len(tokens) < self.faults.interval and len(sequence.log) > 1:
            return
        told = logprobs
        if self.faults.late_logprobs and reason is None:
            told, sequence.untold = logprobs[:-1], ([], logprobs[-1:])
        else:
            sequence.untold = ([], [])
        stopped = reason == "stop"
        sequence.result.respond(
            {
                "tokens": tokens,
                "logprobs": told,
                "withheld": 1 if stopped and self.faults.withholds_stop else 0,
                "finish_reason": reason,
                "stop_reason": tokens[-1] if stopped and not self.faults.untold_stop else None,
                "cached": cached,
            }
        )

    def _record(self) -> dict:
        waiting, running = len(self._waiting), len(self._running)
        batch = {"numGenRequests": running, "numQueuedContextRequests": waiting}
        cache = {
            "usedNumBlocks": self.cache.used,
            "maxNumBlocks": self.cache.num_blocks,
            "tokensPerBlock": self.cache.block_size,
        }
        return {"iter": self._steps, "inflightBatchingStats": batch, "kvCacheStats": cache}


def _entry(raw, token: int, most: int) -> dict:
    best = sorted(range(len(raw)), key=lambda each: (-raw[each], each))[:most]
    return {int(each): Logprob(float(raw[each])) for each in {*best, token}}


@dataclass
class Logprob:
    """As upstream has it."""

    logprob: float
    rank: int | None = None
