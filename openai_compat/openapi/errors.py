"""The one shape of every refusal, and the refusals that routes share."""

from openai_compat.openapi.shapes import Schema, answer, nullable, ref, text

ERROR = answer(
    {
        "error": answer(
            {
                "message": text("For people: the number, the limit and the flag that sets it."),
                "type": text("The class of the error."),
                "param": nullable(text("The field at fault, such as `messages[2].role`.")),
                "code": text("For programs: one stable word per reason."),
            }
        )
    },
    "Every 4xx and 5xx on every route, and the last event of a stream that fails.",
)

_REASONS = {
    400: "The request is at fault; `param` says where.",
    401: "No API key, or a wrong one.",
    404: "No such route, model or object.",
    408: "The body did not arrive in time (`--body-timeout-s`).",
    413: "The body is larger than `--max-body-bytes`.",
    415: "The body is not plain `application/json`.",
    421: "The Host name is not served (`--allowed-host`).",
    429: "The queues are full; `retry-after` says when there will be room.",
    500: "The server or its engine failed; the log has the request id.",
    503: "Loading or draining; `retry-after` says when to come back.",
}
READING = (400, 401, 404, 421, 500, 503)
CALLING = tuple(_REASONS)

HEADERS = {
    "x-request-id": text("The client's own if it is sane, else a new one; it is in the log."),
    "x-should-retry": text("`true` or `false`; the official SDKs obey it."),
    "retry-after": text("Whole seconds, on 429 and 503."),
    "retry-after-ms": text("The same in milliseconds."),
    "x-ignored-params": text("Fields of the request that this server does not know."),
}


def components() -> dict[str, object]:
    """The refusals as shared responses."""
    return {f"Error{status}": _response(status, reason) for status, reason in _REASONS.items()}


def refusals(statuses: tuple[int, ...]) -> dict[str, Schema]:
    """The responses of an operation that are refusals."""
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses}


def header_refs(*names: str) -> Schema:
    """Headers of a response, by their names."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _response(status: int, reason: str) -> Schema:
    headers = ["x-request-id", "x-should-retry"]
    if status in {429, 503}:
        headers += ["retry-after", "retry-after-ms"]
    return {
        "description": reason,
        "headers": header_refs(*headers),
        "content": {"application/json": {"schema": ref("Error")}},
    }
