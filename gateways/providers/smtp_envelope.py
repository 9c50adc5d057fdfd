"""From whom and to whom: the commands of SMTP before the content (RFC 5321, 4.1.1). None of them sends a mail."""

from typing import Final

import aiosmtplib

from domain.delivery import Deferred, RecipientRefused, Refused, TokenRefused
from gateways.providers.smtp_answers import OTHERWISE, Reply, meaning, recipient_refused, said

NO_SMTPUTF8: Final = "The outgoing server takes no addresses beyond ASCII (SMTPUTF8)."
TOO_LARGE: Final = "The outgoing server takes mails up to {} bytes."


class Settled(Exception):
    """There is nothing more to do, and nothing went out: the mail has its answer."""

    def __init__(self, answer: Deferred | Refused | TokenRefused) -> None:
        super().__init__(type(answer).__name__)
        self.answer = answer


class Envelope:
    """The envelope of one mail, on a connection that is logged in. `size` is the mail's, in bytes. Raises Settled."""

    def __init__(self, smtp: aiosmtplib.SMTP, *, smtputf8: bool, size: int) -> None:
        self._smtp = smtp
        self._smtputf8 = smtputf8
        self._size = size

    async def sender(self, address: str) -> None:
        """From whom. `address` is checked already, as the recipients are."""
        options = []
        if self._smtp.supports_extension("size"):
            most = self._smtp.esmtp_extensions["size"].strip()
            if most.isdecimal() and 0 < int(most) < self._size:
                raise Settled(Refused("message_too_large", TOO_LARGE.format(int(most))))
            options.append(b"SIZE=%d" % self._size)
        if self._smtputf8:
            if not self._smtp.supports_extension("smtputf8"):
                raise Settled(Refused("message_refused", NO_SMTPUTF8))
            options += [b"BODY=8BITMIME", b"SMTPUTF8"]
        reply = await self._said(b"MAIL", b"FROM:<" + address.encode() + b">", *options)
        if not reply.ok:
            raise Settled(meaning(reply, "mail"))

    async def recipients(self, addresses: list[str], *, last: bool) -> list[RecipientRefused]:
        """To whom; gives those who are refused. One refused for now holds the mail back, unless it is the `last` time."""
        refused: list[RecipientRefused] = []
        for_now: Deferred | None = None
        first: Reply | None = None
        for number, address in enumerate(addresses):
            reply = await self._said(b"RCPT", b"TO:<" + address.encode() + b">")
            if reply.ok:
                continue
            means = meaning(reply, "rcpt")
            if not _is_of_one(reply, means):
                raise Settled(means)
            first = first or reply
            refused.append(recipient_refused(number, reply))
            if isinstance(means, Deferred):
                for_now = for_now or means
        if for_now is not None and (len(refused) == len(addresses) or not last):
            raise Settled(for_now)
        if first is not None and len(refused) == len(addresses):
            raise Settled(Refused("recipients_refused", said(first), refused))
        return refused

    async def data(self) -> None:
        """That the content follows, and that the server is ready for it."""
        reply = await self._said(b"DATA")
        if reply.code != 354:
            raise Settled(OTHERWISE if reply.ok else meaning(reply, "data"))
        protocol = self._smtp.protocol
        if protocol is None or protocol._buffer:  # noqa: SLF001 - what is left there would be taken for the next answer
            raise Settled(OTHERWISE)

    async def _said(self, *words: bytes) -> Reply:
        answer = await self._smtp.execute_command(*words)
        return Reply(answer.code, answer.message)


def _is_of_one(reply: Reply, means: Deferred | Refused | TokenRefused) -> bool:
    """Whether a refusal is of that recipient, and not of the mail, the mailbox or the connection."""
    if reply.code == 421 or isinstance(means, TokenRefused):
        return False
    return means.code in {"temporarily_refused", "recipients_refused"}
