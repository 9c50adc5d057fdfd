"""A whole installation on shared servers: its own topics, database and folder, its roles as processes that can be killed.

async with installed(servers, database, prefix, folder) as house:
    work = await house.start("work", kill="D before snapshot:3")
    mailbox = await house.open_mailbox()
    await work.ended()
    ...
    await house.quiet()
    assert check(await house.observed()) == []
"""

import asyncio
import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

import main
from domain.mailbox_commands import CreateMailbox, ReadMessage
from domain.plans import Limits, Plan
from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.command_log import CommandLog
from gateways.log.event_log import EventLog, LogUnavailable
from gateways.settings import Settings
from gateways.stores import sealing
from gateways.stores.blobs import LocalBlobs
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.postgres import pooled
from schemas import commands, topics
from schemas.envelope import Record, command_headers, first
from schemas.ids import new_id
from schemas.raw_mail import RawMail, headers_of
from schemas.vocabulary import encode
from tests.faults.ledger import Ledger
from tests.faults.nursery import Child, Nursery


@cache
def nursery() -> Nursery:
    """The one of this test process; it ends with it."""
    return Nursery()


EVENTS, COMMANDS, MAIL = topics.MAILBOX_EVENTS.name, topics.MAILBOX_COMMANDS.name, topics.MAIL_RAW.name
ROOMY = Plan("roomy", Limits(default_ttl_minutes=60, longest_ttl_minutes=1440, live_mailboxes=50, live_messages=5000))
#: Its mailboxes expire the moment they are made.
FLEETING = Plan("fleeting", Limits(default_ttl_minutes=0, longest_ttl_minutes=0, live_mailboxes=50, live_messages=50))


@dataclass
class Role:
    """One process of the installation."""

    nursery: Nursery
    child: Child
    log: Path
    told: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def status(self) -> int | None:
        """How it ended, −9 for SIGKILL; None while it runs."""
        return self.nursery.deaths.get(self.child)

    def signal(self, signum: signal.Signals) -> None:
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    async def ended(self, seconds: float = 30) -> int:
        try:
            async with asyncio.timeout(seconds):
                while self.status is None:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            said = self.log.read_text()
            self.signal(signal.SIGUSR1)  # it tells what its tasks are at
            await asyncio.sleep(0.5)
            tasks = Counter(re.findall(r"coro=<(.+?) running", self.log.read_text()[len(said) :]))
            raise AssertionError(f"it did not end: {tasks.most_common()}: {said[-4000:]}") from None
        return self.status

    async def stop(self) -> int:
        """Asks it to end, and waits until it has."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    @property
    def landed(self) -> list[str]:
        """The points it has come to."""
        return self.told.read_text().splitlines() if self.told.exists() else []


@dataclass
class OpenMailbox:
    mailbox: str
    owner: str
    address: str
    data_key: bytes


@dataclass
class Installation:
    """The installation and a way to ask it for things as a gateway would."""

    settings: Settings
    pool: Any
    log: EventLog
    command_log: CommandLog
    keyring: Keyring
    blobs: LocalBlobs
    ledger_path: Path
    ledger: Ledger
    producer: AIOKafkaProducer
    roles: list[Role] = field(default_factory=list)
    mailboxes: list[OpenMailbox] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return self.settings.topic_prefix

    @property
    def smtp_port(self) -> int:
        return self.settings.smtp_address[1]

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(
        self, *names: str, kill: str = "", stop: str = "", owner: str = "", patience: float = 30, quiet: float = 60
    ) -> Role:
        """Starts roles in one process; returns when they are ready, have come to their point, or have ended already."""
        folder = Path(tempfile.mkdtemp(dir=self.settings.data, prefix="-".join(names) + "-"))
        ready, told = folder / "ready", folder / "told"
        arms = [*(["--kill", kill] if kill else []), *(["--stop", stop] if stop else [])]
        scales = ["--patience", str(patience), "--quiet", str(quiet), "--told", str(told), "--owner", owner]
        arguments = [*arms, *scales, "--", *names, "--ready-file", str(ready)]
        child = await asyncio.to_thread(nursery().bear, arguments, self._environment(), folder / "log")
        role = Role(nursery(), child, folder / "log", told)
        self.roles.append(role)
        async with asyncio.timeout(40):
            while not ready.exists() and role.status is None and not role.landed:
                await asyncio.sleep(0.01)
        return role

    def _environment(self) -> dict[str, str]:
        own = {
            f"POSTLEDGER_{name.upper()}": _said(value)
            for name, value in self.settings
            if value is not None and name in self.settings.model_fields_set
        }
        plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTLEDGER_")}
        return plain | own

    async def end(self) -> None:
        """Ends every process, however it is."""
        for role in self.roles:
            await role.kill()

    # ── being a gateway ───────────────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, command: Any, owner: str, *, operation: str = "") -> None:
        await self.command_log.command(
            COMMANDS, owner, command, vocabulary=commands.MAILBOX, subject=command.mailbox, command_id=operation or None
        )

    async def open_mailbox(self, owner: str = "", plan: Plan = ROOMY) -> OpenMailbox:
        """Asks for a mailbox; it is open once the installation has come to it."""
        mailbox = new_id("mbx")
        address, owner = f"{mailbox[4:]}@{self.settings.mail_domain}", owner or mailbox
        data_key = await self.keyring.create(mailbox)
        keyset = open_keyset(self.settings.keyset_path)
        sealed = sealing.seal(data_key, address.encode(), sealing.place("mailbox", mailbox, "address"))
        self.ledger.sent(mailbox, mailbox, kind="create")
        await self.ask(CreateMailbox(mailbox, owner, keyset.digest("address", address), sealed, plan), owner)
        self.mailboxes.append(OpenMailbox(mailbox, owner, address, data_key))
        return self.mailboxes[-1]

    async def with_mailboxes(self, count: int) -> None:
        """Mailboxes that are in the tables already: a door answers 250 for those it does not know, and drops their mail."""
        first_roles = await self.start("work", "project")
        for _ in range(count):
            await self.open_mailbox()
        await self.quiet()
        await first_roles.stop()

    async def mail(self, box: OpenMailbox, text: bytes, *, digest: Any = None) -> str:
        """A mail as a door would append it, acknowledged by the log; its message id."""
        import hashlib
        from datetime import UTC, datetime, timedelta

        message, sha256 = new_id("msg"), hashlib.sha256(text).hexdigest()
        envelope = sealing.seal(box.data_key, b"{}", sealing.place("message", message, "envelope"))
        found = RawMail(message, box.mailbox, "smtp", len(text), sha256, envelope, digest)
        now = datetime.now(UTC)
        headers = headers_of(found, at=now, not_after=now + timedelta(seconds=30))
        self.ledger.sent(message, box.mailbox, sha256)
        sealed = sealing.seal_bytes(box.data_key, text, sealing.place("message", message, "raw"))
        await self.command_log.append(MAIL, box.owner, sealed, headers)
        self.ledger.answered(message, "ok")
        return message

    async def put(self, topic: str, value: bytes, headers: Any, *, key: bytes = b"somebody", partition: int = 0) -> int:
        """Any record at all, as only somebody with access to Kafka could write it; its offset."""
        sent = await self.producer.send(self.prefix + topic, value, key=key, headers=headers, partition=partition)
        return (await sent).offset

    # ── becoming quiet ────────────────────────────────────────────────────────────────────────────────────────────────

    async def quiet(self, *, seconds: float = 60, projected: bool = True) -> None:
        """Returns when every command has been decided and every decision is in the tables: by position."""
        async with asyncio.timeout(seconds):
            for partition in range(self.settings.partitions or 1):
                while not await self._all_decided(partition):
                    pass
                while projected and not await self._all_folded(partition):
                    await asyncio.sleep(0.05)

    async def _all_decided(self, partition: int) -> bool:
        """Appends a last command and a last mail: once they are decided and nothing came after them, all is decided."""
        begins = (await self._bounds(EVENTS, partition))[1]
        last = {COMMANDS: await self._last_command(partition), MAIL: await self._last_mail(partition)}
        missing = {f"{topic}/{partition}/{offset}" for topic, offset in last.items()}
        while missing:
            try:
                async for records in self.log.read_on(EVENTS, partition, begins):
                    begins += len(records)
                    missing -= {first(record.headers)["srcpos"] for record in records if not record.void}
            except LogUnavailable:
                continue
            await asyncio.sleep(0.05)
        ends = {topic: (await self._bounds(topic, partition))[1] for topic in last}
        return ends == {topic: offset + 1 for topic, offset in last.items()}

    async def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        while True:
            with suppress(LogUnavailable):
                return await self.log.bounds(topic, partition)

    async def _last_command(self, partition: int) -> int:
        command = ReadMessage("mbx_nobodys", new_id("msg"))
        headers = command_headers(
            command_id=new_id("cmd"), kind=commands.MAILBOX.type_of(command), subject=command.mailbox, at=_now()
        )
        return await self.put(COMMANDS, encode(command), headers, key=b"mbx_nobodys", partition=partition)

    async def _last_mail(self, partition: int) -> int:
        found = RawMail(new_id("msg"), "mbx_nobodys", "smtp", 1, "0" * 64, sealing.Sealed("x"))
        headers = [header for header in headers_of(found, at=_now(), not_after=_now()) if header[0] != "notafter"]
        return await self.put(MAIL, b"x", headers, key=b"mbx_nobodys", partition=partition)

    async def _all_folded(self, partition: int) -> bool:
        _, end = await self._bounds(EVENTS, partition)
        least = await self.pool.fetchval(
            "select min(position) from checkpoints where topic = $1 and partition = $2 and name not like 'effect.%'",
            EVENTS,
            partition,
        )
        return least is not None and least >= end

    async def records(self, topic: str) -> list[Record]:
        """Every record of a topic that is kept."""
        found: list[Record] = []
        for partition in range(self.settings.partitions or 1):
            start, _ = await self.log.bounds(topic, partition)
            async for records in self.log.read_on(topic, partition, start):
                found += records
        return found


def _said(value: Any) -> str:
    """A setting's value as a variable says it."""
    if isinstance(value, bool):
        return str(int(value))
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


@asynccontextmanager
async def installed(
    servers: Servers, database: str, prefix: str, folder: Path, *, partitions: int = 1, **more: Any
) -> AsyncIterator[Installation]:
    """Topics, tables and the parts of a gateway; no role runs yet. `more` are settings; rates are off unless they say so."""
    settings = Settings(
        data=folder,
        kafka=servers.kafka,
        database_url=SecretStr(database),
        smtp=f"127.0.0.1:{free_port()}",
        http=f"127.0.0.1:{free_port()}",
        topic_prefix=prefix,
        partitions=partitions,
        **{"rates": "off", **more},
    )
    await main.prepare(settings)
    keyset = open_keyset(settings.keyset_path)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(pooled(database, size=3))
        log, command_log = EventLog(servers.kafka, prefix=prefix), CommandLog(servers.kafka, prefix=prefix)
        stack.push_async_callback(log.close)
        stack.push_async_callback(command_log.close)
        producer = AIOKafkaProducer(bootstrap_servers=servers.kafka.split(","), acks="all", max_request_size=8_000_000)
        await producer.start()
        stack.push_async_callback(producer.stop)
        path = folder / "ledger.jsonl"
        house = Installation(
            settings, pool, log, command_log, Keyring(pool, LocalKeys(keyset)), LocalBlobs(settings.blobs_path), path,
            stack.enter_context(Ledger(path)), producer,
        )  # fmt: skip
        stack.push_async_callback(house.end)
        yield house
