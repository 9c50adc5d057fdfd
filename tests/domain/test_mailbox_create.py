"""Who may open a mailbox, and for how long."""

from datetime import timedelta

import pytest

from domain.fields import Digest
from domain.mailbox_commands import DeleteMailbox, ExpireMailbox
from domain.mailbox_events import MailboxDeleted, MailboxExpired, MailboxRefused
from domain.mailbox_state import Mailbox, Owner, Request
from domain.plans import LONGEST_LIFETIME_MINUTES
from tests.support.mailbox_words import FREE, PRO, create, created, roomy
from tests.support.spec import START, at, given


def test_a_mailbox_lives_as_long_as_its_plan_says():
    """A free mailbox asked for without a lifetime has one hour, and is known from then on."""
    command = create(plan=FREE)
    given().when(command).then(created(command)).and_then_known(
        ("owner", "acc_1"), Owner({"mbx_1": at(minutes=60)})
    ).and_then_known(
        ("mailbox", "mbx_1"), Mailbox("acc_1", START, at(minutes=60), live_messages_limit=10, longest_ttl_minutes=60)
    )


@pytest.mark.parametrize(
    ("asked", "given_minutes"),
    [(None, 60), (1, 1), (59, 59), (90, 90), (1439, 1439), (1440, 1440), (1441, 1440), (10**12, 1440)],
)
def test_a_longer_lifetime_than_the_plans_is_silently_capped(asked, given_minutes):
    (event,) = given().when(create(plan=roomy(), ttl_minutes=asked)).events
    assert event.expires_at - event.created_at == timedelta(minutes=given_minutes)


def test_no_plan_gives_more_than_the_longest_lifetime_there_is():
    """Raw mail is kept for no longer, whatever a plan of an older installation says."""
    command = create(plan=roomy(longest_ttl_minutes=10**6), ttl_minutes=10**6)
    (event,) = given().when(command).events
    assert event.expires_at == at(minutes=LONGEST_LIFETIME_MINUTES)


def test_a_plan_is_copied_with_its_date_into_the_event():
    (event,) = given().when(create(plan=roomy(live_messages=3))).events
    assert (event.plan, event.plan_position, event.limits.live_messages) == ("roomy", 7, 3)


def test_a_full_plan_is_refused_with_its_limit_and_use():
    second = create("mbx_2")
    given(created()).when(second).then(
        MailboxRefused("mbx_2", "acc_1", "plan_limit_mailboxes", limit=1, used=1)
    ).and_then_known(("mailbox", "mbx_2"), None)


def test_a_plan_is_full_at_its_limit_and_not_one_before():
    """The twentieth mailbox of a pro account opens, the twenty-first does not."""
    opened = [created(create(f"mbx_{number}", plan=PRO)) for number in range(19)]
    twentieth, next_one = create("mbx_20", plan=PRO), create("mbx_21", plan=PRO)
    given(*opened).when(twentieth).then(created(twentieth)).when(next_one, now=START, key="acc_1").then(
        MailboxRefused("mbx_21", "acc_1", "plan_limit_mailboxes", limit=20, used=20)
    )


def test_one_owner_does_not_use_up_another():
    other = create("mbx_2", owner="acc_2")
    given(created(), key="acc_2").when(other).then(created(other))


def test_an_expired_mailbox_does_not_count_before_the_timer_ran():
    second, later = create("mbx_2"), at(minutes=60)
    given(created()).when(second, now=later).then(created(second, later))


def test_a_mailbox_counts_until_the_very_moment_it_expires():
    last_moment = at(minutes=60, milliseconds=-1)
    given(created()).when(create("mbx_2"), now=last_moment).then(
        MailboxRefused("mbx_2", "acc_1", "plan_limit_mailboxes", limit=1, used=1)
    )


def test_an_expired_mailbox_does_not_count_after_the_timer_ran():
    second, later = create("mbx_2"), at(minutes=61)
    expired = MailboxExpired("mbx_1", "acc_1", at(minutes=60))
    given(created(), expired).when(second, now=later).then(created(second, later)).and_then_known(
        ("owner", "acc_1"), Owner({"mbx_2": at(minutes=121)})
    )


def test_a_deleted_mailbox_makes_room_at_once():
    second = create("mbx_2")
    given(created(), MailboxDeleted("mbx_1", "acc_1", "acc_1", START)).when(second).then(created(second))


def test_a_smaller_plan_holds_for_what_is_opened_from_now_on():
    """Three live mailboxes of a larger plan stay, and count against the smaller one."""
    opened = [created(create(f"mbx_{number}", plan=PRO)) for number in range(3)]
    given(*opened).when(create("mbx_9", plan=FREE)).then(
        MailboxRefused("mbx_9", "acc_1", "plan_limit_mailboxes", limit=1, used=3)
    )


def test_an_owner_without_mailboxes_is_forgotten():
    expire = ExpireMailbox("mbx_1", at(minutes=60))
    given(created()).when(expire, now=at(minutes=60)).and_then_known(("owner", "acc_1"), None)
    given(created()).when(DeleteMailbox("mbx_1", "acc_1")).and_then_known(("owner", "acc_1"), None)


def test_an_anonymous_mailbox_is_its_own_owner():
    command = create("mbx_a", owner="mbx_a")
    given(key="mbx_a").when(command).then(created(command)).and_then_known(
        ("owner", "mbx_a"), Owner({"mbx_a": at(minutes=60)})
    )


def test_the_same_creation_again_makes_no_second_mailbox():
    """A record that stands in the topic twice must not begin a mailbox anew and forget what it has received."""
    command = create(plan=PRO)
    given(created(command)).when(command, now=at(seconds=1)).then(
        MailboxRefused("mbx_1", "acc_1", "repeated", of="mbx_1")
    ).and_then_known(("mailbox", "mbx_1"), Mailbox("acc_1", START, at(days=1), 500, 1440))


# ── idempotency keys ──────────────────────────────────────────────────────────────────────────────────────────────────

KEYED = create(plan=PRO, idempotency_key=Digest("#key"), request=Digest("#body"))


def test_an_idempotency_key_is_kept_with_the_mailbox_it_made():
    given().when(KEYED).then(created(KEYED)).and_then_known(
        ("request", "acc_1/#key"), Request("mbx_1", Digest("#body"))
    )


def test_the_same_request_with_the_same_key_is_a_repeat_of_the_first():
    again = create("mbx_2", plan=PRO, idempotency_key=Digest("#key"), request=Digest("#body"))
    given(created(KEYED)).when(again).then(MailboxRefused("mbx_2", "acc_1", "repeated", of="mbx_1"))


def test_another_request_with_the_same_key_is_refused():
    other = create("mbx_2", plan=PRO, idempotency_key=Digest("#key"), request=Digest("#other body"))
    given(created(KEYED)).when(other).then(MailboxRefused("mbx_2", "acc_1", "idempotency_key_reused", of="mbx_1"))


def test_a_repeat_is_told_as_one_even_where_the_plan_is_full():
    """The client asks what became of its first try; that the plan is full since then is no answer to it."""
    first = create(plan=FREE, idempotency_key=Digest("#key"), request=Digest("#body"))
    again = create("mbx_2", plan=FREE, idempotency_key=Digest("#key"), request=Digest("#body"))
    given(created(first)).when(again).then(MailboxRefused("mbx_2", "acc_1", "repeated", of="mbx_1"))


def test_a_refused_creation_leaves_its_key_free():
    """Nothing was made that the key could stand for: the next try with it is a first one."""
    keyed = create("mbx_2", plan=FREE, idempotency_key=Digest("#key"), request=Digest("#body"))
    again, later = create("mbx_3", plan=FREE, idempotency_key=Digest("#key"), request=Digest("#body")), at(hours=2)
    given(created()).when(keyed).and_then_known(("request", "acc_1/#key"), None).when(
        again, now=later, key="acc_1"
    ).then(created(again, later))


def test_keys_of_different_owners_do_not_meet():
    other = create("mbx_2", owner="acc_2", plan=PRO, idempotency_key=Digest("#key"), request=Digest("#other"))
    given(created(KEYED), key="acc_2").when(other).then(created(other))


def test_a_request_without_a_key_keeps_no_digest_of_itself():
    (event,) = given().when(create(request=Digest("#body"))).events
    assert event.request is None
