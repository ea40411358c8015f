"""What steps below the stand-in of vLLM: a queue, a batch and a prefix cache, in a thread."""

import heapq
import queue
import threading
from dataclasses import dataclass, field
from hashlib import blake2b
from types import SimpleNamespace

import numpy as np


@dataclass
class Faults:
    """What goes wrong."""

    refuses: str = ""  # generate raises VLLMValidationError with these words, but for the first
    fails_request: int = 0  # so many tokens, then the call fails alone
    gives_up: int = 0  # so many tokens, then finish_reason "abort"
    dies_at: int = 0  # this step ends the engine


@dataclass(eq=False)
class Sequence:
    """One request inside; `respond` is called from the thread."""

    prompt: list[int]
    params: object  # of SamplingParams
    salt: str | None
    priority: int
    respond: object
    log: list[int] = field(default_factory=list)


class CallFailed(Exception):  # noqa: N818
    """One call fails, and the engine does not."""


class Simulator:
    """Steps by itself. `gate`: its `launch` is called before each step, but for the first call."""

    def __init__(self, *, running: int, block_size: int, vocab_size: int, faults: Faults) -> None:
        self.faults = faults
        self.gate = None
        self.steps = 0
        self.deepest = 0  # requests in its own queue, at most
        self.order: list[list[int]] = []  # prompts, as they were begun
        self._most = running
        self._block_size = block_size
        self._vocab_size = vocab_size
        self._known: set[tuple] = set()  # prefixes of whole blocks, by salt
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._waiting: list[tuple] = []
        self._running: list[Sequence] = []
        self._arrivals = 0
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
    def waiting(self) -> int:
        return len(self._waiting)

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
                sequence.respond(error)

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
            heapq.heappush(self._waiting, (sequence.priority, self._arrivals, sequence))
            if idle:
                self._stand_at_gate()

    def _stand_at_gate(self) -> None:
        if self.gate is not None and self._arrivals > 1:
            self.gate.launch(None)

    def _drop(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        self._waiting = [entry for entry in self._waiting if entry[-1] is not sequence]
        heapq.heapify(self._waiting)

    def _step(self) -> None:
        self.steps += 1
        if self.faults.dies_at and self.steps > self.faults.dies_at:
            raise RuntimeError("device lost")
        while self._waiting and len(self._running) < self._most:
            sequence = heapq.heappop(self._waiting)[-1]
            self._running.append(sequence)
            self.order.append(sequence.prompt)
        self.deepest = max(self.deepest, len(self._waiting))
        for sequence in list(self._running):
            self._advance(sequence)

    def _advance(self, sequence: Sequence) -> None:
        cached = 0 if sequence.log else self._look_up(sequence)
        token, raw = self._next(sequence)
        sequence.log.append(token)
        if 0 < self.faults.fails_request < len(sequence.log):
            self._drop(sequence)
            sequence.respond(CallFailed("the grammar matcher failed"))
            return
        reason = self._reason(sequence, token)
        if reason is not None:
            self._drop(sequence)
        sequence.respond(
            SimpleNamespace(
                token=token,
                entry=_entry(raw, token, sequence.params.logprobs),
                reason=reason,
                stop=token if reason == "stop" else None,
                cached=cached,
            )
        )

    def _look_up(self, sequence: Sequence) -> int:
        """Prompt tokens that need not be computed, never all; from now on they all are known."""
        cached, size = 0, self._block_size
        for end in range(size, len(sequence.prompt) + 1, size):
            prefix = (sequence.salt, *sequence.prompt[:end])
            if prefix in self._known and cached == end - size and end < len(sequence.prompt):
                cached = end
            self._known.add(prefix)
        return cached

    def _reason(self, sequence: Sequence, token: int) -> str | None:
        if self.faults.gives_up and len(sequence.log) >= self.faults.gives_up:
            return "abort"
        if token in (sequence.params.stop_token_ids or ()):
            return "stop"
        return "length" if len(sequence.log) >= sequence.params.max_tokens else None

    def _next(self, sequence: Sequence) -> tuple[int, np.ndarray]:
        """The token that follows, and the raw log-probabilities: of the tokens before alone."""
        params, log = sequence.params, [*sequence.prompt, *sequence.log]
        logits = 4 * _noise("logits", log).standard_normal(self._vocab_size)
        raw = logits - np.log(np.exp(logits).sum())
        said = logits.copy()
        if params.allowed_token_ids is not None:
            said[
                [t for t in range(self._vocab_size) if t not in params.allowed_token_ids]
            ] = -np.inf
        for token, bias in (params.logit_bias or {}).items():
            said[token] += bias
        if len(sequence.log) < (params.min_tokens or 0):
            said[params.stop_token_ids] = -np.inf
        if not params.temperature:
            return int(said.argmax()), raw
        gumbel = _noise(f"draw {params.seed}", log).gumbel(size=self._vocab_size)
        return int((said / params.temperature + gumbel).argmax()), raw


def _noise(name: str, log: list[int]) -> np.random.Generator:
    digest = blake2b(f"{name} {log}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _entry(raw: np.ndarray, token: int, most: int | None) -> dict | None:
    if most is None:
        return None
    best = sorted(range(len(raw)), key=lambda each: (-raw[each], each))[:most]
    return {each: SimpleNamespace(logprob=float(raw[each])) for each in {*best, token}}
