"""Open a local model directory for the OpenVINO runner: check, lower or find, compile."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType

from openvino import CompiledModel, Core, Model, Type

from engines.errors import ModelRejected
from engines.openvino.graph_cache import cached, graph_digest, graph_of
from engines.openvino.known_facts import facts_of, known
from engines.openvino.lowering_process import lower_apart
from engines.openvino.offered import check_family
from engines.openvino.paged_op import check_version, tell_layout
from engines.torch.checkpoint import check_weights
from engines.torch.families import ModelFacts

_DEVICE = "CPU"
_ROW_GROUP = 32  # inputs that share a scale where rows are quantised to meet quantised weights
_LOWERING_BYTES = 8  # per weight; 6 to 7 were seen: in float32, and as they are stored
_LIBRARIES_BYTES = 512 << 20  # of torch and transformers

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Precision:
    """How a data type of ours is computed."""

    inference: str  # what the plugin multiplies in, and what keys and values are kept in
    item_bytes: int  # of keys and values
    quantised: bool = False  # weights in few bits


@dataclass(frozen=True, slots=True)
class Lowering:
    """How a model is lowered, where it has to be."""

    free_bytes: int = sys.maxsize  # what it may take
    apart: bool = False  # in a process of its own, so that this one stays small


_HERE = Lowering()

_PRECISIONS = MappingProxyType(
    {
        "float32": Precision("f32", 4),
        "bfloat16": Precision("bf16", 2),
        "int8": Precision("bf16", 2, quantised=True),
        "int4": Precision("bf16", 2, quantised=True),
    }
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model compiled for this CPU."""

    compiled: CompiledModel
    facts: ModelFacts
    dtype: str  # float32, bfloat16, int8 or int4
    precision: Precision
    digest: str  # of the graph, and so of all it was made from
    weights: Path  # what they are mapped from

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        facts = self.facts
        return 2 * facts.layers * facts.kv_heads * facts.head_dim * self.precision.item_bytes


def open_model(
    path: Path,
    *,
    dtype: str = "auto",
    cache: Path | None = None,
    threads: int = 0,
    lowering: Lowering = _HERE,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load the model in `path`, a directory as published on the hub.

    `dtype` is float32 (auto), bfloat16, int8 or int4: weights of so many bits, computed in bfloat16
    where the CPU has it. `cache` is where lowered graphs are kept; without one the model is lowered
    at every start. `threads` compute; 0 is the plugin's choice. `progress` is called with a phase
    (check, lower, compile, ready) and its fraction of the whole.

    Raises ModelRejected when the directory cannot be served, saying what was found.
    """
    report = progress or _ignore
    report("check", 0.0)
    check_version()
    check_family(path)
    folder = cache or Path(mkdtemp(prefix="penstock-graph-"))
    try:
        return _open(path, dtype, folder, threads, lowering, report)
    except OSError as error:
        raise ModelRejected(f"the lowered model cannot be kept in {folder}: {error}") from error
    finally:
        if cache is None:
            shutil.rmtree(folder, ignore_errors=True)  # what is mapped of it stays


def _open(
    path: Path, asked: str, folder: Path, threads: int, lowering: Lowering, report: Progress
) -> LoadedModel:
    core = Core()
    dtype, precision = _precision(asked, core)
    _check_threads(dtype, threads)
    digest = graph_digest(path, check_weights(path), dtype)
    graph = graph_of(folder, digest)
    if not (graph.exists() and known(path, folder)):
        report("lower", 0.1)
        lower = lower_apart if lowering.apart else lower_into
        lower(path, dtype, folder, lowering.free_bytes)
    facts = facts_of(path, folder)
    report("compile", 0.7)
    compiled = _compile(core, graph, facts, precision, threads)
    report("ready", 1.0)
    return LoadedModel(compiled, facts, dtype, precision, digest, graph.with_suffix(".bin"))


def _ignore(_phase: str, _fraction: float) -> None:
    return None


def computes_in(dtype: str) -> str:
    """float32 or bfloat16: what keys and values are kept in. Raises ModelRejected."""
    _, precision = _precision(dtype, Core())
    return {"f32": "float32", "bf16": "bfloat16"}[precision.inference]


def _precision(dtype: str, core: Core) -> tuple[str, Precision]:
    """What a data type means on this CPU. Raises ModelRejected."""
    dtype = "float32" if dtype == "auto" else dtype
    if dtype not in _PRECISIONS:
        raise ModelRejected(f"dtype {dtype!r} is not supported; use auto, {', '.join(_PRECISIONS)}")
    precision = _PRECISIONS[dtype]
    # Asking also loads the plugin, without which no stored graph with its operations can be read.
    able = "BF16" in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    if precision.inference == "bf16" and not able:
        if dtype == "bfloat16":
            raise ModelRejected("this CPU does not compute in bfloat16: use float32, int8 or int4")
        precision = replace(precision, inference="f32", item_bytes=4)
    return dtype, precision


def _check_threads(dtype: str, threads: int) -> None:
    """Refuse what ends the process: the plugin's bfloat16 kernels with AMX divide by half a thread.

    (2026.4.1 dies of SIGFPE in compile_model.) Raises ModelRejected.
    """
    count = min(threads or sys.maxsize, len(os.sched_getaffinity(0)))
    if dtype == "bfloat16" and count < 2 and _has_amx():
        raise ModelRejected(
            "OpenVINO cannot compute in bfloat16 with one thread on a CPU with AMX: use float32,"
            " int8 or int4, or two threads (--threads)"
        )


def _has_amx() -> bool:
    try:
        return "amx_tile" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def lower_into(path: Path, dtype: str, folder: Path, free_bytes: int) -> None:
    """Put a model's facts and its graph into a folder. Raises ModelRejected, OSError."""
    Core().get_property(_DEVICE, "FULL_DEVICE_NAME")  # loads the plugin, as `_precision` says
    facts = facts_of(path, folder)
    files = check_weights(path)

    def lowered() -> Model:
        _check_room(files, facts.dtype, free_bytes)
        return _lowered(path, facts, dtype)

    cached(folder, graph_digest(path, files, dtype), lowered)


def _check_room(files: tuple[Path, ...], published: str, free_bytes: int) -> None:
    """Refuse to begin what the system would end for want of memory. Raises ModelRejected."""
    item = 4 if published == "float32" else 2
    weights = sum(file.stat().st_size for file in files) // item
    need = _LIBRARIES_BYTES + weights * _LOWERING_BYTES
    if need > free_bytes:
        raise ModelRejected(
            f"lowering takes {need >> 20} MiB of memory, once, and {free_bytes >> 20} MiB are free"
        )


def _lowered(path: Path, facts: ModelFacts, dtype: str) -> Model:
    # Imported where they are needed: a graph that is kept starts without torch and transformers.
    from engines.openvino.lowering import lower  # noqa: PLC0415
    from engines.openvino.weights import to_bfloat16, to_int4, to_int8  # noqa: PLC0415

    try:
        graph = lower(path, facts)
    except ModelRejected:
        raise
    except Exception as error:  # whatever torch.export or the front end could not do
        raise ModelRejected(f"{path} could not be lowered to OpenVINO: {error}") from error
    if dtype == "bfloat16":
        to_bfloat16(graph)
    elif dtype == "int8":
        to_int8(graph)
    elif dtype == "int4":
        to_int4(graph)
    return graph


def _compile(
    core: Core, graph: Path, facts: ModelFacts, precision: Precision, threads: int
) -> CompiledModel:
    """The stored graph for this CPU; its weights stay mapped from the file."""
    model = core.read_model(graph)
    _keep_bfloat16(model)
    tell_layout(model, facts.kv_heads, facts.head_dim, precision.inference)
    return core.compile_model(
        model,
        _DEVICE,
        {
            "INFERENCE_PRECISION_HINT": precision.inference,
            "KV_CACHE_PRECISION": precision.inference,
            "INFERENCE_NUM_THREADS": threads,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _ROW_GROUP if precision.quantised else 0,
        },
    )


def _keep_bfloat16(graph: Model) -> None:
    """Keep the plugin from making float32 of rounded weights when it compiles a stored graph.

    The mark is OpenVINO's own and is not stored. With it a model of 100M weights takes 424 MiB
    instead of 697, and compiles in 0.3 s instead of 0.9.
    """
    for node in graph.get_ops():
        if node.get_type_name() == "Convert" and node.get_input_element_type(0) == Type.bf16:
            node.get_rt_info()["decompression_0"] = True
