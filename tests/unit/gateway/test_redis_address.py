"""URLs of Redis: what they say, what is refused, and that no message shows them."""

import subprocess
import sys

import pytest

from gateway.config import ConfigError, read_settings
from gateway.redis.address import Mode, parse_address
from gateway.redis.sharing import advertised


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", (Mode.SINGLE, (("h", 6379),), None, None, 0, False)),
        ("redis://h:1/3", (Mode.SINGLE, (("h", 1),), None, None, 3, False)),
        ("rediss://u:p%40@h:1", (Mode.SINGLE, (("h", 1),), "u", "p@", 0, True)),
        ("redis://:p@[::1]:5", (Mode.SINGLE, (("::1", 5),), None, "p", 0, False)),
        ("redis+cluster://a:1,b", (Mode.CLUSTER, (("a", 1), ("b", 6379)), None, None, 0, False)),
        (
            "rediss+sentinel://u:p@a,b:2/main/4",
            (Mode.SENTINEL, (("a", 26379), ("b", 2)), "u", "p", 4, True),
        ),
    ],
)
def test_a_url_says_where_and_who(url, expected):
    """Ports have defaults; what is quoted is unquoted."""
    at = parse_address(url)
    assert (at.mode, at.hosts, at.user, at.password, at.db, at.tls) == expected


def test_a_socket_file_is_an_address():
    """With a database and a user, as the others."""
    at = parse_address("unix://u:p@/run/redis.sock?db=2")
    assert (at.path, at.user, at.password, at.db, at.hosts) == ("/run/redis.sock", "u", "p", 2, ())
    assert at.local


def test_sentinels_name_a_service():
    """Which one of those that they watch."""
    assert parse_address("redis+sentinel://a/main").service == "main"


@pytest.mark.parametrize(
    "url",
    [
        "", "canary", "http://canary", "redis://", "redis://canary:0", "redis://canary:99999",
        "redis://canary/x", "redis://canary/1/2", "redis://a?canary=1", "redis://a#canary",
        "redis+sentinel://canary", "redis+cluster://canary/1", "unix://canary", "unix://host/canary",
        "redis://[canary", "redis://u:p/canary@host", "redis://canary host",
    ],
)  # fmt: skip
def test_what_is_no_such_url_is_refused_without_showing_it(url):
    """It may hold a password, at a place where none should be."""
    with pytest.raises(ConfigError, match=r"^PENSTOCK_REDIS: ") as caught:
        read_settings({}, environ={"PENSTOCK_REDIS": url})
    assert "canary" not in str(caught.value)


def test_no_repr_shows_the_password():
    """Neither of the address nor of the settings."""
    url = "rediss+sentinel://u:canary@a,b/main?sentinel_password=canary"
    assert "canary" not in repr(parse_address(url))
    assert "canary" not in repr(read_settings({}, environ={"PENSTOCK_REDIS": url}))


def test_beyond_this_machine_a_password_is_needed():
    """Who can write there tells gateways where to send requests."""
    with pytest.raises(ConfigError, match="beyond this machine without a password"):
        read_settings({"redis": "redis://elsewhere"}, environ={})
    for url in ("redis://:p@elsewhere", "redis://127.0.0.1", "redis://localhost", "unix:///a/b"):
        assert read_settings({"redis": url}, environ={}).redis.value == url


def test_an_address_to_advertise_needs_somebody_to_tell():
    """A setting that would do nothing is refused."""
    with pytest.raises(ConfigError, match="without --redis"):
        read_settings({"advertise": "a:1"}, environ={})


def test_redis_is_imported_only_where_it_is_asked_for():
    """Its client takes a tenth of a second, which no other start pays."""
    code = (
        "import sys, gateway.cli, gateway.serve, gateway.workers.process, gateway.redis.address\n"
        "sys.exit('redis' in sys.modules or 'hiredis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("told", "bound", "expected"),
    [
        ("worker-1:8010", "0.0.0.0:8010", "worker-1:8010"),
        (None, "127.0.0.1:8010", "127.0.0.1:8010"),
        (None, "unix:/run/penstock/0", "unix:/run/penstock/0"),
        (None, "0.0.0.0:8010", None),
        (None, "[::]:8010", None),
    ],
)
def test_what_is_bound_is_registered_where_others_can_reach_it(told, bound, expected):
    """All addresses of a machine are none of them: that is said, with the flag."""
    said = []
    assert advertised(told, bound, said.append) == expected
    assert bool(said) is (expected is None)
    assert all("--advertise" in line for line in said)
