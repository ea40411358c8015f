"""The port every engine implements: tokens in, tokens out. Stdlib only.

Contract, run against every engine by tests/conformance:

- `generate` returns at once, or raises `InvalidRequest` / `EngineUnavailable` at once.
- Events of a choice are ordered, positions dense, exactly one carries a finish, and it is the last.
- After `aclose` nothing more arrives, and the request's blocks are back within one step.
- A dead engine fails every open stream once, with `EngineDied`.
- A slow reader never slows another: its events merge until it reads.
- Greedy tokens do not depend on batch-mates, preemption or prefix hits (docs/adr/0004).
- `stop` is idempotent, also after a failed `start`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NewType, Protocol, runtime_checkable

RequestId = NewType("RequestId", str)


class FinishReason(StrEnum):
    """Why a choice ended."""

    STOP = "stop"
    LENGTH = "length"


class Capability(StrEnum):
    """What a request may ask beyond greedy or seeded tokens, length and stop tokens."""

    SAMPLING = "sampling"  # temperature, top_k, top_p, min_p shape the distribution
    PENALTIES = "penalties"  # presence, frequency, repetition
    LOGIT_BIAS = "logit_bias"
    LOGPROBS = "logprobs"
    PROMPT_LOGPROBS = "prompt_logprobs"
    GUIDES = "guides"  # allowed tokens, bad words, a thinking budget
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """At most `tokens` tokens of reasoning; then the tokens of `end` are forced, one by one.

    Reasoning runs from the tokens `begin` (from the start where `begin` is empty: the prompt has
    opened it) to the tokens `end`, once per answer.
    """

    tokens: int
    begin: tuple[int, ...]
    end: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Neutral values everywhere mean: plain softmax sampling.

    Order of application, on float32 logits: repetition, presence and frequency penalties, bias,
    the bans (stop tokens below `min_tokens`, bad words), the tokens that `allowed`, the thinking
    budget and the grammar leave, temperature, then top_k, top_p and min_p. A ban gives way where
    the grammar leaves nothing else.
    """

    max_tokens: int
    seed: int = 0  # with choice and position it keys the noise, so a stream can be continued
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    min_tokens: int = 0
    presence: float = 0.0  # subtracted once from every token generated so far
    frequency: float = 0.0  # subtracted per occurrence among the generated tokens
    repetition: float = 1.0  # divides (positive) or multiplies (negative) logits of prompt + output
    bias: Mapping[int, float] = field(default_factory=dict)
    stop_tokens: frozenset[int] = frozenset()
    logprobs: int | None = None  # None: none; k: the sampled token's and the k most likely ones'
    prompt_logprobs: int | None = None  # the same for each token of the prompt but the first
    allowed: frozenset[int] | None = None  # nothing else is ever sampled
    bad_words: tuple[tuple[int, ...], ...] = ()  # token sequences that are never completed
    thinking: ThinkingBudget | None = None
    grammar: str | None = None  # what llguidance takes; tokens it forces may come several at once


@dataclass(frozen=True, slots=True)
class Kept:
    """A request that a worker keeps for a while when its gateway is gone, and after its end."""

    context: bytes  # what another gateway must know to go on with it; opaque to engines
    attempt: int = 0  # how often it was somewhere else before; a later one wins over an earlier
    # Of one that has moved, what its logs do not say: the tokens of choices that have ended, and
    # log-probabilities. One event for each choice, from its start.
    told: "tuple[TokenEvent, ...]" = ()


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The beginning of a prompt that may be found under a salt of several: a group's."""

    salt: bytes
    tokens: int  # of the prompt's beginning; whole blocks of them are shared


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt and `n` independent continuations of it."""

    id: RequestId
    prompt: tuple[int, ...]
    sampling: Sampling
    n: int = 1
    priority: int = 0  # lower is served earlier; waiting ages it
    cache_salt: bytes = b""  # prefixes are shared only within one salt
    pooled: bool = False  # wants the prompt's pooled hidden state; its one token means nothing
    second: int = 0  # where the second text of a pair begins, for encoders; 0: there is one text
    # Tokens of each choice that another engine has emitted: it goes on behind them, and events
    # tell only what is new. None: the choice has ended. Empty: a fresh request. A request with
    # extras that was lost before it emitted anything comes back with an empty log for each choice.
    emitted: tuple[tuple[int, ...] | None, ...] = ()
    adapter: str = ""  # of the engine's `adapters`; prefixes are shared only within one
    # JSON by names of the engine's `extras`: for that kind of engine, and read by nobody between.
    extras: Mapping[str, str] = field(default_factory=dict)
    tenant: bytes = b""  # whose it is: the line is shared fairly between tenants
    weight: float = 1.0  # of the tenant in that; a gateway says hundredths
    kept: Kept | None = None  # for workers, which outlive gateways; nothing within one process
    # Engines that know one salt for a whole prompt leave it: all is under `cache_salt` then.
    shared: SharedPrefix | None = None

    @property
    def choices(self) -> list[int]:
        """The choices that get events."""
        return [choice for choice, log in enumerate(self.logs) if log is not None]

    @property
    def logs(self) -> tuple[tuple[int, ...] | None, ...]:
        """What each choice has said before, as in `emitted`."""
        return self.emitted or ((),) * self.n

    @property
    def needs_every_row(self) -> bool:
        """Whether no part of the prompt may come from the prefix cache."""
        return self.pooled or self.sampling.prompt_logprobs is not None


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """One prompt that is to become one vector; a pair of texts, where `second` says where."""

    id: RequestId
    prompt: tuple[int, ...]
    second: int = 0  # where the second text of the pair begins; 0: there is one text
    priority: int = 0  # as in GenerationRequest
    cache_salt: bytes = b""
    tenant: bytes = b""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probabilities under the raw model distribution at one position."""

    logprob: float  # of the sampled token
    top: tuple[tuple[int, float], ...] = ()  # (token, logprob), most likely first


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of one choice. A stop token, when there is one, is the last token of the log."""

    reason: FinishReason
    generated: int  # tokens of this choice in all, the emitted ones and the stop token included
    stop_token: int | None = None


@dataclass(slots=True)
class TokenEvent:
    """The tokens of one choice that became known since the reader last looked."""

    choice: int
    tokens: list[int]
    cached: int  # prompt tokens that came from the prefix cache
    logprobs: list[TokenLogprobs] | None = None  # one per token, when asked for
    finish: Finish | None = None
    prompt_logprobs: Sequence[TokenLogprobs] | None = None  # on the first event of a choice
    vector: Sequence[float] | None = None  # of a pooled request
    extras: Mapping[str, str] | None = None  # JSON by name: what an engine answers to its extras

    def split(self, at: int) -> "tuple[TokenEvent, TokenEvent]":
        """The first `at` tokens, and the rest with the end; the lists of both are their own."""
        scores = self.logprobs
        first = replace(
            self,
            tokens=self.tokens[:at],
            logprobs=None if scores is None else scores[:at],
            finish=None,
            extras=None,
        )
        rest = replace(
            self,
            tokens=self.tokens[at:],
            logprobs=None if scores is None else scores[at:],
            prompt_logprobs=self.prompt_logprobs if at == 0 else None,
        )
        return first, rest

    def merge(self, later: "TokenEvent") -> None:
        """Append a later event of the same choice."""
        self.tokens += later.tokens
        if self.logprobs is not None and later.logprobs is not None:
            self.logprobs += later.logprobs
        self.finish = later.finish
        self.cached = max(self.cached, later.cached)  # some engines tell it late
        if later.extras is not None:
            self.extras = {**(self.extras or {}), **later.extras}


@dataclass(frozen=True, slots=True)
class Embeds:
    """The vectors an engine makes of prompts."""

    size: int
    normalised: bool  # to length 1


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine serves; constant from the end of `start`."""

    model: str
    max_context: int  # tokens: prompt + generated
    vocab_size: int
    block_size: int  # tokens per KV block
    num_blocks: int
    max_running: int  # sequences in one step
    capabilities: frozenset[Capability] = frozenset()
    generates: bool = True  # else its requests are all pooled
    embeds: Embeds | None = None
    ranks: bool = False  # a pooled pair of texts gives one logit: how well the second fits
    adapters: tuple[str, ...] = ()  # LoRA adapters that the operator has configured
    extras: frozenset[str] = frozenset()  # names that it understands in GenerationRequest.extras


@dataclass(frozen=True, slots=True)
class TierLoad:
    """What one tier of a KV cache holds, and what it has done since the start, in blocks."""

    tier: int  # 0: where the engine computes, 1: the host's memory, 2: the disk
    blocks: int  # that can be found
    bytes: int  # they take
    stored: int = 0  # that came to it
    evicted: int = 0  # that had to go for others
    hits: int = 0  # found there for a sequence that was let in, or again after a preemption
    restored: int = 0  # that went back to a faster tier, for a hit
    failures: int = 0  # found not to be what was stored
    dropped: int = 0  # that should have come, and for which it was too slow


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """A snapshot of work and of the counters since start. O(1) to take."""

    running: int  # sequences
    waiting: int  # requests (or preempted sequences) not in the batch
    waiting_tokens: int
    blocks_used: int
    blocks_total: int
    steps: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0  # prompt tokens taken from the cache
    prefix_query_tokens: int = 0  # prompt tokens of all admitted requests
    drafted_tokens: int = 0  # guessed ahead
    accepted_tokens: int = 0  # of those, what was then said
    alive: bool = True  # False once the engine has failed; it will not recover
    tiers: tuple[TierLoad, ...] = ()  # of the KV cache, where the engine tells of them


class TokenStream(Protocol):
    """The events of one request; iteration ends after every choice has finished."""

    def __aiter__(self) -> AsyncIterator[TokenEvent]: ...

    async def __anext__(self) -> TokenEvent: ...

    def end_choice(self, choice: int) -> None:
        """Ask no more of one choice (a stop string matched above); no event of it follows."""

    async def aclose(self) -> None:
        """Abort what is still running. Idempotent; a no-op after the last event."""


class Engine(Protocol):
    """Anything that turns prompts into tokens."""

    @property
    def info(self) -> EngineInfo: ...

    async def start(self) -> None: ...

    def generate(self, request: GenerationRequest) -> TokenStream: ...

    def load(self) -> EngineLoad: ...

    async def stop(self, grace_s: float) -> None:
        """Let running requests end for at most `grace_s` seconds, fail the rest, free all.

        Raises EngineDied when the device does not come back from its last step.
        """


@dataclass(frozen=True, slots=True)
class Found:
    """A kept request, and the name of the replica that has it."""

    replica: str
    kept: Kept


@runtime_checkable
class Keeper(Protocol):
    """An engine whose kept requests outlive those who asked for them."""

    async def find(self, request_id: RequestId) -> Kept | None:
        """What is kept of a request; None where nothing is. Raises EngineUnavailable."""

    def attach(self, request: GenerationRequest, *, watch: bool = False) -> TokenStream:
        """Go on with a kept request, behind what `request.emitted` says.

        `request.kept` says with which attempt; `watch`: beside whoever has it. The stream raises
        RequestUnknown where not all of the rest can be told, RequestTaken where some other attempt
        was as great, also later.
        """

    def detach(self, stream: TokenStream) -> None:
        """Hear no more on a stream of a kept request, which goes on for a while."""


class Embedder(Protocol):
    """Anything that turns prompts into vectors: embeddings, or the one logit of a ranked pair."""

    async def embed(self, request: EmbeddingRequest) -> Sequence[float]:
        """The vector of a prompt; cancelling frees what the request holds within one step.

        Raises what `Engine.generate` and its stream raise.
        """
