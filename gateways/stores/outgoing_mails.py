"""Mails that are to be sent, opened at the moment of sending: what was asked, whose mailbox, the bytes of attachments."""

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from domain.fields import Sealed
from domain.outgoing import Mailbox, OutgoingFile, OutgoingMail
from gateways.stores.blobs import BlobMissing
from gateways.stores.keyring import Keyring
from gateways.stores.mail_store import Erased
from gateways.stores.postgres import Pool
from gateways.stores.sealing import Unsealable, place, seal, unseal
from schemas.send_message import MESSAGE, Person, SendMessage

#: Bytes of all mails that one process has open; composed and encoded, each is there three times.
MOST_BYTES: Final = 67_108_864
#: Seconds that a send which was dispatched a moment ago may need to reach the tables, and between looks for it.
FOLD_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.05
ROW: Final = """
select s.user_id, s.message_id, s.message, s.blob, s.created_at, s.size, c.account, c.scopes
from sends s left join connections c on c.connection = $2 where s.send = $1
"""


class NotFolded(LookupError):
    """The tables do not have it yet: the same question will be answered later."""


class Unreadable(ValueError):
    """What was asked is there, and is no message."""


class Opened(NamedTuple):
    """A mail as it is to go out, and what was granted to the connection that it goes out by."""

    mail: OutgoingMail
    address: str
    scopes: list[str]
    #: Bytes of it that count among those of all mails that are open.
    held: int


class OutgoingMails:
    """Opens sends. Everything raises what Postgres, the keyring and the blob store raise where they can't be reached.

    Mails that are open have so many bytes in all, or there is one: who opens another waits. So whoever opens one closes it.
    """

    def __init__(self, pool: Pool, keyring: Keyring, blobs: Any, *, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._held = 0
        self._closed = asyncio.Condition()
        self._pool = pool
        self._keyring = keyring
        self._blobs = blobs

    async def open(self, send: str, connection: str) -> Opened | None:
        """None where what it is made of is gone for good. Raises NotFolded, Unreadable."""
        try:
            return await self._open(send, connection)
        except (Erased, BlobMissing, Unsealable):
            return None
        except ValidationError:
            raise Unreadable(send) from None  # its words hold what the mail says

    async def _open(self, send: str, connection: str) -> Opened:
        row = await self._row(send, connection)
        user, size, account = row["user_id"], row["size"], row["account"]
        if account is None:
            raise NotFolded(connection)
        data_key = await self._data_key(user)
        await self._hold(size)
        try:
            return await self._whole(send, connection, row, data_key)
        except BaseException:
            await self._let_go(size)
            raise

    async def _whole(self, send: str, connection: str, row: Any, data_key: bytes) -> Opened:
        _, message_id, sealed, blob, created_at, size, account, scopes = row
        message = await self._message(send, sealed, blob, data_key)
        address = unseal(data_key, Sealed(account), place("connection", connection, "account")).decode()
        files = [
            OutgoingFile(
                file.name,
                file.contentType,
                await self._blobs.read(file.blob, data_key, place("attachment", file.id, "content")),
            )
            for file in message.attachments
        ]
        mail = _mail(message, files, marker=send, message_id=message_id, date=created_at, sender=address)
        return Opened(mail, address, scopes, size)

    async def close(self, opened: Opened | None) -> None:
        """Nothing of it is needed any more."""
        if opened is not None:
            await self._let_go(opened.held)

    async def _hold(self, size: int) -> None:
        async with self._closed:
            await self._closed.wait_for(lambda: not self._held or self._held + size <= self._most)
            self._held += size

    async def _let_go(self, size: int) -> None:
        async with self._closed:
            self._held -= size
            self._closed.notify_all()

    async def address(self, connection: str) -> tuple[str, list[str]] | None:
        """Whose mailbox a connection is, and what was granted; None where that is gone for good."""
        row = await self._pool.fetchrow(
            "select user_id, account, scopes from connections where connection = $1", connection
        )
        if row is None:
            return None
        try:
            data_key = await self._data_key(row["user_id"])
            opened = unseal(data_key, Sealed(row["account"]), place("connection", connection, "account"))
        except (Erased, Unsealable):
            return None
        return opened.decode(), row["scopes"]

    async def standing(self, send: str) -> tuple[str, int] | None:
        """State and last attempt of a send as the tables show them; None where they don't yet."""
        row = await self._pool.fetchrow("select status, attempt from sends where send = $1", send)
        return None if row is None else (row["status"], row["attempt"])

    async def sealed(self, user: str, send: str, attempt: int, said: str) -> Sealed | None:
        """A provider's words, for `place("attempt", "send/number", "said")`; None where the user has been erased."""
        try:
            return seal(await self._data_key(user), said.encode(), place("attempt", f"{send}/{attempt}", "said"))
        except Erased:
            return None

    async def _row(self, send: str, connection: str) -> Any:
        ends_at = asyncio.get_running_loop().time() + FOLD_SECONDS
        while True:
            row = await self._pool.fetchrow(ROW, send, connection)
            if row is not None:
                return row
            if asyncio.get_running_loop().time() > ends_at:
                raise NotFolded(send)
            await asyncio.sleep(LOOK_SECONDS)

    async def _data_key(self, user: str) -> bytes:
        found = (await self._keyring.get([user])).get(user)
        if found is None:
            raise Erased(user)
        return found

    async def _message(self, send: str, sealed: str | None, blob: str | None, data_key: bytes) -> SendMessage:
        at = place("send", send, "message")
        if blob is not None:
            return MESSAGE.validate_json(await self._blobs.read(blob, data_key, at))
        if sealed is None:
            raise Erased(send)
        return MESSAGE.validate_json(unseal(data_key, Sealed(sealed), at))


def _mail(
    message: SendMessage, files: list[OutgoingFile], *, marker: str, message_id: str, date: datetime, sender: str
) -> OutgoingMail:
    return OutgoingMail(
        message_id=message_id,
        marker=marker,
        date=date,
        sender=Mailbox(sender, message.fromName),
        to=_people(message.to),
        cc=_people(message.cc),
        bcc=_people(message.bcc),
        reply_to=_people(message.replyTo),
        subject=message.subject,
        text=message.text,
        html=message.body if message.bodyFormat == "html" else None,
        headers=message.headers,
        attachments=files,
        thread_id=message.threadId,
    )


def _people(people: list[Person]) -> list[Mailbox]:
    return [Mailbox(person.email, person.name) for person in people]
