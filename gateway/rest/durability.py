"""What becomes of a stream when its gateway or its reader goes: wishes, and what is told of it."""

from dataclasses import dataclass
from enum import StrEnum

from engines.worker_runs import Keeping
from gateway.kept_stream import LARGEST_BODY
from gateway.lifecycle import Serving
from openai_compat.errors import RequestRejected
from openai_compat.job import Job


class Durability(StrEnum):
    """What a stream outlives, as a client asks for it in `x-stream-durability`."""

    NONE = "none"  # nothing
    REPLICATED = "replicated"  # the gateway, or the connection: a reader may come back
    DURABLE = "durable"  # any process: what was told is written down


HEADER = "x-stream-durability"


def read_durability(given: str | None) -> Durability | None:
    """What a client asks for; None: what is usual here. Raises RequestRejected."""
    if given is None:
        return None
    try:
        return Durability(given.strip().lower())
    except ValueError:
        raise RequestRejected(f"{HEADER} must be one of {', '.join(Durability)}.") from None


@dataclass(frozen=True, slots=True)
class Wish:
    """What becomes of a stream when its gateway or its reader goes, as its client wants it."""

    durability: Durability | None  # None: what is usual here

    def keeps(self, serving: Serving, body: bytes) -> bool:
        """Whether workers keep a call of this body."""
        if serving.keeper is None or len(body) > LARGEST_BODY:
            return False
        if self.durability is None:
            return serving.is_outlived
        return self.durability is not Durability.NONE

    @property
    def outlives_reader(self) -> bool:
        """Whether it goes on when its connection is cut: only who asks for it will come back."""
        return self.durability is Durability.REPLICATED


def is_kept(job: Job) -> bool:
    """Whether workers keep it."""
    return job.requests[0].kept is not None


def stream_headers(job: Job, serving: Serving, *, resumed: bool = False) -> dict[str, str]:
    """What a client is told of a stream: its id, and who could go on with it, for how long."""
    if not (resumed or is_kept(job)):
        return {"x-stream-id": job.id, "x-stream-resume": "none"}
    where = "cluster" if serving.is_outlived else "local"
    return {"x-stream-id": job.id, "x-stream-resume": f"{where}; ttl={Keeping().unheard_s:g}"}
