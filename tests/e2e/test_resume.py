"""Streams that go on behind another gateway: nothing lost, nothing twice, computed once."""

import json
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx2
import pytest

from tests.e2e.test_workers import all_up, fronted, worker_at
from tests.support.command import body, served
from tests.support.live import eventually

REPLICATED = {"x-stream-durability": "replicated"}


@contextmanager
def cluster(folder, *, gateways=2, front=()):
    """Two workers, and gateways that front both; `front` is what these are told beside."""
    addresses = [f"unix:{folder}/{number}" for number in range(2)]
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(worker_at(address))
        fronts = [stack.enter_context(fronted(*addresses, flags=front)) for _ in range(gateways)]
        for each in fronts:
            eventually(all_up(each, 2), 40, "both workers are found")
        yield fronts


@dataclass
class Told:
    """What a client has of a stream."""

    texts: dict = field(default_factory=dict)
    ends: dict = field(default_factory=dict)
    usage: dict | None = None
    place: str | None = None
    done: bool = False
    headers: dict = field(default_factory=dict)
    scores: list = field(default_factory=list)

    def take(self, event):
        """One event of the stream, with the place that it ends at."""
        for line in event.splitlines():
            if line.startswith("id: "):
                self.place = line[4:]
            elif line == "data: [DONE]":
                self.done = True
            elif line.startswith("data: "):
                self._take_chunk(json.loads(line[6:]))

    def _take_chunk(self, chunk):
        assert "error" not in chunk, chunk
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            index = choice["index"]
            piece = choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                piece += "".join(call["function"].values())
            self.texts[index] = self.texts.get(index, "") + piece
            self.scores += (choice.get("logprobs") or {}).get("content") or ()
            assert not (choice["finish_reason"] and index in self.ends)
            self.ends[index] = choice["finish_reason"] or self.ends.get(index)
            if self.ends[index] is None:
                del self.ends[index]

    @property
    def whole(self):
        """What must be the same however it came."""
        usage = self.usage or {}
        return self.texts, self.ends, usage.get("completion_tokens"), self.done


def chat(**fields):
    asked = {"temperature": 0.8, "seed": 5, "max_tokens": 40, **fields}
    return body(stream=True, stream_options={"include_usage": True}, **asked)


def read(server, asked, told, *, events=10**9, headers=None, method="POST", path="", when=None):
    """Read a stream, at most so many events of it; then the connection is cut."""
    url = f"{server.url}/chat/completions{path}"
    with httpx2.stream(method, url, json=asked, headers=headers, timeout=60) as answer:
        if answer.status_code != 200:
            return answer.status_code, json.loads(answer.read())["error"]
        told.headers = dict(answer.headers)
        event = ""
        for line in answer.iter_lines():
            event += line + "\n"
            if line or event == "\n":
                continue
            told.take(event)
            event, events = "", events - 1
            if when is not None:
                when()
            if told.done or not events:
                break
    return 200, None


def resume(server, told, **more):
    """Go on at a server from where the client is."""
    path = f"/{told.headers['x-stream-id']}/stream"
    headers = {"last-event-id": told.place} if told.place else {}
    return read(server, None, told, method="GET", path=path, headers=headers, **more)


SORTS = {
    "seeded": chat(),
    "two choices": chat(n=2),
    "stop string": chat(stop=["a"], max_tokens=400),
    "greedy": chat(temperature=0),
    "schema": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "f", "schema": {
            "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
            "additionalProperties": False,
        }}},
    ),
}  # fmt: skip


def test_a_socket_that_is_cut_at_any_event_loses_nothing(tmp_path):
    """Every sort of stream, cut at each of its events, goes on behind the other gateway."""
    with cluster(tmp_path) as (one, two):
        for name, asked in SORTS.items():
            control = Told()
            assert read(one, asked, control) == (200, None)
            assert control.done, name
            cut = 0
            while True:
                cut += 1
                told = Told()
                assert read(one, asked, told, events=cut, headers=REPLICATED) == (200, None)
                if told.done:
                    break
                assert told.headers["x-stream-resume"] == "cluster; ttl=15"
                assert resume(two, told) == (200, None), (name, cut)
                assert told.whole == control.whole, (name, cut)
            assert cut > 3, name


def test_a_killed_gateway_costs_its_clients_nothing(tmp_path):
    """Streams of a gateway that gets SIGKILL go on behind the other: as if nothing had been."""
    with cluster(tmp_path) as (one, two):
        asked = [chat(seed=number, max_tokens=3000) for number in range(4)]
        controls = [Told() for _ in asked]
        for each, control in zip(asked, controls, strict=True):
            read(two, each, control)
        tolds = [Told() for _ in asked]
        begun = threading.Barrier(len(asked) + 1)

        def follow(each, told):
            seen = []

            def count():
                seen.append(1)
                if len(seen) == 5:
                    begun.wait(30)

            try:
                read(one, each, told, when=count)
            except httpx2.HTTPError:
                resume(two, told)

        threads = [
            threading.Thread(target=follow, args=pair) for pair in zip(asked, tolds, strict=True)
        ]
        for thread in threads:
            thread.start()
        begun.wait(30)
        one.process.kill()
        for thread in threads:
            thread.join(60)
        assert [told.whole for told in tolds] == [control.whole for control in controls]


def test_a_stream_that_nobody_asked_to_keep_ends_with_its_reader(tmp_path):
    """Its tokens would be for nobody; where a gateway dies it is kept all the same."""
    with cluster(tmp_path, gateways=1) as (one,):
        told = Told()
        read(one, chat(max_tokens=3000), told, events=5)
        assert told.headers["x-stream-resume"] == "cluster; ttl=15"

        def gone():
            return resume(one, told, events=1)[0] == 404

        eventually(gone, 10, "it is cancelled")
        told = Told()
        read(one, chat(), told, headers={"x-stream-durability": "none"})
        assert told.headers["x-stream-resume"] == "none"
        assert told.place is None
        assert resume(one, told)[0] == 404


def test_a_server_alone_goes_on_with_its_own(tmp_path):
    """Behind `penstock serve` a stream is kept where its client asks for it."""
    with served("--engine", "ledger") as server:
        control, told = Told(), Told()
        read(server, chat(), control)
        assert control.headers["x-stream-resume"] == "none"
        read(server, chat(), told, events=7, headers=REPLICATED)
        assert told.headers["x-stream-resume"] == "local; ttl=15"
        assert resume(server, told) == (200, None)
        assert told.whole == control.whole
        server.stop()
        lines = map(json.loads, server.process.stderr.read().splitlines())
        calls = [line for line in lines if "call_id" in line]
        assert [line.get("resumed") for line in calls] == [None, None, True]
        assert calls[1]["call_id"] == calls[2]["call_id"]


def test_a_stream_is_nobody_elses(tmp_path):
    """Another key's is not there; nor is one of another route, or what never was."""
    keys = {"PENSTOCK_API_KEY": "key-of-ada-0123456789,key-of-bob-0123456789"}
    ada, bob = ({"authorization": f"Bearer key-of-{name}-0123456789"} for name in ("ada", "bob"))
    with served("--engine", "ledger", **keys) as server:
        told = Told()
        read(server, chat(), told, events=5, headers={**ada, **REPLICATED})
        stream = told.headers["x-stream-id"]
        url = f"{server.url}/chat/completions/{stream}/stream"
        assert httpx2.get(url, headers=bob).status_code == 404
        assert httpx2.get(url).status_code == 401
        other = url.replace("/chat", "")
        assert httpx2.get(other, headers=ada).status_code == 404
        never = url.replace(stream, f"chatcmpl-{'0' * 24}")
        assert httpx2.get(never, headers=ada).status_code == 404
        refused = httpx2.get(url, headers=ada, params={"after": "nine"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")
        refused = httpx2.get(url, headers=ada, params={"after": "1.1"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")
        whole = httpx2.get(url, headers=ada).text
        assert whole.endswith("data: [DONE]\n\n")
        wrong = httpx2.post(
            f"{server.url}/chat/completions", json=chat(),
            headers={**ada, "x-stream-durability": "for ever"},
        )  # fmt: skip
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize("readers", [2, 5])
def test_of_several_readers_the_last_one_has_it(tmp_path, readers):
    """Those before hear that it was taken; nobody gets a token that another lacks."""
    with cluster(tmp_path, gateways=1) as (one,):
        control, told = Told(), Told()
        asked = chat(max_tokens=6000)
        read(one, asked, control)
        read(one, asked, told, events=4, headers=REPLICATED)
        others = [Told(headers=told.headers) for _ in range(readers - 1)]
        for other in others:
            resume(one, other, events=3)
        assert resume(one, told) == (200, None)
        assert told.whole == control.whole
