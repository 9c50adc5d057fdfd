"""The checker of sends is worth what it finds: one planted violation in each history, and none in a clean one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from domain.outcomes import LogOpened
from domain.send_commands import (
    CancelSend,
    DoubtAttempt,
    KnownConnection,
    NoteDraft,
    NoteTransmission,
    RedriveSend,
)
from domain.send_events import SendRequested, SendSent
from domain.webhook_words import said
from schemas import commands, events, topics
from schemas.envelope import Record, Source, command_headers, event_headers, first, milliseconds, moment
from schemas.vocabulary import encode
from tests.faults.log_scan import facts
from tests.faults.planting import with_headers
from tests.faults.send_checker import ObservedSends, Told, check
from tests.support.send_words import GMAIL, OUTLOOK, OWNER, SECONDS, SMTP, USER, claim, reconciled, report, request
from tests.support.spec import SEND, START, Fold

COMMANDS, EVENTS = topics.SEND_COMMANDS.name, topics.SEND_EVENTS.name
Plant = Callable[[ObservedSends], ObservedSends]


class History:
    """Sends of one user, as a decider writes them, each with an end of its own; and providers that keep receipts."""

    def __init__(self, seed: int) -> None:
        self.random, self.fold, self.now = Random(seed), Fold(SEND), milliseconds(START)
        self.inputs: list[Record] = []
        self.log: list[Record] = []
        self.receipts: list[str] = []
        self._sequences: dict[str, int] = {}
        self._append("", encode(LogOpened("log_1")), _opened(self.now))

    def _append(self, key: str, value: bytes, headers: Any) -> None:
        self.log.append(Record(EVENTS, 0, len(self.log), self.now, key, value, headers))

    def tell(self, command: Any, *, later: float = 0) -> list[Any]:
        """What follows from a command that comes so many seconds later."""
        self.now += self.random.randrange(1, 900) + int(later * 1000)
        headers = command_headers(
            command_id=f"cmd_{len(self.inputs)}",
            kind=commands.SEND.type_of(command),
            subject=command.send,
            at=moment(self.now),
        )
        record = Record(COMMANDS, 0, len(self.inputs), self.now, USER, encode(command), headers)
        self.inputs.append(record)
        decided = self.fold.run(command, moment(self.now), USER)
        for number, event in enumerate(decided):
            if self.random.random() < 0.2:
                self._event(record, command.send, event, number, len(self.log) - 1)
            self._sequences[command.send] = self._sequences.get(command.send, 0) + 1
            self._event(record, command.send, event, number, len(self.log))
        return decided

    def _event(self, record: Record, subject: str, event: Any, number: int, position: int) -> None:
        cause = first(record.headers)
        headers = event_headers(
            event_id=f"{cause['ce_id']}.{number}",
            kind=events.SEND.type_of(event),
            subject=subject,
            at=moment(self.now),
            position=position,
            cause=cause,
            source=record.source,
            sequence=self._sequences.get(subject, 0),
        )
        self._append(record.key, encode(event), headers)

    def requested(self, send: str, by: KnownConnection = GMAIL) -> None:
        self.tell(request(by, send=send, key=None, message_id=f"<{send}@m.test>"))

    def tried(self, send: str, outcome: Any, code: Any = None, *, by: KnownConnection = GMAIL) -> None:
        """Requested, and one attempt at it."""
        self.requested(send, by)
        self.tell(claim(send=send))
        note = NoteTransmission(send, USER, 1) if by is SMTP else NoteDraft(send, USER, 1, f"draft-of-{send}")
        self.tell(note)
        self.tell(report(outcome, code, send=send))
        if outcome == "accepted":
            self.receipts.append(send)

    def live(self) -> "History":
        self.tried("snd_sent", "accepted")
        self.tried("snd_by_smtp", "accepted", by=SMTP)
        self.tried("snd_failed", "refused", "message_refused", by=OUTLOOK)
        self.tried("snd_uncertain", "in_doubt", "connection_lost", by=SMTP)
        self.tried("snd_proven", "in_doubt", "connection_lost")
        self.receipts.append("snd_proven")
        self.tell(reconciled("proven_sent", send="snd_proven"), later=SECONDS)
        self.requested("snd_cancelled")
        self.tell(CancelSend("snd_cancelled", USER, OWNER))
        self.requested("snd_died")
        for attempt in range(1, 6):
            self.tell(claim(send="snd_died"), later=4000)
            self.tell(DoubtAttempt("snd_died", USER, attempt), later=SECONDS)
        self.tried("snd_again", "in_doubt", "connection_lost", by=SMTP)
        self.receipts.append("snd_again")
        self.tell(RedriveSend("snd_again", USER, OWNER, "caller", [SMTP]))
        self.tell(claim(send="snd_again"))
        self.tell(report("accepted", send="snd_again", attempt=2))
        self.receipts.append("snd_again")
        return self

    def observed(self) -> ObservedSends:
        happened = [
            (fact.headers["ce_id"], told) for fact in facts(self.log, events.SEND) if (told := said(fact.event))
        ]
        told = [Told(name, found.type, str(found.message)) for name, found in happened]
        known = {name: send for (_, name), send in self.fold.documents.items()}
        return ObservedSends(
            asked=dict.fromkeys(known, True),
            log=self.log,
            inputs=self.inputs,
            shown={name: send.state for name, send in known.items()},
            receipts=self.receipts,
            told=[*told, told[0]],
        )


def _opened(now: int) -> Any:
    return event_headers(
        event_id="log_1", kind="log.opened.v1", subject="log_1", at=moment(now), position=0, cause={},
        source=Source(EVENTS, 0, 0), sequence=1,
    )  # fmt: skip


# ── the plants ────────────────────────────────────────────────────────────────────────────────────────────────────────


def acknowledged_and_not_logged(observed: ObservedSends) -> ObservedSends:
    return replace(observed, asked={**observed.asked, "snd_lost": True})


def not_shown(observed: ObservedSends) -> ObservedSends:
    return replace(observed, shown=_without(observed.shown, "snd_failed"))


def said_to_be_sent(observed: ObservedSends) -> ObservedSends:
    return replace(observed, receipts=[one for one in observed.receipts or () if one != "snd_proven"])


def nobody_asked(observed: ObservedSends) -> ObservedSends:
    return replace(observed, asked=_without(observed.asked, "snd_sent"))


def unknown_shown(observed: ObservedSends) -> ObservedSends:
    return replace(observed, shown={**(observed.shown or {}), "snd_phantom": "sent"})


def _also_sent(send: str) -> Plant:
    def planted(observed: ObservedSends) -> ObservedSends:
        return replace(observed, receipts=[*(observed.receipts or ()), send])

    return planted


def told_under_another_id(observed: ObservedSends) -> ObservedSends:
    return replace(observed, told=[*(observed.told or ()), Told("whd_other", "send.sent", "snd_sent")])


def id_used_for_another(observed: ObservedSends) -> ObservedSends:
    told = list(observed.told or ())
    return replace(observed, told=[*told, replace(told[0], send="snd_failed")])


def wrong_row(observed: ObservedSends) -> ObservedSends:
    return replace(observed, shown={**(observed.shown or {}), "snd_sent": "failed"})


def end_not_told(observed: ObservedSends) -> ObservedSends:
    return replace(observed, told=[one for one in observed.told or () if one.send != "snd_died"])


def end_not_in_the_log(observed: ObservedSends) -> ObservedSends:
    """The log ends before the last send was sent."""
    number = max(n for n, record in enumerate(observed.log) if _is(record, SendSent))
    return replace(observed, log=observed.log[: number - 1])


def _is(record: Record, kind: type) -> bool:
    return not record.void and first(record.headers)["ce_type"] == events.SEND.types[kind]


def request_made_void(observed: ObservedSends) -> ObservedSends:
    log = list(observed.log)
    number = max(n for n, record in enumerate(log) if _is(record, SendRequested))
    log[number] = with_headers(log[number], position="0")
    return replace(observed, log=log)


def told_when_nothing_was_asked(observed: ObservedSends) -> ObservedSends:
    return replace(observed, inputs=observed.inputs[:-1])


def _without(found: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in (found or {}).items() if key != name}


PLANTS: list[tuple[str, Plant]] = [
    ("C1 lost", acknowledged_and_not_logged),
    ("C1 lost", not_shown),
    ("C1 lost", said_to_be_sent),
    ("C1 lost", request_made_void),
    ("C2 phantom", nobody_asked),
    ("C2 phantom", unknown_shown),
    ("C2 phantom", _also_sent("snd_failed")),
    ("C2 phantom", _also_sent("snd_cancelled")),
    ("C2 phantom", _also_sent("snd_died")),
    ("C2 phantom", _also_sent("snd_nobodys")),
    ("C2 phantom", told_when_nothing_was_asked),
    ("C3 duplicate", _also_sent("snd_sent")),
    ("C3 duplicate", _also_sent("snd_by_smtp")),
    ("C3 duplicate", _also_sent("snd_again")),
    ("C3 duplicate", told_under_another_id),
    ("C3 duplicate", id_used_for_another),
    ("C7 rebuild", wrong_row),
    ("C8 undecided", end_not_told),
    ("C8 undecided", end_not_in_the_log),
]


@pytest.mark.parametrize("seed", range(10))
def test_a_clean_history_of_sends_passes(seed: int) -> None:
    observed = History(seed).live().observed()
    assert check(observed) == []
    assert set((observed.shown or {}).values()) == {"sent", "failed", "uncertain", "cancelled", "dead_lettered"}
    assert any(record.void for record in observed.log), "a history without void records tries too little"


@pytest.mark.parametrize(("rule", "plant"), PLANTS)
def test_a_planted_violation_of_sends_is_found(rule: str, plant: Plant) -> None:
    for seed in range(3):
        found = check(plant(History(seed).live().observed()))
        assert rule in {violation.rule for violation in found}, f"seed {seed}: {[str(each) for each in found]}"


@pytest.mark.parametrize("by", [GMAIL, OUTLOOK])
def test_an_uncertain_end_is_found_where_the_provider_can_be_asked(by: KnownConnection) -> None:
    history = History(1).live()
    history.tried("snd_nobody_looked", "in_doubt", "connection_lost", by=by)
    history.tell(DoubtAttempt("snd_nobody_looked", USER, 1), later=timedelta(hours=2).total_seconds())
    assert [str(found.rule) for found in check(history.observed())] == ["C8 undecided"]
    assert check(replace(history.observed(), uncertain=1)) == []


def test_one_that_was_uncertain_may_have_gone_out_once_or_not_at_all() -> None:
    observed = History(1).live().observed()
    assert check(_also_sent("snd_uncertain")(observed)) == []


def test_of_sends_what_was_not_looked_at_is_no_violation() -> None:
    assert check(ObservedSends()) == []
    whole = History(1).live().observed()
    assert check(ObservedSends(asked=whole.asked, log=whole.log, inputs=whole.inputs)) == []
