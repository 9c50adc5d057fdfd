"""Ids: a prefix that says what it names, and a UUIDv7 in Crockford's base 32, so that ids sort by when they were made."""

from typing import Final

from uuid_utils import uuid7

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """`new_id("mbx")` → `mbx_` and 26 characters: 128 bits, 74 of them random (RFC 9562 5.7)."""
    return f"{prefix}_{_base32(uuid7().int)}"


def _base32(number: int) -> str:
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
