"""The calls to an open `tensorrt_llm.LLM`: no other file holds one of its objects by name."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from engines.api import GenerationRequest
from engines.errors import InvalidRequest
from engines.self_batching.cursor import Output
from engines.trtllm.features import Features
from engines.trtllm.retention import Retention
from engines.trtllm.salts import salt_text
from engines.trtllm.sampling import Stage
from engines.trtllm.special import Special

_NOW = 0.0  # seconds to wait for events and statistics


class PhaseOutput(Output, Protocol):
    """A CompletionOutput, as far as we read it."""

    @property
    def disaggregated_params(self) -> object: ...


class Result(Protocol):
    """A RequestOutput, as far as we use it; iterating yields it again whenever it has grown."""

    @property
    def outputs(self) -> Sequence[PhaseOutput]: ...
    @property
    def finished(self) -> bool: ...

    def __aiter__(self) -> AsyncIterator[object]: ...

    def abort(self) -> None: ...


class Calls:
    """`package` and `llmapi` are the modules `tensorrt_llm` and `tensorrt_llm.llmapi`.

    `adapters`: a LoRARequest for each.
    """

    def __init__(
        self,
        llm: Any,
        package: Any,
        llmapi: Any,
        features: Features,
        adapters: Mapping[str, Any] | None = None,
    ) -> None:
        self._llm = llm
        self._package = package
        self._llmapi = llmapi
        self._features = features
        self._adapters = adapters or {}

    def begin(self, stage: Stage, request: GenerationRequest) -> Result:
        """Hand a stage over. Raises InvalidRequest where the engine refuses it at once."""
        call: dict[str, Any] = {"inputs": stage.prompt, "streaming": True}
        salt = salt_text(request.cache_salt, request.adapter)
        if salt and "cache_salt" in self._features.call:
            call["cache_salt"] = salt
        if "priority" in self._features.call:
            call["priority"] = urgency(request.priority)
        try:
            call["sampling_params"] = self._sampling_params(stage)
            call |= self._special(stage.special)
            result: Result = self._llm.generate_async(**call)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InvalidRequest(str(error), param="sampling") from error
        return result

    def events(self) -> AsyncIterator[Mapping[str, Any] | str]:
        """What has happened to the KV cache."""
        told: AsyncIterator[Mapping[str, Any] | str]
        told = self._llm.get_kv_cache_events_async(timeout=_NOW)
        return told

    def stats(self) -> AsyncIterator[Mapping[str, Any] | str]:
        """The statistics of the last iterations."""
        told: AsyncIterator[Mapping[str, Any] | str] = self._llm.get_stats_async(timeout=_NOW)
        return told

    def shutdown(self) -> None:
        """Free the device; blocks."""
        self._llm.shutdown()

    def _special(self, special: Special) -> dict[str, Any]:
        call: dict[str, Any] = {}
        if special.adapter:
            call["lora_request"] = self._adapters[special.adapter]
        if special.retention is not None:
            call["kv_cache_retention_config"] = self._retention(special.retention)
        if special.phase is not None:
            phases = self._llmapi.DisaggregatedParams
            call["disaggregated_params"] = phases(**special.phase.arguments)
        return call

    def _retention(self, retention: Retention) -> Any:
        kind = self._llmapi.KvCacheRetentionConfig
        ranges = [kind.TokenRangeRetentionConfig(**asdict(each)) for each in retention.ranges]
        decode: dict[str, Any] = {}
        if retention.decode_retention_priority is not None:
            decode["decode_retention_priority"] = retention.decode_retention_priority
        if retention.decode_duration_ms is not None:
            decode["decode_duration_ms"] = retention.decode_duration_ms
        return kind(token_range_retention_configs=ranges, **decode)

    def _sampling_params(self, stage: Stage) -> Any:
        parameters = dict(stage.parameters)
        if stage.bias is not None:
            import torch  # noqa: PLC0415 - TensorRT-LLM brings it; nobody else of us needs it

            parameters["embedding_bias"] = torch.from_numpy(stage.bias)
        if stage.guide is not None:
            parameters["guided_decoding"] = self._llmapi.GuidedDecodingParams(**stage.guide)
        return self._package.SamplingParams(**parameters)


def urgency(priority: int) -> float:
    """Our classes (lower is earlier, without bounds) as its 0 to 1 (higher is earlier)."""
    return 0.5 - priority / (2 * (1 + abs(priority)))


def is_request_error(error: BaseException) -> bool:
    """Whether only the request failed. The class has moved between modules, so its name counts."""
    return any(kind.__name__ == "RequestError" for kind in type(error).__mro__)


def cached_tokens(result: Result) -> int:
    """Prompt tokens from the prefix cache; not in upstream's stable table, so it may be missing."""
    return int(getattr(result, "cached_tokens", 0) or 0)
