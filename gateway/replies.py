"""Responses that are not streams: error objects with their retry headers, and JSON answers."""

import math

from fastapi import Response
from starlette.exceptions import HTTPException

from gateway.dialects import ErrorBody
from openai_compat.errors import (
    ErrorReply,
    MethodNotAllowed,
    NotFound,
    RequestRejected,
    reply_to,
)

JSON = "application/json"


def json_response(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Bytes that are JSON already."""
    return Response(body, status, headers, media_type=JSON)


def error_response(error: BaseException, body: ErrorBody = ErrorReply.body) -> Response:
    """Any failure as its client's dialect has it, with the headers that the official SDKs obey."""
    reply = reply_for(error)
    return json_response(body(reply), reply.status, {**error_headers(reply), **_allow(error)})


def reply_for(error: BaseException) -> ErrorReply:
    """Like `reply_to`, and also for what the router raises."""
    if not isinstance(error, HTTPException):
        return reply_to(error)
    match error.status_code:
        case 404:
            return NotFound("There is no such route here.", code="unknown_url").reply
        case 405:
            return MethodNotAllowed("This route does not take that method.").reply
        case status if 400 <= status < 500:
            message = "The request could not be understood."
            return RequestRejected(message, code="invalid_request", status=status).reply
        case _:
            return reply_to(error)


def error_headers(reply: ErrorReply) -> dict[str, str]:
    """What a refusal says beside its body: whether and when to try again."""
    headers = {"x-should-retry": "true" if reply.retryable else "false"}
    if reply.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(reply.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(reply.retry_after_s * 1000))
    if reply.status == 401:
        headers["www-authenticate"] = "Bearer"
    if reply.status == 408:  # the rest of that body may still come: not a connection to reuse
        headers["connection"] = "close"
    return headers


def raw_refusal(reply: ErrorReply, request_id: str) -> bytes:
    """A refusal as a whole HTTP/1.1 response, after which the connection ends."""
    body = reply.body()
    headers = {
        "content-type": JSON,
        "content-length": str(len(body)),
        "x-request-id": request_id,
        **error_headers(reply),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {reply.status} Refused", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _allow(error: BaseException) -> dict[str, str]:
    allowed = (error.headers or {}).get("Allow") if isinstance(error, HTTPException) else None
    return {} if allowed is None else {"allow": allowed}
