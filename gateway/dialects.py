"""Which dialect a request speaks, for what is answered before or without a route: refusals.

Anthropic's SDKs say `anthropic-version` on whatever they send; the messages routes are theirs with
or without it. Everything else is OpenAI's.
"""

from collections.abc import Callable
from functools import partial

from starlette.types import Scope

from gateway.exchange import Exchange
from openai_compat.anthropic.errors import error_body
from openai_compat.errors import ErrorReply

ErrorBody = Callable[[ErrorReply], bytes]

_MESSAGES = "/v1/messages"
_VERSION = b"anthropic-version"


def speaks_anthropic(scope: Scope) -> bool:
    """Whether the client of this request, with its path in canonical form, reads Anthropic's."""
    path = scope["path"]
    if path == _MESSAGES or path.startswith(f"{_MESSAGES}/"):
        return True
    return any(name == _VERSION for name, _ in scope["headers"])


def errors_of(scope: Scope) -> ErrorBody:
    """How a refusal of this request is spelled."""
    if speaks_anthropic(scope):
        return partial(error_body, request_id=Exchange.of(scope).id)
    return ErrorReply.body


def id_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The id of the exchange, under the names that the client's SDK looks for."""
    given = Exchange.of(scope).id.encode()
    named = [(b"x-request-id", given)]
    return [*named, (b"request-id", given)] if speaks_anthropic(scope) else named
