"""One attempt, with the domain's own decisions and Postgres' own places, where time runs out between its steps."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.delivery import Accepted, Answer, Deferred, TokenRefused
from domain.outgoing import Mailbox, OutgoingMail
from domain.send_commands import NoteTransmission
from domain.send_events import (
    AttemptDeferred,
    AttemptInDoubt,
    AttemptStarted,
    AttemptSucceeded,
    SendSent,
    TransmissionStarted,
)
from domain.tokens import MailServer, OwnServers, Secrets
from gateways.log.claims import Claims
from gateways.log.work_queue import WorkQueue
from gateways.stores.mailbox_limits import Allowed, MailboxLimits
from gateways.stores.postgres import pooled
from gateways.stores.rates import Rates
from handlers.accesses import Accesses
from handlers.deliver import BESIDE_THE_CALL, Delivering
from handlers.deliver_parts import Parts
from handlers.refresh_parts import AccessToken
from handlers.send_reports import SendReports
from handlers.tiers import Waits
from projections.migrate import migrate
from schemas import events
from schemas.envelope import Record, moment
from schemas.vocabulary import encode
from schemas.work import DeliverSend
from tests.support import spec
from tests.support.send_words import GMAIL, SMTP, USER, dispatched, request, requested

SCALE = 0.001
MAIL = OutgoingMail(
    "<snd_1@mail.test>",
    "snd_1",
    datetime.now(UTC),
    Mailbox("ada@mail.test"),
    [Mailbox("bob@mail.test")],
    [],
    [],
    [],
    "",
    "",
)
SERVER = MailServer("127.0.0.1", 25, "none", "ada", "secret")
RECORD = Record("deliver.smtp", 0, 0, round(datetime.now(UTC).timestamp() * 1000), "con", b"", [("ce_id", b"evt_1")])
ANOTHER = replace(SMTP, connection="con_4")
FIRST = DeliverSend("snd_1", USER, SMTP.connection, "smtp", SMTP.mailbox)
SECOND = DeliverSend("snd_2", USER, ANOTHER.connection, "smtp", ANOTHER.mailbox)

Sends = Callable[[str, Any], Awaitable[Answer]]


@dataclass
class Opened:
    mail: OutgoingMail
    address: str = "ada@mail.test"
    scopes: list[str] = field(default_factory=list)


@dataclass
class World:
    """The decider's log, a vault, mails and providers, all of which are what a test says they are."""

    sends: Sends
    decider_takes: float = 0.0
    vault: Callable[[int], Awaitable[None]] | None = None
    opens: Callable[[str], Awaitable[None]] | None = None
    fold: spec.Fold = field(default_factory=lambda: spec.Fold(spec.SEND))
    history: list[Any] = field(default_factory=list)
    waiting: dict[str, asyncio.Future[Record]] = field(default_factory=dict)
    put_off: list[Any] = field(default_factory=list)
    reads: int = 0

    def __post_init__(self) -> None:
        for send, by in (("snd_1", SMTP), ("snd_2", ANOTHER), ("snd_3", GMAIL), ("snd_4", SMTP)):
            self.fold.apply(requested(request(by, send=send, key=None)))
            self.fold.apply(replace(dispatched(by), send=send))

    # ── the log of sends and what follows it ──────────────────────────────────────────────────────────────────────────

    def decision_on(self, command_id: str) -> asyncio.Future[Record]:
        return self.waiting.setdefault(command_id, asyncio.get_running_loop().create_future())

    def forget(self, command_id: str) -> None:
        self.waiting.pop(command_id, None)

    async def command(self, topic: str, user: str, command: Any, *, command_id: str | None = None, **more: Any) -> None:
        asyncio.get_running_loop().call_later(self.decider_takes, self._decide, command, command_id)

    def _decide(self, command: Any, command_id: str | None) -> None:
        decided = self.fold.run(command, moment(round(time.time() * 1000)), USER)
        self.history += decided
        if decided and command_id in self.waiting and not self.waiting[command_id].done():
            kind = events.SEND.type_of(decided[0]).encode()
            self.waiting[command_id].set_result(Record("", 0, 0, 0, USER, encode(decided[0]), [("ce_type", kind)]))

    # ── the vault ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, connection: str) -> Any:
        self.reads += 1
        if self.vault is not None:
            await self.vault(self.reads)
        own = connection != GMAIL.connection
        secrets = Secrets(None, None, None, OwnServers(SERVER, SERVER)) if own else Secrets("token", "refresh", None)
        return Held(connection, secrets)

    async def access_token(self, connection: str, *, refused: int | None = None, held: Any = None) -> AccessToken:
        return AccessToken("token", 1 if refused is None else 2, None)

    # ── mails, a provider, and places to wait ─────────────────────────────────────────────────────────────────────────

    async def open(self, send: str, connection: str) -> Opened:
        if self.opens is not None:
            await self.opens(send)
        return Opened(replace(MAIL, marker=send))

    async def close(self, opened: Any) -> None: ...

    async def send(self, mail: OutgoingMail, access: Any, traces: Any, notes: Any) -> Answer:
        return await self.sends(mail.marker, notes)

    async def append(self, topic: str, key: str, value: bytes, headers: Any, *, lapses: bool) -> None:
        self.put_off.append(topic)

    def note(self, connection: str, user: str, call: Any) -> None: ...

    def dispatched(self, provider: str, seconds: float) -> None: ...

    def attempted(self, provider: str, outcome: str, code: str | None) -> None: ...

    def of(self, kind: type, send: str) -> list[Any]:
        return [event for event in self.history if isinstance(event, kind) and event.send == send]

    async def heard(self, kind: type, send: str) -> Any:
        """The first of this kind, once it is decided: reports are not waited for."""
        async with asyncio.timeout(5):
            while not self.of(kind, send):
                await asyncio.sleep(0)
        return self.of(kind, send)[0]


@dataclass
class Held:
    connection: str
    secrets: Secrets
    version: int = 1


class Unlimited:
    """No limits at all."""

    async def wait_for_rate(self, provider: Any, mailbox: str) -> float:
        return 0.0

    async def take(self, provider: Any, mailbox: str) -> Any:
        return object()

    async def renew(self, mailbox: str, slot: Any) -> bool:
        return True

    async def give_back(self, mailbox: str, slot: Any) -> None: ...


def delivering(world: Any, limits: Any = None, *, decider: Any = None, timeout: float = 10.0) -> Delivering:
    accesses, reports = Accesses(world, world, scale=SCALE), SendReports(world)
    providers, waits = {"gmail": world, "smtp": world}, Waits(WorkQueue(world), scale=SCALE)
    decider = decider or Claims(world, world)
    parts = Parts(decider, world, accesses, providers, limits or Unlimited(), waits, reports, world, world, scale=SCALE)
    return Delivering(parts, worker="w", timeout=timeout)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    await migrate(database)
    async with pooled(database, size=4) as pool:
        yield pool


def one_at_a_time(pool: Any, worker: str, *, timeout: float = 10.0) -> MailboxLimits:
    seconds = timeout + BESIDE_THE_CALL * SCALE
    return MailboxLimits(pool, Rates(pool), {"smtp": Allowed(None, 1)}, holder=worker, seconds=seconds)


# ── whose limits hold ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_mailbox_at_another_s_own_server_that_never_answers_takes_no_place_of_ours(pool):
    """Both say that they are the same address; only one of them is."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def sends(send: str, notes: Any) -> Answer:
        if send == "snd_1":
            begun.set()
            await goes_on.wait()
        return Accepted()

    assert FIRST.mailbox == SECOND.mailbox
    world = World(sends)
    worker = delivering(world, one_at_a_time(pool, "w"))
    hanging = asyncio.create_task(worker.act(FIRST, RECORD))
    async with asyncio.timeout(5):
        await begun.wait()
        await worker.act(SECOND, RECORD)
        assert await world.heard(SendSent, "snd_2")
        await worker.act(FIRST, RECORD)
    assert world.put_off, "of the connection itself there is one at a time"
    goes_on.set()
    await hanging


async def test_what_another_s_own_server_says_of_the_mailbox_pauses_nobody_else():
    async def sends(send: str, notes: Any) -> Answer:
        return Deferred("daily_quota", 600.0, counted=False) if send == "snd_1" else Accepted()

    world = World(sends)
    worker = delivering(world)
    await worker.act(FIRST, RECORD)
    await worker.act(SECOND, RECORD)
    assert await world.heard(SendSent, "snd_2")
    assert (await world.heard(AttemptDeferred, "snd_1")).code == "daily_quota"


# ── a token that is refused ───────────────────────────────────────────────────────────────────────────────────────────

BY_GMAIL = DeliverSend("snd_3", USER, GMAIL.connection, "gmail", GMAIL.mailbox)


async def fails(read: int) -> None:
    if read > 1:
        raise ConnectionError("Postgres is away")


async def hangs(read: int) -> None:
    if read > 1:
        await asyncio.Event().wait()


@pytest.mark.parametrize("vault", [fails, hangs])
async def test_a_call_that_was_refused_for_its_token_leaves_no_doubt_where_there_is_no_other_token(vault):
    async def sends(send: str, notes: Any) -> Answer:
        await notes.transmission()
        return TokenRefused()

    world = World(sends, vault=vault)
    await delivering(world, timeout=0.3).act(BY_GMAIL, RECORD)
    deferred = await world.heard(AttemptDeferred, "snd_3")
    assert (deferred.code, deferred.counted) == ("token_unavailable", False)
    assert world.of(TransmissionStarted, "snd_3")
    assert not world.of(AttemptInDoubt, "snd_3")


async def test_the_next_call_after_a_refused_one_is_open_again():
    calls = []

    async def sends(send: str, notes: Any) -> Answer:
        await notes.transmission()
        calls.append(send)
        if len(calls) == 1:
            return TokenRefused()
        raise ConnectionError("after its last byte")

    world = World(sends)
    await delivering(world).act(BY_GMAIL, RECORD)
    assert (await world.heard(AttemptInDoubt, "snd_3")).code == "connection_lost"


# ── places that outlive their attempts ────────────────────────────────────────────────────────────────────────────────


async def test_a_place_that_was_lost_while_the_mail_was_opened_is_no_place_to_send_in(pool):
    seconds, opening = 0.3, {send: (asyncio.Event(), asyncio.Event()) for send in ("snd_1", "snd_4")}
    sending: list[str] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def opens(send: str) -> None:
        began, may_end = opening[send]
        began.set()
        await may_end.wait()

    async def sends(send: str, notes: Any) -> Answer:
        sending.append(send)
        begun.set()
        await goes_on.wait()
        return Accepted()

    world = World(sends, opens=opens)
    one, two = (delivering(world, one_at_a_time(pool, name, timeout=seconds), timeout=seconds) for name in "ab")
    second = replace(FIRST, send="snd_4")

    async def asks_until_there_is_room() -> None:
        while not opening["snd_4"][0].is_set():
            await two.act(second, RECORD)

    async with asyncio.timeout(20):
        first = asyncio.create_task(one.act(FIRST, RECORD))
        await opening["snd_1"][0].wait()
        other = asyncio.create_task(asks_until_there_is_room())
        await opening["snd_4"][0].wait()
        opening["snd_1"][1].set()
        await asyncio.wait([first, asyncio.create_task(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
        begun.clear()
        opening["snd_4"][1].set()
        await begun.wait()
        assert sending == ["snd_4"]
        assert first.done()
        goes_on.set()
        await asyncio.gather(first, other)
    assert not world.of(AttemptStarted, "snd_1"), "it asks again when there is room"


async def test_whoever_opens_a_mail_for_long_has_all_of_an_attempt_s_time_from_then_on(pool):
    seconds = 0.6

    async def opens(send: str) -> None:
        await asyncio.sleep(seconds)

    async def sends(send: str, notes: Any) -> Answer:
        held.append(await pool.fetchval("select extract(epoch from held_until - now()) from mailbox_slots"))
        left.append(notes.seconds_left())
        return Accepted()

    left: list[float] = []
    held: list[Any] = []
    world = World(sends, opens=opens)
    await delivering(world, one_at_a_time(pool, "w", timeout=seconds), timeout=seconds).act(FIRST, RECORD)
    assert 0 < left[0] <= float(held[0])


# ── decisions that take long ──────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_decided_late_makes_an_attempt_all_the_same(monkeypatch):
    """Given up sooner, a claim would be granted to nobody, and a note would leave a doubt though nothing went out."""
    monkeypatch.setattr("gateways.log.claims.DECIDE_SECONDS", 0.05)

    async def sends(send: str, notes: Any) -> Answer:
        await notes.transmission()
        return Accepted()

    world = World(sends, decider_takes=0.3)
    await delivering(world).act(FIRST, RECORD)
    assert await world.heard(SendSent, "snd_1")
    assert [type(event) for event in world.history] == [
        AttemptStarted, TransmissionStarted, AttemptSucceeded, SendSent,
    ]  # fmt: skip


@pytest.mark.parametrize("left", [True, False])
async def test_what_may_have_left_is_in_doubt_though_that_is_decided_too_late_to_be_known(left):
    """As where a server has answered before the end of the mail. What had yet to leave is tried again."""

    async def sends(send: str, notes: Any) -> Answer:
        await notes.transmission(left=left)
        return Accepted()

    world = World(sends)

    class Late(Claims):
        async def ask(self, command: Any, trace: Any, **more: Any) -> Any:
            if isinstance(command, NoteTransmission):
                await asyncio.sleep(60)
            return await super().ask(command, trace, **more)

    await delivering(world, decider=Late(world, world), timeout=0.5).act(FIRST, RECORD)
    told = await world.heard(AttemptInDoubt if left else AttemptDeferred, "snd_1")
    assert told.code == "timed_out"


async def test_a_claim_that_is_decided_after_its_attempt_s_end_asks_nobody_and_does_not_count():
    calls = []

    async def sends(send: str, notes: Any) -> Answer:
        calls.append(send)
        return Accepted()

    world = World(sends)

    class Late(Claims):
        async def ask(self, command: Any, trace: Any, **more: Any) -> Any:
            granted = await super().ask(command, trace, **more)
            await asyncio.sleep(0.2)
            return granted

    await delivering(world, decider=Late(world, world), timeout=0.1).act(FIRST, RECORD)
    deferred = await world.heard(AttemptDeferred, "snd_1")
    assert (deferred.code, deferred.counted, calls) == ("out_of_time", False, [])
