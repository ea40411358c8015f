"""The stand-in's model: seeded nonsense, whose logits depend on the sequence alone."""

from hashlib import blake2b

import numpy as np


class Model:
    """Logits of the next token."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def next(self, log: list[int], params) -> tuple[int, np.ndarray]:
        """The token that follows, and all log-probabilities before bias and temperature."""
        logits = 4 * _noise("logits", log).standard_normal(self.vocab_size)
        raw = logits - np.log(np.exp(logits).sum())
        biased = (
            logits if params.embedding_bias is None else logits + np.asarray(params.embedding_bias)
        )
        if not params.temperature:
            return int(biased.argmax()), raw
        gumbel = _noise(f"draw {params.seed}", log).gumbel(size=self.vocab_size)
        return int((biased / params.temperature + gumbel).argmax()), raw


def _noise(name: str, log: list[int]) -> np.random.Generator:
    digest = blake2b(f"{name} {log}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
