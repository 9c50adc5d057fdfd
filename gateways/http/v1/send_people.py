"""Recipients as callers write them: `"ada@example.org"`, `"Ada <ada@example.org>"`, or `{"email": …, "name": …}`.

What is taken is what can be written into a mail (`domain/mail_wire_addresses.py`): international domains and local parts, and
nothing that could end a header field or name another recipient.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, TypeVar

from domain.mail_wire_addresses import NoAddress, wire_address
from domain.mail_wire_fields import Unwritable, writable
from gateways.http.problems import Problem
from gateways.http.v1.bodies import ADDRESS_OCTETS, Faults, pointer
from schemas.send_message import Person

P = ParamSpec("P")
Read = TypeVar("Read")
MOST_RECIPIENTS: Final = 100
MOST_REPLY_TO: Final = 10
#: Entries of lists, repetitions and all, beyond which none is looked at: to tell of each would hold up everybody else.
MOST_NAMED: Final = 1_000
#: Entries that are read at once, without a thread of their own.
FEW: Final = 20
NAME_CHARACTERS: Final = 256
RECIPIENT_MEMBERS: Final = ("email", "name")
FORMS: Final = "`ada@example.org`, `Ada <ada@example.org>` or `{email, name}`"
QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: What an unquoted name does not hold (RFC 5322 3.2.3): it would read as several recipients, or as another one.
OF_LISTS: Final = re.compile(r'[",;:<>@\\]')
ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(slots=True)
class Recipients:
    """Whom a mail is for. Who is named twice, in any of the three, gets it once, where they were named first."""

    to: list[Person] = field(default_factory=list)
    cc: list[Person] = field(default_factory=list)
    bcc: list[Person] = field(default_factory=list)
    #: Of more than can be looked at, how many were named.
    unread: int = 0

    def __len__(self) -> int:
        return len(self.to) + len(self.cc) + len(self.bcc)

    def refuse(self) -> None:
        """Raises a Problem (422) where there are none, or too many."""
        if self.unread:
            said = f"A mail has at most {MOST_RECIPIENTS} recipients, and this names {self.unread}: send several mails."
            raise Problem("too_many_recipients", said)
        if not len(self):
            raise Problem("no_recipients", "There is no recipient: name at least one in `to`, `cc` or `bcc`.")
        if len(self) > MOST_RECIPIENTS:
            said = f"A mail has at most {MOST_RECIPIENTS} recipients, and this has {len(self)}: send several mails."
            raise Problem("too_many_recipients", said)


async def recipients_of(body: dict[str, Any], faults: Faults) -> Recipients:
    """The recipients that the body names."""
    named = _named(body, "to", "cc", "bcc")
    if named > MOST_NAMED:
        return Recipients(unread=named)
    return await _beside(named, _recipients, body, faults)


async def reply_to_of(body: dict[str, Any], faults: Faults) -> list[Person]:
    """Whom answers are to go to."""
    named = _named(body, "replyTo")
    is_long = named > MOST_NAMED
    found = [] if is_long else await _beside(named, _people, body.get("replyTo"), "replyTo", faults, set())
    if is_long or len(found) > MOST_REPLY_TO:
        faults.add("/replyTo", f"`replyTo` has at most {MOST_REPLY_TO} addresses.")
    return found


def _named(body: dict[str, Any], *names: str) -> int:
    return sum(len(said) for name in names if isinstance(said := body.get(name), list))


async def _beside(named: int, read: Callable[P, Read], *said: P.args, **more: P.kwargs) -> Read:
    """What is read, beside everything else where it is of many: an international domain takes up to a millisecond."""
    return await asyncio.to_thread(read, *said, **more) if named > FEW else read(*said, **more)


def _recipients(body: dict[str, Any], faults: Faults) -> Recipients:
    known: set[str] = set()
    found = Recipients()
    for name, people in (("to", found.to), ("cc", found.cc), ("bcc", found.bcc)):
        people.extend(_people(body.get(name), name, faults, known))
    return found


def _people(said: Any, name: str, faults: Faults, known: set[str]) -> list[Person]:
    """Those who are not among the `known`, who are added to them. One may stand without a list around."""
    if said is None:
        return []
    if not isinstance(said, list):
        said, places = [said], [pointer(name)]
    else:
        places = [f"{pointer(name)}/{number}" for number in range(len(said))]
    people = []
    for one, place in zip(said, places, strict=True):
        if faults.full:
            break  # the answer is known
        person = _person(one, place, faults)
        if person is None:
            continue
        identity = _identity(person.email)
        if identity is None:
            faults.add(place, f"This is no address that mail can be sent to: write {FORMS}.")
        elif identity not in known:
            known.add(identity)
            people.append(person)
    return people


def _person(said: Any, place: str, faults: Faults) -> Person | None:
    """None where it is none, which is then a fault."""
    address: Any
    name: Any
    if isinstance(said, str):
        address, name = _taken_apart(said.strip(" "), place, faults)
    elif isinstance(said, dict):
        for member in [one for one in said if one not in RECIPIENT_MEMBERS]:
            faults.add(place + pointer(member), "There is no such member: a recipient has `email` and `name`.")
        address, name = said.get("email"), said.get("name")
        name = "" if name is None else name
        if not isinstance(address, str):
            faults.add(f"{place}/email", "`email` has to be an address, as a string.")
            return None
    else:
        faults.add(place, f"A recipient is {FORMS}.")
        return None
    if name is None or not _is_name(name, place, faults):
        return None
    return Person(address.strip(" "), name.strip(" "))


def _taken_apart(text: str, place: str, faults: Faults) -> tuple[str, str | None]:
    """Address and name, which is None where it is a fault."""
    if not text.endswith(">"):
        return text, ""
    name, bracket, address = text[:-1].rpartition("<")
    if not bracket:
        return text, ""
    name = name.strip(" ")
    quoted = QUOTED.fullmatch(name)
    if quoted is not None:
        return address, ESCAPED.sub(r"\1", quoted[1])
    if OF_LISTS.search(name):
        faults.add(place, 'A name with one of , ; : @ < > \\ or " in it goes into `{email, name}`, or into quotes.')
        return address, None
    return address, name


def _is_name(name: Any, place: str, faults: Faults) -> bool:
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS:
        faults.add(place, f"The name of a recipient is a string of at most {NAME_CHARACTERS} characters.")
        return False
    try:
        writable(name, "The name")
    except Unwritable:
        faults.add(place, "The name of a recipient is one line without control characters.")
        return False
    return True


def _identity(address: str) -> str | None:
    """What is the same for two ways to write one address; None for what is none. Only domains have no case."""
    try:
        local, _, domain = wire_address(address).rpartition("@")
    except NoAddress:
        return None
    identity = f"{local}@{domain.lower()}"
    return identity if len(identity.encode()) <= ADDRESS_OCTETS else None
