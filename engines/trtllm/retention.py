"""The extra `trtllm.retention`: how long the blocks of a request are worth keeping. Pure.

{"token_range_retention_configs": [{"token_start": 0, "token_end": 512, "priority": 90}],
 "decode_retention_priority": 10, "decode_duration_ms": 60000}

The names are TensorRT-LLM's. What it has besides, a transfer mode and a directory, is not taken: no
request names a path.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from engines.trtllm.members import Members

RETENTION = "trtllm.retention"

_RANGES = "token_range_retention_configs"
_MAX_RANGES = 64
_MAX_PRIORITY = 100
_MAX_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TokenRange:
    """The arguments of a TokenRangeRetentionConfig."""

    token_start: int
    token_end: int | None  # None: to the end of the prompt
    priority: int  # 0 to 100; 35 is what all others have
    duration_ms: timedelta | None  # after which it is as all others


@dataclass(frozen=True, slots=True)
class Retention:
    """The arguments of a KvCacheRetentionConfig; None: its own default."""

    ranges: tuple[TokenRange, ...]
    decode_retention_priority: int | None
    decode_duration_ms: timedelta | None


def read_retention(source: str) -> Retention:
    """Raises InvalidRequest naming the member at fault."""
    members = Members.of(source, RETENTION)
    ranges = tuple(_range(each) for each in members.objects(_RANGES, _MAX_RANGES))
    if not _in_order(ranges):
        raise members.wrong(_RANGES, "ranges in order, which do not overlap and are not empty")
    priority = members.integer("decode_retention_priority", _MAX_PRIORITY)
    retention = Retention(ranges, priority, _duration(members, "decode_duration_ms"))
    members.end()
    return retention


def _range(members: Members) -> TokenRange:
    found = TokenRange(
        members.needed("token_start", _MAX_INT),
        members.integer("token_end", _MAX_INT),
        members.needed("priority", _MAX_PRIORITY),
        _duration(members, "duration_ms"),
    )
    members.end()
    return found


def _duration(members: Members, name: str) -> timedelta | None:
    told = members.integer(name, _MAX_INT, low=1)
    return None if told is None else timedelta(milliseconds=told)


def _in_order(ranges: Sequence[TokenRange]) -> bool:
    """As TensorRT-LLM wants them; nothing can follow one without an end."""
    before: float = 0
    for each in ranges:
        if each.token_start < before:
            return False
        before = math.inf if each.token_end is None else each.token_end
        if before <= each.token_start:
            return False
    return True
