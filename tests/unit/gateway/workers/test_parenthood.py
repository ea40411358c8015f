"""A child that ends with its parent: the portable way, by the end of its stdin."""

import subprocess
import sys

CHILD = "import time; from gateway.workers.parenthood import die_with_parent; die_with_parent(); print(1, flush=True); time.sleep(60)"  # noqa: E501


def test_the_end_of_stdin_is_the_end():
    """Whatever else the process does."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        child.stdout.readline()
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(5) == 0
