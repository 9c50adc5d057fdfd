"""The parser pool against its real children: limits, deaths, order, and the end of everything."""

import asyncio
import json
import os
import random
import signal
import string
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import cast

import psutil
import pytest

from domain import mail
from gateways.parser.pool import ParserPool
from gateways.parser.process import ParserUnavailableError
from gateways.stores import sealing
from gateways.stores.blobs import LocalBlobs
from handlers.decider import LARGEST_EVENT
from handlers.mailboxes import KeepsKeys, PreparesMail, Seals
from schemas.vocabulary import encode
from tests.support.mailbox_words import created, received
from tests.support.mailbox_words import mail as received_mail
from tests.support.spec import given

SMALL = b"From: Ada <ada@example.org>\r\nSubject: mail %d\r\nMessage-ID: <%d@example.org>\r\n\r\nHello\r\n"
SLOW = b"Message-ID: <slow@example.org>\r\n\r\n" + b"--\n" * 3_000_000
"""Seconds of work for any parser of lines, and nothing wrong with it."""


def small(number: int) -> bytes:
    return SMALL % (number, number)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "parser/child.py" in " ".join(child.cmdline())]


async def test_a_mail_is_answered_with_what_the_api_shows() -> None:
    head = b"Subject: caf\xc3\xa9\r\nFrom: Ada <a@b>\r\nMessage-ID: <1@x>\r\nContent-Type: multipart/mixed; boundary=b"
    raw = head + b"\r\n\r\n--b\r\n\r\nHi\r\n--b\r\nContent-Type: image/png; name=x.png\r\n\r\nPNG\r\n--b--"
    async with ParserPool() as pool:
        parsed = await pool.parse(raw)
    assert (parsed.state, parsed.message_id, parsed.cause) == ("whole", "<1@x>", None)
    assert parsed.summary == {"from_address": "a@b", "from_name": "Ada", "subject": "café", "has_attachments": True}
    content = json.loads(parsed.content or b"")
    assert list(content) == ["from_address", "from_name", "to", "cc", "reply_to", "subject", "body_text", "body_html",
                             "headers", "attachments"]  # fmt: skip
    expected = mail.parse(raw)
    assert (content["body_text"], content["headers"]) == (expected.text, expected.headers)
    assert content["attachments"] == [
        {"index": 0, "filename": "x.png", "content_type": "image/png", "size": 3, "content_id": None,
         "sha256": expected.attachments[0].sha256}
    ]  # fmt: skip


ODD = "".join(random.Random(1).choices(string.ascii_letters + string.digits + "+/", k=40_000))
HEAVY = "\x01" * 60_000 + ODD + "\x01" * 60_000
"""A text that JSON makes six times as long, and whose middle makes it look as if compressing it were in vain."""


@pytest.mark.parametrize("field", ["Subject: %s", "From: %s <a@b>", "From: <%s@b>"])
async def test_a_mail_is_received_however_long_its_subject_and_sender_are(field: str, tmp_path: Path) -> None:
    raw = (field % HEAVY).encode() + b"\r\n\r\nHi"
    key, blobs = sealing.new_data_key(), LocalBlobs(tmp_path)
    async with ParserPool() as pool:
        parsed = await pool.parse(raw, full=True)
        prepares = PreparesMail(cast("KeepsKeys", None), cast("Seals", sealing), blobs, pool)
        command = received_mail(**{"content": None} | await prepares.sealed("mbx_1", "msg_1", parsed, key))
    event = received(command)
    given(created()).when(command).then(event)
    assert len(encode(event)) < LARGEST_EVENT
    summary = json.loads(sealing.unseal(key, command.summary, sealing.place("message", "msg_1", "summary")))
    at = sealing.place("message", "msg_1", "content")
    blob = command.content_blob
    content = json.loads(await blobs.read(blob, key, at) if blob else sealing.unseal(key, command.content, at))
    for name in ("subject", "from_name", "from_address"):
        assert summary[name] == (content[name] and content[name][:1000])
    assert any(HEAVY in (content[name] or "") for name in ("subject", "from_name", "from_address"))


async def test_a_thousand_mails_at_once_each_get_their_own_answer() -> None:
    async with ParserPool(workers=2) as pool:
        answers = await asyncio.gather(*(pool.parse(small(number)) for number in range(1000)))
        assert len(children()) == 2
    assert [answer.message_id for answer in answers] == [f"<{number}@example.org>" for number in range(1000)]


async def test_a_mail_that_is_slow_is_put_off_and_those_behind_it_are_not() -> None:
    async with ParserPool(quick_seconds=0.1) as pool:
        slow, *others = await asyncio.gather(pool.parse(SLOW), *(pool.parse(small(number)) for number in range(50)))
        assert (slow.state, slow.content, slow.cause, slow.message_id) == ("parsing", None, None, "<slow@example.org>")
        assert {other.state for other in others} == {"whole"}
        assert (await pool.parse(SLOW, full=True)).state == "whole"


async def test_a_mail_past_its_cpu_time_is_unparsed() -> None:
    async with ParserPool(full_cpu_seconds=0.2) as pool:
        parsed = await pool.parse(SLOW, full=True)
        assert (parsed.state, parsed.cause, parsed.message_id) == ("unparsed", "time", "<slow@example.org>")
        assert (await pool.parse(small(1), full=True)).state == "whole"


async def test_a_mail_past_the_memory_limit_is_unparsed_and_the_next_one_has_a_fresh_child() -> None:
    async with ParserPool(memory_mb=64, full_cpu_seconds=20) as pool:
        assert (await pool.parse(small(1), full=True)).state == "whole"
        (first,) = children()
        big, after = await asyncio.gather(pool.parse(SLOW, full=True), pool.parse(small(2), full=True))
        assert (big.state, big.cause) == ("unparsed", "memory")
        assert after.state == "whole"
        assert first.pid not in {child.pid for child in children()}


async def test_mails_behind_one_that_took_all_memory_are_read_by_the_next_child() -> None:
    async with ParserPool(memory_mb=64, quick_seconds=20) as pool:
        big, *others = await asyncio.gather(pool.parse(SLOW), *(pool.parse(small(number)) for number in range(20)))
    assert big.state == "parsing"
    assert {other.state for other in others} == {"whole"}


@pytest.mark.parametrize("full", [False, True])
async def test_a_mail_beyond_a_bound_is_unparsed_at_once_with_the_cause(full: bool) -> None:
    head = b"Message-ID: <1@x>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    async with ParserPool() as pool:
        parsed = await pool.parse(head + b"--b\r\n\r\n" * 1001, full=full)
    assert (parsed.state, parsed.cause, parsed.message_id, parsed.summary) == ("unparsed", "parts", "<1@x>", None)


@pytest.mark.parametrize(("full", "state", "cause"), [(False, "parsing", None), (True, "unparsed", "crashed")])
async def test_a_child_that_is_killed_takes_only_the_mail_it_was_reading(
    full: bool, state: str, cause: str | None
) -> None:
    async with ParserPool(quick_seconds=20, full_cpu_seconds=20) as pool:
        await pool.parse(small(0), full=full)
        (child,) = children()
        held = asyncio.gather(pool.parse(SLOW, full=full), *(pool.parse(small(n), full=full) for n in range(10)))
        used = child.cpu_times().user
        while child.cpu_times().user < used + 0.05:
            await asyncio.sleep(0.01)
        child.kill()
        victim, *others = await held
        assert (victim.state, victim.cause) == (state, cause)
        assert {other.state for other in others} == {"whole"}


async def test_a_child_that_stands_still_is_killed_and_replaced() -> None:
    async with ParserPool(quick_seconds=0.1) as pool:
        await pool.parse(small(0))
        (child,) = children()
        child.suspend()
        held, *others = await asyncio.gather(*(pool.parse(small(number)) for number in range(5)))
        assert held.state == "parsing"
        assert {other.state for other in others} == {"whole"}
        assert not psutil.pid_exists(child.pid)


async def test_full_mails_do_not_stand_in_front_of_quick_ones() -> None:
    async with ParserPool(full_cpu_seconds=20) as pool:
        await pool.parse(small(0))
        full = asyncio.ensure_future(pool.parse(SLOW, full=True))
        answers = [await pool.parse(small(number)) for number in range(20)]
        assert {answer.state for answer in answers} == {"whole"}
        assert not full.done()
        assert (await full).state == "whole"


async def test_the_child_for_full_mails_ends_after_idling() -> None:
    async with ParserPool(idle_seconds=0.05) as pool:
        await pool.parse(small(0), full=True)
        (child,) = children()
        await asyncio.to_thread(child.wait, 10)
        assert (await pool.parse(small(1), full=True)).state == "whole"


async def test_a_mail_that_comes_while_the_idle_child_leaves_is_read_by_the_next_one() -> None:
    async with ParserPool(idle_seconds=0) as pool:
        for number in range(24):
            assert (await pool.parse(small(number), full=True)).state == "whole"
            for _ in range(number % 4):
                await asyncio.sleep(0)


async def test_a_caller_that_stops_waiting_disturbs_nobody() -> None:
    async with ParserPool(quick_seconds=20) as pool:
        await pool.parse(small(0))
        given_up = asyncio.ensure_future(pool.parse(small(1)))
        kept = asyncio.ensure_future(pool.parse(small(2)))
        await asyncio.sleep(0)
        given_up.cancel()
        assert (await kept).message_id == "<2@example.org>"
        with pytest.raises(asyncio.CancelledError):
            await given_up


async def test_closing_the_pool_ends_its_children_and_tells_those_who_wait() -> None:
    async with ParserPool(quick_seconds=20) as pool:
        await pool.parse(small(0))
        waiting = asyncio.ensure_future(pool.parse(SLOW))
        await asyncio.sleep(0)
        assert children()
    assert not children()
    with pytest.raises(ParserUnavailableError):
        await waiting
    with pytest.raises(ParserUnavailableError):
        await pool.parse(small(1))


async def test_a_pool_whose_children_cannot_start_says_so_and_blames_no_mail() -> None:
    async with ParserPool(memory_mb=1) as pool:
        for _ in range(2):
            with pytest.raises(ParserUnavailableError):
                await pool.parse(small(1))


async def test_a_child_stays_within_twenty_four_mebibytes() -> None:
    async with ParserPool() as pool:
        await pool.parse(small(0))
        (child,) = children()
        assert child.memory_info().rss < 24 * 2**20


PARENT = textwrap.dedent("""
    import asyncio, psutil, sys
    sys.path.insert(0, sys.argv[1])
    from gateways.parser.pool import ParserPool
    async def main():
        async with ParserPool(quick_seconds=60) as pool:
            await pool.parse(b"a: b")
            if sys.argv[2] == "busy":
                asyncio.ensure_future(pool.parse(b"\\r\\n" + b"--\\n" * 8_000_000))
                await asyncio.sleep(0.1)
            print(psutil.Process().children()[0].pid, flush=True)
            await asyncio.sleep(60)
    asyncio.run(main())
""")


@pytest.mark.parametrize("work", ["idle", "busy"])
def test_a_child_ends_when_its_parent_is_killed(work: str) -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", PARENT, root, work], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    try:
        child.wait(10)
    except psutil.TimeoutExpired:
        assert child.status() == psutil.STATUS_ZOMBIE  # dead, and nobody is init enough here to reap it
