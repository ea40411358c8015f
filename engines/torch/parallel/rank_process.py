"""A process that computes one part of a model, step by step, as it is told on its stdin.

    python -m engines.torch.parallel.rank_process

First comes a line of JSON (`part.py`), then plans (`frames.py`). It says one byte on stdout when
its part is loaded. It ends with its stdin: a thread reads, so also while the device computes, or
waits for a process that is gone. It samples nothing and answers nothing.
"""

import logging
import os
import shutil
import signal
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

import torch

from engines.torch.parallel.frames import read_plan
from engines.torch.parallel.opening import open_own, open_share
from engines.torch.parallel.part import Part, meet, part_of

if TYPE_CHECKING:
    from engines.step import StepPlan

_FAILED = 1
_STDOUT, _STDERR = 1, 2


def serve() -> None:
    """Load, meet the others, and step until stdin ends; does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is rank 0's to answer
    ready = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)  # what libraries print is not an answer
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(0)  # ended before it had begun
    part = part_of(line)
    plans: SimpleQueue[StepPlan] = SimpleQueue()
    threading.Thread(
        target=_read, args=(sys.stdin.buffer, plans, part), name="plans", daemon=True
    ).start()
    try:
        decoder = open_own(open_share(part), part)
        os.write(ready, b"+")
        meet(part)
        while True:
            with torch.inference_mode():
                decoder.logits(plans.get())
    except BaseException:
        logging.getLogger(__name__).exception("part %d of the model failed", part.rank)
    finally:
        os._exit(_FAILED)  # no waiting for threads that wait for others


def _read(stream: BinaryIO, plans: "SimpleQueue[StepPlan]", part: Part) -> None:
    """Hand over plans until there are no more, and end the process then, whatever it does."""
    while (plan := read_plan(stream)) is not None:
        plans.put(plan)
    shutil.rmtree(part.folder, ignore_errors=True)  # rank 0 may not have come to it
    os._exit(0)


if __name__ == "__main__":
    serve()
