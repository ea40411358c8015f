"""The modules `tensorrt_llm` and `tensorrt_llm.llmapi` of one version, for imports to find."""

import enum
import inspect
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

from tests.support.trtllm_standin.facts import NotInVersion, check_names, facts, signature
from tests.support.trtllm_standin.results import RequestOutput
from tests.support.trtllm_standin.simulator import Faults, Sequence, Simulator


@dataclass
class Recorder:
    """Every call that was made: (what, its names and values)."""

    calls: list[tuple[str, dict]] = field(default_factory=list)
    simulators: list[Simulator] = field(default_factory=list)
    kept: dict = field(default_factory=dict)  # KV caches that one engine may fetch from another

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


class _Handoff:
    """DisaggregatedParams as an engine tells them: every field, most of them empty."""

    def __init__(self, fields: dict, **told) -> None:
        check_names(told, fields, "DisaggregatedParams")
        for name in fields:
            setattr(self, name, told.get(name))


class _Module(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotInVersion(f"{self.__name__} has no {name}")


def _modules(version: str, recorder: Recorder, vocab_size: int, faults: Faults) -> dict:
    retention = _retention(version, recorder)
    names = {
        "LoRARequest": _lora(version, recorder),
        "KvCacheRetentionConfig": retention,
        "DisaggregatedParams": _values(version, "DisaggregatedParams", recorder, TypeError),
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


def _lora(version: str, recorder: Recorder) -> type:
    class LoRARequest(_values(version, "LoRARequest", recorder, TypeError)):
        def __init__(self, **given) -> None:
            super().__init__(**given)
            if not Path(self.lora_path).exists():
                raise ValueError("lora_path does not exist")

    return LoRARequest


def _retention(version: str, recorder: Recorder) -> type:
    """As upstream's: ranges of 0 to 100 in order, times as timedeltas."""
    ranges = _values(version, "TokenRangeRetentionConfig", recorder, TypeError)

    class KvCacheRetentionConfig(_values(version, "KvCacheRetentionConfig", recorder, TypeError)):
        TokenRangeRetentionConfig = ranges

        def __init__(self, **given) -> None:
            super().__init__(**given)
            end = 0
            for each in self.token_range_retention_configs:
                if end is None or each.token_start < end or not 0 <= each.priority <= 100:
                    raise ValueError("invalid ranges")
                end = each.token_end
                if end is not None and end <= each.token_start:
                    raise ValueError("invalid ranges")
                _check_time(each.duration_ms)
            _check_time(self.decode_duration_ms)

    return KvCacheRetentionConfig


def _check_time(value) -> None:
    if value is not None and not isinstance(value, timedelta):
        raise TypeError("a time is a timedelta")


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
        handoff = partial(_Handoff, facts(self.version)["DisaggregatedParams"])
        self._simulator = Simulator(told, self.vocab_size, self.faults, self.recorder.kept, handoff)
        self._args = args
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
            self._lora(call["lora_request"]),
            self._phase(call["disaggregated_params"]),
        )
        sequence.result = RequestOutput(self.version, lambda: self._simulator.abort(sequence))
        self._simulator.submit(sequence)
        return sequence.result

    def _lora(self, asked) -> int:
        if asked is None:
            return 0
        if not self._args.get("lora_config"):
            raise ValueError("LoRA is not configured")
        return asked.lora_int_id

    def _phase(self, asked):
        if asked is not None and not self._args.get("cache_transceiver_config"):
            raise ValueError("no cache transceiver is configured")
        return asked

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
