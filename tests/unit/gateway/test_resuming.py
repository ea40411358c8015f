"""Whoever comes back at once may be quicker than the message that has a worker begin."""

import asyncio
import time

import pytest

from engines.api import Kept
from gateway.kept_stream import CallRecord, Route
from gateway.resuming import find_soon
from openai_compat.errors import NotFound

RECORD = CallRecord(Route.CHAT, 1, 2, b"salt", b"{}")


class LateKeeper:
    """Has heard of a request when it has been asked for it so often."""

    def __init__(self, after):
        self.asked, self._after = 0, after

    async def find(self, request_id):
        self.asked += 1
        known = self.asked > self._after and request_id == "stem"
        return Kept(RECORD.pack()) if known else None

    def attach(self, request, *, watch=False):
        raise AssertionError("nothing is attached here")

    def detach(self, stream):
        raise AssertionError("nothing is attached here")


class AllUp:
    """A gateway of which every worker is there."""

    all_up = True

    def __init__(self, keeper):
        self.engines = {"worker": keeper}

    def serving(self):
        return self

    @property
    def keeper(self):
        return self


def test_a_stream_that_is_on_its_way_is_found():
    """Its worker is asked again."""
    keeper = LateKeeper(after=2)
    found = asyncio.run(find_soon(AllUp(keeper), "stem", Route.CHAT, b"salt"))
    assert (found.stem, found.record) == ("stem", RECORD)


@pytest.mark.parametrize(("stem", "salt"), [("stem", b"other"), ("none", b"salt"), ("", b"salt")])
def test_what_is_not_there_is_soon_said(stem, salt):
    """A stream of another key is none either; an id that is none is not looked for."""
    keeper, began = LateKeeper(after=0), time.monotonic()
    with pytest.raises(NotFound):
        asyncio.run(find_soon(AllUp(keeper), stem, Route.CHAT, salt))
    assert time.monotonic() - began < 2
    assert bool(keeper.asked) is bool(stem)
