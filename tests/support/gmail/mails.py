"""A mail as Gmail reads it before it is sent, and as it is afterwards: in Sent, and for its recipients."""

import email
import email.policy
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from email.message import Message
from email.utils import formatdate, getaddresses
from typing import Any

from tests.support.gmail.content import b64url
from tests.support.gmail.errors import Refused

_NAME = re.compile(rb"[!-9;-~]+")
_LOCAL = r"(?:[^\s@<>()\[\],;:\"\\]+|\"(?:[^\"\\]|\\.)*\")"
_ADDRESS = re.compile(rf"{_LOCAL}@(?:[^\s@<>()\[\],;:\"\\.]+\.)+[^\s@<>()\[\],;:\"\\.]+")
_NOBODY = re.compile(r"\s*[\w -]+:\s*;\s*")
#: What a mail may have once.
_ONCE = {"from", "sender", "reply-to", "to", "cc", "bcc", "subject", "message-id", "date", "in-reply-to", "references",
         "mime-version", "content-type", "content-transfer-encoding"}  # fmt: skip


@dataclass
class Mail:
    """The fields of a mail, in their order and as they stand, and its body."""

    fields: list[tuple[str, bytes]]
    body: bytes

    @classmethod
    def read(cls, raw: bytes) -> "Mail":
        """Refuses what is no mail: bad names, bare CR and NUL in the head, fields twice that may be there once."""
        whole = re.sub(rb"\r?\n", b"\r\n", raw)
        if whole.startswith(b"\r\n"):
            return cls([], whole[2:])
        head, _, body = whole.partition(b"\r\n\r\n")
        lines = re.findall(rb"[^\n]*\r\n(?:[ \t][^\n]*\r\n)*", head.removesuffix(b"\r\n") + b"\r\n")
        fields = []
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _NAME.fullmatch(name) or re.search(rb"\0|\r(?!\n)", line):
                raise Refused("invalidArgument", "Invalid header")
            fields.append((name.decode(), value))
        counts = Counter(name.lower() for name, _ in fields)
        if twice := sorted(name for name in counts.keys() & _ONCE if counts[name] > 1):
            raise Refused("invalidArgument", f"Multiple {twice[0].title()} headers")
        return cls(fields, body)

    def bytes(self, *, without: frozenset[str] = frozenset()) -> bytes:
        fields = [name.encode() + b":" + value for name, value in self.fields if name.lower() not in without]
        return b"".join(fields) + b"\r\n" + self.body

    def get(self, name: str) -> str | None:
        """The text of the first field of that name, unfolded."""
        for found, value in self.fields:
            if found.lower() == name.lower():
                try:
                    return re.sub(r"\r\n(?=[ \t])", "", value.decode()).strip()
                except UnicodeDecodeError as error:
                    raise Refused("invalidArgument", f"Invalid {found} header") from error
        return None

    def put(self, name: str, value: str) -> None:
        """Set a field where it stands, or at the end."""
        new = (name, f" {value}\r\n".encode())
        for place, (found, _) in enumerate(self.fields):
            if found.lower() == name.lower():
                self.fields[place] = new
                return
        self.fields.append(new)

    def addresses(self, name: str) -> list[str]:
        text = self.get(name)
        if not text or _NOBODY.fullmatch(text):
            return []
        plain = [address.strip() for address in text.split(",")]
        if all(map(_ADDRESS.fullmatch, plain)):
            return plain
        found = [address for _, address in getaddresses([text])]
        if not found or not all(_ADDRESS.fullmatch(address) for address in found):
            raise Refused("invalidArgument", f"Invalid {name} header")
        return found

    def recipients(self, most: int | None) -> list[str]:
        """Everybody it goes to, each once."""
        everybody = [address for name in ("To", "Cc", "Bcc") for address in self.addresses(name)]
        once: dict[str, str] = {}
        for address in everybody:
            once.setdefault(address.lower(), address)
        if not once:
            raise Refused("invalidArgument", "Recipient address required")
        if most is not None and len(once) > most:
            raise Refused("invalidArgument", "Too many recipients")
        return list(once.values())

    def marks(self) -> dict[str, str]:
        """Its X- headers."""
        return {name: self.get(name) or "" for name, _ in self.fields if name.lower().startswith("x-")}

    def references(self) -> set[str]:
        return set(re.findall(r"<[^<>\s]+>", f"{self.get('References') or ''} {self.get('In-Reply-To') or ''}"))

    def subject(self) -> str:
        return re.sub(r"^(?:\s*(?:re|fwd?)\s*:)*\s*", "", self.get("Subject") or "", flags=re.IGNORECASE)


def as_sent(mail: Mail, account: str, settings: dict[str, Any]) -> Mail:
    """What Gmail makes of a mail when it sends it; this is how it stands in Sent."""
    sent = Mail(list(mail.fields), mail.body)
    if sent.get("Message-ID") is None or settings["messageId"] == "rewritten":
        sent.put("Message-ID", f"<CA+{secrets.token_urlsafe(36)}@mail.gmail.com>")
    if sent.get("Date") is None:
        sent.put("Date", formatdate())
    own = {account.lower(), *map(str.lower, settings["aliases"])}
    sender = [address.lower() for address in sent.addresses("From")]
    if not sender or (settings["fromRewritten"] and not own.issuperset(sender)):
        if sender:
            sent.fields.append(("X-Google-Original-From", f" {sent.get('From')}\r\n".encode()))
        sent.put("From", account)
    trace = f" from 123456789012 named unknown by gmailapi.google.com with HTTPREST; {formatdate()}\r\n"
    sent.fields.insert(0, ("Received", trace.encode()))
    return sent


def payload(raw: bytes, form: str, wanted: list[str]) -> dict[str, Any]:
    """The tree of a mail as `format=full` tells it, or its head only as `format=metadata` does."""
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    if form == "full":
        return _part(message, "")
    names = {name.lower() for name in wanted}
    headers = [one for one in _headers(message) if not names or one["name"].lower() in names]
    return {"mimeType": message.get_content_type(), "headers": headers}


def _part(message: Message, place: str) -> dict[str, Any]:
    told: dict[str, Any] = {"partId": place, "mimeType": message.get_content_type(),
                            "filename": message.get_filename() or "", "headers": _headers(message)}  # fmt: skip
    if message.is_multipart():
        parts = message.get_payload()
        assert isinstance(parts, list)
        deeper = [_part(part, f"{place}.{n}" if place else str(n)) for n, part in enumerate(parts)]
        return told | {"body": {"size": 0}, "parts": deeper}
    data = message.get_payload(decode=True)
    assert isinstance(data, bytes)
    if told["filename"]:
        return told | {"body": {"attachmentId": f"ANGjdJ{secrets.token_urlsafe(60)}", "size": len(data)}}
    return told | {"body": {"size": len(data), "data": b64url(data)}}


def _headers(message: Message) -> list[dict[str, str]]:
    return [
        {"name": name, "value": re.sub(r"\r?\n(?=[ \t])", "", str(value)).strip()} for name, value in message.items()
    ]
