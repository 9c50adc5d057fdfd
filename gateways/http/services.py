"""What the HTTP surface is given to work with; `main` makes it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from gateways.http.anonymous_plan import AnonymousPlan
from gateways.http.key_cache import KeyCache
from gateways.http.pages import Pages
from gateways.log.command_log import CommandLog
from gateways.log.decisions import Decisions
from gateways.log.tail import Tail
from gateways.providers.egress import Egress
from gateways.stores.blobs import Blobs
from gateways.stores.folded import FoldedPositions
from gateways.stores.key_stock import KeyStock
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset
from gateways.stores.postgres import Pool
from gateways.stores.rates import CREATION, REQUESTS, SENDS, Limit, Rates
from projections.messages import Whole


class ReadsMail(Protocol):
    """Mails and what parsing found in them, opened. Both raise Erased, BlobMissing, LookupError where it
    is no longer kept, or what keeps the log or the store from answering."""

    async def raw(self, row: Whole, /) -> bytes:
        """The mail as it came."""
        ...

    async def content(self, row: Whole, /) -> bytes | None:
        """The JSON of everything the API shows; None where the mail could not be parsed."""
        ...


@dataclass(frozen=True)
class Services:
    """Everything behind the HTTP surface. `decisions` are those of the mailbox context, the others of theirs.

    `checks` are further dependencies that `/readyz` names: each returns, or raises what is wrong. `kafka` are the brokers as
    clients find them. `tail` and `asyncapi` may be missing: lag is then not told, and the document is not served.
    `retry_scale` is a factor on every wait of a send; `public_url` is where browsers find it all, empty where nobody said.
    """

    pool: Pool
    keyset: Keyset
    keyring: Keyring
    key_stock: KeyStock
    decisions: Decisions
    account_decisions: Decisions
    connection_decisions: Decisions
    send_decisions: Decisions
    webhook_decisions: Decisions
    command_log: CommandLog
    folded: FoldedPositions
    mail: ReadsMail
    blobs: Blobs
    rates: Rates
    mail_domain: str
    attachment_days: float = 7.0
    link_seconds: int = 300
    rates_on: bool = True
    creation_limit: Limit = CREATION
    request_limit: Limit = REQUESTS
    send_limit: Limit = SENDS
    retry_scale: float = 1.0
    public_url: str = ""
    kafka: str | None = None
    tail: Tail | None = None
    asyncapi: Callable[[], dict[str, Any]] | None = None
    checks: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    api_keys: KeyCache = field(default_factory=KeyCache)
    anonymous_plan: AnonymousPlan = field(default_factory=AnonymousPlan)
    pages: Pages = field(default_factory=Pages)
    egress: Egress = field(default_factory=Egress)
