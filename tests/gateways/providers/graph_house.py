"""Sending by Graph's double, with everything around it: a mailbox, mails, and what really went out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry
from yarl import URL

from domain.delivery import Found, ProvenSent
from domain.outgoing import Access, OutgoingMail, Traces
from domain.tokens import Secrets
from gateways.providers.calls import Calls
from gateways.providers.egress import Egress
from gateways.providers.graph_sending import GraphSending
from gateways.providers.measures import ProviderMeasures
from tests.gateways.providers.house import TRUSTING
from tests.gateways.providers.sending_contract import Fault, Sending, Sent, a_mail
from tests.support.graph.caller import ALICE
from tests.support.graph.double import GraphFake
from tests.support.waiting import until

SECONDS = 1.0
SCOPES = ["Mail.ReadWrite", "https://graph.microsoft.com/Mail.Send", "openid"]
#: Where all that was granted is to send.
SEND_ONLY = ["https://graph.microsoft.com/Mail.Send", "openid"]
FAULTS: dict[Fault, dict[str, Any]] = {
    "cut before": {"drop": "before"},
    "cut after": {"drop": "after"},
    "failed before": {"status": 504},
    "failed after": {"status": 504, "when": "after"},
    "silent before": {"delay": 2 * SECONDS, "drop": "before"},
    "silent after": {"delayAfter": 2 * SECONDS},
}


@dataclass
class Outlook(Sending):
    """Alice's mailbox."""

    graph: GraphFake | None = None
    token: str = "alice"
    scopes: list[str] = field(default_factory=lambda: SCOPES)
    sends_by: str = "messages.send"

    @property
    def double(self) -> GraphFake:
        assert self.graph is not None
        return self.graph

    def access(self, *, good: bool = True) -> Access:
        return Access("con_1", ALICE, self.scopes, Secrets(self.token if good else "nobody-s-token"))

    def sent(self) -> list[Sent]:
        return [
            Sent(
                dict(one["headers"]).get("X-Postledger-Marker"),
                one["internetMessageId"],
                one["to"] + one["cc"] + one["bcc"],
            )
            for one in self.double.receipts()
        ]

    async def fail(self, fault: Fault) -> None:
        await self.double.fail(self.sends_by, **FAULTS[fault])

    async def proven(self, traces: Traces) -> ProvenSent:
        """Once Graph shows it."""
        found: list[Found] = []

        async def sent() -> bool:
            found.append(await self.look(traces))
            return isinstance(found[-1], ProvenSent)

        await until(sent)
        assert isinstance(found[-1], ProvenSent)
        return found[-1]

    async def counts(self) -> dict[str, int]:
        return {name: number for name, number in (await self.double.told())["counts"].items() if number}

    async def boxed(self) -> list[dict[str, Any]]:
        """Every message there is."""
        return (await self.double.told())["mailboxes"].get(ALICE, [])


def mail_of(**changes: Any) -> OutgoingMail:
    """Alice's mail."""
    return a_mail(ALICE, **changes)


@asynccontextmanager
async def outlook_at(
    graph: GraphFake, *, url: str = "", private: bool = True, seconds: float = 20
) -> AsyncIterator[Outlook]:
    """`url`: of another Graph than the double. `private`: whether hosts of one's own network may be called."""
    egress, registry = Egress(private), CollectorRegistry()
    async with Calls.opened(egress, ProviderMeasures(registry), TRUSTING, seconds) as calls:
        yield Outlook(GraphSending(calls, egress, URL(url or graph.url)), registry, graph=graph)


def only_sending(outlook: Outlook) -> Outlook:
    """The same mailbox, whose user granted no more than to send."""
    return replace(outlook, drafts=False, token="sends", scopes=SEND_ONLY, sends_by="sendMail")
