"""`penstock worker` that notes each token its engine tells, in a file that outlives kill -9.

    python -m benchmarks.counted_worker FILE --engine ledger --listen unix:/tmp/w

The words behind FILE are those of `penstock worker`. One line for each request that the engine is
given, `begin NAME TOKENS...` with how much of each choice it is said to have already, and one for
each event, `told NAME CHOICE POSITION TOKENS`. The name is the `user` of the client's body.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import gateway.workers.process
from engines.api import Engine, GenerationRequest, TokenEvent, TokenStream
from engines.wire.kept import kept_of
from gateway.cli import main
from gateway.kept_stream import unpack
from gateway.opening import Loaded, load_engine

_LOADING = load_engine


class CountedStream:
    """A TokenStream whose events are noted before anybody has them."""

    def __init__(self, stream: TokenStream, request: GenerationRequest, name: str, to: int) -> None:
        self._stream = stream
        self._name = name
        self._to = to
        self._lengths = [len(log or ()) for log in request.logs]
        lengths = " ".join("ended" if log is None else str(len(log)) for log in request.logs)
        os.write(to, f"begin {name} {lengths}\n".encode())

    def __aiter__(self) -> "CountedStream":
        return self

    async def __anext__(self) -> TokenEvent:
        event = await anext(self._stream)
        position, count = self._lengths[event.choice], len(event.tokens)
        self._lengths[event.choice] += count
        os.write(self._to, f"told {self._name} {event.choice} {position} {count}\n".encode())
        return event

    def end_choice(self, choice: int) -> None:
        self._stream.end_choice(choice)

    async def aclose(self) -> None:
        await self._stream.aclose()


class CountedEngine:
    """The engine of a worker; all but `generate` is its own."""

    def __init__(self, engine: Engine, to: int) -> None:
        self._engine = engine
        self._to = to

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def generate(self, request: GenerationRequest) -> TokenStream:
        stream = self._engine.generate(request)
        name = name_of(request)
        return CountedStream(stream, request, name, self._to) if name else stream


def name_of(request: GenerationRequest) -> str:
    """Whose stream it is, as its client calls it; empty where it is nobody's, as in a warm-up."""
    if request.kept is None or not request.kept.context:
        return ""
    record = unpack(kept_of(request.kept.context, 0).context)
    return str(json.loads(record.body).get("user", ""))


def run() -> None:
    file = Path(sys.argv.pop(1))
    to = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def load(*given: object) -> Loaded:
        loaded = _LOADING(*given)  # type: ignore[arg-type]
        return replace(loaded, engine=CountedEngine(loaded.engine, to))  # type: ignore[arg-type]

    gateway.workers.process.load_engine = load
    sys.argv.insert(1, "worker")
    main()


if __name__ == "__main__":
    run()
