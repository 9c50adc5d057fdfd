"""What the log says of its inputs is checked as well, and commands whose time can't be read are judged as deciders judge."""

from dataclasses import replace

import pytest

from domain.mailbox_events import MailboxDeleted
from domain.outcomes import CommandUnreadable, InputsAdvanced
from schemas.envelope import moment
from schemas.vocabulary import encode
from tests.faults.checker import check
from tests.faults.histories import MAIL, History
from tests.faults.log_scan import claims, facts
from tests.faults.observed import Observed
from tests.faults.planting import fact, with_event, with_headers, with_record


def saying(observed: Observed, number: int, topic: str, offset: int) -> Observed:
    """The log with another word of its own about one input."""
    claim = claims(observed.log)[number]
    said = replace(observed.log[claim.offset], value=encode(InputsAdvanced(claim.inputs | {topic: offset})))
    return with_record(observed, said)


def rules(observed: Observed) -> set[str]:
    return {violation.rule for violation in check(observed)}


@pytest.mark.parametrize("seed", range(3))
def test_a_marker_that_says_too_much_is_found(seed: int) -> None:
    observed = History(seed).live().observed()
    assert check(saying(observed, 0, MAIL, claims(observed.log)[0].inputs[MAIL])) == []
    assert "log inputs" in rules(saying(observed, 0, MAIL, claims(observed.log)[0].inputs[MAIL] + 5))


def test_a_marker_that_passes_over_a_command_without_its_event_is_found() -> None:
    observed = replace(History(1).live().observed(), snapshots=())
    last = facts(observed.log)[-1].record
    assert "log inputs" in rules(with_record(observed, with_headers(last, position="0")))


def test_a_command_whose_time_cannot_be_read_is_unreadable_and_nothing_else() -> None:
    observed = History(1).live().observed()
    unread = fact(observed, CommandUnreadable, cause="missing_header")
    assert check(observed) == []
    obeyed = with_event(unread.record, MailboxDeleted("mbx_kept", "acc_1", "owner", moment(unread.record.timestamp_ms)))
    assert "log redecided" in rules(with_record(observed, obeyed))


def test_a_timer_whose_time_cannot_be_read_must_have_an_event() -> None:
    observed = History(1).live().observed()
    *others, timer = observed.inputs
    spoilt = replace(observed, inputs=[*others, with_headers(timer, notafter="soon")])
    assert {violation.id for violation in check(spoilt)} == {claims(observed.log)[-1].place}
