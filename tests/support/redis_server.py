"""Real Redis servers of a test: killed, frozen, emptied, failed over, and started again."""

import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ACL = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
BINARY = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    BINARY is None, reason="no redis-server here; apt-get install redis-server"
)
RUNTIME, DEPLOYER = "runtime-password-0123", "deploy-password-01234"
_START_S = 20


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class RedisServer:
    """One process, on a loopback port of its own; a restart keeps port and options, not data.

    `users`: with the users of deploy/redis, else whoever connects may do everything.
    """

    def __init__(self, folder, *options, users=False, sentinel=False):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.options = options
        self.users = users
        self.sentinel = sentinel
        self.process = None
        if users:
            self._write_users()

    @property
    def url(self):
        login = f"penstock:{RUNTIME}@" if self.users else ""
        return f"redis://{login}127.0.0.1:{self.port}"

    @property
    def deploy_url(self):
        login = f"penstock-deploy:{DEPLOYER}@" if self.users else ""
        return f"redis://{login}127.0.0.1:{self.port}"

    def _write_users(self):
        lines = [line for line in ACL.read_text().splitlines() if not line.startswith("#")]
        text = "\n".join(lines).replace("#RUNTIME_DIGEST", f">{RUNTIME}")
        text = text.replace("#DEPLOY_DIGEST", f">{DEPLOYER}")
        # Another who may do everything, for what a test does to the server.
        (self.folder / "users.acl").write_text(f"{text}\nuser root on >root ~* &* +@all\n")

    def start(self):
        conf = self.folder / "redis.conf"
        if not self.sentinel or not conf.exists():  # a sentinel keeps what it knows in its file
            conf.write_text(self._configuration())
        flags = ["--sentinel"] if self.sentinel else []
        self.process = subprocess.Popen(
            [BINARY, conf, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_S
        while self.try_cli("PING") != "PONG":
            assert self.process.poll() is None, f"redis-server ended: {self.process.returncode}"
            assert time.monotonic() < deadline, "redis-server does not answer"
        return self

    def _configuration(self):
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        if not self.sentinel:
            lines += ['save ""', "appendonly no", "enable-debug-command yes"]
        lines += self.options
        if self.users:
            lines.append(f"aclfile {self.folder / 'users.acl'}")
        return "\n".join(lines) + "\n"

    def try_cli(self, *words, stdin=None):
        login = ["--user", "root", "--pass", "root", "--no-auth-warning"] if self.users else []
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *login, *map(str, words)],
            capture_output=True, text=True, check=False, timeout=20, input=stdin,
        )  # fmt: skip
        return (done.stdout + done.stderr).strip()

    def cli(self, *words, stdin=None):
        answer = self.try_cli(*words, stdin=stdin)
        assert not answer.startswith(("ERR", "NOPERM", "Could not", "(error)")), answer
        return answer

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextmanager
def redis_server(folder, *options, users=False):
    server = RedisServer(folder, *options, users=users)
    try:
        yield server.start()
    finally:
        server.close()


class SentinelTrio:
    """A master, a replica, and three sentinels who agree within a second that a master is gone."""

    def __init__(self, stack, folder):
        def made(name, *options, sentinel=False):
            server = RedisServer(folder / name, *options, sentinel=sentinel).start()
            stack.callback(server.close)
            return server

        self.master = made("master")
        watched = f"127.0.0.1 {self.master.port}"
        self.replica = made("replica", f"replicaof {watched}")
        self.sentinels = [
            made(
                f"sentinel-{number}",
                f"sentinel monitor penstock {watched} 2",
                "sentinel down-after-milliseconds penstock 500",
                "sentinel failover-timeout penstock 2000",
                sentinel=True,
            )
            for number in range(3)
        ]
        _until(lambda: "master_link_status:up" in self.replica.cli("INFO", "replication"))
        for sentinel in self.sentinels:
            _until(lambda one=sentinel: "num-other-sentinels\n2" in one.cli(*_OF_MASTER))
            _until(lambda one=sentinel: "num-slaves\n1" in one.cli(*_OF_MASTER))

    @property
    def url(self):
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/penstock"


_OF_MASTER = "SENTINEL", "MASTER", "penstock"


class Cluster:
    """Three masters that share the slots, with no replicas."""

    def __init__(self, stack, folder, *, users=False):
        self.nodes = []
        for number in range(3):
            options = (
                "cluster-enabled yes", "cluster-node-timeout 1000",
                f"cluster-port {free_port()}", "cluster-config-file nodes.conf",
            )  # fmt: skip
            node = RedisServer(folder / f"node-{number}", *options, users=users)
            stack.callback(node.close)
            self.nodes.append(node.start())
        bounds = (0, 5462, 10923, 16384)
        for number, node in enumerate(self.nodes):
            node.cli("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            bus = node.options[2].split()[1]
            first.cli("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for node in self.nodes:
            _until(lambda one=node: "cluster_state:ok" in one.cli("CLUSTER", "INFO"))
            _until(lambda one=node: "cluster_known_nodes:3" in one.cli("CLUSTER", "INFO"))

    def _url(self, server_url):
        login = server_url.removeprefix("redis://").rpartition("@")[0]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{login}{'@' if login else ''}{hosts}"

    @property
    def url(self):
        return self._url(self.nodes[0].url)

    @property
    def deploy_url(self):
        return self._url(self.nodes[0].deploy_url)


def _until(condition):
    deadline = time.monotonic() + _START_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def sentinel_trio(folder):
    with ExitStack() as stack:
        yield SentinelTrio(stack, folder)


@contextmanager
def cluster(folder, *, users=False):
    with ExitStack() as stack:
        yield Cluster(stack, folder, users=users)
