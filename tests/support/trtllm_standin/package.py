"""The modules `tensorrt_llm` and `tensorrt_llm.llmapi` of one version, for imports to find."""

import enum
import inspect
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

from tests.support.trtllm_standin.facts import NotInVersion, check_names, facts, signature
from tests.support.trtllm_standin.results import RequestOutput
from tests.support.trtllm_standin.simulator import Faults, Sequence, Simulator


@dataclass
class Recorder:
    """Every call that was made: (what, its names and values)."""

    calls: list[tuple[str, dict]] = field(default_factory=list)
    simulators: list[Simulator] = field(default_factory=list)

    @property
    def simulator(self) -> Simulator:
        return self.simulators[-1]


@contextmanager
def installed(version: str, *, vocab_size: int = 500, faults: Faults | None = None):
    """`import tensorrt_llm` finds the stand-in of this version meanwhile."""
    recorder = Recorder()
    modules = _modules(version, recorder, vocab_size, faults or Faults())
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield recorder
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class _Module(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotInVersion(f"{self.__name__} has no {name}")


def _modules(version: str, recorder: Recorder, vocab_size: int, faults: Faults) -> dict:
    names = {
        "LLM": _llm(version, recorder, vocab_size, faults),
        "SamplingParams": _values(version, "SamplingParams", recorder, TypeError),
        "GuidedDecodingParams": _values(version, "GuidedDecodingParams", recorder, TypeError),
        "KvCacheConfig": _model(version, "KvCacheConfig", recorder),
        "SchedulerConfig": _model(version, "SchedulerConfig", recorder),
        "TorchLlmArgs": _model(version, "TorchLlmArgs", recorder),
    }
    modules = {}
    for module, has in facts(version)["modules"].items():
        modules[module] = _Module(module)
        for name in has:
            setattr(modules[module], name, names[name])
    return modules


def _values(version: str, kind: str, recorder: Recorder, error: type[Exception]) -> type:
    """A class of keyword values; what it does not know raises `error`, as upstream's does."""
    fields = facts(version)[kind]

    class Values:
        def __init__(self, **given) -> None:
            unknown = sorted(given.keys() - fields.keys())
            if unknown:
                raise error(f"{kind} has no {unknown}")
            check_names(given, fields, kind)
            recorder.calls.append((kind, given))
            for name, told in fields.items():
                setattr(self, name, given.get(name, told.get("default")))

    Values.__name__ = kind
    Values.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in fields]
    )
    return Values


def _model(version: str, kind: str, recorder: Recorder) -> type:
    policies = facts(version)["WaitingQueuePolicy"]
    model = _values(version, kind, recorder, ValueError)
    model.model_fields = {name: SimpleNamespace(annotation=None) for name in facts(version)[kind]}
    if "waiting_queue_policy" in model.model_fields:
        members = enum.StrEnum("WaitingQueuePolicy", {name: name.lower() for name in policies})
        model.model_fields["waiting_queue_policy"].annotation = members
    return model


def _llm(version: str, recorder: Recorder, vocab_size: int, faults: Faults) -> type:
    own = {"table": facts(version), "recorder": recorder, "faults": faults}
    kind = type("LLM", (_LLM,), {**own, "version": version, "vocab_size": vocab_size})
    for name in ("generate_async", "get_kv_cache_events_async", "get_stats_async"):
        setattr(kind, name, _with_signature(getattr(kind, name), own["table"]["LLM"][name]))
    return kind


def _with_signature(function, parameters: list[dict]):
    def told(self, *args, **kwargs):
        return function(self, *args, **kwargs)

    told.__signature__ = signature(parameters)
    return told


class _LLM:
    """What every version has; its subclass knows which names."""

    def __init__(self, **args) -> None:
        check_names(args, self.table["TorchLlmArgs"], "LlmArgs")
        self.recorder.calls.append(("LLM", args))
        scheduler = args.get("scheduler_config")
        told = {
            **args,
            "kv_cache_config": vars(args["kv_cache_config"]),
            "policy": getattr(scheduler, "waiting_queue_policy", None),
        }
        self._simulator = Simulator(told, self.vocab_size, self.faults)
        self._generated = False
        self.recorder.simulators.append(self._simulator)

    def generate_async(self, *args, **kwargs):
        call = self._bound("generate_async", args, kwargs)
        first, self._generated = not self._generated, True
        if self.faults.refuses and not first:
            raise ValueError(self.faults.refuses)
        sequence = Sequence(
            list(call["inputs"]),
            call["sampling_params"],
            call["cache_salt"],
            call.get("priority", 0.5),
        )
        sequence.result = RequestOutput(self.version, lambda: self._simulator.abort(sequence))
        self._simulator.submit(sequence)
        return sequence.result

    def get_kv_cache_events_async(self, *args, **kwargs):
        self._bound("get_kv_cache_events_async", args, kwargs)
        return self._drained(self._simulator.cache.events)

    def get_stats_async(self, *args, **kwargs):
        self._bound("get_stats_async", args, kwargs)
        return self._drained(self._simulator.stats)

    def shutdown(self) -> None:
        self._simulator.close()

    async def _drained(self, records: list):
        if not self._generated:
            raise NotInVersion("nothing is told before the first generation")
        while records:
            yield records.pop(0)

    def _bound(self, name: str, args: tuple, kwargs: dict) -> dict:
        parameters = self.table["LLM"][name]
        check_names(kwargs, {each["name"]: each for each in parameters}, name)
        bound = signature(parameters).bind(*args, **kwargs)
        self.recorder.calls.append((name, dict(bound.arguments)))
        bound.apply_defaults()
        return bound.arguments
