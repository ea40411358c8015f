"""A client that leaves, at any point: its request is aborted at once and nothing leaks."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.support.live import MODEL, Raw, chat, eventually, live, test_settings

CHAT = "/v1/chat/completions"
RANDOM_POINTS = 50


@pytest.fixture(scope="module")
def server():
    with live(test_settings(max_running=4), step_s=0.025) as server:
        yield server


def blocks_are_free(server):
    """No request holds a block; what stays is cached and counts as free."""
    load = server.load()
    return (load.running, load.waiting, load.blocks_used) == (0, 0, 0)


def aborted_at_once(server, leave):
    """Leave; then the blocks must be free within one step of the abort.

    That one step after the abort is exact, and proved at the engine in the conformance suite. From
    outside only the close of the socket can be timed, and three steps may be counted after it:

    1. the one under way at the close, whose end is counted after it;
    2. one begun before the event loop has read the close: the engine's thread waits for nobody;
    3. one begun between that and the abort's arrival in the engine's inbox, which takes the loop
       three turns (the watch wakes, the call is cancelled, its stream is closed).

    Whatever is planned after that is without the request, and without work nothing is planned.
    """
    before = server.load().steps
    leave()
    eventually(lambda: blocks_are_free(server), 5, "blocks to be free")
    assert server.load().steps - before <= 3, "kept computing for nobody"


@pytest.mark.parametrize("point", range(RANDOM_POINTS))
def test_leaving_at_a_random_point_frees_everything(server, point):
    """Streaming or not, one choice or three, FIN or RST, before or amid the tokens."""
    chance = random.Random(point)
    stream = chance.random() < 0.6
    body = chat(str(point), max_tokens=1500, n=chance.choice([1, 1, 3]), stream=stream)
    raw = Raw(server.port)
    raw.send("POST", CHAT, body)
    if stream and chance.random() < 0.8:
        raw.read(chance.randrange(1, 2000))
    else:
        time.sleep(chance.random() * 0.15)  # a point in time, not something waited for
    aborted_at_once(server, chance.choice([raw.reset, raw.socket.close]))
    eventually(server.quiet)


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_while_queued_starts_nothing(server, stream):
    """A request without a place in the batch costs no step at all."""
    busy = Raw(server.port)
    busy.send("POST", CHAT, chat("busy", max_tokens=1500, n=4, stream=True))
    busy.read_until(b'{"content":"')
    queued = Raw(server.port)
    queued.send("POST", CHAT, chat("queued", max_tokens=1500, stream=stream))
    eventually(lambda: server.load().waiting == 1)
    queued.socket.close()
    eventually(lambda: server.load().waiting == 0)
    assert server.load().running == 4
    aborted_at_once(server, busy.socket.close)


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_with_a_pipelined_request_is_noticed(server, stream):
    """The second request on the connection must not hide that the first one's reader is gone."""
    raw = Raw(server.port)
    raw.send("POST", CHAT, chat(max_tokens=1500, stream=stream))
    eventually(lambda: server.load().running == 1)
    raw.send("GET", "/livez")
    raw.send("GET", "/livez")
    time.sleep(0.02)  # they have arrived, most likely; if not the test is only easier
    aborted_at_once(server, raw.reset)


def test_piling_up_pipelined_requests_ends_the_connection(server):
    """What waits behind a stream is bounded."""
    with Raw(server.port) as raw:
        raw.send("POST", CHAT, chat(max_tokens=1500, stream=True))
        raw.read_until(b'{"content":"')
        raw.socket.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        eventually(lambda: blocks_are_free(server), 5, "the connection to be cut")


def test_leaving_amid_a_body_is_nothing(server):
    """There was no request yet."""
    before = server.load()
    raw = Raw(server.port)
    raw.socket.sendall(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b'content-length: 1000\r\n\r\n{"model'
    )
    time.sleep(0.01)
    raw.reset()
    eventually(server.quiet)
    assert server.load() == before


def test_a_batch_of_prompts_is_aborted_whole(server):
    """One call, many requests: all of them end."""
    raw = Raw(server.port)
    body = {"model": MODEL, "prompt": ["a", "b", "c", "d"], "max_tokens": 1500, "stream": True}
    raw.send("POST", "/v1/completions", body)
    raw.read_until(b'text":"')
    aborted_at_once(server, raw.socket.close)


def test_aborts_are_counted_by_cause(server):
    """An operator sees them leave."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    name = 'penstock_aborts_total{cause="client_gone"} '

    def count():
        text = httpx2.get(url).text
        return float(text.split(name)[1].split()[0]) if name in text else 0

    before = count()
    raw = Raw(server.port)
    raw.send("POST", CHAT, chat(max_tokens=1500, stream=True))
    raw.read_until(b'{"content":"')
    raw.socket.close()
    eventually(lambda: count() == before + 1)


def test_a_thousand_requests_leave_nothing_behind():
    """Blocks, tasks, descriptors and mailboxes are where they were; a third of them left early."""
    with live(test_settings(max_running=16)) as server:
        run_some(server, 40)  # what is made once is made now
        eventually(server.quiet)
        eventually(lambda: settled(server))
        base = census(server)
        run_some(server, 1000)
        eventually(server.quiet)
        eventually(lambda: no_more_than(base, census(server)), 10, f"{base} again")
        assert server.load().blocks_used == 0
        assert not server.serving.engine._boxes


def run_some(server, count):
    local = threading.local()

    def one(number):
        chance = random.Random(number)
        if number % 3 == 0:
            raw = Raw(server.port)
            raw.send("POST", CHAT, chat(str(number), max_tokens=200, stream=number % 2 == 0))
            if chance.random() < 0.5:
                raw.read(1)
            chance.choice([raw.reset, raw.socket.close])()
            return
        if not hasattr(local, "raw"):
            local.raw = Raw(server.port)
            sockets.append(local.raw)
        local.raw.send("POST", CHAT, chat(str(number), max_tokens=4, stream=number % 2 == 0))
        end = b"0\r\n\r\n" if number % 2 == 0 else b"system_fingerprint"
        got = local.raw.read_until(end)
        if number % 2:
            head, _, body = got.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body += local.raw.read(length - len(body)) if len(body) < length else b""
            assert json.loads(body)["usage"]["completion_tokens"] == 4

    sockets = []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(count)))
    for raw in sockets:
        raw.socket.close()


def census(server):
    """Tasks of the loop, and descriptors of the process."""
    return server.tasks(), sum(1 for _ in Path("/proc/self/fd").iterdir())


def no_more_than(base, now):
    """In each part: fewer tasks do not make up for a descriptor left open."""
    return all(part <= was for part, was in zip(now, base, strict=True))


def settled(server):
    first = census(server)
    time.sleep(0.05)
    return census(server) == first
