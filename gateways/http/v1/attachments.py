"""Files for users' mail: uploading, finding, downloading and deleting them.

An attachment's name and bytes are sealed under its user's data key, for `place("attachment", id, "name")` and `"content"`.
"""

import re
from functools import partial
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.attachments import AttachmentRefused, DeleteAttachment
from gateways.http import problems
from gateways.http.asking import read_back, settled
from gateways.http.downloads import download
from gateways.http.operations import AFTER_PARAMETER, SAME, TEXT, declare, list_response, parameter
from gateways.http.parameters import USER_ID
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.attachment_links import PATH, check_link, refused_link
from gateways.http.v1.attachment_shapes import (
    ATTACHMENT,
    FORM,
    StoredAttachment,
    StoredAttachments,
    attachment_json,
    name_of,
)
from gateways.http.v1.bodies import Faults
from gateways.http.v1.new_attachments import store_attachment
from gateways.http.v1.pending import DELETE_ATTACHMENT, declare_write
from gateways.http.v1.pending import UPLOAD as UPLOADED
from gateways.http.v1.queries import query_of
from gateways.http.v1.shapes import USER
from gateways.http.v1.users import API_KEY, NO_STORE, OF_ACCOUNT, POSITION
from gateways.http.who import account_caller, link_permit
from gateways.log.decisions import Asked
from gateways.stores.sealing import place
from projections import attachments
from projections.attachments import AttachmentRow
from schemas import topics
from schemas.ids import ALPHABET

UPLOAD: Final = PATH + "/upload"
ONE: Final = PATH + "/{attachment_id}"
QUERY: Final = ("userId", *pages.NAMES)
ATTACHMENT_ID: Final = re.compile(f"att_[{ALPHABET}]{{26}}")
ATTACHMENT_PARAMETER: Final = parameter("attachment_id", "path", "The attachment's id.", TEXT, ATTACHMENT)
ERASED: Final = "It was here and has been erased."


def routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["attachments"])
    files = Files(services)
    declare_write(
        router,
        services,
        "POST",
        UPLOAD,
        files.upload,
        kind=UPLOADED,
        name="uploadAttachment",
        summary="Upload an attachment",
        answers={201: {"model": StoredAttachment, "description": "The user's mail can take it along."}},
        refusals=(
            "invalid_request",
            "bad_request",
            "not_found",
            "request_timeout",
            "idempotency_key_reused",
            "gone",
            "attachment_too_large",
            *OF_ACCOUNT,
        ),
        parameters=(
            parameter("userId", "query", "The user whose mail it is for.", TEXT, USER) | {"required": True},
            parameter("Idempotency-Key", "header", "Repeats answer as the first did.", TEXT, "invoice-4711"),
        ),
        security=API_KEY,
        body={"multipart/form-data": FORM},
    )
    declare(
        router,
        "GET",
        PATH,
        files.list_all,
        name="listAttachments",
        summary="List attachments",
        answers={200: {"model": StoredAttachments, "description": "Newest first."}, 304: SAME},
        refusals=("invalid_request", "outcome_unknown", *OF_ACCOUNT),
        parameters=(
            parameter("userId", "query", "Only this user's.", TEXT, USER),
            *pages.PARAMETERS,
            AFTER_PARAMETER,
        ),
        security=API_KEY,
    )
    _declare_one(router, services, files)
    return router


def _declare_one(router: APIRouter, services: Services, files: "Files") -> None:
    """What can be done with one attachment."""
    declare(
        router,
        "GET",
        ONE,
        files.show,
        name="getStoredAttachment",
        summary="Look at an attachment",
        answers={200: {"model": StoredAttachment, "description": "The attachment, without its bytes."}},
        refusals=("invalid_request", "not_found", "outcome_unknown", *OF_ACCOUNT),
        parameters=(ATTACHMENT_PARAMETER, AFTER_PARAMETER),
        security=API_KEY,
    )
    declare(
        router,
        "GET",
        ONE + "/content",
        files.content,
        name="downloadStoredAttachment",
        summary="Download an attachment",
        answers={
            200: {
                "description": "Its bytes.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            },
            206: {"description": "The range that was asked for."},
            304: SAME,
        },
        refusals=(
            "invalid_request", "not_found", "link_invalid", "link_expired", "gone", "range_not_satisfiable",
            "outcome_unknown", *OF_ACCOUNT,
        ),
        parameters=(
            ATTACHMENT_PARAMETER,
            parameter("expires", "query", "Of a signed link: when it ends.", TEXT, "1773415800") | {"example": None},
            parameter("signature", "query", "Of a signed link.", TEXT, "c2lnbmF0dXJl") | {"example": None},
            AFTER_PARAMETER,
        ),
        security=API_KEY,
    )  # fmt: skip
    declare_write(
        router,
        services,
        "DELETE",
        ONE,
        files.delete,
        kind=DELETE_ATTACHMENT,
        name="deleteAttachment",
        summary="Delete an attachment",
        answers={204: {"description": "It can't be sent any more."}},
        refusals=("not_found", *OF_ACCOUNT),
        parameters=(ATTACHMENT_PARAMETER,),
        security=API_KEY,
    )


class Files:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def upload(self, request: Request) -> Response:
        """Send one file as the field `file` of a form. What no send has named within some days is deleted by itself."""
        caller = await account_caller(self._services, request, "sends:write")
        made = await store_attachment(self._services, request, caller)
        headers = {**NO_STORE, LOG_POSITION: made.log_position, "Location": f"{PATH}/{made.row.attachment}"}
        if made.replayed:
            headers["Idempotency-Replayed"] = "true"
        return Response(await read_back(self._one(made.row)), 201, headers, "application/json")

    async def list_all(self, request: Request) -> Response:
        """Those of all the account's users, or of one of them, the newest first."""
        services = self._services
        caller = await account_caller(services, request, "sends:read")
        faults = Faults()
        user = query_of(request, QUERY, faults).get("userId")
        limit, before = pages.limit_of(request, faults), pages.cursor_of(request, POSITION, faults)
        faults.refuse()
        await after_position(services, request)
        rows = await attachments.of_account(
            services.pool,
            caller.owner,
            limit=limit + 1,
            # What can't be a user's id is nobody's, as an id that was never given out.
            user=user if user is None or USER_ID.fullmatch(user) else "",
            before=int(before) if before else None,
        )
        last = str(rows[limit - 1].position) if len(rows) > limit else None
        return list_response(request, *pages.page(await self._opened(rows[:limit]), last))

    async def show(self, request: Request) -> Response:
        """Its name, size, type and digest."""
        caller = await account_caller(self._services, request, "sends:read")
        await after_position(self._services, request)
        row = await self._row(caller.owner, _attachment_id(request))
        return Response(await self._one(row), 200, NO_STORE, "application/json")

    async def content(self, request: Request) -> Response:
        """Always a download, under a safe name; ranges are answered. A signed link, as a message's `/raw` has them, needs
        no credentials."""
        if request.query_params.get("signature") or request.query_params.get("expires"):
            row = await self._linked(request)
        else:
            caller = await account_caller(self._services, request, "sends:read")
            await after_position(self._services, request)
            row = await self._row(caller.owner, _attachment_id(request))
        data_key = (await self._services.keyring.get([row.user])).get(row.user)
        if data_key is None:
            raise Problem("gone", ERASED)
        read = partial(self._services.blobs.read, row.blob, data_key, place("attachment", row.attachment, "content"))
        return download(
            request, read, held=row.size, name=name_of(row, data_key), media_type=row.mime, etag=f'"{row.sha256}"'
        )

    async def delete(self, request: Request) -> Response:
        """It is neither listed nor sent any more. A send that names it already goes out with it, and keeps it."""
        services = self._services
        caller = await account_caller(services, request, "sends:write")
        row = await self._row(caller.owner, _attachment_id(request))
        command = DeleteAttachment(caller.owner, row.user, row.attachment, "caller")
        asked = Asked(topics.ACCOUNT_COMMANDS.name, caller.owner, row.attachment, command, attachments.PROJECTION.name)
        decision = await settled(services.account_decisions, request, asked)
        if isinstance(decision.event, AttachmentRefused):
            raise problems.not_found()
        return Response(status_code=204, headers={LOG_POSITION: decision.log_position})

    async def _linked(self, request: Request) -> AttachmentRow:
        """The attachment that a signed link opens, at its account's expense. Raises a Problem (403, 429)."""
        said = request.query_params
        found: str = request.path_params["attachment_id"]
        row = await attachments.kept(self._services.pool, found) if ATTACHMENT_ID.fullmatch(found) else None
        if row is None:
            raise refused_link()
        expires, signature = said.get("expires", ""), said.get("signature", "")
        check_link(self._services.keyset, row.attachment, row.account, expires=expires, signature=signature)
        request.scope["rate"] = await link_permit(self._services, row.account)
        return row

    async def _row(self, account: str, attachment: str) -> AttachmentRow:
        """Raises a Problem (404)."""
        row = await attachments.by_id(self._services.pool, account, attachment)
        if row is None:
            raise problems.not_found()
        return row

    async def _one(self, row: AttachmentRow) -> bytes:
        """Raises a Problem (404) where the user's data key is gone."""
        opened = await self._opened([row])
        if not opened:
            raise problems.not_found()
        return opened[0]

    async def _opened(self, rows: list[AttachmentRow]) -> list[bytes]:
        """Attachments as JSON; those of a user who was erased a moment ago are left out."""
        keys = await self._services.keyring.get({row.user for row in rows})
        return [opened for row in rows if row.user in keys and (opened := attachment_json(row, keys[row.user]))]


def _attachment_id(request: Request) -> str:
    """The attachment that the path names; what can't be an id is not there."""
    found: str = request.path_params["attachment_id"]
    if not ATTACHMENT_ID.fullmatch(found):
        raise problems.not_found()
    return found
