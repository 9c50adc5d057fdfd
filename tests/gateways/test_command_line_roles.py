"""The roles as a larger installation starts them: each in processes of its own, several of each, one of each killed.

And the tour of `demo`, through whichever of them answers.
"""

import asyncio
import json
import re
import smtplib
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from email.message import EmailMessage

import aiohttp
import pytest

from gateways.command_line.demo_reader import Reader, Stream
from gateways.local_ports import free_port as a_free_port
from gateways.local_servers import Servers
from gateways.log.provision import admin
from tests.support.main_words import Installed, Running
from tests.support.servers import create_database, drop_database

ROLES = ("work", "project", "http", "smtp")
INBOXES = 8
#: Seconds until those who are left have taken over what a killed one held.
TAKEN_OVER = 45.0


@dataclass
class Street:
    """An installation with two processes of every role."""

    installation: Installed
    doors: list[Installed]
    processes: dict[tuple[str, int], Running] = field(default_factory=dict)

    def port(self, role: str, number: int) -> int:
        return int(self.doors[number].environment[f"POSTLEDGER_{role.upper()}"].rpartition(":")[2])


@pytest.fixture(scope="module")
def street(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    name = f"test_{uuid.uuid4().hex}"
    installation = Installed.at(
        tmp_path_factory.mktemp("data"),
        kafka=servers.kafka,
        database_url=create_database(servers, name),
        topic_prefix=f"{name}.",
        partitions="4",
    )
    assert installation.says("provision").code == 0
    doors = [
        installation.with_settings(http=f"127.0.0.1:{a_free_port()}", smtp=f"127.0.0.1:{a_free_port()}")
        for _ in range(2)
    ]
    street = Street(installation, doors)
    with ExitStack() as stack:
        stack.callback(drop_database, servers, name)
        for number, door in enumerate(doors):
            for role in ROLES:
                street.processes[role, number] = door.begin(role, name=f"{role}-{number}")
                stack.callback(street.processes[role, number].end)
        for process in street.processes.values():
            process.until_ready()
        yield street


def send(port: int, to: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@sender.example", to, subject
    mail["Message-ID"] = f"<{uuid.uuid4().hex}@sender.example>"
    mail.set_content("Good day.")
    with smtplib.SMTP("127.0.0.1", port, local_hostname="sender.example", timeout=30) as client:
        client.send_message(mail)


async def subjects(stream: Stream, count: int) -> list[str]:
    """What so many new messages were about, in the order in which they were pushed."""
    async with asyncio.timeout(TAKEN_OVER):
        return [(await stream.event())[1]["subject"] for _ in range(count)]


async def members_of(servers: Servers, group: str) -> int:
    async with admin(servers.kafka) as client:
        (answer,) = await client.describe_consumer_groups([group])
        ((_, _, state, _, _, members, *_),) = answer.groups
        assert state == "Stable"
        return len(members)


async def test_two_of_each_role_divide_the_work_and_one_of_each_is_enough(street: Street, servers: Servers) -> None:
    """Every mail is pushed once, whichever door it came through and whichever one its reader waits at."""
    prefix = street.installation.environment["POSTLEDGER_TOPIC_PREFIX"]
    for group in ("decider.mailbox", "projector.mailbox.events"):
        (name,) = [name for name in await groups_of(servers, prefix) if group in name]
        assert await members_of(servers, name) == 2
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        readers = [await reader_at_the_second(street, session, opened_at=number % 2) for number in range(INBOXES)]
        streams = [await stack.enter_async_context(reader.watching(f"{reader.here}/events")) for reader in readers]
        for number, reader in enumerate(readers):
            for door in (0, 1):
                await asyncio.to_thread(send, street.port("smtp", door), reader.address, f"{number} by {door}")
        for number, stream in enumerate(streams):
            assert sorted(await subjects(stream, 2)) == [f"{number} by 0", f"{number} by 1"]
        for role in ROLES:
            street.processes[role, 0].kill()
        for number, reader in enumerate(readers):
            await asyncio.to_thread(send, street.port("smtp", 1), reader.address, f"{number} later")
        for number, stream in enumerate(streams):
            assert await subjects(stream, 1) == [f"{number} later"]
        for number, reader in enumerate(readers):
            listed = json.loads(await reader.get(f"{reader.here}/messages"))
            assert sorted(row["subject"] for row in listed) == [f"{number} by 0", f"{number} by 1", f"{number} later"]


async def reader_at_the_second(street: Street, session: aiohttp.ClientSession, *, opened_at: int) -> Reader:
    """The reader of a new inbox, which one HTTP process opened and the second one shows."""
    async with session.post(f"http://127.0.0.1:{street.port('http', opened_at)}/api/v1/mailboxes") as answer:
        assert answer.status == 201, await answer.text()
        return Reader(session, f"http://127.0.0.1:{street.port('http', 1)}", await answer.json())


async def groups_of(servers: Servers, prefix: str) -> list[str]:
    async with admin(servers.kafka) as client:
        return sorted(name for name, *_ in await client.list_consumer_groups() if name.startswith(prefix))


def test_the_tour_goes_through_everything(street: Street) -> None:
    """After the test above with one of each role, or alone with two."""
    said = street.doors[1].says("demo", "--output", "json")
    assert (said.code, said.err) == (0, "")
    steps = {row["did"]: row for row in said.rows}
    assert [row["step"] for row in said.rows] == list(range(1, 9))
    assert steps["Sent a mail with an attachment and saw it arrive"]["pushed_ms"] > 0
    assert "the same as were sent" in steps["Downloaded its attachment"]["said"]
    assert steps["Filled it until the plan's quota was reached"]["said"].startswith("9 more had room")
    assert '"message.rejected"' in steps["The log says of the next one"]["said"]


def test_the_tour_can_be_read_by_people(street: Street) -> None:
    said = street.doors[1].says("demo")
    assert said.code == 0
    assert re.match(r" 1\. Opened an inbox  \(\d+ ms\)\n    \S+@mail\.localhost, until 20", said.out)
