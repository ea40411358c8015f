"""Requests that are refused because replicas died of them: remembered by fingerprint, for a while.

Nothing of a prompt is kept: a fingerprint is a hash under a key that this process alone knows. It
covers all that decides what is computed, but not the seed, which a client that tries again may not
repeat; so the same prompt asked for otherwise is another request.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from hashlib import blake2b
from os import urandom

from engines.api import GenerationRequest

_KEPT = 1024
_KEPT_S = 3600.0  # by then a fixed engine may have been deployed


class Quarantine:
    """The fingerprints of condemned requests, bounded in number and in time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = urandom(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, request: GenerationRequest) -> None:
        """Refuse the likes of it from now on."""
        mark = self._fingerprint(request)
        self._until[mark] = self._clock() + _KEPT_S
        self._until.move_to_end(mark)
        if len(self._until) > _KEPT:
            self._until.popitem(last=False)

    def holds(self, request: GenerationRequest) -> bool:
        """Whether it, or one like it, was condemned."""
        if not self._until:
            return False  # as ever: no prompt is hashed for nothing
        return self._until.get(self._fingerprint(request), 0.0) > self._clock()

    def _fingerprint(self, request: GenerationRequest) -> bytes:
        sampling = replace(request.sampling, seed=0)
        values = [_ordered(getattr(sampling, field.name)) for field in fields(sampling)]
        rest = (
            request.n, request.cache_salt, request.pooled, request.second, request.adapter,
            _ordered(request.extras),
        )  # fmt: skip
        parts = repr((request.prompt, values, rest)).encode()
        return blake2b(parts, key=self._key, digest_size=16).digest()


def _ordered(value: object) -> object:
    """A value whose `repr` is the same for equals."""
    if isinstance(value, Mapping):
        return sorted(value.items())
    return sorted(value) if isinstance(value, frozenset) else value
