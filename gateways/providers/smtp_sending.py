"""Mail sent through somebody's own SMTP server, at most once.

RFC 5321, 4.1.1.4 lets a server deliver only what it was told the end of. So the dot that ends the content is written last, by
itself, once all else has gone to the connection and it is on record that the mail may leave: what fails before it leaves no
doubt. From the dot on only a reply does, and a connection that ends without one is RFC 1047's problem.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import aiosmtplib

from domain.compose import Unwritable, compose, needs_smtputf8
from domain.delivery import Accepted, Answer, Deferred, Found, InDoubt, NotProven, Refused, TokenRefused
from domain.mail_wire_addresses import wire_address
from domain.outgoing import Access, OutgoingMail, Traces
from domain.tokens import MailServer
from gateways.providers.egress import Egress
from gateways.providers.hosts import HostNotAllowed, plain_host
from gateways.providers.mail_failures import MailFailure, of_network
from gateways.providers.mail_login import SMTP, UNWRITABLE
from gateways.providers.measures import ProviderMeasures
from gateways.providers.sending import OUT_OF_TIME, Notes, Spends, uncounted, written
from gateways.providers.smtp_answers import OTHERWISE, Definite, Reply, meaning, said
from gateways.providers.smtp_content import AnsweredEarly, Content
from gateways.providers.smtp_envelope import Envelope, Settled
from gateways.providers.smtp_login import logged_in

#: Connections that one mailbox may have open: what Exchange takes, the strictest we know of (432 4.3.2 beyond it).
AT_ONCE: Final = 3
NOT_COMPOSABLE: Final = "The mail can't be written as mail is."


@dataclass(frozen=True, slots=True)
class _Composed:
    """A mail in the form in which SMTP takes it: addresses of the envelope, and the content."""

    sender: str
    recipients: list[str]
    content: bytes
    smtputf8: bool


class SmtpSending:
    """Sends by the server of a connection. `tls` says whose certificates are trusted; `seconds` bound each command."""

    def __init__(self, egress: Egress, measures: ProviderMeasures, tls: ssl.SSLContext, seconds: float) -> None:
        self._egress = egress
        self._measures = measures
        self._tls = tls
        self._seconds = seconds

    async def send(self, mail: OutgoingMail, access: Access, traces: Traces, notes: Notes) -> Answer:
        """One connection, one mail, one try. On the last attempt those get it who can be had, before it all or none."""
        with self._measures.call("smtp", "send") as outcome:
            try:
                answer = await self._send(mail, access, traces, notes)
            except Settled as settled:
                answer = settled.answer
            except AnsweredEarly:
                await notes.transmission(left=True)
                answer = InDoubt("answer_unreadable")
            outcome.is_(_name(answer))
            return answer

    async def look(self, traces: Traces, access: Access, *, last: bool, spends: Spends = uncounted) -> Found:
        """Shows nothing, ever: SMTP has no question about a mail that was handed over.

        A copy in a folder is no proof either way, as it is put there by clients and not by the server that sends.
        """
        del traces, access, last, spends
        return NotProven("nothing_found")

    async def _send(self, mail: OutgoingMail, access: Access, traces: Traces, notes: Notes) -> Answer:
        server, access_token = _server(access)
        composed = await written(mail, _composed)
        if notes.seconds_left() <= 0:
            return OUT_OF_TIME
        async with contextlib.AsyncExitStack() as opened:
            with _nothing_sent(access_token):
                async with asyncio.timeout(notes.seconds_left()):
                    smtp = await self._login(server, access_token, opened)
                    envelope = Envelope(smtp, smtputf8=composed.smtputf8, size=len(composed.content))
                    await envelope.sender(composed.sender)
                    refused = await envelope.recipients(composed.recipients, last=traces.last)
                    await envelope.data()
                    content = Content(smtp)
                    opened.callback(content.close)
                    await content.write(composed.content)
            await notes.transmission()
            with _nothing_sent(access_token):
                content.check()
            return await content.end(refused, notes)

    async def _login(
        self, server: MailServer, access_token: str | None, opened: contextlib.AsyncExitStack
    ) -> aiosmtplib.SMTP:
        host = plain_host(server.host)
        self._egress.check_mail_server(host, server.port, encrypted=server.security != "none")
        if not (server.username + (server.password or "")).isprintable():
            raise MailFailure("login_failed", UNWRITABLE)
        async with asyncio.timeout(self._seconds):
            connection = await self._egress.connect(host, server.port)
        login = logged_in(connection, server, host, access_token, tls=self._tls, seconds=self._seconds)
        return await opened.enter_async_context(login)


def _server(access: Access) -> tuple[MailServer, str | None]:
    """The server, and the token where it is logged in to by one."""
    servers, access_token = access.secrets.servers, access.secrets.access_token
    if servers is None or (servers.oauth is not None and access_token is None):
        raise Settled(Deferred("token_unavailable"))
    return servers.smtp, None if servers.oauth is None else access_token


def _composed(mail: OutgoingMail) -> _Composed:
    try:
        recipients = [wire_address(one.address) for one in mail.recipients]
        content = compose(mail, with_bcc=False)
        return _Composed(wire_address(mail.sender.address), recipients, content, needs_smtputf8(mail))
    except Unwritable as error:
        raise Settled(Refused("message_refused", str(error))) from None
    except ValueError:
        raise Settled(Refused("message_refused", NOT_COMPOSABLE)) from None


@contextlib.contextmanager
def _nothing_sent(access_token: str | None) -> Iterator[None]:
    """Every failure in here is definite. Raises Settled in its place."""
    try:
        yield
    except Settled as settled:
        raise Settled(_of_login(settled.answer, access_token)) from None
    except aiosmtplib.SMTPAuthenticationError as error:
        reply = Reply(error.code, error.message)
        raise Settled(_of_login(meaning(reply, "auth"), access_token, said(reply))) from None
    except aiosmtplib.SMTPResponseException as error:
        raise Settled(meaning(Reply(error.code, error.message), "connect")) from None
    except TimeoutError:
        raise Settled(Deferred("timed_out")) from None
    except MailFailure as failure:
        raise Settled(_not_logged_in(failure)) from None
    except HostNotAllowed as failure:
        raise Settled(Refused("host_not_allowed", failure.sentence)) from None
    except aiosmtplib.SMTPServerDisconnected:
        raise Settled(Deferred("unreachable")) from None
    except aiosmtplib.SMTPConnectError as error:
        raise Settled(_not_logged_in(of_network(error.__cause__ or error))) from None
    except OSError as error:
        raise Settled(_not_logged_in(of_network(error))) from None
    except (aiosmtplib.SMTPException, ValueError):
        raise Settled(OTHERWISE) from None


def _of_login(answer: Definite, access_token: str | None, text: str | None = None) -> Definite:
    """A password can't be refreshed: whose it is has to give another one."""
    if isinstance(answer, TokenRefused) and access_token is None:
        return Deferred("reauth_required", counted=False, said=text)
    return answer


def _not_logged_in(failure: MailFailure) -> Deferred:
    sentence = f"{SMTP} {failure.what}."
    if failure.code == "login_failed":
        return Deferred("reauth_required", counted=False, said=sentence)
    return Deferred("unreachable", said=sentence)


def _name(answer: Answer) -> str:
    match answer:
        case Accepted():
            return "ok"
        case InDoubt():
            return "in_doubt"
        case TokenRefused():
            return "token_refused"
        case _:
            return answer.code
