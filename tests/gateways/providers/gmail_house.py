"""Gmail's double, a mailbox there, and the way to send by it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from yarl import URL

from domain.outgoing import Access
from domain.tokens import Secrets
from gateways.providers.calls import Calls
from gateways.providers.egress import Egress
from gateways.providers.gmail_sending import GmailSending
from gateways.providers.measures import ProviderMeasures
from tests.gateways.providers.house import TRUSTING
from tests.gateways.providers.sending_contract import Fault, Sending, Sent
from tests.support.gmail.caller import ALICE
from tests.support.gmail.caller import TOKENS as SCOPED
from tests.support.gmail.double import GmailFake

SECONDS = 1.0
TOKENS = {f"canary-token-{name}": token for name, token in SCOPED.items()}
FAULTS: dict[Fault, dict[str, Any]] = {
    "cut before": {"drop": "before"},
    "cut after": {"drop": "after"},
    "failed before": {"status": 504},
    "failed after": {"status": 504, "when": "after"},
    "silent before": {"delay": 2 * SECONDS, "drop": "before"},
    "silent after": {"delayAfter": 2 * SECONDS},
}


@dataclass
class Gmail(Sending):
    gmail: GmailFake | None = None
    token: str = "alice"
    method: str = "drafts.send"

    @property
    def double(self) -> GmailFake:
        assert self.gmail is not None
        return self.gmail

    def access(self, *, good: bool = True) -> Access:
        token = f"canary-token-{self.token}" if good else "nobody-s-token"
        return Access("con_1", ALICE, SCOPED[self.token].scope.split(), Secrets(token))

    def restart(self) -> None:
        """What it has read of mails is forgotten."""
        assert isinstance(self.sender, GmailSending)
        self.sender = GmailSending(self.sender._calls, self.sender._api)

    def sent(self) -> list[Sent]:
        return [Sent(one.marker, one.message_id_before, list(one.recipients)) for one in self.double.receipts()]

    async def fail(self, fault: Fault) -> None:
        await self.double.fail(self.method, **FAULTS[fault])

    async def requests(self) -> dict[str, int]:
        told = await self.double.told()
        return {name: number for name, number in told["requests"].items() if number}


@asynccontextmanager
async def sending_by(gmail: GmailFake, url: str = "", seconds: float = SECONDS) -> AsyncIterator[Gmail]:
    """One whose calls are bounded by so many seconds; the double is put back as it was."""
    await gmail.reset()
    # What a search finds is at once to be found; the tests that are about the lag say so.
    await gmail.set(indexLag=0.0)
    registry = CollectorRegistry()
    async with Calls.opened(Egress(True), ProviderMeasures(registry), TRUSTING, seconds) as calls:
        yield Gmail(GmailSending(calls, URL(url or gmail.url)), registry, secrets=set(TOKENS), gmail=gmail)
