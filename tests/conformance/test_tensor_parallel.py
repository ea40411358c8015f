"""A decoder in several processes, over gloo on a CPU: its tokens, and how all of them end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engines.errors import EngineDied, ModelRejected
from engines.torch.parallel.opening import open_divided
from engines.torch.parallel.part import Part
from engines.torch.runner import TorchRunner
from tests.support.command import ROOT, clean_environment
from tests.support.divided import is_there
from tests.support.engines import ask, limits_for, read, running, stepped
from tests.support.tiny_models import VOCAB, by_name, greedy_truth, model_dir, prompts

NEW = 8
LIMITS = limits_for(
    max_context=256, max_running=8, tokens_per_step=71, block_size=8, num_blocks=200,
    vocab_size=VOCAB,
)  # fmt: skip
WITHIN_S = 10


def part_of(name, **changes):
    values = {"ranks": 2, "num_blocks": LIMITS.num_blocks, "block_size": LIMITS.block_size}
    values |= {"dtype": "float32", "max_rows": LIMITS.max_running, **changes}
    return Part(path=str(model_dir(by_name(name))), device="cpu", **values)


def engine_over(divided):
    def runner(limits):
        return TorchRunner(
            divided.loaded, num_blocks=limits.num_blocks, block_size=limits.block_size,
            max_lanes=limits.max_running, decoder=divided.decoder,
        )  # fmt: skip

    return stepped(LIMITS, runner)


def gone(pids, within_s=WITHIN_S):
    """Whether all of these end in time."""
    deadline = time.monotonic() + within_s
    while any(map(is_there, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_there, pids))


@pytest.mark.parametrize("name", ["llama-3-rope", "qwen3", "cohere"])
def test_two_processes_say_what_transformers_says(name):
    """Mixed batches, chunks, then prefix hits; they and their folder are gone when it stops."""
    starts = prompts(12, longest=90)
    divided = open_divided(part_of(name))
    pids, folder = divided.crew.pids, Path(divided.crew.folder)
    assert all(map(is_there, pids))
    assert folder.stat().st_mode & 0o777 == 0o700

    async def waves():
        async with running(engine_over(divided)) as engine:
            for wave in range(2):
                found = await asyncio.gather(
                    *(
                        read(engine.generate(ask(f"{wave}-{i}", start, max_tokens=NEW)))
                        for i, start in enumerate(starts)
                    )
                )
                yield [answer[0] for answer in found]

    async def both():
        return [found async for found in waves()]

    first, again = asyncio.run(both())
    truth = greedy_truth(model_dir(by_name(name)), starts, NEW)
    assert [answer.tokens for answer in first] == truth
    assert [answer.tokens for answer in again] == truth
    assert sum(answer.cached for answer in again) > 0
    assert not any(map(is_there, pids))
    assert not folder.exists()


def test_three_more_processes_have_a_head_each():
    """Four in all, one KV head in each."""
    starts = prompts(4, longest=40)
    divided = open_divided(part_of("llama-mha-tied", ranks=4))
    pids = divided.crew.pids

    async def answers():
        async with running(engine_over(divided)) as engine:
            asked = (ask(str(i), start, max_tokens=NEW) for i, start in enumerate(starts))
            return await asyncio.gather(*(read(engine.generate(each)) for each in asked))

    found = asyncio.run(answers())
    truth = greedy_truth(model_dir(by_name("llama-mha-tied")), starts, NEW)
    assert [answer[0].tokens for answer in found] == truth
    assert len(pids) == 3
    assert not any(map(is_there, pids))


def test_a_killed_process_ends_the_engine():
    """In the middle of an answer, within seconds; none of the others is left, before any stop."""
    divided = open_divided(part_of("llama-mha-tied", ranks=4))
    pids, deaths = divided.crew.pids, []

    async def dies():
        engine = engine_over(divided)
        engine._on_death = deaths.append
        await engine.start()
        stream = engine.generate(ask("long", [5, 6, 7], max_tokens=250))
        await anext(stream)
        os.kill(pids[1], signal.SIGKILL)
        begun = time.monotonic()
        with pytest.raises(EngineDied):
            await read(stream)
        taken = time.monotonic() - begun
        left = not gone(pids)
        await engine.stop(grace_s=0)
        return taken, left

    taken, left = asyncio.run(dies())
    assert taken < WITHIN_S
    assert not left
    assert isinstance(deaths[0], EngineDied)
    assert "of 4 of the model ended" in str(deaths[0])


def test_a_process_that_cannot_start_is_named(monkeypatch):
    """Before the model is served, and not only once somebody asks."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelRejected, match="process 1 of 2 of the model ended: 1"):
        open_divided(part_of("llama"))


def test_a_first_process_that_cannot_load_leaves_no_others():
    """What it was is said, and nothing is left that waits for it."""
    below = set(psutil.Process().children())
    with pytest.raises(ModelRejected, match="dtype 'float8' is not supported"):
        open_divided(part_of("llama", dtype="float8"))
    assert set(psutil.Process().children()) == below


def test_what_cannot_be_divided_starts_nothing():
    """The refusal comes first."""
    with pytest.raises(ModelRejected, match="2 KV heads cannot be shared by 4"):
        open_divided(part_of("llama", ranks=4))


HOLDS = """
import sys, time
from engines.torch.parallel.opening import open_divided
from engines.torch.parallel.part import part_of

def main():
    divided = open_divided(part_of(sys.stdin.readline().encode()))
    print(*divided.crew.pids, divided.crew.folder, flush=True)
    time.sleep(600)

main()
"""


def test_the_others_do_not_outlive_the_first():
    """Killed without a word, it leaves neither processes nor their folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], cwd=ROOT, env=clean_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as first:  # fmt: skip
        first.stdin.write(part_of("llama").line())
        first.stdin.flush()
        *pids, folder = first.stdout.readline().split()
        first.kill()
    assert pids
    assert gone([int(pid) for pid in pids])
    assert not Path(folder.decode()).exists()
