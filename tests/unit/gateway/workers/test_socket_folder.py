"""Folders of sockets: one's own, and those that killed gateways have left."""

import multiprocessing
import stat
import tempfile
from pathlib import Path

import pytest

from gateway.workers.socket_folder import socket_folder


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """What other processes of this machine have there is not touched."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_for_this_user_and_gone_at_the_end():
    """With what is in it."""
    with socket_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "worker-0.1").touch()
    assert not folder.exists()


def _hold(parent, pipe):
    tempfile.tempdir = parent
    with socket_folder() as folder:
        (folder / "worker-0.1").touch()
        pipe.send(str(folder))
        pipe.recv()


def test_what_a_killed_gateway_left_is_removed_by_the_next(own_temporary_folder):
    """And what a living one holds is not."""
    spawn = multiprocessing.get_context("spawn")
    folders = {}
    for name in ("killed", "living"):
        pipe, its_end = spawn.Pipe()
        process = spawn.Process(target=_hold, args=(str(own_temporary_folder), its_end))
        process.start()
        folders[name] = process, Path(pipe.recv()), pipe
    folders["killed"][0].kill()
    folders["killed"][0].join()
    assert folders["killed"][1].exists()
    with socket_folder():
        assert not folders["killed"][1].exists()
        assert (folders["living"][1] / "worker-0.1").exists()
    folders["living"][2].send("end")
    folders["living"][0].join(10)
    assert not folders["living"][1].exists()


def test_a_link_of_that_name_leads_nowhere(own_temporary_folder):
    """Others may write into the folder of temporary files."""
    prey = own_temporary_folder / "prey"
    prey.mkdir()
    (prey / "lock").touch()
    (prey / "kept").touch()
    (own_temporary_folder / "penstock-workers-x").symlink_to(prey)
    with socket_folder():
        assert (prey / "kept").exists()
