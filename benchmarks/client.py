"""A load generator for any OpenAI-compatible server: streams over raw sockets, at little cost.

Each arrival of text from the socket is one sample of time; tokens are counted by the server's own
usage, so a server that merges tokens into one frame is neither rewarded nor punished.
"""

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, urlsplit

_NOTHING: Mapping[str, str] = MappingProxyType({})
_TEXT = re.compile(rb'"content": ?"[^"]')  # not the empty one that comes with the role


@dataclass
class Stream:
    """What one streamed answer took, in seconds since the request was sent."""

    sent: float = 0.0
    first: float = 0.0  # time to the first text
    last: float = 0.0  # to the last of it
    ended: float = 0.0
    gaps: list[float] = field(default_factory=list)  # between arrivals of text
    prompt_tokens: int = 0
    tokens: int = 0
    cached: int = 0


async def stream(
    base_url: str, body: dict[str, object], api_key: str = "", more: Mapping[str, str] = _NOTHING
) -> Stream:
    """POST /chat/completions with stream and usage; read to `[DONE]`. Raises on any other end.

    `more`: headers besides.
    """
    url = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        result = Stream(sent=time.perf_counter())
        writer.write(_request(url, body, api_key, more))
        await _read(reader, result)
        return result
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, result: Stream) -> None:
    seen, searched = b"", 0
    while b"data: [DONE]" not in seen[-4096:]:
        data = await reader.read(65536)
        now = time.perf_counter() - result.sent
        if not data:
            raise ConnectionError(f"the stream ended early: {seen[:300]!r}")
        seen += data
        if not seen.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"refused: {seen[:600]!r}")
        whole = seen.rfind(b"\n") + 1  # a line may come in two pieces
        if _TEXT.search(seen, searched, whole):
            if result.first:
                result.gaps.append(now - result.last)
            else:
                result.first = now
            result.last = now
        searched = max(searched, whole)
        result.ended = now
    usage = json.loads(_last_event(seen, b'"usage":'))["usage"]
    result.prompt_tokens = usage["prompt_tokens"]
    result.tokens = usage["completion_tokens"]
    details = usage.get("prompt_tokens_details") or {}
    result.cached = details.get("cached_tokens") or 0


async def events(
    base_url: str, body: dict[str, object], api_key: str = "", more: Mapping[str, str] = _NOTHING
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed answer, parsed at little cost. Raises on any end but `[DONE]`."""
    url = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(_request(url, body, api_key, more))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"refused: {head[:200]!r} {await reader.read(300)!r}")
        async for line in dechunked(reader):
            if line == b"data: [DONE]":
                return
            if line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise ConnectionError(f"the stream failed: {chunk['error']}")
                yield chunk
        raise ConnectionError("the stream ended early")
    finally:
        writer.close()


async def dechunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a body in chunked coding."""
    rest = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        *lines, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n")
        for line in lines:
            yield line


def _request(
    url: SplitResult, body: dict[str, object], api_key: str = "", more: Mapping[str, str] = _NOTHING
) -> bytes:
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    payload = json.dumps(streamed).encode()
    rest = "".join(f"{name}: {value}\r\n" for name, value in more.items())
    return (
        f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {api_key}\r\n"
        f"{rest}Content-Length: {len(payload)}\r\n\r\n"
    ).encode() + payload


def _last_event(seen: bytes, mark: bytes) -> bytes:
    start = seen.rindex(b"data: ", 0, seen.rindex(mark)) + len(b"data: ")
    return seen[start : seen.index(b"\n", start)]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, as of now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
