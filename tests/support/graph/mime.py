"""In the child: a mail as bytes and as Graph's properties, there and back."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, getaddresses
from html.parser import HTMLParser
from typing import Any

from tests.support.graph.answers import bad_request

RECIPIENTS = {"toRecipients": "To", "ccRecipients": "Cc", "bccRecipients": "Bcc", "replyTo": "Reply-To"}
_IMPORTANCE = {"high": "1", "low": "5"}


@dataclass
class Attachment:
    """A file on a message."""

    id: str
    name: str
    content_type: str
    content: bytes
    inline: bool = False
    content_id: str | None = None

    def told(self, *, whole: bool = True) -> dict[str, Any]:
        words = {"@odata.type": "#microsoft.graph.fileAttachment", "@odata.mediaContentType": self.content_type}
        words |= {"id": self.id, "lastModifiedDateTime": "2026-11-22T12:00:00Z", "name": self.name}
        words |= {"contentType": self.content_type, "size": len(self.content), "isInline": self.inline}
        words |= {"contentId": self.content_id, "contentLocation": None}
        return words | ({"contentBytes": base64.b64encode(self.content).decode()} if whole else {})

    def receipt(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.content).hexdigest()
        return {"name": self.name, "contentType": self.content_type, "size": len(self.content), "sha256": digest}


@dataclass
class Parsed:
    """What was in the bytes of a mail."""

    properties: dict[str, Any]
    message_id: str | None
    attachments: list[tuple[str, str, bytes, bool, str | None]] = field(default_factory=list)


def decoded(body: bytes) -> bytes:
    """The mail that came as base64 in a text/plain request."""
    try:
        raw = base64.b64decode(re.sub(rb"[\r\n]", b"", body), validate=True)
    except binascii.Error as error:
        raise bad_request("Invalid base64 string for MIME content.", "ErrorMimeContentInvalidBase64String") from error
    if not raw.strip():
        raise bad_request("The MIME content is empty.", "ErrorMimeContentInvalid")
    return raw


def parsed(raw: bytes) -> Parsed:
    try:
        mail = message_from_bytes(raw, policy=SMTP)
        properties: dict[str, Any] = {"subject": str(mail["Subject"] or ""), "importance": "normal"}
        for name, header in RECIPIENTS.items():
            properties[name] = _recipients([str(value) for value in mail.get_all(header, [])])
        if sender := _recipients([str(value) for value in mail.get_all("From", [])]):
            properties["from"] = sender[0]
        assert isinstance(mail, EmailMessage)
        text = mail.get_body(("html", "plain"))
        kind = "html" if text is not None and text.get_content_subtype() == "html" else "text"
        properties["body"] = {"contentType": kind, "content": text.get_content() if text is not None else ""}
        files = [_file(part) for part in mail.iter_attachments() if not part.is_multipart()]
        message_id = mail["Message-ID"]
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise bad_request(f"The MIME content is invalid: {error!r}", "ErrorMimeContentInvalid") from error
    return Parsed(properties, str(message_id).strip() if message_id else None, files)


def _file(part: MIMEPart) -> tuple[str, str, bytes, bool, str | None]:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    inline = part.get_content_disposition() == "inline"
    return part.get_filename() or "attachment", part.get_content_type(), content, inline, part["Content-ID"]


def _recipients(values: list[str]) -> list[dict[str, Any]]:
    found = getaddresses(values)
    return [{"emailAddress": {"name": name or address, "address": address}} for name, address in found if address]


def rendered(
    properties: dict[str, Any],
    *,
    login: str,
    message_id: str,
    at: datetime,
    source: bytes | None,
    files: list[Attachment],
) -> EmailMessage:
    """The mail as it goes out. One that came as bytes keeps all of its parts and gets the `files` that came later."""
    mail = _written(properties, login) if source is None else message_from_bytes(source, policy=_policy(source))
    assert isinstance(mail, EmailMessage)
    del mail["Bcc"]
    for name, value in (("From", login), ("Message-ID", message_id), ("Date", format_datetime(at.astimezone(UTC)))):
        if mail[name] is None:
            mail[name] = value
    for file in files:
        kind, _, subtype = file.content_type.partition("/")
        words: dict[str, Any] = {"cid": file.content_id} if file.content_id else {}
        disposition = "inline" if file.inline else "attachment"
        name = clean(file.name)
        mail.add_attachment(file.content, kind, subtype or "octet-stream", disposition, filename=name, **words)
    return mail


def _policy(source: bytes) -> Any:
    return SMTP if source.isascii() else SMTPUTF8


def _written(properties: dict[str, Any], login: str) -> EmailMessage:
    lines = {header: _line(properties.get(name) or []) for name, header in RECIPIENTS.items()}
    sender = _line([properties["from"]]) if properties.get("from") else login
    ascii_only = all(line.isascii() for line in (*map(_addresses_only, lines.values()), _addresses_only(sender)))
    mail = EmailMessage(policy=SMTP if ascii_only else SMTPUTF8)
    mail["From"] = sender
    for header, line in lines.items():
        if line and header != "Bcc":
            mail[header] = line
    mail["Subject"] = clean(properties.get("subject") or "")
    if number := _IMPORTANCE.get(properties.get("importance") or ""):
        mail["X-Priority"] = number
    for one in properties.get("internetMessageHeaders") or []:
        mail[clean(one["name"])] = clean(one["value"])
    body = properties.get("body") or {"contentType": "text", "content": ""}
    if body["contentType"].lower() == "html":
        mail.set_content(text_of(body["content"]))
        mail.add_alternative(body["content"], subtype="html")
    else:
        mail.set_content(body["content"])
    return mail


def _line(people: list[dict[str, Any]]) -> str:
    return ", ".join(_person(one["emailAddress"]) for one in people)


def _person(one: dict[str, Any]) -> str:
    name, address = clean(one.get("name") or ""), clean(one.get("address") or "")
    if not name or name == address:
        return address
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{address}>'


def _addresses_only(line: str) -> str:
    return " ".join(address for _, address in getaddresses([line]))


def clean(text: str) -> str:
    """What may stand in one line of a header. The receipt keeps the words as they came."""
    return re.sub(r"[\r\n\0]+", " ", text)


def text_of(html: str) -> str:
    """The text between the tags, near enough for a preview."""
    texts: list[str] = []
    reader = HTMLParser()
    reader.handle_data = texts.append  # type: ignore[method-assign]  # the one method that matters here
    reader.feed(html)
    reader.close()
    return " ".join("".join(texts).split())
