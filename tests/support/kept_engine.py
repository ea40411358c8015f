"""An engine by hand: its tokens are a function of request, choice and place; a test has it talk."""

import asyncio
from collections import deque

from engines.api import EngineLoad, Finish, FinishReason, TokenEvent, TokenLogprobs
from engines.errors import EngineDied, EngineUnavailable

VOCAB = 97


def token(seed, choice, place):
    """The token of a place; requests differ by their seed."""
    return (seed * 31 + choice * 17 + place * 7) % VOCAB


def logprob(seed, choice, place):
    """What its log-probabilities are, with one other token's."""
    said = token(seed, choice, place)
    return TokenLogprobs(-said / 128, (((said + 1) % VOCAB, -place / 64),))


class ToldStream:
    """Hands out what the test has said, each event once, to one reader.

    `given` counts what was handed out, by choice: that is the log, whoever has heard of it.
    """

    def __init__(self, engine, request):
        self.request = request
        self.given = [len(log or ()) for log in request.logs]
        self._said = list(self.given)
        self.open = set(request.choices)  # choices of which more can be said
        self.finished = set()  # whose finish was handed out
        self.failed = False
        self.over = self.closed = False
        self.closings = 0
        self._engine = engine
        self._events = deque()
        self._error = None
        self._reader = None

    def say(self, choice, count, *, last):
        """The next tokens of a choice become known."""
        seed, begin = self.request.sampling.seed, self._said[choice]
        places = range(begin, begin + count)
        self._said[choice] += count
        finish = Finish(FinishReason.LENGTH, self._said[choice]) if last else None
        entries = None
        if self.request.sampling.logprobs is not None:
            entries = [logprob(seed, choice, place) for place in places]
        tokens = [token(seed, choice, place) for place in places]
        self._events.append(TokenEvent(choice, tokens, 0, entries, finish))
        if last:
            self.open.discard(choice)
        self._wake()

    def break_down(self):
        """It ends with an error, behind what was said."""
        self._error = EngineDied("by hand")
        self.open.clear()
        self._wake()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self._events:
            if self._error is not None or not self.open:
                return self._end()
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
        self.given[event.choice] += len(event.tokens)
        if event.finish is not None:
            self.finished.add(event.choice)
        return event

    def end_choice(self, choice):
        self.open.discard(choice)
        self._events = deque(each for each in self._events if each.choice != choice)
        self._wake()

    async def aclose(self):
        self.closings += 1
        if not self.over:
            await asyncio.sleep(0)  # as engines do that must tell another process
        self.closed = True
        self.open.clear()
        self._engine.on_close(self)

    def _end(self):
        self.over, self.failed = True, self._error is not None
        raise self._error if self.failed else StopAsyncIteration

    def _wake(self):
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class ToldEngine:
    """Its streams in the order of their requests; `refuses` has it take no more."""

    def __init__(self, on_close):
        self.on_close = on_close
        self.streams = []
        self.refuses = False

    def generate(self, request):
        if self.refuses:
            raise EngineUnavailable("by hand")
        self.streams.append(ToldStream(self, request))
        return self.streams[-1]

    def load(self):
        return EngineLoad(sum(not stream.closed for stream in self.streams), 0, 0, 0, 64)
