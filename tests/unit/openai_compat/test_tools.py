"""Tools of a chat request, field by field: what the model is shown, held to, and refused."""

import json
import time

import pytest

from openai_compat.conversation.tools import arguments_object
from openai_compat.output.registry import tool_syntaxes
from tests.support.answers import function, hermes, takes, writing

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.id }}={{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}{{ m.tool_call_id }}\n{% endfor %}"
)
MODEL = writing(tools="hermes", template=TEMPLATE, max_context=100_000)
F, G = function("f", a={"type": "integer"}), function("g")
CALL_F, CALL_G = hermes("f", '{"a": 1}'), hermes("g", "{}")
WRONG_F = hermes("f", '{"a": "x"}')


def prompt(job):
    return MODEL.tokenizer.decode_spelled(job.requests[0].prompt)


@pytest.fixture
def ask(chat):
    """Lower a chat on the model with tools."""
    return lambda **fields: chat(model=MODEL, **fields)


@pytest.fixture
def grammar(ask):
    """The grammar of a chat with two tools."""

    def source(**fields):
        job = ask(**{"tools": [F, G], **fields})
        return job.constraint and job.constraint.source

    return source


def test_tools_are_shown_to_the_template(ask):
    """As OpenAI nests them; without any, the template is told so."""
    shown = prompt(ask(tools=[{**F, "function": {**F["function"], "description": "what"}}]))
    listed = json.loads(shown.splitlines()[0])
    assert listed[0]["type"] == "function"
    assert listed[0]["function"]["description"] == "what"
    assert listed[0]["function"]["parameters"] == F["function"]["parameters"]
    assert prompt(ask(tools=[])).startswith("user:")
    assert prompt(ask(tools=[F], tool_choice="none")).startswith("user:")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"parallel_tool_calls": False},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": None, "parallel_tool_calls": None},
    ],
)
def test_calls_that_are_free_make_no_grammar(grammar, fields):
    """The model writes what it likes, and the parser finds what are calls."""
    assert grammar(**fields) is None


def test_required_calls_are_forced(grammar):
    """One or more, each by its schema, and nothing else."""
    source = grammar(tool_choice="required")
    assert takes(source, CALL_F)
    assert takes(source, f"{CALL_F}\n{CALL_G}\n{CALL_F}")
    for text in ("", "hello", WRONG_F, hermes("h", "{}"), f"{CALL_F} and"):
        assert not takes(source, text)


def test_a_named_call_is_exactly_one(grammar):
    """Of that function, whatever parallel_tool_calls says."""
    named = {"type": "function", "function": {"name": "g"}}
    source = grammar(tool_choice=named, parallel_tool_calls=True)
    assert takes(source, CALL_G)
    assert not takes(source, CALL_F)
    assert not takes(source, f"{CALL_G}\n{CALL_G}")


def test_without_parallel_calls_there_is_one(grammar):
    """In the grammar; where there is none, the choice ends after the first."""
    source = grammar(tool_choice="required", parallel_tool_calls=False)
    assert takes(source, CALL_F)
    assert not takes(source, f"{CALL_F}\n{CALL_G}")


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_a_subset(grammar, mode):
    """The others are shown and never called."""
    chosen = [{"type": "function", "function": {"name": "g"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": chosen}}
    source = grammar(tool_choice=allowed)
    assert (source is None) == (mode == "auto")
    if source:
        assert takes(source, CALL_G)
        assert not takes(source, CALL_F)


def test_strict_tools_hold_from_where_a_call_begins(grammar):
    """Free text, then calls: strict ones by their schema, others with any object."""
    strict = {**F, "function": {**F["function"], "strict": True}}
    source = grammar(tools=[strict, G])
    for text in ("hello", "", f"I call\n{CALL_F}", CALL_F, hermes("g", '{"z": 1}')):
        assert takes(source, text)
    for text in (WRONG_F, "<tool_call>\nhello", hermes("h", "{}")):
        assert not takes(source, text)


FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}


def test_tools_and_a_form_are_one_grammar(grammar):
    """Calls by their schemas, or content in the form; forced calls leave no content."""
    both = grammar(response_format=FORM)
    assert takes(both, CALL_F)
    assert takes(both, "[1]")
    assert not takes(both, WRONG_F)
    assert not takes(both, "hello")
    forced = grammar(response_format=FORM, tool_choice="required")
    assert takes(forced, CALL_F)
    assert not takes(forced, "[1]")
    content = grammar(response_format=FORM, tool_choice="none")
    assert takes(content, "[1]")
    assert not takes(content, CALL_F)


def test_a_function_without_parameters_takes_any_object(grammar):
    """So does one whose parameters are empty."""
    bare = {"type": "function", "function": {"name": "f"}}
    empty = {"type": "function", "function": {"name": "g", "parameters": {}}}
    source = grammar(tools=[bare, empty], tool_choice="required")
    assert takes(source, hermes("f", '{"x": [1]}'))
    assert takes(source, hermes("g", "{}"))
    assert not takes(source, hermes("f", "[1]"))


@pytest.mark.parametrize("syntax", sorted(tool_syntaxes()))
@pytest.mark.parametrize("reasoning", [None, "think"])
def test_every_syntax_gives_a_grammar_that_compiles(chat, syntax, reasoning):
    """Forced, strict, and beside a form, with and without reasoning."""
    reasoning = "harmony" if syntax == "harmony" else reasoning
    model = writing(tools=syntax, reasoning=reasoning)
    strict = function("f", strict=True, a={"type": "integer"})
    for fields in ({"tool_choice": "required"}, {}, {"response_format": {"type": "json_object"}}):
        if syntax in ("llama3_json", "pythonic") and "response_format" in fields:
            continue
        source = chat(model=model, tools=[strict], **fields).constraint.source
        prose = "<|channel|>final<|message|>hello" if syntax == "harmony" else "hello"
        assert takes(source, prose) == (fields == {})


@pytest.mark.parametrize("syntax", ["llama3_json", "pythonic"])
def test_calls_without_a_marker_cannot_stand_beside_a_form(chat, refusal, syntax):
    """JSON that looks like a call would be one."""
    model = writing(tools=syntax)
    reply = refusal(chat, model=model, tools=[F], response_format={"type": "json_object"})
    assert (reply.status, reply.param) == (400, "response_format")
    chat(model=model, tools=[F], response_format={"type": "json_object"}, tool_choice="none")


def test_harmony_has_a_channel_for_each(chat):
    """Reasoning, then a call or the final message."""
    model = writing(tools="harmony", reasoning="harmony")
    strict = function("f", strict=True, a={"type": "integer"})
    source = chat(model=model, tools=[strict], response_format=FORM).constraint.source
    think = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    final = "<|channel|>final<|message|>"
    call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
    for before in ("", think):
        assert takes(source, f"{before}{final}[1]")
        assert takes(source, f'{before}{call}{{"a": 1}}')
        assert not takes(source, f"{before}{final}no")
        assert not takes(source, f'{before}{call}{{"a": "x"}}')


def refused_tool(**function_fields):
    return {"tools": [{"type": "function", "function": {"name": "f", **function_fields}}]}


def choice(**fields):
    return {"tools": [F], "tool_choice": fields}


def allowed(**fields):
    return choice(type="allowed_tools", allowed_tools=fields)


REFUSED = [
    ({"tools": [F] * 2}, "tools[1]"),
    ({"tools": [{**F, "function": {"name": f"f{i}"}} for i in range(129)]}, "tools"),
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    (refused_tool(name="a b"), "tools[0].function.name"),
    (refused_tool(name="a" * 65), "tools[0].function.name"),
    (refused_tool(name=None), "tools[0].function.name"),
    (refused_tool(description=5), "tools[0].function.description"),
    (refused_tool(description="x" * 16_385), "tools[0].function.description"),
    (refused_tool(parameters=[]), "tools[0].function.parameters"),
    (refused_tool(parameters={"type": "array"}), "tools[0].function.parameters.type"),
    (refused_tool(parameters={"title": "x" * 131_072}), "tools[0].function.parameters"),
    (refused_tool(strict="yes"), "tools[0].function.strict"),
    ({"tools": [F], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [F], "tool_choice": 1}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    (choice(type="function", function={"name": "g"}), "tool_choice.function.name"),
    (choice(type="function"), "tool_choice.function.name"),
    (choice(type="custom", custom={"name": "f"}), "tool_choice.type"),
    (allowed(mode="none", tools=[F]), "tool_choice.allowed_tools.mode"),
    (allowed(mode="auto", tools=[]), "tool_choice.allowed_tools.tools"),
    (allowed(mode="auto", tools=[G]), "tool_choice.allowed_tools.tools[0].function.name"),
    ({"tools": [F], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    (
        {**refused_tool(parameters={"properties": {"a": {"not": {}}}}), "tool_choice": "required"},
        "tools[0].function.parameters.properties.a.not",
    ),
    (refused_tool(parameters={"not": {}}, strict=True), "tools[0].function.parameters.not"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(ask, refusal, fields, param):
    """Each with the place at fault."""
    reply = refusal(ask, **fields)
    assert (reply.status, reply.param) == (400, param)


def test_a_schema_that_holds_nobody_may_say_anything(ask):
    """Where calls are free, the schema is the model's to read."""
    ask(**refused_tool(parameters={"not": {}, "uniqueItems": True}))


def test_a_model_without_a_syntax_of_calls_says_so(chat, refusal):
    """And which flag names one; tools that are not to be called need none."""
    reply = refusal(chat, tools=[F])
    assert (reply.status, reply.param, reply.code) == (400, "tools", "tools_not_supported")
    assert "--tool-parser" in reply.message
    chat(tools=[F], tool_choice="none")


def test_a_schema_that_a_syntax_cannot_spell_is_refused(chat, refusal):
    """Where arguments are no JSON, some keywords cannot be held."""
    tool = function("f", strict=True)
    tool["function"]["parameters"]["minProperties"] = 1
    reply = refusal(chat, model=writing(tools="glm"), tools=[tool])
    assert (reply.code, reply.param) == ("invalid_json_schema", "tools[0].function.parameters")
    assert "minProperties" in reply.message


def called(arguments, **more):
    function = {"name": "f", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "i", "type": "function", "function": function}],
        **more,
    }


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        (None, "{}"),
        ("[1]", '"[1]"'),
        ("not json", '"not json"'),
    ],
)
def test_calls_of_earlier_turns_are_shown(ask, arguments, shown):
    """Arguments as an object where they are one; results with the id of their call."""
    messages = [called(arguments), {"role": "tool", "tool_call_id": "i", "content": "r"}]
    assert prompt(ask(messages=messages)) == f"assistant:i=f{shown}\ntool:ri\n"


def test_refusals_of_earlier_turns_are_their_content(ask):
    """As a field or as a part."""
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    messages = [
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": parts},
    ]
    assert prompt(ask(messages=messages)) == "assistant:no\nassistant:a\nb\n"


REFUSED_CALLS = [
    (called({}), "messages[0].tool_calls[0].function.arguments"),
    ({**called("{}"), "tool_calls": [{"id": "i", "type": "custom"}]},
     "messages[0].tool_calls[0].type"),
    ({**called("{}"), "tool_calls": [{"id": "i", "type": "function"}]},
     "messages[0].tool_calls[0].function"),
    ({**called("{}"), "tool_calls": [{"function": {"arguments": ""}}]},
     "messages[0].tool_calls[0].function.name"),
    ({**called("{}"), "tool_calls": "f"}, "messages[0].tool_calls"),
    ({**called("{}"), "tool_calls": [1]}, "messages[0].tool_calls[0]"),
    ({"role": "assistant", "content": None, "refusal": 5}, "messages[0].refusal"),
    ({"role": "assistant", "content": None, "function_call": {"name": "f"}},
     "messages[0].function_call"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "param"), REFUSED_CALLS)
def test_malformed_messages_are_refused_by_place(ask, refusal, message, param):
    """Before the template sees them."""
    assert refusal(ask, messages=[message]).param == param


@pytest.mark.parametrize("syntax", sorted(tool_syntaxes()))
def test_schemas_may_spell_what_grammars_call_tokens(chat, syntax):
    """`<[NAME]>` is a token by number only where a syntax writes it, never in a client's text."""
    spelled = "<[A_TOKEN]>"
    tool = function("f", a={"const": f'x"{spelled}'})
    tool["function"]["parameters"]["description"] = f'{spelled} "\\'
    if syntax in ("glm", "xml", "harmony"):
        tool["function"]["parameters"]["properties"]["a"] = {"type": "array", "const": [spelled]}
    job = chat(model=writing(tools=syntax), tools=[tool], tool_choice="required")
    assert spelled in job.constraint.source


@pytest.mark.parametrize("item", ["[],", "1e300,", "{},"])
def test_arguments_of_earlier_turns_are_read_within_the_bounds_of_a_body(item):
    """JSON in JSON is no way around them: these would stop everything for seconds."""
    text = '{"a": [' + item * 200_000 + "1]}"
    start = time.process_time()
    assert arguments_object(text) == text
    assert time.process_time() - start < 0.3  # 0.01 s on a quiet machine
    assert isinstance(arguments_object('{"a": [' + item * 100 + "1]}"), dict)
