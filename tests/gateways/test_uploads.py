"""What becomes of a file's name and type, whatever its sender says of them."""

import io
import re
import unicodedata
import zipfile
from email.message import EmailMessage

import pytest

from gateways.http.downloads import DEVICES, disposition
from gateways.http.v1.attachment_types import Looked
from gateways.http.v1.uploads import NAME_BYTES, Upload, attachment_name

HOSTILE = {
    "../x": "x",
    "../../etc/passwd": "passwd",
    "..\\..\\x": "x",
    "/abs": "abs",
    "C:\\Users\\a\\b.txt": "b.txt",
    "\\\\server\\share\\b.txt": "b.txt",
    "a/b/c.txt": "c.txt",
    "a\\b/c.txt": "c.txt",
    "x/": "attachment",
    "x\\": "attachment",
    "": "attachment",
    " ": "attachment",
    ".": "attachment",
    "..": "attachment",
    "...": "attachment",
    " . . ": "attachment",
    "/": "attachment",
    "\0": "attachment",
    "a\0.txt": "a.txt",
    "a.exe\0.txt": "a.exe.txt",
    "a\r\nSet-Cookie: b=c": "aSet-Cookie_ b=c",
    "a\r\n\r\n<html>": "a_html_",
    "a\nb": "ab",
    "a\vb\fc": "abc",
    "a\x85b": "ab",
    "a\u2028b\u2029c": "abc",
    "a\x7fb\x1bc": "abc",
    "\u202etxt.exe": "txt.exe",
    "a\u202dfdp.exe": "afdp.exe",
    "\u2066a\u2069.txt": "a.txt",
    "\u200ea\u200f.txt": "a.txt",
    "a\u200b.txt": "a.txt",
    "\ufeffa.txt": "a.txt",
    "\ue000a.txt": "a.txt",
    "a\ud800.txt": "a.txt",
    "con": "_con",
    "CON.txt": "_CON.txt",
    "con .txt": "_con .txt",
    "Aux.tar.gz": "_Aux.tar.gz",
    "nul.": "_nul",
    "com1.log": "_com1.log",
    "com\u00b9.log": "_com\u00b9.log",
    "LPT9": "_LPT9",
    "conin$": "_conin$",
    "console.txt": "console.txt",
    "%2F..": "%2F",
    "..%2Fx": "%2Fx",
    "%00.txt": "%00.txt",
    'a".txt': "a_.txt",
    'a"; filename="b.exe': "a_; filename=_b.exe",
    "a<b>c:d|e?f*.txt": "a_b_c_d_e_f_.txt",
    "a.txt ": "a.txt",
    "a.txt.": "a.txt",
    " a.txt": "a.txt",
    ".htaccess": "htaccess",
    "a;b,c.txt": "a;b,c.txt",
    "~root.txt": "~root.txt",
    "$(id).txt": "$(id).txt",
    "`id`.txt": "`id`.txt",
    "-rf": "-rf",
    "Gr\u00fc\u00dfe \u96ea \u0434\u0430.txt": "Gr\u00fc\u00dfe \u96ea \u0434\u0430.txt",
    "\u0645\u0644\u0641.pdf": "\u0645\u0644\u0641.pdf",
    "e\u0301.txt": "e\u0301.txt",
    "=?utf-8?q?=0D=0AX:?=": "=_utf-8_q_=0D=0AX__=",
    "a" * 300 + ".pdf": "a" * 251 + ".pdf",
    "\u96ea" * 200 + ".pdf": "\u96ea" * 83 + ".pdf",
    "\U0001f4ce" * 100: "\U0001f4ce" * 63,
    "a." + "b" * 300: "a." + "b" * 253,
}


@pytest.mark.parametrize(("said", "safe"), HOSTILE.items())
def test_a_hostile_name_is_made_safe_and_an_honest_one_stays(said: str, safe: str) -> None:
    name = attachment_name(said)
    assert name == safe
    assert 1 <= len(name.encode()) <= NAME_BYTES
    assert not re.search(r"[/\\\x00-\x1f\x7f]", name)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in name)
    assert not DEVICES.fullmatch(name)
    assert attachment_name(name) == name
    header = disposition(name)
    assert header.isascii()
    mail = EmailMessage()
    mail["Content-Disposition"] = header
    assert mail.keys() == ["Content-Disposition"]


def test_there_are_as_many_hostile_names_as_were_promised() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize(
    ("disposition_", "name"),
    [
        ('form-data; name="file"; filename="a.txt"', "a.txt"),
        ("form-data; name=file; filename=a.txt", "a.txt"),
        ('form-data; name="file"', "attachment"),
        ('form-data; name="file"; filename=""', "attachment"),
        ('form-data; name="file"; filename="Gr\u00fc\u00dfe.txt"', "Gr\u00fc\u00dfe.txt"),
        ("form-data; name=\"file\"; filename*=utf-8''Gr%C3%BC%C3%9Fe.txt", "Gr\u00fc\u00dfe.txt"),
        ('form-data; name="file"; filename="Gr.txt"; filename*=UTF-8\'de\'Gr%C3%BC.txt', "Gr\u00fc.txt"),
        ("form-data; name=\"file\"; filename*=utf-8''..%2F..%2Fa%0D%0AX%3A%00.txt", "aX_.txt"),
        ("form-data; name=\"file\"; filename*=utf-7''+AC8-a.txt", "attachment"),
        ("form-data; name=\"file\"; filename*=utf-8''%ff%fe.txt", "\ufffd\ufffd.txt"),
        ('form-data; name="file"; filename="a\\"b.txt"', "a_b.txt"),
    ],
)
async def test_a_name_is_read_as_clients_write_it(disposition_: str, name: str) -> None:
    upload = Upload()
    with upload:
        upload._part_begins()
        for piece in (b"Content-", b"Disposition"):
            upload._header_name(piece, 0, len(piece))
        value = disposition_.encode()
        upload._header_value(value, 0, len(value))
        upload._header_ends()
        upload._headers_end()
        assert upload.name == name


def archive(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name in names:
            file.writestr(name, "x")
    return held.getvalue()


PNG, PDF = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99), b"%PDF-1.7\n1 0 obj\n"
HTML, SVG = b"<!DOCTYPE html><script>alert(1)</script>", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
TEXT, BYTES, OFFICE = b"A letter, and nothing else.\n", bytes(range(256)), "vnd.openxmlformats-officedocument"
DOCX = f"application/{OFFICE}.wordprocessingml.document"
PLAIN = "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("content", "declared", "name", "found"),
    [
        (PNG, "", "x", "image/png"),
        (PNG, "text/html", "x.html", "image/png"),
        (PNG, "application/pdf", "x.pdf", "image/png"),
        (PDF, "image/png", "x.png", "application/pdf"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\0", "text/plain", "x", "image/jpeg"),
        (b"GIF89a" + bytes(20), "application/javascript", "x", "image/gif"),
        (TEXT, "image/png", "x.png", PLAIN),
        (TEXT, "application/pdf", "x.pdf", PLAIN),
        (TEXT, "text/html", "x.html", PLAIN),
        (TEXT, "image/svg+xml", "x.svg", PLAIN),
        (TEXT, "application/javascript", "x.js", PLAIN),
        (TEXT, "application/octet-stream", "x", PLAIN),
        (TEXT, "message/rfc822", "x.eml", PLAIN),
        (TEXT, "multipart/mixed; boundary=x", "x", PLAIN),
        (TEXT, "text/csv", "x.csv", "text/csv; charset=utf-8"),
        (TEXT, "Text/CSV; header=present; charset=latin1", "x", "text/csv; charset=utf-8"),
        (TEXT, "text/plain\r\nX-Header: 1", "x", PLAIN),
        (TEXT, "nonsense", "x", PLAIN),
        (TEXT, "text/" + "x" * 5000, "x", PLAIN),
        (b'{"a": 1}', "application/json", "x", "application/json"),
        (b"BEGIN:VCALENDAR\r\n", "text/calendar; method=REQUEST", "x", "text/calendar; charset=utf-8"),
        (b"From: a@example.org\r\n\r\nhi", "message/rfc822", "x", PLAIN),
        (HTML, "image/png", "x.png", PLAIN),
        (HTML, "text/plain", "x.txt", PLAIN),
        (HTML, "application/octet-stream", "x.html", PLAIN),
        (HTML, "text/html", "x.html", "text/html; charset=utf-8"),
        (SVG, "image/png", "x.png", PLAIN),
        (SVG, "image/svg+xml", "x.svg", "image/svg+xml"),
        ("Gr\u00fc\u00dfe".encode("latin-1"), "text/plain; charset=iso-8859-1", "x", "text/plain; charset=iso-8859-1"),
        (
            "Gr\u00fc\u00dfe".encode("latin-1"),
            'text/plain; charset="windows-1252"',
            "x",
            "text/plain; charset=windows-1252",
        ),
        ("Gr\u00fc\u00dfe".encode("latin-1"), "text/plain; charset=utf-7", "x", "application/octet-stream"),
        ("Gr\u00fc\u00dfe".encode("latin-1"), "text/plain", "x", "application/octet-stream"),
        ("Gr\u00fc\u00dfe".encode(), "", "x", PLAIN),
        (b"", "", "x", PLAIN),
        (BYTES, "image/png", "x.png", "application/octet-stream"),
        (BYTES, "text/plain", "x.txt", "application/octet-stream"),
        (BYTES, "text/html", "x.html", "application/octet-stream"),
        (BYTES, "application/xhtml+xml", "x", "application/octet-stream"),
        (BYTES, "application/x-shockwave-flash", "x", "application/octet-stream"),
        (BYTES, "application/pdf", "x.pdf", "application/octet-stream"),
        (BYTES, "application/x-our-own", "x", "application/x-our-own"),
        (archive("a"), "", "x", "application/zip"),
        (archive("a"), "", "x.zip", "application/zip"),
        (archive("a"), "image/png", "x.png", "application/zip"),
        (archive("[Content_Types].xml"), DOCX, "x", DOCX),
        (archive("[Content_Types].xml"), "", "x.docx", DOCX),
        (b"MZ" + bytes(99), "image/png", "x.png", "application/octet-stream"),
        (b"BM is a text that begins so", "", "x", PLAIN),
    ],
)
def test_the_type_is_told_by_the_bytes(content: bytes, declared: str, name: str, found: str) -> None:
    for step in (1, 7, len(content) or 1):
        looked = Looked()
        for start in range(0, len(content), step):
            looked.at(content[start : start + step])
        assert looked.media_type(name, declared) == found
