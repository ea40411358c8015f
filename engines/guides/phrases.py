"""Token sequences, met or avoided: seen one token at a time, never scanned again."""

from collections.abc import Sequence


class Occurrence:
    """Finds one token sequence in a stream of tokens (Knuth, Morris, Pratt)."""

    def __init__(self, phrase: Sequence[int]) -> None:
        self._phrase = tuple(phrase)
        self._falls = _falls(self._phrase)
        self._matched = 0

    @property
    def next(self) -> int:
        """The token that goes on with what has been met so far."""
        return self._phrase[self._matched]

    def feed(self, token: int) -> bool:
        """Whether this token completes the phrase; then it starts over."""
        while self._matched and self._phrase[self._matched] != token:
            self._matched = self._falls[self._matched]
        self._matched += self._phrase[self._matched] == token
        if self._matched == len(self._phrase):
            self._matched = 0
            return True
        return False


def _falls(phrase: Sequence[int]) -> list[int]:
    """For each count of matched tokens, the longest shorter match that is still alive."""
    falls = [0, 0]
    length = 0
    for token in phrase[1:]:
        while length and phrase[length] != token:
            length = falls[length]
        length += phrase[length] == token
        falls.append(length)
    return falls


class BadWords:
    """The tokens that would complete one of several phrases among the generated tokens."""

    def __init__(self, phrases: Sequence[Sequence[int]]) -> None:
        self._last: dict[tuple[int, ...], list[int]] = {}
        for phrase in phrases:
            self._last.setdefault(tuple(phrase[:-1]), []).append(phrase[-1])
        self._lengths = sorted({len(before) for before in self._last})
        self._tail: tuple[int, ...] = ()

    def take(self, token: int) -> None:
        """The sequence went on with this token."""
        longest = self._lengths[-1]
        self._tail = (*self._tail, token)[-longest:] if longest else ()

    def banned(self) -> list[int]:
        """What may not come next. The work is by length of phrase, not by number of phrases."""
        have = len(self._tail)
        return [
            token
            for length in self._lengths
            if length <= have
            for token in self._last.get(self._tail[have - length :], ())
        ]
