"""A login to an SMTP server, by aiosmtplib over a socket that was checked before."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiosmtplib

from domain.tokens import MailServer
from gateways.providers.mail_failures import (
    BUSY,
    HUNG_UP,
    NO_PASSWORDS,
    NO_STARTTLS,
    NO_XOAUTH2,
    NOT_UNDERSTOOD,
    MailFailure,
    of_network,
    refused,
    unavailable,
)

#: What we call ourselves: a client behind who knows what, as RFC 5321, 4.1.3 has it. Our own name is nobody's business.
OURSELVES: Final = "[127.0.0.1]"


@asynccontextmanager
async def logged_in(
    connection: socket.socket,
    server: MailServer,
    host: str,
    access_token: str | None,
    *,
    tls: ssl.SSLContext,
    seconds: float,
) -> AsyncIterator[aiosmtplib.SMTP]:
    """A login by XOAUTH2 where there is a token, by the password otherwise; ends the connection. `seconds` bound a command.

    Raises MailFailure where no login is offered that could be tried, and what aiosmtplib raises.
    """
    smtp = aiosmtplib.SMTP(
        hostname=host,
        sock=connection,
        use_tls=server.security == "tls",
        start_tls=False,  # not by itself: whether it must be is for us to say, below
        tls_context=tls,
        local_hostname=OURSELVES,
        timeout=seconds,
    )
    try:
        await smtp.connect()
        await smtp.ehlo()
        if server.security == "starttls":
            await _encrypt(smtp)
        await _authenticate(smtp, server, access_token)
        yield smtp
    finally:
        hang_up(smtp)


async def log_in(
    connection: socket.socket,
    server: MailServer,
    host: str,
    access_token: str | None,
    *,
    tls: ssl.SSLContext,
    seconds: float,
) -> None:
    """Logs in and does no more. Raises MailFailure; ends the connection."""
    try:
        async with logged_in(connection, server, host, access_token, tls=tls, seconds=seconds):
            return
    except aiosmtplib.SMTPAuthenticationError as error:
        raise (refused(access_token) if error.code >= 500 else unavailable(BUSY)) from None
    except aiosmtplib.SMTPConnectResponseError:
        raise unavailable(BUSY) from None
    except aiosmtplib.SMTPResponseException:
        raise unavailable(NOT_UNDERSTOOD) from None
    except aiosmtplib.SMTPServerDisconnected:
        raise unavailable(HUNG_UP) from None
    except aiosmtplib.SMTPConnectError as error:
        raise of_network(error.__cause__ or error) from None
    except OSError as error:
        raise of_network(error) from None
    except (aiosmtplib.SMTPException, ValueError):
        raise unavailable(NOT_UNDERSTOOD) from None


def hang_up(smtp: aiosmtplib.SMTP) -> None:
    """At once: whoever is slow to say goodbye, in SMTP or in TLS, keeps nobody waiting."""
    if isinstance(smtp.transport, asyncio.WriteTransport):
        smtp.transport.write(b"QUIT\r\n")
        smtp.transport.abort()
    smtp.close()


async def _encrypt(smtp: aiosmtplib.SMTP) -> None:
    """To the end: a server that takes the command but no TLS is never spoken to in the clear."""
    if not smtp.supports_extension("starttls"):
        raise unavailable(NO_STARTTLS)
    await smtp.starttls()
    await smtp.ehlo()


async def _authenticate(smtp: aiosmtplib.SMTP, server: MailServer, access_token: str | None) -> None:
    """By one method, once: a second try with a wrong password may lock the account."""
    offered = smtp.server_auth_methods
    if access_token is not None:
        if "xoauth2" not in offered:
            raise MailFailure("login_failed", NO_XOAUTH2)
        await smtp.auth_xoauth2(server.username, access_token)
        return
    password = server.password or ""
    if "plain" in offered:
        await smtp.auth_plain(server.username, password)
    elif "login" in offered:
        await smtp.auth_login(server.username, password)
    elif "cram-md5" in offered:
        await smtp.auth_crammd5(server.username, password)
    else:
        raise MailFailure("login_failed", NO_PASSWORDS)
