"""deploy/redis on a real Redis: what each user may do, and what nobody may."""

import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from gateway.redis import library
from tests.support.command import ROOT, clean_environment
from tests.support.deploy_files import DEPLOY

FOLDER = DEPLOY / "redis"
START = FOLDER / "start.sh"
RUNTIME, DEPLOYER = "runtime-password-0123", "deploy_password-0123"
JUDGE = "judge-password-0123"
LIBRARY = (
    "#!lua name=penstock_of_this_test\n"
    "redis.register_function('penstock_read', function(keys)\n"
    "  return redis.call('GET', keys[1])\n"
    "end)\n"
)
NO_USER = ()

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="no redis-server here; apt-get install redis-server",
)


def begin(folder, password=RUNTIME):
    """Start Redis as compose does, on a Unix socket; with one who may ask what others may."""
    for name in ("secrets", "run", "data"):
        (folder / name).mkdir()
    (folder / "secrets" / "redis-password").write_text(f"{password}\n")
    (folder / "secrets" / "redis-deploy-password").write_text(f"{DEPLOYER}\n")
    users = folder / "users.template"
    users.write_text(f"{(FOLDER / 'users.acl').read_text()}user judge on >{JUDGE} +@all\n")
    files = [FOLDER / "redis.conf", users, folder / "secrets", folder / "run"]
    where = ["--port", "0", "--unixsocket", folder / "socket", "--dir", folder / "data"]
    return subprocess.Popen(
        ["sh", START, *files, *where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """Calls of redis-cli by user: the first line of the answer."""
    folder = tmp_path_factory.mktemp("r")
    process = begin(folder)

    def call(user, *words, stdin=""):
        name = ["--user", user[0], "--pass", user[1], "--no-auth-warning"] if user else []
        command = ["redis-cli", "-s", folder / "socket", *name, *words]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=20
        )
        return (done.stdout + done.stderr).strip()

    deadline = time.monotonic() + 20
    while call(("health", "any"), "PING") != "PONG":
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
    yield SimpleNamespace(
        call=call,
        runtime=lambda *words: call(("penstock", RUNTIME), *words),
        deploy=lambda *words, stdin="": call(("penstock-deploy", DEPLOYER), *words, stdin=stdin),
        judge=lambda *words: call(("judge", JUDGE), *words),
        folder=folder,
    )
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.mark.parametrize(
    "command",
    [
        "SET penstock:a 1", "HSET penstock:h f 1", "XADD penstock:s 1-1 f v",
        "XREAD COUNT 1 STREAMS penstock:s 0", "PEXPIRE penstock:a 100000", "UNLINK penstock:gone",
        "PUBLISH penstock:aborts x", "TIME", "CLIENT ID", "WAIT 0 1", "MULTI",
        "ZADD penstock:z 1 a", "HELLO 3",
    ],
)  # fmt: skip
def test_the_product_reaches_its_own_keys(redis, command):
    """Data commands on keys and channels below penstock:."""
    answer = redis.runtime(*command.split())
    assert not answer.startswith(("NOPERM", "ERR", "NOAUTH", "WRONGPASS"))


@pytest.mark.parametrize("command", ["GET other", "SET other 1", "PUBLISH other x", "HGETALL x"])
def test_the_product_reaches_nobody_elses(redis, command):
    """Nor their channels."""
    assert redis.runtime(*command.split()).startswith("NOPERM")


@pytest.mark.parametrize(
    "command",
    [
        "EVAL x 0", "EVALSHA x 0", "SCRIPT LOAD x", "FUNCTION LOAD x", "FUNCTION FLUSH",
        "CONFIG GET *", "CONFIG SET dir /", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "FLUSHALL",
        "FLUSHDB", "INFO", "ACL LIST", "MODULE LIST", "DUMP penstock:a",
        "RESTORE penstock:a 0 x", "MIGRATE h 1 k 0 1", "MOVE penstock:a 1", "SORT penstock:a",
        "REPLICAOF NO ONE", "SHUTDOWN", "MONITOR", "SAVE", "BGSAVE", "SWAPDB 0 1",
        "CLIENT LIST", "CLIENT KILL ID 9", "CLIENT PAUSE 1", "SLOWLOG GET",
    ],
)  # fmt: skip
def test_the_product_may_not_run_the_store(redis, command):
    """No scripts, no configuration, no listing, no emptying, no replication."""
    assert redis.runtime(*command.split()).startswith("NOPERM")


def test_functions_are_put_there_by_one_user_and_called_by_the_other(redis):
    """A function reaches what its caller may reach, and not more."""
    loaded = redis.deploy("-x", "FUNCTION", "LOAD", "REPLACE", stdin=LIBRARY)
    assert loaded == "penstock_of_this_test"
    assert redis.runtime("SET", "penstock:read", "7") == "OK"
    assert redis.runtime("FCALL", "penstock_read", "1", "penstock:read") == "7"
    assert redis.runtime("FCALL", "penstock_read", "1", "other").startswith("NOPERM")


def test_the_products_own_functions_come_and_are_called_so(redis):
    """By `penstock redis-setup`, as compose and the chart run it; the product's user may not."""

    def set_up(name, password):
        return subprocess.run(
            [sys.executable, "-m", "gateway", "redis-setup"],
            cwd=ROOT,
            env=clean_environment(
                PENSTOCK_REDIS=f"unix://{name}:{password}@{redis.folder / 'socket'}"
            ),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    refused = set_up("penstock", RUNTIME)
    assert refused.returncode == 1
    assert "NoPermissionError" in refused.stderr
    done = set_up("penstock-deploy", DEPLOYER)
    assert done.returncode == 0, done.stderr
    told = redis.runtime("FCALL", library.VERSION_FUNCTION, "1", "penstock:{probe}")
    assert told == str(library.own_version())
    names = set(re.findall(r"'(penstock_[a-z_]+)'", library.source()))
    assert len(names) > 3
    for name in names:  # what it would do without arguments is not asked here
        answer = redis.runtime("FCALL", name, "0")
        assert not answer.startswith("NOPERM")
        assert "not found" not in answer


def test_the_products_functions_do_nothing_that_its_user_may_not(redis):
    """A function has the rights of who calls it: one command too many would fail there alone."""
    used = set(re.findall(r"redis\.call\('([A-Z]+)'", library.source()))
    assert len(used) > 8
    for command in sorted(used):
        arity = int(redis.judge("COMMAND", "INFO", command).splitlines()[1])
        words = ["penstock:x"] * (abs(arity) - 1)
        assert redis.judge("ACL", "DRYRUN", "penstock", command, *words) == "OK", command
    assert redis.judge("ACL", "DRYRUN", "penstock", "FLUSHALL") != "OK"


@pytest.mark.parametrize("command", ["GET penstock:a", "EVAL x 0", "FCALL f 0", "CONFIG GET *"])
def test_whoever_loads_functions_reads_no_key(redis, command):
    """Nor does anything else."""
    assert redis.deploy(*command.split()).startswith("NOPERM")


@pytest.mark.parametrize("user", ["penstock", "penstock-deploy"])
@pytest.mark.parametrize("words", [["CLUSTER", "SLOTS"], ["COMMAND"], ["HELLO", "3"], ["PING"]])
def test_a_client_of_a_cluster_may_ask_where_its_parts_are(redis, user, words):
    """What redis-py sends before it sends anything of ours."""
    assert redis.judge("ACL", "DRYRUN", user, *words) == "OK"


def test_without_a_password_there_is_nothing_but_ping(redis):
    """The user of Redis' clients that name none is off."""
    assert redis.call(NO_USER, "PING").startswith("NOAUTH")
    assert "WRONGPASS" in redis.call(("penstock", "wrong"), "PING")
    assert redis.call(("health", "any"), "GET", "penstock:a").startswith("NOPERM")


def test_the_file_of_users_holds_no_password(redis):
    """Digests only, for the owner only."""
    written = redis.folder / "run" / "users.acl"
    text = written.read_text()
    assert len(re.findall("#[0-9a-f]{64}", text)) == 2
    assert RUNTIME not in text
    assert DEPLOYER not in text
    assert written.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("password", ["short", "white space is not for urls", "slash/slash/slash"])
def test_a_password_that_does_not_fit_is_refused_at_the_start(tmp_path, password):
    """Too short, or such that it would break the URL it stands in."""
    process = begin(tmp_path, password)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert output.startswith("redis-password: ")
    assert password not in output
