"""One engine of a set: what was sent to it, who is on it, and whether it takes more."""

from dataclasses import dataclass
from typing import Protocol

from engines.api import Engine, EngineLoad, GenerationRequest, RequestId

_TAKES_TURNS = 2  # deaths that did not tell who is to blame


class Guest(Protocol):
    """A stream, as its replica sees it."""

    request: GenerationRequest
    strikes: int  # deaths under it since it was last told anything: above 0 it is a suspect
    told: bool  # this replica has told it something


@dataclass(frozen=True, slots=True)
class Death:
    """Who was there when a replica died."""

    victims: frozenset[RequestId]
    untold: frozenset[RequestId]  # those of them that it had told nothing: one may be the reason
    queued: bool  # some waited in its line, and it is not known who


class Replica:
    """A started engine under a name. Never used again after its death: what restarts is new."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.retired = False
        self.guests: set[Guest] = set()
        self._death: Death | None = None
        self._seen: EngineLoad | None = None
        self._sent = 0  # sequences, since its load was last seen to change

    @property
    def takes(self) -> bool:
        """Whether it may be asked."""
        return self._death is None and not self.retired and self.engine.load().alive

    @property
    def suspects(self) -> int:
        """How many streams are here that a replica died under, and that were told nothing since."""
        return sum(1 for guest in self.guests if guest.strikes)

    def has_turn(self, strikes: int) -> bool:
        """Whether a suspect of so many deaths may come: one of two or more has it to itself.

        Nor does that one come where it would stand in line, which proves nothing.
        """
        if strikes >= _TAKES_TURNS and self.pressure()[0] >= self.engine.info.max_running:
            return False
        here = [guest.strikes for guest in self.guests if guest.strikes]
        return not (strikes and here) or max(strikes, *here) < _TAKES_TURNS

    @property
    def tries(self) -> bool:
        """Whether it is the turn of a suspect, which others better leave alone."""
        return any(guest.strikes >= _TAKES_TURNS for guest in self.guests)

    def die(self) -> Death:
        """Note its death, which all its guests meet; as the first of them found it."""
        if self._death is None:
            self._death = Death(
                frozenset(guest.request.id for guest in self.guests),
                frozenset(guest.request.id for guest in self.guests if not guest.told),
                self.engine.load().waiting > 0,
            )
        return self._death

    def send(self, sequences: int) -> None:
        """Count what its load may not show yet."""
        self._sent += sequences

    def pressure(self) -> tuple[int, int]:
        """Sorts replicas by how busy they are: sequences, then tokens that wait."""
        load = self.engine.load()
        if load is not self._seen and load != self._seen:
            self._seen, self._sent = load, 0
        return load.running + load.waiting + self._sent, load.waiting_tokens
