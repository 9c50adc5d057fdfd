"""`redrive` as an operator types it: in a process of its own, beside a house that sends."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from domain.send_events import SendCommandRefused, SendRedriven
from gateways.command_line.failures import Failed
from gateways.command_line.installation import Installation, log_of
from gateways.command_line.redrive import Redriving, moment_of
from gateways.send_measures import SendMeasures
from gateways.stores.ended_sends import EndedSends
from schemas.topics import SEND_EVENTS
from tests.support.known_users import created, deleted
from tests.support.main_words import Installed, Said
from tests.support.send_house import SCALE, Mailbox, SendHouse, send_house
from tests.support.servers import create_database, drop_database

SEND_ONLY = ["https://www.googleapis.com/auth/gmail.send"]


@pytest.fixture(scope="module")
async def house(servers, tmp_path_factory):
    name = f"test_{uuid.uuid4().hex}"
    async with send_house(
        servers, create_database(servers, name), f"{name}.", tmp_path_factory.mktemp("redrive"), rates="off"
    ) as found:
        yield found
    drop_database(servers, name)


async def types(house: SendHouse, *words: str) -> Said:
    settings = house.house.settings
    installed = Installed.at(
        house.folder / "operator",
        kafka=settings.kafka,
        database_url=settings.plain("database_url"),
        topic_prefix=settings.topic_prefix,
        retry_scale=str(SCALE),
    )
    return await asyncio.to_thread(installed.says, "redrive", *words)


async def connected(house: SendHouse, **more: Any) -> Mailbox:
    """A mailbox of a user who is in the tables."""
    return await house.connect(user=(await created(house.house)).user, **more)


async def failed(house: SendHouse, mailbox: Mailbox) -> str:
    """A mail that the provider refused for good."""
    await house.gmail.fail("drafts.create", user=mailbox.address, status=400)
    send = await house.send(mailbox)
    await house.becomes(send, "failed")
    return send


def arrived(house: SendHouse, mailbox: Mailbox) -> int:
    return sum(one.user == mailbox.address for one in house.gmail.receipts())


def came_of(said: Said) -> dict[str, str]:
    return {row["send"]: row.get("outcome", "") for row in said.rows}


async def test_what_failed_is_shown_asked_for_and_goes_out_once(house):
    mailbox = await connected(house)
    sends = [await failed(house, mailbox) for _ in range(3)]
    (code,) = {(await house.becomes(send, "failed"))["code"] for send in sends}
    chosen = ("--all", "--status", "failed", "--code", code)

    dry = await types(house, *chosen, "--dry-run")
    assert (dry.code, {row["send"] for row in dry.rows}) == (0, set(sends))
    assert {(row["status"], row["code"], row["provider"]) for row in dry.rows} == {("failed", code, "gmail")}
    for narrowed in (("--provider", "outlook"), ("--since", "2100-01-01T00:00:00Z")):
        assert (await types(house, *chosen, *narrowed, "--dry-run")).rows == []
    assert (await types(house, "--all", "--yes")).rows == [], "only dead letters, where no status is said"

    unsaid = await types(house, *chosen)
    assert (unsaid.code, unsaid.out) == (2, "")
    assert "--yes" in unsaid.err
    assert {(await house.becomes(send, "failed"))["status"] for send in sends} == {"failed"}

    both = await asyncio.gather(*[types(house, *chosen, "--since", "1h", "--yes") for _ in range(2)])
    for send in sends:
        await house.becomes(send, "sent", seconds=30)
        history = await house.history(send)
        (redriven,) = [one for one in history if isinstance(one, SendRedriven)]
        assert redriven.by == "operator"
    outcomes = [outcome for said in both for outcome in came_of(said).values()]
    assert outcomes.count("redriven") == 3
    assert arrived(house, mailbox) == 3


async def test_one_that_is_refused_says_why_and_keeps_no_other_from_going_out(house):
    mailbox, gone = await connected(house), await connected(house)
    sent = await house.send(mailbox)
    await house.becomes(sent, "sent")
    mended, orphan = await failed(house, mailbox), await failed(house, gone)
    await house.revoke(gone)
    await house.found("select 1 from connections where connection = $1 and state = 'revoked'", gone.connection)
    said = await types(house, sent, mended, orphan, mended, "--yes")
    assert said.code == 1
    assert came_of(said) == {sent: "refused", mended: "redriven", orphan: "refused"}
    why = {row["send"]: row["why"] for row in said.rows}
    assert why[sent] == "It went out."
    assert "no connection" in why[orphan]
    await house.becomes(mended, "sent")
    assert arrived(house, mailbox) == 2
    assert [one.reason for one in await house.history(sent) if isinstance(one, SendCommandRefused)] == ["sent"]


async def test_one_that_is_not_there_keeps_all_as_they_were(house):
    mailbox = await connected(house)
    send = await failed(house, mailbox)
    said = await types(house, send, "snd_nobody", "--yes")
    assert (said.code, said.out) == (3, "")
    assert "snd_nobody" in said.err
    assert not [one for one in await house.history(send) if isinstance(one, SendRedriven)]


async def test_what_may_have_gone_out_is_taken_only_by_its_own_name_or_status(house):
    """With leave to send only, nobody can be asked: an answer that is lost stays a doubt."""
    mailbox = await connected(house, scopes=SEND_ONLY)
    await house.gmail.fail("messages.send", user=mailbox.address, drop="after")
    send = await house.send(mailbox)
    await house.becomes(send, "uncertain", seconds=90)
    for status in ("dead_lettered", "failed"):
        assert send not in came_of(await types(house, "--all", "--status", status, "--yes"))
    dry = await types(house, "--all", "--status", "uncertain", "--dry-run")
    assert send in {row["send"] for row in dry.rows}
    said = await types(house, send, "--yes")
    assert (said.code, came_of(said)) == (0, {send: "redriven"})
    assert "may have gone out" in dry.err
    assert "may have gone out" in said.err
    await house.becomes(send, "sent", seconds=30)


async def test_one_that_was_tried_again_since_it_was_looked_at_is_left_alone(house):
    """It was found, its operator thought about it, and it has come to the same end once more."""
    mailbox, settings, pool = await connected(house), house.house.settings, house.house.pool
    await house.gmail.fail("drafts.create", user=mailbox.address, status=400, times=2)
    send = await house.send(mailbox)
    await house.becomes(send, "failed")
    seen = (await EndedSends(pool).named([send]))[send]
    assert came_of(await types(house, send, "--yes")) == {send: "redriven"}
    await house.found("select 1 from sends where send = $1 and status = 'failed' and attempt = 2", send)
    installation = Installation(settings.kafka, settings.plain("database_url"), settings.topic_prefix)
    async with log_of(installation, pool, SEND_EVENTS.name) as (log, tail, folded):
        (one,) = await Redriving(pool, log, tail, folded, scale=SCALE).all_of([seen])
    assert (one.outcome, one.why) == ("refused", "It is on its way, was cancelled, or was tried again in the meantime.")
    assert len([event for event in await house.history(send) if isinstance(event, SendRedriven)]) == 1


async def test_what_a_deleted_user_sent_is_no_longer_there(house):
    """As for the API, whose webhooks would tell of a mail that nobody can look at; and it waits for nobody's attention."""
    deletion, settings, pool = await created(house.house), house.house.settings, house.house.pool
    mailbox, other = await house.connect(user=deletion.user), await connected(house)
    sends = {}
    for each in (mailbox, other):
        await house.gmail.fail("drafts.create", user=each.address, status=500, times=5)
        sends[each.user] = await house.send(each)
        await house.becomes(sends[each.user], "dead_lettered", seconds=60)
    gone, there = sends.values()
    assert {gone, there} <= came_of(await types(house, "--all", "--dry-run")).keys()
    seen = (await EndedSends(pool).named([gone]))[gone]
    waiting = await dead_lettered(house)

    await deleted(house.house, deletion)
    listed = came_of(await types(house, "--all", "--dry-run")).keys()
    assert (gone in listed, there in listed) == (False, True)
    assert await dead_lettered(house) == waiting - 1
    named = await types(house, gone, "--yes")
    assert (named.code, named.out) == (3, "")
    installation = Installation(settings.kafka, settings.plain("database_url"), settings.topic_prefix)
    async with log_of(installation, pool, SEND_EVENTS.name) as (log, tail, folded):
        (one,) = await Redriving(pool, log, tail, folded, scale=SCALE).all_of([seen])
    assert (one.outcome, one.why) == ("refused", "There is no such send.")
    assert not [event for event in await house.history(gone) if isinstance(event, SendRedriven)]


async def dead_lettered(house: SendHouse) -> float:
    """How many Prometheus is told of."""
    registry = CollectorRegistry()
    await SendMeasures(house.house.pool, registry).look()
    found = registry.get_sample_value("postledger_sends_open", {"status": "dead_lettered"})
    assert found is not None
    return found


NOON = datetime(2026, 3, 13, 12, tzinfo=UTC)


def test_since_when_is_a_span_or_a_time_with_an_offset():
    assert moment_of("90m", NOON) == NOON - timedelta(minutes=90)
    assert moment_of("3d", NOON) == NOON - timedelta(days=3)
    assert moment_of("2026-03-13T13:00:00+02:00", NOON) == NOON - timedelta(hours=1)
    for text in ("", "soon", "2026-03-13T13:00:00", "-2h", "2w", "99999999d"):
        with pytest.raises(Failed, match="--since"):
            moment_of(text, NOON)
