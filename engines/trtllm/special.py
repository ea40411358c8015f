"""What a request asks beside sampling: a LoRA adapter, retention, one phase. Pure."""

from dataclasses import dataclass

from engines.api import GenerationRequest
from engines.errors import InvalidRequest, Unsupported
from engines.self_batching.split import held
from engines.trtllm.disaggregated import DISAGGREGATED, Phase, read_phase
from engines.trtllm.retention import RETENTION, Retention, read_retention


@dataclass(frozen=True, slots=True)
class Special:
    """Of one request."""

    adapter: str = ""
    retention: Retention | None = None
    phase: Phase | None = None

    @property
    def hands_on(self) -> bool:
        """Whether the answer must say where another engine goes on."""
        return self.phase is not None and self.phase.hands_on

    @property
    def fetches(self) -> bool:
        """Whether the engine begins with what another one has computed."""
        return self.phase is not None and not self.phase.hands_on


PLAIN = Special()


@dataclass(frozen=True, slots=True)
class Specials:
    """Reads it of requests to one engine."""

    extras: frozenset[str] = frozenset()  # the names that it understands
    phases: frozenset[str] = frozenset()  # what its DisaggregatedParams takes
    hosts: frozenset[str] = frozenset()  # that a request may have it connect to

    def read(self, request: GenerationRequest) -> Special:
        """Raises InvalidRequest naming what is wrong, or goes with nothing else that is asked."""
        if not request.extras:
            return Special(request.adapter) if request.adapter else PLAIN
        retention, phase = request.extras.get(RETENTION), request.extras.get(DISAGGREGATED)
        return Special(
            request.adapter,
            None if retention is None else read_retention(retention),
            None if phase is None else self._phase(phase, request),
        )

    def _phase(self, source: str, request: GenerationRequest) -> Phase | None:
        """None for a generation phase that was lost on its way: it computes its prompt itself.

        What the first engine has fetched is not there to be fetched again. A context phase that was
        lost is asked once more as it was.
        """
        phase = read_phase(source, self.phases, self.hosts)
        _check(phase, request)
        return None if request.emitted and not phase.hands_on else phase


def _check(phase: Phase, request: GenerationRequest) -> None:
    sampling = request.sampling
    if request.n != 1:
        raise InvalidRequest(f"n is {request.n}; one phase is of one choice", param="n")
    if phase.hands_on and sampling.max_tokens != 1:
        raise InvalidRequest(
            f"max_tokens is {sampling.max_tokens}; a context phase says one token",
            param="max_tokens",
        )
    beside = {
        "logprobs": sampling.logprobs is not None,  # those of the first tokens are not handed on
        "grammar": sampling.grammar is not None,
        "thinking": sampling.thinking is not None,
        "min_tokens": held(sampling, 0) > 0,  # would be two calls
    }
    for param, asked in beside.items():
        if asked:
            raise Unsupported(f"one phase of a request goes without {param}", param=param)
