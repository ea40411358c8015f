"""What the engines of counted workers have told, of all streams: is anything computed twice?"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

Place = tuple[int, int]  # choice, position in its log


@dataclass
class Stream:
    """What engines were asked for and told of one stream."""

    begun: int = 0  # times an engine was given it from its start
    moved: int = 0  # times one was given it with what had been told
    told: Counter[Place] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        """Distinct ones."""
        return len(self.told)

    @property
    def again(self) -> int:
        """Tokens that were told more than once, each time beyond the first."""
        return self.told.total() - len(self.told)


def read_counts(folder: Path) -> dict[str, Stream]:
    """Of every stream, by its name, over all workers that ever ran."""
    streams: dict[str, Stream] = defaultdict(Stream)
    for file in folder.glob("*.told"):
        for line in file.read_text().splitlines():
            word, name, *rest = line.split(" ")
            stream = streams[name]
            if word == "told":
                choice, position, count = map(int, rest)
                stream.told.update((choice, position + one) for one in range(count))
            elif set(rest) == {"0"}:
                stream.begun += 1
            else:
                stream.moved += 1
    return dict(streams)


def figures(streams: dict[str, Stream], usages: dict[str, int]) -> dict[str, float]:
    """The sums over all streams; `usages`: tokens by name, as clients were told at their ends.

    An engine tells a few tokens behind a stop string, until it hears of it.
    """
    exact = {name: tokens for name, tokens in usages.items() if "stop-string" not in name}
    return {
        "engines_streams": len(streams),
        "engines_begun_once": sum(one.begun == 1 for one in streams.values()),
        "engines_begun_again": sum(one.begun > 1 for one in streams.values()),
        "engines_went_on_elsewhere": sum(one.moved for one in streams.values()),
        "engines_tokens": sum(one.told.total() for one in streams.values()),
        "engines_tokens_twice": sum(one.again for one in streams.values()),
        "clients_tokens": sum(exact.values()),
        "engines_tokens_of_those": sum(streams[name].tokens for name in exact),
        "streams_of_other_counts": sum(
            streams[name].tokens != tokens for name, tokens in exact.items()
        ),
    }
