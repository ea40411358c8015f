from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerInfo(_message.Message):
    __slots__ = ("version", "epoch", "engine", "limits", "ends", "grammars", "kv_bytes", "kv_namespace")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    GRAMMARS_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    version: str
    epoch: int
    engine: EngineInfo
    limits: Limits
    ends: _containers.RepeatedScalarFieldContainer[int]
    grammars: bool
    kv_bytes: int
    kv_namespace: bytes
    def __init__(self, version: _Optional[str] = ..., epoch: _Optional[int] = ..., engine: _Optional[_Union[EngineInfo, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., ends: _Optional[_Iterable[int]] = ..., grammars: bool = ..., kv_bytes: _Optional[int] = ..., kv_namespace: _Optional[bytes] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("model", "max_context", "vocab_size", "block_size", "num_blocks", "max_running", "capabilities", "generates", "embeds", "ranks", "adapters", "extras")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    GENERATES_FIELD_NUMBER: _ClassVar[int]
    EMBEDS_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    EXTRAS_FIELD_NUMBER: _ClassVar[int]
    model: str
    max_context: int
    vocab_size: int
    block_size: int
    num_blocks: int
    max_running: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    generates: bool
    embeds: Embeds
    ranks: bool
    adapters: _containers.RepeatedScalarFieldContainer[str]
    extras: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., max_context: _Optional[int] = ..., vocab_size: _Optional[int] = ..., block_size: _Optional[int] = ..., num_blocks: _Optional[int] = ..., max_running: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., generates: bool = ..., embeds: _Optional[_Union[Embeds, _Mapping]] = ..., ranks: bool = ..., adapters: _Optional[_Iterable[str]] = ..., extras: _Optional[_Iterable[str]] = ...) -> None: ...

class Embeds(_message.Message):
    __slots__ = ("size", "normalised")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NORMALISED_FIELD_NUMBER: _ClassVar[int]
    size: int
    normalised: bool
    def __init__(self, size: _Optional[int] = ..., normalised: bool = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("tokens_per_step", "ageing_steps", "whole_prompts")
    TOKENS_PER_STEP_FIELD_NUMBER: _ClassVar[int]
    AGEING_STEPS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    tokens_per_step: int
    ageing_steps: int
    whole_prompts: bool
    def __init__(self, tokens_per_step: _Optional[int] = ..., ageing_steps: _Optional[int] = ..., whole_prompts: bool = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CommandFrame(_message.Message):
    __slots__ = ("submits", "cancels", "attaches")
    SUBMITS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    ATTACHES_FIELD_NUMBER: _ClassVar[int]
    submits: _containers.RepeatedCompositeFieldContainer[Submit]
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    attaches: _containers.RepeatedCompositeFieldContainer[Attach]
    def __init__(self, submits: _Optional[_Iterable[_Union[Submit, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., attaches: _Optional[_Iterable[_Union[Attach, _Mapping]]] = ...) -> None: ...

class Submit(_message.Message):
    __slots__ = ("handle", "request")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    handle: int
    request: Request
    def __init__(self, handle: _Optional[int] = ..., request: _Optional[_Union[Request, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("handle", "id", "attempt", "positions")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    handle: int
    id: str
    attempt: int
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, handle: _Optional[int] = ..., id: _Optional[str] = ..., attempt: _Optional[int] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("handle", "choice", "detach")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    handle: int
    choice: int
    detach: bool
    def __init__(self, handle: _Optional[int] = ..., choice: _Optional[int] = ..., detach: bool = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "prompt", "sampling", "n", "priority", "cache_salt", "pooled", "second", "emitted", "adapter", "extras", "tenant", "weight", "kept")
    class ExtrasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CACHE_SALT_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    EMITTED_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    EXTRAS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    id: str
    prompt: _containers.RepeatedScalarFieldContainer[int]
    sampling: Sampling
    n: int
    priority: int
    cache_salt: bytes
    pooled: bool
    second: int
    emitted: _containers.RepeatedCompositeFieldContainer[Emitted]
    adapter: str
    extras: _containers.ScalarMap[str, str]
    tenant: bytes
    weight: int
    kept: Kept
    def __init__(self, id: _Optional[str] = ..., prompt: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., n: _Optional[int] = ..., priority: _Optional[int] = ..., cache_salt: _Optional[bytes] = ..., pooled: bool = ..., second: _Optional[int] = ..., emitted: _Optional[_Iterable[_Union[Emitted, _Mapping]]] = ..., adapter: _Optional[str] = ..., extras: _Optional[_Mapping[str, str]] = ..., tenant: _Optional[bytes] = ..., weight: _Optional[int] = ..., kept: _Optional[_Union[Kept, _Mapping]] = ...) -> None: ...

class Kept(_message.Message):
    __slots__ = ("context", "attempt")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    attempt: int
    def __init__(self, context: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class Emitted(_message.Message):
    __slots__ = ("ended", "tokens")
    ENDED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ended: bool
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ended: bool = ..., tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("max_tokens", "seed", "temperature", "top_k", "top_p", "min_p", "min_tokens", "presence", "frequency", "repetition", "bias", "stop_tokens", "logprobs", "prompt_logprobs", "allowed", "bad_words", "thinking", "grammar")
    class BiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    REPETITION_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    BAD_WORDS_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    seed: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    min_tokens: int
    presence: float
    frequency: float
    repetition: float
    bias: _containers.ScalarMap[int, float]
    stop_tokens: _containers.RepeatedScalarFieldContainer[int]
    logprobs: int
    prompt_logprobs: int
    allowed: Tokens
    bad_words: _containers.RepeatedCompositeFieldContainer[Tokens]
    thinking: ThinkingBudget
    grammar: str
    def __init__(self, max_tokens: _Optional[int] = ..., seed: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., min_tokens: _Optional[int] = ..., presence: _Optional[float] = ..., frequency: _Optional[float] = ..., repetition: _Optional[float] = ..., bias: _Optional[_Mapping[int, float]] = ..., stop_tokens: _Optional[_Iterable[int]] = ..., logprobs: _Optional[int] = ..., prompt_logprobs: _Optional[int] = ..., allowed: _Optional[_Union[Tokens, _Mapping]] = ..., bad_words: _Optional[_Iterable[_Union[Tokens, _Mapping]]] = ..., thinking: _Optional[_Union[ThinkingBudget, _Mapping]] = ..., grammar: _Optional[str] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class ThinkingBudget(_message.Message):
    __slots__ = ("tokens", "begin", "end")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    begin: _containers.RepeatedScalarFieldContainer[int]
    end: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tokens: _Optional[int] = ..., begin: _Optional[_Iterable[int]] = ..., end: _Optional[_Iterable[int]] = ...) -> None: ...

class StepFrame(_message.Message):
    __slots__ = ("number", "deltas", "load", "draining")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    number: int
    deltas: _containers.RepeatedCompositeFieldContainer[Delta]
    load: Load
    draining: bool
    def __init__(self, number: _Optional[int] = ..., deltas: _Optional[_Iterable[_Union[Delta, _Mapping]]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., draining: bool = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("handle", "choice", "position", "tokens", "cached", "logprobs", "finish", "prompt_logprobs", "vector", "failure", "extras")
    class ExtrasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    EXTRAS_FIELD_NUMBER: _ClassVar[int]
    handle: int
    choice: int
    position: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    cached: int
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprobs]
    finish: Finish
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprobs]
    vector: _containers.RepeatedScalarFieldContainer[float]
    failure: Failure
    extras: _containers.ScalarMap[str, str]
    def __init__(self, handle: _Optional[int] = ..., choice: _Optional[int] = ..., position: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., cached: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprobs, _Mapping]]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., prompt_logprobs: _Optional[_Iterable[_Union[TokenLogprobs, _Mapping]]] = ..., vector: _Optional[_Iterable[float]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., extras: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TokenLogprobs(_message.Message):
    __slots__ = ("logprob", "top_tokens", "top_logprobs")
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    top_tokens: _containers.RepeatedScalarFieldContainer[int]
    top_logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, logprob: _Optional[float] = ..., top_tokens: _Optional[_Iterable[int]] = ..., top_logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("reason", "generated", "stop_token")
    REASON_FIELD_NUMBER: _ClassVar[int]
    GENERATED_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    generated: int
    stop_token: int
    def __init__(self, reason: _Optional[str] = ..., generated: _Optional[int] = ..., stop_token: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "message", "param")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    param: str
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("running", "waiting", "waiting_tokens", "blocks_used", "blocks_total", "steps", "preemptions", "prefix_hit_tokens", "prefix_query_tokens", "alive", "tiers", "drafted_tokens", "accepted_tokens")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WAITING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_USED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    running: int
    waiting: int
    waiting_tokens: int
    blocks_used: int
    blocks_total: int
    steps: int
    preemptions: int
    prefix_hit_tokens: int
    prefix_query_tokens: int
    alive: bool
    tiers: _containers.RepeatedCompositeFieldContainer[Tier]
    drafted_tokens: int
    accepted_tokens: int
    def __init__(self, running: _Optional[int] = ..., waiting: _Optional[int] = ..., waiting_tokens: _Optional[int] = ..., blocks_used: _Optional[int] = ..., blocks_total: _Optional[int] = ..., steps: _Optional[int] = ..., preemptions: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ..., prefix_query_tokens: _Optional[int] = ..., alive: bool = ..., tiers: _Optional[_Iterable[_Union[Tier, _Mapping]]] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ...) -> None: ...

class Tier(_message.Message):
    __slots__ = ("tier", "blocks", "bytes", "stored", "evicted", "hits", "restored", "failures", "dropped")
    TIER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    tier: int
    blocks: int
    bytes: int
    stored: int
    evicted: int
    hits: int
    restored: int
    failures: int
    dropped: int
    def __init__(self, tier: _Optional[int] = ..., blocks: _Optional[int] = ..., bytes: _Optional[int] = ..., stored: _Optional[int] = ..., evicted: _Optional[int] = ..., hits: _Optional[int] = ..., restored: _Optional[int] = ..., failures: _Optional[int] = ..., dropped: _Optional[int] = ...) -> None: ...

class KvEventsRequest(_message.Message):
    __slots__ = ("epoch", "after")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    after: int
    def __init__(self, epoch: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class KvBatch(_message.Message):
    __slots__ = ("epoch", "sequence", "snapshot", "more", "changes")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    snapshot: bool
    more: bool
    changes: _containers.RepeatedCompositeFieldContainer[KvChange]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., snapshot: bool = ..., more: bool = ..., changes: _Optional[_Iterable[_Union[KvChange, _Mapping]]] = ...) -> None: ...

class KvChange(_message.Message):
    __slots__ = ("removed", "stored", "tier")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    removed: bytes
    stored: bytes
    tier: int
    def __init__(self, removed: _Optional[bytes] = ..., stored: _Optional[bytes] = ..., tier: _Optional[int] = ...) -> None: ...

class FindRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class FindReply(_message.Message):
    __slots__ = ("found", "attempt", "context")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    found: bool
    attempt: int
    context: bytes
    def __init__(self, found: bool = ..., attempt: _Optional[int] = ..., context: _Optional[bytes] = ...) -> None: ...
