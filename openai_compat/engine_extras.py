"""Extras of one kind of engine: JSON that is handed on unread, where the operator allows it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.served import ServedModel
from openai_compat.sse import json_bytes

EXTRAS = "engine_extras"
MAX_EXTRAS = 8
# trtllm-serve's field, in requests and in the choices of answers.
_OWN_FIELDS = MappingProxyType({"disaggregated_params": "trtllm.disaggregated"})
EXTRAS_FIELDS = frozenset({EXTRAS, *_OWN_FIELDS})
_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Extras:
    """What a call hands to its engine; what that answers is told under the same fields."""

    asked: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # JSON by name
    own: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # name -> field

    def told(self, answered: Mapping[str, str] | None) -> dict[str, object]:
        """The members of a choice that tell what the engine has answered to it."""
        if not answered:
            return {}
        values = {name: msgspec.json.decode(text) for name, text in answered.items()}
        told = {self.own[name]: values.pop(name) for name in self.own if name in values}
        return {**told, EXTRAS: values} if values else told


NO_EXTRAS = Extras()


def read_extras(fields: Fields, model: ServedModel) -> Extras:
    """What the client hands to the engine. Raises `RequestRejected` naming the field at fault."""
    for name in sorted(EXTRAS_FIELDS):
        if fields.raw(name) is not None and not model.takes_extras:
            raise RequestRejected(
                f"'{fields.param(name)}' is not taken by this server (--engine-extras).",
                param=fields.param(name),
                code="engine_extras_not_enabled",
            )
    listed = fields.entries(EXTRAS, MAX_EXTRAS) or {}
    asked = {
        name: _text(name, value, _place(fields, name), model) for name, value in listed.items()
    }
    own = {extra: name for name, extra in _OWN_FIELDS.items() if fields.raw(name) is not None}
    for extra, name in own.items():
        param = fields.param(name)
        if extra in asked:
            raise RequestRejected(f"'{param}' is also given in '{EXTRAS}'.", param=param)
        asked[extra] = _text(extra, fields.raw(name), param, model)
    return Extras(asked, own) if asked else NO_EXTRAS


def _text(name: str, value: object, param: str, model: ServedModel) -> str:
    if name not in model.info.extras:
        raise RequestRejected(
            f"'{param}' is not understood by this server's engine.",
            param=param,
            code="unsupported_by_engine",
        )
    if not isinstance(value, dict):
        raise wrong(param, "an object", value)
    return json_bytes(value).decode()


def _place(fields: Fields, name: str) -> str:
    """Where an extra stands; only what is harmless in a message is repeated."""
    param = fields.param(EXTRAS)
    return f"{param}.{name}" if _NAMEABLE.fullmatch(name) else param
