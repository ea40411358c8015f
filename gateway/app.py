"""The HTTP application: routes, one exception handler, and the edge around them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp

from engines.errors import EngineError
from gateway.auth import Keyring
from gateway.cross_origin import CrossOrigin
from gateway.dialects import errors_of
from gateway.edge import METRICS, PUBLIC, Access, Edge
from gateway.exchange import Exchange, Outcome
from gateway.host_guard import HostGuard
from gateway.key_file import default_quota, known_keys
from gateway.lifecycle import Lifecycle
from gateway.logs import log_fault
from gateway.metrics import Metrics
from gateway.replies import error_response
from gateway.responses.parts import response_parts
from gateway.rest import (
    chat,
    completions,
    docs,
    embeddings,
    events,
    health,
    messages,
    models,
    rerank,
    responses,
    tokens,
)
from gateway.rest.body import BodyReader
from gateway.rest.calls import CallRunner
from gateway.rest.client_watch import ClientGone
from gateway.rest.durable_calls import DurableCalls
from gateway.rest.kept_calls import KeptCalls
from gateway.rest.sse import Pace
from gateway.settings import Settings
from gateway.shared import Shared
from openai_compat.errors import ApiError

_CLIENT_CLOSED = 499  # what proxies log for a client that left; it is never sent to anyone


def create_app(
    settings: Settings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    clock: Callable[[], float],
    shared: Shared,
) -> ASGIApp:
    """The application over a lifecycle that something else moves forward."""
    reader = BodyReader(max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    pace = Pace(settings.sse_keepalive_s, settings.write_stall_s)
    calls = CallRunner(lifecycle, reader, pace, shared.limiter)
    durable = None if shared.durable is None else DurableCalls(lifecycle, calls, shared.durable)
    kept = KeptCalls(lifecycle, calls, shared.claims, durable)
    stored = response_parts(settings, lifecycle, metrics, clock, shared, calls)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with stored.at_work():
            yield
        if durable is not None:
            await durable.close()
        calls.close()
        await shared.store.close()
        await shared.limiter.close()

    # FastAPI's own schema is off, as bodies are parsed by hand, and its pages load from elsewhere.
    app = FastAPI(title="Penstock", openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    routers = (
        chat.routes(kept),
        completions.routes(kept),
        messages.routes(calls),
        responses.routes(calls, stored.responses, stored.recollection),
        embeddings.routes(calls),
        rerank.routes(calls),
        tokens.routes(calls),
        models.routes(lifecycle),
        health.routes(lifecycle, metrics),
        events.routes(lifecycle),
        docs.routes(),
    )
    for router in routers:
        app.include_router(router)
    for kind in (ApiError, EngineError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _refuse)
    routes = [route for router in routers for route in router.routes]
    app.add_exception_handler(405, partial(_other_method, routes))
    app.add_exception_handler(ClientGone, _note_gone)
    return Edge(app, access=_access(settings), metrics=metrics, clock=clock)


def _access(settings: Settings) -> Access:
    keys = Keyring(known_keys(settings), anonymous=default_quota(settings))
    return Access(
        keys,
        HostGuard(settings.allowed_host, keyless=keys.open),
        CrossOrigin(settings.cors_origin),
        PUBLIC | {METRICS} if settings.metrics_public else PUBLIC,
    )


async def _refuse(request: Request, error: Exception) -> Response:
    response = error_response(error, errors_of(request.scope))
    if isinstance(error, EngineError) and response.status_code >= 500:
        log_fault(error, Exchange.of(request.scope).id)  # any other fault goes on to the edge
    return response


async def _other_method(
    routes: Sequence[BaseRoute], request: Request, error: Exception
) -> Response:
    """OPTIONS is answered for every route; any other method is refused with those that exist."""
    allowed = {"OPTIONS"}
    for route in routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            allowed |= route.methods or set()
    if request.method == "OPTIONS":
        response = Response(status_code=204)
    else:
        response = error_response(error, errors_of(request.scope))
    response.headers["allow"] = ", ".join(sorted(allowed))
    return response


async def _note_gone(request: Request, _: Exception) -> Response:
    Exchange.of(request.scope).outcome = Outcome.CLIENT_GONE
    return Response(status_code=_CLIENT_CLOSED)
