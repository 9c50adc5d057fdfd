"""JSON Schemas of the record headers that schemas/envelope.py and its neighbours write."""

from typing import Any, Final

COMMON_HEADERS: Final = {
    "ce_specversion": {"const": "1.0", "description": "Version of CloudEvents."},
    "ce_id": {"type": "string", "description": "Id of the record; a void record may carry the id of a valid one."},
    "ce_type": {"type": "string", "description": "Which type the body is of: context, name and version."},
    "ce_source": {"const": "postledger", "description": "Who wrote it."},
    "ce_subject": {"type": "string", "description": "Id of what it is about; never an address."},
    "ce_time": {
        "type": "string",
        "format": "date-time",
        "description": "When it was decided or asked: UTC, milliseconds.",
    },
    "content-type": {"type": "string", "description": "Media type of the body."},
    "correlationid": {"type": "string", "description": "The same in everything that followed from one request."},
    "traceparent": {"type": "string", "description": "W3C Trace Context of the request, where it had one."},
}
EVENT_HEADERS: Final = {
    "position": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "The offset its writer expected, in decimal digits. At any other offset the record is void: skip it.",
    },
    "causationid": {"type": "string", "description": "`ce_id` of the command this was decided on; empty in `log.*`."},
    "srcpos": {
        "type": "string",
        "pattern": "^.+/[0-9]+/[0-9]+$",
        "description": "Where that command stands: topic/partition/offset.",
    },
    "sequence": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Counts the valid events of one `ce_subject` from 1, without a gap.",
    },
}
COMMAND_HEADERS: Final = {
    "notafter": {
        "type": "string",
        "format": "date-time",
        "description": "One that is decided on later than this has no effect: `CommandLapsed`.",
    }
}
#: `mail.raw` says in one header more what mail its record holds.
RAW_MAIL_HEADERS: Final = {
    "mail": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "What mail it is, as JSON: ids, size, digests, the sealed envelope.",
    }
}
DEAD_LETTER_HEADERS: Final = {
    "deadletterid": {"type": "string", "description": "Id of the dead letter, the same for the same record."},
    "deadlettercause": {"type": "string", "description": "Why it could not be handled, from a closed list."},
    "deadlettersource": {"type": "string", "description": "Where the record stands: topic/partition/offset."},
}


def header_schemas() -> dict[str, dict[str, Any]]:
    """By name: the headers of events, of commands, of `mail.raw` and of `dead.letters`."""
    command = {**COMMON_HEADERS, **COMMAND_HEADERS}
    return {
        "EventHeaders": _schema({**COMMON_HEADERS, **EVENT_HEADERS}, optional={"traceparent"}),
        "CommandHeaders": _schema(command, optional={"traceparent", "notafter"}),
        "RawMailHeaders": _schema({**command, **RAW_MAIL_HEADERS}, optional={"traceparent"}),
        # The original's headers stand beside these, whatever they were.
        "DeadLetterHeaders": _schema(DEAD_LETTER_HEADERS, optional=set()),
    }


def _schema(headers: dict[str, Any], *, optional: set[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Kafka headers; every value is text in UTF-8. More may be added: ignore those you don't know.",
        "properties": headers,
        "required": sorted(headers.keys() - optional),
        "additionalProperties": True,
    }
