"""In the child: one mailbox, its folders, and what happens to ids when a message moves."""

import base64
import hashlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.support.graph.answers import Asked, bad_request, not_found
from tests.support.graph.mime import RECIPIENTS, Attachment, text_of
from tests.support.graph.state import State

FOLDERS = {"inbox": "Inbox", "drafts": "Drafts", "sentitems": "Sent Items", "outbox": "Outbox",
           "deleteditems": "Deleted Items"}  # fmt: skip
_DEFAULTS = {"importance": "normal", "categories": [], "isRead": True, "inferenceClassification": "focused",
             "isDeliveryReceiptRequested": False, "isReadReceiptRequested": False, "subject": "",
             "flag": {"flagStatus": "notFlagged"}}  # fmt: skip
_TEXT = r"'((?:[^']|'')*)'"
_FILTERS = {
    "internetMessageId": re.compile(rf"internetMessageId eq {_TEXT}"),
    "subject": re.compile(rf"subject eq {_TEXT}"),
    "isDraft": re.compile(r"isDraft eq (true|false)"),
    "property": re.compile(
        rf"singleValueExtendedProperties/any\(\s*(\w+)\s*:\s*\1/id eq {_TEXT} and \1/value eq {_TEXT}\s*\)",
        re.IGNORECASE,
    ),
}


@dataclass
class Message:
    """A draft, or what it became."""

    immutable_id: str
    rest_id: str
    internet_message_id: str
    properties: dict[str, Any]
    folder: str = "drafts"
    source: bytes | None = None  # the mail itself, where it came as bytes and was not changed since
    own_files: int = 0  # how many of the attachments are in `source`
    attachments: list[Attachment] = field(default_factory=list)
    size: int = 0  # of body and attachments once encoded, about
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))
    submitted: bool = False
    is_draft: bool = True
    saved: bool = True
    arrives: float = 0.0
    changes: int = 0

    def touch(self) -> None:
        self.changes += 1
        self.changed = datetime.now(UTC)


class Mailbox:
    """The messages of one user, under ids that a move changes and ids that nothing changes."""

    def __init__(self, login: str, state: State) -> None:
        self.login, self._state, self._made = login, state, 0
        self.messages: dict[str, Message] = {}  # by their immutable ids
        self._by_rest_id: dict[str, Message] = {}
        self._leaving: list[Message] = []

    def id(self, kind: str) -> str:
        """A new id, the same in every run. Ids of Exchange are long and end in `=`."""
        self._made += 1
        seed = f"{self._state.settings['seed']}:{self.login}:{self._made}:{kind}".encode()
        beginning, length = ("AAkALgAAAAAAHYQDEapm", 42) if kind == "immutable" else ("AAMkAGI2THVSAAA", 80)
        digest = hashlib.shake_256(seed).digest(length)
        return f"{beginning}{base64.urlsafe_b64encode(digest).decode().rstrip('=')}="

    def add(self, message_id: str | None, properties: dict[str, Any], source: bytes | None = None) -> Message:
        immutable = self.id("immutable")
        given = message_id or f"<{self.id('rest')[15:43].replace('-', 'A').replace('_', 'B')}@GV1P.PROD.OUTLOOK.COM>"
        made = Message(immutable, self.id("rest"), given, _DEFAULTS | properties, source=source)
        self.messages[immutable] = self._by_rest_id[made.rest_id] = made
        return made

    def remove(self, message: Message) -> None:
        self.messages.pop(message.immutable_id, None)
        self._by_rest_id.pop(message.rest_id, None)

    def move(self, message: Message, folder: str) -> None:
        """The id changes, and the old one is nobody's; the immutable one stays."""
        self._by_rest_id.pop(message.rest_id, None)
        message.folder, message.rest_id = folder, self.id("rest")
        self._by_rest_id[message.rest_id] = message
        message.touch()

    def submit(self, message: Message) -> None:
        message.submitted = True
        message.arrives = time.monotonic() + self._state.settings["sentLag"]
        if self._state.settings["lagShows"] != "draft":
            self.move(message, "outbox")
        self._leaving.append(message)

    def settle(self) -> None:
        """Let those arrive in Sent Items whose time has come."""
        now = time.monotonic()
        for message in [one for one in self._leaving if one.arrives <= now]:
            self._leaving.remove(message)
            if message.immutable_id not in self.messages or not message.is_draft:
                continue
            if not message.saved:
                self.remove(message)
                continue
            message.is_draft = False
            self.move(message, "sentitems")

    def find(self, asked: Asked, given: str) -> Message:
        """By the id of the kind that the request prefers; an immutable one is unknown to a request that doesn't."""
        self.settle()
        found = self._by_rest_id.get(given) or (self.messages.get(given) if asked.immutable else None)
        if found is None or self._hidden(found):
            raise not_found()
        return found

    def visible(self, folder: str | None) -> list[Message]:
        self.settle()
        found = [one for one in self.messages.values() if folder in {None, one.folder} and not self._hidden(one)]
        return sorted(found, key=lambda one: one.created, reverse=True)

    def _hidden(self, message: Message) -> bool:
        on_its_way = message.submitted and message.is_draft
        return on_its_way and self._state.settings["lagShows"] == "missing"

    def folder(self, given: str) -> str:
        """The folder of a well-known name or an id."""
        for name in FOLDERS:
            if given.lower() == name or given == self.folder_id(name):
                return name
        raise not_found()

    def folder_id(self, name: str) -> str:
        return f"AQMkAD{base64.urlsafe_b64encode(hashlib.sha256(f'{self.login}:{name}'.encode()).digest()).decode()}"

    def tell_folder(self, name: str) -> dict[str, Any]:
        held = self.visible(name)
        words = {"id": self.folder_id(name), "displayName": FOLDERS[name], "parentFolderId": self.folder_id("root")}
        unread = sum(not one.properties["isRead"] for one in held)
        return words | {"childFolderCount": 0, "unreadItemCount": unread, "totalItemCount": len(held),
                        "sizeInBytes": sum(one.size for one in held), "isHidden": False}  # fmt: skip

    def tell(self, asked: Asked, one: Message) -> dict[str, Any]:
        """The message as Graph tells it, with what the request selects and expands."""
        body = one.properties.get("body") or {"contentType": "text", "content": ""}
        text = text_of(body["content"]) if body["contentType"].lower() == "html" else body["content"]
        key = base64.b64encode(hashlib.sha256(f"{one.immutable_id}{one.changes}".encode()).digest()[:24]).decode()
        sender = one.properties.get("from") or (None if one.is_draft else self._self())
        words = {
            "@odata.etag": f'W/"{key}"', "id": one.immutable_id if asked.immutable else one.rest_id,
            "createdDateTime": _time(one.created), "lastModifiedDateTime": _time(one.changed), "changeKey": key,
            "receivedDateTime": _time(one.changed), "sentDateTime": _time(one.changed),
            "hasAttachments": any(not file.inline for file in one.attachments),
            "internetMessageId": one.internet_message_id, "bodyPreview": text[:255],
            "parentFolderId": self.folder_id(one.folder), "conversationId": f"AAQk{one.immutable_id[20:60]}",
            "isDraft": one.is_draft, "webLink": "https://outlook.office365.com/owa/?ItemID=x",
            "sender": sender, "from": sender, "body": body | {"contentType": body["contentType"].lower()},
        }  # fmt: skip
        words |= {name: one.properties[name] for name in _DEFAULTS}
        words |= {name: one.properties.get(name) or [] for name in RECIPIENTS}
        wanted = [name.strip() for name in asked.query.get("$select", "").split(",") if name.strip()]
        if wanted:
            words["internetMessageHeaders"] = one.properties.get("internetMessageHeaders") or []
            if unknown := set(wanted) - words.keys():
                raise bad_request(
                    f"Could not find a property named '{min(unknown)}' on type 'microsoft.graph.message'."
                )
            words = {name: value for name, value in words.items() if name in {"@odata.etag", "id", *wanted}}
        expanded = asked.query.get("$expand", "")
        if expanded.startswith("singleValueExtendedProperties"):
            words["singleValueExtendedProperties"] = one.properties.get("singleValueExtendedProperties") or []
        elif expanded == "attachments":
            words["attachments"] = [file.told() for file in one.attachments]
        elif expanded:
            raise bad_request(f"the double can't expand {expanded}")
        return words

    def _self(self) -> dict[str, Any]:
        return {"emailAddress": {"name": self.login.partition("@")[0], "address": self.login}}


def filtered(messages: Iterable[Message], condition: str) -> list[Message]:
    """Those for which the one condition that we understand is true."""
    for kind, pattern in _FILTERS.items():
        if found := pattern.fullmatch(condition.strip()):
            words = [word.replace("''", "'") for word in found.groups()]
            return [one for one in messages if _matches(one, kind, words)]
    raise bad_request(f"Invalid filter clause: the double doesn't understand {condition}")


def _matches(one: Message, kind: str, words: list[str]) -> bool:
    match kind:
        case "internetMessageId":
            return one.internet_message_id == words[0]
        case "subject":
            return (one.properties["subject"] or "") == words[0]
        case "isDraft":
            return one.is_draft == (words[0] == "true")
    marks = one.properties.get("singleValueExtendedProperties") or []
    return any(mark["id"].lower() == words[1].lower() and mark["value"] == words[2] for mark in marks)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
