"""The load generator: what it asks, what it counts, and which runs it refuses."""

import asyncio
import contextlib
import os
from dataclasses import replace

import pytest
from tokenizers import Tokenizer

from benchmarks.client import Stream, percentile, stream
from benchmarks.load import WrongCountsError, calibrate, check, figures, measure, medians, play
from benchmarks.scenarios import SCENARIOS, TELLS, Ask, Scenario, prompts, words_of
from benchmarks.watch import Cost
from tests.support.live import MODEL, TOKENIZER_DIR, live

TEMPLATE = 9
FILE = TOKENIZER_DIR / "tokenizer.json"


@pytest.fixture(scope="module")
def words():
    return words_of(FILE)


def told(ask: Ask, *, sent=0.0, first=0.5, last=1.0, gaps=(0.1,)) -> Stream:
    """An answer that is exactly what was asked."""
    return Stream(sent, first, last, last + 0.1, list(gaps), ask.prompt, ask.output, 0)


def test_a_percentile_is_a_value_of_the_sample():
    """By nearest rank, whatever the order; of one value that value."""
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(100)), 0.99) == 99
    assert percentile(list(range(1000)), 0.99) == 990
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize("name", SCENARIOS)
def test_prompts_have_exactly_the_tokens_asked_for(name, words):
    """As the tokenizer counts them, beside those of the template."""
    tokenizer = Tokenizer.from_file(str(FILE))
    scenario = SCENARIOS[name]
    texts = prompts(scenario, 3, words, TEMPLATE)
    for ask, text in zip(scenario.asks, texts, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert len(ids) + TEMPLATE == ask.prompt
    assert name in TELLS


@pytest.mark.parametrize("name", SCENARIOS)
def test_servers_that_are_compared_get_the_same_prompts(name, words):
    """The scenario and the repeat alone determine them, and each repeat has others."""
    scenario = SCENARIOS[name]
    texts = prompts(scenario, 0, words, TEMPLATE)
    assert texts == prompts(scenario, 0, words, TEMPLATE)
    later = prompts(scenario, 1, words, TEMPLATE)
    assert not set(texts) & set(later)
    assert len(set(texts)) == len(texts)


def test_a_shared_prefix_is_shared_and_nothing_else_is(words):
    """With the template before it, it has its length in tokens; another repeat has another."""
    one, *others = [text.split() for text in prompts(SCENARIOS["c"], 0, words, TEMPLATE)]
    length = 1024 - TEMPLATE
    for other in others:
        assert other[:length] == one[:length]
        assert other[length:] != one[length:]
    assert prompts(SCENARIOS["c"], 1, words, TEMPLATE)[0].split()[:length] != one[:length]
    alone = [text.split()[:4] for text in prompts(SCENARIOS["b16"], 0, words, TEMPLATE)]
    assert len({tuple(words) for words in alone}) == len(alone)


def test_a_prompt_without_room_for_a_word_is_refused(words):
    """Rather than sent longer than asked."""
    with pytest.raises(ValueError, match="no word"):
        prompts(Scenario("x", (Ask(5, 1),), 1), 0, words, TEMPLATE)


@pytest.mark.parametrize("changed", [{"tokens": 31}, {"prompt_tokens": 127}, {"first": 0.0}])
def test_a_run_that_did_other_work_is_refused(changed):
    """Fewer tokens in or out, or no text at all, make no figure."""
    scenario = SCENARIOS["a"]
    right = [told(ask) for ask in scenario.asks]
    check(scenario, right)
    with pytest.raises(WrongCountsError):
        check(scenario, [*right[:-1], replace(right[-1], **changed)])


def test_a_long_prompt_that_met_no_chats_is_refused():
    """Every chat still runs when it is sent, or nothing was measured."""
    scenario = SCENARIOS["d"]
    streams = [told(ask, last=1.0) for ask in scenario.asks[:-1]]
    check(scenario, [*streams, told(scenario.asks[-1], sent=0.9)])
    with pytest.raises(WrongCountsError, match="had ended"):
        check(scenario, [*streams, told(scenario.asks[-1], sent=1.1)])


def test_figures_are_those_of_the_chats():
    """Times come from the requests that run throughout, tokens from all, and cost is passed on."""
    chat, late = Ask(64, 11), Ask(2048, 32, at_s=0.4)
    scenario = Scenario("d", (chat, chat, late), 2)
    streams = [
        told(chat, first=0.2, last=1.2, gaps=[0.1] * 10),
        told(chat, first=0.4, last=2.4, gaps=[0.1] * 8 + [0.7, 0.5]),
        told(late, sent=0.4, first=1.0, last=1.5, gaps=[9.0]),
    ]
    result = figures(scenario, streams, Cost(cpu_s=3.0, rss_mib=100.0, others=0.01))
    assert result["tok_s"] == pytest.approx((11 + 11 + 32) / 2.5)
    assert result["ttft_p50_ms"] == pytest.approx(400)
    assert result["itl_p50_ms"] == pytest.approx(100)
    assert result["itl_max_ms"] == pytest.approx(700)
    assert result["tpot_ms"] == pytest.approx((100 + 200) / 2)
    assert result["long_ttft_ms"] == pytest.approx(1000)
    assert (result["cpu_s"], result["rss_mib"], result["others"]) == (3.0, 100.0, 0.01)


def test_medians_are_of_each_figure_by_itself():
    """Not of the run that is in the middle by one of them."""
    runs = [{"a": 1.0, "b": 9.0}, {"a": 2.0, "b": 7.0}, {"a": 3.0, "b": 8.0}]
    assert medians(runs) == {"a": 2.0, "b": 8.0}


def _serving(*pieces: bytes):
    """A server that answers any request with these pieces, each in a write of its own."""

    async def answer(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.03)
        finally:
            writer.close()
            with contextlib.suppress(OSError):  # the client may have gone
                await writer.wait_closed()

    return asyncio.start_server(answer, "127.0.0.1", 0)


def _answered(*pieces: bytes) -> Stream:
    async def run():
        async with await _serving(*pieces) as server:
            port = server.sockets[0].getsockname()[1]
            return await stream(f"http://127.0.0.1:{port}/v1", {"model": "m"})

    return asyncio.run(run())


_HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
_DONE = b"data: [DONE]\n\n"


def test_the_first_token_is_the_first_text():
    """Not the head, nor the role with its empty text; text in two pieces counts once whole."""
    taken = _answered(
        _HEAD,
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"choices":[{"delta":{"cont',
        b'ent": "one"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"two"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"three"}}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n',
        _USAGE + _DONE,
    )
    assert (taken.prompt_tokens, taken.tokens) == (7, 3)
    assert taken.first > 0.08  # three pieces were before it
    assert len(taken.gaps) == 1  # what arrives at once is one sample
    assert taken.first + taken.gaps[0] == pytest.approx(taken.last)
    assert taken.ended > taken.last + 0.02


@pytest.mark.parametrize("pieces", [(_HEAD, _USAGE), (b"HTTP/1.1 503 Busy\r\n\r\n", _DONE)])
def test_an_answer_that_is_cut_or_refused_raises(pieces):
    """It is no stream of no tokens."""
    with pytest.raises(ConnectionError):
        _answered(*pieces)


def test_a_server_is_loaded_with_exactly_what_a_scenario_says(words):
    """A whole server by its own usage: what its template adds is found out, then counts are met."""
    with live() as server:
        target = asyncio.run(calibrate(server.url, MODEL, words))
        assert target.ignores_eos
        scenario = Scenario("x", (Ask(96, 8, shared=64),) * 3 + (Ask(128, 4, at_s=0.0),), 2)
        streams = asyncio.run(play(target, scenario, 0))
        check(scenario, streams)
        told = measure(target, scenario, 1)
        assert told["tok_s"] > 0
        assert "cpu_s" not in told  # of a server whose process is not known
        told = measure(target, scenario, 2, os.getpid(), quiet=1.0)
        assert told["cpu_s"] > 0
        assert told["rss_mib"] > 50
