"""The SMTP door as a whole, opened and closed in order."""

import ssl
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateways.mail_in.door import Door
from gateways.mail_in.smtp import SmtpServer
from gateways.mail_in.smtp_limits import Limits
from gateways.mail_in.smtp_measures import SmtpMeasures

#: Connections at once where rates are off, for load tests.
UNRATED_CONNECTIONS = 2000


async def open_smtp(
    door: Door,
    stack: AsyncExitStack,
    *,
    address: tuple[str, int],
    hostname: str,
    limits: Limits,
    rates_on: bool,
    certificate: tuple[Path, Path | None] | None,
    metrics: CollectorRegistry,
) -> None:
    """Listens for SMTP until the stack is closed; `certificate` are the chain and its key. Raises OSError, ssl.SSLError."""
    if not rates_on:
        limits = replace(limits, connections=UNRATED_CONNECTIONS, connections_per_client=None)
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    server = SmtpServer(door, limits=limits, tls_context=tls, hostname=hostname, counts=SmtpMeasures(metrics))
    await server.start(*address)
    stack.push_async_callback(server.stop)
