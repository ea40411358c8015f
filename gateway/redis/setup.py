"""`penstock redis-setup`: put the functions where gateways and workers call them. Idempotent.

Runs as a user who may load functions, which theirs may not. A newer library is never replaced by an
older one: during a roll-out, the releases before call the newer one.
"""

from dataclasses import dataclass, replace
from typing import Any

from redis.exceptions import RedisError

from gateway.redis.address import Mode, RedisAddress, parse_address
from gateway.redis.client import AWAY, Client, open_client, open_cluster
from gateway.redis.library import NAME, VERSION, own_version, source, version_of
from gateway.setting_kinds import Secret


class SetupFailed(Exception):  # noqa: N818 - as `ChatFailed`: what has happened
    """The functions are not there; one sentence for an operator."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done at one server."""

    server: str
    loaded: bool  # False: it was there

    def __str__(self) -> str:
        did = "loaded" if self.loaded else "has"
        return f"{self.server} {did} version {own_version()} of the functions"


async def set_up(url: Secret) -> list[Done]:
    """Load the library at every master. Raises SetupFailed."""
    address = replace(parse_address(url.value), patient=True)
    try:
        return [await _load(name, client) for name, client in await _masters(address)]
    except (*AWAY, RedisError) as error:
        raise SetupFailed(f"cannot load functions: {type(error).__name__}: {error}") from error


async def _masters(address: RedisAddress) -> list[tuple[str, Client]]:
    if address.mode is Mode.CLUSTER:
        cluster = open_cluster(address)
        try:
            await cluster.initialize()
            hosts = [(str(node.host), int(node.port)) for node in cluster.get_primaries()]
        finally:
            await cluster.aclose()
        single = replace(address, mode=Mode.SINGLE)
        return [
            (f"{host}:{port}", open_client(replace(single, hosts=((host, port),))))
            for host, port in hosts
        ]
    name = address.service or address.path or ":".join(map(str, address.hosts[0]))
    return [(name, open_client(address))]


async def _load(server: str, client: Client) -> Done:
    try:
        listed = await client.execute_command("FUNCTION", "LIST", "LIBRARYNAME", NAME, "WITHCODE")
        code = _code(listed)
        there = version_of(code)
        if there is not None and there.number > VERSION:
            raise SetupFailed(
                f"{server} has version {there.number} of the functions, newer than {VERSION} here:"
                " run redis-setup of the newest release"
            )
        if code == source():
            return Done(server, loaded=False)
        await client.execute_command("FUNCTION", "LOAD", "REPLACE", source())
        return Done(server, loaded=True)
    finally:
        await client.aclose()


def _code(listed: Any) -> str:
    """The source in the answer to FUNCTION LIST; empty where there is no such library."""
    for library in listed:
        fields = dict(zip(library[::2], library[1::2], strict=True))
        return bytes(fields[b"library_code"]).decode()
    return ""
