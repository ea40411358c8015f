"""Grammars of calls: every text they let through is calls, whole ones, and valid."""

import json
import random
from pathlib import Path

import jsonschema
import llguidance.numpy
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer

from openai_compat.output.registry import tool_syntaxes
from openai_compat.output.syntax import Function, NotExpressible
from tests.support.outputs import run
from tests.support.tokenizers import EOS, byte_level

ROOT = Path(__file__).parents[4] / "engines/bundled/penstock_tiny"
PLAIN, SPECIAL, BUNDLED = "markers are text", "markers are special tokens", "the bundled model"
WALKS = 12
PATIENCE = 60  # tokens before a walk makes for the end
CLOSING = ('"', '"', "}", "]", ")", "\n</parameter>\n", "</function>", "}\n")

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 12},
        "days": {"type": "integer", "minimum": 0, "maximum": 20},
        "unit": {"enum": ["C", "F", None]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "exact": {"type": "boolean"},
        "where": {"$ref": "#/$defs/Place"},
        "limit": {"type": ["integer", "string"], "maximum": 9},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {
        "Place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "name": {"type": "string"}},
            "required": ["lat"],
            "additionalProperties": False,
        }
    },
}
TOOLSET = (
    Function("get_weather", WEATHER),
    Function("everything", {**WEATHER, "required": list(WEATHER["properties"])}),
    Function("now", {"type": "object", "properties": {}, "additionalProperties": False}),
    Function("free", {}),
)


def tokenizer(kind):
    """Bytes and words, with every syntax's markers as special tokens or with none; or our own."""
    if kind == BUNDLED:  # has `<tool_call>`, which it does not call special but llguidance does
        return Machine(Tokenizer.from_file(str(ROOT / "tokenizer.json")))
    backend = byte_level()
    if kind == SPECIAL:
        texts = dict.fromkeys(t for each in tool_syntaxes().values() for t in each.specials)
        backend.add_special_tokens([AddedToken(text, special=True) for text in texts])
    return Machine(backend)


class Machine:
    """A tokenizer on both sides: ours for the text, llguidance's for the masks."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend
        self.eos = backend.token_to_id(EOS)
        self.guide = LLTokenizer(backend.to_str(), eos_token=self.eos)
        self.mask = llguidance.numpy.allocate_token_bitmask(1, self.guide.vocab_size)

    def special(self, text):
        token = self.backend.token_to_id(text)
        return token is not None and self.guide.is_special_token(token)

    def matcher(self, fragment):
        fragment = fragment.numbered(self.backend.token_to_id)
        grammar = f"start: {fragment.start}\n{fragment.rules}"
        matcher = LLMatcher(self.guide, LLMatcher.grammar_from_lark(grammar))
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def allowed(self, matcher):
        llguidance.numpy.fill_next_token_bitmask(matcher, self.mask, 0)
        bits = np.unpackbits(self.mask[0].view(np.uint8), bitorder="little")
        return np.flatnonzero(bits[: self.guide.vocab_size]).tolist()

    def decode(self, tokens):
        return self.backend.decode(tokens, skip_special_tokens=False)

    def tokens(self, texts):
        return [self.backend.encode(text, add_special_tokens=False).ids for text in texts]


KINDS = (PLAIN, SPECIAL, BUNDLED)
MACHINES = {kind: tokenizer(kind) for kind in KINDS}


def walk(machine, matcher, syntax, chance):
    """A random way through the grammar that makes for its end after a while."""
    tokens, closing = (
        [],
        machine.tokens((*CLOSING, *(t for t in syntax.specials if "/" in t or "end" in t))),
    )
    while len(tokens) < 4000:
        late = len(tokens) > PATIENCE
        allowed = machine.allowed(matcher)
        if machine.eos in allowed and (late or chance.random() < 0.3 or allowed == [machine.eos]):
            return machine.decode(tokens)
        chosen = []
        if chance.random() < (0.9 if late else 0.15):
            order = chance.sample(closing, len(closing))
            chosen = next((ids for ids in order if matcher.validate_tokens(ids) == len(ids)), [])
        if not chosen:
            chosen = [chance.choice([token for token in allowed if token != machine.eos])]
        assert matcher.consume_tokens(chosen)
        tokens += chosen
    return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(tool_syntaxes()))
def test_whatever_a_grammar_lets_through_is_valid_calls(name, kind):
    """Random walks give only whole calls, of our functions, with arguments their schemas allow."""
    syntax, machine = tool_syntaxes()[name], MACHINES[kind]
    fragment = syntax.calls(TOOLSET, parallel=True, special=machine.special)
    schemas = {each.name: {"type": "object", **each.parameters} for each in TOOLSET}
    ended = 0
    for seed in range(WALKS):
        text = walk(
            machine, machine.matcher(fragment), syntax, random.Random(f"{name} {kind} {seed}")
        )
        if text is None:
            continue
        ended += 1
        found = run(syntax.parser(TOOLSET), [text])
        assert found.calls, text
        assert (found.content, found.reasoning) == ("", ""), text
        assert text.startswith(fragment.trigger)
        for called, _, arguments, whole in found.calls:
            assert whole, text
            jsonschema.validate(json.loads(arguments), schemas[called])
    assert ended >= WALKS * 3 // 4, f"only {ended} of {WALKS} walks came to an end"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(tool_syntaxes()))
def test_without_parallel_calls_there_is_one(name, kind):
    """With `parallel=False` no walk gives a second call."""
    syntax, machine = tool_syntaxes()[name], MACHINES[kind]
    functions = TOOLSET[2:3]
    fragment = syntax.calls(functions, parallel=False, special=machine.special)
    for seed in range(4):
        text = walk(machine, machine.matcher(fragment), syntax, random.Random(seed))
        assert text is not None
        assert len(run(syntax.parser(functions), [text]).calls) == 1


def test_what_a_plain_text_cannot_be_held_to_is_refused_by_its_keyword():
    """A pattern on a text between tags is told to the client, not dropped."""
    for name in ("glm", "xml"):
        for keyword, value in (("pattern", "^a+$"), ("not", {"const": "x"})):
            schema = {"properties": {"a": {"type": "string", keyword: value}}}
            with pytest.raises(NotExpressible) as refused:
                tool_syntaxes()[name].calls(
                    (Function("f", schema),), parallel=True, special=lambda _: False
                )
            assert (refused.value.keyword, refused.value.function) == (keyword, "f")


def test_what_a_list_of_members_cannot_keep_is_refused_by_its_keyword():
    """Keywords about the whole object are told to the client by syntaxes without JSON."""
    for name in ("glm", "xml", "pythonic"):
        schema = {"properties": {"a": {}}, "minProperties": 1}
        with pytest.raises(NotExpressible) as refused:
            tool_syntaxes()[name].calls(
                (Function("f", schema),), parallel=True, special=lambda _: False
            )
        assert refused.value.keyword == "minProperties"


LISTED = [
    *("\x01", "\x7f", "\x85", "a\\b", 'q"q', "é🙂", "\n lead", "trail\n", "\r\n\t", "{x}", "/re/"),
    *("</tool_call>", "null", " ", "", 1, None, True, {"a": ["x\n"]}, [1.5]),
]


@pytest.mark.parametrize("name", sorted(tool_syntaxes()))
def test_listed_values_come_back_as_they_are(name):
    """Values of an enum or a const are written so that the parser reads the same value."""
    schema = {
        "properties": {"listed": {"enum": LISTED}, "fixed": {"const": "a\nb"}},
        "required": ["listed", "fixed"],
    }
    functions, syntax = (Function("f", schema),), tool_syntaxes()[name]
    fragment = syntax.calls(functions, parallel=False, special=MACHINES[PLAIN].special)
    for seed in range(12):
        matcher = MACHINES[PLAIN].matcher(fragment)
        text = walk(MACHINES[PLAIN], matcher, syntax, random.Random(seed))
        arguments = json.loads(run(syntax.parser(functions), [text]).calls[0][2])
        assert arguments["fixed"] == "a\nb"
        assert json.dumps(arguments["listed"]) in {json.dumps(value) for value in LISTED}


OPTIONAL = Function(
    "f",
    {
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"enum": ["x"]}},
        "required": ["b"],
    },
)
WRITTEN = {
    "hermes": '<tool_call>\n{"name": "f", "arguments": {%s}}\n</tool_call>',
    "llama3_json": '{"name": "f", "parameters": {%s}}',
    "pythonic": "[f(%s)]",
    "mistral": '[TOOL_CALLS][{"name": "f", "arguments": {%s}}]',
    "glm": "<tool_call>f\n%s</tool_call>",
    "xml": "<tool_call>\n<function=f>\n%s</function>\n</tool_call>",
}
MEMBER = {
    "pythonic": "{0}={1}",
    "glm": "<arg_key>{0}</arg_key>\n<arg_value>{2}</arg_value>\n",
    "xml": "<parameter={0}>\n{2}\n</parameter>\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_model_would_write_is_let_through(name):
    """Optional arguments may come or not, and a call without a required one may not be."""
    machine, values = MACHINES[PLAIN], {"a": 7, "b": "t <b", "c": "x"}
    fragment = tool_syntaxes()[name].calls((OPTIONAL,), parallel=True, special=machine.special)
    between = "" if name in ("glm", "xml") else ", "
    for chosen, right in (("b", True), ("ab", True), ("bc", True), ("abc", True), ("ac", False)):
        members = [
            MEMBER.get(name, '"{0}": {1}').format(key, json.dumps(values[key]), values[key])
            for key in chosen
        ]
        (tokens,) = machine.tokens([WRITTEN[name] % between.join(members)])
        matcher = machine.matcher(fragment)
        through = matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
        assert through is right, (chosen, members)
