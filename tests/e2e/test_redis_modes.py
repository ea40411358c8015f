"""The link by socket file, over TLS, behind sentinels and to a cluster; and who may do what."""

import asyncio
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.redis.errors import RedisDown, RedisRefused, RedisUnusable
from gateway.redis.library import own_version, source
from gateway.redis.link import CALL_S, Purpose, RedisLink
from gateway.redis.registry import registry_keys
from gateway.redis.setup import set_up
from gateway.setting_kinds import Secret
from tests.support.certificates import Authority
from tests.support.command import ROOT, clean_environment
from tests.support.redis_server import (
    RedisServer,
    cluster,
    free_port,
    needs_redis,
    redis_server,
    sentinel_trio,
)

pytestmark = needs_redis

FOR = Purpose.RECORDS
SLACK_S = 0.25


@asynccontextmanager
async def linked(url):
    link = RedisLink(Secret(url))
    link.start()
    try:
        async with asyncio.timeout(10):
            await link.came_up()
        yield link
    finally:
        await link.close()


async def answered_again(call, within_s=20):
    """Ask until there is an answer; no call takes longer than one may. Returns how many failed."""
    failed = 0
    async with asyncio.timeout(within_s):
        while True:
            began = time.monotonic()
            try:
                await call()
            except RedisUnusable:
                failed += 1
            else:
                return failed
            finally:
                assert time.monotonic() - began < CALL_S + SLACK_S
            await asyncio.sleep(0.02)


def write_and_read(url, options=""):
    async def scenario():
        async with linked(f"{url}{options}") as link:
            await link.command("SET", "penstock:{t}:a", "x", purpose=FOR)
            return await link.command("GET", "penstock:{t}:a", purpose=FOR)

    return asyncio.run(scenario())


def test_a_socket_file(tmp_path):
    """unix:// and a path."""
    path = tmp_path / "socket"
    with redis_server(tmp_path / "redis", f"unixsocket {path}"):
        assert write_and_read(f"unix://{path}") == b"x"


def test_tls_is_checked(tmp_path):
    """With the authority that has signed; nobody is talked to whom no known one has."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("redis", "IP:127.0.0.1")
    server = RedisServer(
        tmp_path / "redis", f"tls-cert-file {certificate}", f"tls-key-file {key}",
        f"tls-ca-cert-file {authority.certificate}", "tls-auth-clients no",
    )  # fmt: skip
    tls_port = free_port()
    server.options += (f"tls-port {tls_port}",)
    try:
        server.start()
        url = f"rediss://127.0.0.1:{tls_port}"
        assert write_and_read(url, f"?ca={authority.certificate}") == b"x"

        async def unknown():
            link = RedisLink(Secret(url))
            link.start()
            try:
                async with asyncio.timeout(10):
                    while link.counts.failures[Purpose.PROBE] < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert not link.up
            finally:
                await link.close()

        asyncio.run(unknown())
    finally:
        server.close()


def test_a_failover_is_followed(tmp_path):
    """The master is killed: writes go to the one that the sentinels choose, without a restart."""

    async def scenario(trio):
        async with linked(trio.url) as link:

            def write():
                return link.command("SET", "penstock:{t}:a", "x", purpose=FOR)

            await write()
            trio.master.kill()
            assert await answered_again(write) >= 1
            assert link.openings >= 1
            assert "role:master" in trio.replica.cli("INFO", "replication")
            assert trio.replica.cli("GET", "penstock:{t}:a") == "x"
            keys = registry_keys("worker")  # functions are there as well
            assert await link.call("penstock_members", keys, purpose=FOR) == []

    with sentinel_trio(tmp_path) as trio:
        assert asyncio.run(set_up(Secret(trio.url)))[0].loaded
        asyncio.run(scenario(trio))


def test_a_cluster_with_our_users(tmp_path):
    """Functions on every master, keys in all slots, and a node that is killed and comes back."""

    async def scenario(nodes):
        async with linked(nodes.url) as link:
            for number in range(40):
                key = f"penstock:{{{number}}}:a"
                await link.command("SET", key, number, purpose=FOR)
                assert await link.command("GET", key, purpose=FOR) == b"%d" % number
                keys = [f"penstock:{{{number}}}:{n}" for n in "bcd"]
                assert await link.call("penstock_members", keys, purpose=FOR) == []
            assert all(int(node.cli("DBSIZE")) for node in nodes.nodes)
            with pytest.raises(RedisUnusable):  # keys of two slots
                await link.call("penstock_members", ["penstock:{1}:a", "b", "c"], purpose=FOR)
            slot = "penstock:{1}:a"

            def write():
                return link.command("SET", slot, "x", purpose=FOR)

            (owner,) = [node for node in nodes.nodes if node.cli("EXISTS", slot) == "1"]
            owner.kill()
            with suppress(RedisDown):
                while True:
                    await write()
            await asyncio.to_thread(owner.start)
            await answered_again(write)

    with cluster(tmp_path, users=True) as nodes:
        done = asyncio.run(set_up(Secret(nodes.deploy_url)))
        assert [one.loaded for one in done] == [True] * 3
        assert len({one.server for one in done}) == 3
        asyncio.run(scenario(nodes))


# -- setting it up


def redis_setup(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gateway", "redis-setup", *arguments],
        cwd=ROOT, env=clean_environment(**environment), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_setting_up_twice_changes_nothing(tmp_path):
    """By the flag or the variable; the version is told."""
    with redis_server(tmp_path / "redis", users=True) as server:
        first = redis_setup("--redis", server.deploy_url)
        assert (first.returncode, first.stderr) == (0, "")
        place = f"127.0.0.1:{server.port}"
        assert first.stdout == f"{place} loaded version {own_version()} of the functions\n"
        again = redis_setup(PENSTOCK_REDIS=server.deploy_url)
        assert again.stdout == f"{place} has version {own_version()} of the functions\n"
        assert "penstock_register" in server.cli("FUNCTION", "LIST")


def test_an_older_library_is_replaced_and_a_newer_one_is_not(tmp_path):
    """A roll-out has both releases at work, and the older calls the newer functions."""
    with redis_server(tmp_path / "redis", users=True) as server:
        old = source().replace(f"-- version {own_version()}", "-- version 0 0123456789abcdef")
        server.cli("-x", "FUNCTION", "LOAD", stdin=old)
        assert " loaded version " in redis_setup("--redis", server.deploy_url).stdout
        new = source().replace(f"-- version {own_version()}", "-- version 999 0123456789abcdef")
        server.cli("-x", "FUNCTION", "LOAD", "REPLACE", stdin=new)
        refused = redis_setup("--redis", server.deploy_url)
        assert refused.returncode == 1
        assert "version 999 of the functions, newer than" in refused.stderr
        assert "-- version 999" in server.cli("FUNCTION", "LIST", "WITHCODE")


@pytest.mark.parametrize(
    ("url", "code", "word"),
    [
        ("redis://penstock-deploy:wrong-canary-word@127.0.0.1:{port}", 1, "cannot load functions"),
        ("redis://penstock:runtime-password-0123@127.0.0.1:{port}", 1, "NoPermissionError"),
        ("redis://x:wrong-canary-word@127.0.0.1:1", 1, "cannot load functions"),
        ("http://wrong-canary-word@host", 2, "must begin with redis://"),
    ],
)
def test_what_cannot_be_set_up_is_told_without_the_password(tmp_path, url, code, word):
    """In one line."""
    with redis_server(tmp_path / "redis", users=True) as server:
        done = redis_setup("--redis", url.format(port=server.port))
    assert done.returncode == code
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr
    assert "runtime-password" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("EVAL", "return 1", 0), ("CONFIG", "GET", "*"), ("FUNCTION", "LIST"),
        ("FUNCTION", "LOAD", "REPLACE", "#!lua name=penstock"), ("KEYS", "*"),
        ("FLUSHALL", "ASYNC"),
        ("SCRIPT", "LOAD", "return 1"), ("GET", "another"),
    ],
)  # fmt: skip
def test_the_link_of_a_gateway_may_do_no_more_than_it_needs(tmp_path, words):
    """By the users of deploy/redis; what it may not is refused, and is no reason to go down."""

    async def scenario(server):
        async with linked(server.url) as link:
            with pytest.raises(RedisRefused):
                await link.command(*words, purpose=FOR)
            assert await link.call("penstock_members", registry_keys("worker"), purpose=FOR) == []
            assert link.up

    with redis_server(tmp_path / "redis", users=True) as server:
        asyncio.run(set_up(Secret(server.deploy_url)))
        asyncio.run(scenario(server))
