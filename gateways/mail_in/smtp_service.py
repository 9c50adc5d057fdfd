"""What all conversations of one SMTP server share: its door, its bounds, its slots and its counters."""

import asyncio
import ipaddress
import ssl
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateways.mail_in.door import Door
from gateways.mail_in.smtp_data import Room
from gateways.mail_in.smtp_limits import Limits

Admission = Literal["accepted", "server full", "client full"]
Ending = Literal["quit", "gone", "idle", "slow", "too long", "refused", "flooding", "stopping"]
MailOutcome = Literal["kept", "dropped", "deferred", "too large", "looping", "no space", "lost"]


class Watched(Protocol):
    """One connection, as the server that watches over all of them sees it."""

    def check_deadlines(self, now: float) -> None:
        """Ends the connection where what it waits for should have come by `now` (the event loop's clock)."""

    def finish(self, reply: str, ending: Ending) -> None:
        """Ends the connection with these last words once the mail in hand is answered; at once where there is none."""

    def abort(self) -> None:
        """Cuts the connection."""


class Counts(Protocol):
    """What an operator wants counted; called on the event loop, so it must be quick."""

    def connection(self, admission: Admission) -> None:
        """A client connected."""

    def ended(self, ending: Ending) -> None:
        """An accepted connection is over."""

    def mail(self, outcome: MailOutcome, size: int) -> None:
        """A mail that was begun with DATA has been answered (or its client was gone before its end: `lost`)."""


class Uncounted:
    """Counts nothing."""

    def connection(self, admission: Admission) -> None:
        """Nothing."""

    def ended(self, ending: Ending) -> None:
        """Nothing."""

    def mail(self, outcome: MailOutcome, size: int) -> None:
        """Nothing."""


def network_of(peer: str) -> str:
    """The client an address stands for: itself for IPv4 (also one mapped into IPv6), its /64 for IPv6."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


@dataclass
class Service:
    """One server's standing: read by its conversations, which enter and leave it."""

    door: Door
    limits: Limits
    hostname: str
    tls_context: ssl.SSLContext
    counts: Counts
    open: int = 0
    room: Room = field(init=False)
    nobody_here: asyncio.Event = field(default_factory=asyncio.Event)
    conversations: set[Watched] = field(default_factory=set)
    _by_network: Counter[str] = field(default_factory=Counter)
    _commits: set[asyncio.Task[str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.room = Room(self.limits.roomy, self.limits.places)

    def admit(self, network: str) -> Admission:
        """Takes a slot where there is one; an accepted connection gives it back with `leave`."""
        per_client = self.limits.connections_per_client
        if self.open >= self.limits.connections:
            return "server full"
        if per_client is not None and self._by_network[network] >= per_client:
            return "client full"
        self.open += 1
        self.nobody_here.clear()
        self._by_network[network] += 1
        return "accepted"

    def leave(self, network: str) -> None:
        """Gives a slot back."""
        self.open -= 1
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
        if not self.open:
            self.nobody_here.set()

    @property
    def idle(self) -> float:
        """How many seconds a client has for its next command, now."""
        crowded = self.open > self.limits.crowded * self.limits.connections
        return self.limits.idle_when_crowded if crowded else self.limits.idle

    def commit(self, commit: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        """Runs a commit that ends whole even when the client that waits for it has gone."""
        task = asyncio.get_running_loop().create_task(commit)
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return task

    async def all_committed(self) -> None:
        """Returns when no commit is under way; the Door bounds how long each takes."""
        while self._commits:
            await asyncio.wait(self._commits)
