"""What is sealed can't be read, moved or changed by whoever holds the log, the tables or the blobs."""

import base64

import pytest

from gateways.stores.keyset import Keyset, KeysetError, open_keyset
from gateways.stores.sealing import (
    NONCE_BYTES,
    Unsealable,
    new_data_key,
    open_bytes,
    place,
    seal,
    seal_bytes,
    unseal,
)

KEY = new_data_key()
AT = place("message", "msg_1", "summary")
#: One that is kept plain and one that is compressed first.
TEXTS = [b"Your code is 428571", b"Your code is 428571. " * 40]


@pytest.mark.parametrize("plain", [b"", *TEXTS, bytes(range(256)) * 8])
def test_what_is_sealed_is_opened_as_it_was(plain: bytes) -> None:
    assert open_bytes(KEY, seal_bytes(KEY, plain, AT), AT) == plain
    assert unseal(KEY, seal(KEY, plain, AT), AT) == plain


@pytest.mark.parametrize("plain", TEXTS)
def test_a_change_of_any_bit_is_seen(plain: bytes) -> None:
    """In the version, the nonce, the text and the tag alike."""
    sealed = seal_bytes(KEY, plain, AT)
    for index in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[index] ^= 1 << bit
            with pytest.raises(Unsealable):
                open_bytes(KEY, bytes(changed), AT)


@pytest.mark.parametrize("plain", TEXTS)
def test_what_was_cut_or_extended_is_seen(plain: bytes) -> None:
    sealed = seal_bytes(KEY, plain, AT)
    for changed in [*(sealed[:length] for length in range(len(sealed))), sealed + b"\0"]:
        with pytest.raises(Unsealable):
            open_bytes(KEY, changed, AT)


@pytest.mark.parametrize(
    "elsewhere",
    [
        place("message", "msg_2", "summary"),
        place("message", "msg_1", "content"),
        place("mailbox", "msg_1", "summary"),
        AT[:-1],
        AT + b"|",
        b"",
    ],
)
def test_a_field_that_was_moved_elsewhere_is_not_opened(elsewhere: bytes) -> None:
    """Another row's, another column's, another type's: a swap is a change."""
    with pytest.raises(Unsealable):
        unseal(KEY, seal(KEY, TEXTS[0], AT), elsewhere)


def test_another_mailboxs_key_opens_nothing() -> None:
    with pytest.raises(Unsealable):
        unseal(new_data_key(), seal(KEY, TEXTS[0], AT), AT)


def test_no_nonce_comes_twice_under_one_key() -> None:
    """A hundred thousand is far more than a mailbox holds; two random ones of 96 bits meet by chance once in 2 ** 62."""
    nonces = {seal_bytes(KEY, b"x", AT)[1 : 1 + NONCE_BYTES] for _ in range(100_000)}
    assert len(nonces) == 100_000


def test_the_same_text_sealed_twice_looks_different() -> None:
    assert seal(KEY, TEXTS[0], AT) != seal(KEY, TEXTS[0], AT)


# ── the keyset ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keyset(tmp_path) -> Keyset:
    return open_keyset(tmp_path / "keyset.json")


def test_a_session_token_is_long_enough_and_every_slip_of_it_is_refused(keyset: Keyset) -> None:
    mailbox = "mbx_" + "0123456789abcdefghjkmnpqrs"
    token = keyset.mailbox_token(mailbox, 1)
    secret = token.removeprefix("uct_" + mailbox[4:])
    assert len(base64.urlsafe_b64decode(secret + "=")) * 8 >= 256
    assert keyset.mailbox_of_token(token) == mailbox
    for index in range(len(token)):
        slipped = token[:index] + ("a" if token[index] != "a" else "b") + token[index + 1 :]
        assert keyset.mailbox_of_token(slipped) is None
    for other in (token + "A", token[:-1], "", "uct_", "ü" * len(token), "uct_" + "0" * 10_000):
        assert keyset.mailbox_of_token(other) is None


def test_another_installation_takes_neither_token_nor_data_key(keyset: Keyset, tmp_path) -> None:
    other = open_keyset(tmp_path / "other.json")
    mailbox = "mbx_" + "0" * 26
    assert other.mailbox_of_token(keyset.mailbox_token(mailbox, 1)) is None
    kid, wrapped = keyset.wrap(KEY, mailbox)
    assert keyset.unwrap(kid, wrapped, mailbox) == KEY
    with pytest.raises(KeysetError, match="is this the keyset"):
        other.unwrap(kid, wrapped, mailbox)


def test_a_keyset_others_may_read_is_refused(tmp_path) -> None:
    path = tmp_path / "keyset.json"
    open_keyset(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(KeysetError, match="chmod 600"):
        open_keyset(path)


def test_keys_are_not_in_what_objects_say_of_themselves(keyset: Keyset, tmp_path) -> None:
    """Where one ends up in a traceback or a log."""
    kept = (tmp_path / "keyset.json").read_text()
    said = repr(keyset) + str(keyset) + repr(vars(keyset)["_wrapping"])
    assert not [word for word in kept.split('"') if len(word) == 44 and word in said]
