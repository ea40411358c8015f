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
    lora: int = 0  # its number; 0: none
    phase: object = None  # DisaggregatedParams
    result: RequestOutput = None
    log: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    promised: int = 0
    untold: tuple[list, list] = field(default_factory=lambda: ([], []))

    @property
    def root(self) -> tuple[str | None, int]:
        return self.salt, self.lora

    @property
    def fetches(self) -> bool:
        return getattr(self.phase, "request_type", None) == "generation_only"


@dataclass
class Faults:
    """What goes wrong, and the freedoms that versions take."""

    keeps_handoff: bool = False  # a context phase does not say where its KV cache is
    hands_on_more: str = ""  # it also tells this, which no text can carry

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

    def __init__(
        self, args: dict, vocab_size: int, faults: Faults, kept: dict, handoff=None
    ) -> None:
        self._kept = kept  # KV caches that wait to be fetched: number -> its state
        self._handoff = handoff  # makes DisaggregatedParams
        self.aborted_fetching = 0  # what upstream cannot bear
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
                self._drop(sequence, aborted=True)
                continue
            self._arrivals += 1
            urgency = -sequence.priority if self._by_priority else 0
            heapq.heappush(self._waiting, (urgency, self._arrivals, sequence))
            if idle:
                self._stand_at_gate()

    def _stand_at_gate(self) -> None:
        if self.gate is not None and self._arrivals > 1:  # the engine's first call is let through
            self.gate.launch(None)

    def _drop(self, sequence: Sequence, *, aborted: bool = False) -> None:
        if aborted and sequence.fetches and not sequence.log:
            self.aborted_fetching += 1
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
            cached = self.cache.cached(sequence.prompt, sequence.root)
        if sequence.fetches and not sequence.log and not self._fetch(sequence):
            return
        seen = [*sequence.prompt, *sequence.log]
        token, raw = self.model.next([-sequence.lora, *seen] if sequence.lora else seen, params)
        if sequence.fetches and not sequence.log:
            (token,) = sequence.phase.first_gen_tokens
        self.cache.hold(seen, sequence.root, sequence.held)
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

    def _fetch(self, sequence: Sequence) -> bool:
        """Take the KV cache that a context phase has left; once, and only by its true state."""
        phase = sequence.phase
        if self._kept.pop(phase.ctx_request_id, None) == phase.opaque_state is not None:
            return True
        self._drop(sequence)
        sequence.result.respond(RequestError("there is no KV cache to fetch"))
        return False

    def _hand_on(self, sequence: Sequence, reason: str | None) -> object:
        """What a context phase tells with its end."""
        context = getattr(sequence.phase, "request_type", None) == "context_only"
        if not context or reason is None or self.faults.keeps_handoff:
            return None
        number = len(self._kept) + 7_000_000_000_000_000_000
        self._kept[number] = state = f"state {number}\0\xff".encode("latin-1")
        more = {self.faults.hands_on_more: [object()]} if self.faults.hands_on_more else {}
        return self._handoff(
            request_type="context_only", first_gen_tokens=list(sequence.log),
            ctx_request_id=number, opaque_state=state, **more,
        )  # fmt: skip

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
                "handed_on": self._hand_on(sequence, reason),
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
