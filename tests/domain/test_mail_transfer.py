"""Transfer encodings, uuencoded files and flowed text."""

import pytest

from domain import flowed, transfer_encodings, uuencode


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"aGVsbG8=", b"hello"),
        (b"aGVs\r\nbG8", b"hello"),
        (b"YQ=YQ==", b"aa"),
        (b"YQ==YQ==", b"aa"),
        (b"####", b""),
        (b"A", b""),
        (b"aGVsbG8=A", b"hello"),
        (b"aGV\0sbG8=", b"hello"),
        (b"====", b""),
        (b"aGk=\r\n--\r\nsent from a list\r\n", b"hi"),
        (b"aGk=\r\n\r\n \t\r\n_____\r\nA list\r\n", b"hi"),
        (b"aGk=\n\n\nsent from a list\n", b"hi"),
        (b"aGk=\r\n\r\nYQ==\r\n", b"hia"),
        (b"aGk= \r\n\r\nYWFh\r\nYQ= =\r\n", b"hiaaaa"),
    ],
)
def test_base64_is_decoded_whatever_is_wrong_with_it(data: bytes, expected: bytes) -> None:
    assert transfer_encodings.base64(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a=3Db", b"a=b"),
        (b"=ZZ=3", b"=ZZ=3"),
        (b"soft=\r\nbreak", b"softbreak"),
        (b"soft=  \r\nbreak", b"softbreak"),
        (b"soft=\rbreak\n", b"softbreak\n"),
        (b"low=c3=a9", b"low\xc3\xa9"),
        (b"=", b""),
    ],
)
def test_quoted_printable_keeps_what_it_cannot_decode(data: bytes, expected: bytes) -> None:
    assert transfer_encodings.quoted_printable(data) == expected


@pytest.mark.parametrize(
    ("value", "name"),
    [("BASE64", "base64"), (" base64;", "base64"), ("(c) base64 (d)", "base64"), ('"8bit"', "8bit"), ("((", "")],
)
def test_the_name_of_a_transfer_encoding_is_found_among_junk(value: str, name: str) -> None:
    assert transfer_encodings.encoding_named(value) == name


def test_an_unknown_transfer_encoding_leaves_the_bytes_alone() -> None:
    assert transfer_encodings.decode(b"aGk=", "x-rot13") == b"aGk="


@pytest.mark.parametrize("begin", [b"begin 644 x\n", b""])
def test_a_uuencoded_part_is_decoded_with_or_without_its_begin_line(begin: bytes) -> None:
    assert transfer_encodings.decode(begin + b"-2&5L;&\\L('=O<FQD(0``\n`\nend\n", "x-uuencode") == b"Hello, world!"


def test_a_uuencoded_file_that_was_cut_short_stays_text() -> None:
    data = b"begin 644 x\n-2&5L;&\\L('=O<FQD(0``\n"
    assert uuencode.cut_out(data) == (data, [])


def test_words_that_begin_like_a_uuencoded_file_are_words() -> None:
    data = b"begin 644 of the bible\nand read on until the\nend\n"
    assert uuencode.cut_out(data) == (data, [])


@pytest.mark.parametrize(
    ("text", "delete_space", "expected"),
    [
        ("one \ntwo\nthree", False, "one two\nthree"),
        ("on \ne", True, "one"),
        ("> a \n> b\n>> c \nd", False, "> a b\n>> c \nd"),
        ("-- \nAda", False, "-- \nAda"),
        ("text \n-- \nAda", False, "text \n-- \nAda"),
        (" >stuffed", False, ">stuffed"),
        ("", False, ""),
    ],
)
def test_flowed_lines_are_joined_by_the_rules_of_rfc_3676(text: str, delete_space: bool, expected: str) -> None:
    assert flowed.unflow(text, delete_space=delete_space) == expected
