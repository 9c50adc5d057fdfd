"""Postgres goes away between two steps of connecting: what is said is true, and is a page where a person reads it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from domain.tokens import MailServer, OwnServers
from gateways.local_ports import free_port
from gateways.log.decisions import Asked, Decision, Decisions
from gateways.stores.consents import Consents, Sessions, Tickets
from gateways.stores.postgres import Pool, open_pool
from schemas import commands, events
from tests.support.connect_house import (
    BACK,
    CLIENT_ID,
    CLIENT_SECRET,
    Browser,
    ConnectHouse,
    connecting_at,
    providers_at,
    served_at,
)
from tests.support.http_house import bearer
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import ImapServer, SmtpServer
from tests.support.oauth_server.server import Client

ADA = "ada@gmail.test"


async def gone(house: ConnectHouse) -> Pool:
    """A pool of which every query fails, as if the server had gone."""
    pool = await open_pool(house.inner.house.database_url, size=1)
    await pool.close()
    return pool


@asynccontextmanager
async def house_with(house: ConnectHouse, **parts: Any) -> AsyncIterator[ConnectHouse]:
    """The house at another address, with other parts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    await house.oauth.add_client(Client(CLIENT_ID, CLIENT_SECRET, (f"{url}/v1/connect/gmail/callback",)))
    async with (
        connecting_at(house.inner, house.oauth, url, **parts) as connecting,
        served_at(house.inner, connecting, port),
    ):
        yield replace(house, url=url, connecting=connecting)


async def test_a_ticket_that_was_used_up_in_vain_goes_back_to_the_product(house: ConnectHouse) -> None:
    ada, pool = await house.person(), await gone(house)
    async with house_with(house, consents=Consents(pool, house.inner.services.keyset)) as there:
        page = await Browser(there).get(await there.begin(ada, returnUrl=BACK))
        assert (page.status, page.location) == (303, f"{BACK}?error=unavailable")
        page = await Browser(there).get(await there.begin(ada))
        assert (page.status, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert int(page.headers["Retry-After"]) > 0
        assert "nothing was changed" not in page.text.lower(), "the ticket is used up"


async def test_what_cannot_be_looked_at_now_is_a_page_to_come_back_to(house: ConnectHouse) -> None:
    ada, pool = await house.person(), await gone(house)
    tickets = [await house.begin(ada), await house.begin(ada, None)]
    parts = {"tickets": Tickets(pool, house.inner.services.keyset), "sessions": Sessions(pool)}
    async with house_with(house, **parts) as there:
        browser = Browser(there)
        browser.jar["/connect", "postledger_connect"] = "a" * 43
        pages = [await browser.get(url.replace(house.url, there.url)) for url in (*tickets, "/connect")]
        for page in pages:
            assert (page.status, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
            assert int(page.headers["Retry-After"]) > 0


async def test_a_connection_is_not_denied_because_its_page_cannot_be_opened(house: ConnectHouse) -> None:
    ada, pool = await house.person(), await gone(house)
    async with house_with(house, sessions=Sessions(pool)) as there:
        browser = Browser(there)
        page = await browser.get(await browser.to_callback(await there.begin(ada), login=ADA))
        assert (page.status, len(await there.listed(ada))) == (200, 1)
        assert "Your mailbox is connected." in page.text
        await house.oauth.control(denyNext=1)
        page = await browser.get(await browser.to_callback(await there.begin(ada), login=ADA))
        assert page.status == 503
        assert "Access was not granted." in page.text


class ThenAway(Decisions):
    """Decisions after which Postgres can't be asked any more."""

    pool: Pool

    async def ask(self, asked: Asked, **more: Any) -> Decision:
        decision = await super().ask(asked, **more)
        await asyncio.wait_for(self.pool.close(), 5)
        return decision


async def test_a_mailbox_whose_connection_cannot_be_read_back_is_not_called_unchanged(house: ConnectHouse) -> None:
    authority, users, ada = Authority(), {ADA: {"password": "p"}}, await house.person()
    services = house.inner.services
    assert services.tail is not None
    decisions = ThenAway(
        services.command_log, services.tail, services.folded, commands=commands.CONNECTION, events=events.CONNECTION
    )
    decisions.pool = await open_pool(house.inner.house.database_url, size=2)
    inner = replace(house.inner, services=replace(services, connection_decisions=decisions, pool=decisions.pool))
    settings, port = providers_at(house.oauth, tls=authority.trusting), free_port()
    async with (
        SmtpServer(users, authority=authority, oauth=house.oauth.issuer) as smtp,
        ImapServer(users, authority=authority, oauth=house.oauth.issuer) as imap,
        connecting_at(house.inner, house.oauth, house.url, settings=settings) as connecting,
        served_at(inner, connecting, port),
    ):
        server = {"host": "127.0.0.1", "port": smtp.tls_port, "security": "tls", "username": ADA}
        body = {"userId": ada.id, "email": ADA, "auth": "password", "password": "p", "smtp": server}
        body["imap"] = server | {"port": imap.tls_port}
        url = f"http://127.0.0.1:{port}/v1/connections/smtp"
        async with house.http.post(url, headers=bearer(ada.key), json=body) as answer:
            assert answer.status == 202
    async with house.http.get(house.url + answer.headers["Location"], headers=bearer(ada.key)) as answer:
        operation = await answer.json()
    (found,) = await house.listed(ada)
    assert (found["account"], f"/v1/connections/{found['id']}") == (ADA, operation["location"])


@pytest.mark.parametrize("provider", ["gmail", None])
async def test_a_ticket_that_another_version_wrote_is_one_that_is_over(
    house: ConnectHouse, provider: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds is in no log: it may be a client's secret."""
    ada = await house.person()
    servers = OwnServers(MailServer("canary-7e", 1, "tls", "u"), MailServer("h", 1, "tls", "u"))
    said = {"owner": 7, "servers": repr(servers)}
    ticket = await house.connecting.tickets.issue(account=ada.account, user=ada.id, provider=provider, said=said)
    page = await Browser(house).get(f"/connect{f'/{provider}' if provider else ''}?ticket={ticket}")
    assert (page.status, page.headers["Content-Type"]) == (410, "text/html; charset=utf-8")
    assert "canary-7e" not in caplog.text


async def test_a_fault_of_ours_is_a_page_as_well(house: ConnectHouse) -> None:
    ticket = await house.begin(await house.person())
    await house.inner.services.pool.execute("update connect_tickets set sealed = '\\x00' where used_at is null")
    page = await Browser(house).get(ticket)
    assert (page.status, page.headers["Content-Type"]) == (500, "text/html; charset=utf-8")
    assert "begin again" in page.text
