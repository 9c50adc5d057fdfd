"""Ids: a prefix that says what it names, and a UUIDv7 in Crockford's base 32, so that ids sort by when they were made.

What may be made twice of the same cause has an id that derives from it: then both are known to be one.
"""

from hashlib import sha256
from typing import Final

from uuid_utils import uuid7

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
#: Characters of a derived id after its prefix: 130 bits of a digest.
DERIVED: Final = 26


def new_id(prefix: str) -> str:
    """`new_id("mbx")` → `mbx_` and 26 characters: 128 bits, 74 of them random (RFC 9562 5.7)."""
    return f"{prefix}_{_base32(uuid7().int)}"


def derived_id(prefix: str, *names: str) -> str:
    """The same for the same names, in this order."""
    number = int.from_bytes(sha256("\x1f".join(names).encode()).digest())
    return f"{prefix}_" + "".join(ALPHABET[number >> 5 * place & 31] for place in range(DERIVED))


def _base32(number: int) -> str:
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
