"""A digest of all that the KV contents of a loaded model depend on: equal only where they are."""

import platform
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

import torch
import transformers

from engines.tiers.fingerprint import fingerprint, weights_digest
from engines.torch.checkpoint import check_weights
from engines.torch.loading import LoadedModel

_LAYOUT = "keys, values: layer, head, token, dim"  # of KvBlocks.save


def kv_fingerprint(path: Path, loaded: LoadedModel, block_size: int) -> bytes:
    """16 bytes for the contents of the weights in `path` and all that computes with them.

    Reads every byte of the weights: about a second for each GB and core. Raises ModelRejected, and
    OSError.
    """
    facts, device = loaded.facts, loaded.device
    on_gpu = device.type == "cuda"
    maker = (
        torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    )
    return fingerprint(
        _LAYOUT,
        torch.__version__,
        transformers.__version__,
        f"{device.type} {maker} {platform.machine()}",
        f"kernels {_kernels(on_gpu=on_gpu)}",
        str(loaded.dtype),
        f"{facts.layers} {facts.kv_heads} {facts.head_dim} {block_size}",
        blake2b((path / "config.json").read_bytes()).hexdigest(),
        weights_digest(check_weights(path)),
    )


def _kernels(*, on_gpu: bool) -> str:
    """What rotates and writes keys on a GPU: ours round once, and Triton compiles them."""
    if not on_gpu:
        return "torch"
    try:
        return f"triton {metadata.version('triton')}"
    except metadata.PackageNotFoundError:
        return "torch"
