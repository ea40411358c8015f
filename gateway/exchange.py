"""One HTTP exchange as the log and the metrics will tell it; filled in while it happens."""

import re
import secrets
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from gateway.auth import ANYBODY, Caller
from gateway.limits import Standing

_SCOPE_KEY = "penstock.exchange"
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Outcome(StrEnum):
    """How an exchange ended, beyond its status."""

    ANSWERED = "answered"
    CLIENT_GONE = "client_gone"  # it closed the connection
    STALLED = "stalled"  # it stopped reading
    FAILED = "failed"  # after the first byte: error event and a cut connection
    CANCELLED = "cancelled"  # a response in the background, by its client
    CUT = "cut"  # by the server, which ended before the answer did


@dataclass(slots=True)
class Exchange:
    """What is known of a request by now. Times are seconds of the monotonic clock."""

    id: str
    method: str
    started: float
    call_id: str = ""  # stem of the completion id, when there is a call
    resumed: bool = False  # the call had begun before: its tokens were counted with it, too
    route: str = "unmatched"  # the pattern, never the path: a label from a closed set
    caller: Caller = ANYBODY
    standing: Standing | None = None  # of its key's quota, once it was counted
    status: int = 0
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    ttft_s: float | None = None
    finishes: list[str] = field(default_factory=list)
    outcome: Outcome = Outcome.ANSWERED
    cut: bool = False  # set with the cut, which looks from inside as if the client had gone

    @property
    def salt(self) -> bytes:
        """What keeps the prefixes and responses of callers apart."""
        return self.caller.salt

    def close(self) -> None:
        """Settle how it ended."""
        if self.cut and self.outcome in {Outcome.ANSWERED, Outcome.CLIENT_GONE}:
            self.outcome = Outcome.CUT

    def facts(self, now: float) -> dict[str, object]:
        """The fields of its log line."""
        facts: dict[str, object] = {
            "request_id": self.id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "outcome": self.outcome.value,
            "duration_s": round(now - self.started, 6),
        }
        if self.caller.name:
            facts["key"] = self.caller.name
        if self.model:
            facts |= {
                "call_id": self.call_id,
                "model": self.model,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "cached_tokens": self.cached_tokens,
                "ttft_s": None if self.ttft_s is None else round(self.ttft_s, 6),
                "finish_reasons": self.finishes,
                **({"resumed": True} if self.resumed else {}),
            }
        return facts

    def attach(self, scope: MutableMapping[str, Any]) -> None:
        scope[_SCOPE_KEY] = self

    @staticmethod
    def of(scope: MutableMapping[str, Any]) -> "Exchange":
        """The exchange that the edge opened for this scope."""
        return cast("Exchange", scope[_SCOPE_KEY])

    @staticmethod
    def mark_cut(scope: Mapping[str, object]) -> None:
        """Note that the server cuts this scope's exchange, if it has begun."""
        exchange = scope.get(_SCOPE_KEY)
        if isinstance(exchange, Exchange):
            exchange.cut = True


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's x-request-id when it is harmless in a header and a log, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return value.decode()
    return f"req-{secrets.token_hex(12)}"
