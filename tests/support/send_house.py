"""A house that works and projects in this process, with mailboxes connected at doubles of Gmail, Graph and a mail server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from domain.connection_commands import AuthoriseConnection, RevokeConnection
from domain.connection_events import Provider, Token
from domain.fields import Digest
from domain.provider_scopes import DEFAULT_SCOPES
from domain.send_commands import KnownConnection, RequestSend
from domain.tokens import MailServer, OwnServers, Secrets
from gateways.local_servers import Servers
from gateways.log.event_log import EventLog
from gateways.settings import Settings
from gateways.stores.sealing import place, seal
from main import House, assembled, prepare
from schemas import commands, events, topics
from schemas.envelope import first
from schemas.ids import new_id
from schemas.send_message import MESSAGE, Person, SendMessage
from tests.support.gmail.double import GmailFake
from tests.support.gmail.double import Token as GmailToken
from tests.support.graph.double import GraphFake
from tests.support.graph.double import Token as GraphToken

#: Seconds that a call to the provider may take.
TIMEOUT = 1.5
#: Waits of ours are so much shorter.
SCALE = 0.005
OWNER = "acc_ours"


@dataclass
class Mailbox:
    """A connected mailbox."""

    connection: str
    user: str
    provider: Provider
    address: str
    digest: Digest


@dataclass
class SendHouse:
    """What tests ask and do."""

    house: House
    gmail: GmailFake
    graph: GraphFake
    log: EventLog
    folder: Path
    scale: float = SCALE
    mailboxes: dict[str, Mailbox] = field(default_factory=dict)

    async def connect(
        self,
        provider: Provider = "gmail",
        *,
        user: str = "",
        scopes: Sequence[str] | None = None,
        servers: OwnServers | None = None,
        token: str = "",
        refresh: str = "refresh",
        address: str = "",
    ) -> Mailbox:
        """A new mailbox, in the vault, in the tables, and at its provider."""
        connection, user = new_id("con"), user or new_id("usr")
        address = address or f"{connection[4:]}@mail.test"
        token = token or f"token-of-{connection}"
        granted = list(scopes if scopes is not None else DEFAULT_SCOPES[provider])
        if provider == "gmail":
            await self.gmail.token(token, address, " ".join(granted))
        elif provider == "outlook":
            await self.graph.token(token, address)
        digest = self.house.keyset.digest("connection-account", provider, address)
        mailbox = Mailbox(connection, user, provider, address, digest)
        until = None if servers else datetime.now(UTC) + timedelta(hours=1)
        secrets = Secrets(None if servers else token, None if servers else refresh, until, servers)
        await self.authorise(mailbox, secrets, granted)
        await self.found("select 1 from connections where connection = $1", connection)
        self.mailboxes[connection] = mailbox
        return mailbox

    async def authorise(self, mailbox: Mailbox, secrets: Secrets, granted: Sequence[str]) -> None:
        """What a callback does, when a mailbox is connected or connected again."""
        connection, user, provider = mailbox.connection, mailbox.user, mailbox.provider
        vault = self.house.vault
        fingerprint = vault.fingerprint_of(secrets)
        version = await vault.put(connection, user, provider, secrets, fingerprint)
        keys = await self.house.keyring.get([user])
        data_key = keys.get(user) or await self.house.keyring.create(user)
        authorise = AuthoriseConnection(
            connection=connection,
            user=user,
            owner=OWNER,
            provider=provider,
            auth="password" if secrets.servers else "oauth",
            account=seal(data_key, mailbox.address.encode(), place("connection", connection, "account")),
            account_digest=mailbox.digest,
            subject_digest=None,
            scopes=list(granted),
            asked_scopes=list(granted),
            token=Token(fingerprint, version, secrets.expires_at),
        )
        await self.tell_connections(authorise)

    async def revoke(self, mailbox: Mailbox) -> None:
        await self.tell_connections(RevokeConnection(mailbox.connection, mailbox.user, "caller"))

    async def tell_connections(self, command: Any) -> None:
        await self.house.command_log.command(
            topics.CONNECTION_COMMANDS.name,
            command.user,
            command,
            vocabulary=commands.CONNECTION,
            subject=command.connection,
        )

    async def send(
        self, mailbox: Mailbox, *, subject: str = "Tea at four", to: str = "bob@example.org", **more: Any
    ) -> str:
        """Asks for a mail to be sent by this mailbox; `more` are fields of RequestSend that are other than usual."""
        send = more.pop("send", "") or new_id("snd")
        message = more.pop("message", None) or SendMessage(
            subject, "It is served.", "text", "It is served.", [Person(to)]
        )
        data_key = (await self.house.keyring.get([mailbox.user]))[mailbox.user]
        known = KnownConnection(mailbox.connection, mailbox.provider, mailbox.digest, "active")
        command = RequestSend(
            send=send,
            user=mailbox.user,
            owner=OWNER,
            message_id=f"<{send}@mail.localhost>",
            body=Digest("body"),
            recipients=1,
            attachments=[],
            size=100,
            connections=more.pop("connections", [known]),
            message=seal(data_key, MESSAGE.dump_json(message), place("send", send, "message")),
            scale=self.scale,
            **more,
        )
        await self.tell(command)
        return send

    async def tell(self, command: Any) -> None:
        """Appends a command to sends."""
        await self.house.command_log.command(
            topics.SEND_COMMANDS.name, command.user, command, vocabulary=commands.SEND, subject=command.send
        )

    # ── what has become of it ─────────────────────────────────────────────────────────────────────────────────────────

    async def found(self, query: str, *words: Any, holds: Callable[[Any], bool] = bool, seconds: float = 20) -> Any:
        """The row, once there is one that holds."""
        row = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    row = await self.house.pool.fetchrow(query, *words)
                    if row is not None and holds(row):
                        return row
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s: {row}") from None

    async def becomes(self, send: str, *statuses: str, seconds: float = 20) -> Any:
        """The send's row, once its status is one of these."""
        try:
            return await self.found(
                "select * from sends where send = $1",
                send,
                holds=lambda row: row["status"] in statuses,
                seconds=seconds,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; {await self.history(send)}") from None

    async def history(self, send: str) -> list[Any]:
        """What the log says of one send."""
        found = []
        topic = topics.SEND_EVENTS.name
        for partition in await self.log.partitions(topic):
            start, _ = await self.log.bounds(topic, partition)
            async for records in self.log.read_on(topic, partition, start):
                found += [record for record in records if not record.void]
        decoded = [events.SEND.decode(first(one.headers)["ce_type"], one.value) for one in found]
        return [event for event in decoded if getattr(event, "send", None) == send]


@asynccontextmanager
async def send_house(
    servers: Servers,
    database: str,
    prefix: str,
    folder: Path,
    *,
    roles: tuple[str, ...] = ("work", "project"),
    gmail: dict[str, Any] | None = None,
    graph: dict[str, Any] | None = None,
    **said: Any,
) -> AsyncIterator[SendHouse]:
    """All of it, until the block ends. `gmail` and `graph` are settings of the doubles, `said` those of the installation."""
    async with AsyncExitStack() as stack:
        google = await stack.enter_async_context(GmailFake({"-": GmailToken("-")}, **(gmail or {})))
        microsoft = await stack.enter_async_context(GraphFake({"-": GraphToken("-")}, **(graph or {})))
        settings = Settings(
            **{
                "data": folder,
                "kafka": servers.kafka,
                "database_url": SecretStr(database),
                "topic_prefix": prefix,
                "partitions": 1,
                "provider_timeout": TIMEOUT,
                "retry_scale": SCALE,
                "google_api_url": google.url,
                "microsoft_graph_url": microsoft.url,
                "allow_private_hosts": True,
            }
            | said
        )
        await prepare(settings)
        log = EventLog(servers.kafka, prefix=prefix)
        stack.push_async_callback(log.close)
        house = await stack.enter_async_context(assembled(settings, roles))
        yield SendHouse(house, google, microsoft, log, folder)


def own_server(port: int, username: str, password: str) -> OwnServers:
    """A mail server on this machine, without TLS."""
    server = MailServer("127.0.0.1", port, "none", username, password)
    return OwnServers(server, server)
