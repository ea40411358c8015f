"""The form of an answer, field by field: taken, or refused by name."""

import json
import time

import pytest
from llguidance import LLMatcher

from engines.api import Capability
from tests.support.answers import VOCABULARY, takes, writing
from tests.support.grammars import TOKENIZER
from tests.support.tokenizers import served_model

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
GOOD, BAD = '{"a": 1}', '{"a": "x"}'


def named(schema=SCHEMA, **more):
    """A response_format of a schema."""
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


TAG = {
    "structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}],
    "triggers": ["<f"],
}

# field, its value, an answer that fits, one that does not
TAKEN = [
    ("response_format", {"type": "json_object"}, '{"b": [1]}', "[1]"),
    ("response_format", named(), GOOD, BAD),
    ("response_format", named(strict=True, description="d"), GOOD, BAD),
    ("response_format", {"type": "regex", "pattern": "a/b+"}, "a/bb", "a/"),
    ("response_format", {"type": "grammar", "grammar": 'start: "x" "y"'}, "xy", "x"),
    ("response_format", {"type": "structural_tag", **TAG}, "hi <f>12</f> on", "hi <f>x"),
    ("structured_outputs", {"json": SCHEMA}, GOOD, BAD),
    ("structured_outputs", {"json_object": True}, "{}", "1"),
    ("structured_outputs", {"regex": "^(yes|no)$"}, "yes", "yesno"),
    ("structured_outputs", {"choice": ["red", 'a"\n']}, 'a"\n', "re"),
    ("structured_outputs", {"grammar": 'start: "x"'}, "x", "y"),
    ("structured_outputs", {"structural_tag": TAG}, "<f>1</f><f>2</f>", "<f"),
    ("structured_outputs", {"json": SCHEMA, "disable_any_whitespace": True}, GOOD, BAD),
    ("guided_json", SCHEMA, GOOD, BAD),
    ("guided_json", json.dumps(SCHEMA), GOOD, BAD),
    ("guided_regex", "[0-9]{3}", "123", "12"),
    ("guided_choice", ["a", "b"], "b", "c"),
    ("guided_choice", ["a\x7fb", "\x00\t\u2028"], "a\x7fb", "ab"),
    ("guided_grammar", 'start: A+\nA: "a"', "aaa", ""),
    ("json_schema", SCHEMA, GOOD, BAD),
    ("regex", "x\ny", "x\ny", "xy"),
    ("ebnf", 'start: "x"', "x", "y"),
    ("structural_tag", TAG, "free", "<f>1"),
]


@pytest.mark.parametrize(("field", "value", "good", "bad"), TAKEN)
def test_an_answer_is_held_to_its_form(chat, field, value, good, bad):
    """The grammar takes what fits, nothing else, and names the field it came from."""
    job = chat(**{field: value})
    source = job.requests[0].sampling.grammar
    assert source == job.constraint.source
    assert job.constraint.param.startswith(field)
    assert takes(source, good)
    assert not takes(source, bad)
    assert job.ignored == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("response_format", {"type": "text"}),
        ("response_format", None),
        ("structured_outputs", {}),
        ("structured_outputs", {"json_object": False}),
        ("guided_json", None),
    ],
)
def test_what_asks_for_no_form_makes_no_grammar(chat, field, value):
    """Frameworks send defaults."""
    job = chat(**{field: value})
    assert job.constraint is None
    assert job.requests[0].sampling.grammar is None


REFUSED = [
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": named(name="a b")}, "response_format.json_schema.name"),
    ({"response_format": named(strict="yes")}, "response_format.json_schema.strict"),
    ({"response_format": named(None)}, "response_format.json_schema.schema"),
    ({"response_format": named([])}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"response_format": "json"}, "response_format"),
    ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"jason": SCHEMA}}, "structured_outputs"),
    (
        {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " "}},
        "structured_outputs.whitespace_pattern",
    ),
    ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_regex"),
    ({"guided_json": SCHEMA, "response_format": {"type": "json_object"}}, "guided_json"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": "[" * 100 + "]" * 100}, "guided_json"),
    ({"guided_json": '{"not": {}}'}, "guided_json.not"),
    ({"guided_grammar": 'root ::= "a"'}, "guided_grammar"),
    ({"guided_grammar": '# a\n\n \troot  ::= "a"'}, "guided_grammar"),
    ({"guided_regex": ""}, "guided_regex"),
    ({"guided_regex": "a" * 16_385}, "guided_regex"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": ["a", 1]}, "guided_choice[1]"),
    ({"guided_grammar": 5}, "guided_grammar"),
    ({"structural_tag": {**TAG, "triggers": ["<g"]}}, "structural_tag.structures[0].begin"),
    ({"structural_tag": {**TAG, "triggers": []}}, "structural_tag.triggers"),
    ({"structural_tag": {**TAG, "triggers": ["<f", "<"]}}, "structural_tag.triggers[0]"),
    ({"structural_tag": {**TAG, "structures": []}}, "structural_tag.structures"),
    ({"structural_tag": {"format": {"type": "any_text"}}}, "structural_tag.format"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(chat, refusal, fields, param):
    """Each with the place at fault."""
    reply = refusal(chat, **fields)
    assert (reply.status, reply.param) == (400, param)


def test_an_engine_without_grammars_is_never_asked_for_one(chat, refusal):
    """The capability is named."""
    model = served_model(capabilities=set(Capability) - {Capability.GRAMMAR})
    reply = refusal(chat, model=model, response_format={"type": "json_object"})
    assert (reply.code, reply.param) == ("unsupported_by_engine", "response_format")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"allowed_token_ids": [5]}, "allowed_token_ids"),
        (
            {
                "continue_final_message": True,
                "add_generation_prompt": False,
                "messages": [
                    {"role": "user", "content": "hello"},
                    {"role": "assistant", "content": "the"},
                ],
            },
            "continue_final_message",
        ),
    ],
)
def test_fields_that_leave_a_grammar_no_way_are_refused(chat, refusal, fields, param):
    """Both cannot be done, and the client should know which is at fault."""
    assert refusal(chat, response_format={"type": "json_object"}, **fields).param == param


@pytest.mark.parametrize(
    "text",
    [
        r'{"\u0061": "x"}',
        r'{"a": 1, "\u0061": "x"}',
        r'{"\u0061\u0062": "x"}',
        r'{"b\u0061": "x"}',
        r'{"\u0062": "x"}',
    ],
)
def test_no_other_spelling_of_a_key_gets_around_its_schema(chat, text):
    """A client reads the escaped key as the named one, or as one that a pattern is for."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "ab": {"type": "integer"}},
        "patternProperties": {"^b": {"type": "integer"}},
    }
    source = chat(response_format=named(schema)).constraint.source
    assert not takes(source, text)
    assert takes(source, '{"a": 1, "z\\n": "x", "b1": 2}')


def test_tags_may_be_special_tokens(chat):
    """As the model would write them; spelled letter by letter they are not let through either."""
    number = {"type": "integer"}
    structures = [
        {"begin": "<tool_call>", "schema": number, "end": "</tool_call>"},
        {"begin": "<f=a>", "schema": number, "end": "</f>"},
        {"begin": "<f=b>", "schema": {"type": "boolean"}, "end": "</f>"},
    ]
    tag = {"structures": structures, "triggers": ["<tool_call>", "<f="]}
    source = chat(structural_tag=tag).constraint.source
    assert takes(source, "a <tool_call>12</tool_call> b <f=b>true</f><f=a>1</f>")
    for text in ("<tool_call>x", "<f=a>true</f>", "<f=c>", "a <tool_call>"):
        assert not takes(source, text)
    letters = [TOKENIZER.encode(letter).ids[0] for letter in "<tool_call>"]
    matcher = LLMatcher(VOCABULARY, source)
    assert matcher.try_consume_tokens(letters) == len(letters) - 1


OPEN_THINKING = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"


def test_reasoning_comes_before_the_form(chat):
    """Open in the prompt, it must end; else the model may think or not."""
    model = writing(reasoning="think")
    source = chat(model=model, response_format=named()).constraint.source
    assert takes(source, GOOD)
    assert takes(source, f"<think>\nhm {BAD}\n</think>\n\n{GOOD}")
    assert not takes(source, f"<think>hm</think>{BAD}")
    opened = writing(reasoning="think", template=OPEN_THINKING)
    source = chat(model=opened, response_format=named()).constraint.source
    assert not takes(source, GOOD)
    assert takes(source, f"hm</think>\n{GOOD}")


def test_a_grammar_of_the_clients_keeps_its_own_names(chat):
    """Its rules are apart from those around it, whatever they are called."""
    inner = 'start: content+\ncontent: "a" | reasoning\nreasoning: "b"\n%ignore / /'
    source = chat(model=writing(reasoning="think"), guided_grammar=inner).constraint.source
    assert takes(source, "<think>x</think>\n\na b a")
    assert not takes(source, "<think>x</think>\n\na c")


def test_a_long_grammar_is_read_once(chat):
    """Whatever it is made of: the event loop and the engine wait while it is read."""
    grammar = "\n" * 65_536 + 'start: "x"' + " \n\troot" * 8_000
    start = time.process_time()
    chat(guided_grammar=grammar)
    assert time.process_time() - start < 0.5  # 0.01 s on a quiet machine
