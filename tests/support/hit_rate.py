"""What the prefix cache owes when nothing was evicted: a naive set of prefixes says it."""

from dataclasses import dataclass

from engines.api import GenerationRequest, RequestId, Sampling, SharedPrefix
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.scheduler import Scheduler
from kvcache.pool import BlockPool

_SIZE = 3
_BESIDE = RequestId("beside")


@dataclass(frozen=True, slots=True)
class Whose:
    """Under which salt a prompt is, and how many of its first tokens the group has, too."""

    salt: bytes = b""
    shared: int = 0

    def way(self, tokens: list[int]) -> tuple[object, ...]:
        """Equal where the last block of these may be the same one."""
        turn = self.shared // _SIZE
        if len(tokens) // _SIZE <= turn:
            return ("group", *tokens)
        return (self.salt, turn, *tokens)


def owed_hits(
    prompts: list[list[int]], answers: list[list[int]], whose: list[Whose] | None = None
) -> list[int]:
    """Cached tokens each prompt is owed when they run one after another."""
    seen: set[tuple[object, ...]] = set()
    owed = []
    whose = whose or [Whose()] * len(prompts)
    for prompt, answer, each in zip(prompts, answers, whose, strict=True):
        blocks = 0
        while each.way(prompt[: (blocks + 1) * _SIZE]) in seen and (blocks + 1) * _SIZE < len(
            prompt
        ):
            blocks += 1
        if len(prompt) - blocks * _SIZE == 1 and blocks:
            blocks -= 1  # the rule against one-token chunks gives one block up
        owed.append(blocks * _SIZE)
        computed = [*prompt, *answer][:-1]  # the last token was sampled, never computed
        seen |= {each.way(computed[:end]) for end in range(_SIZE, len(computed) + 1, _SIZE)}
    return owed


def observed_hits(
    prompts: list[list[int]], whose: list[Whose] | None = None
) -> tuple[list[int], list[list[int]]]:
    """(cached tokens, answer) of each prompt, run one after another in a pool that holds all.

    Another sequence decodes beside each, under a salt of its own, and is then aborted.
    """
    limits = Limits(64, 4, 16, _SIZE, 500, 50)
    scheduler = Scheduler(limits, BlockPool(500, _SIZE))
    runner = LedgerRunner(500, _SIZE, vocab_size=50)
    hits, answers = [], []
    whose = whose or [Whose()] * len(prompts)
    for number, (prompt, each) in enumerate(zip(prompts, whose, strict=True)):
        request = GenerationRequest(
            RequestId(str(number)),
            tuple(prompt),
            Sampling(4),
            cache_salt=each.salt,
            shared=SharedPrefix(b"group", each.shared) if each.shared else None,
        )
        beside = GenerationRequest(_BESIDE, (number, 0), Sampling(60), cache_salt=b"beside")
        scheduler.add(beside)
        scheduler.add(request)
        answers.append([])
        while len(answers[-1]) < 4:
            plan = scheduler.plan()
            assert plan.rows, "no progress"
            outcome = scheduler.apply(plan, runner.collect(runner.launch(plan)))
            for sequence, token in zip(outcome.sequences, outcome.tokens, strict=True):
                if sequence.request is request:
                    answers[-1].append(token)
                    cached = sequence.cached
        scheduler.abort(_BESIDE)
        hits.append(cached)
    return hits, answers


def second_turn_hits() -> list[int]:
    """Cached tokens of a prompt, and of one that goes on behind its answer."""
    first = [0, 1, 2, 0, 1]
    _, (answer,) = observed_hits([first])
    hits, _ = observed_hits([first, [*first, *answer, 2, 2]])
    return hits
