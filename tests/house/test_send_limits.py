"""What is spared at a provider: refreshes of tokens it does not take, and what it allows a mailbox. One house, counting."""

import asyncio
import math
import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import generate_latest

from domain.provider_scopes import DEFAULT_SCOPES
from domain.send_commands import CancelSend
from domain.send_events import AttemptDeferred, AttemptRefused
from domain.tokens import Secrets
from gateways.log.work_queue import WorkQueue
from gateways.providers.allowances import GMAIL_UNITS
from gateways.providers.gmail_calls import PER_MINUTE
from handlers.refused_access import FIRST_SECONDS
from schemas.ids import new_id
from schemas.work import DeliverSend
from tests.faults.connected import CLIENT, SECRET, provider_settings
from tests.support.mail_servers.double import SmtpServer
from tests.support.oauth_server.server import Client, OAuthServer
from tests.support.send_house import OWNER, SCALE, own_server, send_house
from tests.support.servers import create_database, drop_database

#: Units that are enough for three sends, and not for a look beside them.
UNITS = 3 * GMAIL_UNITS + 15


@pytest.fixture(scope="module")
async def oauth():
    async with OAuthServer(Client(CLIENT, SECRET), mode="google") as server:
        yield server


@pytest.fixture(scope="module")
async def house(servers, oauth, tmp_path_factory):
    name = f"test_{uuid.uuid4().hex}"
    url, folder = create_database(servers, name), tmp_path_factory.mktemp("sends")
    google = {key: said for key, said in provider_settings(oauth).items() if key != "google_api_url"}
    async with send_house(servers, url, f"{name}.", folder, **google) as found:
        yield found
    drop_database(servers, name)


async def deferred(house, sends, times):
    """Why and how these sends were deferred, once each was so often."""
    query = (
        "select array_agg(distinct code) as codes, bool_or(counted) as counted from send_attempts "
        "where send = any($1) and outcome = 'deferred' "
        "and $2 <= all (select count(*) filter (where a.outcome = 'deferred') from unnest($1::text[]) s "
        "left join send_attempts a on a.send = s group by s)"
    )
    row = await house.found(query, sends, times, holds=lambda row: row["codes"] is not None, seconds=30)
    return set(row["codes"]), row["counted"]


async def refused(house, send, times):
    """Once so many have asked in vain to be granted an attempt."""
    async with asyncio.timeout(20):
        while len(of(await house.history(send), AttemptRefused)) < times:
            await asyncio.sleep(0.05)


def of(history, kind):
    return [event for event in history if isinstance(event, kind)]


async def has_left(house, mailbox, units):
    """What others have used of this minute leaves so much."""
    await house.house.pool.execute(
        "insert into rates (bucket, window_start, used) values ($1, now(), $2)",
        f"gmail-units:{mailbox.digest}",
        PER_MINUTE - units,
    )


async def test_a_provider_that_takes_no_token_is_spared_until_its_user_connects_again(house, oauth):
    """However many mails wait: no refresh for each of them, no call for each of them, and none is lost."""
    (seeded,) = await oauth.seed(client=CLIENT, scope=" ".join(DEFAULT_SCOPES["gmail"]), logins=["ada@mail.test"])
    mailbox = await house.connect(token=seeded.access_token, refresh=seeded.refresh_token)
    await house.gmail.token(seeded.access_token, None)
    began = asyncio.get_running_loop().time()
    sends = await asyncio.gather(*[house.send(mailbox) for _ in range(12)])
    assert await deferred(house, sends, 3) == ({"token_refused"}, False)
    refreshes = (await oauth.counts())["users"]["ada@mail.test"]["refreshes"]
    pauses = math.log2(1 + (asyncio.get_running_loop().time() - began) / (FIRST_SECONDS * SCALE))
    assert 1 <= refreshes <= 1 + pauses, "each pause is twice as long as the one before, and ends with one refresh"
    assert await becomes(house, mailbox, "reauth_required") == "token_refused"
    await house.gmail.token("of-another-consent", mailbox.address, " ".join(DEFAULT_SCOPES["gmail"]))
    until = datetime.now(UTC) + timedelta(hours=1)
    await house.authorise(mailbox, Secrets("of-another-consent", "refresh", until), DEFAULT_SCOPES["gmail"])
    for send in sends:
        await house.becomes(send, "sent")


async def test_what_waits_for_a_consent_does_not_wait_for_the_pause_to_end(servers, oauth, tmp_path):
    """Pauses are a minute and more here."""
    name = f"test_{uuid.uuid4().hex}"
    (seeded,) = await oauth.seed(client=CLIENT, scope=" ".join(DEFAULT_SCOPES["gmail"]), logins=["eve@mail.test"])
    google = {key: said for key, said in provider_settings(oauth).items() if key != "google_api_url"}
    url = create_database(servers, name)
    async with send_house(servers, url, f"{name}.", tmp_path, retry_scale=1, **google) as house:
        mailbox = await house.connect(token=seeded.access_token, refresh=seeded.refresh_token)
        await house.gmail.token(seeded.access_token, None)
        sends = [await house.send(mailbox) for _ in range(4)]
        assert await deferred(house, sends, 1) == ({"token_refused"}, False)
        await house.gmail.token("of-another-consent", mailbox.address, " ".join(DEFAULT_SCOPES["gmail"]))
        until = datetime.now(UTC) + timedelta(hours=1)
        await house.authorise(mailbox, Secrets("of-another-consent", "refresh", until), DEFAULT_SCOPES["gmail"])
        for send in sends:
            await house.becomes(send, "sent")
    drop_database(servers, name)


async def test_a_password_that_is_refused_is_not_tried_again_by_every_mail(house):
    """Servers lock out who fails too often."""
    async with SmtpServer({"ada": {"password": "another"}}) as server:
        mailbox = await house.connect("smtp", servers=own_server(server.plain_port, "ada", "secret"))
        sends = await asyncio.gather(*[house.send(mailbox) for _ in range(12)])
        assert await deferred(house, sends, 3) == ({"reauth_required"}, False)
        asked = len((await server.told())["logins"])
        assert asked <= 3 * 7, "a few at once each time, and not twelve"
        assert await becomes(house, mailbox, "reauth_required") == "login_failed"
        await house.authorise(mailbox, Secrets(None, None, None, own_server(server.plain_port, "ada", "another")), [])
        assert await becomes(house, mailbox, "active") is None
        for send in sends:
            await house.becomes(send, "sent")


async def test_a_server_that_takes_its_password_again_has_nobody_connect_again(house):
    """It was in trouble, and refused what was right."""
    async with SmtpServer({"ada": {"password": "another"}}) as server:
        mailbox = await house.connect("smtp", servers=own_server(server.plain_port, "ada", "secret"))
        send = await house.send(mailbox)
        assert await becomes(house, mailbox, "reauth_required") == "login_failed"
        await server.user("ada", password="secret")
        await house.becomes(send, "sent")
        assert await becomes(house, mailbox, "active") is None


async def becomes(house, mailbox, state):
    """Why a connection is in that state, once it is."""
    async with asyncio.timeout(20):
        while True:
            row = await house.house.pool.fetchrow(
                "select state, last_error from connections where connection = $1", mailbox.connection
            )
            if row["state"] == state:
                return row["last_error"]
            await asyncio.sleep(0.05)


async def test_work_that_comes_again_takes_no_permit_of_its_mailbox(house):
    mailbox = await house.connect()
    await has_left(house, mailbox, UNITS)
    first = await house.send(mailbox)
    await house.becomes(first, "sent")
    queue = WorkQueue(house.house.command_log)
    work = DeliverSend(first, mailbox.user, mailbox.connection, "gmail", mailbox.digest)
    for number in range(1, 9):
        await queue.put("deliver.gmail", work, {"ce_id": new_id("evt")})
        await refused(house, first, number)
    for send in [await house.send(mailbox) for _ in range(2)]:
        await house.becomes(send, "sent", "deferred")
        assert not of(await house.history(send), AttemptDeferred)


async def test_what_another_s_server_says_of_an_address_holds_up_nobody_who_has_it(house):
    """Anybody can say at a server of their own that they are this address; only one of the two is."""
    async with (
        SmtpServer({"ada": {"password": "secret"}}) as theirs,
        SmtpServer({"ada": {"password": "secret"}}) as ours,
    ):
        pretends = await house.connect("smtp", servers=own_server(theirs.plain_port, "ada", "secret"))
        own = own_server(ours.plain_port, "ada", "secret")
        mailbox = await house.connect("smtp", servers=own, address=pretends.address)
        assert (mailbox.digest, mailbox.user != pretends.user) == (pretends.digest, True)
        await theirs.fail("MAIL", reply="550 5.4.5 Daily user sending limit exceeded", times=100)
        held = await house.send(pretends)
        assert await deferred(house, [held], 1) == ({"daily_quota"}, False)
        send = await house.send(mailbox)
        await house.becomes(send, "sent", "deferred")
        assert not of(await house.history(send), AttemptDeferred)
        await house.tell(CancelSend(held, pretends.user, OWNER))


async def test_looks_are_counted_among_what_gmail_allows(house):
    """Three sends are allowed; after one that had to be looked for there is room for one more only."""
    mailbox = await house.connect()
    await has_left(house, mailbox, UNITS)
    await house.gmail.fail("drafts.send", user=mailbox.address, status=504, when="after")
    doubtful = await house.send(mailbox)
    await house.becomes(doubtful, "sent", seconds=60)
    told = (await house.gmail.told())["units"][mailbox.address]
    assert GMAIL_UNITS < told <= UNITS - GMAIL_UNITS
    second = await house.send(mailbox)
    await house.becomes(second, "sent")
    third = await house.send(mailbox)
    row = await house.becomes(third, "sent", "deferred")
    assert (row["status"], row["code"]) == ("deferred", "rate_limited")
    await house.tell(CancelSend(third, mailbox.user, OWNER))


async def test_how_sends_end_is_counted_by_provider(house):
    mailbox = await house.connect("outlook")
    sent = await house.send(mailbox)
    await house.becomes(sent, "sent")
    await house.graph.fail("messages.create", user=mailbox.address, status=400, code="ErrorInvalidRecipients")
    failed = await house.send(mailbox)
    await house.becomes(failed, "failed")
    scheduled = await house.send(mailbox, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
    await house.becomes(scheduled, "scheduled")
    await house.tell(CancelSend(scheduled, mailbox.user, OWNER))
    wanted = {
        ("outlook", "sent", ""): 1,
        ("outlook", "failed", "recipients_refused"): 1,
        ("", "cancelled", "caller"): 1,
    }
    async with asyncio.timeout(20):
        while not wanted.items() <= ended(house).items():
            await asyncio.sleep(0.05)
    assert not [labels for labels in ended(house) if any("_" in label and len(label) > 25 for label in labels)]


def ended(house):
    page = generate_latest(house.house.metrics).decode()
    lines = re.findall(r"^postledger_sends_ended_total\{([^}]*)\} (\S+)", page, re.MULTILINE)
    counts = {}
    for labels, number in lines:
        said = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        counts[said["provider"], said["status"], said["code"]] = float(number)
    return counts
