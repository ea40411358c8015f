"""The grammar of a whole turn against the parser of the same turn: random answers, every syntax.

An answer is a random walk through the grammar's tokens, drawn to the markers of the syntax. It goes
the way a real one goes: tokens, text, deltas, the message. What it calls and says must be valid.
"""

import json
import random

import jsonschema
import numpy as np
import pytest
from llguidance import LLMatcher
from tokenizers import AddedToken

from engines.api import Finish, FinishReason, TokenEvent
from engines.grammar.bounds import parser_limits
from engines.grammar.vocabulary import read_vocabulary
from openai_compat.output.registry import tool_syntaxes
from tests.support.answers import function, writing
from tests.support.tokenizers import EOS, byte_level

WALKS = 6
PATIENCE, MOST = 40, 600  # tokens: when a walk makes for the end, and when it is given up
CLOSING = ('"', "}", "]", ")", "</parameter>\n", "</arg_value>\n", "</function>", "}\n", "\n")
F = function("f", a={"type": "integer", "maximum": 99}, b={"type": "string", "maxLength": 5})
G = function("g")
FORM = {
    "type": "object",
    "properties": {"c": {"type": "string", "maxLength": 20}},
    "required": ["c"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": FORM}}
STRICT = [{**tool, "function": {**tool["function"], "strict": True}} for tool in (F, G)]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (F, G)}
ASKS = {
    "required": {"tools": [F, G], "tool_choice": "required"},
    "one": {"tools": [F, G], "tool_choice": "required", "parallel_tool_calls": False},
    "strict": {"tools": STRICT},
    "beside a form": {"tools": [F, G], "response_format": RESPONSE_FORMAT},
    "form": {"response_format": RESPONSE_FORMAT},
}
SYNTAXES = tool_syntaxes()
BARE = ("llama3_json", "pythonic")
HARMONY_TEXT = ("harmony", "text")


def backend(kind):
    """Bytes and words; the markers of every syntax are special tokens, or text."""
    tokenizer = byte_level()
    if kind == "special":
        texts = dict.fromkeys(text for each in SYNTAXES.values() for text in each.specials)
        texts |= dict.fromkeys(("<think>", "</think>"))
        tokenizer.add_special_tokens([AddedToken(text, special=True) for text in texts])
    return tokenizer


BACKENDS = {kind: backend(kind) for kind in ("special", "text")}
VOCABULARIES = {
    kind: read_vocabulary(each.to_str(), each.get_vocab_size(), {each.token_to_id(EOS)})
    for kind, each in BACKENDS.items()
}


class Walker:
    """Random answers by one grammar."""

    def __init__(self, kind, source, markers):
        self._backend = BACKENDS[kind]
        self._eos = self._backend.token_to_id(EOS)
        self._start = LLMatcher(VOCABULARIES[kind], source, log_level=0, limits=parser_limits())
        assert not self._start.is_error(), self._start.get_error()
        self._markers = [self._ids(text) for text in markers]
        self._closing = [self._ids(text) for text in CLOSING]
        self._mask = np.empty((self._backend.get_vocab_size() + 31) // 32, np.int32)

    def _ids(self, text):
        return self._backend.encode(text, add_special_tokens=False).ids

    def walk(self, chance):
        """The tokens of an answer, with its end; None for one that came to none."""
        matcher, tokens = self._start.deep_copy(), []
        while len(tokens) < MOST:
            allowed = self._allowed(matcher)
            late = len(tokens) > PATIENCE
            if self._eos in allowed and (late or chance.random() < 0.1 or len(allowed) == 1):
                return [*tokens, self._eos]
            chosen = self._drawn(matcher, chance, late=late)
            if not chosen:
                chosen = [chance.choice([token for token in allowed if token != self._eos])]
            assert matcher.consume_tokens(chosen)
            tokens += chosen
        return None

    def _allowed(self, matcher):
        matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        assert not matcher.is_error(), matcher.get_error()
        return np.flatnonzero(np.unpackbits(self._mask.view(np.uint8), bitorder="little")).tolist()

    def _drawn(self, matcher, chance, *, late):
        """A marker or a closing text, where the grammar takes one."""
        wanted = self._closing + self._markers if late else self._markers
        if chance.random() > (0.9 if late else 0.3):
            return []
        order = chance.sample(wanted, len(wanted))
        return next((ids for ids in order if matcher.validate_tokens(ids) == len(ids)), [])


def told(job, tokens):
    """The message that a client gets, and the finish."""
    event = TokenEvent(0, tokens, 0, finish=Finish(FinishReason.STOP, len(tokens), tokens[-1]))
    job.renderer.feed(0, event)
    choice = json.loads(job.renderer.fold())["choices"][0]
    return choice["message"], choice["finish_reason"]


def cases():
    """Bare calls cannot stand beside a form; harmony's markers are special tokens everywhere."""
    for name in sorted(SYNTAXES):
        for ask in ASKS:
            if not (name in BARE and ask == "beside a form"):
                yield from ((name, ask, kind) for kind in BACKENDS if (name, kind) != HARMONY_TEXT)


@pytest.mark.parametrize("thinks", [False, True], ids=["answers", "thinks"])
@pytest.mark.parametrize(("name", "ask", "kind"), list(cases()))
def test_what_a_grammar_lets_through_is_valid(chat, name, ask, kind, thinks):
    """Calls by their schemas, content by its form, and as many calls as were asked for."""
    reasoning = "harmony" if name == "harmony" else "think" if thinks else None
    model = writing(name, reasoning, backend=BACKENDS[kind])
    syntax = model.syntax.reasoning
    markers = [*SYNTAXES[name].specials, *((syntax.begin, syntax.end) if syntax else ())]
    ended = 0
    walker = Walker(kind, chat(model=model, **ASKS[ask]).constraint.source, markers)
    for seed in range(WALKS):
        tokens = walker.walk(random.Random(f"{name} {ask} {seed}"))
        if tokens is None:
            continue
        ended += 1
        message, finish = told(chat(model=model, **ASKS[ask]), tokens)
        check(ask, message, finish, model.tokenizer.decode_spelled(tokens))
    assert ended >= WALKS // 3


def check(ask, message, finish, text):
    """Nothing but what was asked for."""
    calls = message.get("tool_calls", [])
    assert finish == ("tool_calls" if calls else "stop"), text
    for call in calls:
        arguments = json.loads(call["function"]["arguments"])
        jsonschema.validate(arguments, SCHEMAS[call["function"]["name"]])
    if ask in ("required", "one"):
        assert calls, text
        assert ask == "required" or len(calls) == 1, text
        assert message["content"] is None, text
    elif "form" in ask and not calls:
        jsonschema.validate(json.loads(message["content"]), FORM)
    elif "form" in ask:
        assert message["content"] is None, text
