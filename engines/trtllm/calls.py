"""The calls to an open `tensorrt_llm.LLM`: no other file holds one of its objects by name."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from engines.api import GenerationRequest
from engines.errors import InvalidRequest
from engines.self_batching.cursor import Output
from engines.trtllm.features import Features
from engines.trtllm.sampling import Stage

_NOW = 0.0  # seconds to wait for events and statistics


class Result(Protocol):
    """A RequestOutput, as far as we use it; iterating yields it again whenever it has grown."""

    @property
    def outputs(self) -> Sequence[Output]: ...
    @property
    def finished(self) -> bool: ...

    def __aiter__(self) -> AsyncIterator[object]: ...

    def abort(self) -> None: ...


class Calls:
    """`package` and `llmapi` are the modules `tensorrt_llm` and `tensorrt_llm.llmapi`."""

    def __init__(self, llm: Any, package: Any, llmapi: Any, features: Features) -> None:
        self._llm = llm
        self._package = package
        self._llmapi = llmapi
        self._features = features

    def begin(self, stage: Stage, request: GenerationRequest) -> Result:
        """Hand a stage over. Raises InvalidRequest where the engine refuses it at once."""
        call: dict[str, Any] = {"inputs": stage.prompt, "streaming": True}
        if request.cache_salt:
            call["cache_salt"] = request.cache_salt.hex()
        if "priority" in self._features.call:
            call["priority"] = urgency(request.priority)
        try:
            call["sampling_params"] = self._sampling_params(stage)
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
