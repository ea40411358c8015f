"""The extras of TensorRT-LLM as JSON: what is taken of it, and that nothing else is."""

import contextlib
import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import InvalidRequest, RequestFailed
from engines.trtllm.disaggregated import read_phase, write_phase
from engines.trtllm.retention import Retention, TokenRange, read_retention
from tests.support.trtllm_standin.facts import facts

KNOWN = frozenset(facts("1.4.0rc1")["DisaggregatedParams"])
HOSTS = frozenset({"10.0.0.7", "fd00::1"})
HANDED = {"first_gen_tokens": [7], "ctx_request_id": 5}


def retention(**members):
    return read_retention(json.dumps(members))


def ranges(*told):
    return {"token_range_retention_configs": [{"priority": 50, **each} for each in told]}


def phase(request_type="generation_only", known=KNOWN, **members):
    text = json.dumps({"request_type": request_type, **members})
    return read_phase(text, known, HOSTS).arguments


# -- retention


def test_retention_is_read_as_it_is_said():
    """Null is as good as missing; times become timedeltas."""
    assert retention() == Retention((), None, None)
    assert retention(
        **ranges({"token_start": 0, "token_end": 4}, {"token_start": 9, "duration_ms": 20}),
        decode_retention_priority=0,
        decode_duration_ms=None,
    ) == Retention(
        (TokenRange(0, 4, 50, None), TokenRange(9, None, 50, timedelta(milliseconds=20))), 0, None
    )


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"directory": "/etc"}, "takes no directory"),
        ({"transfer_mode": "GDS"}, "takes no transfer_mode"),
        ({"decode_retention_priority": 101}, "from 0 to 100"),
        ({"decode_retention_priority": -1}, "from 0 to 100"),
        ({"decode_retention_priority": 1.0}, "an integer"),
        ({"decode_retention_priority": True}, "an integer"),
        ({"decode_duration_ms": 0}, "from 1"),
        ({"token_range_retention_configs": {}}, "an array"),
        ({"token_range_retention_configs": [1]}, "objects"),
        ({"token_range_retention_configs": [{}] * 65}, "at most 64"),
        (ranges({}), "token_start of token_range_retention_configs of trtllm.retention"),
        ({"token_range_retention_configs": [{"token_start": 0}]}, "priority"),
        (ranges({"token_start": 0, "end": 1}), "takes no end"),
        (ranges({"token_start": 4, "token_end": 4}), "in order"),
        (ranges({"token_start": 0, "token_end": 4}, {"token_start": 3}), "in order"),
        (ranges({"token_start": 0}, {"token_start": 9}), "in order"),
    ],
)
def test_retention_that_the_engine_would_not_take_is_refused(members, words):
    """By the member's name; paths above all."""
    with pytest.raises(InvalidRequest, match=words) as refused:
        retention(**members)
    assert refused.value.param == "extras"


# -- phases


def test_a_context_phase_needs_no_more_than_its_name():
    """An id of the orchestrator's own, and the rank that is to compute it, may be there."""
    assert phase("context_only") == {"request_type": "context_only"}
    members = {"disagg_request_id": 2**64 - 1, "ctx_dp_rank": 0}
    assert phase("context_only", **members) == {"request_type": "context_only", **members}


def test_a_generation_phase_is_given_what_the_context_phase_told():
    """State from base64, numbers of 64 bits, an address of a host that the operator lists."""
    endpoint = "tcp://10.0.0.7:5000"
    members = {**HANDED, "draft_tokens": [8, 9], "disagg_request_id": 2**63, "ctx_dp_rank": 1}
    arguments = phase(**members, encoded_opaque_state="AP8=", ctx_info_endpoint=endpoint)
    assert arguments == {
        "request_type": "generation_only", **members, "opaque_state": b"\0\xff",
        "ctx_info_endpoint": endpoint,
    }  # fmt: skip
    many = ["tcp://[fd00::1]:1", endpoint]
    assert phase(**HANDED, ctx_info_endpoint=many)["ctx_info_endpoint"] == many


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"request_type": "context_and_generation"}, "request_type"),
        ({"request_type": None}, "request_type"),
        ({"request_type": ["context_only"]}, "request_type"),
        (
            {"request_type": "context_only", "first_gen_tokens": [1]},
            "takes no ctx_request_id, first_gen",
        ),
        (
            {"request_type": "context_only", "encoded_opaque_state": ""},
            "encoded_opaque_state, first",
        ),
        ({"first_gen_tokens": []}, "first_gen_tokens"),
        ({"first_gen_tokens": [-1]}, "first_gen_tokens"),
        ({"first_gen_tokens": None}, "first_gen_tokens"),
        ({"ctx_request_id": None}, "ctx_request_id"),
        ({"ctx_request_id": 2**64}, "ctx_request_id"),
        ({"ctx_request_id": "5"}, "ctx_request_id"),
        ({"encoded_opaque_state": "!"}, "base64"),
        ({"encoded_opaque_state": "é"}, "base64"),
        ({"encoded_opaque_state": 1}, "a string"),
        ({"opaque_state": "AA=="}, "takes no opaque_state"),
        ({"draft_tokens": [0] * 1025}, "at most 1024"),
        ({"ctx_info_endpoint": "tcp://10.0.0.8:5000"}, "context_hosts"),
        ({"ctx_info_endpoint": "http://10.0.0.7/"}, "context_hosts"),
        ({"ctx_info_endpoint": "tcp://10.0.0.7@evil:1"}, "context_hosts"),
        ({"ctx_info_endpoint": "tcp://[10.0.0.7"}, "context_hosts"),
        ({"ctx_info_endpoint": ["tcp://10.0.0.7:1", "tcp://evil:1"]}, "context_hosts"),
        ({"ctx_info_endpoint": [1]}, "a string or an array"),
        ({"multimodal_hashes": []}, "takes no multimodal_hashes"),
        ({"schedule_style": 1}, "takes no schedule_style"),
        ({"first_gen_logits": [[1]]}, "takes no first_gen_logits"),
    ],
)
def test_a_phase_that_is_not_one_is_refused(members, words):
    """Tensors, images, handles and strange addresses above all."""
    with pytest.raises(InvalidRequest, match=words):
        phase(**{"request_type": "generation_only", **HANDED, **members})


def test_what_is_told_can_be_asked():
    """The answer of a context phase is what the generation phase takes, whatever it holds."""
    empty = dict.fromkeys(KNOWN)
    told = {
        **empty, "request_type": "context_only", "first_gen_tokens": [3], "ctx_request_id": 0,
        "opaque_state": b"\x80\0", "draft_tokens": [], "ctx_dp_rank": 0, "schedule_style": 0,
        "first_gen_log_probs": [], "ctx_usage": {"prompt_tokens": 3},
        "ctx_info_endpoint": "tcp://10.0.0.7:1",
    }  # fmt: skip
    text = write_phase(SimpleNamespace(**told), KNOWN)
    again = read_phase(text.replace("context_only", "generation_only"), KNOWN, HOSTS).arguments
    named = (
        "first_gen_tokens", "ctx_request_id", "opaque_state", "draft_tokens", "ctx_dp_rank",
        "ctx_info_endpoint",
    )  # fmt: skip
    assert again == {"request_type": "generation_only", **{name: told[name] for name in named}}


@pytest.mark.parametrize("name", ["first_gen_logits", "multimodal_embedding_handles"])
def test_what_cannot_be_told_fails_the_request(name):
    """A tensor is no JSON, and without it the other phase would go wrong."""
    told = SimpleNamespace(**{**dict.fromkeys(KNOWN), "opaque_state": b"", name: [object()]})
    with pytest.raises(RequestFailed, match=name):
        write_phase(told, KNOWN)


def test_a_member_that_the_version_lacks_is_refused():
    """Whatever the newest one has."""
    old = frozenset(facts("1.2.1")["DisaggregatedParams"])
    with pytest.raises(InvalidRequest, match="has no ctx_dp_rank"):
        phase(known=old, **HANDED, ctx_dp_rank=0)
    assert phase(known=old, **HANDED)["ctx_request_id"] == 5


# -- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
MEMBERS = st.sampled_from(
    [
        "token_range_retention_configs", "decode_retention_priority", "request_type",
        "first_gen_tokens", "ctx_request_id", "encoded_opaque_state", "ctx_info_endpoint",
    ]
)  # fmt: skip
OBJECTS = st.dictionaries(MEMBERS | st.text(max_size=5), JSON, max_size=4)


@given(st.text() | OBJECTS.map(json.dumps) | JSON.map(json.dumps))
def test_no_text_does_more_than_to_be_refused(text):
    """InvalidRequest, or a value; nothing else is raised by what a client sends."""
    for read in (read_retention, lambda source: read_phase(source, KNOWN, HOSTS)):
        with contextlib.suppress(InvalidRequest):
            read(text)


def test_depth_is_refused_and_not_followed():
    """A parser's recursion limit is no failure of ours."""
    with pytest.raises(InvalidRequest, match="JSON object"):
        read_retention("[" * 100_000)
