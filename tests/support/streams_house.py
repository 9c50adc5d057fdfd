"""What streams need of a house, in this process: a real log and real tables, their projectors, a tail, and a server.

Events are appended by hand, so that a test says exactly what happens and when; there are no deciders.
"""

import asyncio
import hashlib
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.partitioner import murmur2
from prometheus_client import CollectorRegistry

from domain.account import AccountCreated, ApiKeyIssued, ApiKeyRevoked
from domain.fields import Sealed
from domain.mailbox_events import (
    MailboxCreated,
    MailboxDeleted,
    MailboxExpired,
    MessageParsed,
    MessageReceived,
    RawPlace,
)
from domain.plans import BUILT_IN
from gateways.http.admission import Admission
from gateways.http.live import Bounds, Live
from gateways.http.services import Services
from gateways.http.serving import server
from gateways.local_ports import free_port
from gateways.local_servers import Servers
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Decisions
from gateways.log.event_log import EventLog
from gateways.log.provision import open_log, provision
from gateways.log.subscriptions import Subscriptions
from gateways.log.tail import Tail
from gateways.stores.folded import FoldedPositions
from gateways.stores.key_stock import KeyStock
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset, open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.postgres import Pool, pooled
from gateways.stores.rates import REQUESTS, Limit, Rates
from gateways.stores.sealing import place, seal
from projections.catalogue import of_topic
from projections.migrate import migrate
from projections.projector import Projector
from schemas import commands, events
from schemas.envelope import Source, event_headers
from schemas.ids import new_id
from schemas.topics import ACCOUNT_EVENTS, CONNECTION_EVENTS, MAILBOX_EVENTS, SEND_EVENTS
from schemas.vocabulary import Vocabulary, encode
from tests.support.servers import create_database, drop_database

PARTITIONS = 2
VOCABULARIES = {
    MAILBOX_EVENTS.name: events.MAILBOX,
    ACCOUNT_EVENTS.name: events.ACCOUNT,
    SEND_EVENTS.name: events.SEND,
    CONNECTION_EVENTS.name: events.CONNECTION,
}


@dataclass
class Box:
    """A mailbox of the tests: its ids, its address, what opens it, and its messages in the order of the log."""

    mailbox: str
    owner: str
    address: str
    token: str
    data_key: bytes
    messages: list[str] = field(default_factory=list)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def path(self) -> str:
        return f"/api/v1/mailboxes/{self.address}/events"


class StreamsHouse:
    """One installation; `live` serves at `url`."""

    def __init__(self, kafka: str, prefix: str, pool: Pool, keyset: Keyset, partitions: int) -> None:
        self.kafka, self.prefix, self.pool, self.keyset, self.partitions = kafka, prefix, pool, keyset, partitions
        self.keyring = Keyring(pool, LocalKeys(keyset))
        self.log = EventLog(kafka, prefix=prefix)
        self.tail: Tail
        self.folded: FoldedPositions
        self.admission: Admission
        self.ends: dict[tuple[str, int], int] = {}
        self._lock = asyncio.Lock()

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def mailbox(self, *, owner: str | None = None, seconds: float = 3600) -> Box:
        mailbox = new_id("mbx")
        address = f"{secrets.token_hex(8)}@mail.example"
        data_key = await self.keyring.create(mailbox)
        now = datetime.now(UTC)
        created = MailboxCreated(
            mailbox=mailbox,
            owner=owner or mailbox,
            address_digest=self.keyset.digest("address", address),
            address=seal(data_key, address.encode(), place("mailbox", mailbox, "address")),
            created_at=now,
            expires_at=now + timedelta(seconds=seconds),
            plan="free",
            plan_position=None,
            limits=BUILT_IN["free"].limits,
            token_version=1,
        )
        await self.append(created, owner or mailbox)
        return Box(mailbox, owner or mailbox, address, self.keyset.mailbox_token(mailbox, 1), data_key)

    def mail(self, box: Box, subject: str = "Hello", **more: Any) -> MessageReceived:
        """A mail that this mailbox has been sent; append it to have it received."""
        message = new_id("msg")
        box.messages.append(message)
        summary = {"from_address": "ann@example.org", "from_name": "Ann", "subject": subject, "has_attachments": False}
        envelope = {"sender": "bounce@example.org", "recipient": box.address}
        return replace(
            MessageReceived(
                message=message,
                mailbox=box.mailbox,
                owner=box.owner,
                number=len(box.messages),
                received_at=datetime.now(UTC),
                size=100,
                sha256="0" * 64,
                via="smtp",
                envelope=self.sealed(box, message, "envelope", envelope),
                state="whole",
                raw=RawPlace(0, 0),
                summary=self.sealed(box, message, "summary", summary),
                content=Sealed("AA=="),
            ),
            **more,
        )

    def sealed(self, box: Box, message: str, name: str, facts: dict[str, Any]) -> Sealed:
        return seal(box.data_key, json.dumps(facts).encode(), place("message", message, name))

    async def receive(self, box: Box, subject: str = "Hello") -> str:
        """A mail comes in; the id of its message."""
        mail = self.mail(box, subject)
        await self.append(mail, box.owner)
        return mail.message

    async def receive_many(self, box: Box, count: int) -> None:
        """So many mails at once, in one batch."""
        await self.append_all([self.mail(box, f"number {number}") for number in range(count)], box.owner)

    async def receive_slowly(self, box: Box) -> tuple[MessageReceived, MessageParsed]:
        """A mail that is shown only when it has been parsed."""
        mail = self.mail(box)
        await self.append(replace(mail, state="parsing", summary=None, content=None), box.owner)
        parsed = MessageParsed(mail.message, box.mailbox, box.owner, "unparsed", cause="time")
        await self.append(parsed, box.owner)
        return mail, parsed

    async def expire(self, box: Box) -> None:
        await self.append(MailboxExpired(box.mailbox, box.owner, datetime.now(UTC)), box.owner)

    async def delete(self, box: Box) -> None:
        await self.append(MailboxDeleted(box.mailbox, box.owner, box.owner, datetime.now(UTC)), box.owner)

    async def account(self, *scopes: str) -> tuple[str, str, str]:
        """A new account with an API key that is narrowed to these scopes: its id, the key's id, the key."""
        account = new_id("acc")
        await self.append_unfolded([AccountCreated(account, "pro")], account, ACCOUNT_EVENTS.name)
        return account, *await self.key(account, *scopes)

    async def key(self, account: str, *scopes: str) -> tuple[str, str]:
        """A further API key of an account: its id, and the key."""
        key, secret = new_id("key"), f"pl_live_{secrets.token_hex(16)}"
        issued = ApiKeyIssued(account, key, secret[:12], hashlib.sha256(secret.encode()).hexdigest(), list(scopes))
        await self.append_all([issued], account, ACCOUNT_EVENTS.name)
        return key, secret

    async def revoke(self, account: str, key: str) -> None:
        await self.append_all([ApiKeyRevoked(account, key)], account, ACCOUNT_EVENTS.name)

    async def append(self, event: Any, key: str) -> int:
        return await self.append_all([event], key)

    async def append_all(self, happened: list[Any], key: str, topic: str = MAILBOX_EVENTS.name) -> int:
        """Appends these events as one batch and waits until every projection has folded them; the offset after them."""
        end = await self.append_unfolded(happened, key, topic)
        for projection in of_topic(topic):
            await self.folded.reached(projection.name, topic, self.partition_of(key), end, seconds=20)
        return end

    async def append_unfolded(self, happened: list[Any], key: str, topic: str = MAILBOX_EVENTS.name) -> int:
        vocabulary, partition = VOCABULARIES[topic], self.partition_of(key)
        async with self._lock:
            if (topic, partition) not in self.ends:
                self.ends[topic, partition] = (await self.log.bounds(topic, partition))[1]
            start = self.ends[topic, partition]
            batch = self.log.batch()
            for position, event in enumerate(happened, start):
                batch.add([(key.encode(), encode(event), headers_of(event, position, vocabulary, topic, partition))])
            assert await self.log.append(topic, partition, batch) == start
            self.ends[topic, partition] = start + len(happened)
            return start + len(happened)

    def partition_of(self, key: str) -> int:
        return (murmur2(key.encode()) & 0x7FFFFFFF) % self.partitions

    def position(self, box: Box) -> str:
        """What a list of this mailbox's messages would answer as X-Log-Position now."""
        partition = self.partition_of(box.owner)
        end = self.folded.positions["feed", MAILBOX_EVENTS.name, partition]
        return f"{MAILBOX_EVENTS.name}-{partition}:{end}"

    @asynccontextmanager
    async def serving(self, **bounds: Any) -> AsyncIterator["Serving"]:
        """A server of our own kind with streams of these bounds."""
        metrics = CollectorRegistry()
        live = Live(
            self.admission, self.tail, self.folded, self.pool, self.keyring, bounds=Bounds(**bounds), metrics=metrics
        )
        async with serving_live(live) as url:
            yield Serving(live, url, metrics)


@asynccontextmanager
async def serving_live(live: Live) -> AsyncIterator[str]:
    """The URL of a server of our own kind with these streams."""
    await live.start()
    port = free_port()
    serves = server(live, port=port)
    serving = asyncio.create_task(serves._serve())
    await until(lambda: serves.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await live.stop()
        serves.should_exit = True
        await serving


class HeldBack:
    """What the tail of this house has heard of a topic and not told, from its next look on until it is let go."""

    def __init__(self, house: StreamsHouse, monkeypatch: pytest.MonkeyPatch, topic: str = MAILBOX_EVENTS.name) -> None:
        self.found: list[Any] = []
        self._topic, self._holding = house.prefix + topic, True
        self._tell_all = house.tail._tell_all
        monkeypatch.setattr(house.tail, "_tell_all", self._heard)

    def _heard(self, found: Any) -> None:
        held = {place: records for place, records in found.items() if self._holding and place.topic == self._topic}
        if held:
            self.found.append(held)
        self._tell_all({place: records for place, records in found.items() if place not in held})

    def let_go(self) -> None:
        self._holding = False
        for found in self.found:
            self._tell_all(found)


class Serving:
    """Streams that are being served, and where."""

    def __init__(self, live: Live, url: str, metrics: CollectorRegistry) -> None:
        self.live = live
        self.url = url
        self._metrics = metrics

    def measured(self, name: str, **labels: str) -> float:
        """What Prometheus would be told now; 0 where nothing has been counted."""
        return self._metrics.get_sample_value(name, labels) or 0.0


def headers_of(event: Any, position: int, vocabulary: Vocabulary, topic: str, partition: int) -> Any:
    return event_headers(
        event_id=new_id("evt"),
        kind=vocabulary.type_of(event),
        subject=getattr(event, "mailbox", None) or getattr(event, "account", "about the log itself"),
        at=datetime.now(UTC),
        position=position,
        cause={},
        source=Source(topic, partition, position),
        sequence=1,
    )


@asynccontextmanager
async def streams_house(
    servers: Servers, folder: Path, *, request_limit: Limit | None = None, partitions: int = PARTITIONS
) -> AsyncIterator[StreamsHouse]:
    """The parts, running until the block ends, with topics and a database of their own. Without a limit rates are off."""
    prefix = f"live_{uuid.uuid4().hex}."
    async with AsyncExitStack() as stack:
        database = create_database(servers, prefix[:-1])
        stack.callback(drop_database, servers, prefix[:-1])
        await provision(servers.kafka, prefix=prefix, partitions=partitions)
        await migrate(database)
        pool = await stack.enter_async_context(pooled(database, size=8))
        house = StreamsHouse(servers.kafka, prefix, pool, open_keyset(folder / "keyset.json"), partitions)
        stack.push_async_callback(house.log.close)
        await open_log(house.log, pool)
        await _project(house, stack)
        house.folded = await _started(stack, FoldedPositions(database, pool))
        house.tail = await _started(stack, Tail(servers.kafka, list(VOCABULARIES), prefix=prefix))
        house.admission = Admission(_services(house, request_limit), house.tail)
        yield house


async def _project(house: StreamsHouse, stack: AsyncExitStack) -> None:
    subscriptions = Subscriptions(house.kafka, prefix=house.prefix)
    for topic, vocabulary in VOCABULARIES.items():
        projector = Projector(topic, of_topic(topic), vocabulary, house.pool)
        projector.subscription = subscriptions.subscribe([topic], group=f"projector.{topic}", consumes=projector)
        stack.push_async_callback(projector.stop)
    await subscriptions.start()
    stack.push_async_callback(subscriptions.stop)


async def _started(stack: AsyncExitStack, part: Any) -> Any:
    await part.start()
    stack.push_async_callback(part.stop)
    return part


def _services(house: StreamsHouse, request_limit: Limit | None) -> Services:
    command_log = CommandLog(house.kafka, prefix=house.prefix)

    def decisions(commands_: Vocabulary, events_: Vocabulary) -> Decisions:
        return Decisions(command_log, house.tail, house.folded, commands=commands_, events=events_)

    return Services(
        pool=house.pool,
        keyset=house.keyset,
        keyring=house.keyring,
        key_stock=KeyStock(house.keyring),
        decisions=decisions(commands.MAILBOX, events.MAILBOX),
        account_decisions=decisions(commands.ACCOUNT, events.ACCOUNT),
        connection_decisions=decisions(commands.CONNECTION, events.CONNECTION),
        webhook_decisions=decisions(commands.WEBHOOK, events.WEBHOOK),
        send_decisions=decisions(commands.SEND, events.SEND),
        command_log=command_log,
        folded=house.folded,
        mail=cast("Any", None),
        blobs=cast("Any", None),
        rates=Rates(house.pool),
        rates_on=request_limit is not None,
        request_limit=request_limit or REQUESTS,
        mail_domain="mail.example",
    )


async def until(true: Callable[[], bool], *, seconds: float = 30) -> None:
    """Returns as soon as it is true; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)
