"""Log lines on their way out: written by a thread of their own, so that nobody waits for a reader.

What a log goes to may be a pipe that nobody empties, or a disk that hangs. Lines wait for it in a
bounded queue; what finds no room there is dropped, counted, and told of when there is room again.
"""

import logging
import queue
import threading
import time
from typing import IO

_MOST_LINES = 10_000
_FLUSH_S = 1.0
_WARNING = logging.getLevelName(logging.WARNING)


class LogWriter(logging.Handler):
    """Writes lines to a stream without ever blocking who logs them."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_MOST_LINES)
        self._told = 0  # of the dropped ones
        self.dropped = 0
        threading.Thread(target=self._write, name="log writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - as every handler: a line is never worth a call
            self.handleError(record)
        else:
            if self._told < self.dropped:
                self._tell()

    def flush(self) -> None:
        """Wait until all is written, for a second at most."""
        deadline = time.monotonic() + _FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _tell(self) -> None:
        missing, self._told = self.dropped - self._told, self.dropped
        told = {
            "name": "penstock.logs", "levelno": logging.WARNING, "levelname": _WARNING,
            "msg": "log lines were dropped: nobody took them", "facts": {"lines": missing},
        }  # fmt: skip
        self.handle(logging.makeLogRecord(told))

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # its reader is gone: that must not disturb anybody
                self.dropped += 1
            finally:
                self._lines.task_done()
