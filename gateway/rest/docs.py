"""GET /openapi.json, and /docs: Swagger UI from a package of ours, with no request to elsewhere."""

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

import msgspec
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from gateway import __version__
from gateway.replies import json_response
from openai_compat.openapi.document import document

# What the page may do is written twice: in the page, and here for the browser to hold it to.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penstock</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: true,
});
"""
_READ = ["GET", "HEAD"]
_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


def routes() -> APIRouter:
    """The same for every server of a version, so they need no key."""
    router = APIRouter()
    described = msgspec.json.encode(document(__version__))

    @router.api_route("/openapi.json", methods=_READ)
    async def openapi() -> Response:
        return json_response(described)

    @router.api_route("/docs", methods=_READ, include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_PAGE, headers=_HEADERS)

    @router.api_route("/docs/start.js", methods=_READ, include_in_schema=False)
    async def start() -> Response:
        return Response(_START, headers=_HEADERS, media_type="text/javascript")

    for name, kind in _TYPES.items():
        route = router.api_route(f"/docs/{name}", methods=_READ, include_in_schema=False)
        route(_asset_route(name, kind))
    return router


def _asset_route(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    async def asset() -> Response:
        headers = {**_HEADERS, "cache-control": "public, max-age=86400"}
        return Response(_asset(name), headers=headers, media_type=kind)

    return asset


@cache
def _asset(name: str) -> bytes:
    # Read whole and once: 1.7 MB. Serving files from disk has been a hole in too many servers.
    return files("fastapi_offline").joinpath("static", name).read_bytes()
