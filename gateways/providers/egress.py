"""Connections to hosts that users name, to the public internet only.

What counts is the address that is connected to: a name is resolved once, every address it has must be allowed, and the
connection goes to one of those very addresses. TLS still verifies the name.
"""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from ssl import SSLContext
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateways.providers.hosts import HostNotAllowed, denied, literal, plain_host, plain_url
from gateways.providers.resolver import Addresses, Resolve, Resolver

#: Where mail servers listen. Any other port would make us a scanner of other people's.
MAIL_PORTS: Final = frozenset({25, 143, 465, 587, 993, 2525})
WEB_PORTS: Final = frozenset({443})
PRIVATE: Final = "The host is not on the public internet."
UNKNOWN: Final = "The host has no address."

#: Seconds that an address has to answer in before the next one of its host is tried.
ADDRESS_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Egress:
    """The guard. `allow_private` lets everything through, for tests and for installations within one network."""

    allow_private: bool = False
    resolve: Resolve = field(default_factory=Resolver)

    async def addresses(self, host: str, port: int) -> Addresses:
        """The addresses of a host, all of them allowed. Raises HostNotAllowed, and OSError where it has none."""
        found = await self.resolve(plain_host(host), port)
        if not found:
            raise OSError(UNKNOWN)
        if not all(self.allows(address) for _, (address, _) in found):
            raise HostNotAllowed(PRIVATE)
        return found

    def allows(self, address: str) -> bool:
        """Whether a resolved address may be connected to."""
        return self.allow_private or not denied(ip_address(address.partition("%")[0]))

    def checked_url(self, text: str) -> URL:
        """A URL of a user's that may be called, as far as can be told without resolving its host. Raises HostNotAllowed."""
        url = plain_url(text, http=self.allow_private)
        self._check_literal(url.host or "")
        if not self.allow_private and url.port not in WEB_PORTS:
            raise HostNotAllowed("The URL must not name a port.")
        return url

    def check_mail_server(self, host: str, port: int, *, encrypted: bool) -> None:
        """Raises HostNotAllowed where that is no mail server we would log in to, whatever its addresses are."""
        self._check_literal(plain_host(host))
        if self.allow_private:
            return
        if port not in MAIL_PORTS:
            raise HostNotAllowed("Mail servers listen on port 25, 143, 465, 587, 993 or 2525.")
        if not encrypted:
            raise HostNotAllowed("A mail server is logged in to by TLS or STARTTLS only.")

    def _check_literal(self, host: str) -> None:
        if literal(host) is not None and not self.allows(host):
            raise HostNotAllowed(PRIVATE)

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket; the caller closes it and bounds the time.

        Raises HostNotAllowed, and OSError where no address answers.
        """
        *others, last = await self.addresses(host, port)
        for family, address in others:
            with suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(ADDRESS_SECONDS):
                    return await _connected(family, address)
        return await _connected(*last)

    def connector(self, *, limit: int, keepalive_timeout: float, ssl: SSLContext) -> aiohttp.TCPConnector:
        """Has aiohttp connect to allowed addresses only. Hosts that are addresses must be checked by `checked_url`."""
        return aiohttp.TCPConnector(
            resolver=_GuardedResolver(self),
            use_dns_cache=False,
            socket_factory=self._socket,
            limit=limit,
            keepalive_timeout=keepalive_timeout,
            ssl=ssl,
        )

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The last word, at the moment of connecting: it holds for addresses that no resolver was asked about."""
        family, kind, protocol, _, address = info
        if not self.allows(str(address[0])):
            raise OSError(PRIVATE)
        return socket.socket(family, kind, protocol)


async def _connected(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


class _GuardedResolver(AbstractResolver):
    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, (address, port) in await self._egress.addresses(host, port)
        ]

    async def close(self) -> None:
        """Nothing is held."""
