"""How each server is started: the same model, data type, KV cache and cores.

All of them get both processors and room for the same number of tokens in their KV caches; what else
is set is what their makers advise for CPUs, and is told with the figures.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import free_port
from benchmarks.compare import rivals
from benchmarks.compare.models import MAX_CONTEXT, SHAPES, write_gguf
from benchmarks.load import Target, calibrate

MODEL = "bench"  # the name that clients ask for
START_S = 600.0
VLLM_BLOCK = 128  # tokens; its default on CPUs


@dataclass(frozen=True, slots=True)
class Work:
    """What is served: the same to every server."""

    model: Path
    shape: str
    kv_tokens: int
    slots: int  # requests at once
    threads: int


@dataclass(frozen=True, slots=True)
class Way:
    """A server's command, from the flag of its port on, and what is added to its environment."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """As it is printed beside figures."""
        added = [f"{name}={value}" for name, value in self.environment.items()]
        words = [Path(self.command[0]).name, *(str(word) for word in self.command[1:])]
        return " ".join([*added, *words])


def penstock(work: Work, *flags: str) -> Way:
    """Penstock, on whichever of its engines the flags say."""
    command = [sys.executable, "-m", "gateway", "serve", work.model, "--served-model-name", MODEL]
    command += ["--kv-cache-memory", str(work.kv_tokens * SHAPES[work.shape].kv_bytes())]
    command += ["--threads", str(work.threads), "--log-level", "warning"]
    # Random models repeat themselves: drafts would look better than they are with real text.
    command += ["--speculate", "0"]
    return Way([*command, *flags])


def vllm(work: Work, *flags: str) -> Way:
    """The CPU build of vLLM as advised: both libraries preloaded, no core kept free."""
    environment = {
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB at most; the blocks below are fewer
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": rivals.preloaded(),
    }
    command = [rivals.VLLM / "bin" / "vllm", "serve", work.model, "--served-model-name", MODEL]
    command += ["--max-model-len", str(MAX_CONTEXT), "--block-size", str(VLLM_BLOCK)]
    command += ["--num-gpu-blocks-override", str(work.kv_tokens // VLLM_BLOCK)]
    return Way([*command, *flags], environment)


def llama(work: Work, *flags: str, dtype: str = "bf16") -> Way:
    """The server of llama.cpp; its slots have parts of the cache, and many share all of it."""
    gguf = write_gguf(work.model, rivals.LLAMA_SOURCE, dtype)
    command = [rivals.LLAMA_SERVER, "--model", gguf, "--alias", MODEL, "--jinja", "--no-ui"]
    command += ["--threads", str(work.threads), "--parallel", str(work.slots)]
    command += ["--ctx-size", str(work.kv_tokens)]
    return Way([*command, "--kv-unified" if work.slots > 16 else "--no-kv-unified", *flags])


@dataclass(slots=True)
class Server:
    """A running one."""

    target: Target
    pid: int
    start_s: float  # from its start to its first token


@contextlib.contextmanager
def running(way: Way, words: Sequence[str], log: Path) -> Iterator[Server]:
    """A server until the block ends; whatever it prints goes to a file."""
    port = free_port()
    environment = {**os.environ, **way.environment}  # noqa: TID251 - for a child
    command = [*way.command, "--port", str(port)]
    begun = time.perf_counter()
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        _await_answer(Target(base_url, MODEL, words, ignores_eos=False), process, log)
        taken = time.perf_counter() - begun
        yield Server(asyncio.run(calibrate(base_url, MODEL, words)), process.pid, taken)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # what a server leaves behind
        process.wait()


def _await_answer(target: Target, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask for a token until it comes; a server that listens before it can is asked again."""
    ends = time.perf_counter() + START_S
    while time.perf_counter() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: see {log}")
        with contextlib.suppress(OSError):
            asyncio.run(target.ask(target.words[0], 1))
            return
        time.sleep(0.05)
    raise TimeoutError(f"no answer within {START_S} s: see {log}")
