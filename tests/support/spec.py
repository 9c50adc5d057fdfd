"""Specifications of the domain's rules: `given(events).when(command, now=…).then(events)`.

Every step also asserts what the decider's loop relies on, so a rule that breaks it fails in whichever test comes first:

- `decide` reads no document that `needs` does not name: the loop has loaded no other;
- its events change no document that `needs` does not name, for the same reason;
- `evolve` reads and changes nothing but what `touches` names, besides forgetting what lies `WITHIN` an id;
- deciding changes nothing by itself, and deciding again gives the same answer;
- every event survives its way through the log.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from domain import account, connection, connection_state, mailbox, mailbox_state, send, send_state
from domain.mailbox_state import WITHIN
from schemas import events as event_schemas
from schemas.vocabulary import Vocabulary, encode

Key = tuple[str, str]

#: When every specification begins.
START = datetime(2026, 3, 13, 15, 30, tzinfo=UTC)


def at(**later: float) -> datetime:
    """`at(minutes=5)`: so long after the beginning."""
    return START + timedelta(**later)


class NotNamedError(AssertionError):
    """A rule reached for a document that it had not named."""


class Named(Mapping[Key, Any]):
    """The documents of these keys; asking for any other fails the test, as it would find nothing in a running lane."""

    def __init__(self, documents: Mapping[Key, Any], keys: list[Key], why: str) -> None:
        self._documents = {key: documents.get(key) for key in keys}
        self._why = why

    def __getitem__(self, key: Key) -> Any:
        if key not in self._documents:
            raise NotNamedError(f"{key} is read but not among {sorted(self._documents)} ({self._why})")
        return self._documents[key]

    def __iter__(self) -> Iterator[Key]:
        raise NotNamedError(f"rules read documents by key; this one went over all of them ({self._why})")

    def __len__(self) -> int:
        return len(self._documents)


@dataclass(frozen=True)
class Rules:
    """The four functions of one context, and how its events are written."""

    needs: Callable[[Any, str], list[Key]]
    decide: Callable[[Mapping[Key, Any], Any, datetime], list[Any]]
    touches: Callable[[Any], list[Key]]
    evolve: Callable[[Mapping[Key, Any], Any], Mapping[Key, Any]]
    vocabulary: Vocabulary


MAILBOX = Rules(mailbox.needs, mailbox.decide, mailbox_state.touches, mailbox_state.evolve, event_schemas.MAILBOX)
ACCOUNT = Rules(account.needs, account.decide, account.touches, account.evolve, event_schemas.ACCOUNT)
CONNECTION = Rules(
    connection.needs, connection.decide, connection_state.touches, connection_state.evolve, event_schemas.CONNECTION
)
SEND = Rules(send.needs, send.decide, send_state.touches, send_state.evolve, event_schemas.SEND)


@dataclass
class Fold:
    """Documents as the events so far have made them."""

    rules: Rules
    documents: dict[Key, Any] = field(default_factory=dict)

    def apply(self, event: Any) -> None:
        """Folds one event, watching what it reads and changes."""
        named = self.rules.touches(event)
        changes = self.rules.evolve(Named(self.documents, named, f"touches({type(event).__name__})"), event)
        for key, document in changes.items():
            if key[0] == WITHIN:
                self._forget_within(key[1])
            elif key not in named:
                raise NotNamedError(f"{type(event).__name__} changes {key}, which it does not touch ({named})")
            elif document is None:
                self.documents.pop(key, None)
            else:
                self.documents[key] = document

    def _forget_within(self, of: str) -> None:
        for key in [key for key in self.documents if key[1].startswith(f"{of}/")]:
            del self.documents[key]

    def decide(self, command: Any, now: datetime, key: str) -> list[Any]:
        """What follows from a command whose record has this key, watching what the decision relies on."""
        named = self.rules.needs(command, key)
        why = f"needs({type(command).__name__}, {key!r})"
        before = deepcopy({found: self.documents.get(found) for found in named})
        events = self.rules.decide(Named(self.documents, named, why), command, now)
        assert self.rules.decide(Named(self.documents, named, why), command, now) == events, (
            "deciding is not repeatable"
        )
        assert before == {found: self.documents.get(found) for found in named}, "deciding changed a document"
        for event in events:
            for touched in self.rules.touches(event):
                if touched not in named:
                    raise NotNamedError(f"{type(event).__name__} changes {touched}, which is not loaded ({why})")
            written = self.rules.vocabulary.decode(self.rules.vocabulary.type_of(event), encode(event))
            assert written == event, "an event comes out of the log as another"
        return events

    def run(self, command: Any, now: datetime, key: str) -> list[Any]:
        """Decides and folds what was decided."""
        events = self.decide(command, now, key)
        for event in events:
            self.apply(event)
        return events


class Given:
    """What has happened so far."""

    def __init__(self, rules: Rules, events: tuple[Any, ...], key: str) -> None:
        self._fold = Fold(rules)
        self._key = key
        for event in events:
            self._fold.apply(event)

    def when(self, command: Any, *, now: datetime = START, key: str | None = None) -> "When":
        """A command comes, at this time, in a record of this key."""
        return When(self._fold, self._fold.run(command, now, key or self._key))


class When:
    """What followed from the command."""

    def __init__(self, fold: Fold, events: list[Any]) -> None:
        self._fold = fold
        self.events = events

    def then(self, *events: Any) -> Self:
        """Exactly these events."""
        assert self.events == list(events)
        return self

    def then_nothing(self) -> Self:
        return self.then()

    @property
    def known(self) -> Mapping[Key, Any]:
        """Every document as it is after them."""
        return self._fold.documents

    def and_then_known(self, key: Key, document: Any) -> Self:
        """After them this document is as given; None where it must not be there."""
        assert self._fold.documents.get(key) == document
        return self

    def when(self, command: Any, *, now: datetime, key: str) -> "When":
        """The next command, after what followed from the one before."""
        return When(self._fold, self._fold.run(command, now, key))


def given(*events: Any, rules: Rules = MAILBOX, key: str = "acc_1") -> Given:
    """Begins a specification; `key` is that of the records that bring the commands (an owner, an account, a user)."""
    return Given(rules, events, key)
