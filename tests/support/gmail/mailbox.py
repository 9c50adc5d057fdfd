"""One account's mails, drafts and threads, and the search that finds them some time later."""

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.gmail.content import b64url
from tests.support.gmail.errors import Refused
from tests.support.gmail.mails import Mail, payload

_TERM = re.compile(r'-?(?:(\w+):)?("[^"]*"|\S+)')
_FORMS = {"minimal", "full", "raw", "metadata"}
SYSTEM_LABELS = ["CHAT", "SENT", "INBOX", "IMPORTANT", "TRASH", "DRAFT", "SPAM", "STARRED", "UNREAD"]


@dataclass
class Stored:
    """A mail in a mailbox. A search finds it some time after `since` (monotonic)."""

    id: str
    thread_id: str
    labels: list[str]
    raw: bytes
    mail: Mail
    history_id: str
    internal_ms: int
    since: float

    def brief(self) -> dict[str, Any]:
        return {"id": self.id, "threadId": self.thread_id, "labelIds": self.labels}

    def told(self, form: str, wanted: list[str]) -> dict[str, Any]:
        if form not in _FORMS:
            raise Refused("invalidArgument", f"Invalid value at 'format', \"{form}\"")
        snippet = re.sub(r"\s+", " ", self.mail.body[:400].decode(errors="replace")).strip()[:200]
        told = self.brief() | {"snippet": snippet, "sizeEstimate": len(self.raw), "historyId": self.history_id,
                               "internalDate": str(self.internal_ms)}  # fmt: skip
        if form == "raw":
            return told | {"raw": b64url(self.raw)}
        return told if form == "minimal" else told | {"payload": payload(self.raw, form, wanted)}


class Mailbox:
    """What belongs to one address. `history` gives the next history id."""

    def __init__(self, address: str, history: Callable[[], str], settings: dict[str, Any]) -> None:
        self.address, self._history, self._settings = address, history, settings
        self.messages: dict[str, Stored] = {}
        self.drafts: dict[str, Stored] = {}
        self.history_id = history()
        self._gone: dict[str, tuple[Stored, float]] = {}  # drafts that were sent, while they can still be read

    def add(self, mail: Mail, raw: bytes, labels: list[str], *, thread: str | None = None) -> Stored:
        """Store it. `thread` is one there is, or None for that of its references, or for a new one."""
        name = f"19{secrets.token_hex(7)}"
        self.history_id = self._history()
        thread = thread or self._related(mail, None) or name
        kept = Stored(name, thread, labels, raw, mail, self.history_id, time.time_ns() // 1_000_000, time.monotonic())
        self.messages[name] = kept
        return kept

    def thread_for(self, mail: Mail, asked: str | None) -> str | None:
        """The thread that is asked for, when it is one and the mail says as well that it belongs there."""
        if asked is None:
            return None
        if not any(one.thread_id == asked for one in self.messages.values()):
            raise Refused("notFound")
        if not self._settings["threadsByHeaders"]:
            return asked
        return self._related(mail, asked)

    def _related(self, mail: Mail, thread: str | None) -> str | None:
        known = mail.references()
        if not known:
            return None
        for one in self.messages.values():
            same = one.mail.get("Message-ID") in known and one.mail.subject() == mail.subject()
            if same and thread in (None, one.thread_id):
                return one.thread_id
        return None

    def message(self, name: str) -> Stored:
        if name not in self.messages:
            raise Refused("notFound")
        return self.messages[name]

    def draft(self, name: str, *, to_read: bool = False) -> Stored:
        gone, since = self._gone.get(name, (None, 0.0))
        if to_read and gone and time.monotonic() < since + self._settings["draftLag"]:
            return gone
        if name not in self.drafts:
            raise Refused("notFound")
        return self.drafts[name]

    def put_draft(self, name: str | None, mail: Mail, raw: bytes, thread: str | None) -> tuple[str, Stored]:
        """A new draft, or new content of one there is; the message of a draft has a new id each time."""
        before = self.draft(name) if name else None
        if before:
            del self.messages[before.id]
        name = name or f"r{secrets.randbelow(2**64) - 2**63}"
        self.drafts[name] = self.add(mail, raw, ["DRAFT"], thread=thread or (before.thread_id if before else None))
        return name, self.drafts[name]

    def take_draft(self, name: str) -> Stored:
        """It is no draft from here on, whoever asks next."""
        taken = self.draft(name)
        del self.drafts[name], self.messages[taken.id]
        self._gone[name] = taken, time.monotonic()
        return taken

    def find(self, query: str, labels: list[str]) -> list[Stored]:
        """The newest first. What it does not know as an operator is looked for in subject, body and addresses."""
        last = time.monotonic() - self._settings["indexLag"]
        tests = [_test(found) for found in _TERM.finditer(query)]
        everything = [one for one in reversed(self.messages.values()) if one.since <= last]
        return [one for one in everything if set(labels) <= set(one.labels) and all(test(one) for test in tests)]


def _test(found: re.Match[str]) -> Callable[[Stored], bool]:
    operator, value = (found[1] or "").lower(), found[2].strip('"')
    wanted = not found[0].startswith("-")

    def matches(one: Stored) -> bool:
        match operator:
            case "rfc822msgid":
                return (one.mail.get("Message-ID") or "").strip("<>") == value.strip("<>")
            case "in" | "label" | "is":
                label = {"drafts": "DRAFT"}.get(value.lower(), value.upper())
                return label == "ANYWHERE" or label in one.labels
            case "from" | "to" | "cc" | "bcc":
                return value.lower() in (one.mail.get(operator) or "").lower()
            case "subject":
                return value.lower() in (one.mail.get("Subject") or "").lower()
            case "after" | "before":
                moment = _seconds(value) * 1000
                return one.internal_ms >= moment if operator == "after" else one.internal_ms < moment
            case _:
                fields = " ".join(one.mail.get(name) or "" for name in ("Subject", "From", "To", "Cc"))
                return found[2].strip('"').lower() in f"{fields} {one.mail.body.decode(errors='replace')}".lower()

    return lambda one: matches(one) is wanted


def _seconds(value: str) -> float:
    if value.isdigit():
        return float(value)
    try:
        return datetime.strptime(value.replace("/", "-"), "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise Refused("invalidArgument", f"Invalid date in the query: {value}") from error
