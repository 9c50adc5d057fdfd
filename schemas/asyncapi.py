"""The AsyncAPI 3.0 document of every topic, for the services that read them.

It is made from what runs: `schemas/topics.py`, the vocabularies of commands and events, and the envelope. Operations are seen
from Postledger, as AsyncAPI wants it: what it *sends* to a topic is there for others to read.
"""

from typing import Any, Final

from domain.mailbox_commands import ReceiveMail
from domain.outcomes import LogOpened
from schemas import commands, events
from schemas.header_schemas import header_schemas
from schemas.json_schema import described
from schemas.topics import (
    DEAD_LETTERS,
    DELIVER,
    FOREVER,
    MAIL_RAW,
    RETRY,
    TOPICS,
    WEBHOOK_DELIVER,
    WEBHOOK_RETRY,
    Topic,
)
from schemas.vocabulary import Vocabulary
from schemas.webhook_queue import QUEUE
from schemas.work import WORK

#: The contract's own version: its first number changes with the envelope. Types have their version in their names.
VERSION: Final = "1.0.0"
BINDING: Final = "0.5.0"
OPENED: Final = events.LOG.types[LogOpened]

#: Decided on like a command, but never written as JSON: it is a record of `mail.raw`, opened and parsed.
NEVER_WRITTEN: Final = frozenset({ReceiveMail})

VOID_RULE: Final = (
    "**Skip void records.** Every record of a truth topic carries `position`, the offset its writer expected it at. A record "
    "whose `position` is not its own offset is void, for every reader and for ever: its writer decided without having "
    "seen all that came before. Void records are rare, and nothing else in them tells: their `ce_id` may be that of a valid "
    "record, which may stand before or after them, so dropping repeats by `ce_id` can drop the valid one. A record without "
    "`position` is void."
)
DESCRIPTION: Final = (
    "What happened to temporary inboxes, to accounts and their users, to the mailboxes that users connected and to the mails "
    "that they send, as a log of facts. Records are CloudEvents 1.0 in Kafka's binary mode: the type and what identifies it "
    "in headers, the body as JSON.\n\n"
    f"{VOID_RULE}\n\n"
    "Order holds within a partition, and with it within a key. Sealed fields (`x-sealed`) are ciphertext; digests "
    "(`x-digest`) can be compared, not read. Readers ignore fields they don't know. "
    "Partition counts are the installation's choice."
)
#: Topics whose records are bytes that only Postledger itself can open: their headers, and what they hold.
OPAQUE: Final = {
    MAIL_RAW: (
        "RawMailHeaders",
        "The mail as it came, sealed; empty where its header `mail` names a blob that holds it.",
    ),
    DEAD_LETTERS: (
        "DeadLetterHeaders",
        "A record that could not be handled: its original bytes and headers, and the cause.",
    ),
}
#: Topics whose records are orders of ours to ourselves, and in which words.
ORDERS: Final = {
    **dict.fromkeys((*DELIVER.values(), *RETRY.values()), WORK),
    **dict.fromkeys((WEBHOOK_DELIVER, *WEBHOOK_RETRY.values()), QUEUE),
}


def written_types(topic: Topic) -> dict[str, type]:
    """The types of JSON bodies a topic holds, by their name on the wire; none where its records are opaque."""
    if topic in ORDERS:
        return {kind: cls for cls, kind in ORDERS[topic].types.items()}
    context, _, role = topic.name.partition(".")
    module = {"events": events, "commands": commands}.get(role)
    vocabularies = [found for found in vars(module).values() if isinstance(found, Vocabulary)] if module else []
    types = next((found.types for found in vocabularies if found.context == context), {})
    return {kind: cls for cls, kind in types.items() if cls not in NEVER_WRITTEN}


def document() -> dict[str, Any]:
    """The whole document, as JSON; it refers to nothing outside itself."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Postledger's topics",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": _server()},
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {_operation_name(topic): _operation(topic) for topic in TOPICS},
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _server() -> dict[str, Any]:
    bootstrap = {
        "default": "localhost:9092",
        "description": "A broker of the installation: its setting POSTLEDGER_KAFKA.",
    }
    return {"host": "{bootstrap}", "protocol": "kafka", "variables": {"bootstrap": bootstrap}}


def _channel(topic: Topic) -> dict[str, Any]:
    kept = "Kept for ever." if topic.kept_ms == FOREVER else f"Kept for {kept_days(topic)} days."
    rule = f"\n\n{VOID_RULE}\n\nEach partition begins with `{OPENED}`, at position 0." if topic.truth else ""
    return {
        "address": topic.name,
        "title": topic.name,
        "summary": topic.holds,
        "description": f"Holds {topic.holds}. Keyed by {topic.key}. {kept}{rule}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(topic)},
        "tags": [{"name": "facts" if topic.truth else "internal"}],
        "bindings": {"kafka": {"topicConfiguration": _configuration(topic), "bindingVersion": BINDING}},
    }


def kept_days(topic: Topic) -> int:
    return topic.kept_ms // (24 * 3600 * 1000)


def _configuration(topic: Topic) -> dict[str, Any]:
    settings = topic.settings(single_node=False)
    numbers = {"retention.ms", "retention.bytes", "max.message.bytes"}
    chosen = {name: int(settings[name]) for name in numbers}
    return {
        **chosen,
        "cleanup.policy": [settings["cleanup.policy"]],
        "message.timestamp.type": settings["message.timestamp.type"],
    }


def _operation_name(topic: Topic) -> str:
    return f"{_action(topic)}-{topic.name.replace('.', '-')}"


def _action(topic: Topic) -> str:
    return "send" if topic.truth or topic is DEAD_LETTERS else "receive"


def _operation(topic: Topic) -> dict[str, Any]:
    sentence = {
        True: "Appends facts for others to read; only Postledger writes here.",
        False: "Postledger's own: between its gateways and its handlers.",
    }[topic.truth]
    return {
        "action": _action(topic),
        "summary": sentence,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _message_names(topic)],
    }


def _message_names(topic: Topic) -> list[str]:
    return [topic.name] if topic in OPAQUE else list(written_types(topic))


def _messages() -> dict[str, Any]:
    messages = {topic.name: _opaque(topic, *said) for topic, said in OPAQUE.items()}
    for topic in TOPICS:
        for kind, cls in written_types(topic).items():
            key = "none, for it is about the partition" if kind.startswith("log.") else topic.key
            messages[kind] = _message(kind, described(cls)[0]["description"], key, truth=topic.truth)
    return messages


def _message(kind: str, meaning: str, key: str, *, truth: bool) -> dict[str, Any]:
    envelope = "EventHeaders" if truth else "CommandHeaders"
    return {
        "name": kind,
        "title": kind,
        "summary": meaning,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "allOf": [{"$ref": f"#/components/schemas/{envelope}"}],
            "properties": {"ce_type": {"const": kind}},
        },
        "payload": {"$ref": f"#/components/schemas/{kind}"},
        "correlationId": {"location": "$message.header#/correlationid"},
        "bindings": _key_binding(key),
    }


def _opaque(topic: Topic, headers: str, holds: str) -> dict[str, Any]:
    return {
        "name": topic.name,
        "title": topic.name,
        "summary": holds,
        "contentType": "application/octet-stream",
        "headers": {"$ref": f"#/components/schemas/{headers}"},
        "payload": {"type": "string", "format": "binary", "description": "Bytes for Postledger alone."},
        "bindings": _key_binding(topic.key),
    }


def _key_binding(key: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": f"Keyed by: {key}."}, "bindingVersion": BINDING}}


def _schemas() -> dict[str, Any]:
    schemas = header_schemas()
    for topic in TOPICS:
        for kind, cls in written_types(topic).items():
            schemas[kind], parts = described(cls, "#/components/schemas/{model}")
            schemas |= parts
    return schemas
