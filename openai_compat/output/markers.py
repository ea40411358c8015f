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

    def find(self, text: str, at: int) -> re.Match[str] | None:
        """The leftmost marker from `at` on."""
        return self._pattern.search(text, at)

    def held(self, text: str, at: int) -> int:
        """Length of the longest ending, of what begins at `at`, that some marker begins with."""
        for start in range(max(at, len(text) - self._longest), len(text)):
            if text[start] in self.first and text[start:] in self._prefixes:
                return len(text) - start
        return 0
