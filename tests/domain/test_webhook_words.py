"""What webhooks say: the right type of each event, and nothing that is anybody's secret."""

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, get_args

from domain.connection_events import ConnectionEvent, ReauthorisationRequired, RevocationRequested
from domain.mailbox_events import MailboxEvent, MailboxExpired, MessageParsed, MessageReceived, RawPlace
from domain.send_events import (
    AttemptDeferred,
    SendCancelled,
    SendDeadLettered,
    SendEvent,
    SendFailed,
    SendSent,
    SendUncertain,
)
from domain.webhook_words import OF_CONNECTIONS, OF_MAILBOXES, OF_SENDS, TYPES, said
from schemas.vocabulary import encode

AT = datetime(2026, 3, 13, 15, 30, tzinfo=UTC)
TOLD = {
    SendSent: "send.sent",
    SendFailed: "send.failed",
    AttemptDeferred: "send.deferred",
    SendUncertain: "send.uncertain",
    SendDeadLettered: "send.dead_lettered",
    SendCancelled: "send.cancelled",
    ReauthorisationRequired: "connection.reauth_required",
    RevocationRequested: "connection.revoked",
    MessageReceived: "mailbox.message_received",
    MessageParsed: "mailbox.message_received",
    MailboxExpired: "mailbox.expired",
}
#: Fields whose values may be told, by the name they have in events.
MAY_BE_TOLD = {
    "send", "user", "owner", "connection", "provider", "attempt", "attempts", "provider_message_id", "thread_id", "code",
    "next_at", "by", "mailbox", "message", "state", "has_attachments", "at",
}  # fmt: skip


def made(kind: type) -> Any:
    """An event whose texts are all of them canaries, as far as its types let them."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        name, of = field.name, str(field.type)
        if name in {"at", "next_at", "received_at", "overdue_at"}:
            values[name] = AT
        elif name == "raw":
            values[name] = RawPlace(0, 0)
        elif name == "refused":
            values[name] = []
        elif name == "state":
            values[name] = "whole"
        elif "bool" in of:
            values[name] = False
        elif "int" in of and "Digest" not in of:
            values[name] = 7
        else:
            values[name] = f"canary-{name}"
    return kind(**values)


def test_each_type_there_is_is_told_of_by_some_event():
    assert {said(made(kind)).type for kind in TOLD} == set(TYPES)  # type: ignore[union-attr]  # it is told of


def test_each_event_is_told_as_its_type():
    for kind, name in TOLD.items():
        found = said(made(kind))
        assert found is not None
        assert found.type == name
        assert found.data["status"] == name.partition(".")[2].replace("message_", "")
    assert set(TOLD) == {*OF_MAILBOXES, *OF_CONNECTIONS, *OF_SENDS}


def test_of_all_others_nothing_is_told():
    for kind in (*get_args(MailboxEvent), *get_args(ConnectionEvent), *get_args(SendEvent)):
        assert (kind in TOLD) == (said(made(kind)) is not None), kind


def test_nothing_is_told_but_ids_states_times_and_codes():
    """No address, subject, body, nor anything sealed: a field that is not listed must not show, and all of it is small."""
    for kind in TOLD:
        event = made(kind)
        text = encode(said(event).data).decode()  # type: ignore[union-attr]  # it is told of
        for field in fields(kind):
            if field.name not in MAY_BE_TOLD:
                assert f'"canary-{field.name}"' not in text, f"{kind.__name__}.{field.name}"
        assert len(text) < 1000
        assert json.loads(text)


def test_a_mail_is_told_of_once_it_can_be_read():
    event = made(MessageReceived)
    assert said(event) is not None
    values = {field.name: getattr(event, field.name) for field in fields(MessageReceived)} | {"state": "parsing"}
    assert said(MessageReceived(**values)) is None
