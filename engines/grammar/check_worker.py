"""A process that compiles grammars for `checker.py`, and is killed when one takes too long.

    python -m engines.grammar.check_worker TOKENIZER_JSON VOCAB_SIZE EOS[,EOS] SECONDS MEMORY_BYTES

Frames both ways are a length (4 bytes, big-endian) and UTF-8 text. It says "ready" once, then for
each grammar one line: "+" or "-" and what is wrong, with "." before it when this was the last one:
what llguidance keeps from one grammar to the next is given back by ending. SECONDS are of this
process's own time, so that a busy machine makes no grammar a slow one; over it, SIGPROF ends it.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from llguidance import LLTokenizer

from engines.errors import InvalidRequest
from engines.grammar.compiler import compiled
from engines.grammar.vocabulary import read_vocabulary

LAST = "."
FINE = "+"
WRONG = "-"

_NICENESS = 10
_MOST_CHECKS = 2_000
_MOST_GROWTH_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1


def write_frame(stream: BinaryIO, text: str) -> None:
    """One frame, flushed."""
    raw = text.encode()
    stream.write(len(raw).to_bytes(4, "big") + raw)
    stream.flush()


def _read_frame(stream: BinaryIO) -> str | None:
    head = stream.read(4)
    return stream.read(int.from_bytes(head, "big")).decode() if len(head) == 4 else None


def _serve(vocabulary: LLTokenizer, seconds: float, source: BinaryIO, target: BinaryIO) -> None:
    begun = _resident_bytes()
    write_frame(target, "ready")
    for count in range(1, _MOST_CHECKS + 1):
        grammar = _read_frame(source)
        if grammar is None:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)
        verdict = _verdict(grammar, vocabulary)
        signal.setitimer(signal.ITIMER_PROF, 0)
        spent = count == _MOST_CHECKS or _resident_bytes() - begun > _MOST_GROWTH_BYTES
        write_frame(target, (LAST if spent else "") + verdict)
        if spent:
            return


def _verdict(grammar: str, vocabulary: LLTokenizer) -> str:
    try:
        compiled(grammar, vocabulary)
    except InvalidRequest as error:
        return f"{WRONG}{error}"
    return FINE


def _resident_bytes() -> int:
    """Memory in use now; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    return 0


def _keep_to_itself(memory_bytes: int) -> None:
    """Low priority, bounded memory, and no life beyond the parent's."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
    with contextlib.suppress(AttributeError, OSError):  # elsewhere than on Linux: stdin ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Read the vocabulary, then answer until there is nothing more to read."""
    tokenizer, vocab_size, eos, seconds, memory_bytes = sys.argv[1:]
    _keep_to_itself(int(memory_bytes))
    ends = [int(token) for token in eos.split(",")]
    source = Path(tokenizer).read_text(encoding="utf-8")
    vocabulary = read_vocabulary(source, int(vocab_size), ends)
    _serve(vocabulary, float(seconds), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
