"""max_tokens 0: only the prompt is wanted, echoed and scored, so nothing generated is told."""

from engines.api import TokenEvent
from openai_compat.choice import Ending, Piece


class PromptOnly:
    """Implements `render.Teller`: ends with the first event, whose token nobody sees or pays.

    Engines compute a prompt by generating, so the request asks for one token.
    """

    __slots__ = ("completion_tokens", "finish", "reasoning_tokens")

    def __init__(self) -> None:
        self.finish: Ending | None = None
        self.completion_tokens = 0
        self.reasoning_tokens = 0

    def feed(self, event: TokenEvent) -> Piece:  # noqa: ARG002 - whatever it is
        self.finish = Ending.LENGTH
        return Piece(finish=self.finish)

    def text_of(self, event: TokenEvent) -> None:
        """No event is text."""
