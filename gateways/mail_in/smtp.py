"""Mail by SMTP: the server. `smtp_session` is one connection, `smtp_commands` its verbs, `smtp_data` the mail itself.

It listens, watches the deadlines of all connections, and stops without losing a mail that has begun.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from types import TracebackType
from typing import Self

from gateways.mail_in.door import Door
from gateways.mail_in.smtp_commands import Receiver
from gateways.mail_in.smtp_limits import Limits
from gateways.mail_in.smtp_service import Counts, Service, Uncounted
from gateways.mail_in.smtp_tls import self_signed

_BACKLOG = 512


class SmtpServer:
    """Takes mail in by SMTP and hands it to a `Door`.

        server = SmtpServer(door, hostname="mx.example.org")
        await server.start("127.0.0.1", 2525)
        ...
        await server.stop(grace=10)

    or, on a free port of the loopback address, `async with SmtpServer(door) as server: ... server.port`.
    Without a TLS context STARTTLS is offered with a certificate of our own making.
    """

    def __init__(
        self,
        door: Door,
        *,
        limits: Limits | None = None,
        tls_context: ssl.SSLContext | None = None,
        hostname: str | None = None,
        counts: Counts | None = None,
    ) -> None:
        name = hostname or socket.gethostname() or "localhost"
        self._service = Service(
            door=door,
            limits=limits or Limits(),
            hostname=name,
            tls_context=tls_context or self_signed(name),
            counts=counts or Uncounted(),
        )
        self._server: asyncio.Server | None = None
        self._watch: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        assert self._server is not None, "the server has not been started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._service.open

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; port 0 takes a free one. Raises OSError where that address can't be had."""
        # aiosmtpd logs commands and addresses at INFO, and mail at DEBUG, whatever the level of the root logger.
        logging.getLogger("mail").setLevel(logging.WARNING)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Receiver(self._service, loop), host, port, backlog=_BACKLOG)
        self._look_at_deadlines()

    async def stop(self, grace: float = 10.0) -> None:
        """Refuses new connections, says 421 to those without a mail in hand, and gives the others `grace` seconds.

        Then they are cut. Mails that are being kept are waited for, as long as the Door takes.
        """
        if self._server is None:
            return
        service = self._service
        self._server.close()
        for conversation in list(service.conversations):
            conversation.finish("421 4.3.2 The server is stopping", "stopping")
        if service.conversations:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.nobody_here.wait(), grace)
        for conversation in list(service.conversations):
            conversation.abort()
        await service.all_committed()
        if self._watch is not None:
            self._watch.cancel()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _look_at_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        for conversation in list(self._service.conversations):
            conversation.check_deadlines(loop.time())
        self._watch = loop.call_later(self._service.limits.tick, self._look_at_deadlines)
