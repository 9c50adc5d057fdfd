"""Sending by Gmail: a draft is made, put on record, and then sent, so that it can be told later whether it went out.

Sending a draft ends it, so no draft is sent twice (developers.google.com/workspace/gmail/api/guides/drafts). Where the user
granted no more than to send (`gmail.send`), drafts are out of reach, and the mail is sent as it is.
"""

import asyncio
import time
from functools import partial
from typing import ClassVar, Final
from weakref import WeakValueDictionary

from yarl import URL

from domain.compose import Unwritable, compose
from domain.connection_events import Provider
from domain.delivery import (
    Accepted,
    Answer,
    Deferred,
    Found,
    InDoubt,
    NotProven,
    ProvenAbsent,
    ProvenSent,
    Refused,
)
from domain.outgoing import Access, OutgoingMail, Traces
from gateways.providers.calls import CallFailed, Calls, Reply
from gateways.providers.gmail_answers import Definite, meaning, meaning_of_looking, meaning_of_sending
from gateways.providers.gmail_calls import (
    CALLS_AT_ONCE,
    DRAFTS,
    MOST_BYTES,
    READS_DRAFTS,
    SEND,
    Gmail,
    OutOfTime,
    an_id,
)
from gateways.providers.gmail_search import RECENT, RECENT_AT_LAST, ReadBefore, ReadOf, find_draft, find_sent
from gateways.providers.sending import (
    OUT_OF_TIME,
    Notes,
    Spends,
    not_seen,
    not_sent,
    perhaps_sent,
    uncounted,
    written,
)

#: Seconds that one look may take in all.
LOOK_SECONDS: Final = 60.0


class _NotDone(Exception):
    """It ends before the call that sends. `answer` is what comes of the attempt."""

    def __init__(self, answer: Definite) -> None:
        super().__init__(type(answer).__name__)
        self.answer = answer


class GmailSending:
    """Sends by Gmail (`sending.py`). `api` is the root of Google's host, without `/gmail/v1`."""

    provider: ClassVar[Provider] = "gmail"

    def __init__(self, calls: Calls, api: URL) -> None:
        self._calls = calls
        self._api = api
        self._read = ReadBefore()
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def send(self, mail: OutgoingMail, access: Access, traces: Traces, notes: Notes) -> Answer:
        """Sends it at most once; every outcome is an answer. What `notes` raises goes through."""
        token = access.secrets.access_token
        if token is None:
            return Deferred("token_unavailable")
        gmail = Gmail(self._calls, self._api, token, access.scopes, notes.seconds_left, gate=self._gate(access))
        try:
            if traces.draft is not None or gmail.may(DRAFTS):
                draft = traces.draft or await _draft(gmail, mail, traces, notes)
                return await _send_draft(gmail, draft, traces, self._read.of(access.connection))
            return await _send_at_once(gmail, mail, notes)
        except _NotDone as stopped:
            return stopped.answer

    async def look(self, traces: Traces, access: Access, *, last: bool, spends: Spends = uncounted) -> Found:
        """What can be shown of earlier attempts. A draft that is there was not sent; one that is gone is sought in Sent."""
        token = access.secrets.access_token
        if token is None:
            return NotProven("token_unavailable")
        until = time.monotonic() + LOOK_SECONDS
        left, gate = (lambda: until - time.monotonic()), self._gate(access)
        gmail = Gmail(self._calls, self._api, token, access.scopes, left, gate=gate, spends=spends)
        try:
            if traces.draft is not None and (found := await _seen_draft(gmail, traces.draft)) is not None:
                return found
            before = self._read.of(access.connection)
            return await find_sent(gmail, traces, before, most=RECENT_AT_LAST if last else RECENT)
        except CallFailed as failure:
            return not_seen(failure)
        except OutOfTime:
            return NotProven("timed_out")

    def _gate(self, access: Access) -> asyncio.Semaphore:
        """That of the mailbox, for as long as anybody calls it."""
        return self._gates.setdefault(access.connection, asyncio.Semaphore(CALLS_AT_ONCE))


async def _draft(gmail: Gmail, mail: OutgoingMail, traces: Traces, notes: Notes) -> str:
    """A draft of this mail that is on record. Raises _NotDone."""
    raw = await _composed(mail)
    try:
        found = await find_draft(gmail, traces) if traces.earlier else None
        draft, message = found or _created(await gmail.create_draft(raw, mail.thread_id))
    except CallFailed as failure:
        raise _NotDone(not_sent(failure)) from None
    except OutOfTime:
        raise _NotDone(OUT_OF_TIME) from None
    await notes.draft(draft, message)
    return draft


def _created(reply: Reply) -> tuple[str, str | None]:
    if not reply.ok:
        raise _NotDone(meaning(reply))
    body = reply.body or {}
    draft, message = an_id(body.get("id")), body.get("message")
    if draft is None:
        raise _NotDone(Deferred("answer_unreadable"))
    return draft, an_id(message.get("id")) if isinstance(message, dict) else None


async def _send_draft(gmail: Gmail, draft: str, traces: Traces, before: ReadOf) -> Answer:
    try:
        reply = await gmail.send_draft(draft)
    except OutOfTime:
        return OUT_OF_TIME
    except CallFailed as failure:
        return perhaps_sent(failure)
    answer = _answer(reply)
    gone = isinstance(answer, Refused) and answer.code == "not_found"
    return await _of_gone(gmail, traces, before) if gone else answer


async def _of_gone(gmail: Gmail, traces: Traces, before: ReadOf) -> Accepted | InDoubt:
    """The draft is no more: an earlier attempt sent it, or its user did, or threw it away."""
    try:
        found = await find_sent(gmail, traces, before)
    except (CallFailed, OutOfTime):
        return InDoubt("draft_gone")
    if isinstance(found, ProvenSent):
        return Accepted(found.provider_message_id, found.thread_id)
    return InDoubt("draft_gone")


async def _send_at_once(gmail: Gmail, mail: OutgoingMail, notes: Notes) -> Answer:
    if not gmail.may(frozenset({SEND})):
        return Refused("scope_missing")
    raw = await _composed(mail)
    if notes.seconds_left() <= 0:
        return OUT_OF_TIME
    await notes.transmission()
    try:
        return _answer(await gmail.send(raw, mail.thread_id))
    except OutOfTime:
        return OUT_OF_TIME
    except CallFailed as failure:
        return perhaps_sent(failure)


async def _composed(mail: OutgoingMail) -> bytes:
    """The mail's bytes. Raises _NotDone."""
    try:
        raw = await written(mail, partial(compose, with_bcc=True))
    except Unwritable:
        raise _NotDone(Refused("message_refused")) from None
    if len(raw) > MOST_BYTES:
        raise _NotDone(Refused("message_too_large"))
    return raw


def _answer(reply: Reply) -> Accepted | Definite | InDoubt:
    """What the answer to the call that sends says."""
    if not reply.ok:
        return meaning_of_sending(reply)
    body = reply.body or {}
    message = an_id(body.get("id"))
    if message is None:
        return InDoubt("answer_unreadable")
    return Accepted(message, an_id(body.get("threadId")))


async def _seen_draft(gmail: Gmail, draft: str) -> Found | None:
    """What the draft itself shows; None where it is gone."""
    if not gmail.may(READS_DRAFTS):
        return NotProven("not_allowed")
    reply = await gmail.draft(draft)
    if reply.ok:
        return ProvenAbsent() if an_id((reply.body or {}).get("id")) == draft else NotProven("server_error")
    found = meaning(reply)
    gone = isinstance(found, Refused) and found.code == "not_found"
    return None if gone else meaning_of_looking(reply)
