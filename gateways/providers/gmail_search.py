"""How a mail of ours is found again in a Gmail mailbox: as a draft that is on no record, and among what was sent.

Gmail may replace a Message-ID when it sends, finds a mail some time after it was sent, and has no search by fields of ours:
so a search by Message-ID is only the short way, and the marker in the newest of Sent the long one. Neither proves that a mail
was not sent.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from domain.delivery import Found, NotProven, ProvenSent
from domain.outgoing import MARKER, Traces
from gateways.providers.calls import Reply
from gateways.providers.gmail_answers import meaning_of_looking
from gateways.providers.gmail_calls import LISTS, READS_DRAFTS, SEARCHES, Gmail, an_id

#: Mails of Sent that a look reads the fields of, and one that is the last.
RECENT: Final = 20
RECENT_AT_LAST: Final = 60
#: Mails with one Message-ID that are worth a look.
ALIKE: Final = 3


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


async def find_sent(gmail: Gmail, traces: Traces, *, most: int = RECENT) -> Found:
    """The mail among what was sent; an empty search is no proof. Raises CallFailed and OutOfTime.

    The fields of at most so many of the newest mails are read, and of those with the same Message-ID.
    """
    if not gmail.may(LISTS):
        return NotProven("not_allowed")
    seen: set[str] = set()
    try:
        async for message in _candidates(gmail, traces, most):
            if message not in seen and (found := await _as_sent(gmail, message, traces)):
                return found
            seen.add(message)
    except _NotLooked as refused:
        return refused.found
    return NotProven("nothing_found")


async def _candidates(gmail: Gmail, traces: Traces, most: int) -> AsyncIterator[str]:
    if gmail.may(SEARCHES):
        reply = await gmail.sent(ALIKE, _with_id(traces))
        # Google refuses searches, though not lists, to tokens with the scope for metadata, whatever else they may.
        for message in _ids(reply if reply.status == 403 else _looked(reply), "messages"):
            yield message
    for message in _ids(_looked(await gmail.sent(most)), "messages"):
        yield message


async def _as_sent(gmail: Gmail, message: str, traces: Traces) -> ProvenSent | None:
    reply = await gmail.message(message)
    if reply.status == 404:
        return None
    body = _looked(reply).body
    if body is None:
        raise _NotLooked(NotProven("server_error"))
    return ProvenSent(message, an_id(body.get("threadId"))) if _fields(body) & _known_by(traces) else None


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
