"""One key after the prompts of another: it finds nothing, by any route, tier, worker or id."""

import json
from contextlib import contextmanager

import httpx2
import pytest

from openai_compat.cache_salt import MAX_SALT_CHARS
from tests.e2e.test_resume import Told
from tests.e2e.test_workers import all_up
from tests.support.command import served
from tests.support.live import eventually
from tests.support.tenants import ROUTES, asked, cached, key_file, post, secret

OWNER, THIEF = 0, 1
TIERS = ("--kv-cache-memory=16KiB", "--kv-host-memory=16KiB", "--max-context=2048")
TEAM, MATE, OTHERS, ALONE = 40, 41, 42, 43
MATES = (45, 46, 47)
GROUPS = {TEAM: "team", MATE: "team", OTHERS: "others", **dict.fromkeys(MATES, "team")}
SYSTEM = "You are a careful clerk. " + secret("system", 60)


@contextmanager
def server_of(keys, folder=None, *more):
    """Two workers on the ledger; with a folder, small enough that prompts go down to the disk."""
    tiers = () if folder is None else (*TIERS, f"--kv-disk-dir={folder}", "--kv-disk-bytes=64MiB")
    flags = ("--engine=ledger", "--replicas=2", "--metrics-public", f"--api-key-file={keys}")
    quiet = ("--log-level=warning",)  # hundreds of lines would fill a pipe that nobody reads
    with served(*flags, *tiers, *quiet, *more) as server:
        eventually(all_up(server, 2), 40, "both workers up")
        yield server


def counted(server, name):
    text = httpx2.get(f"http://127.0.0.1:{server.port}/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return key_file(tmp_path_factory.mktemp("keys"), groups=GROUPS)


@pytest.fixture(scope="module")
def server(keys):
    with server_of(keys) as server:
        yield server


def owned(url, texts):
    """The owner says each text by each route, and finds it again."""
    for text in texts:
        for route in ROUTES:
            cached(url, OWNER, route, text, system=SYSTEM)
    return sum(cached(url, OWNER, route, texts[-1], system=SYSTEM)[0] for route in ROUTES)


def probe(server, texts, thieves):
    """What keys that have never said anything find, each once by a route; and the counters."""
    names = ("penstock_prefix_hit_tokens_total", "penstock_prefix_route_hits_total")
    before = [counted(server, name) for name in names]
    tries = [(route, text) for text in texts for route in ROUTES]
    found = [
        cached(server.url, thief, route, text, system=SYSTEM)[0]
        for thief, (route, text) in zip(thieves, tries, strict=True)
    ]
    after = [counted(server, name) for name in names]
    return sum(found), [now - was for now, was in zip(after, before, strict=True)]


def test_no_route_finds_what_another_key_has_said(server):
    """Two workers and a router that follows their caches: no token, no hit, no placement."""
    texts = [secret(number) for number in range(4)]
    assert owned(server.url, texts) > 0
    assert probe(server, texts, range(2, 18)) == (0, [0, 0])


def test_no_prefix_of_a_prompt_is_found(server):
    """From all of it down to its first words, each by a key of its own."""
    text = secret("prefixes", 200)
    assert cached(server.url, OWNER, "completions", text)[0] == 0
    assert cached(server.url, OWNER, "completions", text)[0] > 0
    words, hits = text.split(), counted(server, "penstock_prefix_hit_tokens_total")
    for place, thief in enumerate(range(18, 38)):
        part = " ".join(words[: 10 * (20 - place)])
        assert cached(server.url, thief, "completions", part)[0] == 0
    assert counted(server, "penstock_prefix_hit_tokens_total") == hits


def test_slower_tiers_and_restarts_tell_nothing_either(keys, tmp_path):
    """The owner's prompts come back from the host's memory and the disk, for the owner alone."""
    texts = [secret(f"tier {number}") for number in range(8)]
    with server_of(keys, tmp_path) as server:
        assert owned(server.url, texts) > 0
        assert probe(server, texts[:2], range(2, 10)) == (0, [0, 0])
        assert server.stop() == 0
    assert [*tmp_path.rglob("manifest")]
    with server_of(keys, tmp_path) as server:
        assert probe(server, texts[2:4], range(10, 18)) == (0, [0, 0])
        both = [cached(server.url, OWNER, "chat", text, system=SYSTEM)[0] for text in texts * 2]
        assert sum(both) > 0, "the disk has it, whichever worker was asked"
        assert probe(server, texts[4:], range(18, 34)) == (0, [0, 0])


@pytest.mark.parametrize("salt", ["a", "sk-0", "\0" * 16, "é" * 9, "x" * MAX_SALT_CHARS])
def test_no_salt_of_a_client_leads_to_another_key(server, salt):
    """Not even the one that the owner gives."""
    text = secret(f"salt {salt}")
    for _ in range(2):
        own, _ = cached(server.url, OWNER, "chat", text, cache_salt=salt)
    assert own > 0
    assert cached(server.url, THIEF, "chat", text, cache_salt=salt)[0] == 0
    assert cached(server.url, OWNER, "chat", text)[0] == 0, "nor is it the owner's without"
    assert cached(server.url, OWNER, "completions", text, cache_salt=salt)[0] == 0


@pytest.mark.parametrize("salt", ["", "x" * (MAX_SALT_CHARS + 1), 7, ["a"], "\ud800", {"a": 1}])
def test_what_is_no_salt_is_refused(server, salt):
    """And does not count as none."""
    path, body = asked("chat", "hi")
    body = json.dumps(body | {"cache_salt": salt})
    headers = {"x-api-key": f"sk-{THIEF}", "content-type": "application/json"}
    answer = httpx2.post(f"{server.url}{path}", content=body, headers=headers, timeout=30)
    assert answer.status_code == 400, answer.text


def test_callers_without_keys_are_one_and_have_salts_of_their_own():
    """What is kept apart then is what a client keeps apart."""
    text = secret("anonymous")
    with served("--engine=ledger") as server:
        assert cached(server.url, OWNER, "chat", text)[0] == 0
        assert cached(server.url, THIEF, "chat", text)[0] > 0, "no keys, no tenants"
        assert cached(server.url, THIEF, "chat", text, cache_salt="mine")[0] == 0
        assert cached(server.url, THIEF, "chat", text, cache_salt="mine")[0] > 0
        assert cached(server.url, OWNER, "chat", text, cache_salt="his")[0] == 0


# -- ids


def test_a_stored_response_is_nobody_elses(server):
    """In no route and in no field, and what it says is in nobody's prompt."""
    path, body = asked("responses", secret("stored"))
    answer = post(server.url, OWNER, path, body).json()
    own = f"{path}/{answer['id']}"
    following = body | {"input": "go on", "previous_response_id": answer["id"]}
    assert post(server.url, OWNER, path, following).status_code == 200
    refused = post(server.url, THIEF, path, following)
    gone = post(server.url, THIEF, path, following | {"previous_response_id": "resp_" + "0" * 24})
    assert refused.status_code == gone.status_code == 404
    assert named(refused.json(), answer["id"]) == named(gone.json(), "resp_" + "0" * 24)
    for method, where in [
        ("GET", own), ("DELETE", own), ("GET", f"{own}/input_items"), ("POST", f"{own}/cancel"),
        ("GET", f"{own}?stream=true"),
    ]:  # fmt: skip
        headers = {"x-api-key": f"sk-{THIEF}"}
        answer = httpx2.request(method, f"{server.url}{where}", headers=headers, timeout=30)
        assert answer.status_code == 404, (method, where)


def named(refusal, response_id):
    """A refusal but for the id that it repeats: there must be no other difference."""
    return json.dumps(refusal).replace(response_id, "ID")


def test_an_idempotency_key_stands_for_a_call_of_its_own_key_only(server):
    """Another API key's call under the same one begins anew, and is told nothing."""
    path, body = asked("chat", secret("once"))
    body |= {"temperature": 0.9, "max_tokens": 40}
    header = {"idempotency-key": "order-1"}
    first = post(server.url, OWNER, path, body, header).json()
    assert post(server.url, OWNER, path, body, header).json() == first
    other = post(server.url, THIEF, path, body, header)
    assert other.status_code == 200
    assert other.json()["id"] != first["id"]
    assert other.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    otherwise = post(server.url, THIEF, path, body | {"max_tokens": 5}, header)
    assert otherwise.status_code == 409, "of its own call"
    third = post(server.url, 2, path, body | {"max_tokens": 5}, header)
    assert third.status_code == 200, "that there is one of another key is not told"


def test_a_kept_stream_is_followed_by_its_own_key_only(server):
    """A stolen id, with any place, is one that is not there."""
    told, (path, body) = Told(), asked("chat", secret("kept"))
    body |= {"stream": True, "max_tokens": 200}
    headers = {"x-api-key": f"sk-{OWNER}", "x-stream-durability": "replicated"}
    url = f"{server.url}{path}"
    with httpx2.stream("POST", url, json=body, headers=headers, timeout=30) as answer:
        stream = answer.headers["x-stream-id"]
        for line in answer.iter_lines():
            if line.startswith("id: "):
                told.place = line[4:]
                break
    where = f"{url}/{stream}/stream"
    for thief in (THIEF, 2):
        for place in (None, told.place, "0"):
            headers = {"x-api-key": f"sk-{thief}"} | ({"last-event-id": place} if place else {})
            assert httpx2.get(where, headers=headers, timeout=30).status_code == 404
    owner = {"x-api-key": f"sk-{OWNER}", "last-event-id": told.place}
    with httpx2.stream("GET", where, headers=owner, timeout=30) as answer:
        assert answer.status_code == 200


# -- groups


@pytest.mark.parametrize("route", ["chat", "responses", "messages"])
def test_a_group_shares_its_system_prompt_and_nothing_behind_it(server, route):
    """A mate finds the system's blocks; those of the other group, and of none, find nothing."""
    system, text = secret(f"group {route}", 120), secret(f"behind {route}", 120)
    _, alone = cached(server.url, 44, route, "x", system=system)
    assert cached(server.url, TEAM, route, text, system=system)[0] == 0
    found, tokens = cached(server.url, MATE, route, text, system=system)
    assert alone - 48 < found < alone < tokens - 200, "all whole blocks of it, and no other"
    again, _ = cached(server.url, MATE, route, text, system=system)
    assert again > tokens - 40, "the rest under its own key"
    for key in (OTHERS, ALONE):
        assert cached(server.url, key, route, text, system=system)[0] == 0
    assert cached(server.url, TEAM, route, "Hi", system=system)[0] == found


def test_what_is_behind_a_shared_prompt_stays_with_its_key(server):
    """However much of it a mate guesses."""
    system, text = secret("shared", 120), secret("guessed", 120)
    cached(server.url, TEAM, "chat", text, system=system)
    most, _ = cached(server.url, MATE, "chat", "y", system=system)
    words = text.split()
    for mate, share in zip(MATES, (120, 90, 30), strict=True):
        guess = " ".join(words[:share])
        own, _ = cached(server.url, mate, "chat", guess, system=system, cache_salt="own")
        assert own == 0, "a cache of one's own shares nothing"
        assert cached(server.url, mate, "chat", guess, system=system)[0] == most


def test_prompts_without_a_system_share_what_the_template_says(server):
    """A completion has none, and a user's words are not the system's, whoever repeats them."""
    for route in ROUTES:
        text = secret(f"no system, {route}", 120)
        cached(server.url, TEAM, route, text)
        assert cached(server.url, MATE, route, text)[0] == 0
    cached(server.url, TEAM, "chat", "Hi", system=text)
    assert cached(server.url, MATE, "completions", text)[0] == 0
    assert cached(server.url, MATE, "chat", text, system="Hm")[0] == 0


def test_tools_are_of_the_system(server):
    """They stand with it in the prompt, before anything that is said."""
    tool = {"name": "look", "description": secret("tool"), "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": tool}]
    cached(server.url, TEAM, "chat", "one", tools=tools)
    assert cached(server.url, MATE, "chat", "two", tools=tools)[0] > 200
    assert cached(server.url, ALONE, "chat", "two", tools=tools)[0] == 0


def test_a_shared_prompt_is_found_in_slower_tiers_and_after_a_restart(keys, tmp_path):
    """By the whole group, and what is behind it by one key."""
    system = secret("tiers", 150)
    text, mates = secret("behind", 60), (MATE, *MATES)
    with server_of(keys, tmp_path) as server:
        for each in (text, *(secret(f"behind {number}", 60) for number in range(6))):
            cached(server.url, TEAM, "chat", each, system=system)
        assert server.stop() == 0
    with server_of(keys, tmp_path) as server:
        found = [cached(server.url, mate, "chat", text, system=system)[0] for mate in mates]
        assert max(found) == found[-1], "by either worker, once it has computed it"
        assert len({*found} - {0}) == 1, "what is shared, or nothing where another worker has it"
        assert cached(server.url, ALONE, "chat", text, system=system)[0] == 0
        own = [cached(server.url, TEAM, "chat", text, system=system)[0] for _ in range(2)]
        assert max(own) > max(found)
