"""A mail as a draft in somebody's Outlook: whole, with all its attachments, before anybody may send it.

Up to MIME_BYTES it is made of the mail's own bytes (learn.microsoft.com/graph/outlook-send-mime-message), which keep every
header and both bodies. A larger one is made of properties, and its files are attached one by one
(learn.microsoft.com/graph/outlook-large-attachments): then Exchange writes the text beside an HTML body itself. Properties
carry few headers, and those only that begin with `X-`; a large mail with others is made of bytes without its files.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from domain.compose import compose, encoded_size
from domain.delivery import Deferred, Refused, TokenRefused
from domain.outgoing import MARKER, Mailbox, OutgoingFile, OutgoingMail
from gateways.providers.calls import MAX_BYTES, Reply
from gateways.providers.egress import Egress
from gateways.providers.graph_answers import meaning
from gateways.providers.graph_calls import Graph, NotDone, an_id, as_json, done
from gateways.providers.hosts import HostNotAllowed
from gateways.providers.sending import written

#: Base64 makes four thirds of it, which is below the 4 MB of a request, whichever megabyte that is.
MIME_BYTES: Final = 2_900_000
#: A file of so many bytes or more goes in pieces.
SESSION_BYTES: Final = 3_000_000
#: Of every piece but the last: below 4 MB, and a multiple of 320 KiB.
PIECE_BYTES: Final = 12 * 320 * 1024
#: Headers that a draft made of properties may have, our marker among them.
MOST_HEADERS: Final = 5
#: Bytes that one byte of a body takes at most where Graph says it back as JSON.
ESCAPED: Final = 6
INCOMPLETE: Final = Deferred("answer_unreadable")


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft by its immutable id, and the conversation that Outlook has put it into."""

    id: str
    conversation: str | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the draft is made of, and the files that are attached to it afterwards."""

    content: bytes
    content_type: str
    files: list[OutgoingFile]


async def make(graph: Graph, egress: Egress, mail: OutgoingMail) -> Draft:
    """Makes the draft; it is whole when this returns. Raises CallFailed, NotDone, and Unwritable (domain/compose.py)."""
    plan = await written(mail, _planned)
    # Graph says the whole message back, and each file.
    most = MAX_BYTES + ESCAPED * len((mail.html or mail.text).encode())
    made = await graph.post("draft", "messages", content=plan.content, content_type=plan.content_type, most=most)
    draft = draft_in(done(made))
    for file in plan.files:
        if len(file.content) < SESSION_BYTES:
            await _attach(graph, draft.id, file)
        else:
            await _upload(graph, egress, draft.id, file)
    return draft


async def find(graph: Graph, mail: OutgoingMail) -> Draft | None:
    """A whole draft of this mail that an earlier attempt has made; None where there is none, or only part of one.

    It is known by its Message-ID, and whole where it has as many attachments as the mail: a file is on a draft only once
    its last byte is. Raises CallFailed and NotDone.
    """
    for known in await with_message_id(graph, "drafts", mail.message_id):
        if known.get("isDraft") is not True:
            continue
        draft = draft_in(known)
        files = done(await graph.get("find", "messages", draft.id, "attachments", select="id,name,size")).get("value")
        if isinstance(files, list) and len(files) == len(mail.attachments):
            return draft
    return None


async def with_message_id(graph: Graph, folder: str, message_id: str) -> list[Mapping[str, Any]]:
    """The messages with this Message-ID in a well-known folder. Raises CallFailed and NotDone."""
    wanted = message_id.replace("'", "''")
    reply = await graph.get(
        "find",
        "mailFolders",
        folder,
        "messages",
        filter=f"internetMessageId eq '{wanted}'",
        select="id,isDraft,internetMessageId,conversationId",
    )
    found = done(reply).get("value")
    if not isinstance(found, list):
        raise NotDone(INCOMPLETE)
    return [one for one in found if isinstance(one, dict) and one.get("internetMessageId") == message_id]


def draft_in(message: Mapping[str, Any]) -> Draft:
    """The draft that a message of Graph's is. Raises NotDone where it has no id."""
    conversation = message.get("conversationId")
    return Draft(an_id(message.get("id")), conversation if isinstance(conversation, str) else None)


def _planned(mail: OutgoingMail) -> _Plan:
    """Raises Unwritable where the mail can't be written, in whatever form, and NotDone where its text alone is too large."""
    size = encoded_size(mail, [(file.name, file.content_type, len(file.content)) for file in mail.attachments])
    if size <= MIME_BYTES:
        return _Plan(in_base64(mail), "text/plain", [])
    if _fits_properties(mail):
        return _Plan(as_json(_properties(mail)), "application/json", mail.attachments)
    bare = replace(mail, attachments=[])
    if encoded_size(bare, []) > MIME_BYTES:
        raise NotDone(Refused("message_too_large"))
    return _Plan(in_base64(bare), "text/plain", mail.attachments)


def in_base64(mail: OutgoingMail) -> bytes:
    """The whole mail as Graph takes it: MIME, in base64. Raises Unwritable."""
    return base64.b64encode(compose(mail, with_bcc=True))


def _fits_properties(mail: OutgoingMail) -> bool:
    return len(mail.headers) < MOST_HEADERS and all(name.lower().startswith("x-") for name in mail.headers)


def _properties(mail: OutgoingMail) -> dict[str, Any]:
    headers = {MARKER: mail.marker, **mail.headers}
    body = ("text", mail.text) if mail.html is None else ("html", mail.html)
    return {
        "subject": mail.subject,
        "from": _recipient(mail.sender),
        "toRecipients": [_recipient(one) for one in mail.to],
        "ccRecipients": [_recipient(one) for one in mail.cc],
        "bccRecipients": [_recipient(one) for one in mail.bcc],
        "replyTo": [_recipient(one) for one in mail.reply_to],
        "internetMessageId": mail.message_id,
        "internetMessageHeaders": [{"name": name, "value": value} for name, value in headers.items()],
        "body": {"contentType": body[0], "content": body[1]},
    }


def _recipient(mailbox: Mailbox) -> dict[str, Any]:
    named = {"name": mailbox.name} if mailbox.name else {}
    return {"emailAddress": {"address": mailbox.address, **named}}


async def _attach(graph: Graph, draft: str, file: OutgoingFile) -> None:
    document = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": file.name,
        "contentType": file.content_type,
        "contentBytes": base64.b64encode(file.content).decode(),
    }
    most = MAX_BYTES + 2 * len(file.content)
    done(await graph.post("attach", "messages", draft, "attachments", content=as_json(document), most=most))


async def _upload(graph: Graph, egress: Egress, draft: str, file: OutgoingFile) -> None:
    size = len(file.content)
    item = {"attachmentType": "file", "name": file.name, "size": size, "contentType": file.content_type}
    path = ("messages", draft, "attachments", "createUploadSession")
    address = done(await graph.post("attach", *path, content=as_json({"AttachmentItem": item}))).get("uploadUrl")
    try:
        url = egress.checked_url(address if isinstance(address, str) else "")
    except HostNotAllowed:
        raise NotDone(INCOMPLETE) from None
    for first, piece in _pieces(file.content):
        last = first + len(piece) - 1
        reply = await graph.put_piece(url, piece, f"bytes {first}-{last}/{size}")
        if not reply.ok:
            raise NotDone(_piece_refused(reply))
        if last == size - 1 and reply.status != 201:
            raise NotDone(INCOMPLETE)


def _pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    for first in range(0, len(content), PIECE_BYTES):
        yield first, content[first : first + PIECE_BYTES]


def _piece_refused(reply: Reply) -> Deferred | Refused:
    """The session is the one that doesn't take it, not the mailbox: another attempt gets another session."""
    found = meaning(reply)
    match found:
        case Deferred():
            return found
        case Refused(code="message_too_large"):
            return found
        case Refused() | TokenRefused():
            return Deferred("temporarily_refused")
