"""The keyset file: the installation's own secrets, made once, mode 0600 (DESIGN 3.3).

It holds the key-encryption keys that wrap data keys, and one installation secret from which the keys of digests and tokens
are derived (HKDF, RFC 5869). Lose it, and nothing sealed can ever be read again.

The file changes only when key-encryption keys are rotated (`keyset_file.py`); whoever holds a keyset notices within a second.
"""

import base64
import hmac
import os
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from domain.fields import Digest
from gateways.stores import keyset_file
from gateways.stores.keyset_file import Contents
from gateways.stores.sealing import Unsealable

Purpose = Literal[
    "address",
    "message-id",
    "mailbox-token",
    "idempotency",
    "fingerprint",
    "user-email",
    "user-external-id",
    "connection-account",
    "connection-subject",
    "token",
    "consent",
    "wrapping",
    "link",
    "webhook",
    "webhook-ed25519",
]
TOKEN_PREFIX: Final = "uct_"  # noqa: S105 - a prefix that scanners recognise, no secret
#: Seconds for which nobody looks whether the file has a new key to wrap with.
LOOK_SECONDS: Final = 1.0
KeysetError = keyset_file.KeysetError
KeysetAway = keyset_file.KeysetAway


class Keyset:
    """The secrets of one installation, as its file has them."""

    def __init__(self, contents: Contents, path: Path) -> None:
        self.path = path
        self._installation = contents.installation
        self._derived: dict[Purpose, hmac.HMAC] = {}
        self._take(contents)

    @property
    def primary(self) -> str:
        """The id of the key that wraps."""
        return self._contents.primary.kid

    @property
    def made_at(self) -> datetime:
        """When the key that wraps was made."""
        return self._contents.primary.made_at

    @property
    def is_between_keys(self) -> bool:
        """Whether an earlier key was not disabled yet: rotating has begun and not ended."""
        return any(key.disabled_at is None for key in self._contents.keys if key != self._contents.primary)

    def has(self, kid: str) -> bool:
        """Whether this key-encryption key is in the file, disabled or not."""
        return any(key.kid == kid for key in self._contents.keys)

    def disabled_for(self, age: timedelta) -> list[str]:
        """The ids of keys that have only been opening for so long."""
        latest = datetime.now(UTC) - age
        return [key.kid for key in self._contents.keys if key.disabled_at is not None and key.disabled_at <= latest]

    def wrap(self, data_key: bytes, subject: str) -> tuple[str, bytes]:
        """The key's id and the data key, wrapped for this subject."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.look()
        nonce = os.urandom(12)
        return self.primary, nonce + self._wrapping[self.primary].encrypt(nonce, data_key, subject.encode())

    def unwrap(self, kid: str, wrapped: bytes, subject: str) -> bytes:
        """Raises KeysetError where the key-encryption key is not in this file, Unsealable where it wrapped something else."""
        if kid not in self._wrapping:
            self.look(anyway=True)
        if kid not in self._wrapping:
            raise KeysetError(
                f"{self.path} has no key {kid}: is this the keyset this database was made with, and no copy from before "
                f"keys were rotated? Every process must read the same file."
            )
        try:
            return self._wrapping[kid].decrypt(wrapped[:12], wrapped[12:], subject.encode())
        except (InvalidTag, ValueError) as error:
            raise Unsealable(subject) from error

    def look(self, *, anyway: bool = False) -> None:
        """Reads the file again where it has changed; raises KeysetAway where it can't be read or is another keyset's.

        A key that is no longer in the file is forgotten. `anyway`: a file system may be late to tell of changes.
        """
        self._looked = time.monotonic()
        if not anyway and keyset_file.mark(self.path) == self._contents.mark:
            return
        try:
            contents = keyset_file.read(self.path)
        except KeysetError as error:
            raise KeysetAway(str(error)) from error
        if contents.installation != self._installation:
            raise KeysetAway(f"{self.path} was replaced by another keyset: restore it from your backup.")
        self._take(contents)

    @property
    def fingerprint(self) -> str:
        """Tells this keyset from any other, and nothing about it."""
        return self.digest("fingerprint", "keyset")

    def digest(self, purpose: Purpose, *parts: str) -> Digest:
        """An HMAC-SHA-256 under this installation's key for the purpose, in base64url: for look-ups and comparisons."""
        return Digest(base64.urlsafe_b64encode(self._mac(purpose, parts)).rstrip(b"=").decode())

    def sealing_key(self, purpose: Purpose) -> bytes:
        """A key of this installation for what is sealed for minutes only, and so under no key that is rotated."""
        return self._derive(purpose)

    def derived(self, purpose: Purpose, *parts: str) -> bytes:
        """32 bytes that are the same for the same parts: a secret that is recomputed whenever it is needed."""
        return self._mac(purpose, parts)

    def binding(self, data_key: bytes, context: str) -> bytes:
        """32 bytes that nobody else can make: the data key belongs to this context. For keepers that bind to nothing."""
        return self._mac("wrapping", (data_key.hex(), context))

    def mailbox_token(self, mailbox: str, version: int) -> str:
        """The session token of a mailbox: recomputed whenever it is needed, stored nowhere."""
        return f"{TOKEN_PREFIX}{mailbox.removeprefix('mbx_')}{self.digest('mailbox-token', mailbox, str(version))}"

    def mailbox_of_token(self, token: str, version: int = 1) -> str | None:
        """The mailbox a session token belongs to; None for any other text. Compared in constant time."""
        mailbox = "mbx_" + token[len(TOKEN_PREFIX) : len(TOKEN_PREFIX) + 26]
        genuine = hmac.compare_digest(token.encode(), self.mailbox_token(mailbox, version).encode())
        return mailbox if genuine else None

    def _take(self, contents: Contents) -> None:
        self._looked = time.monotonic()
        self._contents = contents
        self._wrapping = {key.kid: AESGCM(key.secret) for key in contents.keys}

    def _derive(self, purpose: Purpose) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=f"postledger {purpose}".encode()).derive(self._installation)

    def _mac(self, purpose: Purpose, parts: tuple[str, ...]) -> bytes:
        if purpose not in self._derived:
            self._derived[purpose] = hmac.new(self._derive(purpose), digestmod=sha256)
        mac = self._derived[purpose].copy()  # a copy knows its key already: a fourth of the time of a new one
        mac.update("\x1f".join(parts).encode("utf-8", "surrogatepass"))
        return mac.digest()


def open_keyset(path: Path) -> Keyset:
    """Reads the keyset file, making it first where there is none; raises KeysetError."""
    if not path.exists():
        keyset_file.make(path)
    return Keyset(keyset_file.read(path), path)
