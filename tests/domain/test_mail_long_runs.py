"""Long runs without a hyphen take a short cut; nobody may be able to tell."""

import base64
import random
from pathlib import Path

import pytest

from domain import mail, mail_long_runs

MAILS = sorted((Path(__file__).parents[1] / "mails").glob("*.eml"))
BLOB = base64.encodebytes(random.Random(1).randbytes(120_000)).replace(b"\n", b"\r\n")
HEAD = b"From: a@example.org\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
ATTACHED = (
    b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="a.pdf"\r\n\r\n'
)
MIXED = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
AS_TEXT = b"Content-Type: text/plain\r\n\r\n"

SHAPES = {
    "an attachment": HEAD + MIXED + b"--b\r\n\r\nhello\r\n--b\r\n" + ATTACHED + BLOB + b"--b--\r\n",
    "two attachments": HEAD + MIXED + (b"--b\r\n" + ATTACHED + BLOB) * 2 + b"--b--\r\n",
    "nested": HEAD
    + MIXED
    + b'--b\r\nContent-Type: multipart/related; boundary="c"\r\n\r\n--c\r\n'
    + ATTACHED
    + BLOB
    + b"--c--\r\n\r\n--b--\r\n",
    "a whole mail": HEAD + b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + BLOB,
    "no closing boundary": HEAD + MIXED + b"--b\r\n" + ATTACHED + BLOB,
    "no boundary at all": HEAD + MIXED + BLOB,
    "in the preamble": HEAD + MIXED + BLOB + b"--b\r\n\r\nhello\r\n--b--\r\n",
    "in the epilogue": HEAD + MIXED + b"--b\r\n\r\nhello\r\n--b--\r\n\r\n" + BLOB,
    "a part without headers": HEAD + MIXED + b"--b\r\n\r\n" + BLOB + b"--b--\r\n",
    "a text that only looks like base64": HEAD + AS_TEXT + BLOB,
    "a long text": HEAD + AS_TEXT + "Grüße, dear – reader.\r\n\r\n".encode() * 3_000,
    "a long text, then a hyphen": HEAD + AS_TEXT + b"Dear reader.\r\n" * 3_000 + b"well-known\r\n" + BLOB,
    "a long text that breaks off": HEAD + MIXED + b"--b\r\n\r\n" + b"Dear reader.\r\n" * 3_000,
    "a boundary behind a bare line end": HEAD + MIXED + b"--b\r\n" + ATTACHED + BLOB[:-2] + b"\n--b--\r\n",
    "hyphens that are no boundary": HEAD + MIXED + b"--b\r\n" + ATTACHED + BLOB + b"--nobody\r\n" + BLOB + b"--b--\r\n",
    "empty lines between": HEAD + MIXED + b"--b\r\n" + ATTACHED + BLOB + b"\r\n\r\n" + BLOB + b"--b--\r\n",
    "text below": HEAD + MIXED + b"--b\r\n" + ATTACHED + BLOB + b"\r\n_____\r\nA list's footer.\r\n--b--\r\n",
    "a forwarded mail": HEAD
    + MIXED
    + b"--b\r\nContent-Type: message/rfc822\r\n\r\n"
    + HEAD
    + ATTACHED
    + BLOB
    + b"--b--\r\n",
    "a character of our marks": HEAD + MIXED + b"--b\r\n\r\n\x000\x00\r\n--b\r\n" + ATTACHED + BLOB + b"--b--\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_long_run_is_read_as_if_the_parser_had_read_it(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = SHAPES[shape]
    shortly = mail.parse(raw)
    monkeypatch.setattr(mail_long_runs, "LONG", len(raw) + 1)
    assert mail.parse(raw) == shortly


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_any_run_of_a_real_mail_is_read_as_if_the_parser_had_read_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    at_length = mail.parse(raw)
    monkeypatch.setattr(mail_long_runs, "LONG", 1)
    assert mail.parse(raw) == at_length


def test_the_run_does_not_reach_the_parser() -> None:
    short, runs = mail_long_runs.cut_out(SHAPES["two attachments"])
    assert len(short) < 1_000
    assert runs == [BLOB[:-2]] * 2


def test_a_mail_that_holds_our_mark_itself_is_left_as_it_is() -> None:
    raw = SHAPES["a character of our marks"]
    assert mail_long_runs.cut_out(raw) == (raw, [])


@pytest.mark.parametrize("line", [b"\r\n", b"A\r\n\r\n", b"A" * 70 + b"\r\n\r\n", b"\r\n--\r\n\r\n", b"A-\r\n\r\n"])
def test_the_look_for_runs_costs_little_whatever_there_is(line: bytes) -> None:
    """Quadratic work on 4 MB would take minutes, and the test's own time limit ends it."""
    count = 4_000_000 // len(line)
    mail_long_runs.cut_out(line * count + b"_")
    mail_long_runs.cut_out((line * 500 + b"_") * (count // 500))
