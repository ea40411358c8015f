"""The HTTP calls to one upstream: what it serves, and the events of a stream. Nothing is retried.

Redirects are not followed and the environment's proxies are not used: the API key goes to the
host that the operator named, and nowhere else.
"""

from collections.abc import AsyncGenerator
from contextlib import suppress

import httpx2
import msgspec

from engines.errors import EngineDied, EngineError, EngineUnavailable
from engines.upstream.config import UpstreamConfig
from engines.upstream.replies import refusal
from engines.upstream.sse import EventReader, TooLong

_CONNECT_S = 10.0
_KEPT_S = 3.0  # uvicorn closes after 5; who closes first must not be the one that is written to
_KEPT = 64
_MOST_ANSWER_BYTES = 1 << 20
_MOST_REFUSAL_BYTES = 1 << 16


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class Client:
    """One upstream over HTTP. Its methods raise EngineError, and nothing else."""

    def __init__(self, config: UpstreamConfig) -> None:
        key = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._http = httpx2.AsyncClient(
            base_url=config.base_url,
            headers={"accept-encoding": "identity", **key},
            timeout=httpx2.Timeout(config.silence_s, connect=_CONNECT_S, pool=None),
            limits=httpx2.Limits(max_keepalive_connections=_KEPT, keepalive_expiry=_KEPT_S),
            trust_env=False,
            follow_redirects=False,
        )

    async def model(self, name: str | None) -> tuple[str, int | None]:
        """The model of that name, or the first one; and how long its context is, where told."""
        request = self._http.build_request("GET", "models", timeout=_CONNECT_S)
        try:
            response = await self._http.send(request, stream=True)
            try:
                body = await _start_of(response, _MOST_ANSWER_BYTES)
            finally:
                await response.aclose()
        except httpx2.HTTPError as error:
            raise _broken(error) from None
        if response.status_code != httpx2.codes.OK:
            raise refusal(response.status_code, body)
        try:
            models = msgspec.json.decode(body, type=_Models).data
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise EngineUnavailable(
                "its /models is not OpenAI's; does the URL end in /v1?"
            ) from None
        for model in models:
            if name in (None, model.id):
                return model.id, model.max_model_len
        raise EngineUnavailable("the upstream does not list the model")

    async def events(self, body: object, reader: EventReader) -> AsyncGenerator[bytes]:
        """The data of each event of a completion; closing it closes the response at once."""
        call = self._http.stream(
            "POST",
            "completions",
            content=msgspec.json.encode(body),
            headers={"content-type": "application/json", "accept": "text/event-stream"},
        )
        try:
            async with call as response:
                await _check(response)
                async for piece in response.aiter_raw():
                    for data in reader.feed(piece):
                        yield data
        except httpx2.HTTPError as error:
            raise _broken(error) from None
        except TooLong as error:
            raise EngineDied(f"the upstream says too much: {error}") from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()


async def _check(response: httpx2.Response) -> None:
    """Raise what an answer that is no stream of events is."""
    if response.status_code != httpx2.codes.OK:
        raise refusal(response.status_code, await _start_of(response, _MOST_REFUSAL_BYTES))
    kind, coding = (response.headers.get(f"content-{name}", "") for name in ("type", "encoding"))
    if not kind.startswith("text/event-stream") or coding not in {"", "identity"}:
        raise EngineDied("the upstream does not answer with a plain stream of events")


async def _start_of(response: httpx2.Response, most_bytes: int) -> bytes:
    """As much of a body as comes: the status counts, whether or not its reason arrives whole."""
    body = bytearray()
    with suppress(httpx2.HTTPError):
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > most_bytes:
                break
    return bytes(body[:most_bytes])


def _broken(error: httpx2.HTTPError) -> EngineError:
    """What is not connected has begun nothing; what breaks later has failed under the request."""
    name = type(error).__name__
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return EngineUnavailable(f"the upstream cannot be reached ({name})")
    return EngineDied(f"the connection to the upstream broke ({name})")
