"""The decider of temporary inboxes: what it reads, and how mail is prepared before it reaches the lane.

Parsing is slow and deciding must not be, so a mail is opened, parsed by the pool and sealed again beside the lane (DESIGN 4,
rule 6). One that takes longer is received as it is, and `parse.py` parses it under the full limits.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from io import BytesIO
from typing import Any, BinaryIO, Final, Literal, Protocol

from pydantic import TypeAdapter

from domain import mailbox
from domain.fields import Sealed
from domain.mailbox_commands import ReceiveMail
from domain.mailbox_events import MessageState, RawPlace
from domain.mailbox_state import Mailbox, Message, Owner, Repeat, Request, evolve, touches
from handlers.context import Context, Unreadable, json_commands
from schemas import commands, events, raw_mail, topics
from schemas.envelope import Record
from schemas.raw_mail import RawMail
from schemas.vocabulary import encode

#: Bytes of sealed content from which it goes to the blob store.
CONTENT_BYTES: Final = 196_608
#: Mails from the blob store that are in memory at once, whole.
LARGE_AT_ONCE: Final = 2
#: Raise when the fold changes its meaning: the log is then folded afresh.
FOLD_VERSION: Final = 1


class KeepsKeys(Protocol):
    """Data keys by mailbox; one that is missing in the answer is gone for good."""

    async def get(self, subjects: Iterable[str]) -> dict[str, bytes]: ...


class Seals(Protocol):
    def place(self, kind: str, subject: str, field: str) -> bytes: ...

    def seal(self, data_key: bytes, plain: bytes, at: bytes) -> Sealed: ...

    def open_bytes(self, data_key: bytes, sealed: bytes, at: bytes) -> bytes: ...


class KeepsBlobs(Protocol):
    async def put(self, name: str, file: BinaryIO, data_key: bytes, at: bytes) -> None: ...

    async def read(self, name: str, data_key: bytes, at: bytes) -> bytes: ...


class Parsed(Protocol):
    """What became of parsing a mail: `content` is the JSON that the API shows, `cause` why there is none."""

    @property
    def state(self) -> MessageState: ...
    @property
    def summary(self) -> dict[str, Any] | None: ...
    @property
    def content(self) -> bytes | None: ...
    @property
    def cause(self) -> str | None: ...


class ParsesMail(Protocol):
    async def parse(self, raw: bytes, *, full: bool = False) -> Parsed: ...


class PreparesMail:
    """Turns the records of `mail.raw` into commands: opened, parsed, sealed."""

    def __init__(self, keys: KeepsKeys, seals: Seals, blobs: KeepsBlobs, parser: ParsesMail) -> None:
        self._keys = keys
        self._seals = seals
        self._blobs = blobs
        self._parser = parser
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def __call__(self, records: Sequence[Record]) -> list[Any]:
        """Raises what keeps us from knowing (keyring, blob store): the lane tries again."""
        read = [_read(record) for record in records]
        keys = await self._keys.get({mail.mailbox for mail in read if isinstance(mail, RawMail)})
        return await asyncio.gather(
            *[self._prepare(record, mail, keys) for record, mail in zip(records, read, strict=True)]
        )

    async def _prepare(self, record: Record, mail: RawMail | Unreadable, keys: dict[str, bytes]) -> Any:
        if isinstance(mail, Unreadable):
            return mail
        data_key = keys.get(mail.mailbox)
        if data_key is None:
            return _command(record, mail, "erased")
        async with self._large if mail.blob else nullcontext():
            try:
                raw = await self.raw(record.value, mail, data_key)
            except ValueError:
                return Unreadable("invalid_body")
            parsed = await self._parser.parse(raw)
            del raw
        return _command(record, mail, parsed.state, **await self.sealed(mail.mailbox, mail.message, parsed, data_key))

    async def raw(self, value: bytes, mail: RawMail, data_key: bytes) -> bytes:
        """The mail as it came."""
        at = self._seals.place("message", mail.message, "raw")
        if mail.blob:
            return await self._blobs.read(mail.blob, data_key, at)
        return self._seals.open_bytes(data_key, value, at)

    async def sealed(self, mailbox_id: str, message: str, parsed: Parsed, data_key: bytes) -> dict[str, Any]:
        """What parsing found, as commands and events hold it: large content is in the blob store first."""
        fields: dict[str, Any] = {"cause": parsed.cause}
        if parsed.summary is None or parsed.content is None:
            return fields
        fields["has_attachments"] = bool(parsed.summary.get("has_attachments"))
        fields["summary"] = self._seals.seal(
            data_key, encode(parsed.summary), self._seals.place("message", message, "summary")
        )
        at = self._seals.place("message", message, "content")
        content = self._seals.seal(data_key, parsed.content, at)
        if len(content) <= CONTENT_BYTES:
            return fields | {"content": content}
        name = f"{mailbox_id}/{message}.content"
        await self._blobs.put(name, BytesIO(parsed.content), data_key, at)
        return fields | {"content_blob": name}


def _read(record: Record) -> RawMail | Unreadable:
    try:
        return raw_mail.read(record)
    except ValueError:
        return Unreadable("invalid_body")


def _command(record: Record, mail: RawMail, state: MessageState | Literal["erased"], **found: Any) -> ReceiveMail:
    return ReceiveMail(
        message=mail.message,
        mailbox=mail.mailbox,
        owner=record.key,
        via=mail.via,
        size=mail.size,
        sha256=mail.sha256,
        envelope=mail.envelope,
        raw=RawPlace(record.partition, record.offset, mail.blob),
        state=state,
        message_id_digest=mail.message_id_digest,
        **found,
    )


DOCUMENTS: Final[dict[str, TypeAdapter[Any]]] = {
    kind: TypeAdapter(cls)
    for kind, cls in {
        "owner": Owner,
        "mailbox": Mailbox,
        "message": Message,
        "repeat": Repeat,
        "request": Request,
        "sequence": int,
    }.items()
}


def context(prepares: PreparesMail) -> Context:
    """The mailbox context; commands are taken before mail."""
    return Context(
        name="mailbox",
        version=FOLD_VERSION,
        events=topics.MAILBOX_EVENTS.name,
        inputs={topics.MAILBOX_COMMANDS.name: json_commands(commands.MAILBOX), topics.MAIL_RAW.name: prepares},
        vocabulary=events.MAILBOX,
        needs=mailbox.needs,
        decide=mailbox.decide,
        touches=touches,
        evolve=evolve,
        subject=lambda command: command.mailbox,
        read_document=lambda kind, body: DOCUMENTS[kind].validate_json(body),
    )
