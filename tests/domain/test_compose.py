"""Outgoing mail as bytes, read back by the standard library's parser and by ours."""

import email
import email.header
import email.policy
import email.utils
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.message import Message
from typing import Any

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.compose import Unwritable, compose, encoded_size, needs_smtputf8
from domain.mail import attachment_bytes, parse
from domain.mail_wire_addresses import NoAddress, wire_address
from domain.outgoing import MARKER, Mailbox, OutgoingFile, OutgoingMail

PLAIN = OutgoingMail(
    message_id="<snd_1@postledger.example>",
    marker="snd_1",
    date=datetime(2026, 11, 28, 12, 0, 5, tzinfo=UTC),
    sender=Mailbox("alice@example.org", "Alice"),
    to=[Mailbox("bob@example.org", "Bob")],
    cc=[],
    bcc=[],
    reply_to=[],
    subject="Hello",
    text="Hi",
)
FILE = OutgoingFile("report.pdf", "application/pdf", bytes(range(256)))
FULL = replace(
    PLAIN,
    cc=[Mailbox("carol@example.org")],
    bcc=[Mailbox("dave@example.org", "Dave")],
    reply_to=[Mailbox("desk@example.org", "The Desk")],
    html="<p>Hi</p>",
    headers={"References": "<a@b> <c@d>", "In-Reply-To": "<c@d>", "X-Tag": "a, b"},
    attachments=[FILE],
)


def wire(mail: OutgoingMail, *, with_bcc: bool = False) -> bytes:
    """The mail, which is as it must be on the wire: CRLF only, lines that fit, and ASCII unless addresses are not."""
    raw = compose(mail, with_bcc=with_bcc)
    assert raw == compose(mail, with_bcc=with_bcc)
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert raw.endswith(b"\r\n")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.isascii() or needs_smtputf8(mail)
    assert b"\0" not in raw
    return raw


def by_library(raw: bytes) -> Message:
    return email.message_from_bytes(raw, policy=email.policy.compat32)


def test_everything_is_where_it_was_put() -> None:
    read = parse(wire(FULL))
    assert (read.subject, read.from_address, read.from_name) == ("Hello", "alice@example.org", "Alice")
    assert (read.to, read.cc, read.reply_to) == (("bob@example.org",), ("carol@example.org",), ("desk@example.org",))
    assert (read.text, read.html) == ("Hi\n", "<p>Hi</p>\n")
    assert read.message_id == "<snd_1@postledger.example>"
    assert read.headers[MARKER.lower()] == ["snd_1"]
    assert read.headers["date"] == ["Sat, 28 Nov 2026 12:00:05 +0000"]
    assert read.headers["references"] == ["<a@b> <c@d>"]
    assert read.headers["x-tag"] == ["a, b"]
    assert [(file.filename, file.content_type) for file in read.attachments] == [("report.pdf", "application/pdf")]
    assert attachment_bytes(wire(FULL), 0) == FILE.content
    assert [part.get_content_type() for part in by_library(wire(FULL)).walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf"
    ]  # fmt: skip


def test_bcc_is_told_to_those_who_take_it_out_only() -> None:
    assert b"dave@" not in wire(FULL)
    assert b"Bcc: Dave <dave@example.org>\r\n" in wire(FULL, with_bcc=True)


@pytest.mark.parametrize(
    ("mail", "types"),
    [
        (PLAIN, ["text/plain"]),
        (replace(PLAIN, html="<b>x</b>"), ["multipart/alternative", "text/plain", "text/html"]),
        (replace(PLAIN, attachments=[FILE]), ["multipart/mixed", "text/plain", "application/pdf"]),
    ],
)
def test_a_mail_has_no_more_parts_than_it_needs(mail: OutgoingMail, types: list[str]) -> None:
    assert [part.get_content_type() for part in by_library(wire(mail)).walk()] == types


def test_the_date_is_in_utc_and_needs_an_offset() -> None:
    east = PLAIN.date.astimezone(timezone(timedelta(hours=14)))
    assert compose(replace(PLAIN, date=east), with_bcc=False) == wire(PLAIN)
    with pytest.raises(Unwritable):
        compose(replace(PLAIN, date=PLAIN.date.replace(tzinfo=None)), with_bcc=False)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300)


@given(TEXTS | st.text("\r\n .=\t-F é", max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    """Line ends become CRLF and one at the end is not told from none; our parser is free to tidy up what it shows."""
    raw = wire(replace(PLAIN, text=text, html=text))
    told = re.sub(r"\r\n|\r|\n", "\n", text).removesuffix("\n") + "\n"
    for part in by_library(raw).walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            assert content.decode().replace("\r\n", "\n") == told


#: Text that a header may hold: no controls, which are refused, and white space that no parser has to keep.
LINES = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp", "Cf"]) | st.sampled_from(' =?_"\\,;<>@()'),
    max_size=200,
).map(lambda text: " ".join(text.split()))


@given(LINES, LINES)
@settings(max_examples=300, deadline=None)
def test_any_subject_and_name_is_read_as_it_was_written(subject: str, name: str) -> None:
    raw = wire(replace(PLAIN, subject=subject, to=[Mailbox("bob@example.org", name), Mailbox("eve@example.org", name)]))
    read = parse(raw)
    assert (read.subject or "") == subject
    assert read.to == ("bob@example.org", "eve@example.org")
    assert [address.replace("\r\n", "") for address in _names_by_library(raw)] == [name, name]


def _names_by_library(raw: bytes) -> list[str]:
    pairs = email.utils.getaddresses([str(by_library(raw)["To"])])
    return [str(email.header.make_header(email.header.decode_header(name))) for name, _ in pairs]


@pytest.mark.parametrize(
    "name",
    [
        "plain.txt", "with space.txt", 'qu"ote.txt', "per%20cent.txt", "back\\slash.txt", "../../etc/passwd",
        "Résumé.pdf", "日本語" * 60 + ".pdf",
        "=?utf-8?q?a=0Ab?=.txt", "a;b=c.txt", "é" * 255, "x" * 255, "😀.png", "tab\there.txt",
    ],
)  # fmt: skip
def test_a_file_keeps_its_name_but_for_its_path(name: str) -> None:
    raw = wire(replace(PLAIN, attachments=[OutgoingFile(name, "text/plain", b"x")]))
    told = re.sub(r"[/\\]", "_", name).replace("\t", " ")
    assert parse(raw).attachments[0].filename == told
    assert [part.get_filename() for part in by_library(raw).walk()][-1] == told


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("text/plain; charset=utf-8", "text/plain;\r\n charset=utf-8"),
        ('text/calendar; method=REQUEST; name="x.ics"', "text/calendar;\r\n method=REQUEST"),
        ("message/rfc822", "application/octet-stream"),
        ("multipart/mixed; boundary=x", "application/octet-stream"),
        ("image/svg+xml", "image/svg+xml"),
    ],
)
def test_a_file_is_of_the_type_it_was_said_to_be_of(said: str, written: str) -> None:
    raw = wire(replace(PLAIN, attachments=[OutgoingFile("a", said, b"x")]))
    assert f"\r\nContent-Type: {written}\r\nContent-Disposition".encode() in raw


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 56, b"x" * 57, b"x" * 58, bytes(1000)])
def test_a_file_s_bytes_are_its_own(content: bytes) -> None:
    raw = wire(replace(PLAIN, attachments=[OutgoingFile("a", "text/plain", content), FILE]))
    assert [attachment_bytes(raw, 0), attachment_bytes(raw, 1)] == [content, FILE.content]


@pytest.mark.parametrize("sizes", [[], [0], [1, 2, 3], [56, 57, 58], [4_999_999, 5_000_000, 1]])
def test_the_size_is_known_before_the_files_are_read(sizes: list[int]) -> None:
    files = [OutgoingFile(f"é{number}.pdf", "application/pdf", bytes(size)) for number, size in enumerate(sizes)]
    planned = [(file.name, file.content_type, len(file.content)) for file in files]
    assert encoded_size(FULL, planned) == len(wire(replace(FULL, attachments=files), with_bcc=True))


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("bob@straße.de", "bob@xn--strae-oqa.de"),
        ("bob@例え.テスト", "bob@xn--r8jz45g.xn--zckzah"),
        ("bob@BÜCHER.example", "bob@xn--bcher-kva.example"),
        ("bob@EXAMPLE.org", "bob@EXAMPLE.org"),
        ('"a b"@example.org', '"a b"@example.org'),
        ("bob@[127.0.0.1]", "bob@[127.0.0.1]"),
        ("用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
    ],
)
def test_a_domain_is_written_as_dns_has_it(address: str, written: str) -> None:
    mail = replace(PLAIN, to=[Mailbox(address)])
    assert f"To: {written}\r\n".encode() in wire(mail)
    assert needs_smtputf8(mail) is (not address.partition("@")[0].isascii())


#: Letters that one standard or another maps, folds or forbids, among those that none does.
SCRIPTS = (
    "abcxyzABCZ0189-äöüßÄÖÜẞçéñøåœłžαβγσςΣλжщыЯёא؀ابتकखग्தமിഴไทย中文字例え日本ガｶ゛ｱＡｂ１²ⅷ﷼ﬁ·ªİıſKÅ"
    "\u0301\u0308\u200c\u200d\u00ad"
)


@given(st.text(SCRIPTS, min_size=1, max_size=12))
@settings(max_examples=500, deadline=None)
def test_a_domain_is_nobody_else_s(label: str) -> None:
    """As the idna package has it by UTS 46 and IDNA 2008, or refused: never another domain's name."""
    try:
        written = wire_address(f"a@{label}.example")
    except NoAddress:
        return
    try:
        theirs = idna.encode(f"{label}.example", uts46=True, transitional=False).decode()
    except idna.IDNAError:
        return
    assert written.lower() == f"a@{theirs}".lower()


def test_a_long_list_is_folded_between_addresses() -> None:
    many = [Mailbox(f"{'x' * 50}{number}@example.org", f"Name, of {number}") for number in range(100)]
    raw = wire(replace(PLAIN, to=many))
    assert parse(raw).to == tuple(one.address for one in many)
    assert max(map(len, raw.split(b"\r\n"))) < 120


@pytest.mark.parametrize("length", [1, 77, 78, 900, 901, 5000])
def test_a_word_without_end_fits_its_lines(length: int) -> None:
    mail = replace(PLAIN, subject="x" * length, headers={"X-Long": "y" * length})
    read = parse(wire(mail))
    assert (read.subject, read.headers["x-long"]) == ("x" * length, ["y" * length])


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": Mailbox("nobody")},
        {"bcc": [Mailbox("a@b, c@d")]},
        {"headers": {"X-A": "1", "x-a": "2"}},
        {"message_id": "<a>"},
        {"marker": ""},
        {"attachments": [OutgoingFile("a", "text", b"")]},
        {"attachments": [OutgoingFile("a", "text/plain; charset", b"")]},
        {"text": "\ud800"},
        {"subject": "\udc80"},
    ],
    ids=str,
)
def test_what_is_no_mail_is_refused_without_being_told(changes: dict[str, Any]) -> None:
    with pytest.raises(Unwritable) as caught:
        compose(replace(PLAIN, **changes), with_bcc=False)
    assert isinstance(caught.value, ValueError)
    assert "a@b" not in str(caught.value)
