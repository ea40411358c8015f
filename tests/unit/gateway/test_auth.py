"""API keys: who is let in, and the salts that keep callers apart."""

import statistics
import time

import pytest

from gateway.auth import (
    ANYBODY,
    Caller,
    Keyring,
    KnownKey,
    cache_salt,
    digest_of,
    group_salt,
    tenant_id,
)
from gateway.limits import Quota
from gateway.setting_kinds import Secret
from openai_compat.errors import Unauthorized

KEYS = Keyring(
    [
        KnownKey(digest_of(b"sk-one")),
        KnownKey(digest_of(b"sk-two"), "second", 2.5, Quota(600, 3)),
    ]
)


def bearer(key):
    return [(b"authorization", b"Bearer " + key)]


def test_without_keys_everyone_is_the_same_caller():
    """And nothing is asked for."""
    assert Keyring([]).identify([]) == ANYBODY == Caller(b"", b"")
    assert Keyring([], anonymous=Quota(5)).identify([]).quota == Quota(5)


@pytest.mark.parametrize("key", [b"sk-one", b"sk-two"])
def test_every_listed_key_is_good(key):
    """Also the second one, in either header, and its salt is its own."""
    assert KEYS.identify(bearer(key)).salt == cache_salt(key)
    assert KEYS.identify([(b"x-api-key", key)]).salt == cache_salt(key)


def test_a_caller_has_what_is_known_of_its_key():
    """A tenant of its own, the weight and the limits that an operator gave it."""
    second = KEYS.identify(bearer(b"sk-two"))
    assert second == Caller(
        cache_salt(b"sk-two"), tenant_id(b"sk-two"), "second", 2.5, Quota(600, 3)
    )
    first = KEYS.identify(bearer(b"sk-one"))
    assert (first.name, first.weight, first.quota) == ("", 1.0, Quota())
    assert len({first.tenant, second.tenant, first.salt, second.salt}) == 4


def test_keys_of_a_group_have_a_salt_in_common_beside_their_own():
    """Which is the group's by its name, and no key's: not even of one that is named so."""
    ring = Keyring([
        KnownKey(digest_of(key), prompt_group=group)
        for key, group in [(b"a", "team"), (b"b", "team"), (b"c", "other"), (b"team", "")]
    ])  # fmt: skip
    one, mate, other, alone = (ring.identify(bearer(key)) for key in (b"a", b"b", b"c", b"team"))
    assert one.group_salt == mate.group_salt == group_salt("team")
    assert alone.group_salt == b""
    salts = {one.salt, mate.salt, other.salt, alone.salt, one.group_salt, other.group_salt}
    assert len(salts) == 6


def test_the_scheme_may_be_written_in_any_case():
    """As HTTP says."""
    assert KEYS.identify([(b"authorization", b"bearer  sk-one")])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer(b""),
        bearer(b"sk-on"),
        bearer(b"sk-one1"),
        bearer(b"\xff\x00"),
        [(b"authorization", b"sk-one")],
        [(b"authorization", b"Basic sk-one")],
        [(b"x-api-key", b"sk-on")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"Bearer sk-one")],
        [(b"api-key", b"sk-one")],
        bearer(b"sk-one") + bearer(b"sk-one"),
        [(b"x-api-key", b"sk-one"), (b"x-api-key", b"sk-one")],
        [*bearer(b"sk-one"), (b"x-api-key", b"sk-one")],
        [*bearer(b"wrong"), (b"x-api-key", b"sk-one")],
    ],
)
def test_anything_but_one_good_key_is_refused(headers):
    """No second credential is looked for, and two are one too many, in whatever headers."""
    with pytest.raises(Unauthorized):
        KEYS.identify(headers)


def test_salts_differ_by_key_and_are_not_the_key():
    """So prefixes are shared only within one key."""
    assert cache_salt(b"a") != cache_salt(b"b")
    assert len(cache_salt(b"a")) == 16
    assert b"sk-one" not in cache_salt(b"sk-one")


def test_no_repr_shows_a_key():
    """A keyring in a log line is harmless."""
    assert "sk-one" not in repr(vars(KEYS))
    assert "sk-one" not in f"{Secret('sk-one')} {Secret('sk-one')!r}"


@pytest.mark.slow
def test_the_time_does_not_tell_how_much_of_a_key_was_right():
    """A long right prefix is refused as fast as a wrong first byte (Welch's t, interleaved)."""
    # Other processes of the machine may favour one side for once, and not three times.
    assert any(_times_are_alike() for _ in range(3))


def _times_are_alike():
    ring = Keyring([KnownKey(digest_of(b"k" * 32))])
    guesses = bearer(b"x" * 32), bearer(b"k" * 31 + b"x")
    times = ([], [])
    for turn in range(20_000):
        side = turn % 2
        began = time.perf_counter_ns()
        with pytest.raises(Unauthorized):
            ring.identify(guesses[side])
        times[side].append(time.perf_counter_ns() - began)
    kept = [sorted(side)[: len(side) // 2] for side in times]
    means = [statistics.fmean(side) for side in kept]
    spread = sum(statistics.variance(side) / len(side) for side in kept) ** 0.5
    apart = abs(means[0] - means[1])
    return apart / spread < 4.5 or apart < 100
