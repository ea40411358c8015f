"""An OpenAI-compatible server that says what a test wants it to, byte by byte."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress

from engines.upstream.config import Kind, UpstreamConfig
from engines.upstream.engine import UpstreamEngine

VOCAB = 100
CONTEXT = 64
ENDS = frozenset({2})
DONE = b"data: [DONE]\n\n"
STREAM = "content-type: text/event-stream"


def event(**members):
    """One event around a JSON object."""
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def chunk(*tokens, finish=None, **more):
    """One event of the first choice."""
    told = {"index": 0, "text": "", "token_ids": list(tokens), "finish_reason": finish, **more}
    return event(choices=[told])


def answer(*tokens, finish="length"):
    """A whole answer, an event for each token."""
    *first, last = tokens
    return b"".join([*(chunk(token) for token in first), chunk(last, finish=finish), DONE])


class ScriptedUpstream:
    """Answers the probe, then each completion as `says` tells: its head and its pieces."""

    def __init__(self):
        self.models = {"data": [{"id": "m", "max_model_len": CONTEXT}]}
        self.probe = answer(5)
        self.status = "200 OK"
        self.headers = [STREAM]
        self.says = []  # of the next answers: bytes, or a list of bytes and of awaitables
        self.chunked = True
        self.heard = []  # path, headers, body
        self.gone = asyncio.Event()  # a client closed while its answer was being made
        self._tasks = set()

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"

    async def stop(self):
        self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.wait_closed()

    @property
    def bodies(self):
        """What was asked, the probe first."""
        return [json.loads(body) for path, _, body in self.heard if path == "/v1/completions"]

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            await self._answer(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *headers = head.strip().split("\r\n")
        sizes = [h.split(":")[1] for h in headers if h.lower().startswith("content-length")]
        body = await reader.readexactly(int(sizes[0])) if sizes else b""
        path = line.split()[1]
        self.heard.append((path, headers, body))
        if path == "/v1/completions":
            await self._complete(reader, writer)
        else:
            await self._send(writer, "200 OK", ["content-type: application/json"], self.models)

    async def _complete(self, reader, writer):
        if len(self.bodies) == 1:
            await self._send(writer, "200 OK", [STREAM], self.probe)
            return
        watch = asyncio.create_task(self._watch(reader))
        self._tasks.add(watch)
        await self._send(writer, self.status, self.headers, self.says.pop(0), chunked=self.chunked)
        watch.cancel()

    async def _watch(self, reader):
        with suppress(ConnectionError):
            await reader.read()
        self.gone.set()

    async def _send(self, writer, status, headers, said, *, chunked=False):
        if isinstance(said, dict):
            said = json.dumps(said).encode()
        framing = ["transfer-encoding: chunked"] if chunked else []
        lines = [f"HTTP/1.1 {status}", "connection: close", *headers, *framing, "", ""]
        writer.write("\r\n".join(lines).encode())
        for piece in [said] if isinstance(said, bytes) else said:
            if not isinstance(piece, bytes):
                await piece
            elif piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
                if piece.endswith(DONE) and chunked:
                    writer.write(b"0\r\n\r\n")


def upstream_config(url, **changes):
    """An upstream of a hundred tokens."""
    return UpstreamConfig(
        **{"base_url": url, "kind": Kind.VLLM, "vocab_size": VOCAB, "ends": ENDS, **changes}
    )


@asynccontextmanager
async def scripted(*says, **changes):
    """A started engine before such a server, which will say `says`."""
    upstream = ScriptedUpstream()
    await upstream.start()
    engine = UpstreamEngine(upstream_config(upstream.url, **changes))
    try:
        await engine.start()
        upstream.says += says
        yield engine, upstream
    finally:
        await engine.stop(0)
        await upstream.stop()
