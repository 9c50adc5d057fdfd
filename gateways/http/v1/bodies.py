"""Bodies of requests, member by member: whatever is wrong is collected and told in one answer."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from gateways.http import problems
from gateways.http.problems import Fault, Problem
from gateways.mail_in.smtp_paths import Refused, check_recipient

Read = TypeVar("Read")
#: Faults that one answer tells.
MOST_FAULTS: Final = 20
#: Octets of an address in a command of SMTP (RFC 5321 4.5.3.1.3, without the brackets).
ADDRESS_OCTETS: Final = 254
#: Unicode's categories of characters that end a line or steer a terminal: none of them belongs into a header.
STEERING: Final = frozenset({"Cc", "Zl", "Zp"})


class Faults:
    """What is wrong with a request, as far as it has been read."""

    def __init__(self) -> None:
        self._found: list[Fault] = []

    @property
    def full(self) -> bool:
        """Whether nothing more would be told."""
        return len(self._found) >= MOST_FAULTS

    def add(self, pointer: str, message: str) -> None:
        """`pointer` is a JSON Pointer into the body (`/email`), or `/query/…` or `/headers/…`; `message` a sentence."""
        if not self.full:
            self._found.append(Fault(pointer, message))

    def tried(self, read: Callable[[], Read]) -> Read | None:
        """What is read; None where it is not valid, which is then one of the faults. Raises any other Problem."""
        try:
            return read()
        except Problem as problem:
            if problem.code != "invalid_request":
                raise
            for fault in problem.errors:
                self.add(fault.pointer, fault.message)
            return None

    def refuse(self) -> None:
        """Raises a Problem (400) where anything was found."""
        if self._found:
            raise problems.invalid_all(self._found)


class Members:
    """The members of a body, by name; those that have none of `names` are faults."""

    def __init__(self, body: dict[str, Any], names: Sequence[str], faults: Faults) -> None:
        self._body = body
        self._faults = faults
        known = ", ".join(f"`{name}`" for name in names)
        for name in [one for one in body if one not in names]:
            faults.add(pointer(name), f"There is no such member: the body takes {known}.")

    def text(self, name: str, *, most: int, required: bool = True) -> str:
        """A string of 1 to `most` characters in one line, empty where it is missing or not valid."""
        found = self._body.get(name)
        if found is None and (name not in self._body or not required):
            if required:
                self._faults.add(pointer(name), f"`{name}` is missing.")
            return ""
        if not isinstance(found, str):
            self._faults.add(pointer(name), f"`{name}` has to be a string.")
        elif not found.strip() or len(found) > most:
            self._faults.add(pointer(name), f"`{name}` has to be 1 to {most} characters, and not only spaces.")
        elif any(unicodedata.category(character) in STEERING for character in found):
            self._faults.add(pointer(name), f"`{name}` has to be one line without control characters.")
        else:
            return found
        return ""

    def address(self, name: str) -> str:
        """An e-mail address as SMTP takes it, at most 254 octets; empty where it is missing or not valid."""
        found = self.text(name, most=ADDRESS_OCTETS)
        if not found:
            return ""
        try:
            if len(found.encode()) > ADDRESS_OCTETS:
                raise Refused("553 5.1.3 Address too long")
            check_recipient(found, utf8=True)
        except Refused:
            self._faults.add(pointer(name), f"`{name}` has to be one address like `ada@example.org`.")
            return ""
        return found


def pointer(name: str) -> str:
    """The JSON Pointer to a member of the body (RFC 6901 3)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
