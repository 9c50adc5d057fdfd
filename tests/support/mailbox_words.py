"""Short words for the commands and events of a mailbox, so that a specification shows only what it is about."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from domain.fields import Digest, Sealed
from domain.mailbox_commands import CreateMailbox, ReceiveMail
from domain.mailbox_events import (
    MailboxCreated,
    MessageReceived,
    MessageRejected,
    RawPlace,
    RejectReason,
)
from domain.plans import BUILT_IN, Limits, Plan, granted_minutes
from tests.support.spec import START

FREE = BUILT_IN["free"]
PRO = BUILT_IN["pro"]


def roomy(**limits: int) -> Plan:
    """A plan that gets in nobody's way but where it is told to."""
    most = {"default_ttl_minutes": 60, "longest_ttl_minutes": 1440, "live_mailboxes": 20, "live_messages": 500}
    return Plan("roomy", Limits(**(most | limits)), position=7)


def create(mailbox: str = "mbx_1", owner: str = "acc_1", plan: Plan = FREE, **more: Any) -> CreateMailbox:
    return CreateMailbox(mailbox, owner, Digest(f"#{mailbox}"), Sealed(f"⟨{mailbox}⟩"), plan, **more)


def created(command: CreateMailbox | None = None, now: datetime = START) -> MailboxCreated:
    """The event that follows from this creation at this time."""
    command = command or create()
    limits = command.plan.limits
    return MailboxCreated(
        mailbox=command.mailbox,
        owner=command.owner,
        address_digest=command.address_digest,
        address=command.address,
        created_at=now,
        expires_at=now + timedelta(minutes=granted_minutes(command.ttl_minutes, limits)),
        plan=command.plan.name,
        plan_position=command.plan.position,
        limits=limits,
        token_version=1,
        request=command.request if command.idempotency_key else None,
        idempotency_key=command.idempotency_key,
    )


def mail(message: str = "msg_1", mailbox: str = "mbx_1", owner: str = "acc_1", **more: Any) -> ReceiveMail:
    """A mail of its own content and without a Message-ID, unless told otherwise."""
    plain = ReceiveMail(
        message=message,
        mailbox=mailbox,
        owner=owner,
        via="smtp",
        size=1000,
        sha256=f"{message:0<64}",
        envelope=Sealed("⟨envelope⟩"),
        raw=RawPlace(0, 0),
        state="whole",
        summary=Sealed("⟨summary⟩"),
        content=Sealed("⟨content⟩"),
    )
    return replace(plain, **more)


def received(command: ReceiveMail, number: int = 1, now: datetime = START) -> MessageReceived:
    """The event that follows when this mail is accepted at this time."""
    assert command.state != "erased"
    return MessageReceived(
        message=command.message,
        mailbox=command.mailbox,
        owner=command.owner,
        number=number,
        received_at=now,
        size=command.size,
        sha256=command.sha256,
        via=command.via,
        envelope=command.envelope,
        state=command.state,
        raw=command.raw,
        summary=command.summary,
        content=command.content,
        content_blob=command.content_blob,
        has_attachments=command.has_attachments,
        cause=command.cause,
        message_id_digest=command.message_id_digest,
    )


def rejected(command: ReceiveMail, reason: RejectReason, now: datetime = START) -> MessageRejected:
    return MessageRejected(command.message, command.mailbox, command.owner, reason, command.size, command.sha256, now)
