"""Other servers, installed beside the repository: vLLM's wheel for CPUs, llama.cpp from source.

    python -m benchmarks.compare.rivals [vllm] [llama]

They go to .rivals, which git ignores: 3 GB and some minutes for vLLM, a quarter of an hour on two
cores for llama.cpp. No test needs them.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support import vllm_environment

HOME = Path(__file__).parents[2] / ".rivals"
VLLM = HOME / "vllm"
LLAMA = HOME / "llama"
LLAMA_CPP_PYTHON = "0.3.36"  # its source distribution has all of llama.cpp's source in it
LLAMA_SOURCE = LLAMA / f"llama_cpp_python-{LLAMA_CPP_PYTHON}" / "vendor" / "llama.cpp"
LLAMA_SERVER = LLAMA_SOURCE / "build" / "bin" / "llama-server"
# What vLLM advises for CPUs: an allocator that returns nothing, and Intel's OpenMP.
OPENMP = "intel-openmp"
ALLOCATOR = "libtcmalloc-minimal4"


def install_vllm() -> None:
    """An environment of vLLM, and the two libraries that it is to be preloaded with."""
    vllm_environment.make(VLLM, OPENMP)
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["apt-get", "download", "--quiet", ALLOCATOR], cwd=VLLM, check=True)
            (package,) = VLLM.glob(f"{ALLOCATOR}_*.deb")
            subprocess.run(["dpkg-deb", "--extract", package, VLLM / "allocator"], check=True)
    for library in ("libtcmalloc_minimal.so.4", "libiomp5.so"):
        if not any(VLLM.rglob(library)):
            print(f"{library} could not be had: vLLM will run without it", file=sys.stderr)


def preloaded() -> str:
    """What LD_PRELOAD is for vLLM."""
    found = [next(VLLM.rglob(name), None) for name in ("libtcmalloc_minimal.so.4", "libiomp5.so")]
    return ":".join(str(path) for path in found if path)


def install_llama() -> None:
    """The server of llama.cpp, built for this very machine."""
    LLAMA.mkdir(parents=True, exist_ok=True)
    wanted = f"llama-cpp-python=={LLAMA_CPP_PYTHON}"
    fetch = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", wanted, "-d", str(LLAMA)]
    subprocess.run([sys.executable, "-m", "pip", *fetch], check=True)
    (archive,) = LLAMA.glob(f"*{LLAMA_CPP_PYTHON}.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(LLAMA, filter="data")
    tree = LLAMA_SOURCE / "build"
    options = (
        "CMAKE_BUILD_TYPE=Release", "GGML_NATIVE=ON", "BUILD_SHARED_LIBS=OFF",
        "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_USE_PREBUILT_UI=OFF",
    )  # fmt: skip
    flags = [f"-D{option}" for option in options]
    subprocess.run(["cmake", "-G", "Ninja", "-S", LLAMA_SOURCE, "-B", tree, *flags], check=True)
    subprocess.run(["ninja", "-C", tree, "llama-server"], check=True)


INSTALL = {"vllm": install_vllm, "llama": install_llama}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rival", nargs="*", choices=[*INSTALL, []], default=list(INSTALL))
    os.nice(19)
    for name in parser.parse_args().rival:
        INSTALL[name]()


if __name__ == "__main__":
    main()
