"""Header values: encoded words, parameters, address lists, charsets."""

import pytest

from domain import charsets, encoded_words
from domain.mail_addresses import Address, addresses
from domain.mail_parameters import media_type, structured


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("=?utf-8?Q?caf=C3=A9?= au lait", "café au lait"),
        ("=?UTF-8?B?8J+Tpw==?= Test", "📧 Test"),
        ("=?utf-8?Q?=E2=82?= =?utf-8?Q?=AC?=", "€"),
        ("=?utf-8?B?4o?=\r\n =?utf-8?B?Ks?=", "€"),
        ("=?utf-8?Q?a?= =?iso-8859-1?Q?=E9?=", "aé"),
        ("=?utf-8*en?Q?a_b?=", "a b"),
        ("x=?utf-8?Q?y?=z", "xyz"),
        ("=?utf-8?Q?what?? really?=", "what?? really"),
        ("=?nonsense?Q?caf=C3=A9?=", "café"),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ("=?utf-8?Q?never closed", "=?utf-8?Q?never closed"),
        ("a\r\n\tfolded\r\n  line", "a folded  line"),
        ("na\udcc3\udcafve", "naïve"),
        ("na\udcefve", "naïve"),
        ("\x1b$BF|K\\\x1b(B", "日本"),
    ],
)
def test_a_header_value_is_decoded_as_clients_do(value: str, text: str) -> None:
    assert encoded_words.decode(value) == text


@pytest.mark.parametrize(
    ("raw", "value", "parameters"),
    [
        ('Text/Plain; Charset="utf-8"', "text/plain", {"charset": "utf-8"}),
        ("text/plain charset=utf-8", "text/plain", {"charset": "utf-8"}),
        ('a/b; name="x" filename="y"', "a/b", {"name": "x", "filename": "y"}),
        ('a/b; name="open', "a/b", {"name": "open"}),
        ('a/b (comment); name="se;mi=colon"', "a/b", {"name": "se;mi=colon"}),
        ("a/b; name=C:\\dir\\file.txt", "a/b", {"name": "C:\\dir\\file.txt"}),
        ("a/b; name*=utf-8''%E2%82%AC; name=euro", "a/b", {"name": "€"}),
        ("a/b; n*1=b; n*0=a; n*2*=%63", "a/b", {"n": "abc"}),
        ("a/b; n*0*='x; n*999999=1", "a/b", {"n": "'x", "n*999999": "1"}),
        ("a/b; ;; =x; y", "a/b", {}),
        ("multipart/mixed; boundary=abc (c)", "multipart/mixed", {"boundary": "abc"}),
        ('multipart/mixed; boundary="abc (c)"', "multipart/mixed", {"boundary": "abc (c)"}),
        ("multipart/mixed; boundary=abc(c)", "multipart/mixed", {"boundary": "abc(c)"}),
        ("text/plain; charset=koi8-r (Russian; old); x=1", "text/plain", {"charset": "koi8-r", "x": "1"}),
        ("a/b; name=report (1).pdf; name*=report%20(2).pdf", "a/b", {"name": "report (2).pdf"}),
        ("a/b; filename=report (1).pdf", "a/b", {"filename": "report (1).pdf"}),
        ('filename="x.pdf"', "", {"filename": "x.pdf"}),
        ('filename = "x;y.pdf"; size=3', "", {"filename": "x;y.pdf", "size": "3"}),
        ('attachment filename="x;y.pdf"; size=3', "attachment", {"filename": "x;y.pdf", "size": "3"}),
        ("attachment (a) (b=c) filename=x", "attachment", {"filename": "x"}),
        ("text/html =x; charset=utf-8", "text/html =x", {"charset": "utf-8"}),
        ("", "", {}),
    ],
)
def test_parameters_survive_every_way_of_writing_them(raw: str, value: str, parameters: dict[str, str]) -> None:
    found = structured(raw)
    assert found.value == value
    assert {name: found.parameters.get(name) for name in parameters} == parameters


@pytest.mark.parametrize(
    ("value", "kind"),
    [("text/html", "text/html"), ("", "text/plain"), ("text", "text/plain"), ("/x", "text/plain"), ("a/b c", "a/b")],
)
def test_what_is_no_media_type_is_plain_text(value: str, kind: str) -> None:
    assert media_type(value, "text/plain") == kind


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("bob@example.net", [("bob@example.net", "")]),
        ("Bob <bob@example.net>, <c@d>", [("bob@example.net", "Bob"), ("c@d", "")]),
        ('"C, D" <cd@example.com>', [("cd@example.com", "C, D")]),
        ("=?utf-8?Q?Doe,_J?= <j@d>", [("j@d", "Doe, J")]),
        ('"=?utf-8?Q?J=C3=B6rg?=" <j@d>', [("j@d", "Jörg")]),
        ('=?utf-8?Q?six"_wide?= <j@d>', [("j@d", 'six" wide')]),
        ("dan@d (Dan (the man))", [("dan@d", "Dan (the man)")]),
        ("Team: a@b, c@d;, e@f", [("a@b", ""), ("c@d", ""), ("e@f", "")]),
        ("undisclosed-recipients:;", []),
        ("<@relay,@other:user@host>", [("user@host", "")]),
        ('"john smith"@example.com', [('"john smith"@example.com', "")]),
        ("a @ b . c", [("a@b.c", "")]),
        ("Bob bob@example.net", [("bob@example.net", "Bob")]),
        ('"bob@example.net"', [("bob@example.net", "")]),
        ('"unclosed <a@b>, c@d', [("a@b", "unclosed"), ("c@d", "")]),
        ("a@b; c@d", [("a@b", ""), ("c@d", "")]),
        ("<>", []),
        ("a@b,\r\n c@d", [("a@b", ""), ("c@d", "")]),
        ("root", [("root", "")]),
        ("no address here", []),
        ("(" * 5000 + ")" * 5000 + "a@b", [("a@b", "(" * 4999 + ")" * 4999)]),
    ],
    ids=range(21),
)
def test_addresses_are_found_in_lists_of_every_form(raw: str, expected: list[tuple[str, str]]) -> None:
    assert addresses(raw) == [Address(*pair) for pair in expected]


@pytest.mark.parametrize("label", ["ISO-8859-1", "latin1", "us-ascii", None, "x-unknown", "windows-1252"])
def test_unlabelled_and_latin_bytes_are_windows_1252(label: str | None) -> None:
    assert charsets.decode(b"\x93caf\xe9\x94", label) == "“café”"


@pytest.mark.parametrize(
    "label",
    [
        "unicode_escape",
        "idna",
        "zip",
        "hex",
        "rot13",
        "undefined",
        "punycode",
        "mbcs",
        "a\0b",
        "x" * 5000,
        "../x",
        "é",
        "",
    ],
)
def test_a_charset_outside_the_list_is_guessed_and_never_looked_up(label: str) -> None:
    assert charsets.codec_named(label) is None
    assert charsets.decode("zażółć".encode(), label) == "zażółć"


@pytest.mark.parametrize("codec", sorted(set(charsets._CODEC_OF.values())))
def test_every_listed_charset_decodes_any_bytes(codec: str) -> None:
    label = next(label for label, known in charsets._CODEC_OF.items() if known == codec)
    for data in (bytes(range(256)), b"+2AA-", b"\xff\xfe\x00\xd8", b"\x1b$", b"", b"\xef\xbb\xbfx"):
        text = charsets.decode(data, label)
        assert "\0" not in text
        assert text.encode("utf-8").decode("utf-8") == text


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("iso-2022-jp", b"\x1b$B-!F|K\\|b\x1b(B.", "①日本髙."),
        ("iso-2022-jp", b"\x1b$B!A-j\x1b(B", "\u301c㈱"),
        ("iso-2022-jp", b"\x1b$B-!\nF|K\\\x1b(B", "①\n日本"),
        ("iso-2022-jp", b"\x1b$B\x21\x7f)!\x1b(B", "\ufffd\ufffd"),
        ("iso-2022-jp", b"\x1b$B-", "\ufffd"),
        ("euc-jp", b"\xad\xa1\xc6\xfc\xcb\xdc\xfc\xe2.", "①日本髙."),
        ("euc-jp", b"\xad!\xad", "\ufffd!\ufffd"),
        (None, b"\x1b$B-!\x1b(B", "①"),
    ],
)
def test_japanese_text_has_the_rows_of_nec_that_browsers_know(label: str | None, data: bytes, text: str) -> None:
    assert charsets.decode(data, label) == text


def test_a_damaged_utf_8_text_stays_utf_8_and_a_mislabelled_one_does_not() -> None:
    assert charsets.decode("Żółć".encode() + b"\xff", "utf-8") == "Żółć\ufffd"
    assert charsets.decode(b"caf\xe9", "utf-8") == "café"
