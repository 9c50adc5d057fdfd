"""The envelope of every record: CloudEvents 1.0 in Kafka's binary mode, and the one rule readers must know.

A record of a truth topic (`*.events`) carries `position`, the offset its writer expected. One that is found at another
offset is void, for every reader and for ever: its writer had decided without knowing all that came before. Skip it:

    from schemas.envelope import is_void

    if is_void(record.headers, record.offset):
        continue

`ce_id` alone is not enough to drop repeats: a void record may carry the id of a valid one.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

Headers = Sequence[tuple[str, bytes]]

SOURCE: Final = "postledger"
JSON: Final = b"application/json"


def is_void(headers: Iterable[tuple[str, bytes]], offset: int) -> bool:
    """Whether the record of a truth topic found at this offset must be skipped (DESIGN 4, rule 2)."""
    return next((value for name, value in headers if name == "position"), None) != b"%d" % offset


def first(headers: Headers) -> dict[str, str]:
    """Header name → text; of a repeated name the first, bytes that are no UTF-8 replaced."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name, value.decode("utf-8", "replace") if value is not None else "")
    return found


def milliseconds(at: datetime) -> int:
    """Whole milliseconds since 1970 of an aware time."""
    return round(at.timestamp() * 1000)


def moment(at_ms: int) -> datetime:
    """The aware UTC time of so many milliseconds since 1970."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-03-13T15:30:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_traceparent() -> str:
    """A trace that begins here (W3C Trace Context, version 00, sampled)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input record stands: an event names the one that it was decided on as `srcpos`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def read(cls, text: str) -> "Source":
        """From `topic/partition/offset`; raises ValueError."""
        topic, partition, offset = text.rsplit("/", 2)
        return cls(topic, int(partition), int(offset))


def event_headers(
    *,
    event_id: str,
    kind: str,
    subject: str,
    at: datetime,
    position: int,
    cause: Mapping[str, str],
    source: Source,
    sequence: int,
) -> list[tuple[str, bytes]]:
    """The headers of one event. `cause` is what `first` read from the command: its id, correlation and trace go on."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", kind.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", stamp(at).encode()),
        ("content-type", JSON),
        ("position", b"%d" % position),
        ("causationid", cause.get("ce_id", "").encode()),
        ("correlationid", (cause.get("correlationid") or cause.get("ce_id", "")).encode()),
        ("srcpos", str(source).encode()),
        ("sequence", b"%d" % sequence),
    ]
    if "traceparent" in cause:
        headers.append(("traceparent", cause["traceparent"].encode()))
    return headers


def command_headers(
    *,
    command_id: str,
    kind: str,
    subject: str,
    at: datetime,
    not_after: datetime | None = None,
    content_type: bytes = JSON,
    trace: Mapping[str, str] | None = None,
) -> list[tuple[str, bytes]]:
    """The headers of one command. One that reaches its decider after `not_after` is decided as lapsed."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", command_id.encode()),
        ("ce_type", kind.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", stamp(at).encode()),
        ("content-type", content_type),
        ("correlationid", ((trace or {}).get("correlationid") or command_id).encode()),
    ]
    if not_after is not None:
        headers.append(("notafter", stamp(not_after).encode()))
    if trace and "traceparent" in trace:
        headers.append(("traceparent", trace["traceparent"].encode()))
    return headers


def passed_on(found: Mapping[str, str]) -> tuple[str, bytes]:
    """The header of work that goes on to where it waits next: its id stays, and `hops` counts how often that happened."""
    return "hops", b"%d" % (int(found.get("hops", "0")) + 1)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in a topic. `timestamp_ms`: the broker's clock at its append, milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str
    value: bytes
    headers: Headers

    @property
    def void(self) -> bool:
        """Whether this record of a truth topic must be skipped."""
        return is_void(self.headers, self.offset)

    def header(self, name: str) -> str:
        """The text of one header, as `first` reads them all; empty where there is none."""
        for found, value in self.headers:
            if found == name:
                return value.decode("utf-8", "replace") if value is not None else ""
        return ""

    @property
    def source(self) -> Source:
        return Source(self.topic, self.partition, self.offset)
