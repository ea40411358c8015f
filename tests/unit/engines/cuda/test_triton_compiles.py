"""Our kernels compile to machine code for GPUs, which needs none; in bfloat16 without spills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.triton
pytest.importorskip("triton", reason="needs penstock[cuda]; `make test-triton` has it")

ROOT = Path(__file__).parents[4]
SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes that one program may have


@pytest.mark.parametrize("capability", sorted(SHARED))
def test_kernels_compile_without_spills(capability, tmp_path):
    """For A100 and H100: ptxas takes them, and a bfloat16 kernel keeps all it has in registers."""
    environment = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - for a child
        if name != "TRITON_INTERPRET"
    } | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.support.triton_compiled", str(capability)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in done.stdout.splitlines()]
    names = {kernel["kernel"].rpartition(".")[2] for kernel in made}
    assert names == {
        "decode_kernel", "merge_kernel", "ragged_kernel", "norm_kernel", "gate_kernel",
        "rotate_kernel",
    }  # fmt: skip
    for kernel in made:
        assert kernel["shared"] <= SHARED[capability], kernel
        if kernel["dtype"] == "torch.bfloat16":
            assert kernel["spilled"] <= 16, kernel  # a register or two, on A100 with heads of 256
