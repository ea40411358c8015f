"""`penstock worker` over a ledger that fails on SIGUSR1, and hangs on SIGUSR2."""

import signal
import sys

import gateway.workers.process
from gateway.config import read_settings
from gateway.model_directory import read_text_side
from gateway.opened import Sizes
from gateway.opening import Loaded
from tests.support.live import TOKENIZER_DIR, ledger_opener

RUNNERS = []


def load(settings, report, on_death):
    opened = ledger_opener(RUNNERS, settings, report, on_death, step_s=0.002)
    engine = opened.engine
    sizes = Sizes(opened.kv, engine._limits)
    return Loaded(engine, read_text_side(TOKENIZER_DIR), lambda: sizes)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: RUNNERS[0].broken.set())
    signal.signal(signal.SIGUSR2, lambda *_: RUNNERS[0].may_step.clear())
    gateway.workers.process.load_engine = load
    flags = {"listen": sys.argv[1], "step_timeout_s": "1", "served_model_name": ["ledger"]}
    small = {"max_running": "16", "block_size": "8", "max_step_tokens": "256"}
    sys.exit(gateway.workers.process.run(read_settings({**flags, **small}), None, ""))
