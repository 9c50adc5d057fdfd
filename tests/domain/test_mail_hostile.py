"""Mail made to break a parser: bounds at the limit and one past it, costs in proportion, junk that raises nothing."""

import importlib.util
import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain import mail
from domain.mail_tree import MAX_BOUNDARY, MAX_DEPTH, MAX_HEADER_BYTES, MAX_PARTS

REASONS = {"depth", "parts", "headers", "boundary", "malformed"}


def nested(depth: int) -> bytes:
    """A text below that many multiparts."""
    levels = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return levels + b"\r\ndeep"


def with_parts(count: int) -> bytes:
    """A mail of that many parts, itself included."""
    return b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * (count - 1)


def with_header_of(size: int) -> bytes:
    """A mail whose header block has that many bytes."""
    return b"X: " + b"a" * (size - 5) + b"\r\n\r\nbody"


def with_boundary_of(size: int) -> bytes:
    """A multipart whose boundary has that many characters."""
    return b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n--%s\r\n\r\nin" % (b"b" * size, b"b" * size)


@pytest.mark.parametrize(
    ("build", "limit", "reason"),
    [
        (nested, MAX_DEPTH, "depth"),
        (with_parts, MAX_PARTS, "parts"),
        (with_header_of, MAX_HEADER_BYTES, "headers"),
        (with_boundary_of, MAX_BOUNDARY, "boundary"),
    ],
    ids=["depth", "parts", "headers", "boundary"],
)
def test_a_mail_at_a_bound_is_read_and_one_past_it_is_refused_with_the_reason(build, limit, reason) -> None:
    assert mail.parse(build(limit - 1)).text
    assert mail.parse(build(limit)).text
    with pytest.raises(mail.Unparsable) as refused:
        mail.parse(build(limit + 1))
    assert refused.value.reason == reason


def test_a_forwarded_mail_is_a_leaf_however_deep_it_is_itself() -> None:
    raw = b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"x"
    assert mail.parse(raw).attachments[0].content_type == "message/rfc822"


HOSTILE = {
    "parameters of semicolons and quotes": b"Content-Type: text/plain" + b';"' * 32_000 + b"\r\n\r\n",
    "quotes that open and open": b"Content-Type: text/plain" + b';a="\\' * 32_000 + b"\r\n\r\n",
    "16,000 encoded words": b"Subject: " + b"=?utf-8?q?a?= " * 16_000 + b"\r\n\r\n",
    "unfinished encoded words": b"Subject: " + b"=?a?q?x" * 30_000 + b"\r\n\r\n",
    "32,000 parameter sections": b"Content-Type: a/b" + b"".join(b";n*%d=" % n for n in range(24_000)) + b"\r\n\r\n",
    "10,000 headers": b"".join(b"To: a%d@b\r\n" % n for n in range(10_000)) + b"\r\n",
    "100,000 headers": b"".join(b"x%d: b\r\n" % n for n in range(100_000)) + b"\r\n",
    "a header of 1 MB": b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "100,000 parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 100_000,
    "10,000 levels": nested(10_000),
    "nested comments": b"To: " + b"(" * 200_000 + b"\r\n\r\n",
    "nothing but separators": b"To: " + b";," * 100_000 + b"\r\n\r\n",
    "quoted pairs in an open quote": b'To: "' + b'\\"' * 120_000 + b"\r\n\r\n",
    "at signs": b"To: " + b"@" * 250_000 + b"\r\n\r\n",
    "one long word": b"To: " + b"a" * 250_000 + b"\r\n\r\n",
    "spaces before an at sign": b"To: a" + b" " * 250_000 + b"@b\r\n\r\n",
    "folds": b"Subject: a" + b"\r\n " * 80_000 + b"\r\n\r\n",
    "uuencoded files that never end": b"\r\n" + b"begin 644 a\r\nM" * 100_000,
    "spaces before an open comment": b"Content-Type: text/plain" + b" " * 200_000 + b"(\r\n\r\n",
    "spaces before a disposition's open comment": b"Content-Disposition: x" + b" " * 200_000 + b"(\r\n\r\n",
    "spaces before a value's open comment": b"Content-Type: a/b; charset=x" + b" " * 200_000 + b"(\r\n\r\n",
    "spaces before an equals sign": b"Content-Type: a/b; charset" + b" " * 200_000 + b"=\r\n\r\n",
    "names that get no value": b"Content-Type: a/b" + b" a" * 100_000 + b" =\r\n\r\n",
    "open comments of a type": b"Content-Type: text/plain " + b"(" * 200_000 + b"\r\n\r\n",
    "open comments of a value": b"Content-Type: text/plain; charset=" + b"a (" * 60_000 + b"\r\n\r\n",
    "open comments of an encoding": b"Content-Transfer-Encoding: " + b"( " * 100_000 + b"\r\n\r\n",
    "quotes": b"Content-Type: text/plain; a=" + b'"' * 200_000 + b"\r\n\r\n",
    "semicolons": b"Content-Type: text/plain" + b";" * 200_000 + b"\r\n\r\n",
    "open quotes in encoded words": b"To: " + b'=?a?q?\\"?=' * 25_000 + b"\r\n\r\n",
    "spaces in an address list": b"To: a" + b" " * 200_000 + b"(\r\n\r\n",
    "spaces before a soft break": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"= a" * 200_000,
    "padding above empty lines": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" + b" \r\n" * 200_000 + b"!",
    "padding and spaces": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=\r\n" + b" " * 200_000 + b"a",
    "circled digits": b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B" + b"-!" * 200_000,
    "pairs that are no character": b"Content-Type: text/plain; charset=euc-jp\r\n\r\n" + b"\xa9\xa9" * 200_000,
    "padding and nothing else": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=\r\n" * 300_000,
    "soft breaks of spaces": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=" + b" " * 1_000_000,
    "meta tags that never end": b"Content-Type: text/html\r\n\r\n" + b"<meta" * 200_000,
    "carriage returns": b"\r" * 300_000,
    "lines that are no fields": b"a: b\r\n" + b"junk\r\n" * 40_000 + b"c: d\r\n\r\n",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_mail_costs_more_than_its_length(raw: bytes) -> None:
    """Each took over ten seconds of a quadratic parser; two leave room for a slow machine, not for a square."""
    started = time.process_time()
    parsed_or_refused(raw)
    assert time.process_time() - started < 2


PIECES = [
    *(
        b"--b",
        b"--b--",
        b"?=",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"end\r\n",
        b"=",
        b"\xff",
        b"\0",
        b"(",
        b'"',
    ),
    *(b"\x1b$", b"+2AA-", b">From x\r\n", b"junk\r\n", b"begin 644 x\r\n", b"From : <a@b>\r\n", b"Message-ID: <\r\n"),
    *(b'To: "a\\\r\n', b"Subject: =?utf-8?B?", b"Date: [\r\n", b"Content-Transfer-Encoding: base64\r\n"),
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b'Content-Type: multipart/digest; boundary="b"\r\n',
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: text/plain; charset=utf-7; format=flowed\r\n",
    b"Content-Type: text/plain; charset=iso-2022-kr\r\n",
    b"Content-Type: text/html; charset=\0\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Disposition: attachment; filename*0*=x'y'%\r\n",
]


def parsed_or_refused(raw: bytes) -> mail.Mail | None:
    """The parsed mail, or None where it was refused for one of the known reasons."""
    try:
        return mail.parse(raw)
    except mail.Unparsable as refused:
        return None if refused.reason in REASONS else pytest.fail(f"an unknown reason: {refused.reason}")


def read_everything(raw: bytes) -> None:
    """Parse, cut every attachment out, and put all of it through JSON, which refuses what a database would."""
    parsed = parsed_or_refused(raw)
    if parsed is None:
        return
    for attachment in parsed.attachments:
        assert len(mail.attachment_bytes(raw, attachment.index)) == attachment.size
    stored = json.dumps(asdict(parsed), ensure_ascii=False).encode("utf-8")
    assert b"\\u0000" not in stored.replace(b"\\\\", b"")  # a backslash of the mail's own is written as two
    mail.message_id(raw)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=40).map(b"".join))
def test_junk_made_of_mail_raises_nothing_but_unparsable(raw: bytes) -> None:
    read_everything(raw)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_raise_nothing_but_unparsable(raw: bytes) -> None:
    read_everything(raw)


def cpython_mails() -> list[Path]:
    """The mails of CPython's own tests, where the interpreter was installed with them."""
    try:
        found = importlib.util.find_spec("test.test_email")
    except ModuleNotFoundError:
        return []
    return sorted(Path(found.origin).with_name("data").glob("msg_*.txt")) if found and found.origin else []


@pytest.mark.skipif(not cpython_mails(), reason="this Python was installed without its test suite")
def test_the_mails_of_cpythons_own_tests_are_all_read() -> None:
    for path in cpython_mails():
        read_everything(path.read_bytes())
