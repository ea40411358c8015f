"""Says whether a grammar can be taken, by compiling it in a process that can be killed.

llguidance bounds its own work, but a bound that is missed must not cost more than the one request:
here it costs a child process. Callers wait for one another, so at most one core is taken, at low
priority; verdicts are remembered.
"""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from engines.errors import EngineUnavailable, InvalidRequest
from engines.grammar.bounds import MAX_SOURCE_BYTES
from engines.grammar.check_worker import FINE, LAST

_ROOT = Path(__file__).parents[2]  # where `python -m engines...` finds this package
_START_S = 60.0  # a vocabulary of 200,000 tokens is read in about 2 s
_PATIENCE = 5  # how much longer a check may take on a busy machine than in its own time
_ENTRY_BYTES = 200  # of a verdict, beside its text


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """What a check may take. The defaults are far beyond any grammar that is meant well."""

    timeout_s: float = 2.0  # of the child's own time, whatever else the machine does
    memory_bytes: int = 2 << 30  # of address space: several times what is in use
    waiting: int = 64  # checks in line; more are refused
    cache_bytes: int = 1 << 20


class GrammarChecker:
    """Checks the grammars of one vocabulary. Lives on the event loop; the child starts when needed.

    `tokenizer` is a tokenizer.json; `vocab_size` and `eos` are the model's.
    """

    def __init__(
        self,
        tokenizer: Path,
        vocab_size: int,
        eos: Collection[int],
        limits: CheckLimits | None = None,
    ) -> None:
        self._limits = limits or CheckLimits()
        self._command = (
            sys.executable, "-m", "engines.grammar.check_worker", str(tokenizer.resolve()),
            str(vocab_size), ",".join(map(str, sorted(eos))),
            str(self._limits.timeout_s), str(self._limits.memory_bytes),
        )  # fmt: skip
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: Process | None = None
        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()  # None: it is fine
        self._room = self._limits.cache_bytes

    async def check(self, source: str) -> None:
        """Return if the grammar can be taken.

        Raises InvalidRequest saying what is wrong with it (too much work, too, is something wrong),
        and EngineUnavailable when too many others wait to be checked.
        """
        raw = source.encode()
        if len(raw) > MAX_SOURCE_BYTES:
            raise InvalidRequest(
                f"the grammar has {len(raw)} bytes; at most {MAX_SOURCE_BYTES} are taken",
                param="grammar",
            )
        key = blake2b(raw, digest_size=16).digest()
        if key not in self._verdicts:
            await self._in_turn(key, raw)
        verdict = self._verdicts[key]
        self._verdicts.move_to_end(key)
        if verdict is not None:
            raise InvalidRequest(verdict, param="grammar")

    async def close(self) -> None:
        """End the child. Idempotent; a later check would start another."""
        child, self._child = self._child, None
        if child is not None:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def _in_turn(self, key: bytes, raw: bytes) -> None:
        if self._waiting >= self._limits.waiting:
            raise EngineUnavailable(f"{self._waiting} grammars are waiting to be checked")
        self._waiting += 1
        try:
            async with self._turn:
                if key not in self._verdicts:
                    self._remember(key, await self._ask(raw))
        finally:
            self._waiting -= 1

    async def _ask(self, raw: bytes) -> str | None:
        """The child's verdict; whatever goes wrong on the way, the child is not used again."""
        fresh = self._child is None
        child = await self._started()
        slow = f"the grammar takes longer than {self._limits.timeout_s:g} s to compile"
        try:
            async with asyncio.timeout(self._limits.timeout_s * _PATIENCE):
                answer = await _exchange(child, raw)
        except TimeoutError:
            await self.close()
            return slow
        except (OSError, asyncio.IncompleteReadError):
            self._child = None
            if await child.wait() == -signal.SIGPROF:
                return slow
            if not fresh:  # it may have died before, of something else
                return await self._ask(raw)
            return "the grammar takes more memory to compile than is given to one"
        except BaseException:  # cancelled: the answer to come would be taken for another's
            await self.close()
            raise
        if answer.startswith(LAST):
            await self.close()
            answer = answer.removeprefix(LAST)
        return None if answer == FINE else answer[1:]

    async def _started(self) -> Process:
        if self._child is not None and self._child.returncode is not None:
            await self.close()
        if self._child is None:
            self._child = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=_ROOT,
                env={"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
            try:
                async with asyncio.timeout(_START_S):
                    await _answer(self._child)
            except BaseException as error:
                await self.close()
                if isinstance(error, TimeoutError | OSError | asyncio.IncompleteReadError):
                    raise EngineUnavailable("grammars cannot be checked at present") from error
                raise
        return self._child

    def _remember(self, key: bytes, verdict: str | None) -> None:
        """Keep a verdict; the oldest leave until the rest fit, but this one stays."""
        self._verdicts[key] = verdict
        self._room -= _weight(verdict)
        while self._room < 0 and len(self._verdicts) > 1:
            _, oldest = self._verdicts.popitem(last=False)
            self._room += _weight(oldest)


def _weight(verdict: str | None) -> int:
    return _ENTRY_BYTES + len((verdict or "").encode())


async def _exchange(child: Process, raw: bytes) -> str:
    if child.stdin is None:
        raise OSError("no way to the child")
    child.stdin.write(len(raw).to_bytes(4, "big") + raw)
    await child.stdin.drain()
    return await _answer(child)


async def _answer(child: Process) -> str:
    if child.stdout is None:
        raise OSError("no way from the child")
    size = int.from_bytes(await child.stdout.readexactly(4), "big")
    return (await child.stdout.readexactly(size)).decode()
