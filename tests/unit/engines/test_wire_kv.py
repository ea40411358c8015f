"""KV events as bytes: what one side says the other reads, in this version and from earlier ones."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kv_changes import KvChange
from engines.kv_log import Batch
from engines.wire.events import facts_message, facts_of
from engines.wire.facts import WorkerFacts
from engines.wire.kv import batch_message, batch_of
from engines.wire.pb import penstock_engine_pb2 as pb
from tests.support.engines import limits_for, stepped

RECORDINGS = Path(__file__).parents[2] / "contract" / "wire" / "kv"
NAMES = st.lists(st.binary(min_size=16, max_size=16), max_size=4, unique=True).map(tuple)
CHANGE = st.builds(KvChange, NAMES, NAMES, st.integers(0, 2**32 - 1)).filter(
    lambda change: change != KvChange()
)
WHOLE = st.integers(0, 2**64 - 1)
BATCH = st.builds(
    Batch, WHOLE, WHOLE, st.lists(CHANGE, max_size=3).map(tuple), st.booleans(), st.booleans()
)
A, B, C = (bytes([letter]) * 16 for letter in b"ABC")
RECORDED = {
    "KvEventsRequest": pb.KvEventsRequest(epoch=2**64 - 1, after=300),
    "KvBatch": batch_message(
        Batch(2**64 - 1, 301, (KvChange((A,), (B, C)), KvChange((), (A,), tier=1)))
    ),
    "KvSnapshot": batch_message(Batch(9, 4, (KvChange(stored=(A,)),), snapshot=True, more=True)),
}


@given(BATCH)
def test_a_batch_comes_back_as_it_was(batch):
    """Through its bytes."""
    written = batch_message(batch).SerializeToString()
    assert batch_of(pb.KvBatch.FromString(written)) == batch


@pytest.mark.parametrize("field", ["removed", "stored"])
def test_what_are_no_names_is_refused(field):
    """Names are 16 bytes each, one behind the other."""
    broken = pb.KvBatch(changes=[pb.KvChange(**{field: b"x" * 33})])
    with pytest.raises(ValueError, match="33 bytes are no names"):
        batch_of(broken)


def test_the_facts_of_a_worker_tell_the_namespace():
    """Empty where it tells no events."""
    info = stepped(limits_for()).info
    for space in (b"", b"penstock-kv-1"):
        facts = WorkerFacts(info, limits_for(), "0", 1, kv_namespace=space)
        assert facts_of(facts_message(facts)).kv_namespace == space


@pytest.mark.parametrize("recording", sorted(RECORDINGS.glob("*.json")), ids=lambda path: path.stem)
def test_what_earlier_versions_wrote_means_the_same_today(recording):
    """Bytes that each version wrote, kept for ever: fields are only added."""
    written = {
        name: bytes.fromhex(text) for name, text in json.loads(recording.read_text()).items()
    }
    assert set(written) == set(RECORDED)
    request = pb.KvEventsRequest.FromString(written["KvEventsRequest"])
    assert (request.epoch, request.after) == (2**64 - 1, 300)
    for name in ("KvBatch", "KvSnapshot"):
        message = pb.KvBatch.FromString(written[name])
        assert batch_of(message) == batch_of(RECORDED[name])
