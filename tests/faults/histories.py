"""Random but repeatable histories, written as the decider writes them: what the checker is tried on.

Two owners with a few mailboxes each; mails that come once, twice and from clients that were cut off; timers that find
nothing to do; commands that lapse or can't be read; and void records of writers that came too late.
"""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from random import Random
from typing import Any

from domain import mailbox_commands as commands
from domain.fields import Digest, Sealed
from domain.mailbox_events import MessageState
from domain.mailbox_state import Mailbox, Message
from domain.outcomes import CommandLapsed, CommandUnreadable, InputsAdvanced, LogOpened
from domain.plans import BUILT_IN
from schemas import commands as command_schemas
from schemas import events as event_schemas
from schemas import raw_mail, topics
from schemas.envelope import Headers, Record, Source, command_headers, event_headers, first, milliseconds, moment
from schemas.raw_mail import RawMail
from schemas.snapshots import Checkpoint
from schemas.vocabulary import encode
from tests.faults.ledger import Operation, Outcome
from tests.faults.log_scan import facts
from tests.faults.observed import Observed, Resources, Shown, Snapshot
from tests.faults.redecide import receive
from tests.support.mailbox_words import create, roomy
from tests.support.spec import MAILBOX, START, Fold

COMMANDS, MAIL, EVENTS = topics.MAILBOX_COMMANDS.name, topics.MAIL_RAW.name, topics.MAILBOX_EVENTS.name
BIG = "big"


class History:
    """One partition of the mailbox context and the clients in front of it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.fold = Fold(MAILBOX)
        self.now = milliseconds(START)
        self.inputs: list[Record] = []
        self.log: list[Record] = []
        self.operations: list[Operation] = []
        self.blobs: dict[str, float] = {}
        self.snapshots: list[Snapshot] = []
        self._sequences: dict[str, int] = {}
        self._next = {COMMANDS: 0, MAIL: 0}
        opened = event_headers(
            event_id="log_1", kind="log.opened.v1", subject="log_1", at=moment(self.now), position=0, cause={},
            source=Source(EVENTS, 0, 0), sequence=1,
        )  # fmt: skip
        self._append("", encode(LogOpened("log_1")), opened)

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, key: str, value: bytes, headers: Headers) -> None:
        self.log.append(Record(EVENTS, 0, len(self.log), self.now, key, value, headers))

    def _input(self, topic: str, key: str, value: bytes, headers: Headers) -> Record:
        self.now += self.random.randrange(1, 4000)
        record = Record(topic, 0, self._next[topic], self.now, key, value, headers)
        self._next[topic] += 1
        self.inputs.append(record)
        return record

    def command(self, command: Any, owner: str, *, late: bool = False) -> None:
        name = f"cmd_{len(self.inputs)}"
        not_after = moment(self.now - 1) if late else moment(self.now + 60_000)
        headers = command_headers(
            command_id=name, kind=command_schemas.MAILBOX.type_of(command), subject=command.mailbox,
            at=moment(self.now), not_after=not_after,
        )  # fmt: skip
        record = self._input(COMMANDS, owner, encode(command), headers)
        lapsed = [CommandLapsed(name, moment(milliseconds(not_after)))]
        self._decide(record, command.mailbox, lapsed if late else self.fold.run(command, moment(self.now), owner))

    def unreadable(self, owner: str) -> None:
        self._is_unreadable(owner, b'{"mailbox": 7', "invalid_body")
        self._is_unreadable(
            owner, encode(commands.DeleteMailbox("mbx_kept", owner)), "missing_header", ("notafter", b"soon")
        )

    def _is_unreadable(self, owner: str, value: bytes, cause: Any, *more: tuple[str, bytes]) -> None:
        name = f"cmd_{len(self.inputs)}"
        headers = command_headers(command_id=name, kind="mailbox.delete-mailbox.v1", subject=owner, at=moment(self.now))
        record = self._input(COMMANDS, owner, value, [*headers, *more])
        self._decide(record, owner, [CommandUnreadable(name, cause, f"dead_{name}")])

    def advance(self) -> None:
        """The log says how far the inputs are decided."""
        event, position = InputsAdvanced(dict(self._next)), len(self.log)
        headers = event_headers(
            event_id=f"adv_{position}", kind=event_schemas.LOG.type_of(event), subject=f"adv_{position}",
            at=moment(self.now), position=position, cause={}, source=Source(EVENTS, 0, position), sequence=1,
        )  # fmt: skip
        self._append("", encode(event), headers)

    def mail(
        self,
        mailbox: str,
        owner: str,
        text: str,
        *,
        outcome: Outcome = "ok",
        message_id: bool = True,
        state: MessageState = "whole",
        waits_behind: Any = None,
    ) -> str:
        """One try of a client to send this text; one that was refused leaves nothing behind. Answers the message's id."""
        digest, number = sha256(text.encode()).hexdigest(), len(self.operations)
        sent = (self.now + number) / 1000
        self.operations.append(Operation(f"op_{number}", mailbox, digest, sent, sent + 1, outcome))
        if outcome == "fail":
            return ""
        blob = f"msg_{number}.raw" if BIG in text else None
        if blob:
            self.blobs[blob] = 7200.0
        raw = RawMail(
            f"msg_{number}", mailbox, "smtp", len(text), digest, Sealed("⟨envelope⟩"),
            Digest(f"#{digest[:8]}") if message_id else None, blob,
        )  # fmt: skip
        headers = raw_mail.headers_of(raw, at=moment(self.now), not_after=moment(self.now + 60_000))
        record = self._input(MAIL, owner, b"sealed", headers)
        if waits_behind:
            self.now += 120_000
            self.command(waits_behind, owner)
        parsed = {} if state == "parsing" else {"summary": Sealed("⟨summary⟩"), "content": Sealed("⟨content⟩")}
        command = replace(receive(record, raw, None), state=state, **parsed)
        self._decide(record, mailbox, self.fold.run(command, moment(self.now), owner))
        return raw.message

    def _decide(self, record: Record, subject: str, decided: list[Any]) -> None:
        """Appends what was decided, now and then after another writer's void try."""
        if decided and self.random.random() < 0.2:
            self._append(record.key, *self._event(record, subject, decided[0], 0, len(self.log) - 1))
        for number, event in enumerate(decided):
            self._sequences[subject] = self._sequences.get(subject, 0) + 1
            self._append(record.key, *self._event(record, subject, event, number, len(self.log)))

    def _event(self, record: Record, subject: str, event: Any, number: int, position: int) -> tuple[bytes, Headers]:
        cause = first(record.headers)
        headers = event_headers(
            event_id=f"{cause['ce_id']}.{number}", kind=event_schemas.MAILBOX.type_of(event), subject=subject,
            at=moment(self.now), position=position, cause=cause, source=record.source,
            sequence=self._sequences.get(subject, 0),
        )  # fmt: skip
        return encode(event), headers

    def snapshot(self) -> None:
        documents = {**self.fold.documents, **{("sequence", s): n for s, n in self._sequences.items()}}
        self.snapshots.append(Snapshot(0, Checkpoint(len(self.log), dict(self._next), self.now), documents))

    # ── a life ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def live(self, steps: int = 60) -> "History":
        """So many random things happen, and one of each that the checker must be able to tell from a fault."""
        for owner in ("acc_1", "acc_2"):
            self.open(f"mbx_{owner[-1]}0", owner)
        for step in range(steps):
            self._something(step)
            if step % 20 == 19:
                self.advance()
                self.snapshot()
        self._a_bit_of_everything()
        self.snapshot()
        return self

    def open(self, mailbox: str, owner: str) -> None:
        """A creation; a full plan is told to the client, which is a definite answer."""
        began = self.now / 1000
        self.command(create(mailbox, owner, roomy(live_messages=8, live_mailboxes=70), ttl_minutes=600), owner)
        outcome: Outcome = "ok" if ("mailbox", mailbox) in self.fold.documents else "fail"
        name = f"op_{len(self.operations)}"
        self.operations.append(Operation(name, mailbox, "", began, self.now / 1000, outcome, "create"))

    def _something(self, step: int) -> None:
        random, (owner, box) = self.random, self._a_mailbox()
        messages = [key[1].split("/")[1] for key, found in self.fold.documents.items() if isinstance(found, Message)]
        message = random.choice(messages or ["msg_none"])
        match random.randrange(9):
            case 0:
                self.open(f"mbx_{owner[-1]}{step + 1}", owner)
            case 1:
                self.command(commands.ReadMessage(box, message), owner)
            case 2:
                self.command(commands.DeleteMessage(box, message, owner), owner)
            case 3:
                self.command(commands.ExpireMailbox(box, moment(self.now)), owner)
            case 4:
                self.command(commands.ExtendMailbox(box, 30), owner, late=random.random() < 0.5)
            case _:
                self.mail(box, owner, f"text {step}", message_id=random.random() < 0.7)

    def _a_mailbox(self) -> tuple[str, str]:
        found = [(box.owner, key[1]) for key, box in self.fold.documents.items() if isinstance(box, Mailbox)]
        return self.random.choice(found)

    def _a_bit_of_everything(self) -> None:
        self.open("mbx_kept", "acc_1")
        self.command(create("mbx_full", "acc_9", BUILT_IN["free"]), "acc_9")
        self.command(create("mbx_more", "acc_9", BUILT_IN["free"]), "acc_9")
        self.mail("mbx_kept", "acc_1", "kept")
        self.mail("mbx_kept", "acc_1", f"{BIG} and kept")
        self.mail("mbx_kept", "acc_1", "cut off, and again", outcome="info")
        self.mail("mbx_kept", "acc_1", "cut off, and again")
        self.mail("mbx_kept", "acc_1", "refused", outcome="fail")
        self.unreadable("acc_1")
        self.command(commands.ExpireMailbox("mbx_kept", START), "acc_1")
        self.command(commands.ReadMessage("mbx_kept", "msg_none"), "acc_1")
        slow = self.mail("mbx_kept", "acc_1", "slow to parse", state="parsing")
        self.command(commands.ReportParsed("mbx_kept", slow, "whole", Sealed("⟨summary⟩")), "acc_1")
        self.command(commands.ReportParsed("mbx_kept", slow, "unparsed", cause="time"), "acc_1")
        # It was appended in time; that it was decided after its `not_after` is our delay and no fault of its sender's.
        self.mail("mbx_kept", "acc_1", "waited", waits_behind=commands.ExtendMailbox("mbx_kept", 30))
        self.mail("mbx_kept", "acc_1", "still being parsed", state="parsing")
        self.open("mbx_gone", "acc_2")
        self.mail("mbx_gone", "acc_2", "gone")
        self.command(commands.DeleteMailbox("mbx_gone", "acc_2"), "acc_2")
        self.mail("mbx_gone", "acc_2", "too late")
        self.command(commands.PurgeMailbox("mbx_gone"), "acc_2")
        self.mail("mbx_gone", "acc_2", "far too late")
        self.command(commands.PurgeMailbox("mbx_gone"), "acc_2")
        self.advance()

    # ── looking at it ─────────────────────────────────────────────────────────────────────────────────────────────────

    def observed(self) -> Observed:
        """What is seen of it once it is quiet; nothing is wrong with it."""
        at = moment(self.now) + timedelta(seconds=1)
        digests = {f"msg_{number}": operation.sha256 for number, operation in enumerate(self.operations)}
        shown: dict[str, list[Shown]] = {
            key[1]: [] for key, found in self.fold.documents.items() if isinstance(found, Mailbox) and found.open_at(at)
        }
        for key, found in self.fold.documents.items():
            mailbox, _, message = key[1].partition("/")
            if isinstance(found, Message) and found.state != "parsing" and mailbox in shown:
                shown[mailbox].append(Shown(message, digests[message]))
        valid = [(0, fact.record.offset) for fact in facts(self.log)]
        quiet = Resources(descriptors=20, tasks=10, connections=4, resident_bytes=100_000_000)
        return Observed(
            operations=self.operations,
            log=self.log,
            inputs=self.inputs,
            shown=shown,
            asked_at=at,
            blobs=self.blobs | {"just-written.raw": 5.0},
            snapshots=self.snapshots,
            dumps={"live": b"tables", "first replay": b"tables", "second replay": b"tables"},
            streams={"reader": valid, "late reader": valid[7:]},
            resources={"work": (quiet, replace(quiet, resident_bytes=105_000_000))},
        )
