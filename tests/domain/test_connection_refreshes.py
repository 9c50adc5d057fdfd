"""What comes of refreshing: new tokens, tries that failed, and connections that need their user."""

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from domain import connection, refresh
from domain.connection_events import (
    ReauthCode,
    ReauthorisationRequired,
    RefreshCode,
    TokenRefreshed,
    TokenRefreshFailed,
)
from schemas.vocabulary import InvalidBody
from tests.support import spec
from tests.support.connection_words import HOUR, USER, authorise, authorised, failed, refreshed
from tests.support.spec import CONNECTION, START, at

CONNECTED = authorised()


def given(*events):
    return spec.given(*events, rules=CONNECTION, key=USER)


def new_token(version, *, now=START, rotated=False, asked_by="timer", name="con_1"):
    due = refresh.refresh_at(name, version, now, now + HOUR)
    return TokenRefreshed(name, USER, f"#token {version}", version, now + HOUR, rotated, due, asked_by)


def try_again(failures, failure, code, *, now=START, asked_by="timer", retry_after=None, scale=1.0):
    broken = failure == "client_broken"
    next_at = refresh.next_try("con_1", failures, now, client_broken=broken, retry_after=retry_after, scale=scale)
    return TokenRefreshFailed("con_1", USER, failure, code, next_at, asked_by)


def required(code="invalid_grant", version=1):
    return ReauthorisationRequired("con_1", USER, code, connection.CAUSES[code], version)


def of(when):
    return when.known["user", USER].connections["con_1"]


# ── refreshed ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked_by", ["timer", "call"])
@pytest.mark.parametrize("rotated", [True, False])
def test_a_new_token_is_said_with_when_it_is_due(rotated, asked_by):
    now = at(minutes=55)
    command = refreshed(2, now=now, rotated=rotated, asked_by=asked_by)
    done = given(CONNECTED).when(command, now=now).then(new_token(2, now=now, rotated=rotated, asked_by=asked_by))
    assert of(done).version == 2
    assert now + HOUR - timedelta(minutes=6) <= done.events[0].refresh_at <= now + HOUR - timedelta(minutes=5)


@pytest.mark.parametrize(("version", "news"), [(1, False), (2, False), (3, True), (7, True)])
def test_only_a_version_above_the_known_one_is_news(version, news):
    known = [CONNECTED, new_token(2)]
    given(*known).when(refreshed(version)).then(*[new_token(version)] if news else [])


def test_a_report_that_comes_twice_is_said_once():
    given(CONNECTED).when(refreshed(2)).then(new_token(2)).when(refreshed(2), now=at(), key=USER).then_nothing()


def test_a_refresh_without_its_token_says_nothing():
    given(CONNECTED).when(replace(refreshed(2), token=None)).then_nothing()


def test_a_token_that_does_not_say_when_it_ends_is_not_due():
    command = refreshed(2)
    endless = replace(command, token=replace(command.token, expires_at=None))
    given(CONNECTED).when(endless).then(replace(new_token(2), expires_at=None, refresh_at=None))


def test_a_new_token_ends_a_row_of_failures():
    failures = [try_again(number, "transient", "timed_out") for number in (1, 2, 3)]
    done = given(CONNECTED, *failures).when(refreshed(2)).then(new_token(2))
    assert of(done).failures == 0
    done.when(failed(2, "transient", "timed_out"), now=START, key=USER).then(try_again(1, "transient", "timed_out"))


def test_a_refresh_of_the_token_before_connecting_anew_is_no_news():
    """The user was at the provider while it was on its way: the vault has the newer tokens."""
    again = authorised(authorise(version=3), replaces=1)
    given(CONNECTED, again).when(refreshed(2)).then_nothing()
    given(CONNECTED, again).when(refreshed(4)).then(new_token(4))


# ── not refreshed ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", get_args(RefreshCode))
@pytest.mark.parametrize("failure", ["transient", "client_broken"])
def test_a_failure_leaves_the_connection_as_it_is_and_says_when_it_is_tried_again(failure, code):
    done = given(CONNECTED).when(failed(1, failure, code)).then(try_again(1, failure, code))
    assert (of(done).state, of(done).version, of(done).failures) == ("active", 1, 1)


@pytest.mark.parametrize("failures", [1, 2, 6, 7, 30])
def test_each_failure_in_a_row_is_waited_for_longer(failures):
    before = [try_again(number, "transient", "unreachable") for number in range(1, failures)]
    now = at(hours=1)
    given(CONNECTED, *before).when(failed(1, "transient", "unreachable"), now=now).then(
        try_again(failures, "transient", "unreachable", now=now)
    )


@pytest.mark.parametrize(("retry_after", "scale"), [(90.0, 1.0), (90.0, 0.01), (None, 0.01), (10.0**300, 1.0)])
def test_the_providers_wish_and_the_installations_scale_are_heeded(retry_after, scale):
    command = failed(1, "transient", "rate_limited", retry_after=retry_after, scale=scale, asked_by="call")
    given(CONNECTED).when(command).then(
        try_again(1, "transient", "rate_limited", retry_after=retry_after, scale=scale, asked_by="call")
    )


def test_a_broken_client_gives_no_connection_up_however_long_it_lasts():
    events = [try_again(number, "client_broken", "client_secret_expired") for number in range(1, 1000)]
    done = given(CONNECTED, *events).when(failed(1, "client_broken", "client_secret_expired"))
    assert of(done).state == "active"
    assert done.events[0].next_at <= START + timedelta(seconds=145)


@pytest.mark.parametrize("outcome", ["transient", "client_broken", "reauth_required"])
@pytest.mark.parametrize(("version", "news"), [(1, False), (2, True), (3, True)])
def test_a_failure_of_an_older_token_is_no_news(version, news, outcome):
    code = "invalid_grant" if outcome == "reauth_required" else "timed_out"
    done = given(CONNECTED, new_token(2)).when(failed(version, outcome, code))
    assert len(done.events) == news


@pytest.mark.parametrize("outcome", ["transient", "client_broken", "reauth_required"])
def test_a_failure_without_a_code_says_nothing(outcome):
    given(CONNECTED).when(failed(1, outcome, None)).then_nothing()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("transient", code) for code in get_args(ReauthCode)]
    + [("client_broken", code) for code in get_args(ReauthCode)]
    + [("reauth_required", code) for code in get_args(RefreshCode)],
)
def test_a_report_that_contradicts_itself_fails_and_never_becomes_an_event(outcome, code):
    """The event could be read by nobody: it would stop every projection for ever."""
    with pytest.raises((ValueError, KeyError)) as raised:
        given(CONNECTED).when(failed(1, outcome, code))
    assert not isinstance(raised.value, InvalidBody), "the rule itself has to fail"


# ── the user is needed ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", get_args(ReauthCode))
def test_what_only_the_user_can_mend_is_said_in_plain_words(code):
    done = given(CONNECTED).when(failed(1, "reauth_required", code)).then(required(code))
    assert of(done).state == "reauth_required"
    assert done.events[0].cause.endswith(".")
    assert connection.CAUSES.keys() == set(get_args(ReauthCode))


@pytest.mark.parametrize(("outcome", "code"), [("reauth_required", "invalid_grant"), ("transient", "timed_out")])
def test_a_connection_that_needs_its_user_is_not_said_to_need_them_again(outcome, code):
    given(CONNECTED, required()).when(failed(1, outcome, code)).then_nothing()


def test_a_newer_token_that_somebody_else_had_got_already_takes_it_back():
    """Two asked at once: one was refused with the old refresh token, the other holds the new."""
    done = given(CONNECTED, required()).when(refreshed(2)).then(new_token(2))
    assert of(done).state == "active"


def test_a_newer_token_mends_nothing_where_the_provider_refuses_those_it_gives():
    done = (
        given(CONNECTED, required("token_refused"))
        .when(refreshed(2))
        .then(replace(new_token(2), refused_at_calls=True))
    )
    assert (of(done).state, of(done).version) == ("reauth_required", 2)


def test_a_token_whose_refusal_is_known_is_not_taken_for_a_new_one():
    """Version 2 was refused before anybody had reported that there is a version 2."""
    done = given(CONNECTED).when(failed(2, "reauth_required", "invalid_grant")).then(required(version=2))
    assert of(done).version == 2
    late = done.when(refreshed(2), now=at(), key=USER).then_nothing()
    assert of(late).state == "reauth_required"
    late.when(refreshed(3), now=at(), key=USER).then(new_token(3, now=at()))


def test_connecting_anew_ends_it_and_what_is_said_of_the_token_before_comes_too_late():
    again = authorise(version=2, reconnects=True)
    done = given(CONNECTED, required()).when(again).then(authorised(again, replaces=1))
    done.when(failed(1, "reauth_required", "invalid_grant"), now=at(), key=USER).then_nothing()
    assert of(done).state == "active"
