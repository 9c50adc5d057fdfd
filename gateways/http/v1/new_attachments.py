"""Storing an attachment: its bytes first, sealed and durable, then the command.

Where no attachment came of the request for certain, its blob is destroyed again; where the outcome is unknown it stays, and
is swept when no event has named it for a day.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson
from starlette.requests import Request

from domain.attachments import AttachmentRefused, AttachmentStored, StoreAttachment
from domain.fields import Digest
from gateways.http import parameters, problems
from gateways.http.asking import read_back, settled
from gateways.http.parameters import USER_ID
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1.bodies import Faults
from gateways.http.v1.queries import query_of
from gateways.http.v1.uploads import Upload
from gateways.http.who import Caller
from gateways.log.command_log import NotPromised
from gateways.log.decisions import Asked, Decision
from gateways.stores.keyset import Keyset
from gateways.stores.sealing import place, seal
from projections import attachments, users
from projections.attachments import AttachmentRow
from schemas import topics
from schemas.ids import new_id

log = logging.getLogger(__name__)

ROUTE: Final = "POST /v1/attachments/upload"


@dataclass(frozen=True, slots=True)
class Made:
    """The attachment there is now; `replayed` where an idempotency key stood for it already."""

    row: AttachmentRow
    log_position: str
    replayed: bool


async def store_attachment(services: Services, request: Request, caller: Caller) -> Made:
    """Stores the file in the request's form. Raises a Problem, and what Decisions.ask raises."""
    faults = Faults()
    user = query_of(request, ("userId",), faults).get("userId")
    if user is None:
        faults.add("/query/userId", "`userId` is missing: it says whose mail the file is for.")
    key = faults.tried(lambda: parameters.idempotency_key(request))
    if user is not None and (
        not USER_ID.fullmatch(user) or await users.by_id(services.pool, caller.owner, user) is None
    ):
        raise problems.no_such_user()
    with Upload() as upload:
        await upload.read(request, faults)
        faults.refuse()
        assert user is not None
        return await _store(services, request, caller, _Wanted(user, key, upload))


@dataclass(frozen=True, slots=True)
class _Wanted:
    user: str
    idempotency_key: str | None
    upload: Upload


async def _store(services: Services, request: Request, caller: Caller, wanted: _Wanted) -> Made:
    data_key = (await services.keyring.get([wanted.user])).get(wanted.user)
    if data_key is None:
        raise problems.no_such_user()
    attachment = new_id("att")
    command = _command(services, caller.owner, attachment, data_key, wanted)
    await _put(services, command.blob, wanted.upload, data_key, place("attachment", attachment, "content"))
    asked = Asked(topics.ACCOUNT_COMMANDS.name, caller.owner, attachment, command, attachments.PROJECTION.name)
    try:
        decision = await settled(services.account_decisions, request, asked)
    except (NotPromised, Problem):
        await _forget(services, command.blob)
        raise
    if not isinstance(decision.event, AttachmentStored):
        await _forget(services, command.blob)
        attachment = _stored_before(decision)
    row = await read_back(attachments.by_id(services.pool, caller.owner, attachment))
    if row is None:
        raise Problem("gone", "The attachment that this stored has been deleted since, or has expired.")
    return Made(row, decision.log_position, replayed=attachment != command.attachment)


def _command(services: Services, account: str, attachment: str, data_key: bytes, wanted: _Wanted) -> StoreAttachment:
    upload, key, user = wanted.upload, wanted.idempotency_key, wanted.user
    return StoreAttachment(
        account=account,
        user=user,
        attachment=attachment,
        blob=f"{user}/{attachment}.bin",
        size=upload.size,
        sha256=upload.sha256,
        mime=upload.media_type,
        name=seal(data_key, upload.name.encode(), place("attachment", attachment, "name")),
        expires_at=datetime.now(UTC) + timedelta(days=services.attachment_days),
        idempotency_key=services.keyset.digest("idempotency", account, user, ROUTE, key) if key else None,
        request=_request_digest(services.keyset, account, upload) if key else None,
    )


def _request_digest(keyset: Keyset, account: str, upload: Upload) -> Digest:
    """What makes a repetition the same request: the same bytes under the same name, in a form of any kind."""
    said = orjson.dumps([upload.sha256, upload.name]).decode()
    return keyset.digest("idempotency", "request", account, ROUTE, said)


async def _put(services: Services, blob: str, upload: Upload, data_key: bytes, at: bytes) -> None:
    """Raises a Problem (503) where the store can't be used."""
    try:
        await services.blobs.put(blob, upload.file, data_key, at)
    except OSError as error:
        log.warning("an attachment could not be stored", extra={"cause": repr(error)})
        raise problems.unavailable(
            "The file can't be stored now, and nothing was changed; try again shortly."
        ) from error


async def _forget(services: Services, blob: str) -> None:
    """No event will ever name it; where it can't be destroyed now, it is swept later."""
    try:
        await services.blobs.destroy(blob)
    except OSError as error:
        log.warning("a blob is swept later", extra={"cause": repr(error)})


def _stored_before(decision: Decision) -> str:
    """The attachment that the idempotency key stands for. Raises a Problem where nothing was stored."""
    match decision.event:
        case AttachmentRefused(reason="repeated", of=str(earlier)):
            return earlier
        case AttachmentRefused(reason="idempotency_key_reused"):
            raise Problem("idempotency_key_reused", "This idempotency key already stands for another request.")
        case AttachmentRefused(reason="unknown_user"):
            raise problems.no_such_user()
        case _:
            raise problems.unavailable()
