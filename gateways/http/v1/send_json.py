"""Sends as the API shows them, opened: a mail is sealed under its user's data key."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from domain.delivery import RecipientRefused
from domain.fields import Sealed
from gateways.http.services import Services
from gateways.http.v1.attachment_links import signed_link
from gateways.http.v1.send_causes import cause_of_attempt, cause_of_send
from gateways.stores.blobs import BlobMissing
from gateways.stores.sealing import Unsealable, place, unseal
from projections import send_lists
from projections.send_lists import AttemptRow, SendRow
from schemas.envelope import stamp
from schemas.send_message import BLOB_FIELD, MESSAGE, Person, SendMessage

#: Blobs that are read at once for one answer.
BLOBS_AT_ONCE: Final = 8


class SendsShown:
    """Opens sends. Raises what Postgres, the keyring and the blob store raise where they can't be reached."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def all(self, rows: Sequence[SendRow]) -> list[bytes]:
        """Each as JSON; what was erased a moment ago is left out."""
        keys = await self._services.keyring.get({row.user for row in rows})
        attempts = await send_lists.attempts_of(self._services.pool, [row.send for row in rows]) if rows else {}
        reading = asyncio.Semaphore(BLOBS_AT_ONCE)

        async def shown(row: SendRow) -> bytes | None:
            data_key = keys.get(row.user)
            if data_key is None:
                return None
            async with reading:
                message = await self._message(row, data_key)
            return None if message is None else _json(row, message, attempts.get(row.send, []), data_key)

        found = await asyncio.gather(*[shown(row) for row in rows])
        return [one for one in found if one is not None]

    async def raw(self, row: SendRow) -> dict[str, Any] | None:
        """What was asked to be sent, with links to the attachments; None where it has been erased."""
        data_key = (await self._services.keyring.get([row.user])).get(row.user)
        message = await self._message(row, data_key) if data_key is not None else None
        if message is None:
            return None
        # A link counts in whole seconds.
        expires = (datetime.now(UTC) + timedelta(seconds=self._services.link_seconds)).replace(microsecond=0)
        return {
            "subject": message.subject,
            "body": message.body,
            "bodyFormat": message.bodyFormat,
            "text": message.text,
            "headers": message.headers,
            "attachments": [
                {
                    "id": file.id,
                    "name": file.name,
                    "size": file.size,
                    "contentType": file.contentType,
                    "url": self._services.public_url + signed_link(self._services.keyset, file.id, row.owner, expires),
                    "expiresAt": stamp(expires),
                }
                for file in message.attachments
            ],
        }

    async def _message(self, row: SendRow, data_key: bytes) -> SendMessage | None:
        at = place("send", row.send, BLOB_FIELD)
        try:
            if row.blob is not None:
                plain = await self._services.blobs.read(row.blob, data_key, at)
            elif row.message is not None:
                plain = unseal(data_key, row.message, at)
            else:
                return None
        except (BlobMissing, Unsealable):
            return None
        return MESSAGE.validate_json(plain)


def _json(row: SendRow, message: SendMessage, attempts: Sequence[AttemptRow], data_key: bytes) -> bytes:
    recipients = [person.email for person in (*message.to, *message.cc, *message.bcc)]
    return orjson.dumps(
        {
            "id": row.send,
            "userId": row.user,
            "status": row.status,
            "code": row.code,
            "cause": cause_of_send(row.status, row.code),
            "connectionId": row.connection,
            "provider": row.provider,
            "subject": message.subject,
            "to": _people(message.to),
            "cc": _people(message.cc),
            "bcc": _people(message.bcc),
            "createdAt": stamp(row.created_at),
            "scheduledAt": _stamp(row.scheduled_at),
            "sentAt": _stamp(row.sent_at),
            "nextAttemptAt": _stamp(row.next_at),
            "providerMessageId": row.provider_message_id,
            "threadId": row.thread_id or message.threadId,
            "attempts": [_attempt(one, recipients, data_key) for one in attempts],
        }
    )


def _people(people: Sequence[Person]) -> list[dict[str, str | None]]:
    return [{"email": person.email, "name": person.name or None} for person in people]


def _attempt(row: AttemptRow, recipients: Sequence[str], data_key: bytes) -> Mapping[str, Any]:
    return {
        "number": row.number,
        "startedAt": stamp(row.started_at),
        "endedAt": _stamp(row.ended_at),
        "outcome": row.outcome,
        "code": row.code,
        "cause": cause_of_attempt(row.outcome, row.code),
        "detail": _said(row, data_key),
        "counted": row.counted,
        "refused": [
            {"email": recipients[one.recipient], "code": one.code, "status": one.status}
            for one in _refused(row.refused)
            if one.recipient < len(recipients)
        ],
    }


def _said(row: AttemptRow, data_key: bytes) -> str | None:
    """The provider's own words."""
    if row.said is None:
        return None
    try:
        at = place("attempt", f"{row.send}/{row.number}", "said")
        return unseal(data_key, Sealed(row.said), at).decode()
    except Unsealable:
        return None


def _refused(said: str | None) -> list[RecipientRefused]:
    return [RecipientRefused(**one) for one in orjson.loads(said)] if said else []


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else stamp(at)
