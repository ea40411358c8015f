"""The port to where durable calls are written down, and what it may raise.

record   how to make the call again: its body, and what was drawn for it
log      the tokens it has told, in chunks
fence    a number that grows with each owner: who has a lower one can write nothing more
lease    who does not renew it is taken for dead, and another one goes on
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NewType, Protocol

Name = NewType("Name", str)

LIVE_S = 86_400.0  # for which a call is kept that nobody goes on with
ENDED_S = 600.0  # the same, of one that has ended
DELIVERED_S = 60.0  # and was sent to its reader, who may have got less of it

AT_ONCE = 5_000  # chunks of one reading

_GAP = struct.Struct("<I")


class JournalError(Exception):
    """The journal did not do it."""


class JournalAway(JournalError):  # noqa: N818 - what is so, as at every call site
    """It gives no answer now; what is not written down may be later."""


class Fenced(JournalError):  # noqa: N818 - what is so, as at every call site
    """Another owner has the call: whoever meets this tells nothing more of it."""


class Lost(JournalError):  # noqa: N818 - what is so, as at every call site
    """The call, or a part of its log, is not there any more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal has of one call."""

    fence: int
    record: bytes  # empty where the log was not read from its start
    chunks: Sequence[bytes]
    gaps: tuple[int, ...] = ()  # how many tokens it had where somebody went on from the log alone
    ending: bytes = b""  # how it ended; empty while it lives


@dataclass(frozen=True, slots=True)
class Owned:
    """A call, for who owns it."""

    name: Name
    record: bytes
    fence: int = 1
    gaps: tuple[int, ...] = ()


class Journal(Protocol):
    """Everything raises JournalAway where there is no answer."""

    async def begin(self, name: Name, record: bytes, fence: int) -> None:
        """Enter a call with an empty log, or once more what was lost. Raises Fenced."""

    async def append(self, name: Name, fence: int, at: int, chunks: Sequence[bytes]) -> None:
        """Add chunks to a log of `at`; again, it changes nothing. Raises Fenced, Lost."""

    async def read(self, name: Name, at: int = 0, most: int = AT_ONCE) -> Entry | None:
        """What is there, with so many chunks from one on; None where there is nothing."""

    async def claim(self, name: Name, fence: int) -> bool:
        """Become the owner after the one of a fence, with the next one; else somebody has."""

    async def note_gaps(self, name: Name, fence: int, gaps: Sequence[int]) -> None:
        """Note where the log alone was gone on from. Raises Fenced, Lost."""

    async def end(self, name: Name, fence: int, ending: bytes, keep_s: float) -> None:
        """Note how it ended, and keep it for so long. Raises Fenced, Lost."""

    async def forget(self, name: Name) -> None:
        """Take it out, whoever has it."""


class Leases(Protocol):
    """Which calls are alive. Everything raises JournalAway where there is no answer."""

    async def renew(self, names: Sequence[Name]) -> frozenset[Name]:
        """Keep the leases of calls; which of them somebody wants cancelled."""

    async def release(self, names: Sequence[Name]) -> None:
        """Let others have them at once."""

    async def due(self) -> Sequence[Name]:
        """Calls whose lease has ended, some of them."""

    async def done(self, name: Name) -> None:
        """A call has ended, or is nowhere."""

    async def wish(self, name: Name) -> None:
        """Want a call cancelled."""


async def read_whole(journal: Journal, name: Name) -> Entry | None:
    """What the journal has of a call, with all of its log."""
    entry = await journal.read(name)
    if entry is None:
        return None
    chunks = list(entry.chunks)
    while entry.chunks:
        more = await journal.read(name, len(chunks))
        if more is None:
            return None
        chunks += more.chunks
        entry = Entry(more.fence, entry.record, more.chunks, more.gaps, more.ending)
    return Entry(entry.fence, entry.record, chunks, entry.gaps, entry.ending)


def name_of(tenant: bytes, call: str) -> Name:
    """What stands for a call of a tenant: nobody can read either from it."""
    return Name(blake2b(call.encode(), key=tenant[:64], digest_size=20).hexdigest())


def pack_gaps(gaps: Sequence[int]) -> bytes:
    """As the journal keeps them."""
    return b"".join(map(_GAP.pack, gaps))


def unpack_gaps(packed: bytes) -> tuple[int, ...]:
    """Raises ValueError for what pack_gaps did not make."""
    try:
        return tuple(number for (number,) in _GAP.iter_unpack(packed))
    except struct.error as error:
        raise ValueError("no gaps") from error
