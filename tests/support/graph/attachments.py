"""In the child: files on messages, in one request or in pieces."""

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.graph.answers import Answer, Asked, Refused, bad_request, not_found
from tests.support.graph.mailbox import Mailbox, Message
from tests.support.graph.messages import Session, Work, document, file, limited, parameters
from tests.support.graph.mime import Attachment

_PIECE = 320 * 1024
_LARGEST = 150 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


async def attach(work: Work, asked: Asked, given: str) -> Answer:
    box, message = _draft(work, asked, given)
    made = file(box, document(asked.body))
    if len(made.content) > work.state.settings["attachmentBytes"]:
        raise Refused(413, "BadRequest", "The maximum request length supported is 4MB.")
    _add(work, message, made)
    return Answer(201, made.told(), {"Location": f"{asked.base}/v1.0/me/messages/{given}/attachments/{made.id}"})


def _draft(work: Work, asked: Asked, given: str) -> tuple[Mailbox, Message]:
    box = work.box(asked)
    message = box.find(asked, given)
    if message.submitted or not message.is_draft:
        raise bad_request("Attachments can be added to drafts only.", "ErrorInvalidRequest")
    return box, message


def _add(work: Work, message: Message, made: Attachment) -> None:
    size = message.size + len(made.content) * 4 // 3
    limited(work, size)
    message.attachments.append(made)
    message.size = size
    message.touch()


async def attachments(work: Work, asked: Asked, given: str) -> Answer:
    message = work.box(asked).find(asked, given)
    whole = "$select" not in asked.query
    return Answer(200, {"value": [one.told(whole=whole) for one in message.attachments]})


def _found(work: Work, asked: Asked, given: str, which: str) -> tuple[Message, Attachment]:
    message = work.box(asked).find(asked, given)
    for one in message.attachments:
        if one.id == which:
            return message, one
    raise not_found()


async def attachment(work: Work, asked: Asked, given: str, which: str) -> Answer:
    return Answer(200, _found(work, asked, given, which)[1].told())


async def attachment_value(work: Work, asked: Asked, given: str, which: str) -> Answer:
    one = _found(work, asked, given, which)[1]
    return Answer(200, one.content, {"Content-Type": one.content_type})


async def detach(work: Work, asked: Asked, given: str, which: str) -> Answer:
    message, one = _found(work, asked, given, which)
    if message.attachments.index(one) < message.own_files:
        message.source, message.own_files = None, 0
    message.attachments.remove(one)
    message.size -= len(one.content) * 4 // 3
    message.touch()
    return Answer(204)


# ── in pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def session(work: Work, asked: Asked, given: str) -> Answer:
    box, message = _draft(work, asked, given)
    item = parameters(asked.body).get("attachmentitem")
    if not isinstance(item, dict) or item.get("attachmentType") != "file" or not item.get("name"):
        raise bad_request("The AttachmentItem needs its attachmentType, name and size.", "ErrorInvalidParameter")
    size = item.get("size")
    if not isinstance(size, int) or size < work.state.settings["sessionBytes"]:
        raise bad_request("Attachment size must be greater than the minimum size.",
                          "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")  # fmt: skip
    if size > _LARGEST:
        raise bad_request("Attachment size is larger than 150 MB.", "ErrorAttachmentSizeLimitExceeded")
    limited(work, message.size + size * 4 // 3)
    secret = secrets.token_urlsafe(48)
    work.sessions[secret] = Session(box, message, item)
    told = {
        "@odata.context": f"{asked.base}/v1.0/$metadata#microsoft.graph.uploadSession",
        **_progress(work.sessions[secret]),
    }
    told["uploadUrl"] = f"{work.uploads}/api/v2.0/attachmentsessions/{secret}?authtoken={secrets.token_urlsafe(24)}"
    return Answer(201, told)


def _progress(one: Session) -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(hours=1)
    return {"expirationDateTime": end.isoformat(), "nextExpectedRanges": [str(len(one.content))]}


def _open(work: Work, secret: str) -> Session:
    one = work.sessions.get(secret)
    if one is None or one.message.submitted or one.message.immutable_id not in one.box.messages:
        raise not_found()
    return one


async def put(work: Work, asked: Asked, secret: str) -> Answer:
    one = _open(work, secret)
    size = one.item["size"]
    if len(asked.body) >= work.state.settings["chunkBytes"]:
        raise Refused(413, "BadRequest", "The maximum request length supported is 4MB.")
    found = _RANGE.fullmatch(asked.headers.get("content-range", ""))
    if not found:
        raise bad_request("Content-Range is missing or malformed.", "ErrorInvalidContentRange")
    first, last, total = map(int, found.groups())
    if total != size or last - first + 1 != len(asked.body) or last >= size:
        raise bad_request("Content-Range does not fit the content or the session.", "ErrorInvalidContentRange")
    if first != len(one.content):
        raise Refused(416, "InvalidRange", f"The next expected range begins at {len(one.content)}.")
    if last != size - 1 and len(asked.body) % _PIECE:
        raise bad_request("The size of every piece but the last is a multiple of 320 KiB.", "InvalidFragmentLength")
    one.content += asked.body
    if len(one.content) < size:
        return Answer(200, _progress(one))
    kind = one.item.get("contentType") or "application/octet-stream"
    made = Attachment(one.box.id("rest"), one.item["name"], kind, bytes(one.content), bool(one.item.get("isInline")),
                      one.item.get("contentId"))  # fmt: skip
    _add(work, one.message, made)
    del work.sessions[secret]
    path = f"/api/v2.0/Users('{one.box.login}')/Messages('{one.message.rest_id}')/Attachments('{made.id}')"
    return Answer(201, None, {"Location": work.uploads + path})


async def session_status(work: Work, asked: Asked, secret: str) -> Answer:
    return Answer(200, _progress(_open(work, secret)))


async def session_cancel(work: Work, asked: Asked, secret: str) -> Answer:
    _open(work, secret)
    del work.sessions[secret]
    return Answer(204)
