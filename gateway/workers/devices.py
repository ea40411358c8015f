"""Which GPUs a replica may see: each its own share, where there are enough of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environ: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The names of the NVIDIA GPUs that a process with this environment may use."""
    given = environ.get(_VISIBLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        return [name for name in names if name and name != "-1"]
    found = [re.fullmatch(r"nvidia(\d+)", entry.name) for entry in devices.glob("nvidia[0-9]*")]
    return sorted((match[1] for match in found if match), key=int)


def share_of(gpus: Sequence[str], replica: int, replicas: int) -> Mapping[str, str]:
    """What replica `replica` of so many finds in its environment; nothing where all see all.

    With fewer GPUs than replicas several share one; with more, each gets as many as all others.
    """
    if replicas == 1 or not gpus:
        return {}
    each = max(1, len(gpus) // replicas)
    first = replica * each % len(gpus)
    return {_VISIBLE: ",".join(gpus[first : first + each])}
