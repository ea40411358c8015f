"""Structured logs: one JSON object per line, one line per request at its end.

Prompts, completions, keys and bodies are never logged: only what `Exchange.facts` lists.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

from engines.errors import EngineError
from gateway.log_writer import LogWriter

_REQUESTS = "penstock.requests"


class JsonFormatter(logging.Formatter):
    """A record as one JSON line with the fields `always`; `extra={"facts": {...}}` adds more."""

    def __init__(self, always: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._always = always or {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._always,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "facts", {}))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, default=str)


def configure_logging(
    level: str, stream: IO[str], always: Mapping[str, object] | None = None
) -> LogWriter:
    """Send every logger of the process to `stream` as JSON lines, each with the fields `always`."""
    handler = LogWriter(stream)
    handler.setFormatter(JsonFormatter(always))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # a closed log pipe must not disturb serving
    for chatty in ("uvicorn.error", "uvicorn.access", "asyncio", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return handler


def log_request(facts: dict[str, object]) -> None:
    """The line of a request that has ended."""
    logging.getLogger(_REQUESTS).info("request", extra={"facts": facts})


def log_fault(error: BaseException, request_id: str) -> None:
    """The line of a failure that is ours, with where it came from."""
    facts = {"request_id": request_id}
    logging.getLogger(_REQUESTS).error("fault", exc_info=error, extra={"facts": facts})


def describe(error: BaseException) -> dict[str, object]:
    """Type and place of an error; its words only where they are ours: others may quote input."""
    frames = traceback.extract_tb(error.__traceback__)
    described: dict[str, object] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, EngineError):
        described["message"] = str(error)
    if error.__cause__ is not None:
        described["cause"] = describe(error.__cause__)
    return described
