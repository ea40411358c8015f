"""A chat request to an engine request, by value."""

import pytest

from engines.api import Capability, Sampling
from engines.text.template import TemplateBroken
from tests.support.tokenizers import CHATML, EOS, byte_level, served_model

MODEL = served_model()
EOS_ID = MODEL.tokenizer.token_id(EOS)
LEADING_ONLY = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system must lead') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
GEMMA_LIKE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
)


def text(job, model=MODEL):
    """The prompt spelled out, special tokens too."""
    return model.tokenizer._backend.decode(list(job.requests[0].prompt), skip_special_tokens=False)


def sampling(job):
    return job.requests[0].sampling


def test_the_prompt_is_the_rendered_template(chat):
    """Template, tokens, id, salt: all as given."""
    job = chat()
    request = job.requests[0]
    assert text(job) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert (job.id, request.id, request.cache_salt) == ("chatcmpl-abc123", "abc123", b"salt")
    assert (request.n, request.priority, job.stream) == (1, 0, False)


def test_defaults_are_openais_and_the_rest_of_the_context(chat):
    """Nothing given: plain sampling, the call's seed, the model's stop tokens, all the room."""
    job = chat()
    assert sampling(job) == Sampling(
        max_tokens=512 - len(job.requests[0].prompt), seed=7, stop_tokens=frozenset({EOS_ID})
    )


def test_every_sampling_field_reaches_the_engine(chat):
    """By value, under the port's names."""
    job = chat(
        max_tokens=5, seed=-(2**63), temperature=0.5, top_k=40, top_p=0.9, min_p=0.05,
        min_tokens=2, presence_penalty=-2, frequency_penalty=1.5, repetition_penalty=1.1,
        logit_bias={"3": -100, "4": 1.5}, stop_token_ids=[5], logprobs=True, top_logprobs=20,
        n=8, priority=-3,
    )  # fmt: skip
    assert sampling(job) == Sampling(
        max_tokens=5, seed=-(2**63), temperature=0.5, top_k=40, top_p=0.9, min_p=0.05,
        min_tokens=2, presence=-2.0, frequency=1.5, repetition=1.1, bias={3: -100.0, 4: 1.5},
        stop_tokens=frozenset({EOS_ID, 5}), logprobs=20,
    )  # fmt: skip
    assert (job.requests[0].n, job.requests[0].priority) == (8, -3)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 4),
        ({"max_tokens": 3, "max_completion_tokens": None}, 3),
    ],
)
def test_the_newer_token_limit_wins(chat, fields, expected):
    """SDKs send either name."""
    assert sampling(chat(**fields)).max_tokens == expected


def test_models_defaults_apply_where_the_client_gives_none(chat):
    """generation_config.json speaks when the client does not."""
    defaults = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}
    model = served_model(defaults=defaults)
    lowered = sampling(chat(model=model))
    assert (lowered.temperature, lowered.top_p, lowered.top_k) == (0.6, 0.95, 20)
    assert lowered.repetition == 1.05
    assert sampling(chat(model=model, temperature=0, top_p=1)).temperature == 0
    assert sampling(chat(model=model, temperature=0, top_p=1)).top_p == 1


@pytest.mark.parametrize("value", [-1, 0])
def test_top_k_minus_one_is_off(chat, value):
    """VLLM's clients say -1, others 0."""
    assert sampling(chat(top_k=value)).top_k == 0


def test_ignore_eos_leaves_only_the_clients_stop_tokens(chat):
    """For load tests that must generate exactly so many tokens."""
    assert sampling(chat(ignore_eos=True, stop_token_ids=[9])).stop_tokens == frozenset({9})


def test_logprobs_without_top_asks_for_the_sampled_one(chat):
    """Logprobs true is k = 0; false, even with top 0, is none."""
    assert sampling(chat(logprobs=True)).logprobs == 0
    assert sampling(chat(logprobs=False, top_logprobs=0)).logprobs is None


@pytest.mark.parametrize("options", [{"include_usage": True}, {}, None])
def test_stream_options_without_stream_are_accepted(chat, options):
    """Clients leave them in."""
    assert chat(stream_options=options).stream is False


def test_text_parts_are_joined_by_line_breaks(chat):
    """An array of text parts is one string to the template."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "user\na\nb<" in text(chat(messages=[{"role": "user", "content": parts}]))


def test_roles_reach_the_template(chat):
    """Assistant null content is empty; tool messages go through; developer is system."""
    messages = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u", "name": "ann"},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
        {"role": "tool", "content": "t", "tool_call_id": "1"},
    ]
    spelled = text(chat(messages=messages))
    assert spelled.startswith(
        "<|im_start|>system\nd<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\nt<|im_end|>\n"
    )


def test_names_ids_and_reasoning_are_variables_of_the_template(chat):
    """Templates that use them find them; both spellings of reasoning are taken."""
    shown = "{{ m.name }}{{ m.tool_call_id }}{{ m.reasoning_content }}{{ m.thinking }}"
    source = "{% for m in messages %}" + shown + "{% endfor %}"
    messages = [
        {"role": "user", "content": "u", "name": "ann"},
        {"role": "assistant", "content": "a", "reasoning": "why"},
        {"role": "tool", "content": "t", "tool_call_id": "id7"},
    ]
    model = served_model(template=source)
    assert text(chat(model=model, messages=messages), model) == "annwhywhyid7"


SCATTERED = [
    {"role": "system", "content": "a"},
    {"role": "developer", "content": "b"},
    {"role": "user", "content": "u"},
    {"role": "system", "content": "c"},
]


def test_scattered_system_messages_stay_where_the_template_takes_them(chat):
    """ChatML renders each in its place."""
    assert text(chat(messages=SCATTERED)).count("<|im_start|>system") == 3


def test_scattered_system_messages_merge_where_the_template_does_not(chat):
    """One leading system message holds all of them, in order."""
    model = served_model(template=LEADING_ONLY)
    assert text(chat(model=model, messages=SCATTERED), model) == "[system]a\n\nb\n\nc[user]u"


def test_a_late_system_message_moves_to_the_front_for_such_a_template(chat):
    """Even a single one."""
    model = served_model(template=LEADING_ONLY)
    messages = [{"role": "user", "content": "u"}, {"role": "developer", "content": "d"}]
    assert text(chat(model=model, messages=messages), model) == "[system]d[user]u"


def test_a_template_that_refuses_is_the_clients_fault(chat, refusal):
    """400 with the template's own words, cut short."""
    model = served_model(template=GEMMA_LIKE)
    reply = refusal(chat, model=model, messages=[{"role": "system", "content": "x"}])
    assert reply.code == "messages_refused_by_template"
    assert "System role not supported" in reply.message
    echo = served_model(template="{{ raise_exception(messages[0].content) }}")
    long = [{"role": "user", "content": "x" * 5000}]
    assert len(refusal(chat, model=echo, messages=long).message) < 300


def test_a_template_that_breaks_is_not(chat):
    """Our fault: it becomes a 500 at the edge."""
    with pytest.raises(TemplateBroken):
        chat(model=served_model(template="{{ messages[0].content.x.y }}"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% set n=namespace(t='')%}{% for m in messages*2%}{% set n.t=n.t~m.content%}{% endfor %}",
    ],
)
def test_a_conversation_that_outgrows_the_template_is_too_long(chat, refusal, template):
    """400, as for any long prompt: it was a 500 where stored turns, or tools, made much of it."""
    messages = [{"role": "user", "content": "x" * (1 << 20)}] * 5
    reply = refusal(chat, model=served_model(template=template), messages=messages)
    assert (reply.status, reply.code, reply.param) == (400, "context_length_exceeded", "messages")
    assert "8388608 characters" in reply.message


def test_a_model_without_a_template_says_where_to_go(chat, refusal):
    """Base models serve completions."""
    reply = refusal(chat, model=served_model(template=None))
    assert (reply.code, reply.param) == ("no_chat_template", "model")


def test_a_prompt_that_leaves_no_room_is_refused_with_the_figures(chat, refusal):
    """The code clients look for; tokens, limit, and what to change."""
    model = served_model(max_context=14)
    reply = refusal(chat, model=model)
    assert (reply.status, reply.code, reply.param) == (400, "context_length_exceeded", "messages")
    assert "14 tokens" in reply.message
    assert "Shorten the prompt" in reply.message
    fits = served_model(max_context=15)
    assert sampling(chat(model=fits)).max_tokens == 1


def test_a_limit_that_does_not_fit_is_refused_by_its_own_name(chat, refusal):
    """The prompt is fine; the field the client used is not."""
    reply = refusal(chat, max_completion_tokens=499)
    assert (reply.code, reply.param) == ("context_length_exceeded", "max_completion_tokens")
    assert "499" in reply.message
    assert sampling(chat(max_completion_tokens=498)).max_tokens == 498


GREEDY_ONLY = served_model(capabilities=())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.7),
        ("top_p", 0.5),
        ("top_k", 5),
        ("min_p", 0.1),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("repetition_penalty", 1.5),
        ("logit_bias", {"1": 1}),
        ("logprobs", True),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(chat, refusal, field, value):
    """An engine that lists no capability is never asked for one."""
    reply = refusal(chat, model=GREEDY_ONLY, **{field: value})
    assert (reply.status, reply.code, reply.param) == (400, "unsupported_by_engine", field)


def test_neutral_values_need_no_capability(chat):
    """Frameworks send them always; the model's own defaults do not apply either."""
    model = served_model(
        capabilities=(), defaults={"temperature": 0.6, "repetition_penalty": 1.2, "top_k": 5}
    )
    job = chat(
        model=model, temperature=1, top_p=1, top_k=-1, min_p=0, presence_penalty=0,
        frequency_penalty=0, repetition_penalty=1, logit_bias={}, logprobs=False,
    )  # fmt: skip
    assert sampling(job) == sampling(chat(model=model))
    assert sampling(job).repetition == 1.0


def test_capabilities_are_asked_one_by_one(chat):
    """Logprobs may be offered where sampling is not."""
    model = served_model(capabilities=[Capability.LOGPROBS])
    assert sampling(chat(model=model, logprobs=True)).logprobs == 0


def test_a_bos_of_the_post_processor_is_not_added_to_a_chat(chat):
    """The template writes its own; twice would change every answer."""
    model = served_model(template=CHATML, backend=byte_level(bos=True))
    assert text(chat(model=model), model).startswith("<|im_start|>user")
