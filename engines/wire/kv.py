"""Batches of KV changes to messages and back."""

from engines.kv_changes import NAME_BYTES, KvChange
from engines.kv_log import Batch
from engines.wire.pb import penstock_engine_pb2 as pb


def batch_message(batch: Batch) -> pb.KvBatch:
    """The message of a batch."""
    return pb.KvBatch(
        epoch=batch.epoch,
        sequence=batch.sequence,
        snapshot=batch.snapshot,
        more=batch.more,
        changes=[
            pb.KvChange(
                removed=b"".join(change.removed), stored=b"".join(change.stored), tier=change.tier
            )
            for change in batch.changes
            if change != _NOTHING
        ],
    )


def batch_of(message: pb.KvBatch) -> Batch:
    """The batch of a message. Raises ValueError for what are no names."""
    changes = tuple(
        KvChange(_names(change.removed), _names(change.stored), change.tier)
        for change in message.changes
    )
    return Batch(message.epoch, message.sequence, changes, message.snapshot, message.more)


_NOTHING = KvChange()


def _names(told: bytes) -> tuple[bytes, ...]:
    if len(told) % NAME_BYTES:
        raise ValueError(f"{len(told)} bytes are no names of {NAME_BYTES} bytes each")
    return tuple(told[at : at + NAME_BYTES] for at in range(0, len(told), NAME_BYTES))
