"""The extra `trtllm.disaggregated`: one phase of a request, the other one elsewhere. Pure.

    context_only     computes the prompt and a token; answers where its KV cache is to be fetched
    generation_only  is given that answer, fetches the cache, and goes on

Names and forms are those of trtllm-serve's `disaggregated_params`, and an answer has the same form
as a request. What names tensors, images or handles is not taken. `ctx_info_endpoint` is an address
that the engine connects to: only hosts that the operator lists may stand there.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from engines.errors import InvalidRequest, RequestFailed
from engines.trtllm.members import Members

DISAGGREGATED = "trtllm.disaggregated"
CONTEXT, GENERATION = "context_only", "generation_only"

_STATE = "encoded_opaque_state"  # `opaque_state` in base64
_ENDPOINT = "ctx_info_endpoint"
_UINT64 = 2**64 - 1
_MAX_TOKENS = 1024
_MAX_INT = 2**31 - 1
_MAX_ENDPOINTS = 1024
# What can be told of a context phase, as it is told; usage is counted by whoever serves.
_PLAIN = (
    "request_type", "first_gen_tokens", "ctx_request_id", "draft_tokens", "disagg_request_id",
    "ctx_dp_rank", _ENDPOINT,
)  # fmt: skip
_CARRIED = frozenset({*_PLAIN, "opaque_state", "ctx_usage"})


@dataclass(frozen=True, slots=True)
class Phase:
    """What a request asks. `arguments` are those of DisaggregatedParams."""

    arguments: Mapping[str, object]

    @property
    def hands_on(self) -> bool:
        """Whether the answer must say where to go on."""
        return self.arguments["request_type"] == CONTEXT


def read_phase(source: str, known: frozenset[str], hosts: frozenset[str]) -> Phase:
    """`known`: what this version's DisaggregatedParams takes; `hosts`: what may be connected to.

    Raises InvalidRequest naming the member at fault.
    """
    members = Members.of(source, DISAGGREGATED)
    kind = members.text("request_type")
    if kind not in (CONTEXT, GENERATION):
        raise members.wrong("request_type", f"{CONTEXT} or {GENERATION}")
    found: dict[str, object] = {
        "request_type": kind,
        "disagg_request_id": members.integer("disagg_request_id", _UINT64),
        "ctx_dp_rank": members.integer("ctx_dp_rank", _MAX_INT),
    }
    if kind == GENERATION:
        found |= _handed_on(members, hosts)
    members.end()
    arguments = {name: value for name, value in found.items() if value is not None}
    lacking = sorted(arguments.keys() - known)
    if lacking:
        raise InvalidRequest(f"this TensorRT-LLM has no {', '.join(lacking)}", param="extras")
    return Phase(arguments)


def write_phase(told: Any, known: frozenset[str]) -> str:
    """What an engine's DisaggregatedParams say, as JSON. Raises RequestFailed for what is lost."""
    found = {name: getattr(told, name) for name in known}
    lost = sorted(name for name in found if name not in _CARRIED and not _is_nothing(found[name]))
    if lost:
        raise RequestFailed(f"the engine hands on {', '.join(lost)}, which cannot be carried")
    values = {name: found.get(name) for name in _PLAIN if found.get(name) is not None}
    if (state := found.get("opaque_state")) is not None:
        values[_STATE] = base64.b64encode(state).decode()
    return json.dumps(values, separators=(",", ":"))


def _is_nothing(value: object) -> bool:
    """Neutral: null, nothing listed, the first of an enumeration. A tensor has no truth."""
    return value is None or (isinstance(value, list | dict | str | int) and not value)


def _handed_on(members: Members, hosts: frozenset[str]) -> dict[str, object]:
    """The members that tell what a context phase has left."""
    first = members.integers("first_gen_tokens", _MAX_INT, _MAX_TOKENS)
    if not first:
        raise members.wrong("first_gen_tokens", "the tokens of the context phase")
    if not (members.has("ctx_request_id") or members.has("disagg_request_id")):
        raise members.wrong("ctx_request_id", "that of the context phase")
    return {
        "first_gen_tokens": first,
        "ctx_request_id": members.integer("ctx_request_id", _UINT64),
        "draft_tokens": members.integers("draft_tokens", _MAX_INT, _MAX_TOKENS),
        "opaque_state": _state(members),
        _ENDPOINT: _endpoint(members, hosts),
    }


def _state(members: Members) -> bytes | None:
    text = members.text(_STATE)
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise members.wrong(_STATE, "base64") from None


def _endpoint(members: Members, hosts: frozenset[str]) -> str | list[str] | None:
    """One address, or one for each rank."""
    told = members.texts(_ENDPOINT, _MAX_ENDPOINTS)
    listed = [told] if isinstance(told, str) else told or []
    if not all(_host(each) in hosts for each in listed):
        raise members.wrong(_ENDPOINT, "tcp:// with a host of penstock.context_hosts")
    return told


def _host(endpoint: str) -> str | None:
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return None
    return parts.hostname if parts.scheme == "tcp" else None
