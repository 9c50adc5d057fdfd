"""The whole of it, as somebody lives through it who typed `make run`: one process, real servers, real mail."""

import asyncio
import json
import socket
from pathlib import Path

import asyncpg
import pytest

from tests.support.main_words import MAIN
from tests.support.sse_client import SseReader
from tests.support.up import Up, await_gone, descendants, installed_at, started
from tests.support.visitor import Inbox, Visitor, visiting

#: Seconds from `kill -9` of `up` until nothing of it may be left.
GONE_SECONDS = 15.0
ATTACHMENT = bytes(range(256)) * 40


@pytest.mark.timeout(300)
async def test_an_inbox_from_its_creation_to_its_end_and_every_table_rebuilt_in_between(tmp_path: Path) -> None:
    """A mail is seen live, read, and shown the same after all read tables were dropped and rebuilt, and after a restart."""
    words = installed_at(tmp_path / "data")
    with started(words) as up:
        key = words.says("account", "create", "--plan", "pro").row["key"]
        async with visiting(up.url, up.smtp) as visitor:
            fleeting = await visitor.open_inbox(1)
            inboxes = [await visitor.open_inbox(30), await visitor.open_inbox(30, key)]
            async with visitor.streamed(fleeting) as end:
                await see_a_mail_arrive(visitor, inboxes[0])
                await visitor.send(inboxes[1], "For the account")
                await extend(visitor, inboxes[0])
                await throw_away_and_rebuild(up, visitor, inboxes)
                await see_it_expire(visitor, fleeting, end)
            before = [await visitor.seen(inbox) for inbox in inboxes]
        family = descendants(up.process.pid)
        assert up.terminate() == 0
        await_gone(family, seconds=GONE_SECONDS)
    with started(words) as again:
        async with visiting(again.url, again.smtp) as visitor:
            assert [await visitor.seen(inbox) for inbox in inboxes] == before
            assert (await visitor.get(fleeting.path, fleeting))[0] == 410


async def see_a_mail_arrive(visitor: Visitor, inbox: Inbox) -> None:
    """Both streams tell of it, the list shows it, and what is read is what was sent."""
    async with visitor.streamed(inbox) as stream, visitor.socket(inbox) as socket:
        await visitor.send(inbox, "Your code is 428571", ATTACHMENT)
        told = await stream.next()
        assert told is not None
        assert told.type == "new_message"
        assert told.facts["subject"] == "Your code is 428571"
        assert (await socket.receive_json(timeout=10))["message_id"] == told.facts["message_id"]
    (row,) = await visitor.list_of(inbox)
    assert (row["id"], row["from_address"], row["is_read"]) == (told.facts["message_id"], "ann@sender.example", False)
    here = f"{inbox.path}/messages/{row['id']}"
    message = json.loads((await visitor.get(here, inbox))[1])
    assert message["body_text"].strip() == "Your code is 428571, and good day."
    (attached,) = message["attachments"]
    assert (attached["filename"], attached["size"]) == ("seat.bin", len(ATTACHMENT))
    assert await visitor.get(f"{here}/attachments/{attached['index']}", inbox) == (200, ATTACHMENT)
    await visitor.list_once(inbox, lambda rows: [row["is_read"] for row in rows] == [True])


async def extend(visitor: Visitor, inbox: Inbox) -> None:
    assert (await visitor.extend(inbox, 45))["expires_at"] > inbox.expires_at


async def throw_away_and_rebuild(up: Up, visitor: Visitor, inboxes: list[Inbox]) -> None:
    """What can be asked is answered as before, word for word, and the next mail arrives as if nothing had been."""
    for inbox in inboxes:
        await visitor.list_once(inbox, lambda rows: len(rows) == 1)
    before = [await visitor.seen(inbox) for inbox in inboxes]
    connection = await asyncpg.connect(up.servers.database_url)
    try:
        names = [row[0] for row in await connection.fetch("select tablename from pg_tables where schemaname = 'read'")]
        assert {"mailboxes", "messages", "feed", "timers"} <= set(names)
        await connection.execute("drop table " + ", ".join(f'read."{name}"' for name in names))
        rebuilt = await asyncio.to_thread(up.words.says, "replay", "--all", "--yes")
        assert rebuilt.code == 0, rebuilt
        assert all(row["from_nothing"] and row["in_place"] for row in rebuilt.rows)
        assert {
            row[0] for row in await connection.fetch("select tablename from pg_tables where schemaname = 'read'")
        } == set(names)
    finally:
        await connection.close()
    assert [await visitor.seen(inbox) for inbox in inboxes] == before
    async with visitor.streamed(inboxes[0]) as stream:
        await visitor.send(inboxes[0], "After the rebuild")
        told = await stream.next()
        assert told is not None
        assert told.facts["subject"] == "After the rebuild"


async def see_it_expire(visitor: Visitor, inbox: Inbox, stream: SseReader) -> None:
    """Its stream says so and ends; what is sent to it from then on is taken like a stranger's and shown to nobody."""
    ended = await stream.next(seconds=90)
    assert ended is not None
    assert (ended.type, ended.facts["reason"]) == ("inbox.expired", "expired")
    assert await stream.next() is None
    assert (await visitor.get(f"{inbox.path}/messages", inbox))[0] == 410
    assert (await visitor.get(f"{inbox.path}/events", inbox))[0] == 204
    await visitor.send(inbox, "Too late")


@pytest.mark.timeout(240)
async def test_killed_without_warning_it_leaves_nobody_behind_and_starts_again_with_everything(tmp_path: Path) -> None:
    """While it runs, a second one on the same folder says so and goes."""
    words = installed_at(tmp_path / "data")
    with started(words) as up:
        async with visiting(up.url, up.smtp) as visitor:
            inbox = await visitor.open_inbox(30)
            await visitor.send(inbox, "Keep this")
            await visitor.list_once(inbox, lambda rows: len(rows) == 1)
            before = await visitor.seen(inbox)
        second = await asyncio.to_thread(words.says, "up")
        assert (second.code, second.out) == (1, "")
        assert f"Another process ({up.process.pid}) already runs on" in second.err
        assert len(second.err.splitlines()) == 1
        family = descendants(up.process.pid)
        assert len(family) >= 4
        up.kill()
        await_gone(family, seconds=GONE_SECONDS)
    with started(words) as again:
        async with visiting(again.url, again.smtp) as visitor:
            assert await visitor.seen(inbox) == before
            await visitor.send(inbox, "And this")
            await visitor.list_once(inbox, lambda rows: len(rows) == 2)


def test_a_port_that_is_taken_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = installed_at(tmp_path / "data", http=address).says("up")
    assert said.code == 1
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert address.rpartition(":")[2] in said.err
    assert "POSTLEDGER_HTTP" in said.err


@pytest.mark.parametrize(
    ("name", "text"), [("httpp", "127.0.0.1:1"), ("http", "no port"), ("rates", "sometimes"), ("partitions", "0")]
)
def test_a_setting_that_is_none_of_ours_or_makes_no_sense_stops_the_start_and_is_named(
    tmp_path: Path, name: str, text: str
) -> None:
    said = installed_at(tmp_path / "data", **{name: text}).says("up")
    assert (said.code, said.out) == (2, "")
    assert f"POSTLEDGER_{name.upper()}" in said.err
    assert not (tmp_path / "data").exists()


def test_make_run_is_up() -> None:
    """What these tests start is what the quick start's command starts."""
    assert "main.py up" in (MAIN.parent / "Makefile").read_text()
