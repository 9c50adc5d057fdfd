"""A small world for histories of sends: mailboxes that keep what was really sent, workers that die, dawdle and repeat
themselves, and a log of what was decided. What must hold whatever happens in it is asserted as it happens.

Gmail and Outlook are mailboxes with drafts, and a draft can be sent once; SMTP has none, and can't be asked.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from domain import retry
from domain.send_commands import (
    ClaimAttempt,
    DoubtAttempt,
    KnownConnection,
    NoteDraft,
    NoteTransmission,
    ReportAttempt,
    ReportReconciled,
    StartSend,
)
from domain.send_events import (
    AttemptDeferred,
    AttemptFailed,
    AttemptInDoubt,
    AttemptRefused,
    AttemptStarted,
    AttemptSucceeded,
    SendCommandRefused,
    SendDispatched,
    SendRedriven,
    SendRefused,
    SendRepeated,
    SendRequested,
    SendSent,
    SendUncertain,
)
from domain.send_state import Send
from handlers.sends import DOCUMENTS
from schemas.vocabulary import encode
from tests.support import spec
from tests.support.send_words import GMAIL, OUTLOOK, OWNER, SECONDS, SMTP, USER

#: What becomes of one step of a worker: `lost`, sent and the answer is lost; `cut`, not sent, which it can't tell; `died`,
#: sent, and it dies before it can say so.
Fate = Literal["ok", "lost", "cut", "died", "deferred", "waits", "asked", "refused"]
FATES: Final[tuple[Fate, ...]] = ("ok", "lost", "cut", "died", "deferred", "waits", "asked", "refused")
DEFINITE: Final = {
    "deferred": ("deferred", "unreachable", {}),
    "waits": ("deferred", "mailbox_busy", {"counted": False}),
    "asked": ("deferred", "daily_quota", {"counted": False, "retry_after": 20_000}),
    "refused": ("refused", "message_refused", {}),
}
#: By what each state is reached, and from which. What the provider has is true whatever was thought before.
REACHED_BY: Final = {
    "SendDispatched": ({"scheduled", "queued", "deferred"}, "queued"),
    "AttemptStarted": ({"queued", "deferred"}, "sending"),
    "AttemptDeferred": ({"sending", "in_doubt", "uncertain"}, "deferred"),
    "AttemptInDoubt": ({"sending"}, "in_doubt"),
    "SendCancelled": ({"scheduled", "queued", "deferred"}, "cancelled"),
    "SendFailed": ({"scheduled", "queued", "deferred", "sending", "in_doubt", "uncertain"}, "failed"),
    "SendDeadLettered": ({"sending", "in_doubt", "uncertain"}, "dead_lettered"),
    "SendUncertain": ({"in_doubt", "queued", "deferred", "sending"}, "uncertain"),
    "SendRedriven": ({"failed", "dead_lettered", "uncertain"}, "queued"),
    "SendSent": (
        {"queued", "sending", "in_doubt", "deferred", "failed", "cancelled", "uncertain", "dead_lettered"},
        "sent",
    ),
}
SILENT: Final = (SendRepeated, SendRefused, SendCommandRefused, AttemptRefused, AttemptSucceeded)
#: States that say that it did not go out.
NOT_SENT: Final = ("failed", "cancelled", "dead_lettered")


@dataclass
class Worker:
    """One attempt in somebody's hands. `obeys`: it sends nothing after its deadline."""

    granted: AttemptStarted
    obeys: bool
    draft: str | None
    on_record: bool
    report: ReportAttempt | None = None


@dataclass
class World:
    """Everything there is; `now` is the time of the next record, which never steps back."""

    now: datetime = spec.START
    fold: spec.Fold = field(default_factory=lambda: spec.Fold(spec.SEND))
    log: list[Any] = field(default_factory=list)
    connections: dict[str, KnownConnection] = field(
        default_factory=lambda: {one.connection: one for one in (GMAIL, OUTLOOK, SMTP)}
    )
    workers: list[Worker] = field(default_factory=list)
    doubts: list[AttemptInDoubt] = field(default_factory=list)
    #: By draft: whether it is there, was sent, or was thrown away by its user.
    drafts: dict[str, Literal["there", "sent", "gone"]] = field(default_factory=dict)
    #: How often each send really went out.
    mails: Counter[str] = field(default_factory=Counter)
    running: dict[str, int] = field(default_factory=dict)
    redriven_in_doubt: Counter[str] = field(default_factory=Counter)
    #: Sends that a worker touched after its deadline: no rule can promise anything of what it does then.
    disobeyed: set[str] = field(default_factory=set)

    # ── what is decided ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, command: Any) -> list[Any]:
        """Decides a command, folds what follows and checks it."""
        decided = self.fold.decide(command, self.now, USER)
        for event in decided:
            before = self.find(event.send)
            self.fold.apply(event)
            self.log.append(event)
            self._check(event, before, self.find(event.send))
            for key in self.fold.rules.touches(event):
                document = self.fold.documents[key]
                assert DOCUMENTS[key[0]].validate_json(encode(document)) == document, "a snapshot is read as another"
        return decided

    def find(self, send: str) -> Send | None:
        return self.fold.documents.get(("send", send))

    def send(self, name: str) -> Send:
        """One that is there."""
        found = self.find(name)
        assert found is not None
        return found

    @property
    def sends(self) -> list[str]:
        return [name for kind, name in self.fold.documents if kind == "send"]

    def _check(self, event: Any, before: Send | None, after: Send | None) -> None:
        if isinstance(event, SILENT):
            assert before == after, "nothing changed, it says"
            if isinstance(event, AttemptSucceeded):
                self.running.pop(event.send, None)
            return
        assert after is not None
        if isinstance(event, SendRequested):
            assert before is None, "a send is requested once"
            return
        assert before is not None
        assert before.state != "sent", "sent is the end"
        name = type(event).__name__
        if name in REACHED_BY:
            origins, state = REACHED_BY[name]
            assert before.state in origins, f"{name} from {before.state}"
            assert after.state == state
        else:
            assert before.state == after.state, f"{name} is no change of state"
        self._count(event, before)
        assert after.counted <= retry.ATTEMPTS
        assert (after.due is None) == after.ended or isinstance(event, SendRedriven), "a timer keeps what has not ended"
        assert after.draft == before.draft or before.draft is None, "there is one draft of a mail"

    def _count(self, event: Any, before: Send) -> None:
        match event:
            case AttemptStarted():
                assert event.send not in self.running, "no attempt while another runs or is in doubt"
                assert event.attempt == before.attempt + 1
                assert before.counted < retry.ATTEMPTS
                self.running[event.send] = event.attempt
            case SendUncertain():
                assert before.state == "in_doubt" or before.uncertain
                self.running.pop(event.send, None)
            case AttemptDeferred() | AttemptFailed():
                uncertain = before.attempt if before.state == "uncertain" else None
                assert self.running.pop(event.send, uncertain) == event.attempt
                if isinstance(event, AttemptDeferred):
                    assert self.now < event.next_at <= event.overdue_at
                    assert event.counted or event.next_at <= event.since + retry.LONGEST_WAIT
            case AttemptInDoubt():
                assert self.running[event.send] == event.attempt
                assert self.now <= event.look_at < event.until
                self.doubts.append(event)
            case SendRedriven():
                self.redriven_in_doubt[event.send] += before.state == "uncertain"
            case SendSent():
                assert self.mails[event.send], "it really went out"

    def holds(self) -> None:
        """What must be so at any time."""
        for name in self.sends:
            send = self.send(name)
            assert self.mails[name] <= 1 + self.redriven_in_doubt[name], "never twice unless somebody asked for that"
            if send.provider != "smtp":
                assert self.mails[name] <= 1, "a draft is sent once, whoever asks"
            if send.state in NOT_SENT and name not in self.disobeyed:
                assert not self.mails[name], "it says that it was not sent"

    # ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def claims(self, name: str, *, obeys: bool = True) -> Worker | None:
        (event,) = self.run(ClaimAttempt(name, USER, "worker", SECONDS))
        if not isinstance(event, AttemptStarted):
            return None
        worker = Worker(event, obeys, event.draft, on_record=event.draft is not None)
        self.workers.append(worker)
        return worker

    def works(self, worker: Worker, fate: Fate) -> None:
        """A worker's next step: put on record, send, tell; and tell again."""
        if worker.report is not None:
            self.run(worker.report)
        elif self.connections[worker.granted.connection].state == "revoked":
            self._ends(worker, "refused", "connection_revoked")
        elif worker.obeys and self.now >= worker.granted.deadline:
            self._ends(worker, "deferred", "out_of_time", counted=False)
        elif fate in DEFINITE and self.drafts.get(worker.draft or "", "there") == "there":
            outcome, code, more = DEFINITE[fate]
            self._ends(worker, outcome, code, **more)
        elif not worker.on_record:
            self._notes(worker)
        else:
            self._sends(worker, fate)

    def _notes(self, worker: Worker) -> None:
        granted = worker.granted
        if granted.provider == "smtp":
            note: Any = NoteTransmission(granted.send, USER, granted.attempt)
        else:
            worker.draft = f"draft_{len(self.drafts)}"
            self.drafts[worker.draft] = "there"
            note = NoteDraft(granted.send, USER, granted.attempt, worker.draft)
        (event,) = self.run(note)
        worker.on_record = True
        if isinstance(event, AttemptRefused):
            self.workers.remove(worker)

    def _sends(self, worker: Worker, fate: Fate) -> None:
        granted = worker.granted
        if self.now >= granted.deadline:
            self.disobeyed.add(granted.send)
        if fate == "cut":
            return self._ends(worker, "in_doubt", "connection_lost")
        if worker.draft is None:
            self.mails[granted.send] += 1
        elif self.drafts[worker.draft] == "there":
            self.drafts[worker.draft] = "sent"
            self.mails[granted.send] += 1
        elif self.drafts[worker.draft] == "gone":
            return self._ends(worker, "in_doubt", "draft_gone")
        if fate == "died":
            return self.workers.remove(worker)
        if fate == "lost":
            return self._ends(worker, "in_doubt", "timed_out")
        return self._ends(worker, "accepted", None)

    @staticmethod
    def _ends(worker: Worker, outcome: Any, code: Any, **more: Any) -> None:
        told = ReportAttempt(worker.granted.send, USER, worker.granted.attempt, outcome, code)
        worker.report = replace(told, **more)

    # ── timers, looks and connections ─────────────────────────────────────────────────────────────────────────────────

    def fires(self, name: str, scale: float = 1) -> list[Any]:
        """The timer of this send, whether it is time or not."""
        send = self.send(name)
        if send.state in ("sending", "in_doubt"):
            return self.run(DoubtAttempt(name, USER, send.attempt, scale))
        return self.run(StartSend(name, USER, send.due or self.now, self.known, scale))

    @property
    def known(self) -> list[KnownConnection]:
        return [one for one in self.connections.values() if one.state != "revoked"]

    def looks(self, doubt: AttemptInDoubt, *, last: bool) -> ReportReconciled | None:
        """What a look shows; None where it shows nothing and others follow. Nobody looks before it is time."""
        about = (doubt.send, USER, doubt.attempt)
        shown = self.drafts.get(doubt.draft or "", "gone")
        if self.now < doubt.look_at:
            return None
        if shown == "there":
            return ReportReconciled(*about, "proven_absent")
        if shown == "sent":
            return ReportReconciled(*about, "proven_sent")
        return ReportReconciled(*about, "unknown") if last else None

    def settles(self, name: str, fate: Fate, *, looks: bool) -> None:
        """Time goes on, timers fire, and each attempt has this fate, until the send has ended; `looks`: providers answer."""
        began, dispatched = self.now, True
        while not (send := self.send(name)).ended:
            assert self.now - began < timedelta(days=8), f"{name} is {send.state} still"
            if send.state in ("queued", "deferred") and dispatched and self._tried(name, fate):
                continue
            assert send.due is not None
            self.now = max(self.now, send.due)
            if send.state == "in_doubt" and looks:
                doubt = next(found for found in reversed(self.doubts) if found.send == name)
                found = self.looks(doubt, last=True)
                assert found is not None
                self.run(found)
            else:
                dispatched = any(isinstance(event, SendDispatched) for event in self.fires(name)) or dispatched
            self.holds()

    def _tried(self, name: str, fate: Fate) -> bool:
        worker = self.claims(name)
        if worker is None:
            return False
        while worker in self.workers and worker.report is None:
            self.works(worker, fate)
        if worker in self.workers:
            self.works(worker, fate)
            self.workers.remove(worker)
        return True

    def ends(self) -> None:
        """What the log says is all there is to know."""
        again = spec.Fold(spec.SEND)
        for event in self.log:
            again.apply(event)
        assert again.documents == self.fold.documents
        assert {event.owner for event in self.log if hasattr(event, "owner")} <= {OWNER, ""}
