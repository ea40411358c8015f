"""Stop strings over streamed text: nothing that may begin one is shown before it is certain."""

from collections.abc import Sequence


class StopMatcher:
    """Ends the text before the stop string that is complete first.

    Of several complete at the same character the longest wins, so the least text is shown. That
    reading makes the result independent of how the text is cut into pieces.
    """

    __slots__ = ("_first", "_held", "_keep", "_stops", "matched")

    def __init__(self, stops: Sequence[str], *, keep: bool = False) -> None:
        """With `keep`, the stop string that matched is shown, as the end of the text."""
        self._stops = tuple(sorted({stop for stop in stops if stop}, key=len, reverse=True))
        self._first = frozenset(stop[0] for stop in self._stops)
        self._held = ""
        self._keep = keep
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that is certain to be shown; nothing more once a stop string matched."""
        if self.matched is not None:
            return ""
        if not self._held and self._first.isdisjoint(text):
            return text  # most pieces: no character of it begins a stop string
        text = self._held + text
        end = self._first_match(text)
        if self.matched is None:
            end = len(text) - self._open_suffix(text)
            self._held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """What is still held back, once no more text can come."""
        held, self._held = self._held, ""
        return "" if self.matched is not None else held

    def _first_match(self, text: str) -> int:
        """Sets `matched` and returns where the shown text ends, or leaves it None."""
        first_end, start = len(text) + 1, 0
        for stop in self._stops:  # longest first, so a tie on the end keeps the longest
            found = text.find(stop)
            if found >= 0 and found + len(stop) < first_end:
                first_end, start, self.matched = found + len(stop), found, stop
        return first_end if self._keep else start

    def _open_suffix(self, text: str) -> int:
        """Length of the longest suffix of `text` that some stop string begins with."""
        longest = 0
        for stop in self._stops:
            start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
            while 0 <= start < len(text) - longest:
                if stop.startswith(text[start:]):
                    longest = len(text) - start
                    break
                start = text.find(stop[0], start + 1)
        return longest
