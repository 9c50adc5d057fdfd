"""A mailbox at the SMTP peer, as the contract of all who send wants it."""

from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import CollectorRegistry

from domain.delivery import Answer, Deferred, InDoubt, Refused
from domain.mail import parse
from domain.outgoing import MARKER, Access
from domain.tokens import MailServer, OAuthClient, OwnServers, Secrets
from gateways.providers.egress import Egress
from gateways.providers.measures import ProviderMeasures
from gateways.providers.smtp_sending import SmtpSending
from tests.gateways.providers.sending_contract import TRACES, Fault, Recorder, Sending, Sent
from tests.gateways.providers.smtp_peer import CUT, SILENT, Act, SmtpPeer
from tests.support.mail_servers.authority import Authority

ALICE = "alice@gmail.test"
PASSWORD, TOKEN = "canary-password-7d2c", "canary-token-91ab"
OAUTH = OAuthClient("https://a.test/", "https://t.test/", "client", None, ["mail"])
DAY = Deferred("daily_quota", counted=False)
FAULTS: dict[Fault, Act | str] = {
    "cut before": CUT,
    "cut after": Act(takes=True),
    "failed before": Act(b"451 4.3.0 Temporary failure"),
    # What a gateway in between says is no reply of SMTP's.
    "failed after": Act(b"HTTP/1.1 502 Bad Gateway", takes=True),
    "silent before": SILENT,
    "silent after": "silent after",
}


@dataclass
class SmtpSends(Sending):
    """By XOAUTH2 to the peer, or `by_password`."""

    peer: SmtpPeer = None  # type: ignore[assignment]  # a dataclass's field after others with defaults
    by_password: bool = False
    username: str = ALICE
    bounded: float | None = None

    def access(self, *, good: bool = True) -> Access:
        password = (PASSWORD if good else "canary-wrong") if self.by_password else None
        server = MailServer("127.0.0.1", self.peer.port, "none", self.username, password)
        servers = OwnServers(server, server, None if self.by_password else OAUTH)
        token = None if self.by_password else (TOKEN if good else "canary-wrong")
        return Access("con_1", ALICE, [], Secrets(token, servers=servers))

    def sent(self) -> list[Sent]:
        read = [(mail, parse(mail.content)) for mail in self.peer.mails]
        return [
            Sent(told.headers[MARKER.lower()][0], told.message_id, [one.lower() for one in mail.recipients])
            for mail, told in read
        ]

    async def fail(self, fault: Fault) -> None:
        # A server may take as long as the attempt has, so a silent one is heard out.
        self.bounded = 0.3 if fault.startswith("silent") else None
        act = FAULTS[fault]
        self.peer.acts["END"].append(Act(b"", takes=True, drip=60.0) if act == "silent after" else act)

    async def send(self, notes: Recorder, mail: Any = None, *, good: bool = True) -> Answer:
        if self.bounded is not None:
            notes.seconds, self.bounded = self.bounded, None
        return await super().send(notes, mail, good=good)

    async def tries(self, mail: Any = None, *, last: bool = False, seconds: float = 5.0) -> tuple[Answer, Recorder]:
        notes = Recorder(replace(TRACES, last=last), seconds=seconds)
        return await self.send(notes, mail), notes


def without_text(answer: Answer) -> Answer:
    return replace(answer, said=None) if isinstance(answer, Deferred | Refused | InDoubt) else answer


def smtp_sends_to(peer: SmtpPeer, authority: Authority) -> SmtpSends:
    """By calls that are bounded by half a second."""
    registry = CollectorRegistry()
    sender = SmtpSending(Egress(True), ProviderMeasures(registry), authority.trusting, 0.5)
    return SmtpSends(sender, registry, drafts=False, secrets={TOKEN, PASSWORD}, peer=peer)
