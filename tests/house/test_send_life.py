"""What becomes of sends when providers, connections and callers do as they please: one house, a mailbox for each test."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from domain.send_commands import CancelSend, KnownConnection, MoveSend, RedriveSend
from domain.send_events import (
    AttemptDeferred,
    AttemptInDoubt,
    AttemptRefused,
    AttemptStarted,
    DraftRecorded,
    SendCommandRefused,
    SendDeadLettered,
    SendFailed,
    SendRedriven,
    SendSent,
)
from gateways.log.work_queue import WorkQueue
from gateways.stores.sealing import place, seal
from handlers import deliver, tiers
from schemas.ids import new_id
from schemas.work import DeliverSend
from tests.support.mail_servers.double import SmtpServer
from tests.support.send_house import OWNER, SCALE, own_server, send_house
from tests.support.servers import create_database, drop_database

SEND_ONLY = ["https://www.googleapis.com/auth/gmail.send"]


@pytest.fixture(scope="module")
async def house(servers, tmp_path_factory):
    name = f"test_{uuid.uuid4().hex}"
    async with send_house(
        servers, create_database(servers, name), f"{name}.", tmp_path_factory.mktemp("sends"), rates="off"
    ) as found:
        yield found
    drop_database(servers, name)


def of(history, kind):
    return [event for event in history if isinstance(event, kind)]


def sent(house, mailbox):
    return [one for one in house.gmail.receipts() if one.user == mailbox.address]


async def test_an_attempt_that_may_have_sent_the_mail_is_proven_before_anything_else_happens(house):
    """Each way in which an answer gets lost, before and after the mail went out, at both providers that can be asked."""
    cases = []
    for when in ("before", "after"):
        for failure in ({"status": 504}, {"status": 500}, {"drop": when}):
            mailbox = await house.connect()
            said = failure if "drop" in failure else failure | {"when": when}
            await house.gmail.fail("drafts.send", user=mailbox.address, **said)
            cases.append((mailbox, await house.send(mailbox), when))
    for mailbox, send, when in cases:
        row = await house.becomes(send, "sent", seconds=60)
        history = await house.history(send)
        assert len(of(history, AttemptInDoubt)) == 1, history
        assert len(of(history, DraftRecorded)) == 1, "what is sent again is the same draft"
        assert row["attempt"] == (1 if when == "after" else 2)
        assert len(sent(house, mailbox)) == 1


async def test_a_limit_of_the_provider_is_waited_for_and_is_no_attempt(house):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.create", user=mailbox.address, status=429, retryAfter="1", times=7)
    send = await house.send(mailbox)
    other = await house.connect()
    quick = await house.send(other)
    await house.becomes(quick, "sent")
    row = await house.becomes(send, "sent", seconds=60)
    waits = of(await house.history(send), AttemptDeferred)
    assert row["attempt"] == 8
    assert {(wait.code, wait.counted) for wait in waits} == {("rate_limited", False)}
    assert len(sent(house, mailbox)) == 1


async def test_while_a_mailbox_wants_to_be_left_alone_nothing_is_asked_of_it(house):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.create", user=mailbox.address, status=429, retryAfter="3")
    first = await house.send(mailbox)
    await house.becomes(first, "deferred")
    before = calls(await house.gmail.told(), mailbox)
    others = [await house.send(mailbox) for _ in range(3)]
    for send in others:
        await house.becomes(send, "deferred")
    assert calls(await house.gmail.told(), mailbox) == before
    for send in (first, *others):
        await house.becomes(send, "sent", seconds=30)
    assert len(sent(house, mailbox)) == 4


def calls(told, mailbox):
    return sum(call["user"] == mailbox.address for call in told["calls"])


async def test_after_five_attempts_it_is_a_dead_letter_until_somebody_has_it_tried_again(house):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.create", user=mailbox.address, status=500, times=5)
    send = await house.send(mailbox)
    row = await house.becomes(send, "dead_lettered", seconds=60)
    assert (row["attempt"], row["code"]) == (5, "server_error")
    (dead,) = of(await house.history(send), SendDeadLettered)
    assert dead.attempts == 5
    known = KnownConnection(mailbox.connection, mailbox.provider, mailbox.digest, "active")
    again = RedriveSend(send, mailbox.user, OWNER, "caller", [known], SCALE)
    await house.tell(again)
    await house.tell(again)
    await house.becomes(send, "sent", seconds=30)
    history = await house.history(send)
    assert len(of(history, SendRedriven)) == 1
    assert [one.reason for one in of(history, SendCommandRefused)] in (["not_ended"], ["sent"])
    assert len(sent(house, mailbox)) == 1


async def test_what_the_provider_refuses_for_good_fails_at_once(house):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.create", user=mailbox.address, status=400)
    send = await house.send(mailbox)
    row = await house.becomes(send, "failed")
    assert row["attempt"] == 1
    assert of(await house.history(send), SendFailed)
    assert not sent(house, mailbox)


async def test_without_drafts_a_lost_answer_ends_uncertain_or_with_proof_and_never_with_a_second_mail(house):
    mailbox = await house.connect(scopes=SEND_ONLY)
    await house.gmail.fail("messages.send", user=mailbox.address, status=504, when="after")
    send = await house.send(mailbox)
    outlook = await house.connect("outlook", scopes=["Mail.Send"])
    sound = await house.send(outlook)
    await house.becomes(sound, "sent")
    await house.graph.fail("sendMail", user=outlook.address, status=504, when="after")
    lost = await house.send(outlook)
    await house.becomes(lost, "uncertain")
    await house.becomes(send, "uncertain", "sent", seconds=90)
    assert len(sent(house, mailbox)) == 1
    assert len([one for one in house.graph.receipts() if one["login"] == outlook.address]) == 2


async def test_what_is_cancelled_before_it_starts_is_not_sent_and_afterwards_it_is_too_late(house):
    mailbox = await house.connect()
    later = datetime.now(UTC) + timedelta(hours=1)
    scheduled = await house.send(mailbox, scheduled_at=later)
    await house.becomes(scheduled, "scheduled")
    await house.tell(CancelSend(scheduled, mailbox.user, OWNER))
    await house.becomes(scheduled, "cancelled")
    done = await house.send(mailbox)
    await house.becomes(done, "sent")
    await house.tell(CancelSend(done, mailbox.user, OWNER))
    await refused(house, done, "too_late")
    assert len(sent(house, mailbox)) == 1


async def refused(house, send, reason):
    async with asyncio.timeout(20):
        while [one.reason for one in of(await house.history(send), SendCommandRefused)] != [reason]:
            await asyncio.sleep(0.05)


async def test_a_scheduled_send_goes_out_in_the_second_it_was_moved_to(house):
    mailbox = await house.connect()
    far = datetime.now(UTC) + timedelta(days=30)
    send = await house.send(mailbox, scheduled_at=far)
    await house.becomes(send, "scheduled")
    due = datetime.now(UTC) + timedelta(seconds=2)
    await house.tell(MoveSend(send, mailbox.user, OWNER, due))
    row = await house.becomes(send, "sent")
    started = await house.found("select started_at from send_attempts where send = $1", send)
    assert timedelta(0) <= started["started_at"] - due < timedelta(seconds=2), row


async def test_a_connection_that_ends_takes_with_it_what_waits_for_it(house):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.create", user=mailbox.address, status=429, retryAfter="30")
    waiting = await house.send(mailbox)
    await house.becomes(waiting, "deferred")
    scheduled = await house.send(mailbox, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
    await house.becomes(scheduled, "scheduled")
    await house.revoke(mailbox)
    row = await house.becomes(waiting, "failed")
    assert row["code"] == "connection_revoked"
    row = await house.becomes(scheduled, "cancelled")
    assert row["code"] == "connection_revoked"
    assert not sent(house, mailbox)


async def test_a_connection_revoked_between_acceptance_and_attempt_is_not_used(house):
    mailbox = await house.connect()
    await house.house.vault.destroy(mailbox.connection)
    send = await house.send(mailbox)
    row = await house.becomes(send, "failed")
    assert row["code"] == "connection_revoked"
    assert not sent(house, mailbox)


async def test_the_same_key_stands_for_the_same_send_also_when_asked_at_once(house):
    mailbox = await house.connect()
    sends = await asyncio.gather(*[house.send(mailbox, key="key-1") for _ in range(20)])
    async with asyncio.timeout(20):
        while not sent(house, mailbox):
            await asyncio.sleep(0.05)
    rows = await house.house.pool.fetch("select send from sends where user_id = $1", mailbox.user)
    assert len(rows) == 1
    assert rows[0]["send"] in sends
    await house.becomes(rows[0]["send"], "sent")
    assert len(sent(house, mailbox)) == 1


async def test_one_attempt_at_a_time_however_often_the_work_is_ordered(house):
    """Records of work are no facts: repeated, late and made up ones lead to one mail."""
    mailbox = await house.connect()
    await house.gmail.fail("drafts.send", user=mailbox.address, delay=1.0)
    send = await house.send(mailbox)
    queue = WorkQueue(house.house.command_log)
    work = DeliverSend(send, mailbox.user, mailbox.connection, "gmail", mailbox.digest)
    await asyncio.gather(*[queue.put("deliver.gmail", work, {"ce_id": new_id("evt")}) for _ in range(30)])
    await house.becomes(send, "sent")
    await queue.put("deliver.gmail", work, {"ce_id": new_id("evt")})
    history = await house.history(send)
    assert len(of(history, AttemptStarted)) == 1
    assert len(of(history, SendSent)) == 1
    assert len(sent(house, mailbox)) == 1


async def test_by_smtp_recipients_have_fates_of_their_own_and_a_lost_answer_is_shown_and_never_sent_again(house):
    async with SmtpServer({"ada": {"password": "secret"}}) as server:
        mailbox = await house.connect("smtp", servers=own_server(server.plain_port, "ada", "secret"))
        done = await house.send(mailbox)
        await house.becomes(done, "sent")
        await server.fail("END", dropAfter=True)
        lost = await house.send(mailbox)
        row = await house.becomes(lost, "uncertain")
        assert row["code"] == "connection_lost"
        again = RedriveSend(
            lost,
            mailbox.user,
            OWNER,
            "caller",
            [KnownConnection(mailbox.connection, "smtp", mailbox.digest, "active")],
            SCALE,
        )
        assert len((await server.told())["mails"]) == 2
        await house.tell(again)
        await house.becomes(lost, "sent")
        mails = (await server.told())["mails"]
    assert len(mails) == 3, "somebody asked for it to be sent again, knowing that it may have been sent"


async def test_a_provider_that_shows_for_a_while_what_it_had_before_is_not_believed_at_once(house):
    """Its draft could be sent a second time, and nothing in its answer tells that it was sent."""
    await house.graph.set(lagShows="draft", sentLag=1.0)
    mailbox = await house.connect("outlook")
    await house.graph.fail("messages.send", user=mailbox.address, status=504, when="after")
    send = await house.send(mailbox)
    row = await house.becomes(send, "sent", seconds=30)
    await house.graph.set(lagShows="outbox")
    assert row["attempt"] == 1
    assert len([one for one in house.graph.receipts() if one["login"] == mailbox.address]) == 1


async def test_what_cannot_be_opened_waits_by_itself_and_holds_up_no_other_of_its_mailbox(house):
    """As many as are under way at once: a message that nobody can read."""
    mailbox, pool = await house.connect(), house.house.pool
    data_key = (await house.house.keyring.get([mailbox.user]))[mailbox.user]
    far = datetime.now(UTC) + timedelta(days=1)
    unreadable = [await house.send(mailbox, scheduled_at=far) for _ in range(8)]
    for send in unreadable:
        await house.becomes(send, "scheduled")
        nothing = seal(data_key, b'{"subject":', place("send", send, "message"))
        await pool.execute("update sends set message = $2 where send = $1", send, nothing)
        await house.tell(MoveSend(send, mailbox.user, OWNER, datetime.now(UTC)))
    for send in unreadable:
        await house.found("select 1 from send_attempts where send = $1 and code = 'client_broken'", send)
    sound = await house.send(mailbox)
    await house.becomes(sound, "sent")
    waits = of(await house.history(unreadable[0]), AttemptDeferred)
    assert {(wait.code, wait.counted) for wait in waits} == {("client_broken", False)}
    for send in unreadable:
        await house.tell(CancelSend(send, mailbox.user, OWNER))


async def test_work_of_before_does_not_multiply_and_a_clock_that_is_ahead_does_not_ask_all_the_time(house, monkeypatch):
    mailbox = await house.connect()
    await house.gmail.fail("drafts.create", user=mailbox.address, status=429, retryAfter="3")
    send = await house.send(mailbox)
    await house.becomes(send, "deferred")
    ahead = type("Ahead", (datetime,), {"now": classmethod(lambda _, zone: datetime.now(zone) + timedelta(seconds=2))})
    for module in (tiers, deliver):
        monkeypatch.setattr(module, "datetime", ahead)
    queue = WorkQueue(house.house.command_log)
    stale = DeliverSend(send, mailbox.user, mailbox.connection, "gmail", mailbox.digest)
    for number in range(5):
        await queue.put("deliver.gmail", stale, {"ce_id": new_id("evt")})
        await times_refused(house, send, number + 1)
    await house.becomes(send, "sent", seconds=30)
    refusals = of(await house.history(send), AttemptRefused)
    assert {one.reason for one in refusals} == {"not_due"}
    assert len(refusals) <= 5 + 2 / deliver.EARLY_SECONDS + 1, "each of them stays in the log for ever"


async def times_refused(house, send, times):
    async with asyncio.timeout(20):
        while len(of(await house.history(send), AttemptRefused)) < times:
            await asyncio.sleep(0.02)
