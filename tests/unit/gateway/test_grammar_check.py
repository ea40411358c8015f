"""Grammars are tried before a call starts, and refused under the client's own names."""

import pytest

from engines.errors import EngineUnavailable, InvalidRequest
from gateway.grammar_check import check_grammar
from openai_compat.conversation.ask import Constraint
from openai_compat.errors import RequestRejected

pytestmark = pytest.mark.anyio
CONSTRAINT = Constraint("start: x", "guided_grammar")


class Checker:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, failure=None, *, of="all"):
        self.asked = []
        self._failure = failure
        self._of = of

    async def check(self, source):
        self.asked.append(source)
        if self._failure is not None and ("all" in (self._of, source[7:10]) or self._of in source):
            raise self._failure

    async def close(self):
        return


async def test_what_compiles_goes_on():
    """The source is what was asked."""
    checker = Checker()
    await check_grammar(checker, CONSTRAINT)
    assert checker.asked == ["start: x"]


async def test_a_refusal_names_the_clients_field():
    """With the code that its kind of form has."""
    checker = Checker(InvalidRequest("unknown name: x", param="grammar"))
    with pytest.raises(RequestRejected) as refusal:
        await check_grammar(checker, CONSTRAINT)
    reply = refusal.value.reply
    assert (reply.status, reply.param, reply.code) == (400, "guided_grammar", "invalid_grammar")
    assert "unknown name: x" in reply.message


async def test_one_schema_of_several_is_named():
    """The one that does not compile by itself."""
    good, bad = {"type": "object"}, {"type": "object", "pattern": "*"}
    schemas = (("tools[0].function.parameters", good), ("response_format", bad))
    constraint = Constraint("start: all", "tools", "invalid_json_schema", schemas)
    with pytest.raises(RequestRejected) as refusal:
        await check_grammar(Checker(InvalidRequest("no", param="grammar"), of="*"), constraint)
    assert refusal.value.reply.param == "response_format"


async def test_too_many_checks_are_overload():
    """Not the client's fault, and worth another try."""
    with pytest.raises(EngineUnavailable):
        await check_grammar(Checker(EngineUnavailable("busy")), CONSTRAINT)


async def test_without_a_grammar_nothing_is_asked():
    """Nor where the engine takes none."""
    checker = Checker()
    await check_grammar(checker, None)
    await check_grammar(None, CONSTRAINT)
    assert checker.asked == []
