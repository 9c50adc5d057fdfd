"""What a mailbox takes in: room, repeats, and the numbers of its mails."""

import pytest

from domain.fields import Digest
from domain.mailbox_events import (
    MailboxDeleted,
    MailboxExpired,
    MailboxPurged,
    MessageDeleted,
    MessageParsed,
)
from domain.mailbox_state import Mailbox, Message, Repeat
from tests.support.mailbox_words import FREE, PRO, create, created, mail, received, rejected, roomy
from tests.support.spec import START, at, given

DIGEST = Digest("#message-id")


def test_a_mail_to_an_open_mailbox_is_received():
    command = mail()
    given(created()).when(command, now=at(minutes=1)).then(received(command, 1, at(minutes=1))).and_then_known(
        ("mailbox", "mbx_1"), Mailbox("acc_1", START, at(minutes=60), 10, 60, live_messages=1, received=1)
    ).and_then_known(("message", "mbx_1/msg_1"), Message("whole"))


@pytest.mark.parametrize("state", ["whole", "parsing", "unparsed"])
def test_a_mail_is_received_however_far_it_was_parsed(state):
    command = mail(state=state, cause=None if state == "whole" else "time")
    given(created()).when(command).then(received(command)).and_then_known(("message", "mbx_1/msg_1"), Message(state))


def test_everything_said_of_a_mail_goes_into_its_event():
    command = mail(content=None, content_blob="blob", has_attachments=True, via="ses", message_id_digest=DIGEST)
    given(created()).when(command).then(received(command))


def test_the_eleventh_live_mail_of_a_free_mailbox_is_rejected():
    ten = [received(mail(f"msg_{number}"), number) for number in range(1, 11)]
    eleventh = mail("msg_11")
    given(created(create(plan=FREE)), *ten).when(eleventh).then(rejected(eleventh, "full"))
    given(created(create(plan=FREE)), *ten[:9]).when(mail("msg_10")).then(received(mail("msg_10"), 10))


def test_a_deleted_mail_makes_room_and_its_number_is_not_given_again():
    full = [received(mail(f"msg_{number}"), number) for number in (1, 2)]
    third = mail("msg_3")
    given(created(create(plan=roomy(live_messages=2))), *full, MessageDeleted("msg_1", "mbx_1", "acc_1", "acc_1")).when(
        third
    ).then(received(third, 3))


def test_numbers_go_on_where_the_newest_mail_was_deleted():
    second = mail("msg_2")
    given(created(), received(mail()), MessageDeleted("msg_1", "mbx_1", "acc_1", "acc_1")).when(second).then(
        received(second, 2)
    )


def test_parsing_takes_no_room_of_its_own():
    slow = received(mail(state="parsing"))
    parsed = MessageParsed("msg_1", "mbx_1", "acc_1", "whole")
    second = mail("msg_2")
    given(created(create(plan=roomy(live_messages=2))), slow, parsed).when(second).then(received(second, 2))


# ── ended mailboxes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mailbox_takes_mail_until_the_moment_it_expires_and_not_after():
    last, late = at(minutes=60, milliseconds=-1), at(minutes=60)
    given(created()).when(mail(), now=last).then(received(mail(), 1, last))
    given(created()).when(mail(), now=late).then(rejected(mail(), "expired", late))


def test_an_expired_mailbox_rejects_after_the_timer_as_before_it():
    late = at(minutes=61)
    expired = MailboxExpired("mbx_1", "acc_1", at(minutes=60))
    given(created(), expired).when(mail(), now=late).then(rejected(mail(), "expired", late))


def test_a_deleted_mailbox_rejects_and_stays_deleted_after_its_time():
    deleted = MailboxDeleted("mbx_1", "acc_1", "acc_1", START)
    given(created(), deleted).when(mail()).then(rejected(mail(), "deleted"))
    late = at(hours=2)
    given(created(), deleted).when(mail(), now=late).then(rejected(mail(), "deleted", late))


def test_an_unknown_and_a_purged_mailbox_reject_alike():
    given().when(mail()).then(rejected(mail(), "unknown"))
    purged = [MailboxDeleted("mbx_1", "acc_1", "acc_1", START), MailboxPurged("mbx_1", "acc_1")]
    given(created(), *purged).when(mail()).then(rejected(mail(), "unknown"))


def test_a_mail_whose_data_key_is_gone_is_rejected_as_erased():
    """In an open mailbox; of one that has ended, that it ended says more."""
    erased, late = mail(state="erased"), at(hours=2)
    given(created()).when(erased).then(rejected(erased, "erased"))
    given(created()).when(erased, now=late).then(rejected(erased, "expired", late))
    given().when(erased).then(rejected(erased, "unknown"))


# ── repeats ───────────────────────────────────────────────────────────────────────────────────────────────────────────

FIRST = mail(sha256="a" * 64, message_id_digest=DIGEST)
DAY = created(create(plan=roomy(longest_ttl_minutes=10_000), ttl_minutes=10_000))


def test_the_same_mail_again_is_received_once():
    again = mail("msg_2", sha256="a" * 64, message_id_digest=DIGEST)
    given(DAY, received(FIRST)).when(again, now=at(seconds=5)).then(rejected(again, "repeated", at(seconds=5)))


def test_a_repeat_is_one_until_a_day_has_passed():
    again = mail("msg_2", sha256="a" * 64, message_id_digest=DIGEST)
    last, next_day = at(hours=24, milliseconds=-1), at(hours=24)
    given(DAY, received(FIRST)).when(again, now=last).then(rejected(again, "repeated", last))
    given(DAY, received(FIRST)).when(again, now=next_day).then(received(again, 2, next_day)).and_then_known(
        ("repeat", f"mbx_1/{DIGEST}.{'a' * 32}"), Repeat(next_day)
    )


def test_the_day_counts_from_when_it_was_received_not_from_the_last_repeat():
    again, third = (mail(f"msg_{n}", sha256="a" * 64, message_id_digest=DIGEST) for n in (2, 3))
    given(DAY, received(FIRST)).when(again, now=at(hours=23)).then(rejected(again, "repeated", at(hours=23))).when(
        third, now=at(hours=24), key="acc_1"
    ).then(received(third, 2, at(hours=24)))


@pytest.mark.parametrize(
    "other",
    [
        mail("msg_2", sha256="b" * 64, message_id_digest=DIGEST),
        mail("msg_2", sha256="a" * 64, message_id_digest=Digest("#another")),
        mail("msg_2", sha256="a" * 64, message_id_digest=None),
    ],
    ids=["other bytes", "other Message-ID", "no Message-ID"],
)
def test_another_mail_is_no_repeat(other):
    given(DAY, received(FIRST)).when(other).then(received(other, 2))


def test_mails_without_a_message_id_are_never_repeats():
    one, two = (mail(f"msg_{n}", sha256="a" * 64) for n in (1, 2))
    given(DAY, received(one)).when(two).then(received(two, 2))


def test_the_same_mail_in_another_mailbox_is_no_repeat():
    second_box = created(create("mbx_2", plan=PRO))
    other = mail("msg_2", "mbx_2", sha256="a" * 64, message_id_digest=DIGEST)
    given(DAY, second_box, received(FIRST)).when(other).then(received(other))


def test_a_rejected_mail_does_not_make_the_next_try_a_repeat():
    """It did not fit then; after a deletion the sender's next try does."""
    box, filler = created(create(plan=roomy(live_messages=1))), mail("msg_0")
    given(box, received(filler), MessageDeleted("msg_0", "mbx_1", "acc_1", "acc_1")).when(FIRST).then(
        received(FIRST, 2)
    )
    given(box, received(filler)).when(FIRST).then(rejected(FIRST, "full")).and_then_known(
        ("repeat", f"mbx_1/{DIGEST}.{'a' * 32}"), None
    )


def test_a_repeat_in_a_full_mailbox_is_told_as_a_repeat():
    """It lies there already: nothing was lost for want of room."""
    box = created(create(plan=roomy(live_messages=1)))
    again = mail("msg_2", sha256="a" * 64, message_id_digest=DIGEST)
    given(box, received(FIRST)).when(again).then(rejected(again, "repeated"))


def test_a_repeat_of_a_deleted_mail_does_not_bring_it_back():
    again = mail("msg_2", sha256="a" * 64, message_id_digest=DIGEST)
    deleted = MessageDeleted("msg_1", "mbx_1", "acc_1", "acc_1")
    given(DAY, received(FIRST), deleted).when(again).then(rejected(again, "repeated"))


def test_the_same_record_twice_is_received_once_even_without_a_message_id():
    """A mail put back from the dead letters twice must not stand in the log twice under one id."""
    given(created(), received(mail())).when(mail(), now=at(minutes=1)).then(rejected(mail(), "repeated", at(minutes=1)))
