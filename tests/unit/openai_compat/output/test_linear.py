"""The work of the parsers, counted: twice the text, twice the characters looked at."""

import pytest

from benchmarks.parsers import OPEN, cases, parser_of
from openai_compat.output import (
    calls,
    deepseek,
    glm,
    harmony,
    hermes,
    kimi,
    llama3_json,
    mistral,
    python_literal,
    pythonic,
    thinking,
    xml,
)
from openai_compat.output.cursor import Cursor
from openai_compat.output.json_scan import JsonScanner
from openai_compat.output.markers import Markers

SIZE = 4_000
ROWS = [pytest.param(name, case, make, id=f"{name}, {case}") for name in OPEN
        for case, make in cases(name)]  # fmt: skip


@pytest.fixture
def looked_at(monkeypatch):
    """Counts the characters that each primitive goes over, and those it copies."""
    count = [0]
    init, held, scan, take = Markers.__init__, Markers.held, JsonScanner.scan, Cursor.take

    class Counted:
        """A compiled pattern that tells how far it was let look."""

        def __init__(self, pattern):
            self.pattern = pattern

        def search(self, text, at, end):
            found = self.pattern.search(text, at, end)
            count[0] += (found.end() if found else end) - at
            return found

    def counted_init(self, *texts):
        init(self, *texts)
        self._pattern = Counted(self._pattern)

    def counted_held(self, text, at):
        count[0] += min(len(text) - at, self._longest)
        return held(self, text, at)

    def counted_scan(self, text, at):
        end = scan(self, text, at)
        count[0] += end - at + 1
        return end

    def counted_take(self, end):
        count[0] += end - self.at + 1
        return take(self, end)

    monkeypatch.setattr(Markers, "__init__", counted_init)
    for module in (calls, deepseek, glm, harmony, hermes, kimi, llama3_json, mistral, pythonic,
                   python_literal, thinking, xml):  # fmt: skip
        for name, value in vars(module).items():
            if isinstance(value, Markers):
                monkeypatch.setattr(module, name, Markers(*value.texts))
    monkeypatch.setattr(Markers, "held", counted_held)
    monkeypatch.setattr(JsonScanner, "scan", counted_scan)
    monkeypatch.setattr(Cursor, "take", counted_take)
    return count


@pytest.mark.parametrize(("name", "case", "make"), ROWS)
def test_work_grows_with_the_text(name, case, make, looked_at):
    """On hostile outputs, in letters or whole, work doubles with the text and stays in bounds."""
    for step in (1, SIZE * 2):
        work = []
        for size in (SIZE, SIZE * 2):
            looked_at[0] = 0
            parser, text = parser_of(name), make(size)
            for at in range(0, size, step):
                parser.feed(text[at : at + step])
            parser.finish()
            work.append(looked_at[0])
        assert work[1] <= 2.05 * work[0] + 2_000
        assert (
            work[1] <= 60 * SIZE * 2
        )  # a held-back beginning is looked at again, a marker's worth


def test_nothing_that_was_read_is_kept_for_ever():
    """The text still unread is never longer than a marker, however long the output."""
    for name in OPEN:
        for _, make in cases(name):
            parser = parser_of(name)
            for letter in make(3_000):
                parser.feed(letter)
                for part in (parser._first, parser._second):
                    assert len(part._cursor.text) - part._cursor.at <= 64
