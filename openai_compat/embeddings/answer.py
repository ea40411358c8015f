"""Vectors as the JSON that OpenAI's clients read: numbers, or base64 of little-endian float32."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from openai_compat.sse import json_bytes
from openai_compat.vector_job import Vector, usage_of

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Form:
    """How the vectors of one call are told."""

    base64: bool
    dimensions: int | None  # None: all there are
    normalised: bool  # the model's are of length 1, and so are shortened ones

    def shaped(self, vector: Vector) -> Float32Array:
        """The first `dimensions` numbers, at the length that the whole has."""
        whole = np.asarray(vector, "<f4")
        if self.dimensions is None or self.dimensions == len(whole):
            return whole
        part = whole[: self.dimensions]
        length = float(np.linalg.norm(part.astype(np.float64)))
        return (part / length).astype("<f4") if self.normalised and length > 0 else part

    def told(self, vector: Vector) -> str | list[float]:
        """As it stands in the answer."""
        shaped = self.shaped(vector)
        return b64encode(shaped.tobytes()).decode() if self.base64 else shaped.tolist()


def answer(vectors: Sequence[Vector], *, form: Form, model: str, prompt_tokens: int) -> bytes:
    """The whole answer, vectors in the order of the inputs."""
    # Written one by one: as Python floats all of them together would take eight times the bytes.
    data = [
        msgspec.Raw(
            json_bytes({"object": "embedding", "index": index, "embedding": form.told(vector)})
        )
        for index, vector in enumerate(vectors)
    ]
    return json_bytes(
        {"object": "list", "data": data, "model": model, "usage": usage_of(prompt_tokens)}
    )
