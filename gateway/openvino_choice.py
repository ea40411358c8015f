"""Whether openvino computes a model where nobody said which engine should, and its folder."""

import logging
from pathlib import Path

from engines.errors import ModelRejected
from engines.openvino.offered import check_family
from engines.openvino.version import BLOCK_SIZE, QUANTISED, why_not_here
from gateway.kv_budget import KvBudget
from gateway.memory_plan import Room, plan_memory
from gateway.memory_room import demand_of
from gateway.settings import Settings

_log = logging.getLogger(__name__)
_GPUS = ("nvidia[0-9]*", "dxg")  # in /dev; the second is Windows' own for Linux


class DoesNotFit(ModelRejected):
    """There is too little memory, whichever engine computes."""


def check_settings(settings: Settings, path: Path) -> None:
    """Raise ModelRejected where openvino is not here, or cannot serve a model as the settings say.

    What only opening it can tell is not among it.
    """
    why = why_not_here()
    if why is not None:
        raise ModelRejected(why)
    if settings.tensor_parallel > 1:
        raise ModelRejected(
            f"--tensor-parallel {settings.tensor_parallel}: openvino computes in one process"
        )
    if settings.device not in ("auto", "cpu"):
        raise ModelRejected(f"--device {settings.device}: the openvino engine runs on the CPU")
    if settings.block_size != BLOCK_SIZE:
        raise ModelRejected(
            f"--block-size {settings.block_size}: the openvino engine has blocks of {BLOCK_SIZE}"
            " tokens and no others"
        )
    check_family(path)


def is_lowered(settings: Settings, path: Path) -> bool:
    """Whether openvino would compute a model on this CPU.

    Raises ModelRejected where it was asked for and cannot.
    """
    if settings.engine == "torch":
        return False
    try:
        check_settings(settings, path)
    except ModelRejected:
        if settings.engine == "openvino" or settings.dtype in QUANTISED:
            raise
        return False
    return True


def lowered_kv(path: Path, settings: Settings, dtype: str, room: Room) -> KvBudget:
    """The blocks that fit beside a decoder, in the data type of keys and values.

    Raises DoesNotFit.
    """
    from engines.torch.footprint import read_footprint  # noqa: PLC0415 - of an optional extra

    demand = demand_of(settings, dtype, on_gpu=False, packs=False)
    try:
        kv = plan_memory(read_footprint(path), demand, room).kv
    except ModelRejected as error:
        raise DoesNotFit(str(error)) from None
    if kv is None:
        raise TypeError(f"{path} holds no decoder")
    return kv


def gpu_computes(settings: Settings, devices: Path = Path("/dev")) -> bool:
    """Whether torch would use a GPU; it is asked only where there seems to be one."""
    if settings.device != "auto":
        return settings.device != "cpu"
    if not any(next(devices.glob(pattern), None) for pattern in _GPUS):
        return False
    try:
        import torch  # noqa: PLC0415 - seconds
    except ImportError:
        return False
    return torch.cuda.is_available()


def graph_folder(settings: Settings) -> Path | None:
    """Where lowered graphs are kept; None where the default cannot be written."""
    if settings.graph_cache_dir is not None:
        return settings.graph_cache_dir
    try:
        folder = Path.home() / ".cache" / "penstock" / "graphs"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter where there is no home
        _log.warning("the model is lowered at every start (--graph-cache-dir): %s", error)
        return None
    return folder
