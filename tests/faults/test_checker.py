"""The checker is worth what it finds: one planted violation in each history, and none in a clean one."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.mailbox_events import MailboxExtended, MessageReceived, MessageRejected
from schemas.envelope import Record
from schemas.snapshots import Checkpoint
from tests.faults.checker import check
from tests.faults.histories import EVENTS, MAIL, History
from tests.faults.ledger import Operation
from tests.faults.log_scan import Fact, facts
from tests.faults.observed import Observed, Resources, Shown
from tests.faults.planting import Plant, appended, fact, moved, with_event, with_headers, with_record, without_snapshots

SEEDS = range(3)


# ── the plants ────────────────────────────────────────────────────────────────────────────────────────────────────────


def acknowledged_mail_never_logged(observed: Observed) -> Observed:
    return replace(observed, operations=[*observed.operations, Operation("op_lost", "mbx_kept", "f" * 64, 1, 2, "ok")])


def acknowledged_mailbox_never_made(observed: Observed) -> Observed:
    lost = Operation("op_lost", "mbx_lost", "", 1, 2, "ok", "create")
    return replace(observed, operations=[*observed.operations, lost])


def logged_mail_not_shown(observed: Observed) -> Observed:
    assert observed.shown
    return replace(observed, shown=observed.shown | {"mbx_kept": observed.shown["mbx_kept"][1:]})


def open_mailbox_not_known(observed: Observed) -> Observed:
    assert observed.shown
    return replace(observed, shown={name: found for name, found in observed.shown.items() if name != "mbx_kept"})


def valid_mail_made_void(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    return with_record(observed, with_headers(kept.record, position=str(kept.record.offset - 1)))


def refused_mail_in_the_log(observed: Observed) -> Observed:
    """The only client that sent it was told that it would not be."""
    digest = fact(observed, MessageReceived, mailbox="mbx_kept").event.sha256
    return replace(
        observed, operations=[replace(o, outcome="fail") if o.sha256 == digest else o for o in observed.operations]
    )


def mail_that_nobody_sent(observed: Observed) -> Observed:
    digest = fact(observed, MessageReceived, mailbox="mbx_kept").event.sha256
    return replace(observed, operations=[o for o in observed.operations if o.sha256 != digest])


def refused_mailbox_made(observed: Observed) -> Observed:
    creations = [o for o in observed.operations if o.kind == "create"]
    return replace(observed, operations=[*observed.operations, replace(creations[-1], id="op_again", outcome="fail")])


def unknown_message_shown(observed: Observed) -> Observed:
    assert observed.shown
    more = [*observed.shown["mbx_kept"], Shown("msg_phantom", "f" * 64)]
    return replace(observed, shown=observed.shown | {"mbx_kept": more})


def deleted_mailbox_still_shows_mail(observed: Observed) -> Observed:
    assert observed.shown
    gone = fact(observed, MessageReceived, mailbox="mbx_gone").event
    return replace(observed, shown=observed.shown | {"mbx_gone": [Shown(gone.message, gone.sha256)]})


def input_record_made_up(observed: Observed) -> Observed:
    source = fact(observed, MessageReceived, mailbox="mbx_kept").source
    return replace(observed, inputs=[record for record in observed.inputs if record.source != source])


def void_record_streamed(observed: Observed) -> Observed:
    void = next(record for record in observed.log if record.void)
    return replace(observed, streams={"reader": [(0, void.offset)]})


def message_shown_twice(observed: Observed) -> Observed:
    assert observed.shown
    kept = observed.shown["mbx_kept"]
    return replace(observed, shown=observed.shown | {"mbx_kept": [*kept, kept[0]]})


def repeat_received(observed: Observed) -> Observed:
    """The second try of a client that was cut off, received instead of rejected as a repeat."""
    repeat = fact(observed, MessageRejected, reason="repeated")
    first = fact(observed, MessageReceived, sha256=repeat.event.sha256).event
    again = replace(first, message=repeat.event.message, number=first.number + 1)
    return with_record(observed, with_event(repeat.record, again))


def command_decided_twice(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    sequence = int(kept.headers["sequence"])
    return appended(observed, (kept, {"sequence": str(sequence + 1), "ce_time": _end(observed)}))


def other_bytes_given_out(observed: Observed) -> Observed:
    assert observed.shown
    first, *rest = observed.shown["mbx_kept"]
    return replace(observed, shown=observed.shown | {"mbx_kept": [replace(first, sha256="f" * 64), *rest]})


def offset_missing(observed: Observed) -> Observed:
    void = next(record for record in observed.log[5:] if record.void)
    return replace(observed, log=[record for record in observed.log if record is not void])


def beginning_missing(observed: Observed) -> Observed:
    return replace(observed, log=observed.log[1:])


def log_was_longer_once(observed: Observed) -> Observed:
    end = observed.log[-1]
    return replace(observed, log=[*observed.log, with_headers(replace(end, offset=end.offset + 1), position="9999")])


def position_missing(observed: Observed) -> Observed:
    last = observed.log[-1]
    return with_record(observed, replace(last, headers=[(n, v) for n, v in last.headers if n != "position"]))


def sequence_with_a_gap(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    return with_record(observed, with_headers(kept.record, sequence=str(int(kept.headers["sequence"]) + 1)))


def number_given_twice(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    return with_record(observed, with_event(kept.record, replace(kept.event, number=kept.event.number - 1)))


def clock_stepped_back(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    return with_record(observed, with_headers(kept.record, ce_time="2026-03-13T15:30:00.000Z"))


def reader_sent_back(observed: Observed) -> Observed:
    seen = list(observed.streams["reader"])
    return replace(observed, streams={"reader": [*seen, seen[-2]]})


def inputs_decided_out_of_order(observed: Observed) -> Observed:
    """Two commands of one input whose decisions stand the other way round."""
    one, two = [found for found in facts(observed.log) if found.source.topic == MAIL][-2:]
    swapped = with_record(observed, moved(two.record, one.record.offset))
    return with_record(swapped, moved(one.record, two.record.offset))


def blob_missing(observed: Observed) -> Observed:
    assert observed.blobs
    blob = next(
        e.event.raw.blob for e in facts(observed.log) if isinstance(e.event, MessageReceived) and e.event.raw.blob
    )
    return replace(observed, blobs={name: age for name, age in observed.blobs.items() if name != blob})


def blob_left_over(observed: Observed) -> Observed:
    assert observed.blobs
    return replace(observed, blobs=observed.blobs | {"forgotten.raw": 3601.0})


def one_event_too_many(observed: Observed) -> Observed:
    """A batch that holds more than its command gave."""
    last = facts(observed.log)[-1]
    name, _, _ = last.headers["ce_id"].rpartition(".")
    more = {"ce_id": f"{name}.1", "sequence": str(int(last.headers["sequence"]) + 1)}
    return appended(observed, (last, more))


def replay_differs(observed: Observed) -> Observed:
    return replace(observed, dumps={**observed.dumps, "second replay": b"other tables"})


def command_left_undecided(observed: Observed) -> Observed:
    """The decision that is missing stands nowhere; what came after it was decided."""
    read = fact(observed, MessageRejected, mailbox="mbx_gone")
    return replace(observed, inputs=[*observed.inputs, replace(_input(observed, read), offset=_next(observed, MAIL))])


def more_descriptors_than_before(observed: Observed) -> Observed:
    quiet = Resources(20, 10, 4, 100_000_000)
    return replace(observed, resources={"work": (quiet, replace(quiet, descriptors=23))})


def wrong_decision(observed: Observed) -> Observed:
    """A mail that fitted was rejected as if it had not."""
    kept = fact(observed, MessageReceived, mailbox="mbx_kept").event
    full = MessageRejected(kept.message, kept.mailbox, kept.owner, "full", kept.size, kept.sha256, kept.received_at)
    return with_record(observed, with_event(fact(observed, MessageReceived, mailbox="mbx_kept").record, full))


def decided_on_a_stale_state(observed: Observed) -> Observed:
    """Extended to another end than follows from what stands before it in the log."""
    extended = fact(observed, MailboxExtended)
    later = replace(extended.event, expires_at=extended.event.expires_at + timedelta(minutes=1))
    return with_record(observed, with_event(extended.record, later))


def other_cause(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    return with_record(observed, with_headers(kept.record, causationid="cmd_other"))


def other_key(observed: Observed) -> Observed:
    kept = fact(observed, MessageReceived, mailbox="mbx_kept")
    return with_record(observed, replace(kept.record, key="acc_2"))


def snapshot_of_another_state(observed: Observed) -> Observed:
    *others, last = observed.snapshots
    documents = dict(last.documents)
    documents.pop(("mailbox", "mbx_kept"))
    return replace(observed, snapshots=[*others, replace(last, documents=documents)])


def snapshot_behind_its_inputs(observed: Observed) -> Observed:
    *others, last = observed.snapshots
    behind = Checkpoint(last.checkpoint.end, dict(last.checkpoint.inputs) | {MAIL: 1}, last.checkpoint.now_ms)
    return replace(observed, snapshots=[*others, replace(last, checkpoint=behind)])


def snapshot_ahead_of_its_inputs(observed: Observed) -> Observed:
    first, *others = observed.snapshots
    ahead = Checkpoint(first.checkpoint.end, dict(first.checkpoint.inputs) | {MAIL: 9999}, first.checkpoint.now_ms)
    return replace(observed, snapshots=[replace(first, checkpoint=ahead), *others])


def snapshot_beyond_the_log(observed: Observed) -> Observed:
    last = observed.snapshots[-1]
    beyond = replace(last, checkpoint=Checkpoint(last.checkpoint.end + 1, last.checkpoint.inputs))
    return replace(observed, snapshots=[beyond])


def _end(observed: Observed) -> str:
    return facts(observed.log)[-1].headers["ce_time"]


def _input(observed: Observed, found: Fact) -> Record:
    return next(record for record in observed.inputs if record.source == found.source)


def _next(observed: Observed, topic: str) -> int:
    return 1 + max(record.offset for record in observed.inputs if record.topic == topic)


PLANTS: list[tuple[str, Plant]] = [
    ("C1 lost", acknowledged_mail_never_logged),
    ("C1 lost", acknowledged_mailbox_never_made),
    ("C1 lost", logged_mail_not_shown),
    ("C1 lost", open_mailbox_not_known),
    ("C1 lost", without_snapshots(valid_mail_made_void)),
    ("C2 phantom", refused_mail_in_the_log),
    ("C2 phantom", mail_that_nobody_sent),
    ("C2 phantom", refused_mailbox_made),
    ("C2 phantom", unknown_message_shown),
    ("C2 phantom", deleted_mailbox_still_shows_mail),
    ("C2 phantom", input_record_made_up),
    ("C2 phantom", void_record_streamed),
    ("C3 duplicate", message_shown_twice),
    ("C3 duplicate", repeat_received),
    ("C3 duplicate", command_decided_twice),
    ("log decided once", command_decided_twice),
    ("C4 bytes", other_bytes_given_out),
    ("log dense", offset_missing),
    ("log opened", beginning_missing),
    ("log truncated", log_was_longer_once),
    ("log position", position_missing),
    ("C5 order", sequence_with_a_gap),
    ("C5 order", number_given_twice),
    ("C5 order", clock_stepped_back),
    ("log time", clock_stepped_back),
    ("C5 order", reader_sent_back),
    ("C5 order", inputs_decided_out_of_order),
    ("C6 atomic", blob_missing),
    ("C6 atomic", blob_left_over),
    ("log redecided", one_event_too_many),
    ("C7 rebuild", replay_differs),
    ("C8 undecided", command_left_undecided),
    ("C8 undecided", without_snapshots(valid_mail_made_void)),
    ("C10 leak", more_descriptors_than_before),
    ("log redecided", wrong_decision),
    ("log redecided", decided_on_a_stale_state),
    ("log cause", other_cause),
    ("log key", other_key),
    ("log snapshot", snapshot_of_another_state),
    ("log snapshot", snapshot_behind_its_inputs),
    ("log snapshot", snapshot_ahead_of_its_inputs),
    ("log snapshot", snapshot_beyond_the_log),
]


@pytest.mark.parametrize("seed", range(20))
def test_a_clean_history_passes(seed: int) -> None:
    observed = History(seed).live().observed()
    assert check(observed) == []
    assert any(record.void for record in observed.log), "a history without void records tries too little"


@pytest.mark.parametrize(("rule", "plant"), PLANTS)
def test_a_planted_violation_is_found(rule: str, plant: Plant) -> None:
    for seed in SEEDS:
        clean = History(seed).live().observed()
        found = check(plant(clean))
        assert rule in {violation.rule for violation in found}, f"seed {seed}: {[str(each) for each in found]}"


def test_every_rule_is_planted_against() -> None:
    """The list of rules in the checker's own description is the list that is tried here."""
    planted = {rule for rule, _ in PLANTS}
    assert {f"C{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 10)} <= {rule.split()[0] for rule in planted}


def test_what_was_not_looked_at_is_no_violation() -> None:
    assert check(Observed()) == []
    whole = History(1).live().observed()
    assert check(Observed(log=whole.log, inputs=whole.inputs)) == []


def test_a_violation_says_what_and_where() -> None:
    found = check(acknowledged_mail_never_logged(History(1).live().observed()))
    assert [str(each) for each in found] == [
        "C1 lost [op_lost] It was acknowledged, but the log of mbx_kept has it not."
    ]


def test_the_history_is_one_of_the_mailbox_context() -> None:
    assert {record.topic for record in History(1).live().log} == {EVENTS}
