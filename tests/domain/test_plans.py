"""What a plan gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.plans import ANONYMOUS_PLAN, BUILT_IN, LONGEST_LIFETIME_MINUTES, Limits, granted_minutes

PLANS = st.builds(
    Limits,
    default_ttl_minutes=st.integers(1, LONGEST_LIFETIME_MINUTES),
    longest_ttl_minutes=st.integers(1, LONGEST_LIFETIME_MINUTES),
    live_mailboxes=st.integers(1, 100),
    live_messages=st.integers(1, 1000),
)


def test_the_built_in_plans_are_the_agreed_ones():
    """Free: an hour, one mailbox, ten messages. Pro: a day, twenty mailboxes, five hundred messages."""
    assert {name: plan.limits for name, plan in BUILT_IN.items()} == {
        "free": Limits(60, 60, 1, 10),
        "pro": Limits(1440, 1440, 20, 500),
    }
    assert all(plan.name == name and plan.position is None for name, plan in BUILT_IN.items())
    assert ANONYMOUS_PLAN in BUILT_IN


@pytest.mark.parametrize(("asked", "minutes"), [(None, 30), (1, 1), (89, 89), (90, 90), (91, 90), (10**12, 90)])
def test_what_is_asked_for_is_given_up_to_the_longest(asked, minutes):
    assert granted_minutes(asked, Limits(30, 90, 1, 1)) == minutes


@given(PLANS, st.none() | st.integers(1, 10**9))
def test_no_lifetime_is_longer_than_its_plan_or_than_the_longest_of_all(limits, asked):
    minutes = granted_minutes(asked, limits)
    assert 1 <= minutes <= min(limits.longest_ttl_minutes, LONGEST_LIFETIME_MINUTES)
    assert asked is None or minutes <= asked


@given(PLANS.map(lambda limits: Limits(limits.default_ttl_minutes, 10**6, 1, 1)), st.integers(1, 10**9))
def test_a_plan_from_elsewhere_that_promises_more_is_still_bounded(limits, asked):
    assert granted_minutes(asked, limits) <= LONGEST_LIFETIME_MINUTES
