"""Shares of GPUs by value."""

import pytest

from gateway.workers.devices import share_of, visible_gpus


@pytest.mark.parametrize(
    ("gpus", "replicas", "shares"),
    [
        ([], 2, [None, None]),
        (["0"], 1, [None]),
        (["0", "1", "2", "3"], 1, [None]),
        (["0", "1"], 2, ["0", "1"]),
        (["4", "5", "6", "7"], 2, ["4,5", "6,7"]),
        (["0", "1", "2"], 2, ["0", "1"]),
        (["0", "1"], 3, ["0", "1", "0"]),
        (["GPU-8f", "MIG-1"], 2, ["GPU-8f", "MIG-1"]),
    ],
)
def test_every_replica_has_its_own_where_there_are_enough(gpus, replicas, shares):
    """And none is told anything where there is nothing to share out."""
    told = [share_of(gpus, number, replicas) for number in range(replicas)]
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in told] == shares


@pytest.mark.parametrize(
    ("environ", "gpus"),
    [
        ({}, ["0", "2", "10"]),
        ({"CUDA_VISIBLE_DEVICES": "3, 1"}, ["3", "1"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
    ],
)
def test_what_an_operator_allows_goes_before_what_is_there(environ, gpus, tmp_path):
    """Device files that are no GPU do not count."""
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvme0"):
        (tmp_path / name).touch()
    assert visible_gpus(environ, tmp_path) == gpus
