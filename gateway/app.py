"""The HTTP application: routes, one exception handler, and the edge around them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from engines.errors import EngineError
from gateway.auth import Keyring
from gateway.edge import METRICS, PUBLIC, Edge
from gateway.exchange import Exchange, Outcome
from gateway.lifecycle import Lifecycle
from gateway.logs import log_fault
from gateway.metrics import Metrics
from gateway.replies import error_response
from gateway.rest import chat, completions, events, health, models
from gateway.rest.body import BodyReader
from gateway.rest.calls import CallRunner
from gateway.rest.client_watch import ClientGone
from gateway.rest.sse import Pace
from gateway.settings import Settings
from openai_compat.errors import ApiError

_CLIENT_CLOSED = 499  # what proxies log for a client that left; it is never sent to anyone


def create_app(
    settings: Settings, lifecycle: Lifecycle, metrics: Metrics, clock: Callable[[], float]
) -> ASGIApp:
    """The application over a lifecycle that something else moves forward."""
    reader = BodyReader(max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    pace = Pace(settings.sse_keepalive_s, settings.write_stall_s)
    calls = CallRunner(lifecycle, reader, pace)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        calls.close()

    # The schema and documentation pages are off: they would load scripts from elsewhere.
    app = FastAPI(title="Penstock", openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    for router in (
        chat.routes(calls),
        completions.routes(calls),
        models.routes(lifecycle),
        health.routes(lifecycle, metrics),
        events.routes(lifecycle),
    ):
        app.include_router(router)
    for kind in (ApiError, EngineError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(ClientGone, _note_gone)
    public = PUBLIC | {METRICS} if settings.metrics_public else PUBLIC
    return Edge(app, keys=Keyring(settings.api_key), metrics=metrics, clock=clock, public=public)


async def _refuse(request: Request, error: Exception) -> Response:
    response = error_response(error)
    if isinstance(error, EngineError) and response.status_code >= 500:
        log_fault(error, Exchange.of(request.scope).id)  # any other fault goes on to the edge
    return response


async def _note_gone(request: Request, _: Exception) -> Response:
    Exchange.of(request.scope).outcome = Outcome.CLIENT_GONE
    return Response(status_code=_CLIENT_CLOSED)
