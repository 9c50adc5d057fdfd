"""The keyset file: the installation's own secrets, made once, mode 0600 (DESIGN 3.3).

It holds the key-encryption keys that wrap data keys, and one installation secret from which the keys of digests and tokens
are derived (HKDF, RFC 5869). Lose it, and nothing sealed can ever be read again.
"""

import base64
import hmac
import json
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from domain.fields import Digest

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
]
TOKEN_PREFIX: Final = "uct_"  # noqa: S105 - a prefix that scanners recognise, no secret


class KeysetError(Exception):
    """The keyset file can't be used; the sentence says why and what to do."""


class Keyset:
    """The secrets of one installation."""

    def __init__(self, primary: str, keys: dict[str, bytes], installation: bytes) -> None:
        self.primary = primary
        self._wrapping = {kid: AESGCM(key) for kid, key in keys.items()}
        self._installation = installation
        self._derived: dict[Purpose, hmac.HMAC] = {}

    def wrap(self, data_key: bytes, subject: str) -> tuple[str, bytes]:
        """The key's id and the data key, wrapped for this subject."""
        nonce = os.urandom(12)
        return self.primary, nonce + self._wrapping[self.primary].encrypt(nonce, data_key, subject.encode())

    def unwrap(self, kid: str, wrapped: bytes, subject: str) -> bytes:
        """Raises KeysetError where the key-encryption key is not in this file."""
        if kid not in self._wrapping:
            raise KeysetError(f"the keyset has no key {kid}: is this the keyset this database was made with?")
        return self._wrapping[kid].decrypt(wrapped[:12], wrapped[12:], subject.encode())

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

    def mailbox_token(self, mailbox: str, version: int) -> str:
        """The session token of a mailbox: recomputed whenever it is needed, stored nowhere."""
        return f"{TOKEN_PREFIX}{mailbox.removeprefix('mbx_')}{self.digest('mailbox-token', mailbox, str(version))}"

    def mailbox_of_token(self, token: str, version: int = 1) -> str | None:
        """The mailbox a session token belongs to; None for any other text. Compared in constant time."""
        mailbox = "mbx_" + token[len(TOKEN_PREFIX) : len(TOKEN_PREFIX) + 26]
        genuine = hmac.compare_digest(token.encode(), self.mailbox_token(mailbox, version).encode())
        return mailbox if genuine else None

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
        _make(path)
    try:
        if path.stat().st_mode & 0o077:
            raise KeysetError(f"{path} can be read by others: chmod 600 it.")
        found = json.loads(path.read_text())
        keys = {key["kid"]: base64.b64decode(key["k"]) for key in found["keys"]}
        return Keyset(found["primary"], keys, base64.b64decode(found["installation"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeysetError(f"{path} is no keyset ({error}): restore it from your backup.") from error


def _make(path: Path) -> None:
    """Exclusively: of two processes that start at once, one makes it and the other reads it whole."""
    kid = f"local-{secrets.token_hex(4)}"
    keyset = {
        "primary": kid,
        "keys": [{"kid": kid, "alg": "A256GCM", "status": "enabled", "k": _text(AESGCM.generate_key(256))}],
        "installation": _text(secrets.token_bytes(32)),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(keyset, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first: its keyset holds
        finally:
            draft.unlink()
    except OSError as error:
        raise KeysetError(f"can't make the keyset {path}: {error.strerror}.") from error


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
