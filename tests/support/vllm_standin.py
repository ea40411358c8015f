"""A strict stand-in for `vllm`: the names of tests/contract's table and no others.

It shows that the adapter calls what
there is, and does right with what comes back; not that vLLM computes anything.
"""

import asyncio
import contextlib
import dataclasses
import inspect
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

from tests.support.vllm_facts import facts, signature
from tests.support.vllm_simulator import CallFailed, Faults, Sequence, Simulator

VOCAB = 500


class VLLMValidationError(Exception):
    """A client's fault; the class of this name is told by its name."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class EngineGenerateError(Exception):
    """One call failed, and the engine did not."""


class EngineDeadError(Exception):
    """The engine failed."""


@dataclass
class Recorder:
    """What was made and called."""

    parameters: list = field(default_factory=list)  # of SamplingParams
    engines: list = field(default_factory=list)

    @property
    def simulator(self) -> Simulator:
        return self.engines[-1].simulator


def _values(name: str, recorder: Recorder) -> type:
    """A class of keyword values, which knows those of the table."""
    known = facts()[name]

    class Values:
        def __init__(self, **given) -> None:
            unknown = sorted(given.keys() - set(known))
            if unknown:
                raise TypeError(f"{name} has no {unknown}")
            self.__dict__.update(given)
            if name == "SamplingParams":
                recorder.parameters.append(given)
                _check(self, given)

        def __getattr__(self, wanted: str):
            if wanted not in known:
                raise AttributeError(wanted)

    Values.__signature__ = inspect.Signature(
        [inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=None) for each in known]
    )
    return Values


def _check(made, given: dict) -> None:
    """What vLLM refuses, and what it changes with a warning."""
    temperature = given.get("temperature", 1.0)
    if temperature > 2:
        raise VLLMValidationError(f"temperature must be in [0, 2], got {temperature}.")
    if 0 < temperature < 0.01:
        made.temperature = 0.01


class Output:
    """A RequestOutput: cumulative."""

    def __init__(self) -> None:
        self.finished = False
        self.num_cached_tokens = 0
        self.prompt_logprobs = None
        self.outputs = [
            SimpleNamespace(token_ids=[], logprobs=[], finish_reason=None, stop_reason=None)
        ]

    def grow(self, told) -> None:
        """Take in what the simulator says."""
        (output,) = self.outputs
        output.token_ids.append(told.token)
        if told.entry is not None:
            output.logprobs.append(told.entry)
        output.finish_reason, output.stop_reason = told.reason, told.stop
        self.finished = told.reason is not None
        self.num_cached_tokens = max(self.num_cached_tokens, told.cached)


class _Result:
    """What the simulator responds to, from its thread; it is never ahead of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.responses: asyncio.Queue = asyncio.Queue()

    def respond(self, told) -> None:
        delivered = threading.Event()

        def deliver() -> None:
            self.responses.put_nowait(told)
            delivered.set()

        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(deliver)
            delivered.wait(timeout=10)


class AsyncLLM:
    """Of the module vllm.v1.engine.async_llm; `_engine_class` gives it a recorder and faults."""

    recorder: Recorder
    faults: Faults

    def __init__(self, engine_args, stat_loggers) -> None:
        given = engine_args.__dict__
        size = given.get("block_size") or 32
        blocks = given.get("num_gpu_blocks_override") or 201
        running = given.get("max_num_seqs") or 8
        self.simulator = Simulator(
            running=running, block_size=size, vocab_size=VOCAB, faults=self.faults
        )
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(num_gpu_blocks=blocks, block_size=size),
            scheduler_config=SimpleNamespace(
                max_num_seqs=running,
                max_num_batched_tokens=given.get("max_num_batched_tokens") or 64,
            ),
            model_config=SimpleNamespace(
                max_model_len=given.get("max_model_len") or 128, get_vocab_size=lambda: VOCAB
            ),
        )
        self.errored = False
        self.open: dict[str, Sequence] = {}
        self._loggers = [make(self.vllm_config, 0) for make in stat_loggers or ()]
        self._calls = 0
        self.recorder.engines.append(self)

    async def generate(self, **call):
        if self.errored:
            raise EngineDeadError
        self._calls += 1
        if self.faults.refuses and self._calls > 1:
            raise VLLMValidationError(self.faults.refuses)
        name, params, prompt = call["request_id"], call["sampling_params"], call["prompt"]
        result = _Result()
        urgency = call["priority"] or 0
        sequence = Sequence(
            prompt["prompt_token_ids"], params, prompt["cache_salt"], urgency, result.respond
        )
        self.open[name] = sequence
        self.simulator.submit(sequence)
        output = Output()
        try:
            while not output.finished:
                output.grow(await self._next(result))
                yield output
            del self.open[name]
        except (asyncio.CancelledError, GeneratorExit):
            await self.abort(name)
            raise

    async def _next(self, result: _Result):
        told = await result.responses.get()
        for logger in self._loggers:
            waiting = SimpleNamespace(num_waiting_reqs=self.simulator.waiting)
            logger.record(waiting, SimpleNamespace(num_preempted_reqs=0), mm_cache_stats=None)
        if isinstance(told, CallFailed):
            raise EngineGenerateError from told
        if isinstance(told, BaseException):
            self.errored = True
            raise EngineDeadError
        return told

    async def abort(self, request_id) -> None:
        sequence = self.open.pop(request_id, None)
        if sequence is not None:
            self.simulator.abort(sequence)

    def shutdown(self) -> None:
        self.simulator.close()


def _engine_class(recorder: Recorder, faults: Faults) -> type:
    """AsyncLLM, whose calls are bound to the table's signatures."""
    calls = facts()["calls"]
    kind = type("AsyncLLM", (AsyncLLM,), {"recorder": recorder, "faults": faults})

    def bound(name, function):
        def call(self, *args, **kwargs):
            given = signature(calls[name]).bind(*args, **kwargs)
            given.apply_defaults()
            return function(self, **given.arguments)

        call.__signature__ = signature(calls[name])
        return call

    kind.generate = bound("generate", AsyncLLM.generate)

    def opened(*args, **kwargs):
        given = signature(calls["from_engine_args"]).bind(*args, **kwargs)
        given.apply_defaults()
        return kind(given.arguments["engine_args"], given.arguments["stat_loggers"])

    opened.__signature__ = signature(calls["from_engine_args"])
    kind.from_engine_args = staticmethod(opened)
    return kind


def _arguments() -> type:
    nested = {
        name: dataclasses.make_dataclass(name, [(each, object, None) for each in known])
        for name, known in facts()["nested"].items()
    }
    fields = [
        (name, object, field(default_factory=nested[name]) if name in nested else None)
        for name in facts()["AsyncEngineArgs"]
    ]
    return dataclasses.make_dataclass("AsyncEngineArgs", fields)


def _tokens_input(*args, **kwargs) -> dict:
    given = signature(facts()["calls"]["tokens_input"]).bind(*args, **kwargs)
    given.apply_defaults()
    return dict(given.arguments)


_tokens_input.__signature__ = signature(facts()["calls"]["tokens_input"])


@contextmanager
def installed(faults: Faults | None = None):
    """`import vllm...` finds the stand-in meanwhile."""
    recorder = Recorder()
    has = {
        "vllm": {},
        "vllm.engine": {},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.sampling_params": {
            "SamplingParams": _values("SamplingParams", recorder),
            "StructuredOutputsParams": _values("StructuredOutputsParams", recorder),
        },
        "vllm.inputs": {"tokens_input": _tokens_input},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": _arguments()},
        "vllm.v1.engine.async_llm": {"AsyncLLM": _engine_class(recorder, faults or Faults())},
    }
    kept = {name: sys.modules.get(name) for name in has}
    for name, values in has.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(values)
    try:
        yield recorder
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
