"""What time and connections bring to sends: those that are due start, those that nobody tries are dispatched anew."""

import pytest

from domain.send_commands import DoubtAttempt, RedriveSend, StopSend, WakeSend
from domain.send_events import AttemptRefused, SendCancelled, SendFailed
from domain.spread import MILLISECOND
from tests.support import spec
from tests.support.send_words import (
    ABOUT,
    GMAIL,
    OUTLOOK,
    OWNER,
    QUEUED,
    SEND,
    SENDING,
    SMTP,
    STATES,
    USER,
    claim,
    deferred,
    dispatched,
    reconciled,
    report,
    request,
    requested,
    revoked,
    start,
    started,
    waiting,
    waits,
)
from tests.support.spec import START, at

MINUTE, HOUR = at(minutes=1), at(hours=1)
REAUTH = [*SENDING, waiting("reauth_required", seconds=3600)]
REVOKED = SendFailed(*ABOUT, "connection_revoked")


def given(*events):
    return spec.given(*events, rules=spec.SEND, key=USER)


def stop(*left, by="connection_revoked", connection="con_1"):
    return StopSend(SEND, USER, connection, by, list(left))


# ── what is due ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_scheduled_send_starts_to_the_millisecond():
    given(*STATES["scheduled"]).when(start(due=HOUR), now=at(minutes=59, seconds=59.999)).then_nothing()
    given(*STATES["scheduled"]).when(start(OUTLOOK, GMAIL), now=HOUR).then(dispatched(OUTLOOK, now=HOUR))
    given(*STATES["scheduled"]).when(start(), now=at(days=40)).then(dispatched(now=at(days=40)))


def test_its_connection_is_chosen_when_it_starts():
    def scheduled(**more):
        return given(requested(request(GMAIL, OUTLOOK, scheduled_at=HOUR, **more)))

    scheduled(preference="outlook").when(start(GMAIL, OUTLOOK), now=HOUR).then(dispatched(OUTLOOK, now=HOUR))
    scheduled(preference="outlook").when(start(GMAIL), now=HOUR).then(dispatched(GMAIL, now=HOUR))
    scheduled(connection="con_2").when(start(GMAIL, waits(OUTLOOK)), now=HOUR).then(dispatched(OUTLOOK, now=HOUR))
    scheduled(connection="con_2").when(start(GMAIL), now=HOUR).then(REVOKED)
    scheduled().when(start(waits(SMTP)), now=HOUR).then(dispatched(SMTP, now=HOUR))
    scheduled().when(start(revoked(SMTP)), now=HOUR).then(SendFailed(*ABOUT, "no_active_connection"))


@pytest.mark.parametrize("state", ["queued", "deferred"])
def test_one_that_waits_is_dispatched_anew_when_its_time_is_over(state):
    before = given(*STATES[state])
    due = before.when(stop(GMAIL, connection="con_9")).known["send", SEND].due
    before.when(start(), now=due - MILLISECOND).then_nothing()
    in_vain = 1 if state == "queued" else 0
    again = before.when(start(OUTLOOK, GMAIL, scale=0.5), now=due).then(dispatched(now=due, scale=0.5, in_vain=in_vain))
    again.when(start(), now=due, key=USER).then_nothing()


def test_it_is_dispatched_anew_later_and_later_up_to_once_an_hour_until_somebody_tries_it():
    done, waited = given(*QUEUED).when(stop(GMAIL, connection="con_9")), []
    for _ in range(12):
        due = done.known["send", SEND].due
        done = done.when(start(), now=due, key=USER)
        waited.append((done.known["send", SEND].due - due).total_seconds() / 60)
    assert waited == [4, 8, 16, 32, *[60] * 8]
    now = done.known["send", SEND].due
    done = done.when(claim(), now=now, key=USER).when(report("deferred", "unreachable"), now=now, key=USER)
    lost = done.events[0].overdue_at
    done.when(start(), now=lost, key=USER).then(dispatched(now=lost))


@pytest.mark.parametrize("state", ["queued", "deferred"])
def test_one_that_was_dispatched_stays_with_its_connection_whatever_a_table_says_of_that(state):
    """Tables may be behind. Whoever tries it finds out, from the vault."""
    for left in ([waits(GMAIL)], [OUTLOOK], [OUTLOOK, revoked(GMAIL)], []):
        done = given(*STATES[state]).when(start(*left), now=HOUR)
        assert [event.connection for event in done.events] == ["con_1"]


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("scheduled", "queued", "deferred")])
def test_a_timer_that_comes_for_something_that_has_gone_on_changes_nothing(state):
    for now in (START, HOUR, at(days=400)):
        given(*STATES[state]).when(start(), now=now).then_nothing()
        given(*STATES[state]).when(start(revoked(GMAIL)), now=now).then_nothing()


@pytest.mark.parametrize("state", [state for state in STATES if state not in ("sending", "in_doubt")])
def test_nothing_is_doubted_that_does_not_run(state):
    for attempt in (0, 1, 2, 5):
        given(*STATES[state]).when(DoubtAttempt(SEND, USER, attempt), now=at(days=400)).then_nothing()


@pytest.mark.parametrize(
    "command",
    [
        start(),
        WakeSend(SEND, USER, "con_1"),
        stop(),
        DoubtAttempt(SEND, USER, 1),
        report("accepted"),
        report("deferred", "unreachable"),
        reconciled("proven_sent"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_of_a_send_that_nobody_knows_timers_and_reports_say_nothing(command):
    given().when(command, now=HOUR).then_nothing()


# ── a connection that is back ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", ["reauth_required", "token_refused"])
def test_sends_that_wait_for_their_user_go_on_when_the_mailbox_is_connected_again(code):
    waits = [*SENDING, waiting(code, seconds=3600)]
    done = given(*waits).when(WakeSend(SEND, USER, "con_1", 0.5), now=MINUTE).then(dispatched(now=MINUTE, scale=0.5))
    done = done.when(claim(), now=MINUTE, key=USER).then(started(2, now=MINUTE))
    # Should it be of no use, the day that it may wait has begun with the first of its waits.
    done = done.when(report("deferred", "reauth_required", 2, counted=False), now=HOUR, key=USER)
    assert done.events[0].since == START


def test_nothing_else_is_woken():
    given(*REAUTH).when(WakeSend(SEND, USER, "con_2"), now=MINUTE).then_nothing()
    given(*SENDING, waiting("rate_limited")).when(WakeSend(SEND, USER, "con_1"), now=MINUTE).then_nothing()
    later = [*REAUTH, dispatched(now=HOUR), started(2, now=HOUR), deferred(attempt=2, now=HOUR)]
    given(*later).when(WakeSend(SEND, USER, "con_1"), now=MINUTE).then_nothing()
    given(*REAUTH, dispatched()).when(WakeSend(SEND, USER, "con_1"), now=MINUTE).then_nothing()
    for events in STATES.values():
        given(*events).when(WakeSend(SEND, USER, "con_1"), now=MINUTE).then_nothing()


# ── a connection that is no more ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["connection_revoked", "user_deleted"])
def test_what_waits_for_it_ends_and_what_runs_goes_on(by):
    for state, events in STATES.items():
        done = given(*events).when(stop(by=by), now=MINUTE)
        expected = {"scheduled": SendCancelled(*ABOUT, by), "queued": REVOKED, "deferred": REVOKED}.get(state)
        done.then(*([expected] if expected else []))
        done.when(stop(by=by), now=MINUTE, key=USER).then_nothing()


def test_what_waits_for_another_goes_on():
    for state in ("queued", "deferred"):
        given(*STATES[state]).when(stop(GMAIL, connection="con_2")).then_nothing()


def test_a_scheduled_send_goes_on_as_long_as_it_may_find_a_connection():
    by_name = requested(request(GMAIL, OUTLOOK, scheduled_at=HOUR, connection="con_2"))
    given(by_name).when(stop(OUTLOOK)).then_nothing()
    given(by_name).when(stop(waits(OUTLOOK))).then_nothing()
    given(by_name).when(stop(GMAIL, connection="con_2")).then(SendCancelled(*ABOUT, "connection_revoked"))
    given(*STATES["scheduled"]).when(stop(SMTP)).then_nothing()
    given(*STATES["scheduled"]).when(stop(waits(SMTP))).then_nothing()
    given(*STATES["scheduled"]).when(stop(revoked(SMTP))).then(SendCancelled(*ABOUT, "connection_revoked"))


def test_one_that_runs_while_its_connection_goes_finds_it_gone_when_its_time_comes():
    done = given(*SENDING).when(stop(OUTLOOK)).then_nothing()
    done = done.when(report("deferred", "unreachable"), now=MINUTE, key=USER).then(deferred(now=MINUTE))
    done = done.when(start(OUTLOOK), now=HOUR, key=USER).then(dispatched(now=HOUR))
    done = done.when(claim(), now=HOUR, key=USER).when(report("refused", "connection_revoked", 2), now=HOUR, key=USER)
    assert done.events[-1] == REVOKED
    given(*QUEUED).when(stop(OUTLOOK)).then(REVOKED).when(claim(), now=MINUTE, key=USER).then(
        AttemptRefused(*ABOUT, "ended")
    )


def test_work_that_is_left_of_a_connection_that_is_gone_is_granted_nothing():
    """Its worker has made ready that one's sender, scopes and limits; what was dispatched to another has work of its own."""
    gone = given(*SENDING, deferred()).when(stop(OUTLOOK)).then(REVOKED)
    again = gone.when(RedriveSend(SEND, USER, OWNER, "caller", [OUTLOOK]), now=MINUTE, key=USER)
    assert again.events[-1] == dispatched(OUTLOOK, now=MINUTE)
    other = AttemptRefused(*ABOUT, "other_connection")
    refused = again.when(claim(connection="con_1"), now=HOUR, key=USER).then(other)
    granted = refused.when(claim(connection="con_2"), now=HOUR, key=USER).then(started(2, OUTLOOK, HOUR))
    waits_for_it = granted.when(report("deferred", "unreachable", 2), now=HOUR, key=USER)
    # Told that it is too early, it would come back for ever.
    waits_for_it.when(claim(connection="con_1"), now=HOUR, key=USER).then(other)
    # Without its work it stands as before: a timer dispatches it anew, to where it belongs.
    due = waits_for_it.events[0].overdue_at
    waits_for_it.when(start(OUTLOOK), now=due, key=USER).then(dispatched(OUTLOOK, now=due))


def test_a_worker_that_names_no_connection_is_granted_whatever_it_goes_out_by():
    given(*QUEUED).when(claim()).then(started())
    given(*QUEUED).when(claim(connection="con_1")).then(started())
