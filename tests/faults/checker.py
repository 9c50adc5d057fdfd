"""The checker: once faults have healed and the system is quiet, does everything that was promised hold?

It compares what clients sent and heard (their ledgers), what the log says, what the public API answers and what the blob
store holds, and answers with violations; an empty list is the only good answer.

- C1 lost: an acknowledged operation is in the log, and is shown unless it was rejected, deleted or ended.
- C2 phantom: nothing is in the log or shown that nobody sent, or that everybody was refused.
- C3 duplicate: a message stands once in the log and once in every list; a repeated mail is received once.
- C4 bytes: what is downloaded is what was sent.
- C5 order: offsets, sequences, numbers and times go forward without a gap; a reader is never sent back.
- C6 atomic: no event without its blob, no old blob without its event, no half decision.
- C7 rebuild: the live tables and every replay are the same to the byte.
- C8 undecided: every command that must have an event has one.
- C10 leak: a process holds no more than before.
- log …: what only this log promises (DESIGN 4, rules 2 and 3): dense, opened, decided once and rightly; snapshots, and what
  it says of its inputs, are true.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from typing import Any

from domain.mailbox import REPEAT_WINDOW
from domain.mailbox_events import MailboxCreated, MailboxPurged, MessageParsed, MessageReceived, MessageRejected
from domain.mailbox_state import Mailbox, Message
from tests.faults import log_scan
from tests.faults.ledger import Operation
from tests.faults.log_scan import Fact
from tests.faults.observed import Observed, Violation
from tests.faults.redecide import Redecided

#: Seconds after which a blob must belong to an event.
BLOB_GRACE_SECONDS = 3600
#: How much more of a resource than before is no leak.
RESOURCE_TOLERANCE = 1.1

#: A mail as a client knows it: where it went and what it was.
Sent = tuple[str, str]


def check(observed: Observed) -> list[Violation]:
    """Every violation of every rule that what was observed has something to say about."""
    violations: list[Violation] = []
    known: dict[tuple[str, str], Any] = {}
    valid: list[Fact] = []
    for number, records in log_scan.partitions(observed.log).items():
        found = log_scan.facts(records)
        valid += found
        again = Redecided(number, observed.inputs, observed.snapshots, log_scan.claims(records))
        again.walk(found, records[-1].offset + 1)
        violations += [*log_scan.check_offsets(number, records), *log_scan.check_order(found), *again.violations]
        known |= again.fold.documents
    books = _Books(observed, valid, known)
    return violations + [violation for rule in RULES for violation in rule(books)]


class _Books:
    """What was observed, sorted as the rules look it up."""

    def __init__(self, observed: Observed, valid: list[Fact], known: dict[tuple[str, str], Any]) -> None:
        self.observed = observed
        self.facts = valid
        self.events = [fact.event for fact in valid]
        self.known = known
        self.mails: dict[Sent, list[Operation]] = defaultdict(list)
        for operation in observed.operations:
            if operation.kind == "mail":
                self.mails[operation.mailbox, operation.sha256].append(operation)
        self.received: dict[Sent, list[MessageReceived]] = defaultdict(list)
        self.by_message: dict[str, MessageReceived] = {}
        for event in self.events:
            if isinstance(event, MessageReceived):
                self.received[event.mailbox, event.sha256].append(event)
                self.by_message[event.message] = event
        self.rejected = {
            (event.mailbox, event.sha256)
            for event in self.events
            if isinstance(event, MessageRejected) and event.reason != "repeated"
        }
        self._expected: dict[str, set[str]] = defaultdict(set)
        for (_, name), found in known.items():
            if isinstance(found, Message) and found.state != "parsing":
                mailbox, _, message = name.partition("/")
                self._expected[mailbox].add(message)

    def expected_in(self, mailbox: str) -> set[str]:
        """The messages that the API must show now; one still being parsed is not shown yet."""
        return self._expected.get(mailbox, set())

    def open_mailboxes(self) -> list[str]:
        at = self.observed.asked_at
        return [key[1] for key, found in self.known.items() if isinstance(found, Mailbox) and found.open_at(at)]


def lost(books: _Books) -> Iterator[Violation]:
    made = {event.mailbox for event in books.events if isinstance(event, MailboxCreated)}
    for operation in books.observed.operations:
        mail = operation.mailbox, operation.sha256
        decided = mail in books.received or mail in books.rejected
        there = operation.mailbox in made if operation.kind == "create" else decided
        if operation.outcome == "ok" and not there:
            yield Violation(
                "C1 lost", operation.id, f"It was acknowledged, but the log of {operation.mailbox} has it not."
            )
    if books.observed.shown is None:
        return
    for mailbox in books.open_mailboxes():
        if mailbox not in books.observed.shown:
            yield Violation("C1 lost", mailbox, "The mailbox is open by the log, and the API does not know it.")
        listed = {found.message for found in books.observed.shown.get(mailbox, ())}
        for message in sorted(books.expected_in(mailbox) - listed):
            yield Violation("C1 lost", message, f"The log has it in {mailbox}, and the API does not show it.")


def phantom(books: _Books) -> Iterator[Violation]:
    if books.observed.operations:
        for mail, received in books.received.items():
            tries = [operation.outcome for operation in books.mails.get(mail, ())]
            if "ok" not in tries and "info" not in tries:
                why = "everybody who sent it was refused" if tries else "nobody sent it"
                yield Violation("C2 phantom", received[0].message, f"It is in the log of {mail[0]}, but {why}.")
    made = {event.mailbox for event in books.events if isinstance(event, MailboxCreated)}
    for operation in books.observed.operations:
        if operation.kind == "create" and operation.outcome == "fail" and operation.mailbox in made:
            yield Violation("C2 phantom", operation.id, f"{operation.mailbox} was refused, but the log has it.")
    for mailbox, listed in (books.observed.shown or {}).items():
        for found in listed:
            if found.message not in books.expected_in(mailbox):
                yield Violation(
                    "C2 phantom", found.message, f"It is shown in {mailbox}, where the log has no such message."
                )


def duplicate(books: _Books) -> Iterator[Violation]:
    messages = Counter(event.message for event in books.events if isinstance(event, MessageReceived))
    for message, times in messages.items():
        if times > 1:
            yield Violation("C3 duplicate", message, f"It was received {times} times.")
    made = Counter(event.mailbox for event in books.events if isinstance(event, MailboxCreated))
    for mailbox, times in made.items():
        if times > 1:
            yield Violation("C3 duplicate", mailbox, f"It was created {times} times.")
    for mail, received in books.received.items():
        yield from _repeats(mail, received, len(books.mails.get(mail, ())))
    for mailbox, listed in (books.observed.shown or {}).items():
        for message, times in Counter(found.message for found in listed).items():
            if times > 1:
                yield Violation("C3 duplicate", message, f"It is shown {times} times in {mailbox}.")


def _repeats(mail: Sent, received: list[MessageReceived], tries: int) -> Iterator[Violation]:
    last: dict[str, datetime] = {}
    for event in received:
        if not event.message_id_digest:
            continue
        before = last.get(event.message_id_digest)
        if before and event.received_at - before < REPEAT_WINDOW:
            yield Violation(
                "C3 duplicate", event.message, f"The same mail was received in {mail[0]} at {before} already."
            )
        last[event.message_id_digest] = event.received_at
    if tries and len(received) > tries:
        yield Violation(
            "C3 duplicate", received[-1].message, f"It was sent {tries} times and received {len(received)} times."
        )


def bytes_kept(books: _Books) -> Iterator[Violation]:
    for mailbox, listed in (books.observed.shown or {}).items():
        for found in listed:
            event = books.by_message.get(found.message)
            if event and event.sha256 != found.sha256:
                yield Violation("C4 bytes", found.message, f"What {mailbox} gives out is not what was received.")


def order(books: _Books) -> Iterator[Violation]:
    numbers: Counter[str] = Counter()
    for event in books.events:
        if isinstance(event, MessageReceived):
            numbers[event.mailbox] += 1
            if event.number != numbers[event.mailbox]:
                yield Violation(
                    "C5 order",
                    event.message,
                    f"It is number {event.number} of {event.mailbox}, {numbers[event.mailbox]} is due.",
                )
    there = {(fact.record.partition, fact.record.offset) for fact in books.facts}
    for reader, sent in books.observed.streams.items():
        latest: dict[int, int] = {}
        for partition, offset in sent:
            if offset <= latest.get(partition, -1):
                yield Violation(
                    "C5 order", reader, f"It was sent {partition}/{offset} after {partition}/{latest[partition]}."
                )
            if (partition, offset) not in there:
                yield Violation(
                    "C2 phantom", reader, f"It was sent {partition}/{offset}, which is void or not in the log."
                )
            latest[partition] = max(latest.get(partition, -1), offset)


def atomic(books: _Books) -> Iterator[Violation]:
    blobs = books.observed.blobs
    if blobs is None:
        return
    purged = {event.mailbox for event in books.events if isinstance(event, MailboxPurged)}
    named: dict[str, str] = {}
    for event in books.events:
        if isinstance(event, MessageReceived | MessageParsed):
            raw = event.raw.blob if isinstance(event, MessageReceived) else None
            named |= {blob: event.mailbox for blob in (raw, event.content_blob) if blob}
    for blob, mailbox in named.items():
        if blob not in blobs and mailbox not in purged:
            yield Violation("C6 atomic", blob, f"An event of {mailbox} names this blob, and it is not there.")
    accepted = {mail.blob for mail in log_scan.raw_mails(books.observed.inputs)}
    for blob, age in blobs.items():
        if blob not in named and blob not in accepted and age > BLOB_GRACE_SECONDS:
            yield Violation("C6 atomic", blob, f"It is {age:.0f} s old and belongs to nothing in the log.")


def rebuild(books: _Books) -> Iterator[Violation]:
    (first_name, first_dump), *others = list(books.observed.dumps.items()) or [("", b"")]
    for name, dump in others:
        if dump != first_dump:
            yield Violation("C7 rebuild", name, f"Its tables differ from those of {first_name}.")


def leak(books: _Books) -> Iterator[Violation]:
    for process, (before, after) in books.observed.resources.items():
        for resource in fields(before):
            had, has = getattr(before, resource.name), getattr(after, resource.name)
            if has > had * RESOURCE_TOLERANCE:
                yield Violation("C10 leak", process, f"Its {resource.name} went from {had} to {has}.")


RULES = (lost, phantom, duplicate, bytes_kept, order, atomic, rebuild, leak)
