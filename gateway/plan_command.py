"""`penstock plan`: what serving a model takes, asked without torch and before it is loaded."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from engines.errors import ModelRejected
from engines.openvino.version import QUANTISED
from gateway.memory_plan import MemoryPlan, Room, plan_memory
from gateway.memory_room import demand_of, given_room, gpu_room, machine_room, with_share
from gateway.opened import model_names, model_path
from gateway.openvino_choice import is_lowered
from gateway.settings import Settings

_CPUINFO = Path("/proc/cpuinfo")
_ASK = ("--query-gpu=memory.free", "--format=csv,noheader,nounits")
_ASK_S = 10
# What oneDNN needs to compute in bfloat16: all of one set.
_BFLOAT16 = (frozenset({"avx512bw", "avx512vl", "avx512dq"}), frozenset({"bf16"}))


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, of which model, and how often it is taken."""

    name: str
    device: str
    own_context: int
    plan: MemoryPlan
    replicas: int


def plan_of(settings: Settings) -> Planned:
    """The plan of what the settings would serve here. Raises ModelRejected as `serve` would."""
    if settings.engine not in ("auto", "torch", "openvino"):
        raise ModelRejected(
            f"--engine {settings.engine} is not planned: the memory of weights and KV blocks is"
            " known for --engine torch and openvino"
        )
    try:
        from engines.torch.families import choose_dtype  # noqa: PLC0415 - an optional extra
        from engines.torch.footprint import read_footprint  # noqa: PLC0415
        from engines.torch.parallel.layout import check_divisible  # noqa: PLC0415
    except ImportError as error:
        raise ModelRejected(
            f"the torch engine is not installed ({error.name} is missing): install penstock[torch]"
        ) from error
    path = model_path(settings)
    footprint = read_footprint(path)
    if settings.tensor_parallel > 1:
        check_divisible(path, footprint, settings.tensor_parallel)
    gpus = free_of_gpus() if _may_use_gpu(settings.device) else ()
    on_gpu = bool(gpus)
    lowered = not on_gpu and is_lowered(settings, path)
    asked = settings.dtype
    if lowered and asked in QUANTISED:
        asked = "bfloat16" if computes_bfloat16(cpuinfo()) else "float32"
    dtype = choose_dtype(asked, footprint.dtype, on_gpu=on_gpu)
    packed = not on_gpu and not lowered and packs(dtype, cpuinfo())
    demand = demand_of(settings, dtype, on_gpu=on_gpu, packs=packed)
    plan = plan_memory(footprint, demand, _room(settings, gpus))
    device = "cuda" if on_gpu else "cpu"
    own = footprint.max_context
    return Planned(model_names(settings)[0], device, own, plan, settings.replicas)


def packs(dtype: str, described: str) -> bool:
    """Whether a CPU of this description packs linear layers; engines/torch/linear.py asks torch."""
    return dtype == "float32" or computes_bfloat16(described)


def computes_bfloat16(described: str) -> bool:
    """Whether a CPU of this description does, for torch and OpenVINO alike: both use oneDNN."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", described, re.MULTILINE)
    known = frozenset(flags[1].split()) if flags else frozenset[str]()
    return any(needed <= known for needed in _BFLOAT16)


def free_of_gpus() -> tuple[int, ...]:
    """Free bytes of each NVIDIA GPU, as its own tool says; none where there is no tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        said = subprocess.run(  # noqa: S603 - no shell, no input
            [tool, *_ASK], capture_output=True, text=True, timeout=_ASK_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(line) << 20 for line in said.split() if line.isdigit())


def _may_use_gpu(device: str) -> bool:
    if device == "auto":
        try:
            return not metadata.version("torch").endswith("+cpu")
        except metadata.PackageNotFoundError:
            return False
    return device.startswith("cuda")


def _room(settings: Settings, gpus: tuple[int, ...]) -> Room:
    if settings.memory:
        return given_room(settings.memory)  # maybe of another machine
    if gpus:
        ranks = settings.tensor_parallel
        if ranks > len(gpus):
            raise ModelRejected(
                f"--tensor-parallel {ranks} takes a GPU for each part: {len(gpus)} found"
            )
        if ranks > 1:
            return gpu_room(0, min(gpus[:ranks]))
        number = int(settings.device.partition(":")[2] or 0)
        if number >= len(gpus):
            raise ModelRejected(f"device {settings.device!r} is not there: {len(gpus)} GPUs found")
        return gpu_room(0, gpus[number])
    shared = with_share(settings, ())
    return given_room(shared.memory) if shared.memory else machine_room(0)


def cpuinfo() -> str:
    """What the machine tells of its CPUs; nothing where it does not."""
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
