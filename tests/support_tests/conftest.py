"""One Gmail fake for a module; judges too large for everybody's environment are asked by `-m judges` only (`make judges`)."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.gmail.caller import TOKENS, Caller
from tests.support.gmail.double import GmailFake


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "judges" in (config.option.markexpr or ""):
        return
    judging = [item for item in items if item.get_closest_marker("judges")]
    config.hook.pytest_deselected(items=judging)
    items[:] = [item for item in items if not item.get_closest_marker("judges")]


@pytest.fixture(scope="module")
async def running_gmail() -> AsyncIterator[GmailFake]:
    async with GmailFake(TOKENS) as gmail:
        yield gmail


@pytest.fixture
async def gmail(running_gmail: GmailFake) -> GmailFake:
    await running_gmail.reset()
    return running_gmail


@pytest.fixture
async def caller(gmail: GmailFake) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession(gmail.url) as http:
        yield Caller(http)
