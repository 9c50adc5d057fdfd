"""Sealing: AES-256-GCM under a data key, bound to what is sealed and where it belongs (DESIGN 3.3).

A sealed field is base64 of one version byte, a 96-bit random nonce and the ciphertext with its tag (NIST SP 800-38D). What is
longer than a few lines is compressed first: ciphertext can't be. A large attachment, which is base64 of what is compressed
already, is left as it is: to win back the quarter that base64 adds costs more time than all else that is done with a mail.
"""

import base64
import os
from typing import Final

import cramjam
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.fields import Sealed

PLAIN: Final = b"\x01"
ZSTD: Final = b"\x02"
NONCE_BYTES: Final = 12
#: Bytes from which compressing is worth its while.
WORTH_COMPRESSING: Final = 200
#: Bytes from which a sample out of the middle, of so many bytes, tells: no more than this share may be left of it.
LARGE: Final = 65_536
SAMPLE: Final = 8_192
WORTHWHILE: Final = 0.7


class Unsealable(ValueError):
    """Not sealed under this key for this place, or changed since."""


def new_data_key() -> bytes:
    """256 random bits."""
    return AESGCM.generate_key(256)


def place(kind: str, subject: str, field: str) -> bytes:
    """What a sealed field is bound to: the type it stands in, the id of that thing, and the field's name."""
    return f"{kind}|{subject}|{field}".encode()


def seal_bytes(data_key: bytes, plain: bytes, at: bytes) -> bytes:
    """Seals bytes for a place."""
    version, body = PLAIN, plain
    if _is_worth_compressing(plain):
        packed = _compressed(plain)
        if len(packed) < len(plain):
            version, body = ZSTD, packed
    nonce = os.urandom(NONCE_BYTES)
    return version + nonce + AESGCM(data_key).encrypt(nonce, body, version + at)


def open_bytes(data_key: bytes, sealed: bytes, at: bytes) -> bytes:
    """The bytes that were sealed for this place; raises Unsealable."""
    version, nonce, body = sealed[:1], sealed[1 : 1 + NONCE_BYTES], memoryview(sealed)[1 + NONCE_BYTES :]
    try:
        plain = AESGCM(data_key).decrypt(nonce, body, version + at)
    except (InvalidTag, ValueError) as error:
        raise Unsealable(at.decode()) from error
    return bytes(cramjam.zstd.decompress(plain)) if version == ZSTD else plain


def seal(data_key: bytes, plain: bytes, at: bytes) -> Sealed:
    """A sealed field, as it stands in JSON."""
    return Sealed(base64.b64encode(seal_bytes(data_key, plain, at)).decode())


def unseal(data_key: bytes, sealed: Sealed, at: bytes) -> bytes:
    """What a sealed field holds; raises Unsealable."""
    return open_bytes(data_key, base64.b64decode(sealed), at)


def _is_worth_compressing(plain: bytes) -> bool:
    if len(plain) < LARGE:
        return len(plain) > WORTH_COMPRESSING
    middle = len(plain) // 2
    return len(_compressed(plain[middle : middle + SAMPLE])) < WORTHWHILE * SAMPLE


def _compressed(plain: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(plain, level=1))
