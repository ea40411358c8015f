"""A redis-py client for an address, with none of its patience: a dead Redis must not cost seconds.

redis-py by itself waits 5 s for an answer and tries ten times. Here it tries once; how long it may
take, and what to do then, is decided in `link.py`.
"""

from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import (
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.redis.address import Mode, RedisAddress

SOCKET_S = 0.25  # where several can be asked in turn; else `link.py` ends what takes too long
_CONNECT_S = 0.2
_ENDED_BEFORE_S = 2.0  # by the wall's clock, which goes on while a loop is busy
_PATIENT_S = 5.0  # where an operator waits
MAX_CONNECTIONS = 64  # of a process, to each node

LOST = (RedisConnectionError, OSError)  # the connection went before the answer came
UNHEARD = (*LOST, RedisTimeoutError, TimeoutError)  # what was asked may have been done
AWAY = (
    *UNHEARD,
    ReadOnlyError,  # a master that was one
    OutOfMemoryError,
    ClusterDownError,
    TryAgainError,
    RedisClusterException,
)


class Client(Protocol):
    """What is used of redis-py."""

    async def execute_command(self, *words: Any) -> Any:
        """Send one command, and wait for the answer."""

    async def aclose(self) -> None:
        """Close every connection."""


def open_client(address: RedisAddress) -> Client:
    """A client; nothing is connected before the first command."""
    return {
        Mode.SINGLE: _single,
        Mode.SENTINEL: _behind_sentinels,
        Mode.CLUSTER: open_cluster,
    }[address.mode](address)


def _common(address: RedisAddress) -> dict[str, Any]:
    return {
        "username": address.user,
        "password": address.password,
        "socket_timeout": _PATIENT_S if address.patient else SOCKET_S,
        "socket_connect_timeout": _PATIENT_S if address.patient else _CONNECT_S,
        "protocol": 2,  # one round trip less at each new connection
        "driver_info": None,  # two less
        "retry": Retry(NoBackoff(), 0),
    }


def _alone(address: RedisAddress) -> dict[str, Any]:
    """The same for a server without others to ask."""
    limit_s = _PATIENT_S if address.patient else _ENDED_BEFORE_S
    return {**_common(address), "socket_timeout": limit_s, "socket_connect_timeout": limit_s}


def _tls(address: RedisAddress) -> dict[str, Any]:
    """Certificates are always checked, against FILE or what the system trusts."""
    if not address.tls:
        return {}
    given = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
    files = {given[name]: value for name, value in address.options.items() if name in given}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **files}


def _single(address: RedisAddress) -> Client:
    options = {**_alone(address), **_tls(address), "db": address.db}
    if address.path:
        options |= {"path": address.path, "connection_class": UnixDomainSocketConnection}
        del options["socket_connect_timeout"]
    else:
        options["host"], options["port"] = address.hosts[0]
    if address.tls:
        options["connection_class"] = SSLConnection
    return Redis.from_pool(ConnectionPool(max_connections=MAX_CONNECTIONS, **options))


def _behind_sentinels(address: RedisAddress) -> Client:
    tls = {"ssl": True, **_tls(address)} if address.tls else {}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        sentinel_kwargs={
            **_common(address), **tls,
            "username": None, "password": address.options.get("sentinel_password"),
        },
        **_alone(address), **tls, db=address.db,
    )  # fmt: skip
    return _Master(
        sentinels, sentinels.master_for(address.service, max_connections=MAX_CONNECTIONS)
    )


class _Master:
    """The client of a master, which closes those of its sentinels with it."""

    def __init__(self, sentinels: Sentinel, master: Client) -> None:
        self._sentinels = sentinels
        self._master = master
        self.execute_command = master.execute_command

    async def aclose(self) -> None:
        await self._master.aclose()
        for sentinel in self._sentinels.sentinels:
            await sentinel.aclose()


def open_cluster(address: RedisAddress) -> RedisCluster:
    """A client of a cluster, which knows its nodes."""
    tls = {"ssl": True, **_tls(address)} if address.tls else {}
    return RedisCluster(
        startup_nodes=[ClusterNode(*host) for host in address.hosts],
        max_connections=MAX_CONNECTIONS,
        # MOVED and ASK are followed once; a node that is gone is asked for once more.
        **{**_common(address), **tls, "retry": Retry(NoBackoff(), 1)},
    )
