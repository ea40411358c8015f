"""Folders of block files: what a crash, a stranger or a bad disk leaves there is never believed."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.tiers.block_file import Corrupt
from engines.tiers.folder import BlockFolder, file_bytes
from engines.tiers.places import UnsafeFolder, remove_abandoned, take_place

ROOT = Path(__file__).parents[4]
PRINT, OTHER = b"f" * 16, b"g" * 16
BYTES = 64
NAMES = [bytes([number]) * 16 for number in range(1, 9)]


def content(number=0):
    return np.arange(number, number + BYTES, dtype=np.uint8)


def opened(root, fingerprint=PRINT, block_bytes=BYTES):
    return BlockFolder(take_place(root, fingerprint), fingerprint, block_bytes)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "kv"


@pytest.fixture
def folder(root):
    made = opened(root)
    yield made
    made.close()


def where(root, name, fingerprint=PRINT):
    return root / fingerprint.hex() / "0" / f"{name.hex()}.kv"


def test_a_block_reads_back(folder):
    """Bytes come back as they were, in memory of their own that may be written."""
    folder.write(NAMES[0], content(3))
    read = folder.read(NAMES[0])
    assert read.tolist() == content(3).tolist()
    assert read.flags.writeable


def test_only_the_owner_may_look(root, folder):
    """0700 for folders and 0600 for files, whatever the umask."""
    folder.write(NAMES[0], content())
    folder.write_order((NAMES[0],))
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [root, *root.rglob("*")]}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())
    assert len(modes) == 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, file_bytes(BYTES) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_found(root, folder, place, flip):
    """Header, digest or content: nothing that differs from what was written is read."""
    folder.write(NAMES[0], content())
    file = where(root, NAMES[0])
    data = bytearray(file.read_bytes())
    data[place] ^= flip
    file.write_bytes(data)
    with pytest.raises(Corrupt):
        folder.read(NAMES[0])


@pytest.mark.parametrize("size", [0, 1, 79, 80, file_bytes(BYTES) - 1, file_bytes(BYTES) + 1])
def test_another_size_is_found(root, folder, size):
    """A file that is torn, empty or longer is corrupt when read, and removed at the next start."""
    folder.write(NAMES[0], content())
    os.truncate(where(root, NAMES[0]), size)
    with pytest.raises(Corrupt):
        folder.read(NAMES[0])
    assert folder.list_blocks(10) == []
    assert not where(root, NAMES[0]).exists()


def test_a_renamed_file_is_found(root, folder):
    """A block under another block's name is not that block."""
    folder.write(NAMES[0], content())
    where(root, NAMES[0]).rename(where(root, NAMES[1]))
    with pytest.raises(Corrupt):
        folder.read(NAMES[1])


def test_a_file_of_other_weights_is_found(root, folder):
    """Even when somebody moves it into the folder of these."""
    other = opened(root, OTHER)
    other.write(NAMES[0], content())
    where(root, NAMES[0], OTHER).rename(where(root, NAMES[0]))
    with pytest.raises(Corrupt, match="another model"):
        folder.read(NAMES[0])
    other.close()


def test_a_symlink_is_not_followed(root, folder, tmp_path):
    """Neither to read nor to write: what it points to stays as it is."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(file_bytes(BYTES)))
    where(root, NAMES[0]).symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        folder.read(NAMES[0])
    where(root, NAMES[1]).with_suffix(".tmp").symlink_to(secret)
    folder.write(NAMES[1], content())
    assert folder.list_blocks(10) == [NAMES[1]]
    assert secret.read_bytes() == bytes(file_bytes(BYTES))


def test_a_pipe_does_not_hold_us_up(root, folder):
    """A name that is no regular file is corrupt at once, whoever is at its other end."""
    os.mkfifo(where(root, NAMES[0]))
    with pytest.raises(Corrupt):
        folder.read(NAMES[0])


def test_what_a_killed_process_leaves_is_removed(root, folder):
    """Temporary files go; files that are not ours stay."""
    half = where(root, NAMES[0]).with_suffix(".tmp")
    half.write_bytes(b"half")
    mine = half.parent / "notes.txt"
    mine.write_text("not yours")
    assert folder.list_blocks(10) == []
    assert not half.exists()
    assert mine.read_text() == "not yours"


KILLED = """
import os, signal, sys
from pathlib import Path
from engines.tiers import folder
import importlib.util

spec = importlib.util.spec_from_file_location("folder_tests", sys.argv[3])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
NAMES, content, opened = tests.NAMES, tests.content, tests.opened

def half(fd, left):
    os.write(fd, left[: len(left) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

made = opened(Path(sys.argv[1]))
made.write(NAMES[0], content())
made.write_order((NAMES[0],))
folder._write_all = half
if sys.argv[2] == "manifest":
    made.write_order((NAMES[0], NAMES[1]))
made.write(NAMES[1], content())
"""


@pytest.mark.parametrize("what", ["block", "manifest"])
def test_a_process_that_is_killed_while_it_writes_loses_that_and_no_more(root, what):
    """What it wrote before is there, its lock is free, and half a file is gone."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, root, what, __file__], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len([*root.rglob("*.tmp")]) == 1
    folder = opened(root)
    assert folder.list_blocks(10) == [NAMES[0]]
    assert folder.read(NAMES[0]).tolist() == content().tolist()
    assert not [*root.rglob("*.tmp")]
    assert not (root / PRINT.hex() / "1").exists()
    folder.close()


def test_the_manifest_gives_the_order(folder):
    """Those in it first, in its order; those written since behind them."""
    for name in NAMES[:4]:
        folder.write(name, content())
    folder.write_order((NAMES[2], NAMES[0], NAMES[7]))
    assert folder.list_blocks(10)[:2] == [NAMES[2], NAMES[0]]
    assert set(folder.list_blocks(10)[2:]) == {NAMES[1], NAMES[3]}


@pytest.mark.parametrize("manifest", [b"", b"torn", b"\xff" * 10_000, None])
def test_without_a_manifest_all_is_found(root, folder, manifest):
    """A torn or foreign one costs the order, and nothing else."""
    for name in NAMES[:3]:
        folder.write(name, content())
    path = root / PRINT.hex() / "0" / "manifest"
    if manifest is None:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(manifest)
    assert set(folder.list_blocks(10)) == set(NAMES[:3])


def test_a_smaller_budget_removes_what_may_go(folder):
    """At the start no more stays than there is room for now."""
    for name in NAMES:
        folder.write(name, content())
    folder.write_order(tuple(NAMES))
    assert folder.list_blocks(3) == NAMES[5:]
    assert folder.list_blocks(10) == NAMES[5:]


def test_each_worker_has_a_folder(root, folder):
    """A second one takes the next, and the first is free again when its worker ends."""
    second = opened(root)
    second.write(NAMES[0], content())
    assert (root / PRINT.hex() / "1" / f"{NAMES[0].hex()}.kv").exists()
    assert folder.list_blocks(10) == []
    second.close()
    third = opened(root)
    assert third.list_blocks(10) == [NAMES[0]]
    third.close()


def test_a_folder_that_is_open_to_others_is_refused(root):
    """Before anything is written there, and with what to do about it."""
    root.mkdir()
    root.chmod(0o750)
    with pytest.raises(UnsafeFolder, match="chmod 700"):
        take_place(root, PRINT)
    assert not list(root.iterdir())


@pytest.mark.parametrize("inner", ["", PRINT.hex(), f"{PRINT.hex()}/0"])
def test_a_folder_behind_a_symlink_is_refused(root, tmp_path, inner):
    """At any depth that is ours."""
    place = root / inner
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for parent in [*place.parents][: len(place.relative_to(tmp_path).parts) - 1]:
        parent.chmod(0o700)
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    place.symlink_to(target)
    with pytest.raises(UnsafeFolder, match="symlink"):
        take_place(root, PRINT)
    assert not list(target.iterdir())


def test_a_folder_that_cannot_be_made_is_an_os_error(root):
    """The engine then runs without a disk."""
    root.write_text("a file")
    for place in (root, root / "below"):
        with pytest.raises(OSError, match=r"exists|directory"):
            take_place(place, PRINT)


def test_what_nobody_holds_goes_first(root, folder):
    """Of other models no more stays than fits the budget; what a worker holds is not touched."""
    folder.write(NAMES[0], content())
    for fingerprint in (OTHER, b"h" * 16):
        other = opened(root, fingerprint)
        other.write(NAMES[1], content())
        other.close()
    assert remove_abandoned(root, 10_000) == 0
    assert remove_abandoned(root, file_bytes(BYTES)) == file_bytes(BYTES)
    assert remove_abandoned(root, 0) == file_bytes(BYTES)
    assert folder.list_blocks(10) == [NAMES[0]]
