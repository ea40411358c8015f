"""The error table: complete over the engine's tree, nested on the wire, silent about our bugs."""

import json

import pytest

from engines import errors as engine
from openai_compat import errors
from openai_compat.errors import reply_to


def tree(kind):
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]


def example(kind):
    if issubclass(kind, engine.InvalidRequest):
        return kind("too long by 3", param="prompt")
    return kind("what happened")


@pytest.mark.parametrize("kind", tree(engine.EngineError))
def test_every_engine_error_has_its_own_row(kind):
    """No engine error falls through to the generic answer; an engine's own kinds are the port's."""
    reply = reply_to(example(kind))
    listed = kind if kind.__module__ == engine.__name__ else kind.__base__
    assert listed in errors._ENGINE_TABLE
    assert reply.retryable == kind.retryable
    its_own_fault = (
        engine.InvalidRequest,
        engine.RequestFailed,
        engine.RequestQuarantined,
        engine.RequestUnknown,
        engine.RequestTaken,
    )
    assert (reply.status < 500) == issubclass(kind, its_own_fault)
    assert (reply.param == "prompt") == issubclass(kind, engine.InvalidRequest)
    assert (reply.retry_after_s is not None) == (reply.status == 503)


def test_a_new_kind_of_engine_error_gets_its_parents_row():
    """An adapter's own error is answered as what it is."""

    class TooMany(engine.CapacityExceeded):
        """An adapter's."""

    assert reply_to(TooMany("8 of 4", param="n")).code == "capacity_exceeded"


def test_our_own_errors_carry_their_reply():
    """Status, code and header values come from the raise."""
    reply = reply_to(errors.Overloaded("64 of 64 are waiting", retry_after_s=2.5))
    assert (reply.status, reply.code, reply.retry_after_s) == (429, "queue_full", 2.5)


@pytest.mark.parametrize("error", [ValueError("/etc/secret"), KeyError("x"), SystemExit(1)])
def test_any_other_exception_is_our_bug_and_says_no_more(error):
    """Details belong in the log."""
    reply = reply_to(error)
    assert (reply.status, reply.code, reply.retryable) == (500, "internal_error", False)
    assert "secret" not in reply.message


@pytest.mark.parametrize(
    "error",
    [
        *(example(kind) for kind in tree(engine.EngineError)),
        errors.Unauthorized("no key"),
        errors.NotFound("no such model", code="model_not_found", param="model"),
        errors.MethodNotAllowed("GET only"),
        errors.PayloadTooLarge("2 MiB at most"),
        errors.UnsupportedMedia("JSON only"),
        errors.Unavailable("loading", code="loading", retry_after_s=1.0),
        errors.RequestRejected("no", param="n"),
        RuntimeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_body_is_the_nested_object_with_a_string_code(error):
    """The one shape every client understands."""
    body = json.loads(reply_to(error).body())
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["code"], str)
    assert isinstance(body["error"]["message"], str)


def test_every_kind_of_our_errors_is_covered_above():
    """A new class in the tree needs a line in this file."""
    assert {kind.__name__ for kind in tree(errors.ApiError)} == {
        "ApiError",
        "RequestRejected",
        "ContextLengthExceeded",
        "Unauthorized",
        "NotFound",
        "MethodNotAllowed",
        "PayloadTooLarge",
        "UnsupportedMedia",
        "Overloaded",
        "RateLimited",
        "Unavailable",
    }
