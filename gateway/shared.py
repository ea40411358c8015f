"""What several gateways may have in common; one alone has it for itself."""

from dataclasses import dataclass

from gateway.claims import Claims
from gateway.durable.responses import Durable
from gateway.limits import Limiter
from gateway.responses.store import ResponseStore


@dataclass(frozen=True, slots=True)
class Shared:
    """Each of these works without Redis, too; `durable` is not there then."""

    limiter: Limiter
    claims: Claims
    store: ResponseStore
    durable: Durable | None = None
