"""What a worker says of a request, checked before anybody reads it.

Positions are dense, tokens are of the vocabulary, nothing follows a finish, and no number is NaN.
"""

import math
from dataclasses import dataclass, field

from engines.api import TokenEvent
from engines.mailbox import Mailbox
from engines.wire.events import event_of
from engines.wire.pb import penstock_engine_pb2 as pb


class Lie(Exception):  # noqa: N818
    """The worker said what no working engine can."""


@dataclass(slots=True)
class Open:
    """A request that the worker has not ended, and how far each choice is."""

    box: Mailbox
    positions: list[int]
    ended: set[int] = field(default_factory=set)  # choices that the worker has finished


def checked(known: Open, delta: pb.Delta, vocab_size: int) -> TokenEvent:
    """The event of a delta that follows what came before. Raises Lie, ValueError."""
    request, choice = known.box.request, delta.choice
    if choice >= request.n or choice in known.ended:
        raise Lie(f"choice {choice} of {request.n} has ended or never was")
    position = known.positions[choice]
    if delta.position != position:
        raise Lie(f"tokens at position {delta.position} came where {position} was next")
    sampling = request.sampling
    first = not (position or request.emitted)
    event = event_of(delta, logprobs=sampling.logprobs is not None)
    if first and sampling.prompt_logprobs is not None and event.prompt_logprobs is None:
        event.prompt_logprobs = ()
    position = known.positions[choice] = position + len(event.tokens)
    if event.tokens and max(event.tokens) >= vocab_size:
        raise Lie(f"a token is outside the vocabulary of {vocab_size}")
    if event.logprobs is not None and len(event.logprobs) > len(event.tokens):
        raise Lie("there are more log-probabilities than tokens")
    if position > sampling.max_tokens:
        raise Lie(f"{position} tokens came where {sampling.max_tokens} were asked for")
    if event.finish is not None:
        known.ended.add(choice)
        if event.finish.generated != position:
            raise Lie(f"{event.finish.generated} tokens are told of {position}")
    return event


def is_sound(event: TokenEvent) -> bool:
    """Whether no number of it is NaN."""
    entries = [*(event.logprobs or ()), *(event.prompt_logprobs or ())]
    return not any(math.isnan(value) for value in event.vector or ()) and not any(
        math.isnan(entry.logprob) for entry in entries
    )
