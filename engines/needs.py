"""Which capabilities a request's sampling asks for."""

from engines.api import Capability, Sampling


def needed(sampling: Sampling) -> frozenset[Capability]:
    """The capabilities without which `sampling` could only be ignored."""
    wants = {
        Capability.SAMPLING: sampling.temperature != 0,
        Capability.PENALTIES: bool(
            sampling.presence or sampling.frequency or sampling.repetition != 1
        ),
        Capability.LOGIT_BIAS: bool(sampling.bias),
        Capability.LOGPROBS: sampling.logprobs is not None,
        Capability.PROMPT_LOGPROBS: sampling.prompt_logprobs is not None,
        Capability.GUIDES: bool(
            sampling.allowed is not None or sampling.bad_words or sampling.thinking is not None
        ),
        Capability.GRAMMAR: sampling.grammar is not None,
    }
    return frozenset(capability for capability, wanted in wants.items() if wanted)
