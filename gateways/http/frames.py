"""What streams tell of an event, built once for all who watch: a summary is opened once for each event in a process."""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from gateways.http.resume import Place, token
from gateways.stores.keyring import Keyring
from gateways.stores.sealing import Unsealable, place, unseal
from projections import messages
from projections.feed import Entry
from projections.user_feed import UserEntry
from schemas.envelope import stamp

log = logging.getLogger(__name__)

Pool = asyncpg.Pool
#: Events remembered, so that many clients who resume at the same place share what was built for the first.
REMEMBERED: Final = 2048
#: What ends a mailbox, as `projections.feed` names it, and what its stream calls the reason.
ENDS: Final = {"mailbox.expired": "expired", "mailbox.deleted": "deleted"}


class Told:
    """One event in the forms it is sent in; `facts` is the JSON of a new message once its summary has been opened.

    `account_token` says where the streams over its account are that have just been told of it; empty before.
    """

    __slots__ = ("_account_sse", "_named", "_sse", "_text", "account_token", "entry", "facts", "next_token")

    def __init__(self, entry: Entry | UserEntry) -> None:
        self.entry = entry
        self.next_token = token(entry.topic, entry.partition, entry.position + 1)
        self.account_token = ""
        self.facts: dict[str, Any] | None = None
        self._sse: bytes | None = None
        self._text: str | None = None
        self._named: bytes | None = None
        self._account_sse: bytes | None = None

    @property
    def place(self) -> Place:
        return self.entry.topic, self.entry.partition

    @property
    def is_new_message(self) -> bool:
        return self.entry.type == "message.received"

    @property
    def ends_as(self) -> str | None:
        """Why the mailbox ended, where this event is its end."""
        return ENDS.get(self.entry.type)

    def sse(self) -> bytes:
        """A frame of a mailbox's stream."""
        if self._sse is None:
            self._sse = sse_frame("new_message", orjson.dumps(self.facts), self.next_token)
        return self._sse

    def text(self) -> str:
        """A message of a mailbox's WebSocket: the same facts, with the token to resume from."""
        if self._text is None:
            self._text = orjson.dumps({**(self.facts or {}), "id": self.next_token}).decode()
        return self._text

    def all_sse(self, next_token: str) -> bytes:
        """A frame of a stream over more than one mailbox, whose reader comes back with this token."""
        if self._named is None:
            self._named = _lines(self.entry.type, orjson.dumps(_facts_of(self.entry)))
        return b"id: %s\n%s" % (next_token.encode(), self._named)

    def account_sse(self) -> bytes:
        """The same for all streams over its account that have been told everything there was to tell."""
        if self._account_sse is None:
            self._account_sse = self.all_sse(self.account_token)
        return self._account_sse


def _facts_of(entry: Entry | UserEntry) -> dict[str, Any]:
    """Ids, states, times and codes; what there is nothing to say of is left out of a send's and a connection's."""
    if isinstance(entry, Entry):
        facts = {"type": entry.type, "mailboxId": entry.mailbox, "messageId": entry.message, "at": stamp(entry.at)}
        return facts | {"reason": entry.reason} if entry.type == "message.rejected" else facts
    facts = {
        "type": entry.type,
        "messageId": entry.send,
        "connectionId": entry.connection,
        "userId": entry.user,
        "status": entry.status,
        "at": stamp(entry.at),
        "nextAttemptAt": stamp(entry.next_at) if entry.next_at else None,
        "code": entry.code,
    }
    return {name: value for name, value in facts.items() if value is not None}


def sse_frame(event: str, data: bytes, next_token: str) -> bytes:
    """One event of a text/event-stream (WHATWG HTML 9.2); the data is one line."""
    return b"id: %s\n%s" % (next_token.encode(), _lines(event, data))


def _lines(event: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)


class Frames:
    """Builds and remembers what is told; opens summaries where a mailbox's own stream needs them."""

    def __init__(self, pool: "Pool[Any]", keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring
        self._told: dict[tuple[str, int, int], Told] = {}
        self.opened = 0

    def of(self, entry: Entry | UserEntry) -> Told:
        place = entry.topic, entry.partition, entry.position
        known = self._told.get(place)
        if known is None:
            known = self._told[place] = Told(entry)
            if len(self._told) > REMEMBERED:
                del self._told[next(iter(self._told))]
        return known

    def forget(self) -> None:
        """What was opened does not stay in memory for longer than it is of use."""
        self._told.clear()

    async def open(self, told: Iterable[Told]) -> None:
        """Fills in the facts of new messages; raises what asyncpg raises where Postgres can't be reached."""
        closed = [
            (one, one.entry)
            for one in told
            if isinstance(one.entry, Entry) and one.is_new_message and one.facts is None
        ]
        if not closed:
            return
        keys = await self._keyring.get({entry.mailbox for _, entry in closed})
        for one, entry in closed:
            if one.facts is None:
                one.facts = await self._facts(entry, keys.get(entry.mailbox))
                self.opened += 1

    async def _facts(self, entry: Entry, data_key: bytes | None) -> dict[str, Any]:
        """The sender is the header's, or the envelope's where the mail has none or could not be parsed."""
        received_at, envelope = entry.at, entry.envelope
        if envelope is None:
            # Parsed after it was received: that event has neither, but the message's row does.
            row = await messages.whole(self._pool, entry.mailbox, entry.message or "")
            if row is not None:
                received_at, envelope = row.received_at, row.envelope
        summary = _opened(entry, "summary", entry.summary, data_key)
        sender = summary.get("from_address") or _opened(entry, "envelope", envelope, data_key).get("sender") or None
        return new_message(entry.message or "", sender, summary.get("subject"), received_at)


def new_message(message: str, sender: str | None, subject: str | None, received_at: datetime) -> dict[str, Any]:
    """What a mailbox's stream says of a message: the names are those of the list under /api/v1."""
    return {
        "event": "new_message",
        "message_id": message,
        "from_address": sender,
        "subject": subject,
        "received_at": received_at.isoformat(timespec="milliseconds"),
    }


def _opened(entry: Entry, field: str, sealed: Any, data_key: bytes | None) -> dict[str, Any]:
    """A sealed object; empty where there is none, or where its key is gone."""
    if sealed is None or data_key is None:
        return {}
    try:
        found: dict[str, Any] = orjson.loads(unseal(data_key, sealed, place("message", entry.message or "", field)))
    except (Unsealable, orjson.JSONDecodeError):
        log.exception("a sealed field can't be opened", extra={"field": field, "message_id": entry.message})
        return {}
    return found
