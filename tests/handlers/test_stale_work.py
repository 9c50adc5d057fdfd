"""Work that is left of a connection which a send does not go out by any more."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from domain.delivery import Accepted
from domain.send_commands import RedriveSend, StopSend
from handlers.deliver import Delivering
from handlers.deliver_parts import Parts
from schemas.envelope import Record, moment
from schemas.work import DeliverSend
from tests.support.send_words import GMAIL, OUTLOOK, OWNER, SEND, USER, claim, report, request
from tests.support.spec import SEND as RULES
from tests.support.spec import Fold

RECORD = Record("deliver.gmail", 0, 0, 0, "key", b"", [])


@dataclass
class World:
    """Everything that delivering needs beside the rules, which are the real ones."""

    rules: Fold = field(default_factory=lambda: Fold(RULES))
    calls: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)

    def decided(self, command: Any) -> list[Any]:
        return self.rules.run(command, moment(0), USER)

    async def ask(self, command: Any, trace: Any, **more: Any) -> Any:
        return self.decided(command)[0]

    async def tell_surely(self, command: Any, trace: Any) -> None:
        self.decided(command)

    # ── the mail, and the provider ────────────────────────────────────────────────────────────────────────────────────

    async def open(self, send: str, connection: str) -> Any:
        return SimpleNamespace(mail=None, address=f"of {connection}", scopes=[])

    async def close(self, opened: Any) -> None: ...

    async def refusal(self, connection: str) -> None: ...

    @asynccontextmanager
    async def trying(self, connection: str) -> Any:
        yield self

    async def access(self, connection: str, address: str, scopes: list[str], **more: Any) -> Any:
        return (connection, address), 1

    def taken(self, connection: str) -> None: ...

    async def send(self, mail: Any, access: Any, traces: Any, notes: Any) -> Accepted:
        self.calls.append(access)
        return Accepted("p_1")

    # ── what is counted, and what waits ───────────────────────────────────────────────────────────────────────────────

    async def take(self, provider: Any, mailbox: Any) -> str:
        return "slot"

    async def renew(self, mailbox: str, slot: Any) -> bool:
        return True

    async def give_back(self, mailbox: str, slot: Any) -> None: ...

    async def wait_for_rate(self, provider: Any, mailbox: str) -> float:
        return 0.0

    async def put(self, work: Any, trace: Any) -> None:
        self.waiting.append(work)

    def note(self, connection: str, user: str, call: Any) -> None: ...

    def dispatched(self, provider: Any, seconds: float) -> None: ...

    def attempted(self, provider: Any, outcome: str, code: Any) -> None: ...


async def test_it_is_dropped_and_the_work_of_the_other_connection_sends():
    """By the other's token the provider would be called with a sender, with scopes and limits that are not its own."""
    world: Any = World()
    for command in (
        request(GMAIL),
        claim(),
        report("deferred", "unreachable"),
        StopSend(SEND, USER, GMAIL.connection, "connection_revoked", [OUTLOOK]),
        RedriveSend(SEND, USER, OWNER, "caller", [OUTLOOK]),
    ):
        assert world.decided(command)
    providers = {"gmail": world, "outlook": world}
    parts = Parts(world, world, world, providers, world, world, world, world, world)
    delivering = Delivering(parts, worker="w", timeout=1.0)
    left, right = [DeliverSend(SEND, USER, one.connection, one.provider, one.mailbox) for one in (GMAIL, OUTLOOK)]
    for act in (delivering.act, delivering.later):
        await act(left, RECORD)
        assert (world.calls, world.waiting) == ([], [])
        assert world.rules.documents["send", SEND].state == "queued"
    await delivering.act(right, RECORD)
    assert world.calls == [(OUTLOOK.connection, f"of {OUTLOOK.connection}")]
    assert world.rules.documents["send", SEND].state == "sent"
