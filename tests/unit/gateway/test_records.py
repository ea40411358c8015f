"""What is written of a response in the background says whose it is, all of it."""

import pytest

from gateway.auth import Caller
from gateway.durable.record import RunRecord, unpack_record


def test_a_record_is_read_as_it_was_written():
    """Salts, tenant and name of the key; never the key, and no quota to charge again."""
    caller = Caller(b"salt", b"tenant", "key one", 2.5, group_salt=b"group")
    record = RunRecord("stem", 1700000000, 2**62, caller, b'{"id": 1}\n', b'{"input": "a\\nb"}')
    assert unpack_record(record.pack()) == record


@pytest.mark.parametrize(
    "packed", [b"", b"{}\n", b"[]\n", b'{"version": 9}\n', b'{"version": 1}\n']
)
def test_what_is_no_record_is_refused(packed):
    """Another version, or nothing of ours."""
    with pytest.raises(ValueError, match=r".*"):
        unpack_record(packed)
