"""The calls to an open AsyncLLM: no other file holds one of its objects by name."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

from engines.api import GenerationRequest
from engines.errors import EngineError, EngineUnavailable, InvalidRequest, RequestFailed
from engines.self_batching.cursor import Output
from engines.vllm.features import Package
from engines.vllm.orphans import Guard
from engines.vllm.sampling import Stage

_log = logging.getLogger(__name__)


class Told(Protocol):
    """A RequestOutput, as far as we read it. Its one output is cumulative."""

    @property
    def outputs(self) -> Sequence[Output]: ...
    @property
    def finished(self) -> bool: ...
    @property
    def num_cached_tokens(self) -> int | None: ...
    @property
    def prompt_logprobs(self) -> Sequence[Any] | None: ...


class Calls:
    """`guard`: sees to it that no process of the engine stays behind; kept as long as this is."""

    def __init__(self, llm: Any, package: Package, guard: Guard, *, by_priority: bool) -> None:
        self._llm: Any = llm  # None once it was shut down
        self._package = package
        self._guard = guard
        self._by_priority = by_priority
        self._begun = 0

    @property
    def failed(self) -> bool:
        """Whether the engine has died."""
        return self._llm is None or bool(self._llm.errored)

    @asynccontextmanager
    async def call(
        self, stage: Stage, request: GenerationRequest
    ) -> AsyncIterator[AsyncIterator[Told]]:
        """Hand a stage over, and yield what is told of it; nothing of it runs behind the end.

        Raises InvalidRequest where its parameters are refused, or would be others.
        """
        self._begun += 1
        name = f"{request.id}-{self._begun}"  # an id that is used again is another call's
        parameters = self._parameters(stage)
        salt = request.cache_salt.hex() or None
        urgency = {"priority": request.priority} if self._by_priority else {}
        call = _Call(
            self._llm.generate(
                prompt=self._package.inputs.tokens_input(stage.prompt, cache_salt=salt),
                sampling_params=parameters,
                request_id=name,
                **urgency,
            )
        )
        try:
            async with aclosing(call.told):
                yield call
        finally:
            # A generator that is cancelled before it was given its first output aborts nothing.
            if not call.finished and not self.failed:
                await self._llm.abort(name)

    def meaning(self, error: BaseException) -> EngineError | None:
        """What an error means for its request alone; None where the engine has failed."""
        if isinstance(error, InvalidRequest | RequestFailed):
            return error
        kinds = {kind.__name__ for kind in type(error).__mro__}  # they have moved between modules
        if self.failed or "EngineDeadError" in kinds:
            return None
        return _blame(error, kinds)

    def shutdown(self) -> None:
        """End the engine's processes; blocks."""
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None  # it does so once more when it goes, and the interpreter's end is late
        self._guard.release()

    def _parameters(self, stage: Stage) -> Any:
        """SamplingParams that say what was asked: some values it changes, and only warns."""
        wanted = dict(stage.parameters)
        kinds = self._package.sampling
        try:
            if stage.guide is not None:
                wanted["structured_outputs"] = kinds.StructuredOutputsParams(**stage.guide)
            made = kinds.SamplingParams(**wanted)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InvalidRequest(str(error), param="sampling") from error
        except Exception as error:
            if (meant := self.meaning(error)) is None:
                raise
            raise meant from error
        for name, value in wanted.items():
            if getattr(made, name) != value:
                kept = getattr(made, name)
                raise InvalidRequest(f"vLLM would make {name} {kept}, not {value}", param=name)
        return made


def _blame(error: BaseException, kinds: set[str]) -> EngineError | None:
    if kinds & {"VLLMClientError", "VLLMValidationError"}:
        return InvalidRequest(str(error), param=getattr(error, "parameter", None) or "sampling")
    if "GracefulHTTPError" in kinds:
        return EngineUnavailable(str(error))
    if "EngineGenerateError" not in kinds:
        return None
    cause = error.__cause__
    if isinstance(cause, ValueError | NotImplementedError):
        return InvalidRequest(str(cause), param="sampling")
    _log.error("a call failed, and the engine did not", exc_info=error)
    return RequestFailed(f"the engine failed under this request: {cause or error}")


class _Call:
    """The outputs of one call, and whether its last was told."""

    def __init__(self, told: Any) -> None:
        self.told = told
        self.finished = False

    def __aiter__(self) -> "_Call":
        return self

    async def __anext__(self) -> Told:
        told: Told = await anext(self.told)
        self.finished = told.finished
        return told
