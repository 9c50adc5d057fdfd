"""An installation whose workers are processes that can be killed, with mailboxes at doubles of Gmail, Graph and a mail server
which keep receipts, and an endpoint for webhooks; and a load of sends, by all of them at once."""

import asyncio
import base64
import email
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from domain.account import CreateAccount
from domain.webhooks import AddWebhook
from gateways.local_servers import Servers
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.stores.postgres import UNREACHABLE
from gateways.stores.sealing import place, seal
from gateways.stores.webhook_endpoints import account_key
from handlers.sends import FOLD_VERSION
from main import assembled
from schemas import commands, events, topics
from schemas.envelope import Record
from schemas.ids import new_id
from tests.faults import log_scan, looking
from tests.faults.installation import Installation, installed
from tests.faults.send_checker import ObservedSends, Told
from tests.support.gmail.double import GmailFake
from tests.support.gmail.double import Token as GmailToken
from tests.support.graph.double import UNKIND, GraphFake
from tests.support.graph.double import Token as GraphToken
from tests.support.mail_servers.double import SmtpServer
from tests.support.send_house import OWNER, Mailbox, SendHouse, own_server
from tests.support.webhook_house import Receiver, receiving

#: Waits of ours are so much shorter: an attempt has 4 s, a first wait is 3 s.
SCALE, TIMEOUT = 0.05, 2.5
#: Seconds that a provider takes: kills "within" a call land before its answer.
LATENCY = 0.15
#: Sends under way, from which on callers wait: workers that live for seconds must come to their points, and not to a backlog.
MOST_UNDER_WAY = 40
ENDED = ("sent", "failed", "cancelled", "uncertain", "dead_lettered")
#: The share of sends before which the next call of the mailbox is made to fail.
UNKIND_SHARE = 0.2
#: Of each provider.
MAILBOXES = {"gmail": 3, "outlook": 3, "smtp": 3}


@dataclass
class Sending:
    """The installation, and what callers have asked of it."""

    house: Installation
    sends: SendHouse
    smtp: SmtpServer
    receiver: Receiver
    mailboxes: list[Mailbox] = field(default_factory=list)
    #: By send: whether it was acknowledged.
    asked: dict[str, bool] = field(default_factory=dict)

    async def observed(self, *, uncertain: int = 0) -> ObservedSends:
        rows = await self.house.pool.fetch("select send, status from sends")
        log, inputs = (
            await self.house.records(topics.SEND_EVENTS.name),
            await self.house.records(topics.SEND_COMMANDS.name),
        )
        return ObservedSends(
            asked=self.asked,
            log=log,
            inputs=_decided(inputs, log),
            snapshots=await looking.snapshots(self.house, f"send.v{FOLD_VERSION}"),
            shown={row["send"]: row["status"] for row in rows},
            receipts=await self.receipts(),
            told=[_told(call.id, json.loads(call.body)) for call in self.receiver.calls],
            uncertain=uncertain,
        )

    async def receipts(self) -> list[str]:
        """The send of each mail that went out, by its Message-ID, which every attempt of a send has in common."""
        ids = [one.message_id_before for one in self.sends.gmail.receipts()]
        ids += [one["internetMessageId"] for one in self.sends.graph.receipts()]
        for mail in (await self.smtp.told())["mails"]:
            ids.append(email.message_from_bytes(base64.b64decode(mail["content"]))["Message-ID"])
        return [str(found).strip().removeprefix("<").partition("@")[0] for found in ids]

    async def all_ended(self, seconds: float = 60) -> None:
        """Every send that was acknowledged has ended, and whoever is to be told was told."""
        left: dict[str, list[str]] = {}
        try:
            async with asyncio.timeout(seconds):
                while any((left := await self._left()).values()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            named = [send for found in left.values() for send in found][:2]
            said = [f"{send}: {await self.sends.history(send)}" for send in named]
            counts = {name: len(found) for name, found in left.items()}
            raise AssertionError(f"after {seconds} s: {counts} {said}") from None

    async def under_way(self) -> int:
        """How many have not ended, as far as the tables are."""
        found: int = await self.house.pool.fetchval("select count(*) from sends where status <> all($1)", list(ENDED))
        return found

    async def _left(self) -> dict[str, list[str]]:
        """The sends of which something is still to come."""
        rows = {row["send"]: row["status"] for row in await self.house.pool.fetch("select send, status from sends")}
        told = [_told(call.id, json.loads(call.body)) for call in self.receiver.calls]
        ends = {call.send for call in told if call.type != "send.deferred"}
        return {
            "not shown": [send for send, acknowledged in self.asked.items() if acknowledged and send not in rows],
            "not ended": [send for send, status in rows.items() if status not in ENDED],
            "not told": [send for send, status in rows.items() if status in ENDED and send not in ends],
        }


def _decided(inputs: list[Record], log: list[Record]) -> list[Record]:
    """Up to the last decision: claims for sends that have ended come until the last moment, and wait for the next start."""
    ends: dict[int, int] = {}
    for fact in log_scan.facts(log, events.SEND):
        ends[fact.source.partition] = max(ends.get(fact.source.partition, -1), fact.source.offset)
    return [record for record in inputs if record.offset <= ends.get(record.partition, -1)]


def _told(name: str, body: dict[str, Any]) -> Told:
    return Told(name, body["type"], body["data"]["messageId"])


@dataclass
class SendLoad:
    """Callers who ask for mails until they are told to finish, and providers that fail now and then."""

    sending: Sending
    seed: int
    pause: float = 1.5
    finishing: asyncio.Event = field(default_factory=asyncio.Event)
    answers: Counter[str] = field(default_factory=Counter)

    async def run(self, callers: int = 3) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(self._ask(Random(f"{self.seed}/{number}")))

    async def _ask(self, random: Random) -> None:
        while not self.finishing.is_set():
            await asyncio.sleep(self.pause * random.random() * 2)
            if await self._waits():
                continue
            mailbox = random.choice(self.sending.mailboxes)
            later = datetime.now(UTC) + timedelta(seconds=random.uniform(0.5, 2))
            more = {"scheduled_at": later} if random.random() < 0.2 else {}
            if random.random() < UNKIND_SHARE:
                await self._be_unkind(mailbox, random)
            await self._send(mailbox, more)

    async def _waits(self) -> bool:
        """Whether very much is under way; where the tables stand still, callers go on asking."""
        try:
            return await self.sending.under_way() >= MOST_UNDER_WAY
        except UNREACHABLE:
            return False

    async def _send(self, mailbox: Mailbox, more: dict[str, Any]) -> None:
        send = new_id("snd")
        self.sending.asked[send] = False
        try:
            await self.sending.sends.send(mailbox, send=send, **more)
        except NotPromised:
            del self.sending.asked[send]
            self.answers["refused"] += 1
        except (OutcomeUnknown, *UNREACHABLE):
            self.answers["unknown"] += 1
        else:
            self.sending.asked[send] = True
            self.answers["taken"] += 1

    async def _be_unkind(self, mailbox: Mailbox, random: Random) -> None:
        """The next call fails: its answer is lost before or after the mail goes out, or the provider is busy."""
        gmail, graph = self.sending.sends.gmail, self.sending.sends.graph
        when = random.choice(["before", "after"])
        if mailbox.provider == "gmail":
            failure = random.choice(
                [
                    {"match": "drafts.send", "status": 504, "when": when},
                    {"match": "drafts.create", "status": 503},
                    {"match": "drafts.send", "status": 429, "retryAfter": "1"},
                ]
            )
            await gmail.fail(user=mailbox.address, **failure)
        elif mailbox.provider == "outlook":
            failure = random.choice(
                [{"match": "messages.send", "drop": when}, {"match": "messages.create", "status": 503}]
            )
            await graph.fail(user=mailbox.address, **failure)


@asynccontextmanager
async def sending(
    servers: Servers, database: str, prefix: str, folder: Path, *, partitions: int = 1, **more: Any
) -> AsyncIterator[Sending]:
    """All of it, with mailboxes connected; no role runs when the block begins."""
    async with AsyncExitStack() as stack:
        gmail = await stack.enter_async_context(
            GmailFake({"-": GmailToken("-")}, latency=LATENCY, fsync=False, unitsPerUser=None)
        )
        graph = await stack.enter_async_context(
            GraphFake({"-": GraphToken("-")}, latency=LATENCY, mailsPerMinute=10_000, sync=False, **UNKIND)
        )
        smtp = await stack.enter_async_context(SmtpServer({"ada": {"password": "secret"}}))
        await smtp.fail("END", delayMs=int(LATENCY * 1000), times=1_000_000)
        receiver = await stack.enter_async_context(receiving())
        said = {
            "retry_scale": SCALE, "provider_timeout": TIMEOUT, "webhook_timeout": 1.0, "allow_private_hosts": True,
            "google_api_url": gmail.url, "microsoft_graph_url": graph.url,
        }  # fmt: skip
        house = await stack.enter_async_context(
            installed(servers, database, prefix, folder, partitions=partitions, **(said | more))
        )
        ours = await stack.enter_async_context(assembled(house.settings, []))
        await ours.connect()
        sends = SendHouse(ours, gmail, graph, house.log, folder, scale=SCALE)
        found = Sending(house, sends, smtp, receiver)
        first = await house.start("work", "project")
        await _with_endpoint(found)
        for provider, count in MAILBOXES.items():
            for _ in range(count):
                servers_of = own_server(smtp.plain_port, "ada", "secret") if provider == "smtp" else None
                found.mailboxes.append(await sends.connect(provider, servers=servers_of))
        await first.stop()
        yield found


async def _with_endpoint(found: Sending) -> None:
    """An endpoint of the account whose users send, which wants to be told of everything."""
    house, endpoint = found.sends.house, new_id("whk")
    data_key = await account_key(house.keyring, OWNER)
    url = seal(data_key, found.receiver.url.encode(), place("webhook", endpoint, "url"))
    for command in (CreateAccount(OWNER, "pro"), AddWebhook(OWNER, endpoint, url)):
        await house.command_log.command(
            topics.ACCOUNT_COMMANDS.name, OWNER, command, vocabulary=commands.ACCOUNT, subject=OWNER
        )
    await found.sends.found("select 1 from webhooks where endpoint = $1", endpoint)
