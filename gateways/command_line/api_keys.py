"""API keys: `pl_live_`, 256 random bits and a checksum, in base 62.

The prefix lets people and secret scanners recognise a key; the checksum lets them tell a real one from an example without
asking anybody. A key is shown once. What is kept is its SHA-256, which for 256 random bits needs no salt and no stretching.
"""

import secrets
import string
from hashlib import sha256
from typing import Final
from zlib import crc32

PREFIX: Final = "pl_live_"
ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
#: 62⁴³ > 2²⁵⁶, 62⁶ > 2³².
RANDOM_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6
#: How much of a key is kept in the clear, for people to tell their keys apart: its prefix and 24 of its 256 bits.
SHOWN_LENGTH: Final = len(PREFIX) + 4


def new_api_key() -> str:
    """A key that nobody has seen before; 57 characters."""
    body = _base62(secrets.randbits(256), RANDOM_LENGTH)
    return f"{PREFIX}{body}{_checksum(body)}"


def is_well_formed(key: str) -> bool:
    """Whether this could be a key at all: a mistyped or shortened one is not."""
    body = key.removeprefix(PREFIX)[:RANDOM_LENGTH]
    return key == f"{PREFIX}{body}{_checksum(body)}" and len(body) == RANDOM_LENGTH


def hash_of(key: str) -> str:
    """What is kept instead of the key: the SHA-256 of all of it, in hex."""
    return sha256(key.encode()).hexdigest()


def shown_prefix(key: str) -> str:
    """The beginning by which its holder knows a key again."""
    return key[:SHOWN_LENGTH]


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
