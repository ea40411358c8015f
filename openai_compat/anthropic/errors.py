"""Failures as Anthropic's clients read them: `{"type": "error", "error": {...}, "request_id"}`.

The same replies as everywhere, with the same status and words. `details` is where Anthropic's own
objects carry a stable code; ours and the field at fault stand there.
"""

from openai_compat.errors import ErrorReply
from openai_compat.sse import json_bytes

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_object(reply: ErrorReply) -> dict[str, object]:
    """The inner object: type, message, and details for machines."""
    details: dict[str, object] = {"error_code": reply.code}
    if reply.param is not None:
        details["param"] = reply.param
    return {"type": _type(reply.status), "message": reply.message, "details": details}


def error_body(reply: ErrorReply, request_id: str) -> bytes:
    """The JSON body of a refusal."""
    return json_bytes({"type": "error", "error": error_object(reply), "request_id": request_id})


def _type(status: int) -> str:
    fallback = "api_error" if status >= 500 else "invalid_request_error"
    return _TYPES.get(status, fallback)
