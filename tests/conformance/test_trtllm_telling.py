"""What a TensorRT-LLM engine tells of itself while it runs: blocks, events, statistics."""

import asyncio
import threading

import pytest

from engines.errors import EngineUnavailable
from engines.kv_changes import KvChange
from engines.trtllm.calls import urgency
from kvcache.naming import namespace, prompt_names
from tests.support.engines import ask, read, running
from tests.support.trtllm import Made, model_directory
from tests.support.trtllm_standin.package import installed

pytestmark = pytest.mark.anyio


@pytest.fixture
def kind(tmp_path):
    """Makes engines of the newest version."""
    with installed("1.4.0rc1") as recorder:
        yield Made(model_directory(tmp_path / "model"), recorder)


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_events_reach_the_listener_in_our_names(kind):
    """What is there already first, then what comes; a gap clears."""
    heard = []
    async with running(kind.engine()) as engine:
        space = engine.kv_namespace
        assert space == namespace(b"test", b"4", turns=False)
        await read(engine.generate(ask("a", list(range(1, 9)), max_tokens=1)))
        await until(lambda: len(engine._watch._mirror.names) == 2)
        engine.follow_kv(heard.append)
        assert heard == [KvChange(stored=tuple(prompt_names(space, range(1, 9), 4)))]
        await read(engine.generate(ask("b", list(range(2, 7)), max_tokens=1)))
        await until(lambda: len(heard) == 2)
        assert heard[1] == KvChange(stored=tuple(prompt_names(space, range(2, 6), 4)))
        kind.recorder.simulator.cache.gap()
        kind.recorder.simulator.cache.partial()
        await until(lambda: heard[-1] == KvChange(cleared=True))
        with pytest.raises(RuntimeError):
            engine.follow_kv(heard.append)
    assert not [one for one in threading.enumerate() if one.name.startswith("penstock-kv")]


async def test_the_number_of_blocks_is_learned_from_the_events(kind):
    """Where the file does not say it, `info` has it from the end of `start`."""
    async with running(kind.engine(kv_cache_config={"max_tokens": None})) as engine:
        assert engine.info.num_blocks == engine.limits.num_blocks == 200
        assert engine.load().blocks_total == 200


async def test_a_start_that_cannot_learn_it_says_what_to_set(kind):
    """No events and nothing written: it is not guessed."""
    silent = {"max_tokens": None, "event_buffer_max_size": 0}
    engine = kind.engine(kv_cache_config=silent)
    with pytest.raises(EngineUnavailable, match=r"penstock\.num_blocks"):
        await engine.start()
    await engine.stop(grace_s=0)
    async with running(kind.engine(kv_cache_config=silent, penstock={"num_blocks": 9})) as engine:
        assert engine.info.num_blocks == 9
        assert engine.kv_namespace == b"", "a worker says then that it tells no KV events"


async def test_statistics_are_asked_for_only_where_they_are_kept(kind):
    """They cost the engine something in each iteration."""
    async with running(kind.engine()) as engine:
        await read(engine.generate(ask("a", [1])))
        assert "get_stats_async" not in {name for name, _ in kind.recorder.calls}
    async with running(kind.engine(enable_iter_perf_stats=True)) as engine:
        await read(engine.generate(ask("a", [1])))
        await until(lambda: engine.load().steps > 0)


def test_urgency_keeps_the_order_of_our_classes():
    """Any integer maps into 0 to 1; lower is more urgent; 0 is upstream's default."""
    mapped = [urgency(priority) for priority in (-1000, -2, -1, 0, 1, 2, 1000)]
    assert mapped == sorted(mapped, reverse=True)
    assert len(set(mapped)) == len(mapped)
    assert urgency(0) == 0.5
    assert all(0 <= each <= 1 for each in mapped)
