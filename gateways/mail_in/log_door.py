"""The door of the house: look-ups in the read model, promises in the log."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.fields import Digest, Sealed
from gateways.log.command_log import CommandLog, NotPromised, OutcomeUnknown, TooLate
from gateways.log.kafka import GATEWAY_LIMIT_SECONDS
from gateways.mail_in.door import Envelope, Inbox, Spooled, Unavailable
from gateways.stores import sealing
from gateways.stores.blobs import Blobs
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset
from gateways.stores.postgres import UNREACHABLE, Pool
from projections import mailboxes
from schemas.envelope import new_traceparent
from schemas.ids import new_id
from schemas.raw_mail import INLINE_BYTES, RawMail, headers_of
from schemas.topics import MAIL_RAW
from schemas.vocabulary import encode

#: How much of a mail is searched for its Message-ID.
HEAD_BYTES: Final = 65_536
#: Open mailboxes remembered at the door, and for how many seconds.
REMEMBERED: Final = 10_000
REMEMBERED_SECONDS: Final = 5.0
MESSAGE_ID: Final = re.compile(rb"(?:^|\n)message-id:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]+)", re.IGNORECASE)


class Remembered:
    """Open mailboxes that were found a moment ago. Never that one was *not* found: it may have been made since.

    A mailbox that ends meanwhile takes no harm: its decider rejects what comes after its end.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, Inbox]] = {}

    def get(self, digest: str) -> Inbox | None:
        until, inbox = self._found.get(digest, (0.0, None))
        return inbox if asyncio.get_running_loop().time() < until else None

    def put(self, digest: str, inbox: Inbox) -> None:
        if len(self._found) >= REMEMBERED:
            self._found.clear()
        self._found[digest] = (asyncio.get_running_loop().time() + REMEMBERED_SECONDS, inbox)


class LogDoor:
    """Finds open mailboxes by address and appends mail for them. `fresh` tells whether the tables are up to date."""

    def __init__(
        self,
        pool: Pool,
        keyset: Keyset,
        keyring: Keyring,
        log: CommandLog,
        blobs: Blobs,
        *,
        fresh: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._keyset = keyset
        self._keyring = keyring
        self._log = log
        self._blobs = blobs
        self._fresh = fresh
        self._remembered = Remembered()

    async def find(self, address: str) -> Inbox | None:
        if self._log.overdue:
            raise Unavailable("Our log is not answering; please try again later.")
        if not self._fresh():
            raise Unavailable("Our tables are behind; please try again later.")
        digest = self._keyset.digest("address", address.strip().lower())
        if inbox := self._remembered.get(digest):
            return inbox
        try:
            found = await mailboxes.open_by_address(self._pool, digest)
            if found is None or found.kid is None or found.wrapped is None:
                return None
            data_key = await self._keyring.unwrap(found.mailbox, found.kid, found.wrapped)
        except UNREACHABLE as error:
            raise Unavailable("Our look-up is not answering; please try again later.") from error
        inbox = Inbox(found.mailbox, found.owner, data_key)
        self._remembered.put(digest, inbox)
        return inbox

    async def deliver(self, mail: Spooled, to: list[tuple[Inbox, Envelope]]) -> None:
        mail.file.seek(0)
        head = mail.file.read(HEAD_BYTES)
        raw = None
        if mail.size <= INLINE_BYTES:
            raw = head + mail.file.read()
        try:
            if raw is not None:
                await asyncio.gather(*[self._append(mail, head, raw, inbox, envelope) for inbox, envelope in to])
            for inbox, envelope in to if raw is None else ():  # one after the other: they read the same file
                await self._append(mail, head, raw, inbox, envelope)
        except NotPromised as error:
            raise Unavailable("Our log is not answering; please try again later.") from error
        except OutcomeUnknown as error:
            raise Unavailable("Our log did not confirm in time; please try again later.") from error
        except OSError as error:
            raise Unavailable("Our store is not answering; please try again later.") from error

    async def _append(self, mail: Spooled, head: bytes, raw: bytes | None, inbox: Inbox, envelope: Envelope) -> None:
        message = new_id("msg")
        at = sealing.place("message", message, "raw")
        blob = None
        if raw is None:
            blob = f"{inbox.mailbox}/{message}.raw"
            mail.file.seek(0)
            await self._blobs.put(blob, mail.file, inbox.data_key, at)
        record = RawMail(
            message=message,
            mailbox=inbox.mailbox,
            via=envelope.via,
            size=mail.size,
            sha256=mail.sha256,
            envelope=self._sealed(envelope, inbox, message),
            message_id_digest=self._message_id(head, inbox, envelope),
            blob=blob,
        )
        now = datetime.now(UTC)
        not_after = now + timedelta(seconds=GATEWAY_LIMIT_SECONDS)
        headers = headers_of(record, at=now, not_after=not_after, trace={"traceparent": new_traceparent()})
        value = b"" if raw is None else sealing.seal_bytes(inbox.data_key, raw, at)
        try:
            await self._log.append(MAIL_RAW.name, inbox.owner, value, headers)
        except NotPromised as error:
            # No record will ever name the blob, and each further try of the deliverer would leave another.
            if blob is not None and not isinstance(error, TooLate):
                await self._blobs.destroy(blob)
            raise

    def _sealed(self, envelope: Envelope, inbox: Inbox, message: str) -> Sealed:
        said = {
            "sender": envelope.sender,
            "recipient": envelope.recipient,
            "helo": envelope.helo,
            "client": envelope.client,
            "tls": envelope.tls,
        }
        return sealing.seal(inbox.data_key, encode(said), sealing.place("message", message, "envelope"))

    def _message_id(self, head: bytes, inbox: Inbox, envelope: Envelope) -> Digest | None:
        """What makes a mail the same mail again: mailbox, sender and Message-ID (RFC 5322 3.6.4); None without one."""
        end = head.find(b"\r\n\r\n")
        found = MESSAGE_ID.search(head if end < 0 else head[:end])
        said = found[1].strip().decode("latin-1") if found else envelope.delivery
        return self._keyset.digest("message-id", inbox.mailbox, envelope.sender, said) if said else None
