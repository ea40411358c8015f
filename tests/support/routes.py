"""The routes of the application, read from the application: nobody keeps a second list."""

import re
from dataclasses import dataclass
from time import monotonic

from starlette.routing import Route

from gateway.app import create_app
from gateway.claims import MemoryClaims
from gateway.lifecycle import Lifecycle
from gateway.memory_limiter import MemoryLimiter
from gateway.metrics import Metrics
from gateway.responses.store import MemoryResponseStore
from gateway.settings import Settings
from gateway.shared import Shared


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One method of one route."""

    method: str
    path: str

    def __str__(self):
        return f"{self.method} {self.path}"


def api_routes():
    """Every method of every route, in the order of the application."""
    store = MemoryResponseStore(max_bytes=0, ttl_s=1, clock=monotonic)
    shared = Shared(MemoryLimiter(monotonic), MemoryClaims(), store)
    edge = create_app(Settings(), Lifecycle(), Metrics("0"), monotonic, shared)
    return [
        ApiRoute(method, route.path)
        for route in _flat(edge._app.router.routes)
        for method in sorted(route.methods - {"HEAD"})
    ]


def _flat(routes):
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:  # how newer FastAPI keeps an included router
            yield from _flat(route.original_router.routes)


def filled(path, **values):
    """The path with something for each of its parameters."""
    fill = values.get("model", "some-id")
    return re.sub(r"\{[a-z_]+(:path)?\}", fill, path)


def takes(method, path):
    """Whether some route takes this method on a path."""
    patterns = [
        re.sub(r"\{[a-z_]+(:path)?\}", lambda found: ".+" if found[1] else "[^/]+", route.path)
        for route in api_routes()
        if route.method == method
    ]
    return any(re.fullmatch(pattern, path) for pattern in patterns)
