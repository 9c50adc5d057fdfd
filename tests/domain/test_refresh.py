"""When a token is refreshed, and when it is tried again."""

from datetime import UTC, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.refresh import (
    AHEAD,
    CLIENT_WAIT,
    FIRST_WAIT,
    LEFT_ALONE,
    LONGEST_ASKED,
    LONGEST_WAIT,
    SHARE,
    SPREAD,
    next_try,
    refresh_at,
)
from domain.spread import MILLISECOND
from tests.support.spec import START

NAMES = [f"con_{number}" for number in range(200)]
HOUR = timedelta(hours=1)
seconds = st.floats(0, 90 * 24 * 3600, allow_nan=False)


def ahead(life, name="con_1", version=1):
    """How long before its end a token of this life is due."""
    return START + life - refresh_at(name, version, START, START + life)


def waits(failures=1, *, name="con_1", client_broken=False, retry_after=None, scale=1.0):
    return (
        next_try(name, failures, START, client_broken=client_broken, retry_after=retry_after, scale=scale) - START
    ).total_seconds()


# ── due ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("life", "share"),
    [
        (timedelta(days=60), AHEAD),
        (HOUR, AHEAD),
        (SHARE * AHEAD, AHEAD),
        (timedelta(minutes=6), timedelta(minutes=2)),
        (timedelta(minutes=1), timedelta(seconds=20)),
    ],
)
def test_a_token_is_due_five_minutes_or_a_third_of_its_life_before_its_end(life, share):
    found = [ahead(life, name) for name in NAMES]
    assert share <= min(found)
    assert max(found) <= share * (1 + SPREAD) + MILLISECOND
    assert max(found) - min(found) > share * SPREAD * 0.9, "what is due in one minute is spread over the jitter"


def test_a_token_of_two_seconds_is_due_while_it_lives():
    found = [refresh_at(name, 1, START, START + timedelta(seconds=2)) - START for name in NAMES]
    assert timedelta(seconds=1.2) - MILLISECOND <= min(found)
    assert max(found) <= timedelta(seconds=4 / 3)


@pytest.mark.parametrize(
    "life", [timedelta(0), timedelta(seconds=-1), timedelta(days=-30), timedelta(milliseconds=900)]
)
def test_a_token_that_has_expired_on_arrival_is_due_in_a_second_and_not_in_a_loop(life):
    assert refresh_at("con_1", 1, START, START + life) == START + LEFT_ALONE


def test_what_does_not_expire_is_never_due():
    assert refresh_at("con_1", 1, START, None) is None


def test_the_same_token_is_always_due_at_the_same_time_and_another_at_another():
    """A rebuild finds it again; the next token of a connection has a jitter of its own."""
    assert ahead(HOUR) == ahead(HOUR)
    assert ahead(HOUR, version=1) != ahead(HOUR, version=2)
    assert ahead(HOUR, "con_1") != ahead(HOUR, "con_2")


@settings(max_examples=300, deadline=None)
@given(life=st.floats(-100, 90 * 24 * 3600), version=st.integers(1, 10**9), name=st.text(max_size=8))
def test_a_token_is_due_before_its_end_and_never_before_it_was_given(life, version, name):
    end = START + timedelta(seconds=life)
    due = refresh_at(name, version, START, end)
    assert due >= START + LEFT_ALONE
    assert due < end or due == START + LEFT_ALONE
    assert due.microsecond % 1000 == 0, "times in the log have milliseconds"
    assert due.tzinfo is UTC


# ── again ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def bounds(base):
    return base.total_seconds(), base.total_seconds() * (1 + SPREAD) + 0.001


@pytest.mark.parametrize("failures", range(1, 7))
def test_each_wait_is_twice_the_one_before(failures):
    least, most = bounds(FIRST_WAIT * 2 ** (failures - 1))
    found = [waits(failures, name=name) for name in NAMES]
    assert least <= min(found)
    assert max(found) <= most
    assert max(found) - min(found) > (most - least) * 0.9


@pytest.mark.parametrize("failures", [7, 8, 17, 18, 1000, 10**12])
def test_no_wait_of_our_own_is_longer_than_the_longest(failures):
    least, most = bounds(LONGEST_WAIT)
    assert all(least <= waits(failures, name=name) <= most for name in NAMES)


def test_waits_grow_until_the_longest():
    assert FIRST_WAIT * 2**5 < LONGEST_WAIT < FIRST_WAIT * 2**6
    found = [waits(failures) for failures in range(1, 8)]
    assert all(before < after for before, after in pairwise(found))


@pytest.mark.parametrize("failures", [1, 2, 50])
def test_a_client_that_is_refused_is_tried_at_an_even_pace(failures):
    least, most = bounds(CLIENT_WAIT)
    assert all(least <= waits(failures, name=name, client_broken=True) <= most for name in NAMES)


def test_what_the_provider_asks_for_wins_where_it_is_longer():
    assert waits(retry_after=90) == 90
    assert waits(retry_after=1.5) == waits() > FIRST_WAIT.total_seconds()
    assert waits(client_broken=True, retry_after=500) == 500


@pytest.mark.parametrize("nothing", [None, 0, 0.0, -5, -1e300])
def test_a_provider_that_asks_for_nothing_gets_our_own_wait(nothing):
    assert waits(retry_after=nothing) == waits()


@pytest.mark.parametrize("scale", [1.0, 0.01, 0.0, 10.0])
def test_what_the_provider_asks_for_is_not_scaled(scale):
    assert waits(retry_after=300, scale=scale) == 300


def test_our_own_waits_are_scaled():
    assert waits(3, scale=0.01) == pytest.approx(waits(3) / 100, abs=0.001)
    assert waits(3, client_broken=True, scale=0.01) == pytest.approx(waits(3, client_broken=True) / 100, abs=0.001)
    assert waits(3, scale=0) == 0


@pytest.mark.parametrize("asked", [3601, 86_400, 1e12, 1e300, float("inf")])
def test_no_providers_word_makes_us_wait_for_longer_than_an_hour(asked):
    """Nor does one that no calendar can hold make the rule fail."""
    assert waits(retry_after=asked) == LONGEST_ASKED.total_seconds()


def test_a_providers_word_of_less_than_an_hour_is_taken():
    assert waits(retry_after=3599.5) == 3599.5


@settings(max_examples=300, deadline=None)
@given(
    failures=st.integers(1, 10**6),
    client_broken=st.booleans(),
    retry_after=st.none() | st.floats(allow_nan=False),
    scale=st.floats(0, 100),
)
def test_it_is_never_tried_before_the_provider_allows_it_nor_put_off_for_ever(
    failures, client_broken, retry_after, scale
):
    found = next_try("con_1", failures, START, client_broken=client_broken, retry_after=retry_after, scale=scale)
    assert found >= START + timedelta(seconds=min(max(retry_after or 0, 0), 3600))
    assert found <= START + max(LONGEST_ASKED, LONGEST_WAIT * (1 + SPREAD) * scale) + MILLISECOND
    assert found.microsecond % 1000 == 0, "times in the log have milliseconds"
