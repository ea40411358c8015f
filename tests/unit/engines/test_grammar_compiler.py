"""Grammars compile off the caller's thread, once each, and are kept within a bound of bytes."""

import gc
import os
import threading
import time

import numpy as np
import pytest
from tokenizers import AddedToken

from engines.bundled import penstock_tiny
from engines.errors import InvalidRequest
from engines.grammar.compiler import GrammarCompiler
from engines.grammar.vocabulary import read_vocabulary
from tests.support.grammars import END, TOKENIZER, compiler, json_grammar, vocabulary
from tests.support.tokenizers import byte_level, sentencepiece, word_pieces

VOCAB = 400
ALL = 'start: "a"'


@pytest.fixture
def grammars():
    made = compiler(VOCAB)
    yield made
    made.close()


def spoken(matcher):
    """What a matcher says when it always takes the highest token it may, and its tokens."""
    log = []
    while not matcher.is_stopped():
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        token = int(np.flatnonzero(np.unpackbits(bits, bitorder="little"))[-1])
        matcher.consume_token(token)
        log.append(token)
    assert not matcher.is_error(), matcher.get_error()
    return log


def test_a_compiled_grammar_gives_each_sequence_its_own_matcher(grammars):
    """One goes on, the other is still at the start."""
    held = grammars.compile('start: "ab"').result()
    one, other = grammars.sequence('start: "ab"'), grammars.sequence('start: "ab"')
    one.consume_token(TOKENIZER.token_to_id("a"))
    assert one.compute_bitmask() != other.compute_bitmask()
    assert held.source == 'start: "ab"'


def test_the_same_source_is_compiled_once(grammars):
    """Also when it is asked for again before it is done."""
    first, second = grammars.compile(ALL), grammars.compile(ALL)
    assert first.result() is second.result()
    assert grammars.compile(ALL).result() is first.result()


@pytest.mark.parametrize("source", ["start: x", "x" * 300_000], ids=["wrong", "large"])
def test_what_cannot_be_compiled_says_so_each_time(grammars, source):
    """A failure is the client's, names the grammar, and is not kept."""
    for _ in range(2):
        with pytest.raises(InvalidRequest) as caught:
            grammars.compile(source).result()
        assert caught.value.param == "grammar"
    assert grammars.sequence(source) is None


@pytest.mark.parametrize("expression", [r"[^\s\S]", r"a[^\s\S]"])
def test_what_no_text_matches_is_refused_before_anything_runs(grammars, expression):
    """Refused by us: llguidance takes it, and fails at the first mask."""
    with pytest.raises(InvalidRequest, match="no text that it matches"):
        grammars.compile(f"start: /{expression}/").result()


def test_the_cache_forgets_the_oldest_and_a_holder_keeps_its_own():
    """Bounded by bytes; what a request in flight holds stays reachable."""
    grammars = GrammarCompiler(vocabulary(VOCAB), cache_bytes=600_000)
    sources = [f'start: "{number}"' for number in range(9)]
    held = grammars.compile(sources[0]).result()
    for source in sources:
        grammars.compile(source).result()
    gc.collect()
    alive = [source for source in sources if grammars.sequence(source) is not None]
    assert alive == [sources[0], *sources[-4:]]
    assert held.source == sources[0]
    grammars.close()


def test_a_grammar_too_heavy_for_the_cache_still_serves_its_holder():
    """It is let go as soon as nobody holds it."""
    grammars = GrammarCompiler(vocabulary(VOCAB), cache_bytes=10)
    held = grammars.compile(ALL).result()
    assert grammars.sequence(ALL) is not None
    del held
    gc.collect()
    assert grammars.sequence(ALL) is None
    grammars.close()


def test_a_forgotten_grammar_is_compiled_afresh_and_its_room_is_free_again():
    """Forgetting twice, or what was never there, changes nothing."""
    grammars = GrammarCompiler(vocabulary(VOCAB), cache_bytes=280_000)
    held = grammars.compile(ALL).result()
    for _ in range(3):
        grammars.forget(ALL)
    again, other = grammars.compile(ALL).result(), grammars.compile('start: "b"').result()
    assert again is not held
    assert {again.source, other.source} == set(grammars._recent)
    assert grammars._room == 280_000 - again.weight_bytes - other.weight_bytes
    grammars.close()


def test_compiling_is_done_at_low_priority(grammars):
    """By a thread of its own, whose niceness is not that of this one."""
    ids = grammars._pool.submit(threading.get_native_id)
    niceness = grammars._pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, ids.result()))
    assert ids.result() != threading.get_native_id()
    assert niceness.result() > os.getpriority(os.PRIO_PROCESS, 0)


def test_other_threads_go_on_while_a_grammar_is_compiled(grammars):
    """The interpreter lock is not held: a loop beside a long compile is never stopped for long."""
    patterns = [{"type": "string", "pattern": f"a.{{0,{50 + i}}}b"} for i in range(19)]
    begun = time.perf_counter()
    compiling = grammars.compile(json_grammar({"allOf": patterns}))
    longest, last = 0.0, time.perf_counter()
    while not compiling.done():
        time.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert last - begun > 0.05, "too quick to show anything"
    assert longest < (last - begun) / 2


@pytest.mark.parametrize(
    "backend",
    [byte_level(), byte_level(bos=True), sentencepiece(), sentencepiece(strip=False)],
    ids=["byte-level", "with-bos", "sentencepiece", "no-strip"],
)
def test_text_that_spells_an_added_token_is_plain_text(backend):
    """Read as that token it would contradict the grammar; every kind of tokenizer spells all."""
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    end = backend.token_to_id("<|end|>")
    size = backend.get_vocab_size() + 30
    words = 'hello <tool_call> <|end|> <s> é日🙂  "'
    grammars = GrammarCompiler(read_vocabulary(backend.to_str(), size, {end}))
    held = grammars.compile(json_grammar({"const": words})).result()
    said = spoken(held.sequence())
    grammars.close()
    assert backend.decode(said, skip_special_tokens=False) == '"' + words.replace('"', '\\"') + '"'
    assert max(said) < size - 30
    assert end not in said


def test_a_special_token_is_asked_for_by_name_or_number():
    """And is one token then; any end of sequence ends a grammar, once it is complete."""
    call = TOKENIZER.token_to_id("<tool_call>")
    known = read_vocabulary(TOKENIZER.to_str(), VOCAB, {END, 5})
    grammars = GrammarCompiler(known)
    for source in ('start: <tool_call> "x"', f'start: <[{call}]> "x"'):
        matcher = grammars.compile(source).result().sequence()
        assert matcher.consume_tokens([call, TOKENIZER.token_to_id("x")])
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        assert set(np.flatnonzero(bits).tolist()) == {END, 5} == grammars.ends
    grammars.close()


@pytest.mark.parametrize(
    ("backend", "size", "eos", "words"),
    [
        (word_pieces(), 40, {1}, "decoder"),
        (byte_level(), 100, {1}, "too small"),
        (byte_level(), 400, {}, "empty"),
        (byte_level(), 400, {999}, "out of range"),
    ],
    ids=["word-pieces", "too-few", "no-end", "end-outside"],
)
def test_vocabularies_that_cannot_be_guided_are_refused(backend, size, eos, words):
    """Tokens without bytes of their own, or no way to end."""
    with pytest.raises(ValueError, match=words):
        read_vocabulary(backend.to_str(), size, eos)


def test_the_bundled_model_takes_grammars():
    """Both of its ends count, and no id beyond its tokenizer may ever come."""
    source = (penstock_tiny() / "tokenizer.json").read_text()
    known = read_vocabulary(source, 2600, {0, 2})
    assert known.eos_tokens == [0, 2]
    assert all(known.is_special_token(token) for token in range(2560, 2600))
