"""Compiles grammars off the engine's thread, once each, and keeps them within a bound of bytes.

    event loop: compile(source) -> future      engine thread: sequence(source) -> its own matcher

A compiled grammar lives while anybody holds it (a request in flight) or the cache does. Compiling
runs at low priority in one thread, with the interpreter lock released, so that a hostile grammar
takes from nobody but others that wait to be compiled.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import WeakValueDictionary

from llguidance import LLMatcher, LLTokenizer

from engines.errors import InvalidRequest
from engines.grammar.bounds import MAX_SOURCE_BYTES, parser_limits, reason

_CACHE_BYTES = 64 << 20
_NICENESS = 10

# What a compiled grammar weighs, by measure: 25 to 165 kB up to 600 characters (schemas are at the
# upper end), then 50 to 150 bytes a character, up to 60,000 of them.
_OWN_BYTES = 130_000
_BYTES_PER_CHARACTER = 100


class Grammar:
    """One compiled grammar. Hold it for as long as sequences of it may start."""

    __slots__ = ("__weakref__", "_prototype", "source")

    def __init__(self, source: str, prototype: LLMatcher) -> None:
        self.source = source
        self._prototype = prototype

    @property
    def weight_bytes(self) -> int:
        """About how much memory it takes: llguidance does not tell."""
        return _OWN_BYTES + _BYTES_PER_CHARACTER * len(self.source)

    def sequence(self) -> LLMatcher:
        """A matcher at the start of the grammar; about a microsecond."""
        return self._prototype.deep_copy()


class GrammarCompiler:
    """The grammars of one vocabulary. From any thread."""

    def __init__(self, vocabulary: LLTokenizer, *, cache_bytes: int = _CACHE_BYTES) -> None:
        self._vocabulary = vocabulary
        self._room = cache_bytes
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[str, Grammar] = WeakValueDictionary()
        self._recent: OrderedDict[str, Grammar] = OrderedDict()
        self._pending: dict[str, Future[Grammar]] = {}
        self._pool = ThreadPoolExecutor(1, "penstock-grammar", initializer=_yield_to_others)

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that a finished grammar allows."""
        return frozenset(self._vocabulary.eos_tokens)

    def compile(self, source: str) -> "Future[Grammar]":
        """The compiled grammar, at once or later; fails with InvalidRequest saying what is wrong.

        Waiting for the same source twice compiles it once.
        """
        with self._lock:
            known = self._held.get(source)
            if known is not None:
                self._keep(known)
                done: Future[Grammar] = Future()
                done.set_result(known)
                return done
            pending = self._pending.get(source)
            if pending is None:
                pending = self._pending[source] = self._pool.submit(self._compiled, source)
            return pending

    def sequence(self, source: str) -> LLMatcher | None:
        """A matcher of its own for a sequence; None if nobody holds the grammar any more."""
        with self._lock:
            known = self._held.get(source)
        return None if known is None else known.sequence()

    def forget(self, source: str) -> None:
        """Compile it afresh next time: what its sequences learned together met a limit."""
        with self._lock:
            self._held.pop(source, None)
            recent = self._recent.pop(source, None)
            if recent is not None:
                self._room += recent.weight_bytes

    def close(self) -> None:
        """Start no more work. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compiled(self, source: str) -> Grammar:
        try:
            grammar = Grammar(source, compiled(source, self._vocabulary))
        finally:
            with self._lock:
                self._pending.pop(source, None)
        with self._lock:
            self._held[source] = grammar
            self._keep(grammar)
        return grammar

    def _keep(self, grammar: Grammar) -> None:
        """Count a grammar as the most recent; the oldest leave until the rest fit."""
        if self._recent.pop(grammar.source, None) is None:
            self._room -= grammar.weight_bytes
        self._recent[grammar.source] = grammar
        while self._room < 0:
            _, oldest = self._recent.popitem(last=False)
            self._room += oldest.weight_bytes


def compiled(source: str, vocabulary: LLTokenizer) -> LLMatcher:
    """Compile one grammar here and now. Raises InvalidRequest for one that cannot be taken."""
    size = len(source.encode())
    if size > MAX_SOURCE_BYTES:
        raise InvalidRequest(
            f"the grammar has {size} bytes; at most {MAX_SOURCE_BYTES} are taken", param="grammar"
        )
    matcher = LLMatcher(vocabulary, source, log_level=0, limits=parser_limits())
    # Some fail only at their first mask, such as a regex that no text matches.
    begun = matcher.deep_copy()
    begun.compute_logit_bias()
    for one in (matcher, begun):
        if one.is_error():
            raise InvalidRequest(
                f"the grammar cannot be used: {reason(one.get_error())}", param="grammar"
            )
    return matcher


def _yield_to_others() -> None:
    """Linux takes a priority for each thread; elsewhere a compile competes as it must."""
    with contextlib.suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
