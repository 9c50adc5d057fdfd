"""The browser of the tests opens a page of ours, is clicked, and shows what it sees."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import async_playwright

from tests.support.chromium import launching

PAGE = """<!doctype html><title>before</title><h1>Connect</h1>
<button onclick="fetch('/clicked').then(a => a.text()).then(t => document.title = t)">Go on</button>"""


@pytest.fixture
async def page() -> AsyncIterator[str]:
    async def shown(request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def clicked(request: web.Request) -> web.Response:
        return web.Response(text="after")

    app = web.Application()
    app.add_routes([web.get("/", shown), web.get("/clicked", clicked)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_a_page_is_opened_clicked_and_seen(page: str, tmp_path: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launching())
        tab = await browser.new_page(viewport={"width": 400, "height": 300})
        await tab.goto(page)
        assert await tab.title() == "before"
        await tab.get_by_role("button", name="Go on").click()
        await tab.wait_for_function("document.title == 'after'")
        picture = await tab.screenshot(path=tmp_path / "seen.png")
        await browser.close()
    assert picture.startswith(b"\x89PNG")
    assert len(set(picture)) > 100  # not a picture of nothing
