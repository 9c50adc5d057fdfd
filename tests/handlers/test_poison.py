"""What can't be decided is decided as such and kept whole in `dead.letters`; it holds up nothing that comes after it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.fields import Digest, Sealed
from domain.mailbox_commands import CreateMailbox, ExtendMailbox, ReadMessage
from domain.mailbox_events import MessageReceived
from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from schemas import commands, topics
from schemas.envelope import Headers, Record, command_headers, first
from schemas.topics import MAX_MESSAGE_BYTES
from schemas.vocabulary import encode
from tests.faults import log_scan
from tests.faults.checker import check
from tests.faults.installation import COMMANDS, EVENTS, MAIL, ROOMY, Installation, installed
from tests.faults.looking import observed, violations


@pytest.fixture
async def house(servers, database, topic_prefix, tmp_path):
    async with installed(servers, database, topic_prefix, tmp_path) as house:
        yield house


def headers(name: str, kind: str, **more: Any) -> Headers:
    return command_headers(command_id=name, kind=kind, subject="mbx_1", at=datetime.now(UTC), **more)


def typed(name: str, command: Any, **more: Any) -> tuple[str, bytes, Headers]:
    return COMMANDS, encode(command), headers(name, commands.MAILBOX.type_of(command), **more)


DELETE = "mailbox.delete-mailbox.v1"
READ = ReadMessage("mbx_1", "msg_1")

POISON: dict[str, tuple[tuple[str, bytes, Headers], type, str]] = {
    "no JSON": ((COMMANDS, b"\xff\xfe", headers("cmd_bytes", DELETE)), CommandUnreadable, "invalid_body"),
    "no value": ((COMMANDS, b"", headers("cmd_empty", DELETE)), CommandUnreadable, "invalid_body"),
    "another shape": ((COMMANDS, b'{"mailbox": 7}', headers("cmd_shape", DELETE)), CommandUnreadable, "invalid_body"),
    "unknown type": ((COMMANDS, b"{}", headers("cmd_type", "mailbox.delete-all.v7")), CommandUnreadable, "unknown_type"),
    "no headers": ((COMMANDS, b"{}", []), CommandUnreadable, "missing_header"),
    "null header": (
        (COMMANDS, b"{}", [("ce_id", b"cmd_null"), ("ce_type", None)]),
        CommandUnreadable,
        "missing_header",
    ),
    "header that is no text": (
        (COMMANDS, b"{}", [("ce_id", b"cmd_bin\xff"), ("ce_type", b"\xff\x00\x80")]),
        CommandUnreadable,
        "unknown_type",
    ),
    "U+0000 in an id": (typed("cmd_nul", ReadMessage("mbx_1", "msg\0")), CommandUnreadable, "invalid_body"),
    "U+0000 in the key": (typed("cmd_key", READ), CommandUnreadable, "invalid_body"),
    "U+0000 in the command's id": (typed("cmd\0nul", READ), CommandUnreadable, "invalid_body"),
    "a time that is none": (
        (COMMANDS, encode(READ), [*headers("cmd_time", commands.MAILBOX.type_of(READ)), ("notafter", b"soon")]),
        CommandUnreadable,
        "missing_header",
    ),
    "mail without its header": ((MAIL, b"x", headers("msg_1", "mailbox.receive-mail.v1")), CommandUnreadable, "invalid_body"),
    "as large as a record can be": (
        (COMMANDS, b"x" * (MAX_MESSAGE_BYTES - 1000), headers("cmd_large", DELETE)),
        CommandUnreadable,
        "invalid_body",
    ),
    "a rule that raises": (typed("cmd_raises", ExtendMailbox("MBX", -(10**17))), CommandFailed, "rule_failed"),
    "an event that is too large": (
        typed("cmd_big", CreateMailbox("mbx_big", "acc_big", Digest("#big"), Sealed("x" * 600_000), ROOMY)),
        CommandFailed,
        "too_large",
    ),
}  # fmt: skip


async def outcomes(house: Installation) -> dict[int | str, Record]:
    return {record.offset: record for record in await house.records(EVENTS) if not record.void}


async def test_every_kind_of_poison_is_decided_as_what_it_is_and_holds_up_nobody(house):
    work, project = await asyncio.gather(house.start("work"), house.start("project"))
    box = await house.open_mailbox("acc_1")
    before = await house.mail(box, b"Subject: before\r\n\r\nhi\r\n")
    put: dict[str, str] = {}
    for name, ((topic, value, said), _, _) in POISON.items():
        body = value.replace(b"MBX", box.mailbox.encode())
        offset = await house.put(topic, body, said, key=b"poi\0son" if name == "U+0000 in the key" else b"somebody")
        put[f"{topic}/0/{offset}"] = name
    after = await house.mail(box, b"Subject: after\r\n\r\nhi\r\n")
    await house.quiet()
    assert [await work.stop(), await project.stop()] == [0, 0]

    facts = log_scan.facts(await house.records(EVENTS))
    decided = {put[str(fact.source)]: fact for fact in facts if str(fact.source) in put}
    found = {name: (type(fact.event), fact.event.cause) for name, fact in decided.items()}
    assert found == {name: (outcome, cause) for name, (_, outcome, cause) in POISON.items()}
    received = [fact.event.message for fact in facts if isinstance(fact.event, MessageReceived)]
    assert received == [before, after]

    letters = {first(r.headers)["deadletterid"]: r for r in await house.records(topics.DEAD_LETTERS.name)}
    for name, fact in decided.items():
        letter, value = letters[fact.event.dead_letter], POISON[name][0][1].replace(b"MBX", box.mailbox.encode())
        said = first(letter.headers)
        assert letter.value == value or (said["deadlettercut"] == "too_large" and not letter.value), name
        assert said["deadlettersource"] == str(fact.source)
        assert said["deadlettercause"] == fact.event.cause
    # The rules know nothing of sizes and of U+0000: what was decided on poison is all that they may find fault with.
    poisoned = {fact.place for fact in decided.values()}
    seen = await observed(house)
    seen = replace(seen, inputs=[record for record in seen.inputs if str(record.source) not in put])
    assert [found for found in check(seen) if found.id not in poisoned] == []


async def test_a_mail_that_is_not_sealed_under_its_key_is_unreadable(house):
    work, _ = await asyncio.gather(house.start("work"), house.start("project"))
    box = await house.open_mailbox("acc_1")
    await house.quiet()
    forged = await house.mail(type(box)(box.mailbox, box.owner, box.address, b"another key of 32 bytes, not his"), b"x")
    after = await house.mail(box, b"Subject: after\r\n\r\nhi\r\n")
    await house.quiet()
    await work.stop()
    said = {fact.headers["causationid"]: fact.event for fact in log_scan.facts(await house.records(EVENTS))}
    assert isinstance(said[forged], CommandUnreadable)
    assert isinstance(said[after], MessageReceived)


async def test_a_command_lapses_when_the_log_took_it_too_late_and_not_when_it_waited_there(house):
    now = datetime.now(UTC)
    late = typed("cmd_late", READ, not_after=now - timedelta(milliseconds=50))
    waited = typed("cmd_waited", READ, not_after=now + timedelta(seconds=1))
    sources = {f"{COMMANDS}/0/{await house.put(*asked)}": asked for asked in (late, waited)}
    while datetime.now(UTC) < now + timedelta(seconds=1.1):
        await asyncio.sleep(0.05)
    # A later command moves the lane's clock past the promise before the waiting one is looked at.
    work, _ = await asyncio.gather(house.start("work"), house.start("project"))
    await house.quiet()
    await work.stop()
    said = [
        type(fact.event).__name__ for fact in log_scan.facts(await house.records(EVENTS)) if str(fact.source) in sources
    ]
    assert said == [CommandLapsed.__name__, "CommandRefused"]
    assert await violations(house) == []
