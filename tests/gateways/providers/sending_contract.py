"""What every provider's way to send has to stand, against its double: one suite, run for each.

A provider is added by a subclass of `SendingContract` whose fixture `sending` says how its double is made to fail. What was
really sent is read from the double's receipts, never from an answer.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from domain.delivery import Accepted, Answer, Deferred, Found, InDoubt, ProvenAbsent, ProvenSent, TokenRefused
from domain.outgoing import Access, Mailbox, OutgoingFile, OutgoingMail, Traces
from gateways.providers.sending import SendsMail
from tests.gateways.providers.house import logged, told_of

#: What can befall the call that sends: cut, failed (5xx) or unanswered, before the mail goes out or after it.
Fault = Literal["cut before", "cut after", "failed before", "failed after", "silent before", "silent after"]
SUBJECT, BODY, HIDDEN = "canary-subject-7d1c", "canary-body-91ab", "canary-hidden@example.test"
TO, CC = "carol@example.test", "dan@example.test"
MESSAGE_ID, MARK = "<snd-1@postledger.test>", "snd-1-mark"
TRACES = Traces(MESSAGE_ID, MARK)


def a_mail(sender: str = "alice@gmail.test", **changes: Any) -> OutgoingMail:
    mail = OutgoingMail(
        message_id=MESSAGE_ID,
        marker=MARK,
        date=datetime(2026, 11, 28, 12, 0, tzinfo=UTC),
        sender=Mailbox(sender, "Alice"),
        to=[Mailbox(TO, "Carol")],
        cc=[Mailbox(CC)],
        bcc=[Mailbox(HIDDEN)],
        reply_to=[],
        subject=SUBJECT,
        text=BODY,
        html=f"<p>{BODY}</p>",
        attachments=[OutgoingFile("note.txt", "text/plain", b"a note")],
    )
    return replace(mail, **changes)


class Refuses(Exception):
    """Whoever keeps the record does not grant what was asked."""


@dataclass
class Recorder:
    """Keeps on record what a sender notes. `refuses`: it grants nothing; `dies`: nothing follows on a note.

    `seconds` are left; `noted_takes` of them go by with a note.
    """

    traces: Traces = TRACES
    seconds: float = 30.0
    refuses: bool = False
    noted_takes: float = 0.0
    dies: bool = False
    order: list[str] = field(default_factory=list)

    async def draft(self, draft: str, message: str | None = None) -> None:
        assert self.traces.draft is None, "a second draft"
        self._note("draft")
        self.traces = replace(self.traces, draft=draft, draft_message=message)
        self._die()

    async def transmission(self, *, left: bool = False) -> None:
        self._note("transmission")
        self.traces = replace(self.traces, transmitted=True)
        self._die()

    def seconds_left(self) -> float:
        return self.seconds

    def _note(self, what: str) -> None:
        if self.refuses:
            raise Refuses
        self.order.append(what)
        self.seconds -= self.noted_takes

    def _die(self) -> None:
        """As a worker that is killed right after its word is on record."""
        if self.dies:
            raise asyncio.CancelledError


@dataclass
class Sent:
    """One mail that left a double."""

    marker: str | None
    message_id: str | None
    recipients: list[str]


@dataclass
class Sending(ABC):
    """One provider's sender, the double it speaks to, and a mailbox."""

    sender: SendsMail
    registry: CollectorRegistry
    #: Whether a draft comes before the sending, so that a look can prove that nothing was sent.
    drafts: bool = True
    #: Tokens and passwords of the mailbox.
    secrets: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    @abstractmethod
    def access(self, *, good: bool = True) -> Access:
        """What is called with; one that is not good the double refuses."""

    @abstractmethod
    def sent(self) -> list[Sent]:
        """What was really sent."""

    @abstractmethod
    async def fail(self, fault: Fault) -> None:
        """The next call that sends fails like this, once."""

    async def send(self, notes: Recorder, mail: OutgoingMail | None = None, *, good: bool = True) -> Answer:
        access = self.access(good=good)
        answer = await self.sender.send(mail or a_mail(access.address), access, notes.traces, notes)
        self.said.append(repr(answer))
        return answer

    async def look(self, traces: Traces, *, last: bool = False) -> Found:
        found = await self.sender.look(traces, self.access(), last=last)
        self.said.append(repr(found))
        return found

    async def once_more(self, notes: Recorder) -> Answer:
        """Another attempt, with what is on record of those before."""
        return await self.send(Recorder(replace(notes.traces, earlier=True)))


class SendingContract:
    """The suite. A subclass has a fixture `sending`, whose calls are bounded by a second or less."""

    @pytest.fixture(autouse=True)
    def nothing_is_told(self, sending: Sending, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        with caplog.at_level(logging.DEBUG):
            yield
        told = "\n".join([logged(caplog), generate_latest(sending.registry).decode(), *sending.said])
        assert told_of({SUBJECT, BODY, HIDDEN, TO, CC, *sending.secrets}, told) == []

    async def test_a_mail_goes_out_once_to_everybody(self, sending: Sending) -> None:
        notes = Recorder()
        answer = await sending.send(notes)
        assert isinstance(answer, Accepted), answer
        (sent,) = sending.sent()
        assert sorted(sent.recipients) == sorted([TO, CC, HIDDEN])
        assert (sent.marker, sent.message_id) == (MARK, MESSAGE_ID)
        assert notes.order == (["draft"] if sending.drafts else ["transmission"])

    async def test_nothing_goes_out_that_is_not_granted(self, sending: Sending) -> None:
        with pytest.raises(Refuses):
            await sending.send(Recorder(refuses=True))
        assert sending.sent() == []
        assert isinstance(await sending.once_more(Recorder()), Accepted)
        assert len(sending.sent()) == 1

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    async def test_nothing_begins_without_time(self, sending: Sending, seconds: float) -> None:
        notes = Recorder(seconds=seconds)
        assert await sending.send(notes) == Deferred("out_of_time", counted=False)
        assert (sending.sent(), notes.order) == ([], [])

    async def test_nothing_goes_out_once_the_time_is_over(self, sending: Sending) -> None:
        notes = Recorder(noted_takes=40.0)
        assert await sending.send(notes) == Deferred("out_of_time", counted=False)
        assert len(notes.order) == 1
        assert sending.sent() == []
        if sending.drafts:
            assert await sending.look(notes.traces) == ProvenAbsent()
        assert isinstance(await sending.once_more(notes), Accepted)
        assert len(sending.sent()) == 1

    async def test_a_worker_that_dies_after_its_note_has_sent_nothing(self, sending: Sending) -> None:
        notes = Recorder(dies=True)
        with pytest.raises(asyncio.CancelledError):
            await sending.send(notes)
        assert sending.sent() == []
        found = await sending.look(notes.traces)
        assert isinstance(found, ProvenAbsent) if sending.drafts else not isinstance(found, ProvenAbsent | ProvenSent)
        assert isinstance(await sending.once_more(notes), Accepted)
        assert len(sending.sent()) == 1

    @pytest.mark.parametrize("fault", ["cut after", "failed after", "silent after"])
    async def test_a_lost_answer_is_a_doubt_and_sends_nothing_twice(self, sending: Sending, fault: Fault) -> None:
        await sending.fail(fault)
        notes = Recorder()
        assert isinstance(await sending.send(notes), InDoubt)
        assert len(sending.sent()) == 1
        for last in (False, True):
            found = await sending.look(notes.traces, last=last)
            assert isinstance(found, ProvenSent) if sending.drafts else not isinstance(found, ProvenAbsent), found
        if sending.drafts:
            assert isinstance(await sending.once_more(notes), Accepted)
        assert len(sending.sent()) == 1

    @pytest.mark.parametrize("fault", ["cut before", "failed before", "silent before"])
    async def test_a_mail_that_never_left_is_proven_so_where_there_are_drafts(
        self, sending: Sending, fault: Fault
    ) -> None:
        await sending.fail(fault)
        notes = Recorder()
        answer = await sending.send(notes)
        assert isinstance(answer, InDoubt if sending.drafts else InDoubt | Deferred)
        assert sending.sent() == []
        if sending.drafts:
            assert await sending.look(notes.traces) == ProvenAbsent()
            assert isinstance(await sending.once_more(notes), Accepted)
            assert len(sending.sent()) == 1

    async def test_a_token_that_is_refused_sends_nothing(self, sending: Sending) -> None:
        notes = Recorder()
        assert await sending.send(notes, good=False) == TokenRefused()
        assert sending.sent() == []
        assert isinstance(await sending.once_more(notes), Accepted)
        assert len(sending.sent()) == 1

    async def test_what_nobody_sent_is_not_found(self, sending: Sending) -> None:
        await sending.send(Recorder())
        other = Traces("<snd-2@postledger.test>", "snd-2-mark")
        assert not isinstance(await sending.look(other, last=True), ProvenSent | ProvenAbsent)
