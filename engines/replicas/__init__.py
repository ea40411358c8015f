"""Several engines as one: requests are routed to one of them, and go on elsewhere when it dies."""

from engines.replicas.routing import ReplicaSet

__all__ = ["ReplicaSet"]
