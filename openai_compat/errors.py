"""Every failure a client can see, and its one place on the wire.

ApiError
├── RequestRejected      400, or as given: the request itself is at fault; `param` says where
│   └── ContextLengthExceeded  400 context_length_exceeded
├── Unauthorized         401
├── NotFound             404: unknown route or model
├── MethodNotAllowed     405
├── PayloadTooLarge      413
├── UnsupportedMedia     415
├── Overloaded           429 with Retry-After: queues are full
├── RateLimited          429 with Retry-After: the key has spent its quota
└── Unavailable          503 with Retry-After: loading, draining, or the engine is gone

Any other exception is our bug: 500, and the details stay in the log.

`reply_to` maps any exception, ours or the engine's, to an `ErrorReply`; the table below it is
complete over the engine's tree (a test walks both trees).
"""

from dataclasses import dataclass

import msgspec

from engines import errors as engine


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """One failure as HTTP and as the nested OpenAI object. Never holds the client's input."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    retryable: bool = False  # sent as x-should-retry, which the official SDKs obey

    def body(self) -> bytes:
        """The JSON body `{"error": {message, type, param, code}}`."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error})


class ApiError(Exception):
    """A failure with its reply."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


class RequestRejected(ApiError):  # noqa: N818 - names what happened to the request
    """The request is at fault; nothing was started."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
    ) -> None:
        super().__init__(ErrorReply(status, "invalid_request_error", code, message, param))


class ContextLengthExceeded(RequestRejected):
    """Prompt plus max_tokens do not fit; clients look for exactly this code."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, param=param, code="context_length_exceeded")


class Unauthorized(ApiError):  # noqa: N818
    """No key, or a wrong one."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorReply(401, "authentication_error", "invalid_api_key", message))


class NotFound(ApiError):  # noqa: N818
    """No such route or model."""

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(ErrorReply(404, "invalid_request_error", code, message, param))


class MethodNotAllowed(ApiError):  # noqa: N818
    """The route exists, the method does not."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorReply(405, "invalid_request_error", "method_not_allowed", message))


class PayloadTooLarge(ApiError):  # noqa: N818
    """The body is over the limit."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorReply(413, "invalid_request_error", "request_too_large", message))


class UnsupportedMedia(ApiError):  # noqa: N818
    """Not a plain JSON body."""

    def __init__(self, message: str) -> None:
        super().__init__(
            ErrorReply(415, "invalid_request_error", "unsupported_media_type", message)
        )


class Overloaded(ApiError):  # noqa: N818
    """Queues are full; says when to come back."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(
            ErrorReply(
                429, "rate_limit_error", "queue_full", message,
                retry_after_s=retry_after_s, retryable=True,
            )
        )  # fmt: skip


class RateLimited(ApiError):  # noqa: N818
    """The key has spent its quota; says when to come back."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(
            ErrorReply(
                429, "rate_limit_error", "rate_limit_exceeded", message,
                retry_after_s=retry_after_s, retryable=True,
            )
        )  # fmt: skip


class Unavailable(ApiError):  # noqa: N818
    """Loading, draining, or without an engine; says when to come back."""

    def __init__(self, message: str, *, code: str, retry_after_s: float) -> None:
        super().__init__(
            ErrorReply(
                503, "server_error", code, message, retry_after_s=retry_after_s, retryable=True
            )
        )


_SERVER_FAULT = ErrorReply(
    500, "server_error", "internal_error", "The server failed; the log has this request id."
)

# engine error class -> (status, type, code); the most specific class wins.
_ENGINE_TABLE: dict[type[engine.EngineError], tuple[int, str, str]] = {
    engine.ContextOverflow: (400, "invalid_request_error", "context_length_exceeded"),
    engine.CapacityExceeded: (400, "invalid_request_error", "capacity_exceeded"),
    engine.Unsupported: (400, "invalid_request_error", "unsupported_by_engine"),
    engine.InvalidRequest: (400, "invalid_request_error", "invalid_value"),
    engine.RequestFailed: (400, "invalid_request_error", "request_failed"),
    engine.RequestQuarantined: (422, "invalid_request_error", "request_quarantined"),
    engine.RequestUnknown: (410, "invalid_request_error", "stream_expired"),
    engine.RequestTaken: (409, "invalid_request_error", "stream_taken"),
    engine.EngineUnavailable: (503, "server_error", "engine_unavailable"),
    engine.EngineDied: (500, "server_error", "engine_died"),
    engine.EngineError: (500, "server_error", "engine_error"),
}


def reply_to(error: BaseException) -> ErrorReply:
    """The reply for any exception; what is not in a table is our bug, and says nothing more."""
    if isinstance(error, ApiError):
        return error.reply
    for kind in type(error).__mro__:
        if kind in _ENGINE_TABLE:
            return _engine_reply(error, *_ENGINE_TABLE[kind])
    return _SERVER_FAULT


def _engine_reply(error: BaseException, status: int, type_: str, code: str) -> ErrorReply:
    retryable = isinstance(error, engine.EngineError) and error.retryable
    return ErrorReply(
        status,
        type_,
        code,
        str(error),
        getattr(error, "param", None),
        retry_after_s=1.0 if status == 503 else None,
        retryable=retryable,
    )
