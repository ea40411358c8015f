"""What a worker keeps for gateways beside a request: their context, and what was told elsewhere.

Both are one string of bytes to the worker. Contexts alone are as they were in versions before.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from engines.api import Kept, TokenEvent
from engines.wire.events import delta_message, event_of
from engines.wire.pb import penstock_engine_pb2 as pb

_MARK = b"\0told"  # no context begins so: it is JSON
_LENGTH_BYTES = 4


def kept_message(kept: Kept) -> pb.Kept:
    """The message of what is to be kept."""
    return pb.Kept(context=_packed(kept.context, kept.told), attempt=kept.attempt)


def kept_of(context: bytes, attempt: int) -> Kept:
    """What was kept, from what a worker tells. Raises ValueError for what nobody has packed."""
    if not context.startswith(_MARK):
        return Kept(context, attempt)
    start = len(_MARK) + _LENGTH_BYTES
    end = start + int.from_bytes(context[len(_MARK) : start])
    try:
        frame = pb.StepFrame.FromString(context[end:])
    except DecodeError:
        raise ValueError("a kept request that cannot be read") from None
    told = tuple(event_of(delta, logprobs=bool(delta.logprobs)) for delta in frame.deltas)
    return Kept(context[start:end], attempt, told)


def _packed(context: bytes, told: Iterable[TokenEvent]) -> bytes:
    deltas = [delta_message(1, 0, event) for event in told]
    if not deltas:
        return context
    length = len(context).to_bytes(_LENGTH_BYTES)
    return _MARK + length + context + pb.StepFrame(deltas=deltas).SerializeToString()
