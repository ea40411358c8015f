"""What one process of a divided model is told, and how all of them find each other."""

import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined] # said in no stub

# A sum waits for the slowest process: they take the same step at the same time.
_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Part:
    """A model, how it is computed, and which of its parts."""

    path: str
    device: str  # cpu or cuda
    ranks: int
    num_blocks: int
    block_size: int
    max_rows: int
    dtype: str = "auto"
    threads: int = 0
    rank: int = 0
    folder: str = ""  # private to the user, where they meet

    @property
    def place(self) -> torch.device:
        """The device of this part alone."""
        return torch.device("cuda", self.rank) if self.device == "cuda" else torch.device("cpu")

    def line(self) -> bytes:
        """It as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def part_of(line: bytes) -> Part:
    """What `Part.line` said."""
    return Part(**json.loads(line))


def meet(part: Part) -> None:
    """Wait for the processes of all parts, over the loopback interface and a file of our own."""
    if sys.platform == "linux":
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")  # noqa: TID251 - written
    on_gpu = part.device == "cuda"
    if on_gpu:
        torch.cuda.set_device(part.place)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=FileStore(str(Path(part.folder) / "store"), part.ranks),
        rank=part.rank,
        world_size=part.ranks,
        timeout=_PATIENCE,
        device_id=part.place if on_gpu else None,
    )
