"""The listening socket, bound before anything heavy is imported: a taken port is told at once."""

import socket

_BACKLOG = 2048
# The kernel would buffer up to 4 MiB for each reader that does not read. Tokens wait better, and
# merged, on our side; accepted sockets inherit this.
_SEND_BUFFER_BYTES = 65_536


class CannotListen(Exception):  # noqa: N818 - what the operator must know
    """The address cannot be listened on; says why."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises CannotListen."""
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one (IDNA, NUL)
        if listener is not None:
            listener.close()
        why = error.strerror if isinstance(error, OSError) else "this is not a host name"
        raise CannotListen(
            f"cannot listen on {host}:{port}: {why}; choose another --port or --host"
        ) from error
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """The base URL that clients use; a wildcard address is reached by its loopback."""
    port = listener.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared only
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{port}/v1"
