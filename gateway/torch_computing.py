"""How torch computes a decoder: what it will take, in one process or in several, and its runner."""

# ruff: noqa: PLC0415 - torch is imported when it is chosen: it takes seconds

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import ModelRejected
from engines.grammar.compiler import GrammarCompiler
from engines.step import StepRunner
from gateway.kv_budget import KvBudget
from gateway.loading_phases import in_words
from gateway.memory_plan import MemoryPlan, Room, plan_memory
from gateway.memory_room import demand_of, gpu_room
from gateway.opened import Report
from gateway.settings import Settings

if TYPE_CHECKING:
    import torch

    from engines.torch.decoders import Decoder
    from engines.torch.loading import LoadedModel

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A loaded decoder; a divided one comes with what steps all of its parts."""

    loaded: "LoadedModel"
    divided: "Decoder | None" = None


def plan_torch(path: Path, settings: Settings, machine: Room) -> MemoryPlan:
    """What the model will take, before any of it is loaded. Raises ModelRejected."""
    import torch

    from engines.torch.footprint import read_footprint
    from engines.torch.linear import can_pack
    from engines.torch.loading import choose_place
    from engines.torch.parallel.layout import check_divisible

    footprint = read_footprint(path)
    if settings.tensor_parallel > 1:
        check_divisible(path, footprint, settings.tensor_parallel)
    place = choose_place(settings.device, settings.dtype, footprint.dtype)
    on_gpu = place.device.type == "cuda"
    room = machine
    if on_gpu:
        gpus = _gpus(place.device, settings.tensor_parallel)
        room = gpu_room(settings.memory, min(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus))
    dtype = str(place.dtype).removeprefix("torch.")
    packs = can_pack(place.device, place.dtype)
    return plan_memory(footprint, demand_of(settings, dtype, on_gpu=on_gpu, packs=packs), room)


def _gpus(chosen: "torch.device", ranks: int) -> list["torch.device"]:
    import torch

    if ranks == 1:
        return [chosen]
    found = torch.cuda.device_count()
    if found < ranks:
        raise ModelRejected(f"--tensor-parallel {ranks} takes a GPU for each part: {found} found")
    return [torch.device("cuda", rank) for rank in range(ranks)]


def load_torch(path: Path, settings: Settings, kv: KvBudget, report: Report) -> TorchModel:
    """Load the decoder in a directory, with room for these blocks. Raises ModelRejected."""
    from engines.torch.loading import choose_place, open_model

    if settings.tensor_parallel == 1:
        loaded = open_model(
            path,
            dtype=settings.dtype,
            device=settings.device,
            threads=settings.threads,
            progress=in_words(report),
        )
        return TorchModel(loaded)
    from engines.torch.parallel.opening import open_divided
    from engines.torch.parallel.part import Part

    device = choose_place(settings.device, "float32", "float32").device.type
    part = Part(
        path=str(path.absolute()),
        device=device,
        ranks=settings.tensor_parallel,
        num_blocks=kv.blocks,
        block_size=settings.block_size,
        max_rows=settings.max_running,
        dtype=settings.dtype,
        threads=settings.threads,
    )
    divided = open_divided(part, in_words(report))
    if device == "cuda" and settings.cuda_graphs != "never":
        _log.warning("decoding runs without CUDA graphs: the model is divided among GPUs")
    _log.info("the model is computed in parts by %d processes", settings.tensor_parallel)
    return TorchModel(divided.loaded, divided.decoder)


def torch_runner(
    model: TorchModel,
    kv: KvBudget,
    settings: Settings,
    grammars: GrammarCompiler | None,
    report: Report,
) -> StepRunner:
    """What steps the model over its KV blocks."""
    from engines.torch.decoders import open_decoder
    from engines.torch.pooling_runner import PoolingRunner
    from engines.torch.runner import TorchRunner
    from engines.torch.vector_runner import VectorRunner

    loaded = model.loaded
    if not loaded.facts.generates:
        return VectorRunner(loaded, num_blocks=kv.blocks, block_size=settings.block_size)
    sizes = {"num_blocks": kv.blocks, "block_size": settings.block_size}
    lanes, graphs = settings.max_running, settings.cuda_graphs
    decoder = model.divided
    if decoder is None:
        if loaded.device.type == "cuda" and graphs == "start":
            report("capturing CUDA graphs")
        decoder = open_decoder(loaded, **sizes, max_rows=lanes, graphs=graphs)
    tokens = TorchRunner(loaded, **sizes, max_lanes=lanes, grammars=grammars, decoder=decoder)
    return PoolingRunner(tokens, loaded)
