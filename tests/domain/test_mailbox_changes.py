"""Reading, deleting, extending, expiring and purging, and every order they can come in."""

import pytest

from domain.fields import Digest, Sealed
from domain.mailbox_commands import (
    DeleteMailbox,
    DeleteMessage,
    ExpireMailbox,
    ExtendMailbox,
    PurgeMailbox,
    ReadMessage,
    ReportParsed,
)
from domain.mailbox_events import (
    CommandRefused,
    MailboxDeleted,
    MailboxExpired,
    MailboxExtended,
    MailboxPurged,
    MessageDeleted,
    MessageParsed,
    MessageRead,
)
from domain.mailbox_state import Mailbox, Message, Owner
from domain.plans import LONGEST_LIFETIME_MINUTES
from tests.support.mailbox_words import create, created, mail, received, roomy
from tests.support.spec import START, at, given

RECEIVED = [created(), received(mail())]
EXPIRED = MailboxExpired("mbx_1", "acc_1", at(minutes=60))
DELETED = MailboxDeleted("mbx_1", "acc_1", "acc_1", START)
PURGED = MailboxPurged("mbx_1", "acc_1")
READ = ReadMessage("mbx_1", "msg_1")
DELETE = DeleteMessage("mbx_1", "msg_1", "acc_1")

# ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_is_read_once():
    given(*RECEIVED).when(READ).then(MessageRead("msg_1", "mbx_1", "acc_1")).and_then_known(
        ("message", "mbx_1/msg_1"), Message("whole", read=True)
    ).when(READ, now=START, key="acc_1").then(CommandRefused("ReadMessage", "already", "mbx_1", "msg_1"))


def test_a_message_is_deleted_once():
    given(*RECEIVED).when(DELETE).then(MessageDeleted("msg_1", "mbx_1", "acc_1", "acc_1")).and_then_known(
        ("message", "mbx_1/msg_1"), None
    ).and_then_known(
        ("mailbox", "mbx_1"), Mailbox("acc_1", START, at(minutes=60), 10, 60, live_messages=0, received=1)
    ).when(DELETE, now=START, key="acc_1").then(CommandRefused("DeleteMessage", "unknown", "mbx_1", "msg_1"))


@pytest.mark.parametrize(("command", "name"), [(READ, "ReadMessage"), (DELETE, "DeleteMessage")])
def test_a_message_that_is_not_there_is_refused(command, name):
    given(created()).when(command).then(CommandRefused(name, "unknown", "mbx_1", "msg_1"))
    given().when(command).then(CommandRefused(name, "unknown", "mbx_1", "msg_1"))


def test_a_message_is_found_in_its_own_mailbox_only():
    other = created(create("mbx_2", plan=roomy()))
    given(*RECEIVED, other).when(ReadMessage("mbx_2", "msg_1")).then(
        CommandRefused("ReadMessage", "unknown", "mbx_2", "msg_1")
    )


@pytest.mark.parametrize(("command", "name"), [(READ, "ReadMessage"), (DELETE, "DeleteMessage")])
def test_nothing_changes_in_a_mailbox_that_has_ended(command, name):
    refused = CommandRefused(name, "ended", "mbx_1", "msg_1")
    given(*RECEIVED).when(command, now=at(minutes=60)).then(refused)
    given(*RECEIVED, EXPIRED).when(command, now=at(minutes=61)).then(refused)
    given(*RECEIVED, DELETED).when(command).then(refused)


def test_a_message_can_be_changed_until_the_moment_its_mailbox_expires():
    last = at(minutes=60, milliseconds=-1)
    given(*RECEIVED).when(READ, now=last).then(MessageRead("msg_1", "mbx_1", "acc_1"))
    given(*RECEIVED).when(DELETE, now=last).then(MessageDeleted("msg_1", "mbx_1", "acc_1", "acc_1"))


# ── reports of the parser ─────────────────────────────────────────────────────────────────────────────────────────────

PARSING = [created(), received(mail(state="parsing", summary=None, content=None))]
REPORT = ReportParsed("mbx_1", "msg_1", "whole", Sealed("⟨s⟩"), Sealed("⟨c⟩"), None, has_attachments=True)
PARSED = MessageParsed("msg_1", "mbx_1", "acc_1", "whole", Sealed("⟨s⟩"), Sealed("⟨c⟩"), None, has_attachments=True)


def test_a_parsed_message_becomes_whole():
    given(*PARSING).when(REPORT).then(PARSED).and_then_known(("message", "mbx_1/msg_1"), Message("whole"))


def test_a_message_that_cannot_be_parsed_is_said_to_be():
    report = ReportParsed("mbx_1", "msg_1", "unparsed", cause="memory")
    given(*PARSING).when(report).then(
        MessageParsed("msg_1", "mbx_1", "acc_1", "unparsed", cause="memory")
    ).and_then_known(("message", "mbx_1/msg_1"), Message("unparsed"))


def test_a_second_report_changes_nothing():
    given(*PARSING, PARSED).when(ReportParsed("mbx_1", "msg_1", "unparsed", cause="time")).then_nothing()


def test_a_report_on_a_message_that_never_waited_for_one_changes_nothing():
    given(*RECEIVED).when(REPORT).then_nothing()


def test_a_report_that_comes_after_the_deletion_brings_nothing_back():
    given(*PARSING, MessageDeleted("msg_1", "mbx_1", "acc_1", "acc_1")).when(REPORT).then_nothing()
    given(*PARSING, DELETED, PURGED).when(REPORT).then_nothing()


def test_a_report_on_a_mailbox_that_ended_meanwhile_is_still_kept():
    """It was received in time; how it reads belongs to its history."""
    given(*PARSING).when(REPORT, now=at(hours=2)).then(PARSED)


def test_a_report_keeps_that_a_message_was_read():
    read = MessageRead("msg_1", "mbx_1", "acc_1")
    given(*PARSING, read).when(REPORT).and_then_known(("message", "mbx_1/msg_1"), Message("whole", read=True))


# ── extending ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ROOMY = created(create(plan=roomy(longest_ttl_minutes=180), ttl_minutes=60))


@pytest.mark.parametrize(
    ("minutes_later", "asked", "then_minutes"),
    [(30, 60, 90), (30, 150, 180), (30, 151, 180), (59, 10**12, 180), (30, 30, 60), (30, 1, 60)],
    ids=["from now", "to the longest", "beyond the longest", "far beyond it", "to the same end", "never shorter"],
)
def test_an_extension_counts_from_now_and_is_capped_at_the_longest_lifetime(minutes_later, asked, then_minutes):
    extended = MailboxExtended("mbx_1", "acc_1", at(minutes=then_minutes))
    given(ROOMY).when(ExtendMailbox("mbx_1", asked), now=at(minutes=minutes_later)).then(extended).and_then_known(
        ("owner", "acc_1"), Owner({"mbx_1": at(minutes=then_minutes)})
    ).and_then_known(("mailbox", "mbx_1"), Mailbox("acc_1", START, at(minutes=then_minutes), 500, 180))


def test_no_number_of_extensions_goes_beyond_the_longest_lifetime():
    story = given(ROOMY).when(ExtendMailbox("mbx_1", 120), now=at(minutes=50))
    for minute in (100, 150, 179):
        story = story.when(ExtendMailbox("mbx_1", 120), now=at(minutes=minute), key="acc_1")
        story.then(MailboxExtended("mbx_1", "acc_1", at(minutes=min(minute + 120, 180))))
    story.when(ExtendMailbox("mbx_1", 120), now=at(minutes=180), key="acc_1").then(
        CommandRefused("ExtendMailbox", "ended", "mbx_1")
    )


def test_the_longest_lifetime_of_all_bounds_extensions_of_any_plan():
    box = created(create(plan=roomy(longest_ttl_minutes=10**6), ttl_minutes=60))
    given(box).when(ExtendMailbox("mbx_1", 10**6), now=at(minutes=30)).then(
        MailboxExtended("mbx_1", "acc_1", at(minutes=LONGEST_LIFETIME_MINUTES))
    )


def test_an_extended_mailbox_takes_mail_beyond_its_first_end():
    later = at(minutes=80)
    given(ROOMY, MailboxExtended("mbx_1", "acc_1", at(minutes=90))).when(mail(), now=later).then(
        received(mail(), 1, later)
    )


def test_an_extension_keeps_the_other_mailboxes_of_the_owner():
    second = created(create("mbx_2", plan=roomy(), ttl_minutes=30))
    given(ROOMY, second).when(ExtendMailbox("mbx_1", 60), now=at(minutes=10)).and_then_known(
        ("owner", "acc_1"), Owner({"mbx_1": at(minutes=70), "mbx_2": at(minutes=30)})
    )


# ── ending ────────────────────────────────────────────────────────────────────────────────────────────────────────────

CHANGES = [(ExtendMailbox("mbx_1", 60), "ExtendMailbox"), (DeleteMailbox("mbx_1", "acc_1"), "DeleteMailbox")]


@pytest.mark.parametrize(("command", "name"), CHANGES)
def test_what_has_ended_or_never_was_is_neither_extended_nor_deleted(command, name):
    ended = CommandRefused(name, "ended", "mbx_1")
    given().when(command).then(CommandRefused(name, "unknown", "mbx_1"))
    given(created()).when(command, now=at(minutes=60)).then(ended)
    given(created(), EXPIRED).when(command, now=at(minutes=61)).then(ended)
    given(created(), DELETED).when(command).then(ended)
    given(created(), DELETED, PURGED).when(command).then(CommandRefused(name, "unknown", "mbx_1"))


def test_a_mailbox_is_deleted_by_somebody_at_a_moment():
    given(created()).when(DeleteMailbox("mbx_1", "key_7"), now=at(minutes=5)).then(
        MailboxDeleted("mbx_1", "acc_1", "key_7", at(minutes=5))
    )


def test_the_timer_makes_an_expiry_public_when_it_is_due_and_once():
    expire = ExpireMailbox("mbx_1", at(minutes=60))
    given(created()).when(expire, now=at(minutes=60, milliseconds=-1)).then_nothing().when(
        expire, now=at(minutes=60), key="acc_1"
    ).then(EXPIRED).when(expire, now=at(minutes=61), key="acc_1").then_nothing()


def test_a_late_timer_says_when_the_mailbox_really_ended():
    given(created()).when(ExpireMailbox("mbx_1", at(minutes=60)), now=at(days=3)).then(EXPIRED)


def test_a_timer_set_before_an_extension_does_nothing():
    extended = MailboxExtended("mbx_1", "acc_1", at(minutes=90))
    given(ROOMY, extended).when(ExpireMailbox("mbx_1", at(minutes=60)), now=at(minutes=60)).then_nothing()


def test_a_timer_does_nothing_to_a_deleted_or_unknown_mailbox():
    expire = ExpireMailbox("mbx_1", at(minutes=60))
    given(created(), DELETED).when(expire, now=at(minutes=60)).then_nothing()
    given().when(expire, now=at(minutes=60)).then_nothing()


@pytest.mark.parametrize("end", [EXPIRED, DELETED])
def test_purging_forgets_everything_about_an_ended_mailbox(end):
    keyed = mail("msg_2", message_id_digest=Digest("#message-id"))
    story = given(*RECEIVED, received(keyed, 2), end).when(PurgeMailbox("mbx_1"), now=at(days=7)).then(PURGED)
    assert story.known == {}


def test_purging_one_mailbox_leaves_others_alone_even_of_a_similar_name():
    other = created(create("mbx_10", plan=roomy()))
    message = received(mail("msg_9", "mbx_10"))
    story = given(*RECEIVED, other, message, DELETED).when(PurgeMailbox("mbx_1")).then(PURGED)
    assert set(story.known) == {("owner", "acc_1"), ("mailbox", "mbx_10"), ("message", "mbx_10/msg_9")}


def test_a_mailbox_that_has_not_ended_is_not_purged():
    """Not even one whose time is over: that it expired is said first."""
    given(*RECEIVED).when(PurgeMailbox("mbx_1")).then_nothing()
    given(*RECEIVED).when(PurgeMailbox("mbx_1"), now=at(days=8)).then_nothing()
    given().when(PurgeMailbox("mbx_1")).then_nothing()


def test_a_second_purge_does_nothing():
    given(created(), DELETED, PURGED).when(PurgeMailbox("mbx_1")).then_nothing()


def test_an_idempotency_key_outlives_the_mailbox_it_made():
    """A client that repeats its request a week later hears of the mailbox it had, and gets no second one."""
    keyed = create(plan=roomy(), idempotency_key=Digest("#key"), request=Digest("#body"))
    story = given(created(keyed), DELETED, PURGED).when(
        create("mbx_2", plan=roomy(), idempotency_key=Digest("#key"), request=Digest("#body"))
    )
    assert [event.reason for event in story.events] == ["repeated"]
