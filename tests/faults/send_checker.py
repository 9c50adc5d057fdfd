"""The checker of sends: once faults have healed and all is quiet, did each mail go out once, or is known what became of it?

It compares what callers asked and heard, what the log says, what the tables show, what providers really sent (their receipts)
and which webhooks came. Its rules have the letters of `checker.py`:

- C1 lost: what was acknowledged is in the log and shown; what is `sent` went out.
- C2 phantom: nothing is in the log, shown or sent that nobody asked for; what did not go out by its end did not go out.
- C3 duplicate: a mail goes out once, unless somebody had it sent again who knew that it might have gone out; an event is
  told under one `webhook-id`, and that id tells of nothing else.
- C7 rebuild: the tables show the state that the log leads to.
- C8 undecided: each send has ended, whoever is to be told of its end was told, and where a provider can be asked hardly any
  end is `uncertain`.
- log …: as in `checker.py`, every decision decided again by the rules alone.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.send_events import SendRedriven, SendRequested, SendUncertain
from domain.send_state import Send
from domain.webhook_words import said
from schemas import events
from schemas.envelope import Record
from tests.faults import log_scan
from tests.faults.log_scan import Fact
from tests.faults.observed import Snapshot, Violation
from tests.faults.redecide import Redecided
from tests.support.spec import SEND

#: Ends by which the mail did not go out.
NOT_SENT = ("failed", "cancelled", "dead_lettered")
#: Providers that can be asked what became of a mail.
CAN_BE_ASKED = ("gmail", "outlook")


@dataclass(frozen=True, slots=True)
class Told:
    """A webhook as its receiver got it: its `webhook-id`, its type, and the send that it tells of."""

    id: str
    type: str
    send: str


@dataclass(frozen=True)
class ObservedSends:
    """Everything seen of the context of sends. What was not looked at is None, and its rules say nothing.

    `asked`: the sends that somebody asked for, and whether that was acknowledged. `log` and `inputs`: every record of
    `send.events` and `send.commands`. `shown`: by send, the status that the tables show. `receipts`: the send of each mail
    that a provider really sent. `told`: the webhooks of an endpoint that was there all the time and wants everything.
    `uncertain`: so many may end that way where the provider can be asked.
    """

    asked: Mapping[str, bool] = field(default_factory=dict)
    log: Sequence[Record] = ()
    inputs: Sequence[Record] = ()
    snapshots: Sequence[Snapshot] = ()
    shown: Mapping[str, str] | None = None
    receipts: Sequence[str] | None = None
    told: Sequence[Told] | None = None
    uncertain: int = 0


def check(observed: ObservedSends) -> list[Violation]:
    """Every violation of every rule that what was observed has something to say about."""
    violations: list[Violation] = []
    known: dict[str, Send] = {}
    valid: list[Fact] = []
    for number, records in log_scan.partitions(observed.log).items():
        found = log_scan.facts(records, events.SEND)
        again = Redecided(number, observed.inputs, observed.snapshots, log_scan.claims(records), rules=SEND)
        again.walk(found, records[-1].offset + 1)
        violations += [*log_scan.check_offsets(number, records), *log_scan.check_order(found), *again.violations]
        known |= {name: document for (kind, name), document in again.fold.documents.items() if kind == "send"}
        valid += found
    books = _Books(observed, [fact.event for fact in valid], known)
    return violations + [violation for rule in RULES for violation in rule(books)]


class _Books:
    """What was observed, sorted as the rules look it up."""

    def __init__(self, observed: ObservedSends, events: Collection[Any], known: Mapping[str, Send]) -> None:
        self.observed = observed
        self.events = events
        self.known = known
        self.requested = {event.send for event in events if isinstance(event, SendRequested)}
        self.receipts = Counter(observed.receipts or ())
        #: How often it may have gone out: once, and once more for each time somebody had it sent again in spite of doubt.
        self.allowed: Counter[str] = Counter(self.requested)
        doubted: set[str] = set()
        for event in events:
            if isinstance(event, SendUncertain):
                doubted.add(event.send)
            elif isinstance(event, SendRedriven) and event.send in doubted:
                doubted.remove(event.send)
                self.allowed[event.send] += 1


def lost(books: _Books) -> Iterator[Violation]:
    for send, acknowledged in books.observed.asked.items():
        if acknowledged and send not in books.requested:
            yield Violation("C1 lost", send, "It was acknowledged, and the log has it not.")
    for send in sorted(books.requested):
        if books.observed.shown is not None and send not in books.observed.shown:
            yield Violation("C1 lost", send, "The log has it, and the tables do not show it.")
        if books.observed.receipts is not None and books.known[send].state == "sent" and not books.receipts[send]:
            yield Violation("C1 lost", send, "It is said to be sent, and no provider has sent it.")


def phantom(books: _Books) -> Iterator[Violation]:
    for send in sorted(books.requested - books.observed.asked.keys()):
        yield Violation("C2 phantom", send, "The log has it, and nobody asked for it.")
    for send in sorted((books.observed.shown or {}).keys() - books.requested):
        yield Violation("C2 phantom", send, "The tables show it, and the log has it not.")
    for send in books.receipts:
        if send not in books.requested:
            yield Violation("C2 phantom", send, "A provider has sent it, and the log has it not.")
        elif books.known[send].state in NOT_SENT and books.allowed[send] == 1:
            yield Violation("C2 phantom", send, f"A provider has sent it, and it is {books.known[send].state}.")


def duplicate(books: _Books) -> Iterator[Violation]:
    for send, times in books.receipts.items():
        if send in books.requested and times > books.allowed[send]:
            yield Violation("C3 duplicate", send, f"Providers have sent it {times} times.")
    meanings: dict[str, set[tuple[str, str]]] = defaultdict(set)
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in books.observed.told or ():
        meanings[call.id].add((call.type, call.send))
        ids[call.type, call.send].add(call.id)
    for name, found in meanings.items():
        if len(found) > 1:
            yield Violation("C3 duplicate", name, f"This webhook tells of {sorted(found)}.")
    happened = _happened(books)
    for (kind, send), names in ids.items():
        if len(names) > happened[kind, send]:
            yield Violation(
                "C3 duplicate",
                send,
                f"{kind} was told under {len(names)} ids, and happened {happened[kind, send]} times.",
            )


def _happened(books: _Books) -> Counter[tuple[str, str]]:
    """How often each thing that webhooks tell of has happened."""
    return Counter((told.type, told.message) for event in books.events if (told := said(event)) and told.message)


def rebuild(books: _Books) -> Iterator[Violation]:
    for send, status in (books.observed.shown or {}).items():
        known = books.known.get(send)
        if known is not None and known.ended and status != known.state:
            yield Violation("C7 rebuild", send, f"The tables show it as {status}, by the log it is {known.state}.")


def undecided(books: _Books) -> Iterator[Violation]:
    for send, known in books.known.items():
        if not known.ended:
            yield Violation("C8 undecided", send, f"It has not ended, it is {known.state}.")
    if books.observed.told is not None:
        told = {(call.type, call.send) for call in books.observed.told}
        for kind, send in sorted(_happened(books).keys() - told):
            yield Violation("C8 undecided", send, f"Nobody was told of {kind}.")
    uncertain = [
        send
        for send, known in books.known.items()
        if known.state == "uncertain" and known.provider in CAN_BE_ASKED and books.allowed[send] == 1
    ]
    if len(uncertain) > books.observed.uncertain:
        yield Violation(
            "C8 undecided",
            ", ".join(sorted(uncertain)),
            f"{len(uncertain)} are uncertain though their provider can be asked, {books.observed.uncertain} may be.",
        )


RULES = (lost, phantom, duplicate, rebuild, undecided)
