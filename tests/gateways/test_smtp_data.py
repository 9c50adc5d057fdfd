"""The block reader: where a mail ends, and what its bytes mean."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.mail_in import smtp_data
from gateways.mail_in.smtp_data import Fate, IncomingMail, Room
from tests.support.smtp_probe import NOT_ENDS, SMUGGLED, as_kept


def incoming(limit: int = 1 << 20, excess: int = 1 << 16) -> IncomingMail:
    return IncomingMail(limit=limit, excess=excess, memory=1 << 10, room=Room(size=1 << 11, places=1))


def read(blocks: list[bytes]) -> tuple[bytes | None, bytes]:
    """The mail in these blocks, or None where it has not ended, and what came after it."""
    mail, rest = incoming(), b""
    for block in blocks:
        rest += block if mail.ended else mail.feed(block)
    if not mail.ended:
        return None, rest
    spooled = mail.spooled()
    text = spooled.file.read()
    assert (spooled.size, spooled.sha256) == (len(text), hashlib.sha256(text).hexdigest())
    mail.close()
    return text, rest


@pytest.mark.parametrize("form", NOT_ENDS, ids=repr)
def test_only_crlf_dot_crlf_ends_a_mail_however_the_network_splits_it(form):
    wire = b"Subject: first\r\n\r\nhello" + form + SMUGGLED + b"\r\n.\r\nQUIT\r\n"
    splits = [[wire], [bytes([byte]) for byte in wire]]
    splits += [[wire[:at], wire[at:]] for at in range(1, len(wire))]
    found = {read(blocks) for blocks in splits}
    assert found == {as_kept(wire)}
    (text, rest) = found.pop()
    assert rest == b"QUIT\r\n"
    assert b"smuggled" in text


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"Z" * 1500]), max_size=24),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_every_mixture_of_dots_and_line_ends_has_one_meaning_in_all_splits(parts, cuts):
    wire = b"".join(parts)
    edges = sorted({0, len(wire), *(min(cut, len(wire)) for cut in cuts)})
    blocks = [wire[start:end] for start, end in itertools.pairwise(edges)]
    assert read(blocks) == as_kept(wire)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".x\r\n..y\r\n.\r\n", b"x\r\n.y\r\n"),
        (b"Subject: a\nX-Evil: b\r\n.\r\n", b"Subject: a\r\nX-Evil: b\r\n"),
        (b"a\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\n\r\n"),
    ],
)
def test_dots_are_unstuffed_and_bare_line_ends_become_crlf(wire, text):
    assert read([wire]) == (text, b"")


@pytest.mark.parametrize(("size", "fate"), [(999, Fate.GOOD), (1000, Fate.GOOD), (1001, Fate.TOO_LARGE)])
def test_the_limit_counts_the_bytes_that_are_kept(size, fate):
    mail = incoming(limit=1000)
    mail.feed(b"..\r\n" + b"x" * (size - 5) + b"\r\n.\r\n")
    assert (mail.ended, mail.size, mail.fate) == (True, size, fate)
    mail.close()


@pytest.mark.parametrize(("more", "flooding"), [(99, False), (100, False), (101, True)])
def test_after_the_limit_only_so_much_more_is_read(more, flooding):
    mail = incoming(limit=1000, excess=100)
    mail.feed(b"x" * (1000 + more))
    assert mail.flooding is flooding
    mail.close()


def test_a_full_disk_is_a_fate_of_the_mail_and_not_an_error(monkeypatch):
    monkeypatch.setattr(smtp_data.tempfile, "tempdir", "/dev/full")  # no file can be made in there
    mail = incoming()
    mail.feed(b"x" * 5000)
    mail.feed(b"x" * 5000 + b"\r\n.\r\n")
    assert (mail.ended, mail.fate) == (True, Fate.NO_SPACE)
    mail.close()


def test_a_place_in_memory_is_one_mails_at_a_time(monkeypatch):
    monkeypatch.setattr(smtp_data.tempfile, "tempdir", "/dev/full")  # what leaves memory has nowhere to go
    room = Room(size=1 << 11, places=1)
    first, second, third, fourth = (IncomingMail(limit=1 << 20, excess=0, memory=1 << 10, room=room) for _ in range(4))
    first.feed(b"x" * 2000)
    second.feed(b"x" * 1000)
    second.feed(b"x" * 1000)
    assert (first.fate, second.fate) == (Fate.GOOD, Fate.NO_SPACE)
    first.close()
    third.feed(b"x" * 2000)
    assert third.fate is Fate.GOOD
    third.feed(b"x" * 1000)
    fourth.feed(b"x" * 2000)
    assert (third.fate, fourth.fate) == (Fate.NO_SPACE, Fate.GOOD)
    fourth.close()


def test_only_received_headers_are_counted_and_only_in_the_header():
    mail = incoming()
    mail.feed(b"Received: a\r\n x\r\nRECEIVED: b\r\nX-Received: no\r\nSubject: s\r\n\r\nReceived: body\r\n.\r\n")
    assert mail.received_headers() == 2
    mail.close()
