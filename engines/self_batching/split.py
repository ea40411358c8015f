"""A choice as one call, or as two where the first may not end it. Pure."""

from hashlib import blake2b

from engines.api import Sampling


def held(sampling: Sampling, said: int) -> int:
    """How many tokens must still come before one of them may be a stop token."""
    return max(0, sampling.min_tokens - said) if sampling.stop_tokens else 0


def seed_of(seed: int, choice: int, said: int) -> int:
    """Another stream of noise for each choice, and for what follows a continuation; 63 bits."""
    key = f"{seed}:{choice}:{said}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 1
