"""Stepped engines with slower tiers: the same text, from blocks that come back from anywhere.

The pools are so small that whatever comes back was evicted meanwhile.
"""

import asyncio
import errno
import os
import shutil
import threading
from dataclasses import replace

import pytest

from engines.errors import ModelRejected
from engines.kv_log import KvLog
from engines.ledger import ledger_tokens
from engines.tiers import folder as folders
from engines.tiers import keeper as keepers
from engines.tiers.opening import TierBudget, open_keeper
from engines.torch.identity import kv_fingerprint
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from kvcache.directory import PrefixDirectory
from kvcache.naming import prompt_names, within
from tests.support.engines import VOCAB, ask, ledger, limits_for, read, running, stepped
from tests.support.tiered import CAN, answers, returning_prompts, said, tiered
from tests.support.tiny_models import by_name, model_dir

pytestmark = pytest.mark.anyio

SMALL = limits_for(num_blocks=34, max_running=4, max_context=128)


@pytest.fixture(scope="module")
def loaded():
    return open_model(model_dir(by_name("llama")), device="cpu")


def torch_runner(loaded):
    return lambda limits: TorchRunner(
        loaded,
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
        max_lanes=limits.max_running,
    )


def expected(prompts, count=16):
    """What the ledger must say to each."""
    sampled = ask("x", [0], max_tokens=count).sampling
    return [ledger_tokens(prompt, sampled, vocab_size=VOCAB) for prompt in prompts]


def tokens(all_of):
    return [answer[0].tokens for answer in all_of]


@pytest.mark.parametrize("host", [1, 8, 40, 400])
async def test_text_is_the_same_with_a_host_tier(host):
    """Whether next to nothing, some or all of what is evicted comes back."""
    prompts = returning_prompts(150)
    async with running(tiered(SMALL, host)) as engine:
        assert tokens(await answers(engine, prompts)) == expected(prompts)
        state = engine.tiers()
        assert 0 < state.host_blocks <= host
        assert state.counters.saved > 20
        assert host < 40 or state.counters.restored > 50


@pytest.mark.parametrize(("host", "disk"), [(4, 10), (20, 400)])
async def test_text_is_the_same_with_a_disk(tmp_path, host, disk):
    """Blocks go down to files and come back up, while others run."""
    prompts = returning_prompts(150)
    async with running(tiered(SMALL, host, tmp_path / "kv", disk)) as engine:
        assert tokens(await answers(engine, prompts)) == expected(prompts)
        state = engine.tiers()
        assert 0 < state.disk_blocks <= disk
        assert state.counters.corrupt == 0
        if disk > 100:  # what a small one still has when a prompt comes back is a matter of luck
            assert state.counters.fetched > 10
            assert state.counters.restored > 10


async def test_what_an_engine_tells_of_its_tiers_adds_up(tmp_path):
    """What came and did not go is there; what was found was put back; bytes are those of blocks."""
    prompts = returning_prompts(150)
    async with running(tiered(SMALL, 20, tmp_path / "kv", 60)) as engine:
        told = await answers(engine, prompts, at_once=1)  # nobody is let in twice
        load = engine.load()
        done = engine.tiers().counters
        size = engine.tiers().block_bytes
    device, host, disk = load.tiers
    assert [each.tier for each in load.tiers] == [0, 1, 2]
    assert {each.bytes // each.blocks for each in load.tiers} == {size}
    for each in (device, host):
        assert 0 < each.blocks == each.stored - each.evicted
    assert 0 < disk.blocks <= 60 < disk.stored
    # A block has its place before it is written; what is written is counted with the next step.
    assert disk.stored <= disk.blocks + disk.evicted + done.lost
    assert 0 < disk.restored <= disk.hits
    assert host.restored == host.hits > 0
    block = SMALL.block_size
    cached = sum(answer[0].cached for answer in told)
    assert (device.hits + host.hits) * block == load.prefix_hit_tokens == cached
    assert [each.failures for each in load.tiers] == [0, 0, 0]


@pytest.mark.parametrize("disk", [0, 200])
async def test_a_model_says_the_same_to_the_last_bit(tmp_path, loaded, disk):
    """float32 on the CPU: tokens and log-probabilities equal those of an engine without tiers."""
    limits = limits_for(num_blocks=34, max_running=4, block_size=8, vocab_size=512)
    prompts = returning_prompts(40, longest=90)
    runner = torch_runner(loaded)
    asked = {"max_tokens": 8, "logprobs": 2}
    async with running(stepped(limits, runner, CAN)) as plain:
        wanted = said(await answers(plain, prompts, **asked))
    host = 12 if disk else 200
    engine = tiered(limits, host, tmp_path / "kv" if disk else None, disk, runner=runner)
    async with running(engine):
        assert said(await answers(engine, prompts, **asked)) == wanted
        counters = engine.tiers().counters
    assert counters.restored > 20
    assert (counters.fetched > 0) == bool(disk)


async def test_bfloat16_comes_back_bit_for_bit():
    """A dtype that numpy does not know is moved as bytes."""
    half = open_model(model_dir(by_name("llama")), device="cpu", dtype="bfloat16")
    limits = limits_for(num_blocks=14, max_running=4, block_size=8, vocab_size=512)
    runner = torch_runner(half)
    prompts = [prompt for prompt in returning_prompts(6, longest=90) for _ in range(2)] * 2
    async with running(tiered(limits, 200, runner=runner)) as engine:
        once = said(await answers(engine, prompts, at_once=1, max_tokens=8))
        again = said(await answers(engine, prompts, at_once=1, max_tokens=8))
        assert engine.tiers().counters.restored > 0
    assert once == again


async def test_a_restart_finds_what_was_kept(tmp_path):
    """Even what had only been in memory, and the prompt is counted as cached."""
    prompt = returning_prompts(1, seed=5)[0]
    others = returning_prompts(30, seed=6)
    for life in range(3):
        async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
            (answer,) = await answers(engine, [prompt])
            assert tokens([answer]) == expected([prompt])
            assert (answer[0].cached > 0) == (life > 0)
            await answers(engine, [*others, prompt])


async def test_tenants_find_nothing_of_each_other(tmp_path):
    """Neither in memory nor on the disk, after a restart as before it."""
    prompt, others = returning_prompts(1, seed=5)[0], returning_prompts(30, seed=6)

    def of(name, salt):
        return replace(ask(name, prompt), cache_salt=salt)

    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        await answers(engine, others)
        await read(engine.generate(of("a", b"one")))
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        stranger = await read(engine.generate(of("b", b"two")))
        owner = await read(engine.generate(of("c", b"one")))
    assert stranger[0].cached == 0
    assert owner[0].cached > 0
    assert stranger[0].tokens == owner[0].tokens == expected([prompt])[0]


async def test_other_weights_find_nothing(tmp_path):
    """The same served name, the same shapes: another model, and not one block of the first."""
    limits = limits_for(num_blocks=34, max_running=4, block_size=8, vocab_size=512)
    place = tmp_path / "model"
    shutil.copytree(model_dir(by_name("llama")), place)
    prompts, cached = returning_prompts(10, longest=90), []
    for _ in range(2):
        model = open_model(place, device="cpu")
        prints = kv_fingerprint(place, model, limits.block_size)
        assert prints == kv_fingerprint(place, model, limits.block_size)
        for _ in range(2):
            async with running(stepped(limits, torch_runner(model), CAN)) as plain:
                wanted = said(await answers(plain, prompts, logprobs=1))
            engine = tiered(
                limits, 40, tmp_path / "kv", 200, runner=torch_runner(model), fingerprint=prints
            )
            async with running(engine):
                told = await answers(engine, prompts[:1], logprobs=1)
                told += await answers(engine, prompts[1:], logprobs=1)
            assert said(told) == wanted
            cached.append(told[0][0].cached)
        flip_a_weight(place)
    assert [count > 0 for count in cached] == [False, True, False, True]


def flip_a_weight(place):
    """Change the last weight of a shard a little, and nothing that `ls -l` shows."""
    shard = max(place.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    times, data = shard.stat(), bytearray(shard.read_bytes())
    data[-2] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))


async def test_a_corrupt_file_is_a_miss(tmp_path, caplog):
    """Every file has a flipped bit: the text is the same, each is counted, logged and removed."""
    prompts, others = returning_prompts(4, seed=5), returning_prompts(30, seed=6)
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        await answers(engine, others + prompts)
    files = [*(tmp_path / "kv").rglob("*.kv")]
    for file in files:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        assert tokens(await answers(engine, prompts)) == expected(prompts)
        counters = engine.tiers().counters
        _, _, disk = engine.load().tiers
    assert counters.corrupt > 0
    assert counters.fetched == 0
    assert (disk.failures, disk.restored) == (counters.corrupt, 0)
    assert disk.hits >= counters.corrupt, "each was found and then not used"
    assert "is not used and removed" in caplog.text


async def test_a_disk_that_is_full_costs_nothing_else(tmp_path, monkeypatch, caplog):
    """It is said once, nothing is thought to be there, and the text is the same."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    prompts = returning_prompts(60)
    async with running(tiered(SMALL, 4, tmp_path / "kv", 400)) as engine:
        monkeypatch.setattr(folders, "_write_all", full)
        assert tokens(await answers(engine, prompts)) == expected(prompts)
        assert engine.tiers().counters.written == 0
    assert caplog.text.count("cannot be written") == 1
    assert not [*(tmp_path / "kv").rglob("*.tmp")]


class Stuck:
    """A disk whose reads wait at a gate."""

    def __init__(self, monkeypatch):
        self.gate, self.waiting = threading.Event(), threading.Event()
        real = folders.BlockFolder.read

        def read_block(folder, name):
            self.waiting.set()
            self.gate.wait(30)
            return real(folder, name)

        monkeypatch.setattr(folders.BlockFolder, "read", read_block)


@pytest.fixture
async def kept(tmp_path):
    """A folder that has a prompt's blocks."""
    prompt = returning_prompts(1, seed=5)[0]
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        await answers(engine, [*returning_prompts(30, seed=6), prompt])
    return prompt


async def test_a_slow_disk_holds_up_nobody_else(tmp_path, monkeypatch, kept):
    """One request waits for it; others run, and what is told of the one waits behind it."""
    stuck = Stuck(monkeypatch)
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        slow = engine.generate(ask("slow", kept))
        gone = engine.generate(ask("gone", kept))
        await asyncio.to_thread(stuck.waiting.wait, 30)
        assert tokens(await answers(engine, [[7, 8, 9]])) == expected([[7, 8, 9]])
        await gone.aclose()
        again = engine.generate(ask("gone", kept))
        stuck.gate.set()
        assert tokens([await read(slow), await read(again)]) == expected([kept, kept])
        assert engine.load().blocks_used == 0


async def test_a_disk_that_does_not_answer_is_a_miss(tmp_path, monkeypatch, kept):
    """After a while the prompt is computed as if the disk had nothing of it."""
    monkeypatch.setattr(keepers, "_PATIENCE_S", 0.05)
    stuck = Stuck(monkeypatch)
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        answer = await read(engine.generate(ask("a", kept)))
        stuck.gate.set()
    assert tokens([answer]) == expected([kept])
    assert answer[0].cached == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_disk_that_is_gone_is_not_waited_for(tmp_path, monkeypatch, kept):
    """Whatever its thread died of: one request is late, the next is not."""

    def broken(*_):
        raise RuntimeError("nobody knows what this is")

    monkeypatch.setattr(keepers, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(folders.BlockFolder, "read", broken)
    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        (first,) = await answers(engine, [kept])
        monkeypatch.setattr(keepers, "_PATIENCE_S", 1e9)
        others = returning_prompts(30, seed=6)
        async with asyncio.timeout(30):
            later = await answers(engine, others)
    assert tokens([first, *later]) == expected([kept, *others])


async def test_gateways_are_told_in_which_tier_a_block_is(tmp_path):
    """What a listener has at rest is what is in each tier; the directory finds the prompt."""
    prompt, others = returning_prompts(1, seed=5)[0], returning_prompts(40, seed=6)
    log, directory = KvLog(1), PrefixDirectory()

    def hear(change):
        log.tell(change)
        directory.fold("w", removed=change.removed, stored=change.stored, tier=change.tier)

    async with running(tiered(SMALL, 40, tmp_path / "kv", 600)) as engine:
        await answers(engine, others[:20])
        engine.follow_kv(hear)
        await answers(engine, [*others[20:], prompt, *others])
        await answers(engine, [[1]])  # what the disk did last is told with the next step
        tiers = engine._keeper.tiers
        for tier in (1, 2):
            assert set(log._present[tier]) == set(tiers.names(tier)) != set()
        held = [set(engine._scheduler.pool._names.values()), *map(set, map(tiers.names, (1, 2)))]
        space = within(engine.kv_namespace, salt=b"")
        worths = set()
        for each in [prompt, *others]:
            names = prompt_names(space, each, SMALL.block_size)
            best = [next((w for w, has in zip((1, 0.5, 0.25), held, strict=True) if name in has), 0)
                    for name in names]  # fmt: skip
            run = best[: best.index(0)] if 0 in best else best
            assert directory.matches(names).get("w", 0) == sum(run)
            worths.update(run)
        assert len(worths) > 1


async def test_without_tiers_nothing_is_asked(tmp_path):
    """No listener, no name, no field of a plan."""
    async with running(stepped(SMALL)) as engine:
        await answers(engine, returning_prompts(20))
        assert engine.tiers() is None
        assert engine._scheduler.pool._listeners == ()
        assert engine._scheduler.pool._names == {}


def test_budgets_that_cannot_be_meant_are_refused(tmp_path):
    """Each with the flag and the number."""
    for budget, words in [
        (TierBudget(0, tmp_path, 1 << 30), "--kv-disk-dir needs --kv-host-memory"),
        (TierBudget(10), "holds no KV block"),
    ]:
        with pytest.raises(ModelRejected, match=words):
            open_keeper(budget, 64, bytes)
    assert open_keeper(TierBudget(), 64, bytes) is None


def test_a_folder_of_others_is_refused(tmp_path):
    """Whoever may look in could read what tenants wrote."""
    tmp_path.chmod(0o755)
    with pytest.raises(ModelRejected, match="chmod 700"):
        open_keeper(TierBudget(1 << 20, tmp_path, 1 << 20), 64, lambda: b"p" * 16)


def test_a_folder_that_cannot_be_had_is_said(tmp_path, caplog):
    """The engine runs with memory alone."""
    (tmp_path / "kv").write_text("a file")
    keeper = open_keeper(TierBudget(1 << 20, tmp_path / "kv", 1 << 20), 64, lambda: b"p" * 16)
    assert keeper is not None
    assert "no KV blocks are kept on the disk" in caplog.text


def test_a_runner_that_moves_no_blocks_takes_no_tiers():
    """It would lose what it is told to restore."""

    class Plain:
        def __init__(self, inner):
            self.launch, self.collect, self.close = inner.launch, inner.collect, inner.close

    keeper = open_keeper(TierBudget(1 << 20), 64, bytes)
    with pytest.raises(ValueError, match="moves blocks"):
        stepped(SMALL, lambda limits: Plain(ledger(limits)), keeper=keeper)
