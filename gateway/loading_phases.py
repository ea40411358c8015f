"""What loading a model tells of itself, in an operator's words."""

from collections.abc import Callable
from types import MappingProxyType

from gateway.opened import Report

# What an engine's open_model calls its phases; its last one only says that it is done.
_PHASES = MappingProxyType(
    {
        "check": "checking model",
        "weights": "loading weights",
        "lower": "lowering the model, once",
        "compile": "compiling",
    }
)


def in_words(report: Report) -> Callable[[str, float], None]:
    """What takes an engine's phases and reports those that have a name."""
    return lambda phase, _: report(_PHASES[phase]) if phase in _PHASES else None
