"""The page in a real Chromium: connecting, losing consent and reconnecting, by keyboard alone; what it looks like."""

import json
import os
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright

from domain.connection_commands import ReportRefresh
from domain.tokens import NotRefreshed
from gateways.local_ports import free_port
from tests.support.chromium import launching
from tests.support.connect_house import BACK, ConnectHouse
from tests.support.connected import Person

ADA = "ada@gmail.test"
PICTURES = Path(__file__).resolve().parents[3] / "docs" / "pictures"
SIZE = {"width": 720, "height": 560}


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Any]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launching())
        yield browser
        await browser.close()


@pytest.fixture
async def page(chromium: Any) -> AsyncIterator[Page]:
    """A page that notes what it asks of whom, and whatever its console complains of."""
    context = await chromium.new_context(viewport=SIZE)
    page = await context.new_page()
    page.asked = []
    page.complaints = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda said: page.complaints.append(said.text))
    yield page
    await context.close()


async def pressed_by_keyboard(page: Page, name: str) -> None:
    """Tab until the button of this name has the focus, which can be seen, and press it."""
    for _ in range(20):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e); return [e.innerText, s.outlineStyle, "
            "parseFloat(s.outlineWidth)] }"
        )
        if focused[0] == name:
            assert focused[1] == "solid"
            assert focused[2] >= 2
            async with page.expect_navigation(wait_until="load"):
                await page.keyboard.press("Enter")
            return
    raise AssertionError(f"the keyboard does not reach {name}")


async def loses_consent(house: ConnectHouse, who: Person, connection: str) -> None:
    """The user withdraws it at the provider, and the next refresh finds out."""
    assert await house.oauth.revoke(ADA) >= 1
    held = await house.connecting.vault.get(connection)
    assert held is not None
    outcome = await house.connecting.connectors.by_provider["gmail"].refresh(held.secrets)
    assert outcome == NotRefreshed("invalid_grant", "invalid_grant")
    report = ReportRefresh(connection, who.id, held.version, "reauth_required", "timer", code="invalid_grant")
    await who.command(connection, report)


async def test_a_user_connects_loses_and_reconnects_a_mailbox(house: ConnectHouse, page: Page) -> None:
    ada = await house.person()
    await house.oauth.control(defaultLogin=ADA)
    await page.goto(await house.begin(ada, None, returnUrl=BACK))
    assert page.url == f"{house.url}/connect"
    assert await page.title() == "Your mailboxes"
    await pressed_by_keyboard(page, "Connect Gmail")
    assert re.fullmatch(rf"{house.url}/connect\?connectionId=con_\w+&status=connected", page.url)
    assert await page.get_by_role("status").inner_text() == f"Connected. {ADA} is ready for use."
    (shown,) = await house.listed(ada)
    await loses_consent(house, ada, shown["id"])
    await page.goto(f"{house.url}/connect")
    assert "needs you again" in await page.get_by_role("listitem").inner_text()
    await pressed_by_keyboard(page, f"Reconnect {ADA}")
    assert await page.get_by_role("status").is_visible()
    assert [one["state"] for one in await house.listed(ada)] == ["active"]
    await house.oauth.control(denyNext=1)
    await pressed_by_keyboard(page, "Connect Gmail")
    assert "Access was not granted." in await page.get_by_role("alert").inner_text()
    assert "said no" not in await page.content(), "nothing that the provider wrote"
    assert all(url.startswith((house.url, house.oauth.issuer)) for url in page.asked)
    assert page.complaints == []


async def test_code_and_ticket_are_in_no_history(house: ConnectHouse, page: Page) -> None:
    """Going back leads to our page or out of it, never to an address with something secret in it."""
    await house.oauth.control(defaultLogin=ADA)
    await page.goto(f"{house.url}/connect/style.css")
    await page.goto(await house.begin(await house.person(), None))
    await pressed_by_keyboard(page, "Connect Gmail")
    seen = [page.url]
    while await page.go_back() is not None and len(seen) < 9:
        seen.append(page.url)
    assert seen[-1] == f"{house.url}/connect/style.css"
    assert not any(word in url for url in seen for word in ("ticket=", "code=", "state="))


async def test_a_browser_that_fetches_a_ticket_ahead_gets_there_all_the_same(house: ConnectHouse, page: Page) -> None:
    """It would show whatever it was answered, were that no error: an empty page."""
    ticket = await house.begin(await house.person(), None)
    rules = {"prefetch": [{"source": "list", "urls": [ticket], "eagerness": "immediate"}]}
    text = f'<!doctype html><script type="speculationrules">{json.dumps(rules)}</script><a href="{ticket}">Connect</a>'

    async def product(_: web.BaseRequest) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    server = web.ServerRunner(web.Server(product))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", port := free_port()).start()
    try:
        async with page.context.expect_event("response", lambda answer: answer.url == ticket) as ahead:
            await page.goto(f"http://127.0.0.1:{port}/")
        assert (await ahead.value).status == 503
        await page.get_by_role("link", name="Connect").click()
        await page.get_by_role("heading", name="Your mailboxes").wait_for()
    finally:
        await server.cleanup()


async def test_it_can_be_used_by_everybody(house: ConnectHouse, page: Page) -> None:
    """Landmarks, headings in order, names for all controls, large targets, and enough contrast in both themes."""
    ada = await house.person()
    connection = await house.connected(ada, login=ADA)
    await house.connected(ada, login="work@gmail.test")
    await ada.command(
        connection, ReportRefresh(connection, ada.id, 1, "reauth_required", "timer", code="invalid_grant")
    )
    await page.goto(await house.begin(ada, None, returnUrl=BACK))
    for role in ("banner", "main", "navigation"):
        assert await page.get_by_role(role).count() == 1, role
    assert await page.evaluate("document.documentElement.lang") == "en"
    levels = await page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert levels.count(1) == 1
    for button in await page.get_by_role("button").all():
        box = await button.bounding_box()
        assert await button.inner_text()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        assert await page.evaluate(CONTRAST) == [], theme
    await page.set_viewport_size({"width": 320, "height": 600})
    assert await page.evaluate("document.documentElement.scrollWidth <= 320"), "nothing is cut off on a small screen"


#: Texts whose contrast against what is behind them is less than 4.5 to 1 (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const [r, g, b, a = 1] = parse(getComputedStyle(e).backgroundColor);
    if (a > 0) return [r, g, b]; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push([e.tagName, e.innerText, (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


@pytest.mark.skipif(
    "PICTURES" not in os.environ, reason="PICTURES=1 takes the pictures of docs/connect-accounts.md anew"
)
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_its_picture(house: ConnectHouse, page: Page, theme: Any) -> None:
    ada = await house.person(email="ada@analytical.example", displayName="Ada Lovelace")
    work = await house.connected(ada, login="ada@gmail.test")
    await house.connected(ada, "outlook", login="lovelace@outlook.test")
    await ada.command(work, ReportRefresh(work, ada.id, 1, "reauth_required", "timer", code="invalid_grant"))
    await page.emulate_media(color_scheme=theme)
    await page.goto(await house.begin(ada, None, returnUrl=BACK))
    PICTURES.mkdir(exist_ok=True)
    await page.screenshot(path=PICTURES / f"connect-{theme}.png", full_page=True)
