"""How the domain's dataclasses become records and are read again.

Writers forbid unknown fields (a dataclass can't be built with one), readers ignore them. Times are RFC 3339 in UTC with
milliseconds. The type on the wire is the class's name in the words of CloudEvents: `MessageReceived` of the context
`mailbox` is `mailbox.message-received.v1`.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from schemas.envelope import stamp


class UnknownType(ValueError):
    """A record whose `ce_type` this vocabulary doesn't have."""


class InvalidBody(ValueError):
    """A record whose body is not what its type says."""


def wire_type(context: str, cls: type, version: int = 1) -> str:
    """`mailbox`, `MessageReceived` → `mailbox.message-received.v1`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()
    return f"{context}.{words}.v{version}"


def encode(value: Any) -> bytes:
    """The JSON body of a command, an event or a document."""
    return orjson.dumps(value, default=_times, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _times(value: object) -> str:
    if isinstance(value, datetime):
        return stamp(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON here")


class Vocabulary:
    """The classes of one context, by their type on the wire."""

    def __init__(
        self, context: str, classes: Iterable[type] | Mapping[type, str], others: Iterable["Vocabulary"] = ()
    ) -> None:
        self.context = context
        if not isinstance(classes, Mapping):
            classes = {cls: wire_type(context, cls) for cls in classes}
        self.types: dict[type, str] = dict(classes)
        for other in others:
            self.types |= other.types
        self._readers: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(cls) for cls, kind in self.types.items()}

    def type_of(self, value: object) -> str:
        return self.types[type(value)]

    def decode(self, kind: str, body: bytes) -> Any:
        """Raises UnknownType or InvalidBody."""
        reader = self._readers.get(kind)
        if reader is None:
            raise UnknownType(kind)
        try:
            return reader.validate_json(body)
        except ValidationError as error:
            raise InvalidBody(f"{kind}: {error.error_count()} problems") from error
