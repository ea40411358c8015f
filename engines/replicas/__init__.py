"""Several engines as one: requests are routed to one of them, and go on elsewhere when it dies."""

from engines.replicas.finding import find
from engines.replicas.routing import ReplicaSet
from engines.replicas.stream import MigratingStream
from engines.replicas.watching import WatchingStream

__all__ = ["MigratingStream", "ReplicaSet", "WatchingStream", "find"]
