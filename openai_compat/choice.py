"""One choice of an answer: its tokens become text, up to a stop string or the engine's finish.

Text, parts and counts do not depend on how events were cut: where a stop string may match, logprobs
are wanted or reasoning is counted, tokens are taken one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from engines.api import TokenEvent, TokenLogprobs
from engines.text.detokenizer import Detokenizer
from engines.text.stop import StopMatcher
from openai_compat.output.delta import Delta, Text
from openai_compat.output.fold import merged
from openai_compat.output.stage import ParseStage, Parsing
from openai_compat.showing import AS_USUAL, Showing


class Ending(StrEnum):
    """Why a choice ended, as clients are told."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One generated token with its logprobs; `offset` is where its text begins, in characters."""

    token: int
    logprobs: TokenLogprobs
    offset: int


@dataclass(slots=True)
class Piece:
    """What became visible of a choice. Pieces add up: an answer is the sum of its pieces.

    Without `deltas`, `text` is content. With them, they are all there is, and `text` is empty.
    `tokens` are those that were charged with it, where the client asked for them; `prompt` comes
    with the first piece of a choice, for each token of the prompt but its first; `extras` with the
    last one, where the engine has answered any.
    """

    text: str = ""
    entries: Sequence[TokenEntry] = ()
    finish: Ending | None = None
    deltas: Sequence[Delta] | None = None
    tokens: Sequence[int] = ()
    prompt: Sequence[TokenLogprobs] | None = None
    extras: Mapping[str, str] | None = None

    @property
    def parts(self) -> Sequence[Delta]:
        """The piece as deltas, in order."""
        if self.deltas is not None:
            return self.deltas
        return (Text(self.text),) if self.text else ()


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one choice as one."""
    parsed = any(piece.deltas is not None for piece in pieces)
    return Piece(
        "" if parsed else "".join([piece.text for piece in pieces]),
        [entry for piece in pieces for entry in piece.entries],
        pieces[-1].finish if pieces else None,
        merged([delta for piece in pieces for delta in piece.parts]) if parsed else None,
        [token for piece in pieces for token in piece.tokens],
        pieces[0].prompt if pieces else None,
        pieces[-1].extras if pieces else None,
    )


class Choice:
    """Folds the events of one choice. `completion_tokens` counts what the client is charged.

    `calls_end` is what a choice that called tools and stopped tells as its end.
    `offset` is where the text begins for those who count characters.
    """

    __slots__ = (
        "_calls_end",
        "_detokenizer",
        "_matcher",
        "_offset",
        "_plain",
        "_showing",
        "_stage",
        "completion_tokens",
        "finish",
        "reasoning_tokens",
    )

    def __init__(
        self,
        detokenizer: Detokenizer,
        stops: Sequence[str],
        parsing: Parsing | None = None,
        *,
        calls_end: Ending = Ending.TOOL_CALLS,
        showing: Showing = AS_USUAL,
        offset: int = 0,
    ) -> None:
        self._detokenizer = detokenizer
        self._matcher = StopMatcher(stops, keep=showing.keep_stop) if stops else None
        self._stage = ParseStage(parsing) if parsing is not None else None
        self._calls_end = calls_end
        self._showing = showing
        self._offset = offset
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.finish: Ending | None = None
        self._plain = self._matcher is None and self._stage is None and not showing.token_ids

    def text_of(self, event: TokenEvent) -> str | None:
        """The text an event adds where it adds nothing else; None where `feed` must read it."""
        if not self._plain or event.finish is not None or event.logprobs is not None:
            return None
        self.completion_tokens += len(event.tokens)
        return self._detokenizer.feed(event.tokens)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, if one did."""
        return self._matcher.matched if self._matcher is not None else None

    def feed(self, event: TokenEvent) -> Piece:
        """The piece that an event adds. Not to be called after `finish` is set."""
        tokens, finish = event.tokens, event.finish
        charged = self.completion_tokens
        if finish is not None and finish.stop_token is not None and not self._showing.keep_stop:
            tokens = tokens[:-1]  # a stop token is charged, and not shown
        if self._takes_each(event):
            piece = self._take_each(tokens, event.logprobs)
        else:
            piece = self._show(self._detokenizer.feed(tokens))
            self.completion_tokens += len(tokens)
        if finish is not None and self.finish is None:
            self.completion_tokens += len(event.tokens) - len(tokens)
            rest = self._show(self._detokenizer.finish(), last=Ending(finish.reason.value))
            piece = joined((piece, rest))
        piece.finish = self.finish
        if self._showing.token_ids:
            piece.tokens = event.tokens[: self.completion_tokens - charged]
        return piece

    def _takes_each(self, event: TokenEvent) -> bool:
        if self._matcher is not None or event.logprobs is not None:
            return True
        return self._stage is not None and self._stage.token_by_token

    def _take_each(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs] | None) -> Piece:
        pieces, entries = [], []
        for place, token in enumerate(tokens):
            self.completion_tokens += 1
            if logprobs is not None:
                entries.append(TokenEntry(token, logprobs[place], self._offset))
            spelled = self._detokenizer.feed((token,))
            self._offset += len(spelled)
            pieces.append(self._show(spelled))
            if self._stage is not None:
                self.reasoning_tokens += self._stage.thinking
            if self.finish is not None:
                break
        piece = joined(pieces)
        piece.entries = entries
        return piece

    def _show(self, text: str, *, last: Ending | None = None) -> Piece:
        """The piece of new text; with `last`, also what is held back, and the end.

        A stop string that matches ends the choice, and so does a single call that is complete.
        """
        if self._matcher is not None:
            text = self._matcher.feed(text)
            if self._matcher.matched is not None:
                last = Ending.STOP
            elif last is not None:
                text += self._matcher.flush()
        if self._stage is None:
            piece = Piece(text)
        else:
            piece = Piece(deltas=self._stage.feed(text, last=last is not None))
            last = Ending.STOP if self._stage.ended else last
        if last is not None:
            called = self._stage is not None and self._stage.called
            if self._stage is not None and self._stage.calling and self.stop_string is not None:
                called = False  # a stop string cut the call: who got "tool_calls" would run it
            self.finish = self._calls_end if called and last is Ending.STOP else last
        return piece
