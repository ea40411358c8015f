"""Fingerprints: what was computed by other weights is never taken for these."""

import os

import pytest

from engines.tiers import fingerprint as fingerprints
from engines.tiers.fingerprint import fingerprint, weights_digest


def test_parts_do_not_run_together():
    """No two lists of parts look alike."""
    assert fingerprint("ab", "c") != fingerprint("a", "bc") != fingerprint("abc")
    assert len(fingerprint("ab", "c")) == 16


@pytest.mark.parametrize("place", [0, 99_999, 100_000, 250_000])
def test_one_changed_byte_of_weights_changes_it(tmp_path, monkeypatch, place):
    """With the same size and the same times, wherever it is."""
    monkeypatch.setattr(fingerprints, "_PART", 100_000)
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(250_001))
    times = file.stat()
    before = weights_digest([file])
    data = bytearray(250_001)
    data[place] = 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights_digest([file]) != before
    file.write_bytes(bytes(250_001))
    assert weights_digest([file]) == before


def test_weights_are_told_apart_by_name_and_length(tmp_path):
    """Shards that have changed places are other weights, and so is one that is shorter."""
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    one.write_bytes(b"a")
    two.write_bytes(b"b")
    before = weights_digest([one, two])
    one.write_bytes(b"b")
    two.write_bytes(b"a")
    assert weights_digest([one, two]) != before
    two.write_bytes(b"")
    assert len({before, weights_digest([one, two]), weights_digest([one])}) == 3
