"""GET /livez, /readyz, /health and /metrics."""

import msgspec
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.lifecycle import Lifecycle
from gateway.metrics import Metrics
from gateway.replies import json_response


def routes(lifecycle: Lifecycle, metrics: Metrics) -> APIRouter:
    """Routes for whoever runs the process."""
    router = APIRouter()

    @router.api_route("/livez", methods=["GET", "HEAD"])
    async def live() -> Response:
        """The process answers: nothing else is claimed."""
        return json_response(b'{"status":"alive"}')

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    @router.api_route("/health", methods=["GET", "HEAD"])
    async def ready() -> Response:
        """200 while calls are taken, else 503; with the phase, or how many workers are up."""
        status = 200 if lifecycle.takes_calls else 503
        return json_response(msgspec.json.encode(lifecycle.state), status)

    @router.get("/metrics")
    async def scrape() -> Response:
        """The Prometheus exposition."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
