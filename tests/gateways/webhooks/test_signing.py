"""What we sign is what the reference library, and hands of our own, verify: exactly that, and nothing near it."""

import base64
import hmac
import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from gateways.stores.keyset import Keyset, open_keyset
from gateways.webhooks.signing import PUBLIC_PREFIX, SECRET_PREFIX, Signer, headers_of
from tests.support.papers import ROOT, blocks

ID, BODY = "whd_01jnqrstvwxyz0123456789abc", '{"type":"send.sent","data":{"note":"Grüße, 你好"}}'


@pytest.fixture(scope="module")
def keyset(tmp_path_factory: pytest.TempPathFactory) -> Keyset:
    return open_keyset(tmp_path_factory.mktemp("keys") / "keyset.json")


@pytest.fixture
def signer(keyset: Keyset) -> Signer:
    return Signer.of(keyset, "whk_1", 1)


def signed(*signers: Signer, message: str = ID, at: datetime | None = None, body: str = BODY) -> dict[str, str]:
    return headers_of(signers, message, at or datetime.now(UTC), body)


def passes(secret: str, body: str | bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def ed25519_passes(public: str, body: str, headers: dict[str, str]) -> bool:
    """By the standard's words, with the public half alone."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix(PUBLIC_PREFIX)))
    for one in headers["webhook-signature"].split():
        version, _, signature = one.partition(",")
        if version == "v1a":
            try:
                key.verify(
                    base64.b64decode(signature),
                    f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode(),
                )
            except InvalidSignature:
                continue
            return True
    return False


def test_the_reference_library_verifies_the_exact_bytes(signer: Signer) -> None:
    headers = signed(signer)
    assert Webhook(signer.secret).verify(BODY.encode(), headers)["type"] == "send.sent"
    assert passes(signer.secret, BODY, {name.title(): value for name, value in headers.items()})
    assert ed25519_passes(signer.public_key, BODY, headers)


def test_the_signature_is_what_the_standard_says(signer: Signer) -> None:
    """Without the library that signed it."""
    headers = signed(signer)
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{BODY}".encode()
    mac = hmac.new(base64.b64decode(signer.secret.removeprefix(SECRET_PREFIX)), text, sha256).digest()
    one, other = headers["webhook-signature"].split(" ")
    assert one == f"v1,{base64.b64encode(mac).decode()}"
    assert other.startswith("v1a,")
    assert len(base64.b64decode(signer.secret.removeprefix(SECRET_PREFIX))) == 32


def test_a_change_of_any_bit_is_seen(signer: Signer) -> None:
    """A thousand bits of body, id, time and signature, drawn at random; the same ones each time."""
    chosen, headers = random.Random(7), signed(signer)
    tried = 0
    while tried < 1000:
        where = chosen.choice(["body", "webhook-id", "webhook-timestamp", "webhook-signature"])
        text = bytearray((BODY if where == "body" else headers[where].split(" ")[0]).encode())
        place = chosen.randrange(len(text))
        text[place] ^= 1 << chosen.randrange(7)
        changed = headers | ({} if where == "body" else {where: text.decode("latin-1")})
        if where == "webhook-signature" and _same_signature(headers[where].split(" ")[0], changed[where]):
            continue  # bits that base64 does not use
        assert not passes(signer.secret, bytes(text) if where == "body" else BODY, changed), (where, place)
        tried += 1
    assert not ed25519_passes(signer.public_key, BODY + " ", headers)


def _same_signature(one: str, other: str) -> bool:
    try:
        return base64.b64decode(one.partition(",")[2]) == base64.b64decode(other.partition(",")[2])
    except ValueError:
        return False


def test_an_id_and_a_time_cannot_be_moved_into_each_other(signer: Signer) -> None:
    """The dot parts what is signed: no id of ours has one."""
    now = int(datetime.now(UTC).timestamp())
    headers = signed(signer)
    assert "." not in headers["webhook-id"]
    moved = headers | {"webhook-id": f"{ID}.{now}", "webhook-timestamp": str(now)}
    assert not passes(signer.secret, BODY, moved)


@pytest.mark.parametrize(("minutes", "fits"), [(-6, False), (-4, True), (0, True), (4, True), (6, False)])
def test_a_receiver_takes_five_minutes_of_either_clock(signer: Signer, minutes: int, fits: bool) -> None:
    assert passes(signer.secret, BODY, signed(signer, at=datetime.now(UTC) + timedelta(minutes=minutes))) == fits


def test_while_rotating_both_secrets_verify_and_then_the_old_one_does_not(keyset: Keyset) -> None:
    old, new = Signer.of(keyset, "whk_1", 1), Signer.of(keyset, "whk_1", 2)
    both = signed(new, old)
    for one in (old, new):
        assert passes(one.secret, BODY, both)
        assert ed25519_passes(one.public_key, BODY, both)
    after = signed(new)
    assert passes(new.secret, BODY, after)
    assert not passes(old.secret, BODY, after)
    assert not ed25519_passes(old.public_key, BODY, after)


def test_every_endpoint_account_version_and_installation_has_secrets_of_its_own(keyset: Keyset, tmp_path: Path) -> None:
    other = open_keyset(tmp_path / "other.json")
    signers = [
        Signer.of(keys, subject, version)
        for keys in (keyset, other)
        for subject in ("whk_1", "whk_2", "acc_1", "whk_1\x1f1")
        for version in (1, 2, 11)
    ]
    assert len({one.secret for one in signers}) == len({one.public_key for one in signers}) == len(signers)
    assert all(one.shared != one.private.private_bytes_raw() for one in signers)


def test_secrets_are_the_same_again_and_show_in_no_repr(keyset: Keyset) -> None:
    one, again = Signer.of(keyset, "whk_1", 1), Signer.of(open_keyset(keyset.path), "whk_1", 1)
    assert (one.secret, one.public_key) == (again.secret, again.public_key)
    assert one.secret not in repr(one)
    assert repr(one.shared) not in repr(one)


def test_what_the_page_shows_to_receivers_verifies_what_we_sign(signer: Signer) -> None:
    (shown,) = [block.text for block in blocks(ROOT / "docs/webhooks.md") if block.language == "python"]
    page: dict[str, Any] = {}
    exec(shown, page)
    page["secret"] = signer.secret
    assert page["receive"](signed(signer), BODY.encode())["type"] == "send.sent"
    with pytest.raises(WebhookVerificationError):
        page["receive"](signed(signer), BODY.encode() + b" ")
