"""What an upstream's refusals are at our port. Pure."""

from http import HTTPStatus

import msgspec

from engines.errors import EngineDied, EngineError, EngineUnavailable, InvalidRequest

_MOST_CHARS = 200
_CLIENTS_FAULT = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
_LATER = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def refusal(status: int, body: bytes) -> EngineError:
    """The error for an answer that is no stream."""
    if status in _CLIENTS_FAULT:
        return InvalidRequest(f"the upstream refuses: {told(body)}", param="request")
    if status in _LATER:
        return EngineUnavailable(f"the upstream is not available (HTTP {status})")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return EngineDied(f"the upstream failed (HTTP {status})")
    return EngineUnavailable(f"the upstream does not take our calls (HTTP {status})")


def told(body: bytes) -> str:
    """The message of an error object, shortened, in the shapes that servers use."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer = None
    match answer:
        case (
            {"error": {"message": str(message)}}
            | {"error": str(message)}
            | {"message": str(message)}
        ):
            return "".join(c if c.isprintable() else " " for c in message[:_MOST_CHARS])
    return "it does not say why"
