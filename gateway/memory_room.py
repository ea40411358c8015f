"""How much memory a model may take, and how it is to be served, of the settings."""

from collections.abc import Sequence
from dataclasses import replace

from engines.openvino.version import QUANTISED
from gateway.free_memory import free_memory
from gateway.memory_plan import Demand, Room
from gateway.settings import Settings

# One part in so many is left alone. On a machine: for other processes, and for files that are read
# again and again; on a GPU: for its context, workspaces and fragmentation.
_SPARED_OF_MACHINE = 5
_SPARED_OF_GPU = 10
_GIVEN = "--memory, or the share of one of --replicas"


def machine_room(limit: int) -> Room:
    """What this process may take now; `limit` is --memory, 0 for none."""
    free = free_memory()
    if limit and limit <= free.bytes:
        return Room(limit, _GIVEN)
    return Room(free.bytes, free.source, 0 if limit else _SPARED_OF_MACHINE)


def gpu_room(limit: int, free_bytes: int) -> Room:
    """What is free on a GPU, within the limit."""
    if limit and limit <= free_bytes:
        return Room(limit, _GIVEN)
    return Room(free_bytes, "what the GPU has free", 0 if limit else _SPARED_OF_GPU)


def given_room(limit: int) -> Room:
    """What a plan for any machine is told that there is."""
    return Room(limit, _GIVEN)


def with_share(settings: Settings, gpus: Sequence[str]) -> Settings:
    """The settings of each of several workers that start at once: none could see the others."""
    on_cpu = settings.device == "cpu" or not gpus
    if settings.replicas == 1 or settings.memory or not on_cpu:
        return settings
    return replace(settings, memory=machine_room(0).usable_bytes // settings.replicas)


def demand_of(settings: Settings, dtype: str, *, on_gpu: bool, packs: bool) -> Demand:
    """How the settings serve a model in a precision."""
    return Demand(
        dtype=dtype,
        on_gpu=on_gpu,
        packs=packs,
        max_running=settings.max_running,
        max_context=settings.max_context,
        block_size=settings.block_size,
        step_tokens=settings.max_step_tokens,
        kv_asked_bytes=settings.kv_cache_memory,
        host_bytes=settings.kv_host_memory,
        ranks=settings.tensor_parallel,
        quantised=settings.dtype if settings.dtype in QUANTISED else None,
    )
