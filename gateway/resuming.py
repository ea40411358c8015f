"""Going on with a stream whose gateway, or connection, is gone: find it, lower it again, attach.

Every worker that is up is asked; nobody keeps a list of who has what. A stream of another key is
not there, as one whose time is over.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.api import Found, GenerationRequest, RequestId
from engines.errors import EngineUnavailable
from engines.replicas import MigratingStream, ReplicaSet, WatchingStream, find
from gateway.kept_stream import CallRecord, Route, names, unpack
from openai_compat.errors import NotFound

if TYPE_CHECKING:
    from gateway.lifecycle import Lifecycle

_FIRST_WORD_S = 0.25  # for a worker to say that somebody else has it
_WORKERS_COME_S = 2.0  # those that are not there now may have a stream that is asked for
_SENT_S = 0.3  # a request may be on its way to one that is there
_LOOK_S = 0.1


class Resumable:
    """A kept call that was found."""

    def __init__(self, stem: str, record: CallRecord, found: Mapping[RequestId, Found]) -> None:
        self.stem = stem
        self.record = record
        self._found = found

    async def attach(
        self, engine: ReplicaSet, requests: tuple[GenerationRequest, ...], *, watch: bool
    ) -> list[MigratingStream | WatchingStream]:
        """The streams of its requests from their first tokens. Raises EngineError.

        `watch`: beside whoever reads them already.
        """
        found = dict(self._found)
        for request in requests:
            if request.id not in found:
                found[request.id] = await _known(engine, request.id)
        streams: list[MigratingStream | WatchingStream] = []
        join = _watch if watch else ReplicaSet.attach
        try:
            streams.extend(join(engine, request, found[request.id]) for request in requests)
            await asyncio.gather(*(stream.begin(_FIRST_WORD_S) for stream in streams))
        except BaseException:
            for stream in streams:
                stream.detach()  # somebody else may have the others, or come for these
            raise
        return streams


async def find_call(engine: ReplicaSet, stem: str, route: Route, salt: bytes) -> Resumable:
    """The kept call of an id, if it is of this route and salt. Raises NotFound."""
    if not stem:
        raise not_found()
    told = await asyncio.gather(*(find(engine.engines, name) for name in names(stem)))
    for name, found in zip(names(stem), told, strict=True):
        if found is None:
            continue
        try:
            record = unpack(found.kept.context)
        except ValueError:
            break
        if (record.salt, record.route) == (salt, route):
            return Resumable(stem, record, {name: found})
    raise not_found()


async def find_soon(lifecycle: "Lifecycle", stem: str, route: Route, salt: bytes) -> Resumable:
    """The same, also where its worker is just on its way. Raises EngineUnavailable, too.

    A gateway that has begun a moment ago, or whose worker is slow to say, does not know yet; and
    who comes back at once may be quicker than the message that has a worker begin the stream.
    """
    began = time.monotonic()
    while True:
        keeper, passed = lifecycle.serving().keeper, time.monotonic() - began
        late = passed > _WORKERS_COME_S
        if keeper is None:
            raise not_found()
        try:
            return await find_call(keeper, stem, route, salt)
        except NotFound:
            if late or not stem or (lifecycle.all_up and passed > _SENT_S):
                raise
        except EngineUnavailable:
            if late:
                raise
        await asyncio.sleep(_LOOK_S)


def not_found() -> NotFound:
    """What a client is told that asks for a stream which is not there, for it."""
    message = "There is no such stream, or its time is over: it is kept for a minute after its end."
    return NotFound(message, code="stream_not_found")


def _watch(engine: ReplicaSet, request: GenerationRequest, found: Found) -> WatchingStream:
    patience = engine.patience
    stream = WatchingStream(
        request, engine, engine.info.vocab_size, within_s=patience.wait_s, clock=patience.clock
    )
    stream.attach(found)
    return stream


async def _known(engine: ReplicaSet, name: RequestId) -> Found:
    found = await find(engine.engines, name)
    if found is None:
        raise not_found()
    return found
