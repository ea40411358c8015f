"""The table of request fields: what each does, and what of it is refused."""

# ruff: noqa: FBT003 - the value of a field may be a truth

import hashlib
import json
from dataclasses import replace

from openai_compat.amended import PADDED_TO
from tests.support.fields import (
    BOS_FIRST,
    BOTH,
    CHAT,
    GREEDY,
    HARMONY,
    PHASES,
    PLAIN,
    SPECIAL,
    TEXT,
    THINKER,
    Refused,
    Works,
    answer,
    changes_nothing,
    choice,
    frames,
    ids,
    prompt,
    raw_frames,
    requests,
    said,
    samples,
)
from tests.support.tokenizers import BOS, CALL, EOS

TAG = {
    "structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}],
    "triggers": ["<f"],
}
END = ids(EOS)[0]
ROOM = 512
NAMES = ["hello", " ", "world"]  # the tokens of what is said
CHARGED = len(NAMES) + 1  # and the one that ends it
ONLY_CHAT, ONLY_TEXT = (CHAT,), (TEXT,)
STREAM = {"stream": True}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
PREFILL = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]}


def same_text(job):
    """A label: the call is the same with and without it."""
    changes_nothing(job)


def all_of(*claims):
    def holds(job):
        for claim in claims:
            claim(job)

    return holds


def says(text, *, of="hello world", stop=True):
    return lambda job: equal(said(job, of, stop=stop), text)


def tells(**expected):
    """Members of the first choice of the answer."""
    return lambda job: equal({name: choice(job)[name] for name in expected}, expected)


def top(name, value):
    """A member of the answer itself."""
    return lambda job: equal(answer(job).get(name), value)


def prompts(text, model=PLAIN):
    return lambda job: equal(prompt(job, model), text)


def ends(text, model=PLAIN):
    return lambda job: equal(prompt(job, model).endswith(text), True)


def equal(found, expected):
    assert found == expected


def usage_detail(name, value):
    return lambda job: equal(answer(job)["usage"]["completion_tokens_details"].get(name), value)


def grammar(job):
    sampling = job.requests[0].sampling
    assert sampling.grammar
    assert job.constraint.source == sampling.grammar


def streamed_extras(job):
    """On the chunk that ends the choice, and on no other."""
    told = [c["choices"][0] for c in frames(job) if c["choices"]]
    assert [c.get("engine_extras") for c in told if c["finish_reason"]] == [{"own": {"a": 1}}]
    assert not any("engine_extras" in c for c in told if not c["finish_reason"])


def thinks(budget):
    def holds(job):
        told = job.requests[0].sampling.thinking
        assert told.tokens == budget
        assert (told.begin, told.end) == (tuple(ids("<think>")), tuple(ids("</think>")))

    return holds


def reasons(**expected):
    """Members of the message for a model that thought."""

    def holds(job):
        message = choice(job, "<think>why</think>so")["message"]
        found = {name: message.get(name) for name in ("content", "reasoning_content", "reasoning")}
        assert found == {"content": "so", "reasoning_content": None, "reasoning": None, **expected}

    return holds


def chunk_count(job):
    """A stream: the role or nothing, two texts, the end."""
    chunks = frames(job)
    assert job.stream
    assert [bool(chunk["choices"][0]["finish_reason"]) for chunk in chunks][-2:] == [False, True]


def usage_last(job):
    *others, last = frames(job)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == CHARGED
    assert all(chunk["usage"] is None for chunk in others)


def usage_runs(job):
    counts = [chunk["usage"]["completion_tokens"] for chunk in frames(job)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0 if "chat" in job.id else 1, CHARGED)


def padded(job):
    """Every event of a choice has letters, and all are of one size."""
    *chunks, done = raw_frames(job)
    sizes = {len(chunk) + 2 for chunk in chunks}
    assert {size % PADDED_TO for size in sizes} == {0}
    assert len(sizes) <= 2, "the text of an event does not show in its size"
    assert all("obfuscation" in json.loads(chunk[6:]) for chunk in chunks)
    assert done == b"data: [DONE]"


def no_padding(job):
    assert all("obfuscation" not in chunk for chunk in frames(job))


def mixed_salt(job):
    digest = hashlib.blake2b(b"mine", key=CALL.cache_salt, digest_size=16).digest()
    assert job.requests[0].cache_salt == digest


def ids_told(job):
    found = choice(job)
    assert found["token_ids"] == [*ids("hello world"), END]
    where = answer_of_prompt(job)
    assert where["prompt_token_ids"] == list(job.requests[0].prompt)


def answer_of_prompt(job):
    """Where an answer tells of its prompt: chats at the top, completions in the choice."""
    body = json.loads(job.renderer.fold())
    return body if job.id.startswith("chat") else body["choices"][0]


def ids_streamed(job):
    chunks = frames(job)
    told = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
    assert told == [*ids("hello world"), END]
    first = chunks[0] if job.id.startswith("chat") else chunks[0]["choices"][0]
    assert first["prompt_token_ids"] == list(job.requests[0].prompt)
    rest = [json.dumps(chunk) for chunk in chunks[1:]]
    assert not any("prompt_token_ids" in chunk for chunk in rest)


def named_by_id(job):
    logprobs = choice(job)["logprobs"]
    names = (
        logprobs["tokens"] if "tokens" in logprobs else [e["token"] for e in logprobs["content"]]
    )
    assert names == [f"token_id:{token}" for token in ids("hello world")]


def name_of(token):
    return PLAIN.tokenizer.token_text(token)


def prompt_scored(job):
    choice(job)
    first, *rest = answer_of_prompt(job)["prompt_logprobs"]
    tokens = job.requests[0].prompt[1:]
    assert first is None
    assert len(rest) == len(tokens)
    for token, place in zip(tokens, rest, strict=True):
        own = place[str(token)]
        assert own == {"logprob": -0.5, "rank": None, "decoded_token": name_of(token)}
        assert place["5"] == {"logprob": -0.25, "rank": 1, "decoded_token": name_of(5)}


def echoed_with_logprobs(job):
    assert job.requests[0].sampling.prompt_logprobs == 1
    found = choice(job)
    assert found["text"] == "hello worldhello world"
    logprobs = found["logprobs"]
    names = NAMES * 2
    assert logprobs["tokens"] == names
    assert logprobs["token_logprobs"] == [None, -0.5, -0.5, -1.0, -1.0, -1.0]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"] == [0, 5, 6, 11, 16, 17]
    for name, offset in zip(names, logprobs["text_offset"], strict=True):
        assert found["text"][offset:].startswith(name)


def echoed_and_scored(job):
    """Each with as many alternatives as it asked for."""
    found = choice(job)
    assert [len(place) for place in found["prompt_logprobs"][1:]] == [3, 3]
    assert [len(top) for top in found["logprobs"]["top_logprobs"][1:3]] == [2, 2]


def echo_streamed_with_logprobs(job):
    chunks = [chunk["choices"][0] for chunk in frames(job)]
    assert chunks[0]["text"] == "hello world"
    assert chunks[0]["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    joined = [offset for c in chunks if c["logprobs"] for offset in c["logprobs"]["text_offset"]]
    assert joined == [0, 5, 6, 11, 16, 17]
    assert "".join(c["text"] for c in chunks) == "hello worldhello world"


def only_the_prompt(job):
    assert job.requests[0].sampling.max_tokens == 1
    body = answer(job, "x")
    assert body["choices"][0]["text"] == "hello"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 0
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"]


def best(job):
    """Two told of four; the last ones have the likeliest tokens; all are charged."""
    assert (job.requests[0].n, job.requests[0].sampling.logprobs) == (4, 0)
    body = answer(job)
    assert [c["index"] for c in body["choices"]] == [0, 1]
    assert all(c["logprobs"] is None for c in body["choices"])
    assert body["usage"]["completion_tokens"] == 4 * CHARGED


def best_with_logprobs(job):
    """The best come first: those of the last choices."""
    told = [c["logprobs"]["token_logprobs"][0] for c in answer(job)["choices"]]
    assert told == [-1 / 4, -1 / 3]


def logprobs_in_a_stream(job):
    """Each token with its alternatives, beside its text."""
    entries = [
        entry
        for chunk in frames(job)
        if chunk["choices"][0]["logprobs"]
        for entry in chunk["choices"][0]["logprobs"]["content"]
    ]
    assert [entry["token"] for entry in entries] == NAMES
    assert [len(entry["top_logprobs"]) for entry in entries] == [2] * len(NAMES)


def four_prompts(job):
    assert [request.prompt for request in job.requests] == [tuple(ids("a")), tuple(ids("b"))]


def called(job):
    """A call in the answer, and the tools in the prompt."""
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    found = choice(job, text)
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def one_call(job):
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>' * 2
    assert len(choice(job, text)["message"]["tool_calls"]) == 1


BANNED = (tuple(ids("fox")), tuple(ids(" fox")))

WORKS = (
    Works("model", "tiny", top("model", "tiny")),
    Works(
        "messages",
        [{"role": "user", "content": "x"}],
        ends("x<|im_end|>\n<|im_start|>assistant\n"),
        ONLY_CHAT,
    ),
    Works("prompt", "hello", prompts("hello"), ONLY_TEXT),
    Works("prompt", ids("hello"), prompts("hello"), ONLY_TEXT),
    Works("prompt", ["a", "b"], four_prompts, ONLY_TEXT),
    Works("prompt", [ids("a"), ids("b")], four_prompts, ONLY_TEXT),
    # How long, and what ends it
    Works("max_tokens", 5, samples(max_tokens=5)),
    Works("max_tokens", 0, only_the_prompt, ONLY_TEXT, more={"echo": True}),
    Works("max_completion_tokens", 5, samples(max_tokens=5), ONLY_CHAT, more={"max_tokens": 9}),
    Works("stop", "wor", says("hello ")),
    Works("stop", ["xx", "wor"], says("hello ")),
    Works("stop_token_ids", [7], samples(stop_tokens=frozenset({7, END}))),
    Works("ignore_eos", True, samples(stop_tokens=frozenset())),
    Works("min_tokens", 3, samples(min_tokens=3)),
    Works("include_stop_str_in_output", True, says("hello wor"), more={"stop": "wor"}),
    Works("no_stop_trim", True, says("hello wor"), more={"stop": "wor"}),
    Works(
        "include_stop_str_in_output",
        True,
        says(f"hello{EOS}", of="hello"),
        more={"skip_special_tokens": False},
    ),
    # Sampling
    Works("temperature", 0.5, samples(temperature=0.5)),
    Works("top_p", 0.5, samples(top_p=0.5)),
    Works("top_k", 7, samples(top_k=7)),
    Works("top_k", -1, samples(top_k=0)),
    Works("min_p", 0.5, samples(min_p=0.5)),
    Works("presence_penalty", -1.5, samples(presence=-1.5)),
    Works("frequency_penalty", 1.5, samples(frequency=1.5)),
    Works("repetition_penalty", 1.5, samples(repetition=1.5)),
    Works("logit_bias", {"3": -100}, samples(bias={3: -100.0})),
    Works("seed", 12, samples(seed=12)),
    Works("allowed_token_ids", [3, 9], samples(allowed=frozenset({3, 9}))),
    Works("bad_words", ["fox"], samples(bad_words=BANNED)),
    Works("bad_words", [" fox"], samples(bad_words=BANNED)),
    Works("bad_words", [], same_text),
    Works("n", 3, all_of(requests(n=3), lambda job: equal(len(answer(job)["choices"]), 3))),
    Works("best_of", 4, best, ONLY_TEXT, more={"n": 2}),
    Works("best_of", 4, best_with_logprobs, ONLY_TEXT, more={"n": 2, "logprobs": 0}),
    Works(
        "best_of",
        4,
        all_of(requests(n=2), lambda job: equal(len(answer(job)["choices"]), 2)),
        ONLY_TEXT,
        more={"n": 2, "echo": True, "max_tokens": 0},
    ),
    Works("best_of", 1, requests(n=2), ONLY_TEXT, more={"n": 2}),
    Works("priority", -7, requests(priority=-7)),
    # What is told
    Works("stream", True, chunk_count),
    Works("stream_options.include_usage", True, usage_last, more=STREAM),
    Works("stream_options.include_usage", True, same_text),
    Works("stream_options.continuous_usage_stats", True, usage_runs, more=STREAM),
    Works("stream_options.include_obfuscation", True, padded, more=STREAM),
    Works("stream_options.include_obfuscation", False, no_padding, more=STREAM),
    Works("logprobs", True, samples(logprobs=0), ONLY_CHAT),
    Works("logprobs", 2, samples(logprobs=2), ONLY_TEXT),
    Works("top_logprobs", 2, logprobs_in_a_stream, ONLY_CHAT, more={"logprobs": True, **STREAM}),
    Works("prompt_logprobs", 1, prompt_scored, ONLY_CHAT),
    Works("prompt_logprobs", 1, prompt_scored, ONLY_TEXT, more={"prompt": "hello world"}),
    Works("echo", True, says("hellohello world"), ONLY_TEXT),
    Works(
        "echo", True, echoed_with_logprobs, ONLY_TEXT, more={"logprobs": 1, "prompt": "hello world"}
    ),
    Works(
        "echo",
        True,
        echo_streamed_with_logprobs,
        ONLY_TEXT,
        more={"logprobs": 1, "prompt": "hello world", **STREAM},
    ),
    Works(
        "prompt_logprobs",
        2,
        echoed_and_scored,
        ONLY_TEXT,
        more={"logprobs": 1, "echo": True, "prompt": "hello world"},
    ),
    Works("skip_special_tokens", False, says(f"hello{BOS}", of=f"hello{BOS}")),
    Works("skip_special_tokens", True, says("hello", of=f"hello{BOS}")),
    Works("spaces_between_special_tokens", False, same_text),
    Works(
        "spaces_between_special_tokens",
        True,
        says(f"{BOS}{BOS}", of=f"{BOS}{BOS}"),
        more={"skip_special_tokens": False},
    ),
    Works("return_token_ids", True, ids_told),
    Works("return_token_ids", True, ids_streamed, more=STREAM),
    Works("return_tokens_as_token_ids", True, named_by_id, ONLY_CHAT, more={"logprobs": True}),
    Works("return_tokens_as_token_ids", True, named_by_id, ONLY_TEXT, more={"logprobs": 1}),
    # The prompt
    Works(
        "add_special_tokens",
        True,
        lambda job: equal(prompt(job).startswith(BOS), True),
        BOTH,
        BOS_FIRST,
    ),
    Works(
        "add_special_tokens", False, lambda job: equal(BOS in prompt(job), False), BOTH, BOS_FIRST
    ),
    Works(
        "truncate_prompt_tokens",
        3,
        lambda job: equal(len(job.requests[0].prompt), 3),
        more={"prompt": [1, 2, 3, 4, 5]},
        on=ONLY_TEXT,
    ),
    Works(
        "truncate_prompt_tokens",
        2,
        requests(prompt=(4, 5)),
        ONLY_TEXT,
        more={"prompt": [1, 2, 3, 4, 5]},
    ),
    Works(
        "truncate_prompt_tokens",
        -1,
        lambda job: equal(len(job.requests[0].prompt), ROOM - 16),
        ONLY_TEXT,
        more={"prompt": [1] * 9000},
    ),
    Works(
        "truncate_prompt_tokens",
        2,
        requests(prompt=tuple(ids("<|im_start|>assistant\n")[-2:])),
        ONLY_CHAT,
    ),
    Works("truncate_prompt_tokens", 400, same_text),
    Works(
        "truncation_side",
        "right",
        requests(prompt=(1, 2)),
        ONLY_TEXT,
        more={"prompt": [1, 2, 3], "truncate_prompt_tokens": 2},
    ),
    Works(
        "truncation_side",
        "left",
        requests(prompt=tuple(ids("\n"))),
        ONLY_CHAT,
        more={"truncate_prompt_tokens": 1},
    ),
    Works("cache_salt", "mine", mixed_salt),
    Works("add_generation_prompt", False, ends("hello<|im_end|>\n"), ONLY_CHAT),
    Works("continue_final_message", True, ends("assistant\nb c"), ONLY_CHAT, more=PREFILL),
    Works("chat_template_kwargs", {"style": "calm"}, ends("calm", THINKER), ONLY_CHAT, THINKER),
    Works("chat_template_kwargs", {}, same_text, ONLY_CHAT),
    Works("verbosity", "low", ends("low", THINKER), ONLY_CHAT, THINKER),
    Works("verbosity", "medium", same_text, ONLY_CHAT),
    # Thinking
    Works("reasoning_effort", "high", ends("highonon", THINKER), ONLY_CHAT, THINKER),
    Works("reasoning_effort", "none", ends("none", THINKER), ONLY_CHAT, THINKER),
    Works("reasoning_effort", "none", same_text, ONLY_CHAT),
    Works(
        "reasoning_effort",
        "low",
        ends("lowon", THINKER),
        ONLY_CHAT,
        THINKER,
        {"chat_template_kwargs": {"thinking": False}},
    ),
    Works("enable_thinking", True, ends("onon", THINKER), ONLY_CHAT, THINKER),
    Works("enable_thinking", False, same_text, ONLY_CHAT),
    Works("thinking_token_budget", 9, thinks(9), ONLY_CHAT, THINKER),
    Works("thinking_token_budget", -1, samples(thinking=None), ONLY_CHAT, THINKER),
    Works("thinking_budget", 9, thinks(9), ONLY_CHAT, THINKER),
    Works("include_reasoning", False, reasons(), ONLY_CHAT, THINKER),
    Works("include_reasoning", True, reasons(reasoning_content="why"), ONLY_CHAT, THINKER),
    Works("separate_reasoning", False, reasons(content="<think>why</think>so"), ONLY_CHAT, THINKER),
    Works("separate_reasoning", True, reasons(reasoning_content="why"), ONLY_CHAT, THINKER),
    Works("reasoning_fields", ["reasoning"], reasons(reasoning="why"), ONLY_CHAT, THINKER),
    Works(
        "reasoning_fields",
        ["reasoning_content", "reasoning"],
        reasons(reasoning_content="why", reasoning="why"),
        ONLY_CHAT,
        THINKER,
    ),
    # Tools and forms; their own tests go further
    Works("tools", [TOOL], called, ONLY_CHAT, THINKER),
    Works("tools", [], same_text, ONLY_CHAT),
    Works("tool_choice", "required", grammar, ONLY_CHAT, THINKER, {"tools": [TOOL]}),
    Works("tool_choice", "auto", same_text, ONLY_CHAT),
    Works("parallel_tool_calls", False, one_call, ONLY_CHAT, THINKER, {"tools": [TOOL]}),
    Works("parallel_tool_calls", True, same_text, ONLY_CHAT),
    Works("response_format", {"type": "json_object"}, grammar),
    Works("response_format", {"type": "text"}, same_text),
    Works("guided_json", SCHEMA, grammar),
    Works("guided_regex", "a+", grammar),
    Works("guided_choice", ["a", "b"], grammar),
    Works("guided_grammar", 'start: "a"', grammar),
    Works("guided_json", json.dumps(SCHEMA), grammar),
    Works("json_schema", SCHEMA, grammar),
    Works("regex", "a+", grammar),
    Works("ebnf", 'start: "a"', grammar),
    Works("structured_outputs", {"regex": "a+"}, grammar),
    Works("structural_tag", TAG, grammar),
    # For the engine alone
    Works("engine_extras", {}, same_text, model=replace(PLAIN, takes_extras=True)),
    Works(
        "engine_extras",
        {"own": {"a": [1, None]}},
        all_of(
            requests(extras={"own": '{"a":[1,null]}'}),
            tells(engine_extras={"own": {"a": [1, None]}}),
        ),
        model=SPECIAL,
    ),
    Works("engine_extras", {PHASES: {}}, tells(engine_extras={PHASES: {}}), model=SPECIAL),
    Works("engine_extras", {"own": {"a": 1}}, streamed_extras, model=SPECIAL, more=STREAM),
    Works(
        "disaggregated_params",
        {"request_type": "context_only"},
        all_of(
            requests(extras={PHASES: '{"request_type":"context_only"}'}),
            tells(disaggregated_params={"request_type": "context_only"}),
            lambda job: equal("engine_extras" in choice(job), False),
        ),
        model=SPECIAL,
    ),
    # Labels
    Works("user", "u" * 512, same_text),
    Works("session_id", "s", same_text),
    Works("metadata", {"a": "b"}, same_text, ONLY_CHAT),
    Works("prompt_cache_key", "k", same_text, ONLY_CHAT),
    Works("prompt_cache_retention", "in_memory", same_text, ONLY_CHAT),
    Works("prompt_cache_retention", "24h", same_text, ONLY_CHAT),
    Works("safety_identifier", "s", same_text, ONLY_CHAT),
    *(
        Works("service_tier", tier, top("service_tier", "default"), ONLY_CHAT)
        for tier in ("auto", "default", "flex", "scale", "priority", "fast")
    ),
    Works("service_tier", None, top("service_tier", None), ONLY_CHAT),
    Works(
        "service_tier",
        "flex",
        lambda job: equal({c["service_tier"] for c in frames(job)}, {"default"}),
        ONLY_CHAT,
        more=STREAM,
    ),
    Works(
        "prediction",
        {"type": "content", "content": "x"},
        usage_detail("accepted_prediction_tokens", 0),
        ONLY_CHAT,
    ),
    Works(
        "prediction",
        {"type": "content", "content": [{"type": "text", "text": "x"}]},
        usage_detail("rejected_prediction_tokens", 0),
        ONLY_CHAT,
    ),
)

WRONG_KIND = {
    "a string": ("user", "session_id", "cache_salt"),
    3: ("stream", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens",
        "include_stop_str_in_output", "no_stop_trim", "return_token_ids",
        "return_tokens_as_token_ids", "add_special_tokens"),
}  # fmt: skip
NOT_A_NUMBER = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "n", "max_tokens", "min_tokens", "priority", "prompt_logprobs",
    "truncate_prompt_tokens",
)  # fmt: skip
NEEDS = {
    "temperature": 0.7, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "presence_penalty": 1,
    "frequency_penalty": 1, "repetition_penalty": 1.5, "logit_bias": {"1": 1},
    "prompt_logprobs": 0, "allowed_token_ids": [1], "bad_words": ["a"], "guided_regex": "a",
}  # fmt: skip
UNBUILT = "unsupported_parameter"
NOT_HERE = "unsupported_by_model"
LACKING = "unsupported_by_engine"

REFUSED = (
    *(Refused(name, [], on=BOTH) for name in WRONG_KIND["a string"]),
    *(Refused(name, 3, on=BOTH) for name in WRONG_KIND[3]),
    *(Refused(name, "x", on=BOTH) for name in NOT_A_NUMBER),
    *(Refused(name, value, LACKING, model=GREEDY) for name, value in NEEDS.items()),
    Refused("logprobs", True, LACKING, on=ONLY_CHAT, model=GREEDY),
    Refused("logprobs", 1, LACKING, on=ONLY_TEXT, model=GREEDY),
    Refused("best_of", 2, LACKING, on=ONLY_TEXT, model=GREEDY),
    Refused("echo", 1, on=ONLY_TEXT),
    Refused("model", 3),
    Refused("messages", [], on=ONLY_CHAT),
    Refused("prompt", {}, on=ONLY_TEXT),
    Refused("prompt", [1] * 9000, "context_length_exceeded", on=ONLY_TEXT),
    Refused("max_tokens", 0),
    Refused("max_completion_tokens", 0, on=ONLY_CHAT),
    Refused("stop", ["a"] * 5),
    Refused("stop_token_ids", [10**6], param="stop_token_ids[0]"),
    Refused("logit_bias", {"x": 1}),
    Refused("allowed_token_ids", []),
    Refused("allowed_token_ids", [-1], param="allowed_token_ids[0]"),
    Refused("allowed_token_ids", [END], more={"min_tokens": 1}),
    Refused("bad_words", "fox"),
    Refused("bad_words", [" "], param="bad_words[0]"),
    Refused("bad_words", ["x" * 257], param="bad_words[0]"),
    Refused("bad_words", ["x"] * 65),
    Refused("best_of", 1.5, on=ONLY_TEXT),
    Refused("best_of", 21, on=ONLY_TEXT),
    Refused("best_of", 17, on=ONLY_TEXT),
    Refused("best_of", 2, on=ONLY_TEXT, more={"n": 3}),
    Refused("best_of", 2, on=ONLY_TEXT, more=STREAM),
    Refused("stream_options", []),
    Refused("stream_options.include_usage", 1),
    Refused("stream_options.continuous_usage_stats", 1),
    Refused("stream_options.include_obfuscation", 1),
    Refused("logprobs", 3, on=ONLY_CHAT),
    Refused("logprobs", 21, on=ONLY_TEXT),
    Refused("top_logprobs", 3, on=ONLY_CHAT),
    Refused("top_logprobs", 21, on=ONLY_CHAT, more={"logprobs": True}),
    Refused("prompt_logprobs", -1),
    Refused("prompt_logprobs", 21),
    Refused("prompt_logprobs", 0, more=STREAM),
    Refused("truncate_prompt_tokens", 0),
    Refused("truncate_prompt_tokens", -2),
    Refused("truncate_prompt_tokens", ROOM + 1),
    Refused("truncation_side", "middle"),
    Refused("engine_extras", {}, "engine_extras_not_enabled"),
    Refused("engine_extras", {"own": {}}, "engine_extras_not_enabled"),
    Refused("disaggregated_params", {}, "engine_extras_not_enabled"),
    Refused("engine_extras", [], model=SPECIAL),
    Refused("engine_extras", {str(at): {} for at in range(9)}, model=SPECIAL),
    Refused("engine_extras", {"own": 1}, param="engine_extras.own", model=SPECIAL),
    Refused("engine_extras", {"x": {}}, LACKING, param="engine_extras.x", model=SPECIAL),
    Refused("engine_extras", {"a b\n": {}}, LACKING, param="engine_extras", model=SPECIAL),
    Refused("disaggregated_params", "x", model=SPECIAL),
    Refused("disaggregated_params", {}, LACKING, model=replace(PLAIN, takes_extras=True)),
    Refused("disaggregated_params", {}, model=SPECIAL, more={"engine_extras": {PHASES: {}}}),
    Refused(
        "engine_extras",
        {"own": {}},
        param="prompt",
        on=ONLY_TEXT,
        model=SPECIAL,
        more={"prompt": ["a", "b"]},
    ),
    Refused("cache_salt", ""),
    Refused("cache_salt", "x" * 1025),
    Refused("add_generation_prompt", 1, on=ONLY_CHAT),
    Refused("continue_final_message", 1, on=ONLY_CHAT),
    Refused("continue_final_message", True, on=ONLY_CHAT),
    Refused(
        "continue_final_message",
        True,
        on=ONLY_CHAT,
        more={**PREFILL, "add_generation_prompt": True},
    ),
    Refused("chat_template_kwargs", {"style": 1}, param="chat_template_kwargs.style", on=ONLY_CHAT),
    Refused(
        "chat_template_kwargs",
        {"messages": "x"},
        param="chat_template_kwargs.messages",
        on=ONLY_CHAT,
        model=THINKER,
    ),
    Refused("chat_template_kwargs", {"a b\n": 1}, param="chat_template_kwargs", on=ONLY_CHAT),
    Refused(
        "chat_template_kwargs",
        {"style": []},
        param="chat_template_kwargs.style",
        on=ONLY_CHAT,
        model=THINKER,
    ),
    Refused(
        "chat_template_kwargs",
        {"style": "x" * 1025},
        param="chat_template_kwargs.style",
        on=ONLY_CHAT,
        model=THINKER,
    ),
    Refused("chat_template_kwargs", {str(at): 1 for at in range(17)}, on=ONLY_CHAT),
    Refused("verbosity", "low", NOT_HERE, on=ONLY_CHAT),
    Refused("verbosity", "loud", on=ONLY_CHAT, model=THINKER),
    Refused("reasoning_effort", "high", NOT_HERE, on=ONLY_CHAT),
    Refused("reasoning_effort", "none", NOT_HERE, on=ONLY_CHAT, model=HARMONY),
    Refused("reasoning_effort", "much", on=ONLY_CHAT, model=THINKER),
    Refused("enable_thinking", True, NOT_HERE, on=ONLY_CHAT),
    Refused("enable_thinking", 1, on=ONLY_CHAT, model=THINKER),
    Refused("thinking_token_budget", 5, NOT_HERE, on=ONLY_CHAT),
    Refused("thinking_token_budget", -2, on=ONLY_CHAT, model=THINKER),
    Refused("thinking_token_budget", 5, UNBUILT, on=ONLY_TEXT),
    Refused("thinking_budget", 5, NOT_HERE, on=ONLY_CHAT),
    Refused("include_reasoning", 1, on=ONLY_CHAT),
    Refused("separate_reasoning", 1, on=ONLY_CHAT),
    Refused("separate_reasoning", False, NOT_HERE, on=ONLY_CHAT, model=HARMONY),
    Refused("reasoning_fields", [], on=ONLY_CHAT),
    Refused("reasoning_fields", ["thoughts"], on=ONLY_CHAT),
    Refused("tools", [TOOL], "tools_not_supported", on=ONLY_CHAT),
    Refused("tool_choice", "required", on=ONLY_CHAT),
    Refused("parallel_tool_calls", 1, on=ONLY_CHAT),
    Refused("response_format", {"type": "xml"}, param="response_format.type"),
    Refused("guided_json", "{"),
    Refused("guided_choice", []),
    Refused("guided_grammar", ""),
    Refused("json_schema", "{"),
    Refused("regex", ""),
    Refused("ebnf", ""),
    Refused("structured_outputs", []),
    Refused("structural_tag", []),
    Refused("metadata", {"k": 1}, on=ONLY_CHAT),
    Refused("prompt_cache_key", "x" * 513, on=ONLY_CHAT),
    Refused("prompt_cache_retention", "7d", on=ONLY_CHAT),
    Refused("safety_identifier", "x" * 513, on=ONLY_CHAT),
    Refused("service_tier", "gold", on=ONLY_CHAT),
    Refused("prediction", "x", on=ONLY_CHAT),
    Refused("prediction", {"type": "content"}, param="prediction.content", on=ONLY_CHAT),
    Refused("prediction", {"content": "x"}, param="prediction.type", on=ONLY_CHAT),
    Refused(
        "prediction",
        {"type": "content", "content": [{"type": "image"}]},
        param="prediction.content[0].type",
        on=ONLY_CHAT,
    ),
)

# What is not built, or never will be: any value that asks for it.
_UNBUILT = {
    "bootstrap_host": "h", "bootstrap_port": 1, "bootstrap_room": 1, "custom_labels": {"a": "b"},
    "custom_logit_processor": "x", "custom_params": {"thinking_budget": 5},
    "data_parallel_rank": 0, "detokenize": False, "disagg_prefill_dp_rank": 0,
    "ec_transfer_params": {}, "extra_key": "x", "guided_backend": "x",
    "guided_decoding_backend": "x", "guided_whitespace_pattern": " ", "images_config": {"a": 1},
    "kv_transfer_params": {}, "length_penalty": 2, "logits_processors": ["x"],
    "logprob_token_ids": [1], "lora_path": "x", "ngram_corpus_id": "x", "prompt_embeds": "x",
    "lora_request": {"lora_name": "x", "lora_int_id": 1, "lora_path": "/x"},
    "repetition_detection": {}, "request_id": "x", "return_cached_tokens_details": True,
    "return_hidden_states": "last", "return_meta_info": True, "return_mm_kwargs": False,
    "return_prompt_token_ids": True, "return_routed_experts": True, "return_token_offsets": True,
    "rid": "x", "routed_dp_rank": 0, "routed_experts_prompt_start": 1,
    "routed_experts_start_len": 1, "session_params": {"id": 1}, "stop_regex": "a",
    "stream_interval": 5, "use_beam_search": True, "vllm_xargs": {"a": 1}, "watermarking": True,
}  # fmt: skip
_UNBUILT_CHAT = {
    "audio": {"voice": "alloy"}, "chat_template": "{{ messages }}", "documents": [{"text": "x"}],
    "echo": True, "function_call": {"name": "f"}, "functions": [{"name": "f"}], "input_ids": [1],
    "max_dynamic_patch": 1, "media_io_kwargs": {"image": {}}, "min_dynamic_patch": 1,
    "mm_processor_kwargs": {"a": 1}, "modalities": ["text", "audio"], "moderation": {"model": "m"},
    "prompt_cache_options": {"mode": "explicit"}, "return_prompt_text": True, "store": True,
    "stream_reasoning": False, "task": "title", "use_audio_in_video": True,
    "web_search_options": {},
}  # fmt: skip
REFUSED += (
    *(Refused(name, value, UNBUILT) for name, value in _UNBUILT.items()),
    *(Refused(name, value, UNBUILT, on=ONLY_CHAT) for name, value in _UNBUILT_CHAT.items()),
    Refused("suffix", "tail", UNBUILT, on=ONLY_TEXT),
)
