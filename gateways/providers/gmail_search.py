"""How a mail of ours is found again in a Gmail mailbox: as a draft that is on no record, and among what was sent.

Gmail may replace a Message-ID when it sends, finds a mail some time after it was sent, and has no search by fields of ours:
so a search by Message-ID is only the short way, and the marker in the newest of Sent the long one. Neither proves that a mail
was not sent. The long way is a call for each mail; so what was read of one is remembered, for a mail that was sent does not
change, and those who look in the same mailbox go that way one after the other.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from domain.delivery import Found, NotProven, ProvenSent
from domain.outgoing import MARKER, Traces
from gateways.providers.calls import Reply
from gateways.providers.gmail_answers import meaning_of_looking
from gateways.providers.gmail_calls import LISTS, READS_DRAFTS, SEARCHES, Gmail, an_id

#: Mails of Sent that a look reads the fields of, and one that is the last.
RECENT: Final = 20
RECENT_AT_LAST: Final = 60
#: Mails that a look reads at the same time: half as many calls as a mailbox may have, so that its sends get on beside it.
AT_A_TIME: Final = 4
#: Mails with one Message-ID that are worth a look.
ALIKE: Final = 3
#: The names of the fields by which mails of ours are told.
KNOWN_BY: Final = frozenset({MARKER.lower(), "message-id"})
#: Mails of one mailbox, and mailboxes, of which is remembered what was read.
MAILS_REMEMBERED: Final = 2 * RECENT_AT_LAST
MAILBOXES_REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Read:
    """What is known of a mail that was sent: the fields by which ours are told, and its thread."""

    fields: frozenset[tuple[str, str]]
    thread: str | None


@dataclass(slots=True)
class ReadOf:
    """Of one mailbox."""

    mails: OrderedDict[str, Read] = field(default_factory=OrderedDict)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def keep(self, message: str, read: Read) -> Read:
        self.mails[message] = read
        if len(self.mails) > MAILS_REMEMBERED:
            self.mails.popitem(last=False)
        return read


class ReadBefore:
    """What this process has read of sent mails, by connection."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, ReadOf] = OrderedDict()

    def of(self, connection: str) -> ReadOf:
        found = self._of.setdefault(connection, ReadOf())
        self._of.move_to_end(connection)
        if len(self._of) > MAILBOXES_REMEMBERED:
            self._of.popitem(last=False)
        return found


class _NotLooked(Exception):
    """A call was refused. `found` is what the look comes to."""

    def __init__(self, found: Found) -> None:
        super().__init__(type(found).__name__)
        self.found = found


async def find_draft(gmail: Gmail, traces: Traces) -> tuple[str, str | None] | None:
    """The ids of a whole draft of this mail and its message. Raises CallFailed and OutOfTime.

    What Gmail refuses to show is as good as not there: another draft can be made, and only one of them is ever sent.
    """
    if not gmail.may(READS_DRAFTS):
        return None
    for draft in _ids(await gmail.drafts(_with_id(traces), ALIKE), "drafts"):
        body = (await gmail.draft(draft, "metadata")).body or {}
        message = body.get("message")
        if isinstance(message, dict) and "DRAFT" in _labels(message) and _fields(message) >= _known_by(traces):
            return draft, an_id(message.get("id"))
    return None


async def find_sent(gmail: Gmail, traces: Traces, before: ReadOf, *, most: int = RECENT) -> Found:
    """The mail among what was sent; an empty search is no proof. Raises CallFailed and OutOfTime.

    The fields of at most so many of the newest mails are read, and of those with the same Message-ID.
    """
    if not gmail.may(LISTS):
        return NotProven("not_allowed")
    try:
        found = await _one_of(gmail, await _alike(gmail, traces), traces, before)
        if found is None:
            async with before.reading:
                found = await _one_of(gmail, await _newest(gmail, most), traces, before)
    except _NotLooked as refused:
        return refused.found
    return found or NotProven("nothing_found")


async def _alike(gmail: Gmail, traces: Traces) -> list[str]:
    """Sent mails with the same Message-ID, as far as a search finds them."""
    if not gmail.may(SEARCHES):
        return []
    reply = await gmail.sent(ALIKE, _with_id(traces))
    # Google refuses searches, though not lists, to tokens with the scope for metadata, whatever else they may.
    return _ids(reply if reply.status == 403 else _looked(reply), "messages")


async def _newest(gmail: Gmail, most: int) -> list[str]:
    return _ids(_looked(await gmail.sent(most)), "messages")


async def _one_of(gmail: Gmail, messages: list[str], traces: Traces, before: ReadOf) -> ProvenSent | None:
    """The first of them that is the mail."""
    for start in range(0, len(messages), AT_A_TIME):
        some = messages[start : start + AT_A_TIME]
        for message, read in zip(some, await _each(some, partial(_known, gmail, before=before)), strict=True):
            if read is not None and read.fields & _known_by(traces):
                return ProvenSent(message, read.thread)
    return None


async def _each(messages: Sequence[str], read: Callable[[str], Awaitable[Read | None]]) -> list[Read | None]:
    """What is read of each, all at once; raises the first of what reading them raises, when all have ended."""
    answers = await asyncio.gather(*[read(message) for message in messages], return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast("list[Read | None]", answers)


async def _known(gmail: Gmail, message: str, *, before: ReadOf) -> Read | None:
    return before.mails.get(message) or await _read(gmail, message, before)


async def _read(gmail: Gmail, message: str, before: ReadOf) -> Read | None:
    """What is known of a sent mail; None where it is no more."""
    reply = await gmail.message(message)
    if reply.status == 404:
        return None
    body = _looked(reply).body or {}
    known = frozenset(pair for pair in _fields(body) if pair[0] in KNOWN_BY)
    return before.keep(message, Read(known, an_id(body.get("threadId"))))


def _looked(reply: Reply) -> Reply:
    if not reply.ok:
        raise _NotLooked(meaning_of_looking(reply))
    if reply.body is None:
        raise _NotLooked(NotProven("server_error"))
    return reply


def _with_id(traces: Traces) -> str:
    return f"rfc822msgid:{traces.message_id.strip('<>')}"


def _known_by(traces: Traces) -> set[tuple[str, str]]:
    return {(MARKER.lower(), traces.marker), ("message-id", traces.message_id)}


def _fields(message: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Names, in lower case, and values of a message's fields."""
    payload = message.get("payload")
    headers = _objects(payload.get("headers")) if isinstance(payload, dict) else []
    named = ((one.get("name"), one.get("value")) for one in headers)
    return {(name.lower(), value) for name, value in named if isinstance(name, str) and isinstance(value, str)}


def _labels(message: Mapping[str, Any]) -> list[Any]:
    found = message.get("labelIds")
    return found if isinstance(found, list) else []


def _ids(reply: Reply, name: str) -> list[str]:
    """Ids of a list; none of an answer that is no list."""
    return list(_each_id(_objects((reply.body or {}).get(name))))


def _each_id(every: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (found for one in every if (found := an_id(one.get("id"))) is not None)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
