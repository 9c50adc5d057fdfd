"""The content of a mail and the dot that ends it (RFC 5321, 4.5.2), apart: without the dot a server must not deliver.

By aiosmtplib's connection but not by its DATA, which writes both at once and then can't tell of which the connection died.
"""

import asyncio
from typing import Final, cast

import aiosmtplib

from domain.delivery import Accepted, Answer, InDoubt, RecipientRefused
from gateways.providers.sending import OUT_OF_TIME, Notes
from gateways.providers.smtp_answers import Reply, meaning, said
from gateways.providers.smtp_envelope import Settled

BLOCK_BYTES: Final = 64 * 1024
END: Final = b".\r\n"


class AnsweredEarly(Exception):
    """The server says that it took the mail before it was told its end, so who knows what it did."""


class Content:
    """What follows the server's 354, and the server's answer to it."""

    def __init__(self, smtp: aiosmtplib.SMTP) -> None:
        protocol = smtp.protocol
        if protocol is None or smtp.transport is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        loop = asyncio.get_running_loop()
        transport = cast("asyncio.WriteTransport", smtp.transport)
        self._writer = asyncio.StreamWriter(transport, protocol, None, loop)
        self._reply = asyncio.create_task(protocol.read_response())

    async def write(self, content: bytes) -> None:
        """All but the dot. Raises Settled, AnsweredEarly, OSError, and what aiosmtplib raises."""
        await asyncio.sleep(0)  # until the answer is waited for: aiosmtplib drops what comes before
        leaving = asyncio.create_task(self._leave(content))
        try:
            await asyncio.wait({leaving, self._reply}, return_when=asyncio.FIRST_COMPLETED)
            self.check()
            await leaving
        finally:
            leaving.cancel()

    def check(self) -> None:
        """Raises what the server said before it was asked, or that the connection is lost."""
        if self._reply.done():
            reply = _reply(self._reply)
            if 200 <= reply.code < 400:
                raise AnsweredEarly
            raise Settled(meaning(reply, "end"))
        if self._writer.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")

    async def end(self, refused: list[RecipientRefused], notes: Notes) -> Answer:
        """The dot, at once, and what the server answers to it. `refused`: recipients who won't get it."""
        if notes.seconds_left() <= 0:
            return OUT_OF_TIME
        self._writer.write(END)
        try:
            async with asyncio.timeout(max(0.0, notes.seconds_left())):
                await asyncio.wait({self._reply})
            return _answer(_reply(self._reply), refused)
        except TimeoutError:
            return InDoubt("timed_out")
        except aiosmtplib.SMTPResponseException as error:
            return InDoubt("answer_unreadable", said(Reply(error.code, error.message)))
        except (aiosmtplib.SMTPException, OSError):
            return InDoubt("connection_lost")

    def close(self) -> None:
        """No more answer is waited for."""
        if not self._reply.cancel() and not self._reply.cancelled():
            self._reply.exception()

    async def _leave(self, content: bytes) -> None:
        stuffed = _stuffed(content)
        for start in range(0, len(stuffed), BLOCK_BYTES):
            self._writer.write(stuffed[start : start + BLOCK_BYTES])
            await self._writer.drain()


def _reply(task: asyncio.Task[aiosmtplib.SMTPResponse]) -> Reply:
    answer = task.result()
    return Reply(answer.code, answer.message)


def _answer(reply: Reply, refused: list[RecipientRefused]) -> Answer:
    if reply.ok:
        return Accepted(refused=refused)
    if 400 <= reply.code < 600:
        return meaning(reply, "end")
    return InDoubt("answer_unreadable", said(reply))


def _stuffed(content: bytes) -> bytes:
    """With a dot more before each line that begins with one. Every line ends in CRLF: a content is composed so."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed
