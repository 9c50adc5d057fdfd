"""The page where users connect mailboxes: by whom it can be seen, what it says, and what it does not."""

import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from domain.connection_commands import ReportRefresh
from gateways.http.connect.words import WORDS
from gateways.local_ports import free_port
from schemas.ids import new_id
from tests.support.connect_house import BACK, Browser, ConnectHouse, Page, connecting_at, providers_at, served_at
from tests.support.connected import READS, SENDS, Person
from tests.support.http_house import bearer

ADA = "ada@gmail.test"


async def at_page(house: ConnectHouse, who: Person, **query: str) -> tuple[Browser, Page]:
    """A browser that was sent to the page."""
    browser = Browser(house)
    opened = await browser.get(await house.begin(who, None, **query))
    assert (opened.status, opened.location) == (303, f"{house.url}/connect"), "no ticket stays in the address"
    return browser, await browser.get(opened.location)


def proof_in(page: Page) -> str:
    found = re.search(r'name="proof" value="([0-9a-f]{64})"', page.text)
    assert found
    return found[1]


async def pressed(browser: Browser, page: Page, provider: str = "gmail", **said: str) -> Page:
    return await browser.ask(
        "POST", f"/connect/{provider}", data={"proof": proof_in(page)} | said, **{"Sec-Fetch-Site": "same-origin"}
    )


async def test_a_user_connects_a_mailbox_and_sees_it(house: ConnectHouse) -> None:
    ada = await house.person(email=f"{new_id('ada')}@example.org")
    browser, page = await at_page(house, ada, returnUrl=f"{BACK}?x=1")
    assert ada.said["email"] in page.text
    assert "No mailbox is connected yet." in page.text
    assert f'href="{BACK}?x=1">Back to app.example' in page.text
    assert ("Connect Gmail" in page.text, "Connect Outlook" in page.text) == (True, True)
    sent = await pressed(browser, page)
    assert sent.status == 303
    back = await browser.get(await house.oauth.consent(sent.location, login=ADA))
    assert back.location.startswith(f"{house.url}/connect?connectionId=con_")
    shown = await browser.get(back.location)
    assert f"{ADA} is ready for use." in shown.text
    assert "Gmail: connected" in shown.text
    assert f'href="{BACK}?x=1"' in shown.text, "the way back is still there"


async def test_one_that_needs_its_user_again_is_reconnected_there(house: ConnectHouse) -> None:
    ada = await house.person()
    connection = await house.connected(ada, login=ADA)
    await ada.command(
        connection, ReportRefresh(connection, ada.id, 1, "reauth_required", "timer", code="invalid_grant")
    )
    browser, page = await at_page(house, ada)
    assert "Gmail: needs you again" in page.text
    assert "no longer accepts your consent" in page.text
    assert f"Reconnect {ADA}" in page.text
    sent = await pressed(browser, page, connectionId=connection)
    back = await browser.get(await house.oauth.consent(sent.location, login="bob@gmail.test"))
    assert back.location == f"{house.url}/connect?error=another_mailbox"
    assert "You signed in to another mailbox" in (await browser.get(back.location)).text
    sent = await pressed(browser, await browser.get("/connect"), connectionId=connection)
    back = await browser.get(await house.oauth.consent(sent.location, login=ADA))
    assert dict(parse_qsl(urlsplit(back.location).query)) == {"connectionId": connection, "status": "connected"}
    assert "needs you again" not in (await browser.get(back.location)).text


async def test_what_was_not_allowed_is_said_in_plain_words(house: ConnectHouse) -> None:
    ada = await house.person()
    await house.oauth.control(grantScopes=[SENDS, "email"])
    await house.connected(ada, login=ADA)
    _, page = await at_page(house, ada)
    assert "Not allowed yet: reading mail." in page.text
    assert READS not in page.text


async def test_a_user_sees_their_own_mailboxes_only(house: ConnectHouse) -> None:
    ada, bob = await house.person(), await house.person()
    connection = await house.connected(ada, login=ADA)
    browser, page = await at_page(house, bob)
    assert ADA not in page.text
    assert ADA not in (await browser.get(f"/connect?connectionId={connection}&status=connected")).text
    assert (await pressed(browser, page, connectionId=connection)).status == 404
    assert (await pressed(browser, page, connectionId="con_" + "0" * 26)).status == 404
    assert (await pressed(browser, page, connectionId="x")).status == 404
    assert (await pressed(browser, page, provider="smtp")).status == 404
    assert (await pressed(browser, page, provider="yahoo")).status == 404


@pytest.mark.parametrize("cookie", [None, "a" * 43, "'", "é"])
async def test_nobody_sees_it_without_a_session(house: ConnectHouse, cookie: str | None) -> None:
    browser = Browser(house)
    if cookie is not None:
        browser.jar["/connect", "postledger_connect"] = cookie
    for page in (await browser.get("/connect"), await browser.ask("POST", "/connect/gmail", data={"proof": "x"})):
        assert page.status == 403
        assert "This page is closed" in page.text


async def test_a_form_of_another_site_does_nothing(house: ConnectHouse) -> None:
    browser, page = await at_page(house, await house.person())
    other = proof_in((await at_page(house, await house.person()))[1])
    post = {"Sec-Fetch-Site": "same-origin"}
    for data in ({}, {"proof": ""}, {"proof": other}, {"proof": "é"}, {"proof": [proof_in(page)[:-1]]}):
        answer = await browser.ask(
            "POST",
            "/connect/gmail",
            data=data or b"",
            **post | ({} if data else {"Content-Type": "application/x-www-form-urlencoded"}),
        )
        assert (answer.status, "Location" in answer.headers) == (403, False)
    for site in ("cross-site", "same-site"):
        answer = await browser.ask("POST", "/connect/gmail", data={"proof": proof_in(page)}, **{"Sec-Fetch-Site": site})
        assert answer.status == 403


@pytest.mark.parametrize("code", sorted(WORDS))
async def test_every_code_is_told_in_plain_words(house: ConnectHouse, code: str) -> None:
    browser, _ = await at_page(house, await house.person())
    page = await browser.get(f"/connect?error={code}")
    assert "Not connected." in page.text
    assert code not in page.text


@pytest.mark.parametrize("code", ["<script>alert(1)</script>", "Call+0900+1234", "", "access_denied%00", "é"])
async def test_nothing_that_a_query_says_is_shown(house: ConnectHouse, code: str) -> None:
    browser, _ = await at_page(house, await house.person())
    page = await browser.get(f"/connect?error={code}&connectionId={code}&status=connected")
    assert page.status == 200
    assert "Not connected." not in page.text
    assert "0900" not in page.text
    assert "<script" not in page.text


async def test_what_browsers_are_told_about_the_page(house: ConnectHouse) -> None:
    _, page = await at_page(house, await house.person())
    policy = page.headers["Content-Security-Policy"]
    assert policy == (
        f"default-src 'none'; style-src 'self'; form-action 'self' https: {house.oauth.issuer}; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    assert (page.headers["Referrer-Policy"], page.headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "<script" not in page.text
    assert not re.findall(r'(?:src|href)="https?://(?!127\.0\.0\.1|app\.example)', page.text)
    style = await Browser(house).get("/connect/style.css")
    assert (style.status, style.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert "url(" not in style.text
    assert "@import" not in style.text


async def test_a_hostile_name_is_only_text(house: ConnectHouse) -> None:
    """What a user or a provider calls a mailbox is never markup."""
    ada = await house.person()
    await ada.connect('"><img/src=x>@gmail.example')
    _, page = await at_page(house, ada)
    assert "<img" not in page.text
    assert "&lt;img" in page.text


async def test_one_that_was_revoked_since_leads_nobody_to_a_provider(house: ConnectHouse) -> None:
    ada = await house.person()
    connection = await house.connected(ada, login=ADA)
    browser, page = await at_page(house, ada)
    async with house.http.delete(f"{house.url}/v1/connections/{connection}", headers=bearer(ada.key)) as answer:
        assert answer.status == 204
    sent = await pressed(browser, page, connectionId=connection)
    assert (sent.status, sent.location) == (303, f"{house.url}/connect?error=unknown_connection")


async def test_what_only_a_product_understands_is_told_to_nobody(house: ConnectHouse) -> None:
    """A mail server's mailbox whose servers are lost, and a provider without a client: words for people."""
    ada = await house.person()
    servers = await ada.connect("ada@mail.test", provider="smtp")
    browser, page = await at_page(house, ada)
    sent = await pressed(browser, page, provider="smtp", connectionId=servers)
    assert (sent.status, sent.location) == (303, f"{house.url}/connect?error=servers_forgotten")
    assert "no longer know the servers" in (await browser.get(sent.location)).text
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = providers_at(house.oauth, google_client_id="")
    async with (
        connecting_at(house.inner, house.oauth, url, settings=settings) as connecting,
        served_at(house.inner, connecting, port),
    ):
        browser, page = await at_page(replace(house, url=url), ada)
        sent = await pressed(browser, page)
        assert (sent.status, sent.location) == (303, f"{url}/connect?error=client_broken")


async def test_what_needs_its_user_comes_first_and_is_not_called_ready(house: ConnectHouse) -> None:
    """An address that is opened once more says nothing of what has changed since."""
    ada = await house.person(email=f"{new_id('ada')}@example.org")
    old, new = await house.connected(ada, login=ADA), await house.connected(ada, login="work@gmail.test")
    await ada.command(old, ReportRefresh(old, ada.id, 1, "reauth_required", "timer", code="invalid_grant"))
    browser, page = await at_page(house, ada)
    assert re.findall(r"<h3>([^<]*)</h3>", page.text) == [ADA, "work@gmail.test"]
    assert f"can be used by the account of {ada.said['email']}." in page.text
    assert "is ready for use." in (await browser.get(f"/connect?connectionId={new}&status=connected")).text
    assert "is ready for use." not in (await browser.get(f"/connect?connectionId={old}&status=connected")).text
