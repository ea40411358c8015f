"""Makes .triton, which is .venv and Triton, and runs the tests of our kernels there, without a GPU.

    python -m tests.support.triton_environment [ARGUMENTS OF PYTEST]

Triton is some hundred megabytes and of use only beside a GPU, so .venv does not have it. Its
interpreter runs kernels over tensors on the CPU; its compiler needs no GPU to compile for one.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".triton"
PYTHON = HOME / "bin" / "python"
VERSION = "3.9.0"
_DONE = HOME / f".made-{VERSION}"
TESTS = ("tests/unit/engines/cuda",)


def make() -> None:
    """The environment; a minute, the first time."""
    venv.create(HOME, clear=True, with_pip=True)
    (packages,) = HOME.glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", f"triton=={VERSION}"], check=True)
    _DONE.touch()


def run(*arguments: str) -> int:
    """The tests that need Triton; the exit code of pytest."""
    if not _DONE.exists():
        make()
    # Whether products and sums are fused is said, since Triton's own answer is about to change.
    chosen = {"TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"}
    environment = {**os.environ, **chosen}  # noqa: TID251 - for a child
    command = [PYTHON, "-m", "pytest", "-m", "triton", *(arguments or TESTS)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
