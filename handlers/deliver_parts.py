"""What delivering needs of the house: see `deliver.py`."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from domain.connection_events import Call, Provider
from domain.delivery import Answer, Found
from domain.fields import Sealed
from domain.outgoing import Access, OutgoingMail, Traces
from domain.send_commands import NoteDraft, NoteTransmission
from domain.send_events import AttemptStarted, DraftRecorded, TransmissionStarted
from handlers.accesses import Accesses
from handlers.send_reports import SendReports
from handlers.tiers import Waits
from handlers.turns import Turns

Trace = Mapping[str, str]


class AsksDecider(Protocol):
    async def ask(self, command: Any, trace: Trace, *, until: float | None = None) -> Any:
        """The first event that follows from the command; raises where none comes in time: by `until` of the loop's clock."""
        ...


class Opened(Protocol):
    @property
    def mail(self) -> OutgoingMail: ...
    @property
    def address(self) -> str: ...
    @property
    def scopes(self) -> list[str]: ...


class OpensMails(Protocol):
    async def open(self, send: str, connection: str) -> Any:
        """The mail as it is to go out; None where what it is made of is gone for good.

        Raises LookupError where no table knows it yet, ValueError where what was asked can't be read, and anything else
        where it can't be had at the moment.
        """
        ...

    async def close(self, opened: Any) -> None:
        """Nothing of it is needed any more."""
        ...

    async def address(self, connection: str) -> tuple[str, list[str]] | None:
        """Whose mailbox it is, and the scopes that were granted."""
        ...

    async def standing(self, send: str) -> tuple[str, int] | None:
        """State and last attempt of a send as the tables show them, which may be late; None where they don't yet."""
        ...

    async def sealed(self, user: str, send: str, attempt: int, said: str) -> Sealed | None: ...


class NotesUse(Protocol):
    def note(self, connection: str, user: str, call: Call) -> None: ...


class LimitsMailboxes(Protocol):
    async def wait_for_rate(self, provider: Provider, mailbox: str) -> float:
        """0, with a permit taken; or the seconds until there are permits again."""
        ...

    async def spent(self, provider: Provider, mailbox: str, cost: int) -> None:
        """Counts what was done without a permit."""
        ...

    async def take(self, provider: Provider, mailbox: str) -> Any:
        """One of the few sends at a time that the mailbox is allowed; None where there is none left."""
        ...

    async def renew(self, mailbox: str, slot: Any) -> bool:
        """Keeps it for as long as when it was taken; False where it is somebody else's by now."""
        ...

    async def give_back(self, mailbox: str, slot: Any) -> None: ...


class Measures(Protocol):
    def dispatched(self, provider: Provider, seconds: float) -> None: ...

    def attempted(self, provider: Provider, outcome: str, code: str | None) -> None: ...


class SendsMail(Protocol):
    """One provider."""

    async def send(self, mail: OutgoingMail, access: Access, traces: Traces, notes: Any) -> Answer: ...

    async def look(self, traces: Traces, access: Access, *, last: bool, spends: Callable[[int], None]) -> Found:
        """`spends` is told what it takes of what the provider allows the mailbox."""
        ...


@dataclass(frozen=True)
class Parts:
    """What attempts and looks at them are made with."""

    decider: AsksDecider
    mails: OpensMails
    accesses: Accesses
    providers: Mapping[Provider, SendsMail]
    limits: LimitsMailboxes
    waits: Waits
    reports: SendReports
    uses: NotesUse
    measures: Measures
    turns: Turns = field(default_factory=Turns)
    scale: float = 1.0


class NotGranted(Exception):
    """The attempt is not ours any more: the decider has taken back what it granted, or nobody can be asked."""


class NoPermit(Exception):
    """The mailbox has used what its provider allows it; there is more of it in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.1f} s")
        self.seconds = seconds


#: Seconds for which the decider is waited for beyond an attempt's end: what cuts off the attempt comes first, and says
#: whether there is a doubt.
NOTE_SECONDS: Final = 1.0


class Notes:
    """What one attempt has on record; see `Notes` of the providers' interface.

    `ends_at` is the attempt's deadline by the loop's clock, counted from before the decider was asked: never later than the
    deadline that is on record.
    """

    def __init__(self, decider: AsksDecider, granted: AttemptStarted, trace: Trace, *, ends_at: float) -> None:
        self._decider = decider
        self._granted = granted
        self._trace = trace
        self._ends_at = ends_at
        self.draft_id = granted.draft
        self.draft_message = granted.draft_message
        #: Whether anything is on record by which the mail may have left.
        self.touched = granted.draft is not None
        #: Whether the provider has refused the last call for its token: nothing of it is open, nor before the next begins.
        self.token_refused = False

    async def draft(self, draft: str, message: str | None = None) -> None:
        """Raises NotGranted."""
        noted = NoteDraft(self._granted.send, self._granted.user, self._granted.attempt, draft, message)
        await self._on_record(noted, DraftRecorded)
        self.draft_id, self.draft_message = draft, message

    async def transmission(self, *, left: bool = False) -> None:
        """Raises NotGranted."""
        self.touched = self.touched or left
        noted = NoteTransmission(self._granted.send, self._granted.user, self._granted.attempt)
        await self._on_record(noted, TransmissionStarted)

    def seconds_left(self) -> float:
        return self._ends_at - asyncio.get_running_loop().time()

    async def _on_record(self, command: Any, wanted: type) -> None:
        try:
            answer = await self._decider.ask(command, self._trace, until=self._ends_at + NOTE_SECONDS)
        except Exception as error:
            # It may be on record all the same. Then a timer doubts it, and the provider is asked.
            raise NotGranted("the decider does not answer") from error
        if not isinstance(answer, wanted):
            raise NotGranted(getattr(answer, "reason", type(answer).__name__))
        self.touched = True
