"""Tickets and cookies: used once, by the browser they were meant for, and told apart from nothing else that is over."""

import asyncio
from dataclasses import replace

import pytest

from gateways.http.connect.cookies import MOST_OPEN
from gateways.local_ports import free_port
from tests.support.connect_house import BACK, Browser, ConnectHouse, connecting_at, providers_at, served_at
from tests.support.http_house import bearer

ADA = "ada@gmail.test"


@pytest.mark.parametrize("provider", ["gmail", None])
async def test_a_ticket_is_used_once(house: ConnectHouse, provider: str | None) -> None:
    ticket = await house.begin(await house.person(), provider)
    assert ticket.startswith(f"{house.url}/connect{f'/{provider}' if provider else ''}?ticket=")
    pages = await asyncio.gather(*(Browser(house).get(ticket) for _ in range(8)))
    assert sorted(page.status for page in pages) == [303] + [410] * 7
    for page in pages:
        assert (page.headers["Cache-Control"], page.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
        assert (page.status == 303) == ("Set-Cookie" in page.headers)


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}])
async def test_looking_does_not_use_it_up(house: ConnectHouse, headers: dict[str, str]) -> None:
    ticket, browser = await house.begin(await house.person()), Browser(house)
    assert (await browser.ask("HEAD", ticket)).status == 200
    fetched = await browser.get(ticket, **headers)
    assert fetched.status == 503, "a browser shows what it fetched ahead, unless it was an error"
    assert (fetched.headers["Cache-Control"], fetched.headers["Retry-After"]) == ("no-store", "0")
    assert not browser.jar
    assert (await browser.get(ticket)).status == 303


@pytest.mark.parametrize(
    "query", ["", "?ticket=", "?ticket=x", "?ticket=" + "a" * 43, "?ticket=a&ticket=b", "?ticket=%ff"]
)
async def test_what_is_no_ticket(house: ConnectHouse, query: str) -> None:
    page = await Browser(house).get(f"{house.url}/connect/gmail{query}")
    assert (page.status, page.cookies) == (410, {})
    page = await Browser(house).get(f"{house.url}/connect{query}")
    assert (page.status, page.cookies) == (410 if query else 403, {})


async def test_a_ticket_is_good_for_its_own_provider(house: ConnectHouse) -> None:
    ada = await house.person()
    ticket = await house.begin(ada)
    assert (await Browser(house).get(ticket.replace("/gmail", "/outlook"))).status == 410
    assert (await Browser(house).get((await house.begin(ada)).replace("/gmail", ""))).status == 410
    assert (
        await Browser(house).get((await house.begin(ada, None)).replace("/connect", "/connect/gmail"))
    ).status == 410
    assert (await Browser(house).get((await house.begin(ada)).replace("/gmail", "/yahoo"))).status == 404


async def test_curl_is_sent_on_and_a_program_gets_json(house: ConnectHouse) -> None:
    ada = await house.person()
    for path in ("/v1/connect/gmail", "/v1/connect"):
        url = f"{house.url}{path}?userId={ada.id}"
        async with house.http.get(url, headers=bearer(ada.key), allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (302, "no-store")
            assert answer.headers["Location"].startswith(f"{house.url}/connect")
            assert "Set-Cookie" not in answer.headers


async def test_what_a_product_may_not_ask(house: ConnectHouse) -> None:
    ada, bob = await house.person(), await house.person()
    connection = await house.connected(ada, login=ADA)
    foreign = await house.connected(bob, login=ADA)
    narrow = await house.inner.key(ada.account, "connections:read")

    async def code(
        user: str | None = ada.id, provider: str | None = "gmail", key: str | None = ada.key, **query: str
    ) -> object:
        status, body = await house.asked_for_ticket(user, provider, key, **query)
        assert status == body["status"]
        return status, body["code"], [fault["pointer"] for fault in body.get("errors", [])]

    assert await code(provider="yahoo") == (404, "not_found", [])
    assert await code(provider="Gmail") == (404, "not_found", [])
    assert await code(user=bob.id) == (404, "not_found", [])
    assert await code(user="usr_" + "0" * 26) == (404, "not_found", [])
    assert await code(user="' or 1=1") == (404, "not_found", [])
    assert await code(user=bob.id, provider=None) == (404, "not_found", [])
    assert await code(user=None) == (400, "invalid_request", ["/query/userId"])
    assert await code(key=None) == (401, "credentials_missing", [])
    assert await code(key=narrow) == (403, "scope_missing", [])
    assert await code(key=narrow, provider=None) == (403, "scope_missing", [])
    wrong = (400, "invalid_request", ["/query/connectionId"])
    assert await code(connectionId=foreign) == wrong
    assert await code(connectionId="x") == wrong
    assert await code(connectionId=connection, provider="outlook") == wrong
    assert await code(provider="smtp") == wrong
    assert await code(return_url=BACK) == (400, "invalid_request", ["/query/return_url"])
    assert await code(connectionID=connection) == (400, "invalid_request", ["/query/connectionID"])
    assert await code(provider=None, returnURL=BACK) == (400, "invalid_request", ["/query/returnURL"])
    assert await code(loginHint="a\nb", returnUrl="https://evil.example") == (
        400, "invalid_request", ["/query/returnUrl", "/query/loginHint"],
    )  # fmt: skip


async def test_a_provider_without_a_client(house: ConnectHouse) -> None:
    port, ada = free_port(), await house.person()
    url = f"http://127.0.0.1:{port}"
    settings = providers_at(house.oauth, google_client_id="")
    async with (
        connecting_at(house.inner, house.oauth, url, settings=settings) as connecting,
        served_at(house.inner, connecting, port),
    ):
        there = replace(house, url=url)
        status, body = await there.asked_for_ticket(ada.id, "gmail", ada.key)
        assert (status, body["code"]) == (503, "provider_not_set_up")
        assert "POSTLEDGER_GOOGLE_CLIENT_ID" in body["detail"]
        browser = Browser(there)
        page = await browser.get((await browser.get(await there.begin(ada, None))).location)
        assert "Connect Outlook" in page.text
        assert "Connect Gmail" not in page.text


@pytest.mark.parametrize(
    ("public", "prefix", "secure", "root"),
    [
        ("http://127.0.0.1:{port}", "", False, ""),
        ("https://mail.example", "__Secure-", True, ""),
        ("https://mail.example/post", "__Secure-", True, "/post"),
    ],
)
async def test_the_cookies_of_a_browser(house: ConnectHouse, public: str, prefix: str, secure: bool, root: str) -> None:
    port, ada = free_port(), await house.person()
    here, url = f"http://127.0.0.1:{port}", public.format(port=port)
    async with connecting_at(house.inner, house.oauth, url) as connecting, served_at(house.inner, connecting, port):
        there = replace(house, url=here)
        ticket, to_page = await there.begin(ada), await there.begin(ada, None)
        assert ticket.startswith(f"{url}/connect/gmail?ticket=")
        page = await Browser(there).get(ticket.replace(url, here))
        consent = next(morsel for name, morsel in page.cookies.items() if "consent" in name)
        opened = page.cookies[f"{prefix}postledger_open"]
        session = (await Browser(there).get(to_page.replace(url, here))).cookies[f"{prefix}postledger_connect"]
        assert f"redirect_uri={url.replace(':', '%3A').replace('/', '%2F')}" in page.location
    assert consent.key.startswith(f"{prefix}postledger_consent_")
    assert (consent["path"], consent["max-age"]) == (f"{root}/v1/connect/gmail/callback", "600")
    assert (opened["path"], opened["max-age"]) == (f"{root}/connect", "600")
    assert (session["path"], session["max-age"]) == (f"{root}/connect", "1800")
    for morsel in (consent, opened, session):
        assert (bool(morsel["secure"]), bool(morsel["httponly"]), morsel["samesite"].lower()) == (secure, True, "lax")
        assert not morsel["domain"]


async def test_a_browser_holds_few_cookies_however_often_it_begins(house: ConnectHouse) -> None:
    ada, browser = await house.person(), Browser(house)
    callbacks = [
        await browser.to_callback(await house.begin(ada, returnUrl=BACK), login=ADA) for _ in range(MOST_OPEN + 3)
    ]
    assert sum("consent" in name for _, name in browser.jar) == MOST_OPEN
    assert (await browser.get(callbacks[0])).status == 400, "the oldest are given up"
    assert "status=connected" in (await browser.get(callbacks[-1])).location
    assert "status=connected" in (await browser.get(callbacks[3])).location
