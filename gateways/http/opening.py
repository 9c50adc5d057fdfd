"""The HTTP door as a whole: the application, its streams and its server, opened and closed in order."""

import asyncio
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from gateways.http.admission import Admission
from gateways.http.app import create_app
from gateways.http.connect.parts import Connecting
from gateways.http.connect.return_urls import ReturnUrls
from gateways.http.connect.routes import routes as connect_routes
from gateways.http.live import Live
from gateways.http.services import Services
from gateways.http.serving import server
from gateways.http.ses_inbound import routes as ses_routes
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Decisions
from gateways.log.raw_mail import RawMailLog
from gateways.log.tail import Tail
from gateways.log.use_reports import UseReports
from gateways.mail_in.door import Door
from gateways.mail_in.s3_mail import S3Mail
from gateways.mail_in.ses import SesInbound
from gateways.mail_in.sns import SnsVerifier
from gateways.mail_in.sns_http import SnsHttp
from gateways.mail_in.sns_topics import topics as sns_topics
from gateways.providers.catalogue import Connectors
from gateways.providers.egress import Egress
from gateways.stores.blobs import Blobs
from gateways.stores.consents import Consents, Sessions, Tickets
from gateways.stores.folded import FoldedPositions
from gateways.stores.key_stock import KeyStock
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset
from gateways.stores.mail_store import MailStore
from gateways.stores.postgres import Pool
from gateways.stores.rates import Limit, Rates
from gateways.stores.vault import Vault
from schemas import asyncapi, commands, events
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True)
class HttpParts:
    """What the HTTP door is made of. `kafka`: brokers as clients find them; `address`: host and port to listen on.

    `public_url`: where browsers find it; `return_urls`: where they may be sent back to, by commas. `proxies`: the addresses
    and networks, by commas, whose `X-Forwarded-For` is believed.
    """

    pool: Pool
    keyset: Keyset
    keyring: Keyring
    command_log: CommandLog
    tail: Tail
    folded: FoldedPositions
    blobs: Blobs
    door: Door
    kafka: str
    topic_prefix: str
    mail_domain: str
    rates_on: bool
    creation_limit: Limit
    request_limit: Limit
    send_limit: Limit
    retry_scale: float
    proxies: str
    sns_topics: str
    vault: Vault
    connectors: Connectors
    uses: UseReports
    public_url: str
    return_urls: str
    allow_private_hosts: bool
    attachment_days: float
    link_seconds: int
    address: tuple[str, int]
    metrics: CollectorRegistry


async def open_http(parts: HttpParts, stack: AsyncExitStack) -> None:
    """Listens until the stack is closed. Raises OSError where the address can't be had, ValueError for wrong SNS topics."""
    listening = socket.create_server(parts.address, backlog=2048, family=_family(parts.address[0]))
    records = RawMailLog(parts.kafka, prefix=parts.topic_prefix)
    stack.push_async_callback(records.close)
    stock = KeyStock(parts.keyring)
    stack.push_async_callback(stock.close)

    def decisions(commands_: Vocabulary, events_: Vocabulary) -> Decisions:
        return Decisions(parts.command_log, parts.tail, parts.folded, commands=commands_, events=events_)

    services = Services(
        pool=parts.pool,
        keyset=parts.keyset,
        keyring=parts.keyring,
        key_stock=stock,
        decisions=decisions(commands.MAILBOX, events.MAILBOX),
        account_decisions=decisions(commands.ACCOUNT, events.ACCOUNT),
        connection_decisions=decisions(commands.CONNECTION, events.CONNECTION),
        send_decisions=decisions(commands.SEND, events.SEND),
        webhook_decisions=decisions(commands.WEBHOOK, events.WEBHOOK),
        command_log=parts.command_log,
        folded=parts.folded,
        mail=MailStore(parts.keyring, records, parts.blobs),
        blobs=parts.blobs,
        attachment_days=parts.attachment_days,
        link_seconds=parts.link_seconds,
        rates=Rates(parts.pool),
        mail_domain=parts.mail_domain,
        rates_on=parts.rates_on,
        creation_limit=parts.creation_limit,
        request_limit=parts.request_limit,
        send_limit=parts.send_limit,
        retry_scale=parts.retry_scale,
        public_url=parts.public_url,
        kafka=parts.kafka,
        tail=parts.tail,
        asyncapi=asyncapi.document,
        metrics=parts.metrics,
        egress=Egress(parts.allow_private_hosts),
    )
    live = Live(
        Admission(services, parts.tail), parts.tail, parts.folded, parts.pool, parts.keyring, metrics=parts.metrics
    )
    await live.start()
    stack.push_async_callback(live.stop)
    sns = await stack.enter_async_context(SnsHttp.session())
    verifier = SnsVerifier(sns_topics(parts.sns_topics), SnsHttp(sns))
    ses = ses_routes(SesInbound(parts.door, verifier, S3Mail({})))
    app = create_app(services, routers=[ses, connect_routes(services, _connecting(parts))], streams=[live])
    serving = server(app, *parts.address, proxies=parts.proxies)
    task = asyncio.create_task(serving.serve(sockets=[listening]))

    async def close() -> None:
        """Streams end before the server waits for its connections."""
        await live.close_all()
        serving.should_exit = True
        await task

    stack.push_async_callback(close)
    while not serving.started and not task.done():  # noqa: ASYNC110 - uvicorn tells it by a flag only
        await asyncio.sleep(0.005)


def _connecting(parts: HttpParts) -> Connecting:
    return Connecting(
        vault=parts.vault,
        connectors=parts.connectors,
        tickets=Tickets(parts.pool, parts.keyset),
        consents=Consents(parts.pool, parts.keyset),
        sessions=Sessions(parts.pool),
        uses=parts.uses,
        public_url=parts.public_url.rstrip("/"),
        return_urls=ReturnUrls.of(parts.return_urls),
        allow_private_hosts=parts.allow_private_hosts,
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
