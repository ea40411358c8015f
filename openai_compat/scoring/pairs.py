"""Pairs of texts to the prompts that judge them, and their vectors to scores.

A cross-encoder reads each pair at once and gives one logit. An embedding model reads every text
once, however many pairs it is in; a pair's score is the cosine of its two vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.text.many import Cut, Encoded
from openai_compat.errors import RequestRejected
from openai_compat.served import ServedModel
from openai_compat.texts import Text, encode_texts
from openai_compat.vector_job import Vector


@dataclass(frozen=True, slots=True)
class Side:
    """Texts of one side of the pairs, with the names that refusals give them."""

    texts: Sequence[str]
    params: Sequence[str]


@dataclass(frozen=True, slots=True)
class Judging:
    """What runs, and how its vectors become one score per pair."""

    encoded: Sequence[Encoded]
    pairs: Sequence[tuple[int, int]] | None  # of vectors to compare; None: each is a pair's logit
    activation: bool = True  # a logit becomes a number from 0 to 1

    def scores(self, vectors: Sequence[Vector]) -> list[float]:
        """One score per pair, in order."""
        if self.pairs is None:
            logits = [float(vector[0]) for vector in vectors]
            return [_sigmoid(logit) for logit in logits] if self.activation else logits
        units = [_unit(vector) for vector in vectors]
        return [float(units[one] @ units[other]) for one, other in self.pairs]


def judging(
    first: Side, second: Side, model: ServedModel, *, cut: Cut | None, activation: bool
) -> Judging:
    """One pair per text of the longer side; a lone text on the first side is in all of them.

    Raises `RequestRejected`.
    """
    if model.info.ranks:
        return _by_cross_encoder(first, second, model, cut=cut, activation=activation)
    if not activation:
        raise RequestRejected(
            "'use_activation' false needs a model that ranks; this one compares embeddings.",
            param="use_activation",
            code="unsupported_parameter",
        )
    return _by_angle(first, second, model, cut)


def _by_cross_encoder(
    first: Side, second: Side, model: ServedModel, *, cut: Cut | None, activation: bool
) -> Judging:
    alone = len(first.texts) == 1
    if alone:  # or a long text would be tokenised once per pair before it is refused
        encode_texts(first.texts, first.params, model)
    pairs: list[Text] = [
        (first.texts[0 if alone else place], text) for place, text in enumerate(second.texts)
    ]
    return Judging(encode_texts(pairs, second.params, model, cut=cut), None, activation)


def _by_angle(first: Side, second: Side, model: ServedModel, cut: Cut | None) -> Judging:
    prompts = model.prompts
    texts = [prompts.applied(text, prompts.of_query) for text in first.texts]
    texts += [prompts.applied(text, prompts.of_document) for text in second.texts]
    encoded = encode_texts(texts, [*first.params, *second.params], model, cut=cut)
    count = len(first.texts)
    pairs = [(0 if count == 1 else i, count + i) for i in range(len(second.texts))]
    return Judging(encoded, pairs)


def _sigmoid(logit: float) -> float:
    """Written so that neither end overflows."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _unit(vector: Vector) -> np.ndarray:
    values = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(values))
    return values / length if length > 0 else values
