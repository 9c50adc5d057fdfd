"""Deliveries of webhooks: the schedule of attempts, when one is given up, and what it takes to send it once more."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given as all_of
from hypothesis import settings
from hypothesis import strategies as st

from domain import callbacks
from domain.callbacks import (
    ATTEMPTS,
    LONGEST_TRIED,
    WAITS,
    Callback,
    CallbackAbandoned,
    CallbackDeferred,
    CallbackDelivered,
    CallbackRefused,
    CallbackRequested,
    CallbackResent,
    Delivery,
    ReportCallback,
    RequestCallback,
    ResendCallback,
    is_over,
    next_try,
)
from schemas import events
from tests.support import spec
from tests.support.spec import START, Rules, at

RULES = Rules(callbacks.needs, callbacks.decide, callbacks.touches, callbacks.evolve, events.WEBHOOK)
CALLBACK = Callback("whd_1", "acc_1", "whk_1", "send.sent", '{"type":"send.sent"}', "snd_1")
REQUESTED = CallbackRequested(CALLBACK, START)
PLACE = ("delivery", "whd_1")


def given(*happened):
    return spec.given(*happened, rules=RULES, key="whk_1")


def report(attempt=1, status=500, **more):
    return ReportCallback("whd_1", attempt, more.pop("at", START), 120, more.pop("scale", 1.0), status, **more)


def deferred(attempt, next_at, **more):
    return CallbackDeferred(CALLBACK, attempt, START, 120, next_at, **({"status": 500} | more))


def failed(attempt):
    return CallbackDeferred(CALLBACK, attempt, START, 120, START, 500, since=START)


def expired(attempt, at):
    return report(attempt, None, error="expired", at=at)


def abandoned(attempt, cause, **more):
    return CallbackAbandoned(CALLBACK, attempt, START, 120, cause, **({"status": 500} | more))


def delivered(attempt=1):
    return CallbackDelivered("whd_1", "acc_1", "whk_1", attempt, START, 120, 204)


def test_what_is_requested_twice_is_told_once_also_when_it_has_ended():
    given().when(RequestCallback(CALLBACK)).then(REQUESTED)
    for happened in ((), (failed(1),), (delivered(),), (abandoned(1, "gone"),)):
        given(REQUESTED, *happened).when(RequestCallback(CALLBACK)).then_nothing()


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_is_success(status):
    given(REQUESTED).when(report(status=status)).then(replace(delivered(), status=status)).and_then_known(
        PLACE, Delivery(None, 1)
    )


@pytest.mark.parametrize("status", [199, 300, 301, 308, 400, 404, 429, 500, 503])
def test_nothing_else_is(status):
    (event,) = given(REQUESTED).when(report(status=status)).events
    assert (type(event), event.status) == (CallbackDeferred, status)


def test_the_schedule_is_that_of_standard_webhooks_within_ten_percent():
    happened, found = [REQUESTED], []
    for attempt in range(1, ATTEMPTS):
        (event,) = given(*happened).when(report(attempt)).events
        found.append(event.next_at - START)
        happened.append(event)
    assert [wait.total_seconds() for wait in WAITS] == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    for wait, ours in zip(WAITS, found, strict=True):
        assert wait <= ours <= 1.1 * wait
    given(*happened).when(report(ATTEMPTS)).then(abandoned(ATTEMPTS, "attempts_exhausted"))


def test_a_gone_receiver_is_not_asked_again():
    given(REQUESTED).when(report(status=410)).then(abandoned(1, "gone", status=410))


@pytest.mark.parametrize("error", ["endpoint_removed", "endpoint_disabled"])
def test_what_nobody_wants_any_more_ends(error):
    given(REQUESTED, failed(1)).when(report(2, None, error=error)).then(abandoned(2, error, status=None, error=error))


def test_a_repeated_or_late_report_changes_nothing():
    given().when(report()).then_nothing()
    given(REQUESTED, failed(1)).when(report(1)).then_nothing()
    given(REQUESTED).when(report(2)).then_nothing()
    for end in (delivered(), abandoned(1, "gone")):
        for attempt in (1, 2):
            given(REQUESTED, end).when(report(attempt, 200)).then_nothing()


def test_a_receiver_is_left_alone_for_as_long_as_it_asks_and_a_day_at_most():
    for asked, seconds in ((3600, 3600), (10**9, 86400)):
        (event,) = given(REQUESTED).when(report(status=429, retry_after=asked, scale=0.01)).events
        assert event.next_at == at(seconds=seconds), "what is asked for is not scaled"
    for asked in (0, 1, -5):
        (event,) = given(REQUESTED).when(report(status=429, retry_after=asked)).events
        assert at(seconds=5) <= event.next_at <= at(seconds=5.5), "it does not come sooner for that"


def test_sent_once_more_it_has_all_its_attempts_again():
    resend = ResendCallback(CALLBACK, "key_1")
    lost = [failed(number) for number in range(1, ATTEMPTS)] + [abandoned(ATTEMPTS, "attempts_exhausted")]
    when = given(REQUESTED, *lost).when(resend).then(CallbackResent(CALLBACK, ATTEMPTS + 1, "key_1", START))
    (event,) = when.when(report(ATTEMPTS + 1), now=at(hours=1), key="whk_1").events
    assert at(hours=1, seconds=5) <= event.next_at <= at(hours=1, seconds=5.5)
    given(REQUESTED, delivered()).when(resend).then(CallbackResent(CALLBACK, 2, "key_1", START))
    given(REQUESTED, failed(1)).when(resend).then(CallbackResent(CALLBACK, 2, "key_1", START))
    given().when(resend).then(CallbackRefused("whd_1", "acc_1", "unknown"))


def test_what_is_on_its_way_already_is_not_sent_twice_for_being_asked_for_twice():
    resend, refused = ResendCallback(CALLBACK, "key_1"), CallbackRefused("whd_1", "acc_1", "on_its_way")
    given(REQUESTED).when(resend).then(refused)
    resent = CallbackResent(CALLBACK, 2, "key_1", START)
    given(REQUESTED, delivered(), resent).when(resend).then(refused)
    given(REQUESTED, delivered(), resent, failed(2)).when(resend).then(CallbackResent(CALLBACK, 3, "key_1", START))


def test_sent_once_more_while_it_waits_the_attempt_of_both_counts_once():
    when = given(REQUESTED, failed(1)).when(ResendCallback(CALLBACK, "key_1"))
    when = when.when(report(2, 204), now=at(seconds=1), key="whk_1").then(replace(delivered(2), status=204))
    when.when(report(2), now=at(seconds=2), key="whk_1").then_nothing()


# ── when its time is over ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_time_for_all_attempts_is_what_the_schedule_takes_at_the_most():
    assert sum(1.1 * wait.total_seconds() for wait in WAITS) == pytest.approx(LONGEST_TRIED.total_seconds())
    end = START + LONGEST_TRIED
    assert is_over(START, end, 1.0)
    assert not is_over(START, end - timedelta(milliseconds=1), 1.0)
    assert is_over(START, START + LONGEST_TRIED / 2, 0.5)


@pytest.mark.parametrize("attempts", [0, 1, 4])
def test_what_nobody_could_be_asked_for_any_more_is_given_up_as_after_the_last_attempt(attempts):
    end, number = START + LONGEST_TRIED, attempts + 1
    happened = [REQUESTED, *(failed(one) for one in range(1, number))]
    given(*happened).when(expired(number, end)).then(
        replace(abandoned(number, "attempts_exhausted", status=None, error="expired"), at=end)
    ).and_then_known(PLACE, Delivery(None, number))


def test_an_attempt_that_fails_when_its_time_is_over_is_the_last():
    end = START + LONGEST_TRIED
    given(REQUESTED).when(report(at=end)).then(replace(abandoned(1, "attempts_exhausted"), at=end))
    (event,) = given(REQUESTED).when(report(at=end - timedelta(seconds=1))).events
    assert isinstance(event, CallbackDeferred)
    given(REQUESTED).when(report(status=204, at=end)).then(replace(delivered(), at=end))


def test_sent_once_more_its_time_begins_anew_for_what_was_put_off_before_as_well():
    """Work from before bears the old time, and stands beside that of the new one."""
    again, late = at(hours=80), START + LONGEST_TRIED
    when = given(REQUESTED, failed(1)).when(ResendCallback(CALLBACK, "key_1"), now=again)
    when.then(CallbackResent(CALLBACK, 2, "key_1", again))
    when.when(expired(2, late), now=late, key="whk_1").then_nothing()
    end = again + LONGEST_TRIED
    when.when(expired(2, end), now=end, key="whk_1").then(
        replace(abandoned(2, "attempts_exhausted", status=None, error="expired"), at=end)
    )


def test_what_its_receiver_asked_for_comes_on_top_of_its_time():
    when = given(REQUESTED).when(report(status=429, retry_after=3600))
    (event,) = when.events
    ours = next_try("whd_1/1", 1, START, retry_after=None, scale=1.0)
    assert event.since - START == event.next_at - ours
    assert given(REQUESTED).when(report()).events[0].since == START
    end = START + LONGEST_TRIED
    when.when(expired(2, end), now=end, key="whk_1").then_nothing()
    later = event.since + LONGEST_TRIED
    (last,) = when.when(expired(2, later), now=later, key="whk_1").events
    assert last.cause == "attempts_exhausted"


def test_of_what_an_earlier_version_wrote_the_time_is_what_its_worker_says_or_begins_with_the_next_attempt():
    old = [CallbackRequested(CALLBACK), CallbackDeferred(CALLBACK, 1, START, 120, START, 500)]
    end = at(days=30)
    given(*old).when(expired(2, end)).then(
        replace(abandoned(2, "attempts_exhausted", status=None, error="expired"), at=end)
    )
    (event,) = given(*old).when(report(2, at=end), now=end).events
    assert (type(event), event.since) == (CallbackDeferred, end)
    given(REQUESTED, replace(failed(1), since=None)).when(expired(2, START)).then_nothing()


@settings(max_examples=300)
@all_of(st.integers(1, 30), st.floats(-1e12, 1e12) | st.none(), st.floats(0.001, 1))
def test_a_wait_is_whole_milliseconds_and_never_longer_than_a_day_and_a_tenth(number, retry_after, scale):
    wait = next_try("whd_1/1", number, START, retry_after=retry_after, scale=scale) - START
    assert wait % timedelta(milliseconds=1) == timedelta(0)
    assert timedelta(0) < wait <= timedelta(hours=24 * 1.1)
    assert wait == next_try("whd_1/1", number, START, retry_after=retry_after, scale=scale) - START
