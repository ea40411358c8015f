"""Pages of a mapped file are let go of, and come back with what they held."""

import mmap
import sys
from pathlib import Path

import pytest

from engines.openvino.mapped import let_go

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux tells")

SIZE = 64 << 20


def resident():
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (told,) = [line for line in lines if line.startswith("RssFile")]
    return int(told.split()[1]) << 10


def test_pages_that_were_read_are_given_back_and_read_again(tmp_path):
    """Of this file alone; another's stay."""
    contents = [bytes([n]) * SIZE for n in (7, 9)]
    files = [tmp_path / name for name in ("one model.bin", "other model.bin")]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    with files[0].open("rb") as one, files[1].open("rb") as other:
        mapped = [mmap.mmap(each.fileno(), 0, prot=mmap.PROT_READ) for each in (one, other)]
        assert [each[:] for each in mapped] == contents
        before = resident()
        let_go(files[0])
        assert 0.9 * SIZE < before - resident() < 1.1 * SIZE
        assert [each[:] for each in mapped] == contents
        for each in mapped:
            each.close()


def test_a_file_that_is_not_mapped_is_nothing():
    """No more is a path that there is not."""
    let_go(Path("/none/model.bin"))
