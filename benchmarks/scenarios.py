"""The work that servers are compared by: what is asked, of how many tokens, and when.

Prompts are words that the tokenizer writes as one token each, so that a prompt of N tokens is N
words less what the chat template adds, which a server tells (`load.calibrate`). They depend on the
scenario and the repeat alone: servers that are compared get the same ones.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its tokens, and what it shares with the others of its run."""

    prompt: int  # tokens, those of the template included
    output: int
    shared: int = 0  # of the prompt, tokens from its beginning that all of the run have
    at_s: float | None = None  # it is sent at this time beside the others, which must still run


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests of which `at_once` are in flight."""

    name: str
    asks: tuple[Ask, ...]
    at_once: int

    def told(self, *, output: int) -> "Scenario":
        """The same with so many tokens of output of each request that is not timed."""
        asks = (one if one.at_s is not None else replace(one, output=output) for one in self.asks)
        return replace(self, asks=tuple(asks))


def _same(name: str, count: int, at_once: int, ask: Ask) -> Scenario:
    return Scenario(name, (ask,) * count, at_once)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _same("a", 4, 1, Ask(128, 128)),
        _same("b16", 16, 16, Ask(128, 128)),
        _same("b64", 64, 64, Ask(128, 128)),
        _same("c", 32, 8, Ask(1056, 32, shared=1024)),
        Scenario("d", (*(Ask(64, 128),) * 4, Ask(2048, 32, at_s=0.4)), 4),
        _same("p", 3, 1, Ask(2048, 2)),
    )
}
TELLS = {
    "a": "one at a time, 128 tokens in, 128 out",
    "b16": "16 at once, 128 in, 128 out",
    "b64": "64 at once, 128 in, 128 out",
    "c": "32 requests, 8 at a time, a shared prefix of 1,024 tokens, 32 own, 32 out",
    "d": "4 chats (64 in, 128 out; of S 512), and a prompt of 2,048 tokens after 0.4 s",
    "p": "a prompt of 2,048 tokens alone, 2 out",
}


def words_of(tokenizer_file: Path) -> list[str]:
    """The words that are one token wherever they stand in a line, by the tokenizer's file."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    found = []
    for token in sorted(tokenizer.get_vocab()):
        word = token[1:]
        if token[:1] == "\u0120" and re.fullmatch("[a-z]{3,12}", word):  # how a blank is written
            alone = tokenizer.encode(word, add_special_tokens=False).ids
            within = tokenizer.encode(f"{word} {word}", add_special_tokens=False).ids
            if len(alone) == 1 and len(within) == 2:
                found.append(word)
    if len(found) < 100:
        raise ValueError(f"{tokenizer_file} has {len(found)} words of one token; 100 are needed")
    return found


def prompts(
    scenario: Scenario, repeat: int, words: Sequence[str], template_tokens: int
) -> list[str]:
    """What each request says: exactly as many tokens as it asks, and no two alike."""
    common = random.Random(f"{scenario.name} {repeat}")
    longest = max(one.shared for one in scenario.asks)
    shared = common.choices(words, k=max(longest - template_tokens, 0))
    texts = []
    for number, one in enumerate(scenario.asks):
        first = shared[: max(one.shared - template_tokens, 0)]
        own = one.prompt - template_tokens - len(first)
        if own < 1:
            raise ValueError(f"{one} leaves no word beside {template_tokens} of the template")
        chance = random.Random(f"{scenario.name} {repeat} {number}")
        texts.append(" ".join(first + chance.choices(words, k=own)))
    return texts
