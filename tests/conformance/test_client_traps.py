"""One test for each way in which servers are known to trip up their clients, on a live port.

What they make of an answer that is a little off was measured with six clients; the numbers are
those of that survey. Here the stock openai-python client reads what it reads, and the bytes are
looked at where another client is the one that trips.
"""

import json
import threading
from contextlib import contextmanager

import httpx2
import openai
import pytest

from gateway.setting_kinds import Secret
from tests.support.live import MODEL, Raw, chat, eventually, live, test_settings
from tests.support.scripted import scripted

CHAT = "/v1/chat/completions"
PAGE = "https://chat.example"
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("look", "add")
]
JSON = {"content-type": "application/json"}
USAGE = {"include_usage": True}


def call_text(name, arguments="{}"):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


TWO_CALLS = call_text("look", '{"a": "b"}') + "\n" + call_text("add")


@pytest.fixture(scope="module")
def told():
    """A server whose model says what the test wrote, and the script."""
    with scripted() as (server, script):
        yield server, script


@pytest.fixture(scope="module")
def ledger():
    with live(step_s=0.002) as server:
        yield server


@contextmanager
def client(server, **options):
    url = {"base_url": server.url, "api_key": "x", "max_retries": 0}
    with openai.OpenAI(**{**url, **options}) as sdk:
        yield sdk


def post(server, body, path=CHAT, **headers):
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx2.post(url, json=body, headers=headers, timeout=30)


def body_of(server, body, path=CHAT):
    """The raw events of a stream that ends well."""
    response = post(server, {**body, "stream": True}, path)
    assert response.status_code == 200, response.text
    return response.content.split(b"\n\n")[:-1]


def chunks_of(server, body, path=CHAT):
    """Its chunks, and the proof that it ends as it must."""
    *chunks, done = body_of(server, body, path)
    assert done == b"data: [DONE]"
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def says(told, text, **fields):
    """The chunks of a chat in which the model says this."""
    server, script = told
    script.says(text)
    return chunks_of(server, chat(**fields))


def deltas(chunks):
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def failed_stream(told, body=None):
    """The raw bytes of a stream whose engine dies in the middle, and its head."""
    server, script = told
    script.says("half an answer", end="dies")
    with Raw(server.port) as raw:
        raw.send("POST", CHAT, body or chat(stream=True))
        got, _ = raw.read_to_end()
    head, _, rest = got.partition(b"\r\n\r\n")
    return head.lower(), rest


def error_event(rest):
    return json.loads(rest.rstrip().rpartition(b"data: ")[2])


def refusals(server):
    """An answer of each kind of refusal, by its status."""
    url = f"http://127.0.0.1:{server.port}"
    return {
        400: httpx2.post(url + CHAT, json=chat(temperature=9)),
        404: httpx2.get(url + "/v1/nowhere"),
        405: httpx2.put(url + CHAT),
        413: httpx2.post(url + CHAT, content=b" " * (3 << 20), headers=JSON),
        415: httpx2.post(url + CHAT, content=b"{}", headers={"content-type": "text/plain"}),
    }


@pytest.mark.parametrize("end", ["stop", "length"])
def test_trap_01_no_stream_ends_without_saying_why(told, end):
    """A clean end without a reason is a cut text that clients take for whole."""
    server, script = told
    script.says("an answer", end=end)
    *_, last = chunks_of(server, chat())
    assert last["choices"][0]["finish_reason"] == end
    _, rest = failed_stream(told)
    assert b"[DONE]" not in rest
    assert b'"finish_reason":"' not in rest


def test_trap_02_a_cut_is_announced_and_never_looks_like_an_end(told):
    """An event first, then no last chunk; `Connection: close` would make the cut silent in Node."""
    head, rest = failed_stream(told)
    assert b"connection: close" not in head
    assert "error" in error_event(rest)
    assert not rest.endswith(b"0\r\n\r\n")


def test_trap_03_an_error_in_a_stream_raises_with_its_code(told):
    """Nested, the only shape that every client sees."""
    server, script = told
    script.says("half", end="dies")
    with client(server) as sdk, pytest.raises(openai.APIError) as failure:
        list(sdk.chat.completions.create(**chat(stream=True)))
    assert (failure.value.code, failure.value.type) == ("engine_died", "server_error")


def test_trap_04_no_error_is_flat(told):
    """One member, `error`; flat ones are swallowed as success."""
    _, rest = failed_stream(told)
    assert set(error_event(rest)) == {"error"}
    assert set(error_event(rest)["error"]) == {"message", "type", "param", "code"}


def test_trap_05_no_chunk_has_an_error_that_is_null(told):
    """The AI SDK takes any `error` member for a failure."""
    assert all("error" not in chunk for chunk in says(told, "fine"))


def test_trap_06_an_error_is_an_object_with_words(told):
    """A string would lose its message."""
    _, rest = failed_stream(told)
    error = error_event(rest)["error"]
    assert isinstance(error, dict)
    assert isinstance(error["message"], str)
    assert error["message"]


def test_trap_07_every_refusal_is_nested(ledger):
    """Of every kind, on every route, the missing key too."""
    for status, response in refusals(ledger).items():
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}, status
    with live(test_settings(api_key=(Secret("sk-1"),))) as guarded:
        missing = httpx2.get(f"{guarded.url}/models")
        assert missing.status_code == 401
        with (
            client(guarded, api_key="wrong") as sdk,
            pytest.raises(openai.AuthenticationError) as no,
        ):
            sdk.models.list()
        assert no.value.code == missing.json()["error"]["code"] == "invalid_api_key"


def test_trap_08_codes_are_strings(ledger):
    """The SDK declares a string; numbers come out as they are."""
    for response in refusals(ledger).values():
        assert isinstance(response.json()["error"]["code"], str)


@pytest.mark.parametrize("stream", [True, False])
def test_trap_09_a_prompt_too_long_has_the_code_frameworks_look_for(ledger, stream):
    """Before headers, also for a stream: LangChain looks for the code in a 400."""
    with client(ledger) as sdk, pytest.raises(openai.BadRequestError) as long:
        sdk.chat.completions.create(**chat("word " * 9000, stream=stream))
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("stream", [True, False])
def test_trap_10_no_error_comes_with_200(ledger, stream):
    """Clients would read an answer without choices."""
    for fields in ({"temperature": 9}, {"model": "gpt-5"}, {"messages": []}):
        response = post(ledger, chat(stream=stream) | fields)
        assert 400 <= response.status_code < 500
        assert "error" in response.json()


def test_trap_11_overload_says_when_to_come_back():
    """Whole seconds, milliseconds, and that trying again is right."""
    with live(test_settings(max_running=1, max_queued_requests=0)) as server:
        server.runner.may_step.clear()
        with Raw(server.port) as first:
            first.send("POST", CHAT, chat(stream=True))
            first.read_until(b"assistant")
            response = post(server, chat())
            server.runner.may_step.set()
            first.read_until(b"[DONE]")
    assert response.status_code in (429, 503)
    assert 1 <= int(response.headers["retry-after"]) <= 120, "the SDK does not wait longer"
    assert int(response.headers["retry-after-ms"]) >= 1
    assert response.headers["x-should-retry"] == "true"


def test_trap_12_the_role_comes_once(told):
    """Helpers add deltas up: twice would be `assistantassistant`."""
    server, script = told
    assert [delta["role"] for delta in deltas(says(told, "a b c")) if "role" in delta] == [
        "assistant"
    ]
    script.says("a b c")
    with client(server) as sdk, sdk.chat.completions.stream(**chat()) as stream:
        message = stream.get_final_completion().choices[0].message
    assert (message.role, message.content) == ("assistant", "a b c")


def test_trap_13_the_first_chunk_has_the_role(told):
    """With an empty content, before any text."""
    assert deltas(says(told, "a"))[0] == {"role": "assistant", "content": ""}


def test_trap_14_the_usage_is_the_last_chunk(told):
    """After the finish, or helpers lose it; with the fingerprint of the others."""
    server, script = told
    *_, finish, usage = says(told, "a", stream_options=USAGE)
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["total_tokens"] > 0
    assert usage["system_fingerprint"] == finish["system_fingerprint"]
    script.says("a")
    with client(server) as sdk, sdk.chat.completions.stream(**chat(stream_options=USAGE)) as stream:
        assert (
            stream.get_final_completion().usage.completion_tokens
            == usage["usage"]["completion_tokens"]
        )


def test_trap_15_usage_on_every_chunk_only_when_asked(told):
    """Frameworks add usages up."""
    asked = says(told, "a b", stream_options={**USAGE, "continuous_usage_stats": True})
    counts = [chunk["usage"]["completion_tokens"] for chunk in asked]
    assert counts == sorted(counts)
    assert counts[0] == 0
    usual = says(told, "a b", stream_options=USAGE)
    assert [chunk["usage"] for chunk in usual[:-1]] == [None] * (len(usual) - 1)
    assert all("usage" not in chunk for chunk in says(told, "a b"))


def test_trap_16_a_chunk_without_choices_only_when_asked(told):
    """It tells the usage and comes with `include_usage` alone."""
    assert all(chunk["choices"] for chunk in says(told, "a"))
    assert [not chunk["choices"] for chunk in says(told, "a", stream_options=USAGE)][-2:] == [
        False,
        True,
    ]


def test_trap_17_choices_begin_in_order(ledger):
    """Helpers index a list by them."""
    chunks = chunks_of(ledger, chat(n=3))
    assert [chunk["choices"][0]["index"] for chunk in chunks[:3]] == [0, 1, 2]
    with client(ledger) as sdk, sdk.chat.completions.stream(**chat(n=3)) as stream:
        assert list(stream)
        assert len(stream.current_completion_snapshot.choices) == 3


def test_trap_18_one_choice_per_chunk(ledger):
    """Haystack asserts it."""
    assert {len(chunk["choices"]) for chunk in chunks_of(ledger, chat(n=3, logprobs=False))} == {1}


def test_trap_19_choices_are_told_apart_by_their_index(ledger):
    """Clients that ignore it mix texts; each text alone is that of the whole answer."""
    body = chat(n=2, temperature=1, seed=3)
    whole = post(ledger, body).json()["choices"]
    chunks = [chunk["choices"][0] for chunk in chunks_of(ledger, body)]
    for choice in whole:
        mine = [chunk for chunk in chunks if chunk["index"] == choice["index"]]
        text = "".join(chunk["delta"].get("content", "") for chunk in mine)
        assert text == choice["message"]["content"]


def calls_of(told, **fields):
    """The deltas of calls in a stream of two calls."""
    chunks = says(told, TWO_CALLS, tools=TOOLS, max_tokens=200, **fields)
    found = [delta["tool_calls"] for delta in deltas(chunks) if "tool_calls" in delta]
    assert {len(calls) for calls in found} == {1}
    return [calls[0] for calls in found], chunks


def test_trap_20_id_type_and_name_come_once(told):
    """Helpers would add ids up; theirs come out as they should."""
    server, script = told
    calls, _ = calls_of(told)
    for name in ("id", "type"):
        assert [name in call for call in calls].count(True) == 2
    assert [call["function"]["name"] for call in calls if "name" in call["function"]] == [
        "look",
        "add",
    ]
    script.says(TWO_CALLS)
    asked = chat(tools=TOOLS, max_tokens=200)
    with client(server) as sdk, sdk.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.name for call in final] == ["look", "add"]
    assert [json.loads(call.function.arguments) for call in final] == [{"a": "b"}, {}]
    assert all(call.id.startswith("call_") and call.id.count("call_") == 1 for call in final)


def test_trap_21_later_deltas_leave_out_what_they_do_not_tell(told):
    """An explicit null type makes the helper assert."""
    calls, _ = calls_of(told)
    for call in calls:
        assert None not in call.values()
        assert None not in call["function"].values()
        if "id" not in call:
            assert set(call) == {"index", "function"}
            assert set(call["function"]) == {"arguments"}


def test_trap_22_every_delta_of_a_call_has_its_index(told):
    """Without one, clients drop the call or die."""
    calls, _ = calls_of(told)
    assert all(isinstance(call["index"], int) for call in calls)


def test_trap_23_calls_are_numbered_from_zero_without_a_gap(told):
    """Helpers index a list by them."""
    calls, _ = calls_of(told)
    assert [call["index"] for call in calls if "id" in call] == [0, 1]


def test_trap_24_only_known_reasons_and_calls_end_as_calls(told, ledger):
    """Agents wait for `tool_calls`; a call that the client named ends with `stop`, as OpenAI's."""
    _, chunks = calls_of(told)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    named = {"type": "function", "function": {"name": "look"}}
    one = says(told, call_text("look"), tools=TOOLS, tool_choice=named, max_tokens=200)
    assert one[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks_of(ledger, chat(n=2))[-1]["choices"][0]["finish_reason"] == "length"


def test_trap_25_a_delta_is_never_null(told):
    """The finish has an empty object."""
    assert deltas(says(told, "a"))[-1] == {}
    assert all(isinstance(delta, dict) for delta in deltas(says(told, "a")))


def test_trap_26_comments_come_between_events_and_only_into_silence(ledger):
    """Single line feeds, and a switch to leave them out."""
    assert b": keep-alive" not in body_of(ledger, chat())
    for seconds, expected in ((0.1, True), (0, False)):
        with live(test_settings(sse_keepalive_s=seconds)) as server:
            server.runner.may_step.clear()
            threading.Timer(0.4, server.runner.may_step.set).start()
            events = body_of(server, chat())
            lines = [line for event in events for line in event.split(b"\n")]
            assert (b": keep-alive" in lines) is expected
            assert all(line.startswith((b"data: ", b": ")) for line in lines)
            assert b"\n: keep-alive\n\n" not in b"\n\n".join(events)  # no event of nothing
            assert not any(b"\r" in event for event in events)


def test_trap_27_reasoning_has_the_name_clients_read_and_both_on_request(told):
    """`reasoning_content` unless told; either name is taken back."""
    server, _ = told
    found = deltas(says(told, "<think>why</think>so"))
    assert "".join(delta.get("reasoning_content", "") for delta in found) == "why"
    assert not any("reasoning" in delta for delta in found)
    both = {"reasoning_fields": ["reasoning_content", "reasoning"]}
    for delta in deltas(says(told, "<think>why</think>so", **both)):
        assert delta.get("reasoning") == delta.get("reasoning_content")
    for name in ("reasoning_content", "reasoning"):
        messages = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", name: "why"},
            {"role": "user", "content": "c"},
        ]
        assert post(server, chat(messages=messages)).status_code == 200
        assert post(server, chat(messages=messages)).headers.get("x-ignored-params") is None


def test_trap_28_unknown_fields_are_ignored_and_named(ledger):
    """Frontends send their own; refusing them would refuse the frontend."""
    response = post(ledger, chat(my_frontends_field=1, another={}))
    assert response.status_code == 200
    assert response.headers["x-ignored-params"] == "my_frontends_field, another"


def test_trap_29_developer_messages_are_heard(told):
    """As system messages, whatever the template knows."""
    server, script = told
    script.says("ok")
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": "b"},
    ]
    assert post(server, chat(messages=messages)).status_code == 200
    prompt = script.prompt()
    system = "".join(part.partition("<|im_end|>")[0] for part in prompt.split("system\n")[1:])
    assert "be brief" in system
    assert "be kind" in system
    assert "developer" not in prompt


def test_trap_30_both_names_of_the_limit_are_known(told):
    """The newer one wins; text completions have OpenAI's old default."""
    server, script = told
    script.says("ok")
    limits = {"max_tokens": 9, "max_completion_tokens": 5}
    for fields, expected in (
        ({"max_tokens": 9}, 9),
        ({"max_tokens": None, "max_completion_tokens": 5}, 5),
        (limits, 5),
    ):
        post(server, chat(**fields))
        assert script.requests[-1].sampling.max_tokens == expected
    post(server, {"model": MODEL, "prompt": "a"}, "/v1/completions")
    assert script.requests[-1].sampling.max_tokens == 16


def test_trap_31_content_may_be_an_array_of_texts(told):
    """In every role; templates get one string."""
    server, script = told
    script.says("ok")
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": parts},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": parts},
    ]
    response = post(server, chat(messages=messages, tools=TOOLS))
    assert response.status_code == 200, response.text
    assert script.prompt().count("one\ntwo") == 3


@pytest.mark.parametrize("options", [USAGE, {}, None])
def test_trap_32_stream_options_without_a_stream_are_harmless(ledger, options):
    """Clients leave them in."""
    assert post(ledger, chat(stream_options=options)).status_code == 200


def test_trap_33_no_tools_are_no_tools(ledger):
    """An empty list, also for a model that has no calls."""
    assert post(ledger, chat(tools=[])).status_code == 200
    assert post(ledger, chat(tools=[], tool_choice="auto")).status_code == 200


def test_trap_34_the_sdks_vectors_are_base64(ledger):
    """It asks for them by itself, and gives the numbers that a plain call gives."""
    body = {"model": MODEL, "input": "Hello there"}
    plain = post(ledger, {**body, "encoding_format": "float"}, "/v1/embeddings").json()
    with client(ledger) as sdk:
        read = sdk.embeddings.create(**body).data[0].embedding
    assert read == pytest.approx(plain["data"][0]["embedding"], abs=1e-6)


def test_trap_35_models_are_listed_and_found_by_names_with_slashes():
    """What the SDK's type needs is there, and the context as an extra."""
    settings = test_settings()
    with scripted(settings) as (server, _), client(server) as sdk:
        card = next(iter(sdk.models.list()))
        assert (card.object, card.owned_by, card.id) == ("model", "penstock", MODEL)
        assert card.created > 0
        assert card.model_extra["max_model_len"] == 2048
        assert sdk.models.retrieve(MODEL).id == MODEL
        with pytest.raises(openai.NotFoundError) as missing:
            sdk.models.retrieve("org/some/model")
        assert missing.value.code == "model_not_found"


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("suffix", ["", "/"])
def test_trap_36_every_spelling_of_a_path_answers_without_a_redirect(ledger, prefix, suffix):
    """A redirect loses the body or the key."""
    response = post(ledger, chat(), f"{prefix}/chat/completions{suffix}")
    assert response.status_code == 200
    assert not response.history
    with client(ledger, base_url=f"http://127.0.0.1:{ledger.port}{prefix}{suffix}") as sdk:
        assert sdk.chat.completions.create(**chat()).choices


def test_trap_37_browsers_are_answered_where_they_are_allowed(ledger):
    """A preflight, and headers that a page may read; closed unless configured."""
    asked = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    with live(test_settings(cors_origin=(PAGE,))) as server:
        preflight = httpx2.options(f"{server.url}/chat/completions", headers=asked)
        assert preflight.status_code == 204
        allowed = preflight.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed
        answer = post(server, chat(), origin=PAGE)
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].lower()
        assert "x-request-id" in exposed
        assert "retry-after" in exposed
    closed = httpx2.options(f"{ledger.url}/chat/completions", headers=asked)
    assert "access-control-allow-origin" not in closed.headers


def test_trap_38_every_answer_has_a_request_id_and_the_clients_comes_back(ledger):
    """The SDK puts it on each error."""
    assert post(ledger, chat()).headers["x-request-id"]
    assert post(ledger, chat(), **{"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    with client(ledger) as sdk, pytest.raises(openai.BadRequestError) as bad:
        sdk.chat.completions.create(**chat(temperature=9), extra_headers={"x-request-id": "mine-2"})
    assert bad.value.request_id == "mine-2"


def test_trap_39_a_stop_string_never_shows_through(told):
    """Held back across tokens, given back where it was none, and found beside reasoning."""
    text = "one ST two STO three STOP four"
    found = deltas(says(told, text, stop="STOP"))
    assert "".join(delta.get("content", "") for delta in found) == "one ST two STO three "
    thought = deltas(says(told, "<think>why</think>so STOP", stop="STOP"))
    assert "".join(delta.get("content", "") for delta in thought) == "so "
    assert "".join(delta.get("reasoning_content", "") for delta in thought) == "why"
    unended = deltas(says(told, "one STO", stop="STOP"))
    assert "".join(delta.get("content", "") for delta in unended) == "one STO"


def test_trap_40_no_delta_holds_half_a_character(told):
    """Characters of several tokens come whole, and all of them come."""
    text = "né 日本 🙂🙃 à la"
    found = [delta.get("content", "") for delta in deltas(says(told, text))]
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_trap_41_a_client_that_leaves_frees_its_place():
    """Its blocks too, long before the answer would have ended."""
    with live(step_s=0.01) as server:
        with Raw(server.port) as raw:
            raw.send("POST", CHAT, chat(stream=True, max_tokens=1500))
            raw.read_until(b'{"content":"')
        eventually(server.quiet)
        load = server.load()
        assert load.blocks_used == 0
        assert load.steps < 1000


def test_trap_42_a_refusal_is_short_and_repeats_nothing(ledger):
    """However large and secret the body was."""
    secret = "hunter2-" * 5000
    for fields in (
        {"temperature": secret},
        {"messages": [{"role": secret, "content": secret}]},
        {"tools": [{"type": secret}]},
        {"response_format": {"type": secret}},
        {"stop": [secret]},
        {"logit_bias": {secret: 1}},
        {"chat_template_kwargs": {secret: secret}},
    ):
        response = post(ledger, {**chat(), **fields})
        assert response.status_code == 400
        assert len(response.content) < 1000
        assert "hunter2" not in response.text


def test_trap_43_events_are_short_lines_and_errors_are_json(told, ledger):
    """A line fits any client's buffer; a refused stream is no event stream."""
    server, script = told
    refused = post(ledger, chat(stream=True, temperature=9))
    assert refused.headers["content-type"].partition(";")[0] == "application/json"
    script.says("word " * 400)
    sizes = [len(event) for event in body_of(server, chat(max_tokens=1000))]
    assert max(sizes) < 4096
    assert all(b"\n" not in event for event in body_of(server, chat()))
