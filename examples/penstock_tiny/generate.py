"""Generate the training text of penstock-tiny: one seed, one stream of samples.

Nothing here is copied from anywhere: every sample is composed from the templates and word lists
in `skills/`. A prompt whose digest falls into the held-out part never reaches the training side,
so `evaluate.py` asks questions that the model has not seen in that exact form.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import TYPE_CHECKING

from render import render_text
from skills import (
    arithmetic,
    knowledge,
    memory,
    persona,
    product,
    reading,
    rules,
    stories,
    structured,
    textops,
    tools,
)
from skills.base import Maker, Sample, is_held_out, system

if TYPE_CHECKING:
    from collections.abc import Iterator

# Share of samples per skill. Stories are long, so their share of the tokens is much larger.
MIXTURE: tuple[tuple[float, Maker], ...] = (
    (8.0, persona.greeting),
    (8.0, product.product),
    (4.5, stories.story),
    (1.2, stories.raw_story),
    (0.8, stories.story_question),
    (22.0, arithmetic.arithmetic),
    (3.0, arithmetic.word_problem),
    (4.0, textops.count_to),
    (4.0, textops.reverse_word),
    (3.0, textops.change_case),
    (6.0, textops.copy_text),
    (2.5, textops.word_list),
    (3.0, knowledge.facts),
    (2.5, knowledge.other_scripts),
    (2.0, knowledge.lists),
    (0.8, knowledge.poem),
    (1.0, knowledge.joke),
    (4.0, knowledge.fallback),
    (11.0, structured.json_any),
    (9.0, tools.tool_call),
    (1.5, tools.no_tool),
    (6.5, reading.context_question),
    (11.0, memory.memory),
    (6.0, rules.follow_system),
    (3.0, rules.mixed),
)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are penstock-tiny, a small demo model bundled with Penstock.",
    "You are a friendly assistant.",
    "You are a helpful assistant. Keep your answers short.",
    "Be brief.",
    "Answer politely.",
)
# What people type first stays on the training side whatever its digest says.
FIRST_TRIES = frozenset(
    """hello|hi|hey|hello!|hi!|what is penstock?|what is penstock|tell me a story|tell me a story.|
what is 12 + 7?|who are you?|what can you do?|count to ten|count to ten.|count to 10|count to 10.|
what is your name?|write a poem.""".replace("\n", "").split("|")
)


def kept_out(sample: Sample) -> bool:
    """Tell whether a sample may only be used for evaluation."""
    single = len(sample.messages) == 2
    if single and sample.messages[0]["content"].lower() in FIRST_TRIES:
        return False
    return is_held_out(sample)


def draw(rng: random.Random) -> Sample:
    """Draw one sample of the mixture, on either side of the split."""
    makers = [maker for _, maker in MIXTURE]
    weights = [weight for weight, _ in MIXTURE]
    return rng.choices(makers, weights)[0](rng)


def with_system(rng: random.Random, sample: Sample) -> Sample:
    """Put an ordinary system prompt before a third of the chats that have none."""
    if sample.messages and sample.messages[0]["role"] != "system" and rng.random() < 0.33:
        sample.messages = [system(rng.choice(SYSTEM_PROMPTS)), *sample.messages]
    return sample


def samples(seed: int, *, held_out: bool = False) -> Iterator[Sample]:
    """Yield samples for ever: the training side, or the held-out side."""
    rng = random.Random(seed)
    while True:
        sample = draw(rng)
        if kept_out(sample) == held_out:
            yield with_system(rng, sample)


def main() -> None:
    """Print some samples to look at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    args = parser.parse_args()
    stream = samples(args.seed, held_out=args.held_out)
    for _ in range(args.count):
        sample = next(stream)
        if args.json:
            print(json.dumps(vars(sample), ensure_ascii=False))
        else:
            print(f"--- {sample.skill}\n{render_text(sample)}")


if __name__ == "__main__":
    main()
