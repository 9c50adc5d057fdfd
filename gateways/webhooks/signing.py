"""Secrets of webhooks, and the signatures they make (Standard Webhooks 1.0, "signature scheme").

A secret is derived under an installation key from what it belongs to (an endpoint, or an account) and its version, whenever
it is needed. Two are derived each time: one for HMAC-SHA-256 (`v1`), which both sides know, and one for ed25519 (`v1a`), of
which the receiver knows the public half.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

from gateways.stores.keyset import Keyset

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix that scanners recognise, no secret
PUBLIC_PREFIX: Final = "whpk_"


@dataclass(frozen=True, slots=True)
class Signer:
    """One version of the secrets of an endpoint or account."""

    shared: bytes = field(repr=False)
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of(cls, keyset: Keyset, subject: str, version: int) -> "Signer":
        """Those of this endpoint or account (`whk_…`, `acc_…`) and version."""
        private = Ed25519PrivateKey.from_private_bytes(keyset.derived("webhook-ed25519", subject, str(version)))
        return cls(keyset.derived("webhook", subject, str(version)), private)

    @property
    def secret(self) -> str:
        """What the receiver verifies `v1` with: `whsec_` and base64 of 32 bytes."""
        return SECRET_PREFIX + base64.b64encode(self.shared).decode()

    @property
    def public_key(self) -> str:
        """What the receiver verifies `v1a` with: `whpk_` and base64 of 32 bytes."""
        return PUBLIC_PREFIX + base64.b64encode(self.private.public_key().public_bytes_raw()).decode()

    def signatures(self, message: str, at: datetime, body: str) -> list[str]:
        """Both signatures of this very text. `message` is what `webhook-id` says, `at` what `webhook-timestamp` says."""
        signed = f"{message}.{int(at.timestamp())}.{body}".encode()
        return [
            Webhook(self.shared).sign(message, at, body),
            "v1a," + base64.b64encode(self.private.sign(signed)).decode(),
        ]


def headers_of(signers: Sequence[Signer], message: str, at: datetime, body: str) -> dict[str, str]:
    """The three headers; the newest secret signs first, those that were rotated a short time ago after it. `at` is in UTC."""
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(one for signer in signers for one in signer.signatures(message, at, body)),
    }
