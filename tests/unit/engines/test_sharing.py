"""What keys share of a prompt: where it turns into its own salt, and what the wire tells of it."""

from dataclasses import replace

import pytest

from engines.api import GenerationRequest, RequestId, Sampling, SharedPrefix
from engines.errors import InvalidRequest
from engines.sharing import place_of
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_message, request_of
from kvcache.naming import Turn, namespace, prompt_names, within
from tests.support.engines import limits_for

SPACE = namespace(b"model", b"4")
GROUP = within(SPACE, salt=b"group")
OWN = within(SPACE, salt=b"own")


def request(tokens=None, prompt=range(1, 13)):
    shared = None if tokens is None else SharedPrefix(b"group", tokens)
    return GenerationRequest(
        RequestId("a"), tuple(prompt), Sampling(2), cache_salt=b"own", shared=shared
    )


@pytest.mark.parametrize(
    ("tokens", "place"),
    [
        (None, (OWN, None)),
        (3, (OWN, None)),
        (4, (GROUP, Turn(1, OWN))),
        (7, (GROUP, Turn(1, OWN))),
        (12, (GROUP, Turn(3, OWN))),
        (999, (GROUP, Turn(3, OWN))),
    ],
)
def test_only_whole_blocks_of_the_prompt_are_shared(tokens, place):
    """And what is generated never is."""
    assert place_of(SPACE, request(tokens), 4) == place


def test_an_adapter_has_a_cache_of_its_own_in_a_group_as_well():
    """Its blocks are others, for the same tokens."""
    root, turn = place_of(SPACE, replace(request(4), adapter="poet"), 4)
    assert root == within(SPACE, salt=b"group", adapter="poet")
    assert turn == Turn(1, within(SPACE, salt=b"own", adapter="poet"))


def test_a_cache_of_another_kind_shares_nothing():
    """Its engine knows one salt for a whole prompt."""
    space = namespace(b"model", b"4", turns=False)
    assert place_of(space, request(8), 4) == (within(space, salt=b"own"), None)


def test_names_part_at_the_turn():
    """Two of a group have the names of what they share in common, and no others."""
    chains = [
        prompt_names(GROUP, range(16), 4, Turn(2, within(SPACE, salt=salt)))
        for salt in (b"a", b"b", b"a")
    ]
    assert chains[0] == chains[2]
    assert chains[0][:2] == chains[1][:2] == prompt_names(GROUP, range(8), 4)
    alone = [prompt_names(within(SPACE, salt=salt), range(16), 4) for salt in (b"a", b"group")]
    assert len({*chains[0], *chains[1], *alone[0], *alone[1]}) == 2 + 2 + 2 + 4 + 2
    later = prompt_names(GROUP, range(16), 4, Turn(3, within(SPACE, salt=b"a")))
    assert set(later) & set(chains[0]) == set(chains[0][:2]), "where it turns is in the name"


def test_more_than_the_prompt_cannot_be_shared():
    """An engine refuses what no gateway asks."""
    for tokens in (0, 13):
        with pytest.raises(InvalidRequest, match="shared"):
            limits_for().check(request(tokens))


@pytest.mark.parametrize("cut", range(8, 23))
def test_salts_that_are_cut_off_are_refused(cut):
    """A worker never guesses whose a prompt is."""
    whole = request_message(request(4)).cache_salt
    assert len(whole) == 8 + 8 + 5 + 3
    if cut < 21:
        with pytest.raises(ValueError, match="cut off"):
            request_of(pb.Request(cache_salt=whole[:cut]))
    else:
        assert request_of(pb.Request(cache_salt=whole[:cut])).shared == SharedPrefix(b"group", 4)


def test_what_is_out_of_range_is_refused():
    """Rather than cut."""
    with pytest.raises(ValueError, match="out of range"):
        request_message(request(2**32))
