"""The outermost layer: request id, path, Host, origin, API key, catch-all, and the line in the log.

Everything that must hold for every route, known or not, stands here and nowhere else. Access is
refused by default: a route is public only when its path is listed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Keyring
from gateway.cross_origin import CrossOrigin
from gateway.dialects import errors_of, id_headers
from gateway.exchange import Exchange, Outcome, request_id
from gateway.framing import check_framing
from gateway.host_guard import HostGuard
from gateway.lifecycle import draining
from gateway.limits import limit_headers
from gateway.logs import log_fault, log_request
from gateway.metrics import Metrics
from gateway.replies import error_response
from openai_compat.errors import ApiError

PROBES = frozenset({"/livez", "/readyz", "/health"})
PUBLIC = PROBES | {"/docs", "/openapi.json"}
METRICS = "/metrics"
_ASSETS = "/docs/"
_OPERATOR = PUBLIC | {METRICS, "/events"}  # stand beside the API, not under it
_API = "/v1"
_ALSO = MappingProxyType({"/v2/rerank": f"{_API}/rerank"})  # as Cohere's clients call it


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call what, under which names and from which pages."""

    keys: Keyring
    hosts: HostGuard
    origins: CrossOrigin
    public: frozenset[str]  # paths without a key

    def is_public(self, path: str) -> bool:
        """Whether the canonical path needs no key."""
        return path in self.public or path.startswith(_ASSETS)


class Edge:
    """Wraps the application. One exchange per request, opened and closed here."""

    def __init__(
        self, app: ASGIApp, *, access: Access, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(request_id(scope["headers"]), scope["method"], self._clock())
        exchange.attach(scope)
        self._metrics.begin()
        scope["path"] = canonical(scope["path"])
        tags = [*id_headers(scope), *self._access.origins.headers(scope)]
        try:
            await self._serve(scope, receive, _tagged(send, exchange, tags), exchange)
        finally:
            self._close(scope, exchange)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        spelled = errors_of(scope)
        try:
            answer = self._admit(scope, exchange)
        except ApiError as refusal:
            answer = error_response(refusal, spelled)
        if answer is not None:
            await answer(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # by the end of the server, and by nothing else
            exchange.cut = True
            if exchange.status == 0:
                await error_response(draining(), spelled)(scope, receive, send)
            raise
        except Exception as error:
            if exchange.outcome in {Outcome.FAILED, Outcome.CUT}:
                raise  # told and logged already; the server cuts the connection
            log_fault(error, exchange.id)
            if exchange.status == 0:
                await error_response(error, spelled)(scope, receive, send)

    def _admit(self, scope: Scope, exchange: Exchange) -> Response | None:
        """The answer where none of the application's is needed. Raises ApiError."""
        access, path = self._access, scope["path"]
        check_framing(scope)
        access.hosts.check(scope, probe=path in PROBES)
        preflight = access.origins.preflight(scope)
        # Browsers ask with OPTIONS before they send the key; no route does anything for it.
        if preflight is None and not access.is_public(path) and scope["method"] != "OPTIONS":
            exchange.caller = access.keys.identify(scope["headers"])
        return preflight

    def _close(self, scope: Scope, exchange: Exchange) -> None:
        now = self._clock()
        exchange.close()
        route = getattr(scope.get("route"), "path", None)
        exchange.route = route if isinstance(route, str) else exchange.route
        self._metrics.finish(exchange, now)
        if exchange.status >= 400 or exchange.route not in {*PROBES, METRICS}:
            log_request(exchange.facts(now))


def canonical(path: str) -> str:
    """One spelling per route: with `/v1` or without, doubled, or with a slash at the end.

    Rewritten, never redirected: SDKs drop the body or the key on a redirect.
    """
    path = path.rstrip("/")
    path = _ALSO.get(path, path)
    while path.startswith(f"{_API}{_API}/"):
        path = path.removeprefix(_API)
    if path in {*_OPERATOR, "", _API} or path.startswith((_ASSETS, f"{_API}/")):
        return path or "/"
    return f"{_API}{path}"


def _tagged(send: Send, exchange: Exchange, tags: list[tuple[bytes, bytes]]) -> Send:
    async def tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            limits = [] if exchange.standing is None else limit_headers(exchange.standing)
            message["headers"] = [*message.get("headers", ()), *tags, *limits]
        await send(message)

    return tagged
