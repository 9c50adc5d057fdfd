"""`replay`, `skip-event` and `reset-input` as an operator types them."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import typer
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from typer.testing import CliRunner, Result

from gateways.command_line.failures import NOT_FOUND, USAGE, Failed
from gateways.command_line.installation import Installation
from gateways.command_line.log_words import NOT_REBUILT, add_log_words
from gateways.local_servers import Servers
from gateways.log.provision import admin
from schemas.envelope import command_headers, moment
from tests.support.mail_history import TOPIC, MailLog, lives, mail_log, projecting
from tests.support.waiting import folded


class Terminal:
    """Types words at the command line of one installation."""

    def __init__(self, servers: Servers, database: str, prefix: str) -> None:
        self._place = servers, database, prefix
        self._cli = typer.Typer()
        add_log_words(self._cli, lambda: Installation(servers.kafka, database, prefix))

    def types(self, *words: str) -> Result:
        return CliRunner().invoke(self._cli, list(words))

    def does(self, work: Callable[[MailLog], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> Any:
            async with mail_log(*self._place) as mail:
                return await work(mail)

        return asyncio.run(run())


@pytest.fixture
def terminal(servers: Servers, database: str, topic_prefix: str) -> Terminal:
    typed = Terminal(servers, database, topic_prefix)

    async def history(mail: MailLog) -> None:
        await mail.append(list(lives(10)))
        async with projecting(mail):
            await folded(mail)

    typed.does(history)
    return typed


def test_replay_says_what_differed_by_its_exit_status(terminal: Terminal) -> None:
    assert terminal.types("replay", "--all", "--dry-run").exit_code == 0

    async def plant(mail: MailLog) -> None:
        await mail.pool.execute("update messages set number = 99 where message = 'msg_2a'")

    terminal.does(plant)
    dry = terminal.types("replay", "messages", "feed", "--dry-run")
    messages, feed = [json.loads(line) for line in dry.stdout.splitlines()]
    assert (dry.exit_code, messages["differing_rows"], messages["in_place"], feed["differing_rows"]) == (1, 1, False, 0)
    assert messages["differences"] == ['messages message="msg_2a": number is 99, by the log 1']
    told = terminal.types("replay", "messages", "--dry-run", "--output", "table").stdout.splitlines()
    assert told[0] == messages["differences"][0]
    assert re.fullmatch(r"messages: \d+ records in .*, 1 row differed; nothing was changed\.", told[1])
    assert terminal.types("replay", "messages", "--yes").exit_code == 1
    assert terminal.types("replay", "messages", "--yes").exit_code == 0


def test_replay_asks_before_it_replaces_tables(terminal: Terminal) -> None:
    async def table(mail: MailLog) -> Any:
        return await mail.pool.fetchval("select 'read.messages'::regclass::oid")

    before = terminal.does(table)
    refused = terminal.types("replay", "messages")
    assert isinstance(refused.exception, Failed)
    assert refused.exception.code == USAGE
    assert "--yes" in str(refused.exception)
    assert terminal.does(table) == before


@pytest.mark.parametrize(
    ("words", "code"),
    [(("replay",), USAGE), (("replay", "nothing"), NOT_FOUND), (("replay", "messages", "--all"), USAGE)],
)
def test_replay_wants_names_it_knows(terminal: Terminal, words: tuple[str, ...], code: int) -> None:
    result = terminal.types(*words)
    assert isinstance(result.exception, Failed)
    assert result.exception.code == code
    assert "mailboxes, messages, timers, feed, accounts" in str(result.exception)


def test_skip_event_is_kept_in_the_log_with_its_reason(terminal: Terminal) -> None:
    said = terminal.types("skip-event", TOPIC, "0", "3", "--reason", "it must not be seen")
    assert said.exit_code == 0, said.exception

    async def last(mail: MailLog) -> Any:
        records = [record async for batch in mail.log.read_on(TOPIC, 0, 0) for record in batch]
        return records[-1]

    record = terminal.does(last)
    assert dict(record.headers)["ce_type"] == b"log.event-skipped.v1"
    assert not record.void
    assert json.loads(record.value) == {"position": 3, "reason": "it must not be seen"}
    assert json.loads(said.stdout) == {
        "skipped": f"{TOPIC}/0/3", "said_at": f"{TOPIC}/0/{record.offset}", "reason": "it must not be seen",
    }  # fmt: skip


def test_reset_input_is_kept_in_the_log_and_no_table_has_anything_of_it(terminal: Terminal) -> None:
    async def lose_three_of_five(mail: MailLog) -> None:
        batch = mail.log.batch()
        batch.add([(b"", b"{}", command_headers(command_id="c", kind="k", subject="s", at=moment(0)))] * 5)
        await mail.log.append("mail.raw", 0, batch)
        async with admin(mail.kafka) as client:
            await client.delete_records({TopicPartition(f"{mail.prefix}mail.raw", 0): RecordsToDelete(3)})

    words = ("reset-input", "mail.raw", "--partition", "0", "--reason", "the machine was off all summer")
    nothing = terminal.types(*words).exception
    assert isinstance(nothing, Failed)
    assert str(nothing) == "Nothing is missing: mail.raw/0 begins at 0, and 0 is to be decided next."
    terminal.does(lose_three_of_five)
    done = terminal.types(*words)
    assert json.loads(done.stdout) == {"input": "mail.raw/0", "from": 0, "to": 3, "reason": words[-1]}

    async def fold(mail: MailLog) -> Any:
        async with projecting(mail):
            await folded(mail)
        records = [record async for batch in mail.log.read_on(TOPIC, 0, 0) for record in batch]
        return records[-1]

    record = terminal.does(fold)
    assert (dict(record.headers)["ce_type"], record.void) == (b"log.input-reset.v1", False)
    assert json.loads(record.value) == {
        "topic": "mail.raw", "from_offset": 0, "to_offset": 3, "by": "operator", "reason": "the machine was off all summer",
    }  # fmt: skip
    assert terminal.types("replay", "--all", "--dry-run").exit_code == 0
    assert "Nothing is missing" in str(terminal.types(*words).exception)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((TOPIC, "7", "3", "--reason", "x"), NOT_FOUND, "and no 7"),
        ((TOPIC, "0", "999999", "--reason", "x"), NOT_FOUND, "there is no event at 999999"),
        (("mailbox.commands", "0", "3", "--reason", "x"), NOT_FOUND, "is no topic of events"),
        ((TOPIC, "0", "3", "--reason", " "), USAGE, "Say why"),
    ],
)
def test_skip_event_says_at_once_what_is_not_there(
    terminal: Terminal, words: tuple[str, ...], code: int, says: str
) -> None:
    result = terminal.types("skip-event", *words)
    assert isinstance(result.exception, Failed)
    assert (result.exception.code, says in str(result.exception)) == (code, True)


def test_a_replay_that_could_not_be_done_found_nothing(servers: Servers, database: str, free_port: int) -> None:
    """A script that runs it at night must be able to tell an outage from wrong rows."""
    for away in (
        Installation(f"127.0.0.1:{free_port}", database, "none."),
        Installation(servers.kafka, f"postgresql://127.0.0.1:{free_port}/none", "none."),
    ):
        cli = typer.Typer()
        add_log_words(cli, lambda away=away: away)
        failed = CliRunner().invoke(cli, ["replay", "--all", "--dry-run"]).exception
        assert isinstance(failed, Failed)
        assert failed.code == NOT_REBUILT


def test_a_table_that_is_gone_is_no_equal_one(terminal: Terminal) -> None:
    async def drop(mail: MailLog) -> None:
        await mail.pool.execute("drop table read.messages")

    terminal.does(drop)
    assert terminal.types("replay", "messages", "--dry-run").exit_code == 1
    assert terminal.types("replay", "messages", "--yes").exit_code == 0
    assert terminal.types("replay", "messages", "--dry-run").exit_code == 0
