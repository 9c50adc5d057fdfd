"""Ports on the loopback for servers of our own."""

import random
import socket

from gateways.local_children import CannotStart

# Below the range that systems lend to outgoing connections, so that a server finds its port free when it comes back.
_LOWEST, _HIGHEST = 20_000, 32_000


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, outside the range of ephemeral ports."""
    for port in random.SystemRandom().sample(range(_LOWEST, _HIGHEST), 200):
        if is_free(port):
            return port
    raise CannotStart(f"No free port was found on 127.0.0.1 between {_LOWEST} and {_HIGHEST}.")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_free(setting: str, host: str, port: int) -> None:
    """Raises CannotStart where nobody could listen at this address, which `setting` names."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise CannotStart(
                f"{host}:{port} can't be listened on ({error.strerror}): end what uses it, or set {setting} to another."
            ) from error
