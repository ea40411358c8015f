"""Compiles every kernel of ours for a GPU that need not be there, and prints what came out.

    python -m tests.support.triton_compiled 90

One line of JSON per kernel: its name, data type, shape, and ptxas' registers and spilled bytes. The
launches are those of the product; in place of being launched, a kernel is compiled for the target.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from engines.torch.attention import Rule
from engines.torch.cuda.port import Heads, Layer, Rows, Tiles
from engines.torch.cuda.triton_kernels import TritonKernels
from engines.torch.kv import KvBlocks

SHAPES = ((32, 8, 128), (14, 2, 64), (16, 8, 256))  # query heads, KV heads, size of a head


class Target:
    """What Triton asks a driver for before it compiles."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int = 0) -> int:
        return 0


def compiling(found: list) -> None:
    """From now on a launch only compiles."""

    def launcher(kernel, grid):
        def launch(*arguments, **options):
            made = kernel.run(*arguments, grid=grid, warmup=True, **options)
            found.append((kernel.__name__, made))

        return launch

    JITFunction.__getitem__ = launcher


def launch_all(dtype: torch.dtype, heads: int, kv_heads: int, dim: int) -> None:
    """Every kernel, over tensors whose contents do not matter."""
    kv = KvBlocks(
        layers=1, num_blocks=8, kv_heads=kv_heads, block_size=32, head_dim=dim, dtype=dtype,
        device=torch.device("cpu"),
    )  # fmt: skip
    column = torch.zeros(16, dtype=torch.int32)
    tiles = Tiles(column, column, column, column)
    layer = Layer(Rows(column, column, column, tiles, tiles, column), kv, 0)
    kernels = TritonKernels(8192, 264)
    weight = torch.zeros(dim, dtype=dtype)
    for rule in (Rule(0.1), Rule(0.1, 32, 50.0, torch.zeros(heads, dtype=dtype))):
        kernels.attend(torch.zeros(16, heads, dim, dtype=dtype), layer, rule)
    for shape in (Heads(heads, kv_heads, dim), Heads(heads, kv_heads, dim, 1e-5, weight, weight)):
        qkv = torch.zeros(16, heads + 2 * kv_heads, dim, dtype=dtype)
        kernels.rotate(qkv, (qkv[:, 0], qkv[:, 0]), layer, shape)
    rows = torch.zeros(16, heads * dim, dtype=dtype)
    kernels.norm(rows, rows[0], 1e-5)
    kernels.add_norm(rows, rows, rows[0], 1e-5)
    kernels.gate(rows)


def assembled(ptx: str) -> dict[str, int]:
    """What ptxas says of a kernel. Raises CalledProcessError when it refuses it."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    target = re.search(r"\.target (\w+)", ptx)[1]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        for tool in sorted(tools.glob("ptxas*"), reverse=True):  # the newest first
            command = [tool, "-v", f"--gpu-name={target}", file.name, "-o", "/dev/null"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not done.returncode:
                break
    done.check_returncode()
    numbers = {"registers": r"Used (\d+) registers", "spilled": r"(\d+) bytes spill stores"}
    return {name: int(re.search(what, done.stderr)[1]) for name, what in numbers.items()}


def main(capability: int) -> None:
    """Compile, assemble, print."""
    triton.runtime.driver.set_active(Target(capability))
    found: list = []
    compiling(found)
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SHAPES:
            launch_all(dtype, *shape)
            for name, made in found:
                about = {"kernel": name, "dtype": str(dtype), "shape": shape}
                shared = {"shared": made.metadata.shared}
                print(json.dumps(about | shared | assembled(made.asm["ptx"])))  # noqa: T201
            found.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]))
