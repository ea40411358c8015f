"""A real server on a loopback port in a thread, over the ledger engine, and raw HTTP clients."""

import asyncio
import io
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engines.api import Capability, Embeds, EngineInfo
from engines.ledger import VECTOR_SIZE, LedgerRunner
from engines.limits import Limits
from engines.stepped import SteppedEngine
from gateway.bootstrap import Opened
from gateway.console import StartScreen
from gateway.kv_budget import KvBudget, KvNeed
from gateway.lifecycle import Phase
from gateway.listener import listen, url_of
from gateway.model_directory import read_text_side
from gateway.serve import Process
from gateway.settings import Settings

TOKENIZER_DIR = Path(__file__).parents[2] / "engines" / "bundled" / "penstock_tiny"
MODEL = "ledger"


class BreakableRunner(LedgerRunner):
    """A ledger that fails or blocks when the test says so."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.broken = threading.Event()
        self.may_step = threading.Event()
        self.may_step.set()

    def launch(self, plan):
        self.may_step.wait(30)
        if self.broken.is_set():
            raise RuntimeError("the device fell off the bus: secret prompt text")
        return super().launch(plan)


@dataclass
class Live:
    """A running server."""

    url: str  # ends in /v1
    port: int
    process: Process
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    runner: BreakableRunner | None = None
    exit_code: int | None = None

    @property
    def serving(self):
        return self.process.parts.lifecycle.loaded

    def load(self):
        return self.serving.engine.load()

    def quiet(self):
        """Nothing runs, waits or holds a block that is not just cached."""
        load = self.load()
        return (load.running, load.waiting, self.serving.dispatcher.admission.sequences) == (0,) * 3

    def tasks(self):
        async def count():
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)

    def begin_exit(self):
        self.loop.call_soon_threadsafe(self.process.server.begin_exit)


def eventually(condition, within_s=10.0, what="the condition"):
    """Poll until the condition holds; its value."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not hold within {within_s} s"
        time.sleep(0.002)


def test_settings(**overrides):
    """Settings of a small server."""
    small = Settings(max_running=16, block_size=8, max_step_tokens=256, drain_timeout_s=10)
    return replace(small, served_model_name=(MODEL,), **overrides)


test_settings.__test__ = False


def ledger_opener(runners, settings, report, on_death, *, step_s=0.0, blocks=512, context=2048):
    """Open a breakable ledger; the runner is left in `runners`."""
    report("ledger")
    text = read_text_side(TOKENIZER_DIR)
    vocab = text.tokenizer.vocab_size
    first = max((t for t in text.tokenizer.special_tokens if t < vocab // 2), default=-1) + 1
    info = EngineInfo(
        MODEL,
        context,
        vocab,
        settings.block_size,
        blocks,
        settings.max_running,
        frozenset({Capability.SAMPLING}),
        embeds=Embeds(VECTOR_SIZE, normalised=True),
    )
    limits = Limits(
        context, settings.max_running, settings.max_step_tokens, settings.block_size, blocks, vocab
    )
    runner = BreakableRunner(
        blocks, settings.block_size, vocab_size=vocab, first=first, step_s=step_s
    )
    runners.append(runner)
    engine = SteppedEngine(info, limits, runner, on_death=on_death)
    need = KvNeed(8, settings.block_size, settings.max_running, context)
    model = text.served_as(settings.served_model_name, info, frozenset())
    return Opened(engine, model, KvBudget(blocks, context, 8, need))


@contextmanager
def live(settings=None, *, wait=True, opener=None, **ledger):
    """A server for the block; drained at its end."""
    settings = settings or test_settings()
    runners = []
    opener = opener or partial(ledger_opener, runners, **ledger)
    listener = listen("127.0.0.1", 0)
    server = _start(settings, listener, opener)
    try:
        if wait:
            lifecycle = server.process.parts.lifecycle
            eventually(lambda: lifecycle.phase is not Phase.LOADING, 60, "loading")
            server.runner = runners[0] if runners else None
        yield server
    finally:
        if server.thread.is_alive():
            for runner in runners:
                runner.may_step.set()
            server.begin_exit()
        server.thread.join(30)
        assert not server.thread.is_alive(), "the server did not end"


def _start(settings, listener, opener):
    url = url_of(listener, "127.0.0.1")
    process = Process(settings, StartScreen(io.StringIO()), url, opener)
    server = Live(url, listener.getsockname()[1], process, None, None)
    running = threading.Event()

    def run():
        factory = process.server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            server.loop = runner.get_loop()
            running.set()
            server.exit_code = runner.run(process.run(listener))

    server.thread = threading.Thread(target=run, name="live-server")
    server.thread.start()
    running.wait(10)
    eventually(lambda: process.server.started, 10, "listening")
    return server


class Raw:
    """One raw HTTP/1.1 connection."""

    def __init__(self, port, *, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, method, path, body=b"", headers=()):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: test", *headers]
        if body or method == "POST":
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def read(self, at_least=1):
        """So many bytes or more; fewer only at the end of the connection."""
        got = b""
        while len(got) < at_least:
            some = self.socket.recv(65536)
            if not some:
                break
            got += some
        return got

    def read_until(self, mark):
        got = b""
        while mark not in got:
            some = self.socket.recv(65536)
            if not some:
                break
            got += some
        return got

    def read_to_end(self):
        """All bytes, and whether the end was a reset."""
        got = b""
        try:
            while some := self.socket.recv(65536):
                got += some
        except ConnectionResetError:
            return got, True
        return got, False

    def reset(self):
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def chat(text="Hello there", **fields):
    """A chat request body."""
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0, **fields}
