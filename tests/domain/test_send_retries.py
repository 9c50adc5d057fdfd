"""How long sends wait: the arithmetic of attempts, of what providers ask for, and of looks at an attempt in doubt."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import retry
from domain.spread import MILLISECOND
from tests.support.spec import START

HOUR, DAY = timedelta(hours=1), timedelta(hours=24)
names = st.integers(0, 10**6).map("snd_{}".format)
scales = st.sampled_from([0.001, 0.01, 0.5, 1.0, 2.0])
counts = st.integers(1, 40)
moments = st.integers(0, 10**9).map(lambda ms: START + timedelta(milliseconds=ms))


def waited(name, failures, now=START, *, counted=True, retry_after=None, scale=1.0):
    return retry.next_try(name, failures, now, counted=counted, retry_after=retry_after, scale=scale) - now


def is_whole(moment):
    return moment.microsecond % 1000 == 0


@given(names, st.integers(1, 4), moments, scales)
def test_a_counted_wait_doubles_and_is_up_to_a_fifth_longer(name, failures, now, scale):
    base = timedelta(minutes=1) * 2 ** (failures - 1) * scale
    wait = waited(name, failures, now, scale=scale)
    assert base <= wait <= base * 1.2 + MILLISECOND
    assert wait == waited(name, failures, now, scale=scale), "asked twice, it is the same"
    assert is_whole(now + wait)


@given(names, counts, moments, scales)
def test_a_wait_that_does_not_count_grows_to_an_hour_at_most(name, failures, now, scale):
    base = min(timedelta(minutes=1) * 2 ** (failures - 1), HOUR) * scale
    assert base <= waited(name, failures, now, counted=False, scale=scale) <= base * 1.2 + MILLISECOND


@given(st.tuples(names, counts, moments), st.booleans(), st.floats(0, 86_400), scales)
def test_what_a_provider_asks_for_is_obeyed_and_never_scaled(of, counted, asked, scale):
    wait, now = waited(*of, counted=counted, retry_after=asked, scale=scale), of[-1]
    assert is_whole(now + wait)
    assert wait >= timedelta(seconds=asked)
    # One that is asked in vain again and again is asked less and less often, whatever it says: up to once a minute.
    shortest = min(timedelta(seconds=2 ** max(0, of[1] - 10)), timedelta(minutes=1)) * scale
    assert shortest <= wait <= max(timedelta(seconds=asked), shortest) * 1.1 + MILLISECOND


@pytest.mark.parametrize("asked", [-1, -(10**18), 0, 10**6, 10**18, float("inf")])
def test_absurd_wishes_are_brought_within_bounds(asked):
    wait = waited("snd_1", 1, retry_after=asked)
    assert timedelta(seconds=1) <= wait <= DAY * 1.05 + MILLISECOND
    assert wait < timedelta(seconds=2) or asked > DAY.total_seconds()


def test_sends_that_failed_together_do_not_come_back_together():
    """A thousand of them are spread evenly over the fifth: each tenth of it has its share, give or take."""
    over = [(waited(f"snd_{number}", 1) - timedelta(minutes=1)) / timedelta(seconds=12) for number in range(1000)]
    tenths = [sum(tenth / 10 <= share < (tenth + 1) / 10 for share in over) for tenth in range(10)]
    assert sum(tenths) >= 999
    assert all(60 <= count <= 140 for count in tenths), tenths
    assert len({waited("snd_1", failures) / 2**failures for failures in range(1, 5)}) == 4, "nor in the same order"


@given(moments, st.integers(0, 100_000), scales, st.integers(0, 1000))
def test_a_timer_looks_after_what_should_have_been_tried(now, seconds, scale, dispatches):
    next_at = now + timedelta(seconds=seconds)
    overdue = retry.overdue_at(next_at, now, scale, dispatches=dispatches)
    if timedelta(seconds=seconds) > HOUR * scale:
        assert overdue == next_at, "no topic holds so long a wait: the timer alone starts it"
    else:
        after = overdue - next_at
        assert timedelta(seconds=1) <= after <= max(HOUR * scale, timedelta(seconds=1)) + MILLISECOND
        assert dispatches or after <= max(timedelta(minutes=2) * scale, timedelta(seconds=1)) + MILLISECOND


@given(moments, scales)
def test_looks_grow_apart_and_the_last_is_within_an_hour_and_not_below_45_seconds(first, scale):
    looks = []
    while (look := retry.look_at(len(looks), first, scale)) is not None:
        looks.append(look - first)
    assert looks[0] == timedelta()
    assert len(looks) == len(retry.LOOKS) == 10
    steps = [later - earlier for earlier, later in pairwise(looks)]
    assert all(step > timedelta() for step in steps)
    assert all(later >= earlier for earlier, later in pairwise(steps[:-1])), "each longer than the one before"
    assert timedelta(seconds=45) <= looks[-1]
    assert looks[-1] <= max(HOUR * scale, timedelta(seconds=45) + MILLISECOND)
    until = retry.doubt_until(first, scale) - first
    # The timer leaves the last look its time, and the whole stays within the hour, or the minute where waits are short.
    assert looks[-1] + timedelta(seconds=10) <= until <= max(HOUR * scale, timedelta(seconds=60))


@given(moments, st.integers(0, 999))
def test_what_the_log_can_not_hold_is_rounded_up(now, microseconds):
    found = retry.next_try(
        "snd_1",
        1,
        now,
        counted=False,
        retry_after=1 + microseconds / 10**6,
        scale=1.0,
    )
    assert is_whole(found)
    assert found >= now + timedelta(seconds=1, microseconds=microseconds)
