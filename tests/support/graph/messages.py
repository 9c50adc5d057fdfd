"""In the child: drafts, what is done to them, and what is told of messages."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.graph.answers import Answer, Asked, Refused, bad_request
from tests.support.graph.mailbox import Mailbox, Message, filtered
from tests.support.graph.mime import RECIPIENTS, Attachment, decoded, parsed, rendered
from tests.support.graph.receipts import Receipts
from tests.support.graph.state import State

_WRITABLE = {
    *RECIPIENTS, "subject", "body", "importance", "from", "sender", "categories", "isRead", "flag", "attachments",
    "inferenceClassification", "isDeliveryReceiptRequested", "isReadReceiptRequested", "internetMessageId",
    "internetMessageHeaders", "singleValueExtendedProperties", "multiValueExtendedProperties",
}  # fmt: skip
_ALWAYS = {"categories", "isRead", "flag", "inferenceClassification", "importance", "singleValueExtendedProperties"}
_CONTENT = {*RECIPIENTS, "subject", "body", "from", "internetMessageHeaders", "importance"}
_READ_ONLY = {"id", "isDraft", "bodyPreview", "hasAttachments", "createdDateTime", "lastModifiedDateTime", "changeKey",
              "receivedDateTime", "sentDateTime", "parentFolderId", "conversationId", "webLink"}  # fmt: skip


@dataclass
class Session:
    """An attachment that comes in pieces."""

    box: Mailbox
    message: Message
    item: dict[str, Any]
    content: bytearray = field(default_factory=bytearray)


@dataclass
class Work:
    """What there is to work on."""

    state: State
    receipts: Receipts
    uploads: str = ""  # another address than that of the API
    boxes: dict[str, Mailbox] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    over: bool = False  # since a reset: what is still under way then does nothing any more

    def box(self, asked: Asked) -> Mailbox:
        assert asked.login is not None
        return self.boxes.setdefault(asked.login, Mailbox(asked.login, self.state))


def document(body: bytes) -> dict[str, Any]:
    try:
        words = json.loads(body)
    except ValueError as reason:
        raise bad_request("Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of "
                          "valid JSON format.") from reason  # fmt: skip
    if not isinstance(words, dict):
        raise bad_request("The request payload is no object.", "RequestBodyRead")
    return words


def parameters(body: bytes) -> dict[str, Any]:
    """Those of an action: their names are in whatever letters."""
    return {name.lower(): value for name, value in document(body).items()}


# ── drafts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def create(work: Work, asked: Asked) -> Answer:
    box = work.box(asked)
    if asked.content_type == "text/plain":
        message = from_mime(work, box, asked.body)
    else:
        message = from_json(work, box, document(asked.body), keeps_id=True)
    told = {"@odata.context": f"{asked.base}/v1.0/$metadata#users('{box.login}')/messages/$entity"} | box.tell(
        asked, message
    )
    return Answer(201, told, {"Location": f"{asked.base}/v1.0/me/messages/{told['id']}"})


def from_mime(work: Work, box: Mailbox, body: bytes) -> Message:
    raw = decoded(body)
    found = parsed(raw)
    limited(work, len(raw))
    message = box.add(found.message_id, found.properties, raw)
    for name, kind, content, inline, content_id in found.attachments:
        message.attachments.append(Attachment(box.id("rest"), name, kind, content, inline, content_id))
    message.own_files, message.size = len(message.attachments), len(raw)
    return message


def from_json(work: Work, box: Mailbox, words: dict[str, Any], *, keeps_id: bool) -> Message:
    words = {name: value for name, value in words.items() if not name.startswith("@odata.")}
    _check(words)
    message_id = words.pop("internetMessageId", None)
    files = [file(box, one) for one in words.pop("attachments", None) or []]
    size = len((words.get("body") or {}).get("content") or "") + sum(len(one.content) * 4 // 3 for one in files)
    limited(work, size)
    message = box.add(message_id if keeps_id else None, words)
    message.attachments, message.size = files, size
    return message


def limited(work: Work, size: int) -> None:
    if size > work.state.settings["messageBytes"]:
        raise Refused(413, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")


def file(box: Mailbox, words: dict[str, Any]) -> Attachment:
    if words.get("@odata.type", "").lower() != "#microsoft.graph.fileattachment":
        raise bad_request(
            "An attachment needs its @odata.type, and the double knows #microsoft.graph.fileAttachment only."
        )
    try:
        content = base64.b64decode(words.get("contentBytes") or "", validate=True)
    except ValueError as reason:
        raise bad_request(
            "Cannot convert the contentBytes to the expected type 'Edm.Binary'.", "RequestBodyRead"
        ) from reason
    if not words.get("name"):
        raise bad_request("The required property 'name' is missing.", "ErrorRequiredPropertyMissing")
    kind = words.get("contentType") or "application/octet-stream"
    return Attachment(box.id("rest"), words["name"], kind, content, bool(words.get("isInline")), words.get("contentId"))


async def update(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    message = box.find(asked, given)
    words = {name: value for name, value in document(asked.body).items() if not name.startswith("@odata.")}
    if "internetMessageId" in words or "attachments" in words:
        raise bad_request("The property can't be changed once the message exists.", "ErrorInvalidPropertySet")
    _check(words)
    if (message.submitted or not message.is_draft) and words.keys() - _ALWAYS:
        raise bad_request("The property can be changed on drafts only.", "ErrorInvalidPropertySet")
    if message.source is not None and words.keys() & _CONTENT:
        message.source, message.own_files = None, 0
    message.properties |= words
    message.touch()
    return Answer(200, box.tell(asked, message))


def _check(words: dict[str, Any]) -> None:
    if read_only := words.keys() & _READ_ONLY:
        raise bad_request(f"The property '{min(read_only)}' is read-only.", "ErrorInvalidPropertySet")
    if unknown := words.keys() - _WRITABLE:
        raise bad_request(f"The property '{min(unknown)}' does not exist on type 'microsoft.graph.message'. Make sure to "
                          "only use property names that are defined by the type.", "RequestBodyRead")  # fmt: skip
    for name in words.keys() & RECIPIENTS.keys():
        if not isinstance(words[name], list) or not all(_is_person(one) for one in words[name]):
            raise bad_request(f"Cannot read the property '{name}'.", "RequestBodyRead")
    if words.get("from") is not None and not _is_person(words["from"]):
        raise bad_request("Cannot read the property 'from'.", "RequestBodyRead")
    body = words.get("body")
    if body is not None and not (isinstance(body, dict) and str(body.get("contentType")).lower() in {"text", "html"}):
        raise bad_request("Cannot read the property 'body'.", "RequestBodyRead")
    headers = words.get("internetMessageHeaders")
    if headers is not None and not 1 <= len(headers) <= 5:
        raise bad_request("Maximum number of headers in one message should be less than or equal to 5.",
                          "InvalidInternetMessageHeaderCollection")  # fmt: skip
    for one in headers or []:
        if not one["name"].lower().startswith("x-"):
            raise bad_request(f"The internet message header name '{one['name']}' should start with 'x-' or 'X-'.",
                              "InvalidInternetMessageHeader")  # fmt: skip


def _is_person(one: Any) -> bool:
    address = one.get("emailAddress") if isinstance(one, dict) else None
    return isinstance(address, dict) and isinstance(address.get("address") or "", str)


async def get(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    return Answer(200, box.tell(asked, box.find(asked, given)))


async def delete(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    box.remove(box.find(asked, given))
    return Answer(204)


async def move(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    message = box.find(asked, given)
    box.move(message, box.folder(str(parameters(asked.body).get("destinationid"))))
    return Answer(201, box.tell(asked, message))


async def listing(work: Work, asked: Asked, folder: str | None = None) -> Answer:
    box, query = work.box(asked), asked.query
    found = box.visible(box.folder(folder) if folder else None)
    if condition := query.get("$filter"):
        found = filtered(found, condition)
    try:
        most = int(query.get("$top") or asked.preferences.get("odata.maxpagesize") or 10)
        skipped = int(query.get("$skip", 0))
    except ValueError as reason:
        raise bad_request("Invalid value for $top or $skip.") from reason
    if not 1 <= most <= 1000 or skipped < 0:
        raise bad_request("The limit of '1000' for Top query has been exceeded, or it is less than one.")
    page = found[skipped : skipped + most]
    words: dict[str, Any] = {"@odata.context": f"{asked.base}/v1.0/$metadata#users('{box.login}')/messages"}
    words["value"] = [box.tell(asked, one) for one in page]
    if skipped + most < len(found):
        words["@odata.nextLink"] = asked.link(**{"$skip": skipped + most})
    return Answer(200, words)


async def value(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    message = box.find(asked, given)
    whole = message.source is not None and len(message.attachments) == message.own_files
    raw = message.source if whole else written(box, message)[1]
    return Answer(200, raw, {"Content-Type": "text/plain"})


async def folders(work: Work, asked: Asked) -> Answer:
    box = work.box(asked)
    names = ("inbox", "drafts", "sentitems", "outbox", "deleteditems")
    return Answer(200, {"value": [box.tell_folder(name) for name in names]})


async def folder(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    return Answer(200, box.tell_folder(box.folder(given)))


def written(box: Mailbox, message: Message) -> tuple[list[list[str]], bytes]:
    """The headers and the bytes of the mail that goes out."""
    later = message.attachments[message.own_files :]
    names = {"login": box.login, "message_id": message.internet_message_id, "at": message.changed}
    try:
        mail = rendered(message.properties, source=message.source, files=later, **names)
        return [[name, str(text)] for name, text in mail.items()], mail.as_bytes()
    except (ValueError, LookupError, TypeError, AttributeError) as reason:
        raise bad_request(f"Exchange could not write this mail: {reason!r}", "ErrorMimeContentInvalid") from reason
