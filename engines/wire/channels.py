"""Addresses, limits and credentials of the connection between gateways and workers."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

SERVICE = "penstock.engine.v1.Engine"
INFO, DRAIN, SESSION, FIND, KV_EVENTS = (
    f"/{SERVICE}/{name}" for name in ("Info", "Drain", "Session", "Find", "KvEvents")
)

_HEADER = "authorization"
_LARGEST_MESSAGE = 64 << 20  # bytes: a prompt of a million tokens is 5 MiB
_LIMITS = (
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.max_send_message_length", _LARGEST_MESSAGE),
    ("grpc.max_metadata_size", 16 << 10),
)
# A peer that no longer answers is found in some seconds, also while nothing is sent.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.ping_timeout_ms", 3_000),  # else a minute, whatever the timeout above says
    ("grpc.http2.max_pings_without_data", 0),
)
_SERVER = (
    # Pings are how the other side keeps a quiet session alive: none is one too many.
    ("grpc.http2.min_ping_interval_without_data_ms", 10),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of mutual TLS, PEM: both sides show a certificate that `ca` has signed."""

    certificate: Path
    key: Path
    ca: Path


class Unsafe(ValueError):  # noqa: N818 - names what an address is
    """An address beyond this machine was given without TLS."""


def server(token: str) -> grpc.aio.Server:
    """A server that answers only who knows the token."""
    options = (*_LIMITS, *_KEEPALIVE, *_SERVER)
    return grpc.aio.server(interceptors=[_TokenGuard(token)], options=options)


def bind(made: grpc.aio.Server, address: str, tls: Tls | None) -> str:
    """Listen at `unix:PATH` or `HOST:PORT`; the address with the port that was chosen.

    Raises Unsafe for a host beyond loopback without TLS, RuntimeError where binding fails.
    """
    _check(address, tls)
    if tls is None:
        port = made.add_insecure_port(address)
    else:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials(
            [pair], tls.ca.read_bytes(), require_client_auth=True
        )
        port = made.add_secure_port(address, credentials)
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel to an address; it connects when it is first used. Raises Unsafe."""
    _check(address, tls)
    options = (*_LIMITS, *_KEEPALIVE, ("grpc.use_local_subchannel_pool", 1))
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    return grpc.aio.secure_channel(address, credentials, options)


def metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What a caller sends so that it is answered."""
    return ((_HEADER, f"Bearer {token}"),)


def is_local(address: str) -> bool:
    """Whether an address is within this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may mean anything


def _check(address: str, tls: Tls | None) -> None:
    if tls is None and not is_local(address):
        raise Unsafe(f"{address} is beyond this machine: workers there need TLS on both sides")


class _TokenGuard(grpc.aio.ServerInterceptor):
    """Refuses every call, of whatever service, that does not carry the token."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()
        self._refusal: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            _refuse  # of any shape of call, before it has said anything
        )

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        details: Any,  # grpc.HandlerCallDetails
    ) -> Any:
        if self._known(details.invocation_metadata):
            return await continuation(details)
        return self._refusal

    def _known(self, given: Iterable[tuple[str, str | bytes]]) -> bool:
        shown = [value for key, value in given if key == _HEADER]
        if len(shown) != 1:
            return False
        value = shown[0]
        return hmac.compare_digest(
            value.encode() if isinstance(value, str) else value, self._wanted
        )


async def _refuse(_: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")
