"""A worker and a gateway where nothing but /tmp can be written, as in their containers."""

import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest

from tests.support.command import ROOT, body, clean_environment

TOKEN = "a-token-of-this-test"
# In a mount namespace of its own: a /tmp of its own, then no writing anywhere else.
CONFINED = (
    "mount -t tmpfs -o size=64m tmpfs /tmp && mount -o remount,bind,ro / &&"
    ' ! touch "$0" 2>/dev/null && exec "$@"'
)


def confined(*command):
    return ["unshare", "--mount", "sh", "-c", CONFINED, str(ROOT / "written"), *command]


def why_not():
    """Why this machine cannot confine a process, or None."""
    if shutil.which("unshare") is None:
        return "no unshare here"
    if ROOT.is_relative_to("/tmp"):
        return "the checkout lies in /tmp, which is another one there"
    done = subprocess.run(confined("true"), capture_output=True, text=True, check=False, timeout=20)
    return f"no mount namespaces here: {done.stderr.strip()}" if done.returncode else None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@contextmanager
def running(*arguments, shows, **environment):
    """A confined `penstock ...`; yields what its output shows."""
    process = subprocess.Popen(
        confined(sys.executable, "-m", "gateway", *arguments),
        cwd=ROOT,
        env=clean_environment(
            HOME="/tmp", PYTHONDONTWRITEBYTECODE="1", PENSTOCK_WORKER_TOKEN=TOKEN, **environment
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if found := re.search(shows, line):
                yield found[1]
                break
        else:
            raise AssertionError("".join(seen))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_both_serve_without_writing_anywhere_else():
    """An engine with a model, and a grammar, which is compiled in a process of its own."""
    with (
        running("worker", "--listen", "127.0.0.1:0", shows=r"Worker at (\S+)") as address,
        running(
            "gateway", "--port", "0", "--worker", address, shows=r"Serving .* at (http\S+) "
        ) as url,
    ):
        answer = httpx2.post(
            f"{url}/chat/completions",
            json=body(max_tokens=8, response_format={"type": "json_object"}),
            timeout=60,
        )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"].startswith("{")
