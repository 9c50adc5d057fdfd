"""What people ask of sends: to send a mail once, to move or to cancel it, and to have it tried again."""

from dataclasses import replace

import pytest

from domain.fields import Digest
from domain.send_choice import choose, is_live
from domain.send_commands import CancelSend, MoveSend, NoteTransmission, RedriveSend
from domain.send_events import (
    SendCancelled,
    SendCommandRefused,
    SendFailed,
    SendMoved,
    SendRedriven,
    SendRefused,
    SendRepeated,
)
from domain.send_state import Send, Taken
from tests.support import spec
from tests.support.send_words import (
    ABOUT,
    BY_SMTP,
    DRAFTED,
    GMAIL,
    MESSAGE_ID,
    OUTLOOK,
    OWNER,
    SEND,
    SENDING,
    SMTP,
    STATES,
    TRANSMITTED,
    USER,
    claim,
    dead_lettered,
    deferred,
    dispatched,
    failed,
    in_doubt,
    reconciled,
    report,
    request,
    requested,
    revoked,
    start,
    started,
    uncertain,
    waits,
)
from tests.support.spec import START, at

CANCEL = CancelSend(SEND, USER, OWNER)
MOVE = MoveSend(SEND, USER, OWNER, at(hours=2))
REDRIVEN = SendRedriven(*ABOUT, "caller")


def given(*events):
    return spec.given(*events, rules=spec.SEND, key=USER)


def of(when, name=SEND):
    return when.known["send", name]


def redrive(*connections, **more):
    return replace(RedriveSend(SEND, USER, OWNER, "caller", list(connections) or [GMAIL]), **more)


# ── promised once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mail_is_promised_and_dispatched_at_once():
    done = given().when(request()).then(requested(), dispatched())
    assert of(done) == Send(
        user=USER,
        owner=OWNER,
        state="queued",
        message_id=MESSAGE_ID,
        due=at(minutes=2),
        connection="con_1",
        provider="gmail",
        mailbox=Digest("#ada@gmail"),
        dispatches=1,
    )
    assert done.known["key", "#key"] == Taken(SEND, Digest("#body"))


def test_the_time_until_it_is_dispatched_anew_is_scaled():
    given().when(request(scale=0.01)).then(requested(), dispatched(scale=0.01))


def test_a_mail_for_later_is_promised_and_waits():
    command = request(scheduled_at=at(hours=1), connection="con_1", preference="gmail")
    done = given().when(command).then(requested(command))
    waits_for_it = Send(USER, OWNER, "scheduled", MESSAGE_ID, at(hours=1), named="con_1", preference="gmail")
    assert of(done) == waits_for_it


@pytest.mark.parametrize("state", STATES)
def test_the_same_key_stands_for_the_same_send_for_ever(state):
    """Whatever has become of it, and whatever connections there are."""
    for connections in ([GMAIL], [revoked(GMAIL)]):
        again = request(send="snd_2", connections=connections)
        done = given(*STATES[state]).when(again, now=at(days=400)).then(SendRepeated("snd_2", USER, OWNER, SEND))
        assert ("send", "snd_2") not in done.known
    other = request(send="snd_2", body=Digest("#other"))
    given(*STATES[state]).when(other).then(SendRefused("snd_2", USER, OWNER, "idempotency_key_reused", SEND))


@pytest.mark.parametrize("key", [Digest("#key"), None])
def test_the_same_record_twice_is_one_send(key):
    command = request(key=key)
    given().when(command).then(requested(command), dispatched()).when(command, now=at(seconds=1), key=USER).then(
        SendRepeated(SEND, USER, OWNER, SEND)
    )


def test_without_a_key_the_same_mail_is_sent_again():
    first, second = request(key=None), request(send="snd_2", key=None)
    done = given().when(first).then(requested(first), dispatched()).when(second, now=START, key=USER)
    assert [type(event).__name__ for event in done.events] == ["SendRequested", "SendDispatched"]
    assert {key for key in done.known if key[0] == "key"} == set()


def test_what_was_refused_leaves_its_key_free():
    given().when(request(waits(GMAIL))).then(SendRefused(*ABOUT, "no_active_connection")).when(
        request(), now=START, key=USER
    ).then(requested(), dispatched())


# ── by which connection ───────────────────────────────────────────────────────────────────────────────────────────────

TROUBLED = replace(GMAIL, troubled=True)


@pytest.mark.parametrize(
    ("connections", "named", "preference", "chosen", "promised"),
    [
        ([], None, None, None, None),
        ([GMAIL, OUTLOOK], None, None, GMAIL, GMAIL),
        ([OUTLOOK, GMAIL], None, None, OUTLOOK, OUTLOOK),
        ([TROUBLED, SMTP], None, None, SMTP, SMTP),
        ([TROUBLED, SMTP], None, "gmail", TROUBLED, TROUBLED),
        ([GMAIL, OUTLOOK], None, "outlook", OUTLOOK, OUTLOOK),
        ([GMAIL, waits(OUTLOOK)], None, "outlook", GMAIL, GMAIL),
        ([GMAIL], None, "smtp", GMAIL, GMAIL),
        ([revoked(GMAIL), SMTP], None, "gmail", SMTP, SMTP),
        ([revoked(GMAIL)], None, None, None, None),
        ([waits(GMAIL)], None, None, None, waits(GMAIL)),
        ([waits(GMAIL), waits(OUTLOOK)], None, "outlook", None, waits(OUTLOOK)),
        ([GMAIL, OUTLOOK], "con_2", "gmail", OUTLOOK, OUTLOOK),
        ([GMAIL, waits(OUTLOOK)], "con_2", None, waits(OUTLOOK), waits(OUTLOOK)),
        ([GMAIL, revoked(OUTLOOK)], "con_2", None, None, None),
        ([GMAIL], "con_9", None, None, None),
    ],
)
def test_the_one_that_was_named_or_preferred_or_the_soundest(connections, named, preference, chosen, promised):
    """What was promised before waits for a connection to come back, rather than to fail."""
    assert choose(connections, named=named, preference=preference) == chosen
    assert choose(connections, named=named, preference=preference, promised=True) == promised
    command = request(connections=connections, connection=named, preference=preference)
    (*_, last) = given().when(command).events
    assert getattr(last, "connection", None) == (chosen.connection if chosen else None)


def test_a_connection_is_live_until_it_is_revoked():
    assert is_live([GMAIL, waits(OUTLOOK)], "con_2")
    assert not is_live([GMAIL, revoked(OUTLOOK)], "con_2")
    assert not is_live([GMAIL], "con_2")
    assert not is_live([GMAIL], None)


# ── moving and cancelling ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", STATES)
def test_a_send_is_moved_until_it_starts(state):
    done = given(*STATES[state]).when(MOVE, now=at(minutes=90))
    if state == "scheduled":
        done.then(SendMoved(*ABOUT, at(hours=2)))
        assert of(done).due == at(hours=2)
        done.when(start(due=at(hours=1)), now=at(hours=1), key=USER).then_nothing()
        done.when(start(due=at(hours=2)), now=at(hours=2), key=USER).then(dispatched(now=at(hours=2)))
    else:
        done.then(SendCommandRefused("MoveSend", SEND, USER, "too_late"))


@pytest.mark.parametrize("state", STATES)
def test_a_send_is_cancelled_while_nothing_is_under_way(state):
    done = given(*STATES[state]).when(CANCEL, now=at(minutes=90))
    if state in ("scheduled", "queued", "deferred"):
        done.then(SendCancelled(*ABOUT, "caller"))
        assert (of(done).state, of(done).due) == ("cancelled", None)
        again = done.when(CANCEL, now=at(hours=2), key=USER)
        again.then(SendCommandRefused("CancelSend", SEND, USER, "cancelled"))
    else:
        reason = "cancelled" if state == "cancelled" else "too_late"
        done.then(SendCommandRefused("CancelSend", SEND, USER, reason))


@pytest.mark.parametrize("command", [CANCEL, MOVE, redrive()], ids=lambda command: type(command).__name__)
def test_of_anothers_send_nobody_hears_more_than_of_none(command):
    refused = SendCommandRefused(type(command).__name__, SEND, USER, "unknown")
    given().when(command).then(refused)
    for events in STATES.values():
        given(*events).when(replace(command, owner="acc_2")).then(refused)


# ── trying again ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", STATES)
def test_what_ended_without_being_sent_is_tried_again_when_somebody_asks(state):
    now = at(hours=5)
    done = given(*STATES[state]).when(redrive(scale=0.5), now=now)
    if state in ("failed", "uncertain", "dead_lettered"):
        done.then(REDRIVEN, dispatched(now=now, scale=0.5))
        assert (of(done).state, of(done).counted, of(done).waits) == ("queued", 0, 0)
        again = done.when(redrive(), now=now, key=USER)
        again.then(SendCommandRefused("RedriveSend", SEND, USER, "not_ended"))
    else:
        reason = "sent" if state == "sent" else "not_ended"
        done.then(SendCommandRefused("RedriveSend", SEND, USER, reason))


def test_one_wish_that_is_heard_twice_has_it_tried_again_once():
    """Its answer was lost, or two people saw the same: the second finds it uncertain again, by an attempt it never saw."""
    wish = redrive(SMTP, attempt=1)
    events = [*BY_SMTP, TRANSMITTED, in_doubt(by=SMTP, draft=None), uncertain()]
    done = given(*events).when(wish).then(REDRIVEN, dispatched(SMTP))
    done = done.when(claim(), now=START, key=USER).when(NoteTransmission(SEND, USER, 2), now=START, key=USER)
    done = done.when(report("in_doubt", "timed_out", 2), now=START, key=USER)
    assert of(done).state == "uncertain"
    done.when(wish, now=START, key=USER).then(SendCommandRefused("RedriveSend", SEND, USER, "not_ended"))
    done.when(replace(wish, attempt=2), now=START, key=USER).then(REDRIVEN, dispatched(SMTP))


def test_one_that_was_never_tried_is_tried_again_by_who_has_seen_no_attempt():
    events = [*STATES["scheduled"], SendFailed(*ABOUT, "no_active_connection")]
    given(*events).when(redrive(SMTP, attempt=0)).then(REDRIVEN, dispatched(SMTP))


def test_it_has_all_its_attempts_again_and_their_numbers_go_on():
    now = at(hours=5)
    done = given(*STATES["dead_lettered"]).when(redrive(), now=now)
    for attempt in range(6, 11):
        granted = started(attempt, now=now, last=attempt == 10)
        done = done.when(claim(), now=now, key=USER).then(granted)
        done = done.when(report("deferred", "unreachable", attempt), now=now, key=USER)
        if attempt < 10:
            now = done.events[0].next_at
    done.then(*dead_lettered(attempt=10))


def test_an_uncertain_one_is_tried_again_with_the_same_draft_at_the_same_mailbox():
    events = STATES["uncertain"]
    done = given(*events).when(redrive(OUTLOOK, GMAIL)).then(REDRIVEN, dispatched())
    done.when(claim(), now=START, key=USER).then(started(2, draft="d_1"))
    given(*events).when(redrive(OUTLOOK, waits(GMAIL))).then(REDRIVEN, dispatched())
    for left in ([OUTLOOK], [OUTLOOK, revoked(GMAIL)]):
        # That it did not go out is not said of one that may have.
        done = given(*events).when(redrive(*left)).then(REDRIVEN, uncertain())
        assert of(done).state == "uncertain"


def test_so_is_one_that_may_have_gone_out_without_a_draft():
    events = [*BY_SMTP, TRANSMITTED, in_doubt(by=SMTP, draft=None), uncertain()]
    done = given(*events).when(redrive(GMAIL, SMTP)).then(REDRIVEN, dispatched(SMTP))
    done = done.when(claim(), now=START, key=USER).then(started(2, SMTP, transmitted=True))
    given(*events).when(redrive(GMAIL)).then(REDRIVEN, uncertain())
    # Nor is it known after an attempt that came to nothing: the first one may still have been it.
    done = done.when(report("deferred", "unreachable", 2), now=START, key=USER)
    assert of(done).transmitted


def test_one_that_may_have_gone_out_never_ends_as_one_that_did_not_unless_that_is_proven():
    redriven = [*STATES["uncertain"], REDRIVEN, dispatched()]
    given(*redriven).when(CANCEL).then(uncertain())
    running = [*redriven, started(2, draft="d_1")]
    refused = given(*running).when(report("refused", "message_refused", 2))
    assert [type(event).__name__ for event in refused.events] == ["AttemptFailed", "SendUncertain"]
    doubted = given(*running, in_doubt(attempt=2)).when(reconciled("proven_absent", 2)).events
    again = given(*running, in_doubt(attempt=2), *doubted, started(3, draft="d_1")).when(
        report("refused", "message_refused", 3)
    )
    assert [type(event).__name__ for event in again.events] == ["AttemptFailed", "SendFailed"]


def test_what_was_transmitted_and_refused_for_sure_is_bound_to_no_mailbox():
    four = [event for attempt in range(1, 5) for event in (started(attempt, SMTP), TRANSMITTED, deferred(by=SMTP))]
    events = [requested(request(SMTP)), dispatched(SMTP), *four, started(5, SMTP), TRANSMITTED]
    for end in (dead_lettered("temporarily_refused", by=SMTP), failed("recipients_refused", 5)):
        given(*events, *end).when(redrive(GMAIL)).then(REDRIVEN, dispatched(GMAIL))


def test_one_that_left_nothing_anywhere_goes_out_by_whatever_there_is():
    events = [*SENDING, *failed("scope_missing")]
    given(*events).when(redrive(OUTLOOK)).then(REDRIVEN, dispatched(OUTLOOK))
    given(*events).when(redrive(waits(OUTLOOK))).then(REDRIVEN, dispatched(OUTLOOK))
    given(*events).when(redrive(revoked(GMAIL))).then(REDRIVEN, SendFailed(*ABOUT, "no_active_connection"))


def test_one_that_was_to_go_out_by_a_named_connection_goes_out_by_no_other():
    command = request(connection="con_1")
    events = [requested(command), *SENDING[1:], *failed("connection_revoked")]
    given(*events).when(redrive(OUTLOOK)).then(REDRIVEN, SendFailed(*ABOUT, "connection_revoked"))
    given(*events).when(redrive(OUTLOOK, GMAIL)).then(REDRIVEN, dispatched())


def test_a_scheduled_one_that_found_no_connection_can_be_tried_again():
    events = [*STATES["scheduled"], SendFailed(*ABOUT, "no_active_connection")]
    given(*events).when(redrive(SMTP)).then(REDRIVEN, dispatched(SMTP))


def test_a_draft_that_was_left_by_one_that_failed_is_used_again():
    events = [*SENDING, DRAFTED, *failed("not_allowed")]
    done = given(*events).when(redrive(OUTLOOK, GMAIL)).then(REDRIVEN, dispatched())
    done.when(claim(), now=START, key=USER).then(started(2, draft="d_1"))
