"""Finds the first of some fixed texts, and what at the end of a text may still become one."""

import re


class Markers:
    """A set of marker texts. Where one begins another, the longer is listed first."""

    __slots__ = ("_longest", "_pattern", "_prefixes", "first", "texts")

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.first = frozenset(text[0] for text in texts)
        # Alternatives of fixed texts: nothing to go back over.
        self._pattern = re.compile("|".join(re.escape(text) for text in texts))
        self._prefixes = frozenset(text[:end] for text in texts for end in range(1, len(text)))
        self._longest = max(map(len, texts)) - 1

    def find(self, text: str, at: int, within: int | None = None) -> re.Match[str] | None:
        """The leftmost marker from `at` on, or of those that begin in so many characters."""
        end = len(text) if within is None else min(len(text), at + within + self._longest + 1)
        return self._pattern.search(text, at, end)

    def held(self, text: str, at: int) -> int:
        """Length of the longest ending, of what begins at `at`, that some marker begins with."""
        for start in range(max(at, len(text) - self._longest), len(text)):
            if text[start] in self.first and text[start:] in self._prefixes:
                return len(text) - start
        return 0
