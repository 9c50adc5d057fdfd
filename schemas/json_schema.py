"""JSON Schemas (Draft 2020-12) of what the topics hold, from the dataclasses themselves.

Beside the usual words, `x-sealed: true` marks a field that is ciphertext (base64) under the data key of its mailbox or user,
and `x-digest: true` one that is an HMAC under an installation key: equal values mean equal things, and no more can be told.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, Final, get_args, get_type_hints

from pydantic import TypeAdapter

from domain.fields import Digest, Sealed
from schemas import meanings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SEALED: Final = {"contentEncoding": "base64", "x-sealed": True}
DIGEST: Final = {"x-digest": True}


def schema_of(cls: type, kind: str) -> dict[str, Any]:
    """The schema of the bodies of one type, standing alone."""
    schema, parts = described(cls)
    named = {"$schema": DIALECT, "$id": f"urn:postledger:{kind}", **schema, "title": kind}
    return {**named, "$defs": parts} if parts else named


def described(cls: type, references: str = "#/$defs/{model}") -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a class, and those of the classes its fields are made of, by name."""
    schema = TypeAdapter(cls).json_schema(ref_template=references)
    parts = schema.pop("$defs", {})
    classes = {part.__name__: part for part in _parts(cls)}
    return _described(schema, cls), {name: _described(part, classes[name]) for name, part in parts.items()}


def _described(schema: dict[str, Any], cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    fields = {name: _field(found, cls, name, hints[name]) for name, found in schema["properties"].items()}
    # Readers ignore what they don't know: that is how a type grows without a new version.
    return {**schema, "description": meanings.of_type(cls), "properties": fields, "additionalProperties": True}


def _field(found: dict[str, Any], cls: type, name: str, hint: Any) -> dict[str, Any]:
    kinds = {hint, *get_args(hint)}
    marks = {**(SEALED if Sealed in kinds else {}), **(DIGEST if Digest in kinds else {})}
    plain = {word: value for word, value in found.items() if word != "title"}
    return {**plain, **marks, "description": meanings.of_field(cls, name)}


def _parts(cls: type) -> Iterator[type]:
    for hint in get_type_hints(cls).values():
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and is_dataclass(kind):
                yield kind
                yield from _parts(kind)
