"""Whole mails of our own, each beside what a mail client shows of it."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from domain import mail

MAILS = sorted((Path(__file__).parent.parent / "mails").glob("*.eml"))


def as_received(path: Path) -> bytes:
    """The mail as SMTP delivers it: stored with LF, sent with CRLF."""
    return path.read_bytes().replace(b"\n", b"\r\n")


def shown(parsed: mail.Mail) -> dict[str, object]:
    """A parsed mail as the stored answers have it: without headers and without what is empty."""
    fields = dataclasses.asdict(parsed)
    del fields["headers"]
    return json.loads(json.dumps({name: value for name, value in fields.items() if value not in (None, ())}))


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_a_mail_reads_as_a_client_shows_it(path: Path) -> None:
    assert shown(mail.parse(as_received(path))) == json.loads(path.with_suffix(".json").read_text("utf-8"))


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_every_attachment_can_be_cut_out_of_the_raw_mail_again(path: Path) -> None:
    raw = as_received(path)
    attachments = mail.parse(raw).attachments
    for attachment in attachments:
        data = mail.attachment_bytes(raw, attachment.index)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (attachment.size, attachment.sha256)
    for index in (-1, len(attachments)):
        with pytest.raises(IndexError):
            mail.attachment_bytes(raw, index)


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_the_message_id_read_from_the_head_is_the_parsed_one(path: Path) -> None:
    raw = as_received(path)
    assert mail.message_id(raw) == mail.parse(raw).message_id


def test_a_forwarded_mail_is_cut_out_byte_for_byte() -> None:
    inner = b"From: eve@example.com\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--\r\n"
    raw = (
        b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n%s\r\n--o--"
        % inner
    )
    assert mail.attachment_bytes(raw, 0) == inner


def test_headers_are_kept_in_order_decoded_under_lower_case_names() -> None:
    raw = b"Received: second\r\nX-Name: =?utf-8?q?caf=C3=A9?=\r\nRECEIVED: first\r\n\tby us\r\n\r\n"
    assert mail.parse(raw).headers == {"received": ["second", "first by us"], "x-name": ["café"]}


def test_a_mail_without_any_header_is_all_text() -> None:
    parsed = mail.parse(b"Hello Bob,\r\nNote: bring milk\r\n\r\nAda")
    assert (parsed.text, parsed.headers) == ("Hello Bob,\nNote: bring milk\n\nAda", {})


def test_a_text_whose_empty_line_was_forgotten_is_not_taken_for_header() -> None:
    parsed = mail.parse(b"Subject: hi\r\nHello Bob\r\nbye\r\n\r\nAda\r\n")
    assert (parsed.subject, parsed.text) == ("hi", "Hello Bob\nbye\n\nAda\n")


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\0", b"\r", b":", b": x\r\n", b"From ", b"\xff" * 10])
def test_nearly_nothing_is_still_a_mail(raw: bytes) -> None:
    parsed = mail.parse(raw)
    assert (parsed.subject, parsed.from_address, parsed.to, parsed.attachments) == (None, None, (), ())


@pytest.mark.parametrize("second", [b"a\nX-Evil: b", b"a\rX-Evil: b"], ids=["a bare LF", "a bare CR"])
def test_a_bare_line_end_in_a_header_is_a_line_end(second: bytes) -> None:
    """One meaning for every reader: the value ends there, and what follows is a field of its own in plain sight."""
    parsed = mail.parse(b"Subject: " + second + b"\r\n\r\n")
    assert (parsed.subject, parsed.headers["x-evil"]) == ("a", ["b"])


def test_a_line_break_decoded_from_a_header_stays_in_its_value() -> None:
    parsed = mail.parse(b"Subject: =?UTF-8?Q?x=0D=0ABcc:_v@x?=\r\n\r\n")
    assert "bcc" not in parsed.headers


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("", "a multipart's charset holds for parts without one: Żółć"),
        ("; charset=utf-8", "a part's own charset comes first: Żółć"),
    ],
)
def test_an_unlabelled_part_takes_the_charset_of_the_multipart_around_it(label: str, text: str) -> None:
    data = text.encode("iso-8859-2" if not label else "utf-8")
    head = b"Content-Type: multipart/mixed; boundary=b; charset=iso-8859-2\r\n\r\n"
    raw = head + b"--b\r\nContent-Type: text/plain" + label.encode() + b"\r\n\r\n" + data + b"\r\n--b--"
    assert mail.parse(raw).text == text
