"""What each method does, once it is allowed to."""

import base64
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.support.gmail.content import NO_MAIL, Content
from tests.support.gmail.errors import Answer, Refused
from tests.support.gmail.mailbox import SYSTEM_LABELS, Mailbox, Stored
from tests.support.gmail.mails import Mail, as_sent
from tests.support.gmail.methods import METADATA, Method
from tests.support.gmail.receipts import ReceiptLog
from tests.support.gmail.world import World


@dataclass
class Call:
    """One call that has been let in."""

    world: World
    method: Method
    user: str
    scopes: frozenset[str]
    place: dict[str, str]
    query: Any
    content: Content

    @property
    def box(self) -> Mailbox:
        return self.world.mailbox(self.user)

    @property
    def only_metadata(self) -> bool:
        return self.method.scopes & self.scopes == {METADATA}


class Service:
    """Gmail's methods. Between a check and what it allows there is no `await`: nobody comes in between."""

    def __init__(self, receipts: ReceiptLog) -> None:
        self._receipts = receipts
        self._does: dict[str, Callable[[Call], Awaitable[Answer]]] = {
            "getProfile": self._profile,
            "labels.list": self._labels,
            "labels.get": self._label,
            "messages.send": self._send,
            "messages.list": self._messages,
            "messages.get": self._message,
            "threads.get": self._thread,
            "drafts.list": self._drafts,
            "drafts.create": self._put_draft,
            "drafts.update": self._put_draft,
            "drafts.get": self._draft,
            "drafts.send": self._send_draft,
            "drafts.delete": self._delete_draft,
        }

    async def do(self, call: Call) -> Answer:
        if call.world.over:
            raise Refused("unavailable")
        return await self._does[call.method.name](call)

    async def _profile(self, call: Call) -> Answer:
        box = call.box
        threads = {one.thread_id for one in box.messages.values()}
        told = {"emailAddress": box.address, "messagesTotal": len(box.messages), "threadsTotal": len(threads)}
        return Answer.json(told | {"historyId": box.history_id})

    async def _labels(self, call: Call) -> Answer:
        return Answer.json({"labels": [{"id": one, "name": one, "type": "system"} for one in SYSTEM_LABELS]})

    async def _label(self, call: Call) -> Answer:
        name = call.place["id"]
        if name not in SYSTEM_LABELS:
            raise Refused("notFound")
        found = [one for one in call.box.messages.values() if name in one.labels]
        total = {"messagesTotal": len(found), "threadsTotal": len({one.thread_id for one in found})}
        unread = {"messagesUnread": len([one for one in found if "UNREAD" in one.labels])}
        return Answer.json({"id": name, "name": name, "type": "system"} | total | unread)

    async def _messages(self, call: Call) -> Answer:
        query = call.query.get("q", "")
        if query and call.only_metadata:
            raise Refused("forbidden", "Metadata scope does not support 'q' parameter")
        found = call.box.find(query, call.query.getall("labelIds", []))
        return _page(call, "messages", [{"id": one.id, "threadId": one.thread_id} for one in found])

    async def _message(self, call: Call) -> Answer:
        return Answer.json(_told(call, call.box.message(call.place["id"])))

    async def _thread(self, call: Call) -> Answer:
        name = call.place["id"]
        found = [one for one in call.box.messages.values() if one.thread_id == name]
        if not found:
            raise Refused("notFound")
        told = {"id": name, "historyId": max(one.history_id for one in found)}
        return Answer.json(told | {"messages": [_told(call, one) for one in found]})

    async def _drafts(self, call: Call) -> Answer:
        found = list(reversed(call.box.drafts.items()))
        if query := call.query.get("q"):
            ids = {one.id for one in call.box.find(query, [])}
            found = [(name, one) for name, one in found if one.id in ids]
        brief = [{"id": name, "message": {"id": one.id, "threadId": one.thread_id}} for name, one in found]
        return _page(call, "drafts", brief)

    async def _draft(self, call: Call) -> Answer:
        name = call.place["id"]
        return Answer.json({"id": name, "message": _told(call, call.box.draft(name, to_read=True))})

    async def _put_draft(self, call: Call) -> Answer:
        if call.content.raw is None:
            raise Refused("invalidArgument", "Missing draft message")
        mail = Mail.read(call.content.raw)
        asked = call.content.words.get("message", {}).get("threadId")
        thread = call.box.thread_for(mail, asked)
        name, kept = call.box.put_draft(call.place.get("id"), mail, call.content.raw, thread)
        return Answer.json({"id": name, "message": kept.brief()})

    async def _delete_draft(self, call: Call) -> Answer:
        call.box.draft(call.place["id"])
        call.box.take_draft(call.place["id"])
        return Answer(204)

    async def _send(self, call: Call) -> Answer:
        raw = call.content.raw
        if raw is None:
            raise Refused("invalidArgument", NO_MAIL)
        mail = Mail.read(raw)
        recipients = mail.recipients(call.world.settings["recipientsPerMessage"])
        thread = call.box.thread_for(mail, call.content.words.get("threadId"))
        return await self._sent(call, mail, raw, recipients, thread=thread, draft=None)

    async def _send_draft(self, call: Call) -> Answer:
        name = call.content.words.get("id")
        if not isinstance(name, str) or not name:
            raise Refused("invalidArgument", "Missing draft id")
        draft = call.box.draft(name)
        raw = call.content.raw if call.content.raw is not None else draft.raw
        mail = Mail.read(raw)
        recipients = mail.recipients(call.world.settings["recipientsPerMessage"])
        return await self._sent(call, mail, raw, recipients, thread=draft.thread_id, draft=name)

    async def _sent(
        self, call: Call, mail: Mail, raw: bytes, recipients: list[str], *, thread: str | None, draft: str | None
    ) -> Answer:
        world, box = call.world, call.box
        sent = as_sent(mail, box.address, world.settings)
        world.may_send(call.user, len(recipients))
        if draft:
            taken = box.take_draft(draft)
            thread = None if thread == taken.id else thread  # the thread of a draft alone ends with it
        to_self = box.address.lower() in map(str.lower, recipients)
        labels = ["UNREAD", "SENT", "INBOX"] if to_self else ["SENT"]
        kept = box.add(sent, sent.bytes(), labels, thread=thread)
        self._receipts.append({
            "id": kept.id, "thread_id": kept.thread_id, "draft_id": draft, "method": call.method.name,
            "user": box.address, "envelope_from": box.address, "recipients": recipients,
            "message_id_before": mail.get("Message-ID"), "message_id_after": sent.get("Message-ID"),
            "marker": mail.get(world.settings["markerHeader"]), "headers": mail.marks(),
            "sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw), "time": time.time(),
        })  # fmt: skip
        delivered = sent.bytes(without=frozenset({"bcc"}))
        world.mails.append(
            {"stored": kept, "recipients": recipients, "draft": draft, "given": raw, "delivered": delivered}
        )
        for recipient in recipients:
            other = world.mailboxes.get(recipient.lower())
            if other is not None and other is not box:
                other.add(Mail.read(delivered), delivered, ["UNREAD", "INBOX"])
        if world.settings["fsync"]:
            await self._receipts.synced()
        return Answer.json(kept.brief())


def _told(call: Call, one: Stored) -> dict[str, Any]:
    form = call.query.get("format", "full").lower()
    if form in ("full", "raw") and call.only_metadata:
        raise Refused("forbidden", f"Metadata scope doesn't allow format {form.upper()}")
    return one.told(form, call.query.getall("metadataHeaders", []))


def _page(call: Call, name: str, found: list[dict[str, Any]]) -> Answer:
    try:
        most, first = int(call.query.get("maxResults", 100)), int(call.query.get("pageToken", "0"))
    except ValueError as error:
        raise Refused("invalidArgument", "Invalid pageToken") from error
    last = first + min(max(most, 1), 500)
    told: dict[str, Any] = {name: found[first:last]} if found[first:last] else {}
    more = {"nextPageToken": f"{last:020d}"} if found[last:] else {}
    return Answer.json(told | more | {"resultSizeEstimate": len(found)})


def sent_mails(world: World) -> list[dict[str, Any]]:
    """All that was sent, as JSON can say it."""
    return [
        one["stored"].brief()
        | {"recipients": one["recipients"], "draftId": one["draft"]}
        | {name: base64.b64encode(one[name]).decode() for name in ("given", "delivered")}
        | {"sent": base64.b64encode(one["stored"].raw).decode()}
        for one in world.mails
    ]


def new_upload_id() -> str:
    return f"ABg5-{secrets.token_urlsafe(48)}"
