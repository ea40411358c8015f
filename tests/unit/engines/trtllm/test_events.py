"""The mirror of the KV cache: what it names, what it leaves out, and what it does on a gap."""

import numpy as np
import pytest

from engines.trtllm.events import Cleared, EventMirror
from engines.trtllm.salts import salt_text
from kvcache.events import BlockRemoved, BlockStored
from kvcache.naming import chain, namespace, root_name
from tests.support.trtllm_standin.cache import Cache

SPACE = namespace(b"m", b"4")


def names(tokens, salt=b"", size=4):
    """Our names of the full blocks of a sequence."""
    told, parent = [], root_name(SPACE + salt)
    for end in range(size, len(tokens) + 1, size):
        parent = chain(parent, np.asarray(tokens[end - size : end], dtype="<i4").tobytes())
        told.append(parent)
    return told


class Feed:
    """Events of one engine, numbered."""

    def __init__(self):
        self.mirror = EventMirror(SPACE, 4)
        self.number = 0

    def tell(self, *, window=4096, rank=None, number=None, **data):
        event = {"event_id": self.number if number is None else number, "window_size": window}
        event |= {} if rank is None else {"attention_dp_rank": rank}
        self.number = event["event_id"] + 1
        return self.mirror.read({**event, "data": data})

    def created(self, **changes):
        return self.tell(type="created", num_blocks_per_cache_level=[100, 0], **changes)

    def stored(self, blocks, parent=None, **changes):
        told = [
            {"block_hash": key, "tokens": [{"token_id": t} for t in tokens], **more}
            for key, tokens, more in blocks
        ]
        return self.tell(type="stored", parent_hash=parent, blocks=told, **changes)

    def removed(self, *hashes, **changes):
        return self.tell(type="removed", block_hashes=list(hashes), **changes)


ONE, TWO = [1, 2, 3, 4], [5, 6, 7, 8]


@pytest.fixture
def feed():
    """An engine that has told its size."""
    feed = Feed()
    assert feed.created() == []
    return feed


def test_blocks_get_the_names_of_our_own_chain(feed):
    """Several in one event, and below a block that is known."""
    first, second = names([*ONE, *TWO])
    told = feed.stored([(11, ONE, {}), (22, TWO, {})])
    assert [event.name for event in told] == [first, second]
    assert told[0].parent == root_name(SPACE)
    assert told[1].parent == first
    (third,) = feed.stored([(33, ONE, {})], parent=22)
    assert third.name == names([*ONE, *TWO, *ONE])[2]
    assert feed.removed(22) == [BlockRemoved(second)]
    assert feed.mirror.num_blocks == 100


def test_partial_blocks_and_their_removal_are_left_out(feed):
    """Neither they nor what follows them has a name."""
    assert feed.stored([(11, [1, 2], {})]) == []
    assert feed.stored([(12, ONE, {})], parent=11) == []
    assert feed.removed(11, 12) == []


def test_only_the_largest_window_is_mirrored(feed):
    """Sliding windows keep no whole prefixes."""
    assert feed.created(window=128) == []
    assert feed.mirror.num_blocks == 100
    assert feed.stored([(11, ONE, {})], window=128) == []
    assert len(feed.stored([(11, ONE, {})])) == 1


def test_a_gap_clears_all_and_begins_a_new_generation(feed):
    """What is stored below a forgotten block has no name; a new beginning has."""
    feed.stored([(11, ONE, {})])
    told = feed.removed(99, number=7)
    assert told == [Cleared(1)]
    assert feed.stored([(22, TWO, {})], parent=11) == []
    assert feed.removed(11) == []
    assert [event.name for event in feed.stored([(11, ONE, {})])] == names(ONE)
    assert feed.mirror.generation == 1


def test_hashes_are_the_same_signed_or_unsigned(feed):
    """A removal may tell by two's complement what was stored as unsigned."""
    feed.stored([((1 << 64) - 5, ONE, {})])
    assert feed.removed(-5) == [BlockRemoved(names(ONE)[0])]


def test_longer_hashes_are_kept_as_they_are(feed):
    """Of 256 bits, or as text."""
    for key in (1 << 200, "ab" * 32):
        assert len(feed.stored([(key, ONE, {})])) == 1
        assert feed.removed(key) == [BlockRemoved(names(ONE)[0])]


def test_a_salt_is_part_of_the_name(feed):
    """As of the engine's own pool: behind the namespace."""
    (told,) = feed.stored([(11, ONE, {"cache_salt": b"x".hex()})])
    assert told.name == names(ONE, b"x")[0]


@pytest.mark.parametrize(
    "more",
    [
        [{"cache_salt": "aa"}, {"cache_salt": "bb"}],
        [{"cache_salt": "not ours"}] * 2,
        [{"mm_keys": ["image"]}] * 2,
    ],
)
def test_what_is_not_tokens_under_one_salt_of_ours_is_dropped(feed, more):
    """A wrong name would be worse than none."""
    assert feed.stored([(11, ONE, more[0]), (22, TWO, more[1])]) == []


def test_blocks_of_an_adapter_are_named_within_it(feed):
    """By the salt, which is ours; an adapter that it does not name is not ours either."""
    salt = {"cache_salt": salt_text(b"s", "a")}
    (told,) = feed.stored([(11, ONE, salt)], lora_name="a")
    (again,) = feed.stored([(12, ONE, {"cache_salt": salt_text(b"s", "b")})])
    (plain,) = feed.stored([(13, ONE, {"cache_salt": salt_text(b"s", "")})])
    assert len({told.name, again.name, plain.name}) == 3
    assert feed.stored([(14, ONE, {})], lora_name="a") == []
    assert feed.stored([(15, ONE, salt)], lora_name="b") == []


def test_a_block_is_there_while_any_rank_has_it(feed):
    """Event ids count per rank; a name is removed with its last holder."""
    for rank in (1, 2):
        feed.created(rank=rank, number=0)
    assert len(feed.stored([(11, ONE, {})], rank=1, number=1)) == 1
    assert feed.stored([(11, ONE, {})], rank=2, number=1) == []
    assert feed.removed(11, rank=1, number=2) == []
    assert feed.removed(11, rank=2, number=2) == [BlockRemoved(names(ONE)[0])]


def test_updates_change_nothing(feed):
    """A priority or a level is nobody's name."""
    assert feed.tell(type="updated", block_hash=11) == []


def test_the_mirror_of_a_running_cache_is_the_cache():
    """Seeded sequences over few blocks: stored and removed names are those that are findable."""
    rng = np.random.default_rng(5)
    cache, mirror, findable = Cache(12, 4), EventMirror(SPACE, 4), {}
    for step in range(300):
        tokens = [int(token) for token in rng.integers(0, 2, int(rng.integers(1, 30)))]
        held: list[int] = []
        cache.hold(tokens, (None, 0), held)
        cache.free(held)
        if step % 7 == 0:
            cache.partial()
        for event in cache.events:
            for told in mirror.read(event):
                match told:
                    case BlockStored():
                        assert told.name == chain(told.parent, told.tokens)
                        assert told.name not in findable
                        findable[told.name] = told
                    case BlockRemoved():
                        del findable[told.name]
        cache.events.clear()
        assert len(findable) == len(cache._unheld)
    assert mirror.generation == 0
