"""Open a local model directory: check, build, load. No network, and no code from the directory."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging as transformers_logging
from transformers.utils.quantization_config import Mxfp4Config

from engines.errors import ModelRejected
from engines.torch import attention, linear
from engines.torch.checkpoint import check_weights
from engines.torch.families import ModelFacts, choose_dtype, read_facts
from engines.torch.vectors import VectorHead, load_head

_SMALL = 32_000_000  # weights

Progress = Callable[[str, float], None]
Cut = Callable[[nn.Module, ModelFacts], ModelFacts]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to step: `module` computes with paged attention only."""

    module: nn.Module
    facts: ModelFacts
    device: torch.device
    dtype: torch.dtype
    head: VectorHead  # from pooled rows to vectors


def open_model(
    path: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    threads: int = 0,
    progress: Progress | None = None,
    cut: Cut | None = None,
) -> LoadedModel:
    """Load the model in `path`, a directory as published on the hub.

    `dtype` is float32, bfloat16 or auto: float32 on the CPU, the checkpoint's on CUDA (float16 is
    raised to bfloat16, which has the range of float32). `device` is cpu, cuda, cuda:N or auto.
    `threads` is how many the CPU kernels of this process use; 0 is one for small models and torch's
    own choice for others. `progress` is called with a phase (check, weights, ready) and its
    fraction of the whole. `cut` leaves a part of a module whose weights are read; it gives the
    facts of that part.

    Raises ModelRejected when the directory cannot be served, saying what was found.
    """
    report = progress or _ignore
    report("check", 0.0)
    facts = read_facts(path)
    check_weights(path)
    place = choose_place(device, dtype, facts.dtype)
    report("weights", 0.1)
    module = _load(path, facts, place)
    facts = facts if cut is None else cut(module, facts)
    module = settle(module, place, threads)
    head = load_head(facts.recipe, facts.hidden_size, place.device)
    report("ready", 1.0)
    return LoadedModel(module, facts, place.device, place.dtype, head)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model computes, and in which precision."""

    device: torch.device
    dtype: torch.dtype


def choose_place(device: str, dtype: str, published: str) -> Place:
    """What `auto` means for a checkpoint published in a dtype. Raises ModelRejected."""
    target = _device(device)
    chosen: torch.dtype = getattr(
        torch, choose_dtype(dtype, published, on_gpu=target.type == "cuda")
    )
    return Place(target, chosen)


def settle(module: nn.Module, place: Place, threads: int = 0) -> nn.Module:
    """The module where it will compute, with its kernels and as many threads as suit it."""
    module = module.to(place.device).eval().requires_grad_(requires_grad=False)
    if threads or _is_small(module):
        torch.set_num_threads(threads or 1)
    if linear.can_pack(place.device, place.dtype):
        linear.pack(module)
    return module


def _ignore(_phase: str, _fraction: float) -> None:
    return None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelRejected(f"device {name!r} is unknown; use cpu, cuda, cuda:N or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelRejected(f"device {name!r} is not supported; use cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelRejected(f"device {name!r} is not there: {torch.cuda.device_count()} GPUs found")
    return device


def _is_small(module: nn.Module) -> bool:
    """Whether the work of one operation is less than waking a second thread on a busy machine."""
    return sum(weight.numel() for weight in module.parameters()) < _SMALL


def _load(path: Path, facts: ModelFacts, place: Place) -> nn.Module:
    """A decoder with paged attention; without its head where that is not wanted."""
    attention.install()
    linear.install_experts()
    rowwise = place.dtype == torch.float32 and linear.can_pack(*astuple(place))
    options: dict[str, Any] = {
        "attn_implementation": attention.NAME,
        "experts_implementation": linear.EXPERTS_NAME if rowwise else None,
        **dequantised(facts),
    }
    unused = () if facts.generates else ("lm_head.",)
    return load_weights(path, facts.architecture, place.dtype, unused=unused, **options)


def dequantised(facts: ModelFacts) -> dict[str, Any]:
    """What makes transformers dequantise a checkpoint as it is read."""
    if facts.quantization == "mxfp4":
        return {"quantization_config": Mxfp4Config(dequantize=True)}
    return {}


def load_weights(
    path: Path, architecture: str, dtype: torch.dtype, *, unused: tuple[str, ...], **options: Any
) -> nn.Module:
    """Build by transformers' native class and read the weights; all of them or none.

    Tensors whose names begin as in `unused` may be left over. Raises ModelRejected.
    """
    _silence()
    try:
        module, info = getattr(transformers, architecture).from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            ignore_mismatched_sizes=True,  # so that they are named; refused below
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # whatever transformers could not do with these files
        raise ModelRejected(f"{path}: {architecture} could not be loaded: {error}") from error
    for flaw in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        fine = unused if flaw == "unexpected_keys" else ()
        found = sorted(key for key in map(str, info.get(flaw) or ()) if not key.startswith(fine))
        if found:
            kind = flaw.replace("_", " ")
            raise ModelRejected(f"{path}: weights have {len(found)} {kind}, first {found[0]}")
    loaded: nn.Module = module
    return loaded


def _silence() -> None:
    """Transformers reports to stderr and draws bars; we report by exception and by `progress`."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
