"""Sending through Outlook by Microsoft Graph: a draft, a note of it, and only then the call that sends that very draft.

A call without an answer leaves open whether the mail went out. The draft tells: once it is sent it is no draft any more and
has left the folder Drafts, and nothing sends it twice. So it is the draft that makes a repeated attempt safe, and it is
noted before it can be sent.

Where the user granted no more than to send, drafts are out of reach, and the mail is sent as it is (`graph_at_once.py`).

A conversation can't be named to Graph: a mail belongs to one by its In-Reply-To and References, which are the caller's own
headers. Of `thread_id` nothing is made.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from yarl import URL

from domain.compose import Unwritable
from domain.delivery import Accepted, Answer, Found, InDoubt, NotProven, ProvenAbsent, ProvenSent, Refused
from domain.outgoing import Access, OutgoingMail, Traces
from domain.provider_scopes import missing
from gateways.providers.calls import CallFailed, Calls
from gateways.providers.egress import Egress
from gateways.providers.graph_answers import Definite, is_gone, meaning_of_sending, not_proven
from gateways.providers.graph_at_once import send_at_once
from gateways.providers.graph_calls import Graph, NotDone, done
from gateways.providers.graph_drafts import Draft, draft_in, find, make, with_message_id
from gateways.providers.sending import Notes, Spends, not_seen, not_sent, perhaps_sent, uncounted

#: Requests of one mailbox, from all of a tenant's calls by one client (learn.microsoft.com/graph/throttling-limits).
AT_ONCE: Final = 4
REQUESTS: Final = 10_000
WINDOW_SECONDS: Final = 600

SENDS: Final = ("Mail.Send",)
DRAFTS: Final = ("Mail.ReadWrite",)
#: With any of which sent mail can be searched.
SEARCHES: Final = ("Mail.ReadWrite", "Mail.Read")
DRAFT_GONE: Final = InDoubt("draft_gone")


class GraphSending:
    """Sends for any mailbox of Outlook. `root` ends in Graph's version, `/v1.0`."""

    def __init__(self, calls: Calls, egress: Egress, root: URL) -> None:
        self._calls = calls
        self._egress = egress
        self._root = root

    async def send(self, mail: OutgoingMail, access: Access, traces: Traces, notes: Notes) -> Answer:
        """One attempt. What `notes` raises is raised; everything else is an answer."""
        drafts = not missing("outlook", DRAFTS, access.scopes)
        if missing("outlook", SENDS, access.scopes) or (traces.draft is not None and not drafts):
            return Refused("scope_missing")
        graph = Graph(self._calls, self._root, access.secrets.access_token or "-", notes.seconds_left)
        if traces.draft is not None:
            return await self._send_recorded(graph, traces)
        if not drafts:
            return await send_at_once(graph, mail, notes)
        try:
            found = await find(graph, mail) if traces.earlier else None
            draft = found or await make(graph, self._egress, mail)
        except Unwritable:
            return Refused("message_refused")
        except (CallFailed, NotDone) as failure:
            return _nothing_done(failure)
        await notes.draft(draft.id)
        return await self._send_draft(graph, draft, traces)

    async def look(self, traces: Traces, access: Access, *, last: bool, spends: Spends = uncounted) -> Found:
        """What has become of the mail. Every look proves as much as the last one.

        Graph may be behind for a moment after a call to send: who asks then may be shown the draft as it was before.
        """
        del last, spends
        if traces.draft is None and missing("outlook", SEARCHES, access.scopes) == list(SEARCHES):
            return NotProven("not_allowed")
        graph = Graph(self._calls, self._root, access.secrets.access_token or "-", lambda: math.inf)
        try:
            state = await _state(graph, traces)
        except (CallFailed, NotDone) as failure:
            return not_seen(failure) if isinstance(failure, CallFailed) else not_proven(failure.answer)
        return ProvenAbsent() if isinstance(state, Draft) else state

    async def _send_recorded(self, graph: Graph, traces: Traces) -> Answer:
        """Sends the draft that is on record, unless it was sent, or isn't where drafts are: another one is never made."""
        try:
            state = await _state(graph, traces)
        except (CallFailed, NotDone) as failure:
            return _nothing_done(failure)
        if isinstance(state, Draft):
            return await self._send_draft(graph, state, traces)
        return _instead(state)

    async def _send_draft(self, graph: Graph, draft: Draft, traces: Traces) -> Answer:
        try:
            reply = await graph.post("send", "messages", draft.id, "send")
        except NotDone as late:
            return late.answer
        except CallFailed as failure:
            return perhaps_sent(failure)
        if reply.status == 202:
            return Accepted(draft.id, draft.conversation)
        return await self._without_draft(graph, draft, traces) if is_gone(reply) else meaning_of_sending(reply)

    async def _without_draft(self, graph: Graph, draft: Draft, traces: Traces) -> Answer:
        """What to make of a draft that Graph did not find when it was to send it."""
        try:
            return _instead(await _state(graph, replace(traces, draft=draft.id)))
        except (CallFailed, NotDone):
            return DRAFT_GONE


async def _state(graph: Graph, traces: Traces) -> Draft | ProvenSent | NotProven:
    """Where the mail is: a draft still, so that it was not sent, or among what was. Raises CallFailed and NotDone."""
    if traces.draft is not None:
        reply = await graph.get("look", "messages", traces.draft, select="isDraft,parentFolderId,conversationId")
        if not is_gone(reply):
            return await _of_draft(graph, done(reply))
    for known in await with_message_id(graph, "sentitems", traces.message_id):
        if known.get("isDraft") is False:
            sent = draft_in(known)
            return ProvenSent(sent.id, sent.conversation)
    return NotProven("nothing_found")


async def _of_draft(graph: Graph, message: Mapping[str, Any]) -> Draft | ProvenSent | NotProven:
    found = draft_in(message)
    if message.get("isDraft") is False:
        return ProvenSent(found.id, found.conversation)
    # On its way through the Outbox it is `isDraft` as well.
    drafts = done(await graph.get("look", "mailFolders", "drafts", select="id")).get("id")
    if message.get("isDraft") is True and drafts is not None and message.get("parentFolderId") == drafts:
        return found
    return NotProven("nothing_found")


def _instead(state: Draft | ProvenSent | NotProven) -> Answer:
    """What an attempt comes to whose draft can't be sent. One that is shown all the same may be what Graph remembers."""
    if isinstance(state, ProvenSent):
        return Accepted(state.provider_message_id, state.thread_id)
    return DRAFT_GONE


def _nothing_done(failure: CallFailed | NotDone) -> Definite:
    return failure.answer if isinstance(failure, NotDone) else not_sent(failure)
