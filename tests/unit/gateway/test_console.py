"""The start screen: bars on a terminal, plain lines elsewhere, nothing secret."""

import io
import json
import shlex
from dataclasses import replace

import pytest

from engines.api import Embeds, EngineInfo
from gateway.console import DONE_BEFORE, StartScreen, curl_hint
from gateway.kv_budget import KvBudget, KvNeed
from gateway.opened import Opened
from gateway.setting_kinds import Secret
from gateway.settings import Settings
from openai_compat.served import ServedModel
from tests.support.fake_engine import FakeEngine


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


INFO = EngineInfo("m", 64, 10, 16, 4, 1)


def opened():
    model = ServedModel("m", 1, INFO, None, None, frozenset())
    return Opened(FakeEngine(), model, KvBudget(4, 64, 1 << 20, KvNeed(1, 16, 1, 64)))


def shown(stream):
    ticks = iter(range(100))
    screen = StartScreen(stream, clock=lambda: next(ticks))
    screen.phase("importing")
    screen.phase("loading")
    screen.serving(opened(), Settings(), "http://127.0.0.1:1/v1")
    return stream.getvalue()


def test_phases_are_plain_lines_in_a_log():
    """One each, with its time, then what is served and how to try it."""
    lines = shown(io.StringIO()).splitlines()
    assert lines[0].startswith("importing: ")
    assert lines[1].startswith("loading: ")
    assert lines[2] == "KV cache: 4 blocks of 16 tokens = 64 tokens, 4.0 MiB"
    assert lines[3].startswith("Serving m at http://127.0.0.1:1/v1 (ready in ")
    assert lines[4].startswith("Try: curl ")
    assert "\x1b" not in "".join(lines)


def test_a_bar_moves_with_the_phases(monkeypatch):
    """Each phase begins further on, and none at the end; an unknown one moves nothing back."""
    monkeypatch.setenv("TERM", "xterm-256color")
    screen, filled = StartScreen(Terminal()), []
    for phase in [*DONE_BEFORE, "something else"]:
        screen.phase(phase)
        filled.append(screen.done)
    screen.close()
    assert filled == sorted(filled)
    assert len(set(filled)) == len(DONE_BEFORE)
    assert filled[0] == 0
    assert filled[-1] < 1


def test_a_terminal_keeps_the_phases_and_their_times(monkeypatch):
    """The bar goes when the start is over; what it took stays."""
    monkeypatch.setenv("TERM", "xterm-256color")
    text = shown(Terminal())
    assert "importing: 1.00 s" in text
    assert "loading: 1.00 s" in text


def test_phases_are_bars_on_a_terminal(monkeypatch):
    """Drawn in place, with the same last lines."""
    monkeypatch.setenv("TERM", "xterm-256color")
    text = shown(Terminal())
    assert "\x1b[" in text
    assert "importing" in text
    assert "Serving m at" in text


@pytest.mark.parametrize(
    ("purpose", "route"),
    [
        ({}, "chat/completions"),
        ({"generates": False, "embeds": Embeds(8, normalised=True)}, "embeddings"),
        ({"generates": False, "ranks": True}, "rerank"),
    ],
)
def test_the_hint_is_a_command_without_the_key(purpose, route):
    """It can be pasted, for a call that the model answers; the key stays in its variable."""
    info = replace(INFO, **purpose)
    words = shlex.split(curl_hint("http://h/v1", "m", Settings(api_key=(Secret("sk-1"),)), info))
    assert "sk-1" not in " ".join(words)
    assert words[:3] == ["curl", "-N", f"http://h/v1/{route}"]
    assert json.loads(words[-1])["model"] == "m"


def test_an_encoder_says_nothing_of_a_cache():
    """It has none."""
    stream = io.StringIO()
    kv = KvBudget(4, 64, 0, KvNeed(0, 65, 4, 64))
    StartScreen(stream).serving(replace(opened(), kv=kv), Settings(), "http://h/v1")
    assert "KV cache" not in stream.getvalue()


def test_a_refusal_is_one_sentence():
    """After the phase it happened in."""
    stream = io.StringIO()
    screen = StartScreen(stream)
    screen.phase("loading")
    screen.stopped("cannot serve: no [weights] here")
    assert stream.getvalue().splitlines()[-1] == "penstock: cannot serve: no [weights] here"
