"""Callbacks that are none of ours: a page, no call to the token endpoint, and nothing changed (J-01 to J-04)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from gateways.local_ports import free_port
from gateways.stores.consents import Consents, Tickets
from tests.support.connect_house import BACK, Browser, ConnectHouse, Page, connecting_at, served_at
from tests.support.connected import Person
from tests.support.oauth_server.server import Client

ADA = "ada@gmail.test"


@asynccontextmanager
async def nothing_happens(house: ConnectHouse) -> AsyncIterator[None]:
    """No call to the token endpoint, no row in the vault, no event."""
    pool = house.inner.services.pool
    count = "select (select count(*) from vault), (select count(*) from connections)"
    before = await house.token_calls(), tuple(await pool.fetchrow(count))
    yield
    assert (await house.token_calls(), tuple(await pool.fetchrow(count))) == before


def is_a_page_of_refusal(page: Page) -> None:
    assert page.status == 400
    assert page.headers["Content-Type"].startswith("text/html")
    assert (page.headers["Cache-Control"], page.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "Set-Cookie" not in page.headers


async def on_the_way(house: ConnectHouse, who: Person | None = None, provider: str = "gmail") -> tuple[Browser, str]:
    """A browser that has consented, and the callback it is about to ask for."""
    browser = Browser(house)
    ticket = await house.begin(who or await house.person(), provider, returnUrl=BACK)
    return browser, await browser.to_callback(ticket, login=ADA)


def changed(url: str, **query: str | None) -> str:
    parts = urlsplit(url)
    said = dict(parse_qsl(parts.query)) | query
    return parts._replace(query=urlencode({name: text for name, text in said.items() if text is not None})).geturl()


@pytest.mark.parametrize(
    "state", [None, "", "x", "a" * 43, "a" * 129, "a" * 10_000, "\x00", "%", "../..", "<script>", "é" * 20], ids=repr
)
async def test_a_state_that_we_did_not_give_out(house: ConnectHouse, state: str | None) -> None:
    browser, callback = await on_the_way(house)
    async with nothing_happens(house):
        is_a_page_of_refusal(await browser.get(changed(callback, state=state)))
    assert "status=connected" in (await browser.get(callback)).location, "the genuine one is as good as before"


async def test_a_state_that_was_used(house: ConnectHouse) -> None:
    browser, callback = await on_the_way(house)
    cookies = dict(browser.jar)
    assert "status=connected" in (await browser.get(callback)).location
    async with nothing_happens(house):
        is_a_page_of_refusal(await browser.get(callback))
        browser.jar = cookies
        is_a_page_of_refusal(await browser.get(callback))


async def test_a_state_that_failed_is_used_up_as_well(house: ConnectHouse) -> None:
    browser, callback = await on_the_way(house)
    cookies = dict(browser.jar)
    await house.oauth.control(failNext={"status": 503})
    assert (await browser.get(callback)).location == f"{BACK}?error=provider_unavailable"
    browser.jar = cookies
    async with nothing_happens(house):
        is_a_page_of_refusal(await browser.get(callback))


async def test_a_state_of_another_browser(house: ConnectHouse) -> None:
    """An attacker's callback, opened by somebody else: also by one who has a consent of their own under way."""
    _, callback = await on_the_way(house)
    victim, own = await on_the_way(house)
    name, value = next((name, value) for (_, name), value in victim.jar.items() if "consent" in name)
    foreign = Browser(house)
    foreign.jar = {("/", name): value}
    async with nothing_happens(house):
        is_a_page_of_refusal(await Browser(house).get(callback))
        is_a_page_of_refusal(await victim.get(callback))
        is_a_page_of_refusal(await foreign.get(callback))
    assert "status=connected" in (await victim.get(own)).location


async def test_a_cookie_with_another_value(house: ConnectHouse) -> None:
    """The name of the cookie can be made up by whoever knows the state; its value can't."""
    browser, callback = await on_the_way(house)
    genuine = dict(browser.jar)
    for value in ("a" * 43, "", "x", "=", "é"):
        browser.jar = dict.fromkeys(genuine, value)
        async with nothing_happens(house):
            is_a_page_of_refusal(await browser.get(callback))
    browser.jar = genuine
    assert "status=connected" in (await browser.get(callback)).location


async def test_a_state_of_another_provider(house: ConnectHouse) -> None:
    """Mix-up: begun at one, ended at the other, with all cookies."""
    browser, callback = await on_the_way(house)
    other = callback.replace("/gmail/", "/outlook/")
    browser.jar = {("/", name): value for (_, name), value in browser.jar.items()}
    async with nothing_happens(house):
        is_a_page_of_refusal(await browser.get(other))
        assert (await browser.get(callback.replace("/gmail/", "/yahoo/"))).status == 404
    assert "status=connected" in (await browser.get(callback)).location


async def test_a_state_that_has_lapsed(house: ConnectHouse) -> None:
    services, port = house.inner.services, free_port()
    url = f"http://127.0.0.1:{port}"
    await house.oauth.add_client(
        Client("client-of-connect", "canary-client-secret-8d21", (f"{url}/v1/connect/gmail/callback",))
    )
    brief = Consents(services.pool, services.keyset, life_seconds=0)
    async with (
        connecting_at(house.inner, house.oauth, url, consents=brief) as connecting,
        served_at(house.inner, connecting, port),
    ):
        there = replace(house, url=url)
        browser, callback = await on_the_way(there)
        async with nothing_happens(house):
            is_a_page_of_refusal(await browser.get(callback))


@pytest.mark.parametrize(
    "query",
    [
        "state={state}&state={state}&code={code}",
        "state={state}&code={code}&code=other",
        "state=other&state={state}&code={code}",
        "state={state}&code=" + "c" * 8193,
        "state={state}&code={code}&iss=" + "i" * 501,
        "state={state}&code={code}&" + "&".join(f"a{number}=1" for number in range(30)),
        "state={state}&code=%ff%fe",
    ],
)
async def test_a_query_that_says_two_things_or_too_much(house: ConnectHouse, query: str) -> None:
    browser, callback = await on_the_way(house)
    said = dict(parse_qsl(urlsplit(callback).query))
    hostile = urlsplit(callback)._replace(query=query.format(**said)).geturl()
    async with nothing_happens(house):
        is_a_page_of_refusal(await browser.get(hostile))
    assert "status=connected" in (await browser.get(callback)).location


async def test_a_look_uses_nothing_up(house: ConnectHouse) -> None:
    browser, callback = await on_the_way(house)
    async with nothing_happens(house):
        assert (await browser.ask("HEAD", callback)).status == 200
    assert "status=connected" in (await browser.get(callback)).location


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"error": "access_denied", "error_description": "<script>alert(1)</script>"}, "access_denied"),
        ({"error": "server_error"}, "provider_refused"),
        ({"error": "<b>x</b>"}, "provider_refused"),
        ({"error": ""}, "provider_refused"),
        ({}, "provider_refused"),
        ({"code": ""}, "provider_refused"),
    ],
)
async def test_a_known_state_that_failed_goes_back_with_a_code(
    house: ConnectHouse, said: dict[str, str], code: str
) -> None:
    browser, callback = await on_the_way(house)
    state = dict(parse_qsl(urlsplit(callback).query))["state"]
    failed = urlsplit(callback)._replace(query=urlencode({"state": state} | said)).geturl()
    async with nothing_happens(house):
        end = await browser.get(failed)
        assert (end.status, end.location) == (303, f"{BACK}?error={code}")
        is_a_page_of_refusal(await browser.get(callback))


async def test_denial_at_the_provider(house: ConnectHouse) -> None:
    ada = await house.person()
    await house.oauth.control(denyNext=1)
    async with nothing_happens(house):
        assert await house.walk(ada, login=ADA) == {"error": "access_denied"}


@pytest.mark.parametrize("issuer", ["https://evil.example", "", "http://127.0.0.1"])
async def test_an_answer_of_another_issuer(house: ConnectHouse, issuer: str) -> None:
    browser, callback = await on_the_way(house)
    async with nothing_happens(house):
        end = await browser.get(changed(callback, iss=issuer or "-"))
        assert end.location == f"{BACK}?error=issuer_mismatch"


async def test_a_code_of_another_consent(house: ConnectHouse) -> None:
    """The provider holds it against the verifier: what was stolen elsewhere is of no use here."""
    browser, callback = await on_the_way(house)
    _, other = await on_the_way(house)
    stolen = dict(parse_qsl(urlsplit(other).query))["code"]
    assert (await browser.get(changed(callback, code=stolen))).location == f"{BACK}?error=code_refused"
    assert (await house.oauth.counts())["total"]["codeExchanges"] == 0


async def test_one_callback_twice_at_once(house: ConnectHouse) -> None:
    """Ten at once: one of them counts, and one code is traded once."""
    ada = await house.person()
    browser, callback = await on_the_way(house, ada)
    before = await house.token_calls()
    pages = await asyncio.gather(*(browser.get(callback) for _ in range(10)))
    assert sorted(page.status for page in pages) == [303] + [400] * 9
    assert await house.token_calls() == before + 1
    assert len(await house.listed(ada)) == 1


async def test_a_posted_form_becomes_a_get_where_the_cookie_is(house: ConnectHouse) -> None:
    browser, callback = await on_the_way(house)
    parts = urlsplit(callback)
    async with nothing_happens(house):
        # As a cross-site form posts it: without any cookie.
        page = await Browser(house).ask(
            "POST", parts._replace(query="").geturl(), data=dict(parse_qsl(parts.query)) | {"session_state": "x"}
        )
    assert (page.status, page.headers["Cache-Control"]) == (303, "no-store")
    assert dict(parse_qsl(urlsplit(page.location).query)) == dict(parse_qsl(parts.query))
    assert "status=connected" in (await browser.get(page.location)).location


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"state=" + b"a" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 400),
        (b"", "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"state=a&state=b", "application/x-www-form-urlencoded", 400),
        (b"state=a", "multipart/form-data; boundary=x", 400),
    ],
)
async def test_a_form_that_is_none(house: ConnectHouse, body: bytes, kind: str, status: int) -> None:
    async with nothing_happens(house):
        page = await Browser(house).ask(
            "POST", f"{house.url}/v1/connect/gmail/callback", data=body, **{"Content-Type": kind}
        )
    assert page.status == status
    assert "Location" not in page.headers


async def test_a_ticket_that_has_lapsed(house: ConnectHouse) -> None:
    services, port = house.inner.services, free_port()
    url = f"http://127.0.0.1:{port}"
    brief = Tickets(services.pool, services.keyset, life_seconds=0)
    async with (
        connecting_at(house.inner, house.oauth, url, tickets=brief) as connecting,
        served_at(house.inner, connecting, port),
    ):
        there = replace(house, url=url)
        ada = await house.person()
        for provider in ("gmail", None):
            page = await Browser(there).get(await there.begin(ada, provider))
            assert page.status == 410
            assert "Set-Cookie" not in page.headers
