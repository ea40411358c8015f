"""Frames with more in them, for clients who ask: padding against traffic analysis, usage so far.

Both are added to frames that are already made, so that nobody else pays for them.
"""

import hashlib
from collections.abc import Callable
from functools import partial

from engines.api import TokenEvent
from openai_compat.errors import ErrorReply
from openai_compat.job import Rendered, Renderer, Usage
from openai_compat.options import Options
from openai_compat.sse import json_bytes

PADDED_TO = 64
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_NO_USAGE = b',"usage":null'
_END = b"}\n\n"

Amend = Callable[[bytes], bytes]  # one event to one event
UsageObject = Callable[[Usage], dict[str, object]]


def amended(inner: Renderer, options: Options, seed: int, usage_object: UsageObject) -> Renderer:
    """The renderer with what `options` adds to its frames, if anything.

    `seed` makes the padding, through a hash that tells nothing of it.
    """
    plain = inner
    if options.stream and options.running_usage:
        told = partial(_with_usage, lambda: json_bytes(usage_object(plain.usage)))
        inner = AmendedRenderer(inner, told)
    if options.stream and options.obfuscation:  # last: what came after would tell the length
        inner = AmendedRenderer(inner, Padding(seed).add)
    return inner


class AmendedRenderer:
    """Implements `job.Renderer`: the frames of choices are amended, those after them are not."""

    __slots__ = ("_amend", "_inner")

    def __init__(self, inner: Renderer, amend: Amend) -> None:
        self._inner = inner
        self._amend = amend

    def begin(self) -> bytes:
        return self._each(self._inner.begin())

    def feed(self, request: int, event: TokenEvent) -> Rendered:
        rendered = self._inner.feed(request, event)
        return rendered._replace(frames=self._each(rendered.frames))

    def finish(self) -> bytes:
        return self._inner.finish()

    def fail(self, error: ErrorReply) -> bytes:
        return self._inner.fail(error)

    def fold(self) -> bytes:
        return self._inner.fold()

    @property
    def usage(self) -> Usage:
        return self._inner.usage

    def _each(self, frames: bytes) -> bytes:
        # JSON holds no raw line break, so an empty line is always the end of an event.
        events = frames.split(b"\n\n")[:-1]
        return b"".join([self._amend(event + b"\n\n") for event in events])


class Padding:
    """Letters nobody can foretell, so many that all events but the longest are of a few sizes."""

    __slots__ = ("_count", "_key")

    def __init__(self, seed: int) -> None:
        self._key = seed.to_bytes(8, signed=True)
        self._count = 0

    def add(self, frame: bytes) -> bytes:
        """The event with an `obfuscation` member, PADDED_TO bytes or a multiple of them long."""
        bare = len(frame) + len(b',"obfuscation":""')
        letters = self._letters(-bare % PADDED_TO)
        return _with_member(frame, b',"obfuscation":"' + letters + b'"')

    def _letters(self, count: int) -> bytes:
        self._count += 1
        seen = self._count.to_bytes(8)
        digest = hashlib.blake2b(seen, key=self._key, digest_size=PADDED_TO).digest()
        return bytes([_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:count]])


def _with_usage(usage: Callable[[], bytes], frame: bytes) -> bytes:
    """The event with the usage in the place of its `usage: null`, or at its end."""
    whole = frame.removesuffix(_END).removesuffix(_NO_USAGE) + _END
    return _with_member(whole, b',"usage":' + usage())


def _with_member(frame: bytes, member: bytes) -> bytes:
    return frame.removesuffix(_END) + member + _END
