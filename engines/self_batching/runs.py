"""One choice of one request on its way through an engine that batches by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engines.api import TokenEvent, TokenLogprobs
from engines.mailbox import Mailbox
from engines.self_batching.admission import Ticket
from engines.self_batching.cursor import Reading


@dataclass(slots=True, eq=False)
class Run:
    """A choice. Each is a call of its own, for one sequence.

    Siblings then end apart, go on from logs of their own, and greedy ones are not refused. The
    engine would compute them apart as well.
    """

    box: Mailbox
    choice: int
    log: list[int]  # all that the choice has said, the emitted tokens included
    ticket: "Ticket[Run]" = field(init=False)
    way_out: Callable[[], object] | None = field(default=None, init=False)  # ends what it waits for
    cached: int | None = field(default=None, init=False)  # known with the first token
    begun: bool = field(default=False, init=False)  # the engine has told something of it
    gone: bool = field(default=False, init=False)  # nobody wants more of it

    def __post_init__(self) -> None:
        request = self.box.request
        self.ticket = Ticket(
            owner=self,
            prompt=len(request.prompt) + len(self.log),
            longest=len(request.prompt) + request.sampling.max_tokens,
            priority=request.priority,
            tenant=request.tenant,
            weight=request.weight,
        )

    @property
    def said(self) -> int:
        """Tokens that were pushed here: not those that it goes on behind."""
        return len(self.log) - (self.ticket.prompt - len(self.box.request.prompt))

    def leave(self) -> None:
        """Want no more of it, wherever it is. Idempotent."""
        self.gone = True
        if self.way_out is not None:
            self.way_out()


Told = Callable[[Run], None]  # called for each output, before its tokens are pushed


def hear(
    run: Run,
    reading: Reading,
    cached: int,
    told: Told,
    prompt_logprobs: Sequence[TokenLogprobs] | None = None,
    extras: Mapping[str, str] | None = None,
) -> None:
    """Hand on what has become known of a choice; `cached` as the engine tells it now."""
    if run.cached is None:
        run.cached = min(cached, len(run.box.request.prompt))
    told(run)
    if not reading.tokens and reading.finish is None:
        return
    run.log += reading.tokens
    run.box.push(
        TokenEvent(
            choice=run.choice,
            tokens=reading.tokens,
            cached=run.cached,
            logprobs=reading.logprobs,
            finish=reading.finish,
            prompt_logprobs=prompt_logprobs,
            extras=extras,
        )
    )
