"""Deciding every command again, each on the fold of exactly the log before it: the log must say the same.

It needs no keys: sealed fields of a received mail are taken from its event, everything a decision depends on stands in the
headers of its `mail.raw` record. Commands that may end in nothing (timers, our own effects) leave no trace: one is right
if there was a moment, between the decisions around it on its input, at which nothing followed from it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, get_args

from domain.connection_commands import CloseUser, ReportRefresh, ReportRevocation, ReportUse
from domain.mailbox_commands import ExpireMailbox, PurgeMailbox, ReceiveMail, ReportParsed
from domain.mailbox_events import MessageReceived, MessageRejected, RawPlace
from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable, Outcome
from domain.send_commands import DoubtAttempt, ReportAttempt, ReportReconciled, StartSend, StopSend, WakeSend
from schemas.envelope import Record, Source, first, milliseconds, moment
from schemas.raw_mail import RawMail
from tests.faults.log_scan import Claim, Fact, command_of
from tests.faults.observed import Key, Snapshot, Violation
from tests.support.spec import MAILBOX, Fold, Rules

MAY_END_IN_NOTHING = (
    ReportParsed, ExpireMailbox, PurgeMailbox, ReportRefresh, ReportRevocation, ReportUse, CloseUser,
    StartSend, WakeSend, StopSend, DoubtAttempt, ReportAttempt, ReportReconciled,
)  # fmt: skip


class Redecided:
    """One partition of a context, walked from its beginning."""

    def __init__(
        self,
        partition: int,
        inputs: Iterable[Record],
        snapshots: Iterable[Snapshot],
        claims: Iterable[Claim],
        *,
        rules: Rules = MAILBOX,
    ) -> None:
        self.fold = Fold(rules)
        self.violations: list[Violation] = []
        self._sequences: dict[Key, int] = {}
        self._partition = partition
        self._inputs = {record.source: record for record in inputs if record.partition == partition}
        self._kept = {source.topic: source.offset for source in sorted(self._inputs, key=lambda s: -s.offset)}
        self._next = dict(self._kept)
        self._snapshots = sorted(
            (found for found in snapshots if found.partition == partition), key=lambda found: found.checkpoint.end
        )
        self._silent: dict[Source, Record] = {}
        self._decided: dict[Source, str] = {}
        self._snapshot_inputs: dict[str, int] = {}
        self._claims = list(claims)
        self._claimed: dict[str, int] = {}
        self._now_ms = 0

    def walk(self, valid: list[Fact], end: int) -> None:
        """Over all valid events; `end` is where the partition ends."""
        decided = {fact.source for fact in valid}
        for topic in self._next:
            self._look_ahead(topic, decided)
        for source, group in groupby(valid, key=lambda fact: fact.source):
            decision = list(group)
            self._compare_snapshots(decision[0].record.offset)
            self._settle()
            self._hear_claims(decision[0].record.offset)
            self._passed_over({source.topic})
            self._check(source, decision)
            self._fold(decision)
            self._go_on(source)
            self._look_ahead(source.topic, decided)
        self._compare_snapshots(end)
        self._settle()
        self._hear_claims(end)
        self._passed_over(self._next)
        for snapshot in self._snapshots:
            self._say(
                "log snapshot", f"{self._partition}/{snapshot.checkpoint.end}", f"The log ends before it, at {end}."
            )

    def _go_on(self, source: Source) -> None:
        """Each input is decided in its own order; of records that are no longer kept nothing is known."""
        if self._kept.get(source.topic, 0) <= source.offset < self._next.get(source.topic, 0):
            self._say("C5 order", str(source), f"It was decided after {source.topic} up to {self._next[source.topic]}.")
        if source.offset < self._snapshot_inputs.get(source.topic, 0):
            self._say("log snapshot", str(source), "A snapshot of before its decision says that it was decided.")
        if source.offset < self._claimed.get(source.topic, 0):
            self._say("log inputs", str(source), "The log itself says before its decision that it was decided.")
        self._next[source.topic] = max(self._next.get(source.topic, 0), source.offset + 1)

    def _say(self, rule: str, fact: Fact | str, sentence: str) -> None:
        self.violations.append(Violation(rule, fact.place if isinstance(fact, Fact) else fact, sentence))

    # ── one decision ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, source: Source, decision: list[Fact]) -> None:
        begins, record = decision[0], self._inputs.get(source)
        if source in self._decided:
            self._say("log decided once", begins, f"{source} was decided at {self._decided[source]} already.")
        self._decided.setdefault(source, begins.place)
        if record is None:
            if source.offset >= self._kept.get(source.topic, 0):
                self._say("C2 phantom", begins, f"It was decided on {source}, and there is no such record.")
            return
        self._check_headers(record, decision)
        now_ms = milliseconds(datetime.fromisoformat(begins.headers["ce_time"]))
        if now_ms < record.timestamp_ms:
            self._say("log time", begins, f"It was decided before {source} was appended.")
        expected = list(self._expected(record, decision, moment(now_ms)))
        logged = [fact.event for fact in decision]
        if expected != logged:
            rule = "C6 atomic" if logged == expected[: len(logged)] else "log redecided"
            self._say(rule, begins, f"On {source} the log says {_names(logged)}, the rules say {_names(expected)}.")

    def _check_headers(self, record: Record, decision: list[Fact]) -> None:
        cause = first(record.headers)
        name = cause.get("ce_id") or str(record.source)
        for number, fact in enumerate(decision):
            if fact.headers["ce_id"] != f"{name}.{number}":
                self._say("log decided once", fact, f"Event {number} of {name} has the id {fact.headers['ce_id']}.")
            if fact.headers["causationid"] != cause.get("ce_id", ""):
                self._say("log cause", fact, f"Its cause is said to be {fact.headers['causationid']}, not {name}.")
            if fact.record.key != record.key:
                self._say("log key", fact, f"Its key is {fact.record.key}, that of its command {record.key}.")

    def _expected(self, record: Record, decision: list[Fact], now: datetime) -> Iterator[Any]:
        """What follows from this input record as things stand."""
        name, logged, found = first(record.headers).get("ce_id", ""), decision[0].event, _readable(record)
        if found is None:
            letter = logged if isinstance(logged, CommandUnreadable) else None
            yield CommandUnreadable(
                name, letter.cause if letter else "invalid_body", letter.dead_letter if letter else ""
            )
            return
        if not_after := _lapsed(record):
            yield CommandLapsed(name, not_after)
            return
        command = receive(record, found, logged) if isinstance(found, RawMail) else found
        try:
            yield from self.fold.decide(command, now, record.key)
        except Exception:  # noqa: BLE001 - whatever a rule raises is decided as failed
            yield logged if isinstance(logged, CommandFailed) else CommandFailed(name, "rule_failed", "")

    def _fold(self, decision: list[Fact]) -> None:
        for fact in decision:
            key = ("sequence", fact.headers["ce_subject"])
            self._sequences[key] = self._sequences.get(key, 0) + 1
            self._now_ms = max(self._now_ms, milliseconds(datetime.fromisoformat(fact.headers["ce_time"])))
            if not isinstance(fact.event, get_args(Outcome)):
                self.fold.apply(fact.event)

    # ── commands that left no trace ───────────────────────────────────────────────────────────────────────────────────

    def _look_ahead(self, topic: str, decided: set[Source]) -> None:
        """The records up to the next one that has an event: nothing should follow from them now, or else soon."""
        while (record := self._inputs.get(Source(topic, self._partition, self._next[topic]))) is not None:
            if record.source in decided:
                return
            self._silent[record.source] = record
            self._next[topic] += 1

    def _settle(self) -> None:
        """Strikes off the records from which nothing follows as things stand."""
        self._silent = {s: record for s, record in self._silent.items() if not self._ends_in_nothing(record)}

    def _passed_over(self, topics: Iterable[str]) -> None:
        """Later records of these inputs have been decided: what still waits to end in nothing never did."""
        for source in [source for source in self._silent if source.topic in topics]:
            self._say("C8 undecided", str(source), "No event follows from it, though the rules have one for it.")
            del self._silent[source]

    def _hear_claims(self, before: int) -> None:
        """What the log said before this offset was decided: nothing may be there any more that should have an event."""
        while self._claims and self._claims[0].offset < before:
            claim = self._claims.pop(0)
            for topic, offset in claim.inputs.items():
                self._claimed[topic] = max(self._claimed.get(topic, 0), offset)
            for source in [source for source in self._silent if source.offset < claim.inputs.get(source.topic, 0)]:
                self._say(
                    "log inputs", claim.place, f"{source} is said to be decided, and the rules have an event for it."
                )
                del self._silent[source]

    def _ends_in_nothing(self, record: Record) -> bool:
        command = _readable(record)
        if not isinstance(command, MAY_END_IN_NOTHING) or _lapsed(record):
            return False
        return not self.fold.decide(command, moment(max(self._now_ms, record.timestamp_ms)), record.key)

    # ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _compare_snapshots(self, before: int) -> None:
        """Each snapshot that ends before this offset against the fold as it stands."""
        while self._snapshots and self._snapshots[0].checkpoint.end <= before:
            snapshot = self._snapshots.pop(0)
            self._compare(snapshot, {**self.fold.documents, **self._sequences})

    def _compare(self, snapshot: Snapshot, folded: Mapping[Key, Any]) -> None:
        place = f"{self._partition}/{snapshot.checkpoint.end}"
        for key in sorted(folded.keys() | snapshot.documents.keys()):
            if folded.get(key) != snapshot.documents.get(key):
                self._say(
                    "log snapshot",
                    place,
                    f"{key} is {snapshot.documents.get(key)} in the snapshot and {folded.get(key)} by the log.",
                )
        self._snapshot_inputs = dict(snapshot.checkpoint.inputs)
        for topic, decided in self._decided_up_to().items():
            if snapshot.checkpoint.inputs.get(topic, 0) < decided:
                self._say("log snapshot", place, f"It would decide {topic} again from before {decided}.")

    def _decided_up_to(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for source in self._decided:
            found[source.topic] = max(found.get(source.topic, 0), source.offset + 1)
        return found


def _readable(record: Record) -> Any:
    """The command of a record, or its `RawMail`; None where that can't be read, or when it lapses can't."""
    try:
        _not_after(record)
    except ValueError:
        return None
    return command_of(record)


def _not_after(record: Record) -> datetime | None:
    text = first(record.headers).get("notafter")
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _lapsed(record: Record) -> datetime | None:
    """Its `not_after`, where it was appended later than that: whoever sent it was promised nothing."""
    not_after = _not_after(record)
    return not_after if not_after and record.timestamp_ms > milliseconds(not_after) else None


def receive(record: Record, mail: RawMail, logged: Any) -> ReceiveMail:
    """The command that a record of `mail.raw` stands for; what parsing and sealing added is as its event has it."""
    added = {field.name for field in fields(ReceiveMail)} & {
        "state",
        "summary",
        "content",
        "content_blob",
        "has_attachments",
        "cause",
    }
    parsed = {name: getattr(logged, name) for name in added} if isinstance(logged, MessageReceived) else {}
    erased = isinstance(logged, MessageRejected) and logged.reason == "erased"
    return ReceiveMail(
        message=mail.message,
        mailbox=mail.mailbox,
        owner=record.key,
        via=mail.via,
        size=mail.size,
        sha256=mail.sha256,
        envelope=mail.envelope,
        raw=RawPlace(record.partition, record.offset, mail.blob),
        message_id_digest=mail.message_id_digest,
        **({"state": "erased" if erased else "whole"} | parsed),
    )


def _names(events: list[Any]) -> str:
    return " and ".join(map(str, events)) or "nothing"
