"""What clients talk to: the real server, one whose streams fail, and one that dies in streams."""

import logging
import socket
import socketserver
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from unittest.mock import patch

from engines.errors import EngineDied
from gateway.dispatch import Call
from tests.support.command import MODEL, served
from tests.support.live import live, test_settings

_WRITES = 3  # of a stream, before it fails
_BYTES = 900  # of a stream, before its server is gone: within the first events


@contextmanager
def servers():
    """Environment variables that name the three base URLs, each ending in /v1."""
    with ExitStack() as stack:
        whole = stack.enter_context(served("--log-level", "warning"))
        # Nobody else reads its log, and a full pipe would stop it.
        threading.Thread(target=_show, args=(whole.process.stderr,), daemon=True).start()
        failing = stack.enter_context(_failing())
        dying = stack.enter_context(_dying(failing.port))
        yield {
            "PENSTOCK_URL": whole.url,
            "PENSTOCK_FAILING_URL": failing.url,
            "PENSTOCK_DYING_URL": f"http://127.0.0.1:{dying}/v1",
        }


def _show(log):
    with suppress(ValueError):  # closed with the server
        for line in log:
            sys.stderr.write(line.decode(errors="replace"))


@contextmanager
def _failing():
    """Our own server and its own way to fail, after the first tokens of every stream."""
    frames = Call.frames

    async def failing(call):
        written = 0
        async for some in frames(call):
            yield some
            written += 1
            if written == _WRITES:
                raise EngineDied("the engine died")

    logging.getLogger("penstock").setLevel(logging.CRITICAL)  # its faults are wanted
    settings = replace(test_settings(), served_model_name=(MODEL,))
    with patch.object(Call, "frames", failing), live(settings, step_s=0.02) as server:
        yield server


@contextmanager
def _dying(port):
    """The real bytes of a stream up to the middle of an event, and then nobody: its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection(("127.0.0.1", port)) as upstream:
                threading.Thread(target=_pour, args=(self.request, upstream), daemon=True).start()
                _pour(upstream, self.request, stream_bytes=_BYTES)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _pour(source, sink, *, stream_bytes=None):
    """Pass bytes on; of an event stream only so many, then close."""
    streamed = None
    with suppress(OSError):
        while some := source.recv(65536):
            if stream_bytes and streamed is None and b"text/event-stream" in some:
                streamed = 0
            if streamed is not None:
                some = some[: stream_bytes - streamed]
                streamed += len(some)
            sink.sendall(some)
            if streamed == stream_bytes:
                break
        sink.shutdown(socket.SHUT_RDWR)
