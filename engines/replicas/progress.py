"""What the reader of a request has been told, and the request for the rest of it. Pure.

Every event is checked against what was asked before it is told, so that a replica that has lost its
mind cannot hand out two ends, a stranger's choice or tokens that nobody wanted.
"""

from collections.abc import Iterable
from dataclasses import replace

from engines.api import Finish, FinishReason, GenerationRequest, TokenEvent

_MOST_SCORES = 50_000  # that move with a request: some 600 KB


class Lied(Exception):  # noqa: N818 - reads as what it is
    """A replica said what it cannot have been asked for: nothing more of this stream counts."""


class Progress:
    """The open choices of one request, over all the replicas that it meets."""

    def __init__(self, request: GenerationRequest, vocab_size: int) -> None:
        self._request = request
        self._vocab_size = vocab_size
        logs = enumerate(request.logs)
        self._logs = {choice: list(log) for choice, log in logs if log is not None}
        self._waived: set[int] = set()  # ended by the reader: an event may cross that on its way
        self._cached: dict[int, int] = {}  # by choice, as told first
        sampling = request.sampling
        scored = not (sampling.logprobs is None and sampling.prompt_logprobs is None)
        # Scores of what came before this reader are not known to it: then none are.
        self._keeps = request.kept is not None and not (scored and request.emitted)
        self._scored = self._keeps and scored
        self._said: dict[int, TokenEvent] = {}  # what the logs of `rest` do not say, from the start
        self._scores = 0  # in it

    @property
    def open(self) -> bool:
        """Whether anything is owed."""
        return bool(self._logs)

    def waive(self, choice: int) -> None:
        """The reader wants no more of a choice."""
        self._waived.add(choice)
        if choice in self._logs:
            self._close(choice, None)

    def close(self) -> None:
        """The reader wants nothing more."""
        self._waived |= set(self._logs)
        self._logs.clear()

    def take(self, event: TokenEvent) -> TokenEvent | None:
        """The event as the reader may have it; None if the choice was waived. Raises Lied."""
        log = self._logs.get(event.choice)
        if log is None:
            if event.choice in self._waived:
                return None
            raise Lied(f"an event of choice {event.choice}, which has ended or was never asked for")
        if problem := self._problem(event, log):
            raise Lied(problem)
        log += event.tokens
        if self._scored:
            self._remember(event)
        if event.choice in self._cached:
            event.prompt_logprobs = None  # told by the first replica
        event.cached = self._cached.setdefault(event.choice, event.cached)
        if event.finish is not None:
            self._close(event.choice, event.finish)
        return event

    def ends(self) -> list[TokenEvent]:
        """The ends that a replica died before telling: the last token says them."""
        ended = {choice: end for choice, log in self._logs.items() if (end := self._end(log))}
        events = []
        for choice, end in ended.items():
            event = TokenEvent(choice, [], self._cached.get(choice, 0), finish=end)
            if self._scored:
                self._remember(event)
            self._close(choice, end)
            events.append(event)
        return events

    def told(self) -> tuple[TokenEvent, ...]:
        """What whoever has `rest` cannot tell again from its logs; nothing where it is too much."""
        return tuple(self._said.values()) if self._scores <= _MOST_SCORES else ()

    def recall(self, told: Iterable[TokenEvent]) -> list[TokenEvent]:
        """The same, told to another reader: what lies behind its own logs. Raises Lied."""
        events = []
        for event in told:
            log = self._logs.get(event.choice)
            if log is None or len(log) > len(event.tokens):
                continue
            _, rest = event.split(len(log))
            if (rest.tokens or rest.finish) and (taken := self.take(rest)) is not None:
                events.append(taken)
        return events

    def rest(self) -> GenerationRequest:
        """The request for what is still owed; the whole of it where nothing has been told.

        With extras it is never the fresh request: they may name a state that the engine which is
        lost has taken already, and the next one must know that it comes second.
        """
        request, logs = self._request, self._logs
        begun = len(logs) < request.n or any(logs.values())
        if not begun and (request.needs_every_row or not request.extras):
            return request
        emitted = (tuple(logs[choice]) if choice in logs else None for choice in range(request.n))
        return replace(request, emitted=tuple(emitted))

    def _close(self, choice: int, finish: Finish | None) -> None:
        """Nothing more of a choice is owed."""
        log = self._logs.pop(choice)
        if self._keeps and not self._scored and self._logs:
            cached = self._cached.get(choice, 0)
            self._said[choice] = TokenEvent(choice, log, cached, finish=finish)

    def _remember(self, event: TokenEvent) -> None:
        _, own = event.split(0)  # with lists of its own: a reader may merge what it has
        scores = (*(own.logprobs or ()), *(own.prompt_logprobs or ()))
        self._scores += sum(1 + len(score.top) for score in scores)
        before = self._said.setdefault(event.choice, own)
        if before is not own:
            before.merge(own)

    def _end(self, log: list[int]) -> Finish | None:
        sampling = self._request.sampling
        if log and log[-1] in sampling.stop_tokens:
            return Finish(FinishReason.STOP, len(log), log[-1])
        if len(log) >= sampling.max_tokens:
            return Finish(FinishReason.LENGTH, len(log))
        return None

    def _problem(self, event: TokenEvent, log: list[int]) -> str | None:
        """What of an event cannot be; None if nothing."""
        sampling, tokens, finish = self._request.sampling, event.tokens, event.finish
        total = len(log) + len(tokens)
        scores = tokens if sampling.logprobs is None else event.logprobs or ()
        problems = {
            "more tokens than were asked for": total > sampling.max_tokens,
            "a token outside the vocabulary": not all(0 <= t < self._vocab_size for t in tokens),
            "tokens after a stop token": bool(tokens)
            and not sampling.stop_tokens.isdisjoint([*log[-1:], *tokens[:-1]]),
            "log-probabilities of other tokens": len(scores) != len(tokens),
            "an end of another length": finish is not None and finish.generated != total,
            "no vector": self._request.pooled and event.vector is None,
        }
        return next((problem for problem, found in problems.items() if found), None)
