"""Parameters that samplers must agree on, one rule at a time and several at once."""

from engines.api import Sampling


def make(seed=0, **parameters):
    """Parameters with a seed, for up to a hundred tokens."""
    return Sampling(max_tokens=100, seed=seed, **parameters)


SHAPES = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.8},
    {"top_k": 5},
    {"top_k": 2},
    {"top_k": 1000},
    {"top_p": 0.7},
    {"top_p": 0.05},
    {"min_p": 0.2},
    {"presence": 1.5},
    {"frequency": 0.8},
    {"repetition": 1.7},
    {"bias": {1: 3.0, 10: -4.0}},
    {"min_tokens": 6, "stop_tokens": frozenset({10, 11})},
    {"min_tokens": 5, "stop_tokens": frozenset({10, 11})},
    {"temperature": 1.4, "top_k": 20, "top_p": 0.8, "min_p": 0.02},
    {"temperature": 0.8, "presence": 0.7, "frequency": -0.6, "repetition": 0.8, "top_p": 0.9},
    {"repetition": 1.2, "bias": {5: 2.0, 6: 5.0}, "presence": 1.0, "top_k": 8, "min_p": 0.1},
]
