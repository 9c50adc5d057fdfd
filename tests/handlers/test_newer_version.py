"""While versions stand side by side: a decider never folds past an event that only a newer one understands."""

import asyncio
import json
from contextlib import suppress

import aiohttp
import pytest

from gateways.local_ports import free_port
from schemas.envelope import Source, event_headers, moment
from tests.faults.installation import COMMANDS, EVENTS, Installation, installed


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path):
    async with installed(servers, database, topic_prefix, tmp_path, partitions=2) as house:
        house.settings = house.settings.model_copy(update={"operations": f"127.0.0.1:{free_port()}"})
        yield house


async def written_by_a_newer_version(house: Installation, kind: str, body: dict[str, object]) -> int:
    """A valid event at the end of the first partition; its position."""
    _, end = await house.log.bounds(EVENTS, 0)
    headers = event_headers(
        event_id="cmd_new.0", kind=kind, subject="mbx_new", at=moment(0), position=end, cause={"ce_id": "cmd_new"},
        source=Source(COMMANDS, 0, 0), sequence=1,
    )  # fmt: skip
    batch = house.log.batch()
    batch.add([(b"acc_1", json.dumps(body).encode(), headers)])
    assert await house.log.append(EVENTS, 0, batch) == end
    return end


async def not_ready(house: Installation) -> dict[str, dict[str, object]]:
    """What /readyz says of each dependency, once not all are well."""
    async with aiohttp.ClientSession() as client, asyncio.timeout(30):
        while True:
            with suppress(aiohttp.ClientConnectorError):
                async with client.get(f"http://{house.settings.operations}/readyz") as answer:
                    if answer.status == 503:
                        return (await answer.json())["dependencies"]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("mailbox.mailbox-renamed.v1", {"mailbox": "mbx_new"}),
        ("mailbox.message-parsed.v1", {"message": "m", "mailbox": "b", "owner": "o", "state": "half"}),
        ("log.thinned.v1", {"until": 7}),
    ],
    ids=["a type of tomorrow", "a value of tomorrow", "a word of the log of tomorrow"],
)
async def test_it_says_so_in_a_sentence_and_decides_what_it_can(house, kind, body):
    position = await written_by_a_newer_version(house, kind, body)
    work = await house.start("work")
    found = await not_ready(house)
    sentence = (
        f"{EVENTS}/0/{position} holds {kind}, which this version can't read: a newer version has written to this log. "
        f"Update this process; until then it decides nothing in this partition."
    )
    assert found["decider of mailbox"] == {"ok": False, "cause": sentence}
    assert found["decider of account"] == {"ok": True}

    for partition in (0, 1, 0, 1):
        await house._last_command(partition)
    async with asyncio.timeout(30):
        while (await house.log.bounds(EVENTS, 1))[1] < 3:
            await asyncio.sleep(0.05)
    assert (await house.log.bounds(EVENTS, 0))[1] == position + 1, "it went past what it does not understand"
    assert await work.stop() == 0
    assert work.log.read_text().count(sentence) == 1
