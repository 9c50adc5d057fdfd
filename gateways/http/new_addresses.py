"""New addresses: readable, and unique by construction.

Two words and eight characters of Crockford's base 32, as in `swift-river-7k2p9xq4`: 40 random bits in the characters and
some 18 in the words. Nobody can guess one, and two never meet.
"""

import random
import secrets
from typing import Final

import coolname

from schemas.ids import ALPHABET

CHARACTERS: Final = 8

coolname.replace_random(random.SystemRandom())


def new_address(domain: str) -> str:
    """A local part of at least 50 random bits, at this domain; all in lower case."""
    ending = "".join(ALPHABET[byte % len(ALPHABET)] for byte in secrets.token_bytes(CHARACTERS))
    return f"{coolname.generate_slug(2)}-{ending}@{domain.lower()}"
