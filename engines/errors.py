"""What can go wrong at the engine port.

EngineError
├── InvalidRequest        client fault: can never be served as asked (not retryable)
│   ├── ContextOverflow   prompt + max_tokens exceed the context
│   ├── CapacityExceeded  needs more KV blocks or sequences than the engine has
│   └── Unsupported       asks for a capability this engine lacks
├── RequestQuarantined    engines have died of this request: it is not tried again
├── RequestFailed         client fault met while it ran: its grammar exceeded a limit
├── RequestUnknown        no such request is kept here, or not from where it should go on
├── RequestTaken          another gateway goes on with this request
├── EngineUnavailable     overload or lifecycle: try again (retryable)
└── EngineDied            our fault: the engine failed under this request (retryable elsewhere)

ModelRejected is apart: it is raised while loading a model directory, before any request.
"""


class EngineError(Exception):
    """Base of all errors an engine raises on behalf of a request."""

    retryable = False


class InvalidRequest(EngineError):  # noqa: N818 - reads as what it is at every call site
    """The request can never be served as asked.

    `param` names the field of the engine request at fault.
    """

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class ContextOverflow(InvalidRequest):
    """Prompt plus requested tokens exceed the model's context."""


class CapacityExceeded(InvalidRequest):
    """The request needs more KV blocks or parallel sequences than this engine has."""


class Unsupported(InvalidRequest):
    """The request asks for a capability that this engine does not list in its info."""


class RequestFailed(EngineError):  # noqa: N818
    """This request cannot go on, for a reason of its own; no other is touched."""


class RequestQuarantined(EngineError):  # noqa: N818
    """Engines have died under this request, or under one like it: it is not tried again."""


class RequestUnknown(EngineError):  # noqa: N818
    """No request of this id is kept, or what it told first is kept no longer."""


class RequestTaken(EngineError):  # noqa: N818
    """Another gateway has attached to the request since: this one hears no more of it."""


class EngineUnavailable(EngineError):  # noqa: N818
    """The engine is not started, or is stopping."""

    retryable = True


class EngineDied(EngineError):  # noqa: N818
    """The engine failed; every open stream gets this once."""

    retryable = True


class ModelRejected(Exception):  # noqa: N818
    """A model directory cannot be served: says what is wrong and what is supported."""
