"""`penstock serve`, or `gateway`, in a process of its own, as an operator starts it."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = "penstock-tiny"


def clean_environment(**more):
    inherited = os.environ  # noqa: TID251 - what a child process gets
    kept = {k: v for k, v in inherited.items() if not k.startswith("PENSTOCK_")}
    return kept | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | more


class Served:
    """A running `penstock serve`."""

    def __init__(self, process):
        self.process = process
        self.output = ""
        self.url = self._until(r"Serving .* at (\S+) \(ready[^\n]*\nTry: [^\n]*\n")
        self.port = int(re.search(r":(\d+)/", self.url)[1])

    def _until(self, pattern, within_s=60):
        deadline = time.monotonic() + within_s
        while not (match := re.search(pattern, self.output)):
            left = deadline - time.monotonic()
            assert left > 0, f"not seen: {pattern} in {self.output}"
            if select.select([self.process.stdout], [], [], left)[0]:
                some = os.read(self.process.stdout.fileno(), 65536).decode()
                assert some, f"ended: {self.output} {self.process.stderr.read()}"
                self.output += some
        return match[1]

    def stop(self, sign=signal.SIGTERM):
        self.process.send_signal(sign)
        return self.process.wait(30)


@contextmanager
def served(*arguments, command="serve", **environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", command, "--port", "0", *arguments],
        cwd=ROOT,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Served(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


def body(**fields):
    messages = [{"role": "user", "content": "Hi"}]
    return {"model": MODEL, "messages": messages, "max_tokens": 4, **fields}
