"""The pure parts of the HTTP surface: bodies, names, ranges, addresses, problems."""

import json
import re
from collections import Counter

import orjson
import pytest
from starlette.datastructures import Headers

from gateways.http import json_bodies, problems
from gateways.http.conditional import byte_range, not_modified
from gateways.http.downloads import disposition, safe_name
from gateways.http.new_addresses import new_address
from gateways.http.parameters import IDEMPOTENCY_KEY
from gateways.http.problems import KINDS, OF_STATUS, Problem

BAD_BODIES = {
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a name twice": b'{"a": 1, "a": 2}',
    "a name twice, deep": b'{"b": [{"a": 1, "a": 2}]}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "surrogates reversed": b'{"a": "\\udc00\\ud800"}',
    "surrogate in a name": b'{"\\udfff": 1}',
    "surrogate among other letters": '{"a": "ü€😀\\udc00"}'.encode(),
    "U+0000 among other letters": '{"a": "ü€😀\\u0000"}'.encode(),
    "U+0000": b'{"a": "x\\u0000"}',
    "U+0000 in a name": b'{"\\u0000": 1}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "one past 2^53": b'{"a": 9007199254740992}',
    "too large a float": b'{"a": 1e400}',
    "33 deep": b"[" * 34 + b"]" * 34,
    "100,000 deep": b"[" * 100_000,
    "no utf-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "cut": b'{"a": ',
    "two": b"{} {}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_json_that_not_every_reader_takes_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        json_bodies.read(body)


def test_json_within_the_bounds_is_taken() -> None:
    deep = b"[" * 32 + b"]" * 32
    for body in (
        b"{}",
        b'{"a": 9007199254740991}',
        deep,
        b'{"a": "\\ud83d\\ude00"}',
        '{"a": "ü€😀\ud7ff\ue000"}'.encode(),
        b'{"a": {"a": 1}, "b": {"a": 1}}',
    ):
        assert json_bodies.read(body) == json.loads(body)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("invoice.pdf", "invoice.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/abs", "abs"),
        ("a\0b.txt", "ab.txt"),
        ("x\r\nSet-Cookie: a=b", "xSet-Cookie_ a=b"),
        ("rech\u202egpj.exe", "rechgpj.exe"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("", "attachment"),
        ("..", "attachment"),
        ("  . ", "attachment"),
        ("%2F..", "%2F"),
        ("a" * 300 + ".pdf", "a" * 146 + ".pdf"),
        ("a" * 300, "a" * 150),
        ("\ud800x", "x"),
    ],
)
def test_a_file_name_is_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ['a"b', "größe.pdf", "\u202e", "a\\b", "x\r\nX: y", "100%.txt", "日本.txt", "a;b=c'd"])
def test_a_disposition_is_one_header_of_plain_ascii(name: str) -> None:
    said = disposition(name)
    assert re.fullmatch(r"""attachment; filename="[ !#-\[\]-~]+"(; filename\*=UTF-8''[A-Za-z0-9%._~-]+)?""", said)


def test_a_name_beyond_ascii_is_told_twice() -> None:
    assert disposition("größe.pdf") == "attachment; filename=\"gr__e.pdf\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.pdf"


@pytest.mark.parametrize(
    ("said", "same"), [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False)]
)
def test_if_none_match_is_compared_weakly(said: str, same: bool) -> None:
    assert not_modified(Headers({"If-None-Match": said}), '"a"') is same


@pytest.mark.parametrize(("asked", "found"), [("bytes=0-0", (0, 1)), ("bytes=9-", (9, 10)), ("bytes=-1", (9, 10))])
def test_a_range_is_first_byte_and_end(asked: str, found: tuple[int, int]) -> None:
    assert byte_range(Headers({"Range": asked}), 10, '"a"') == found


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(asked: str) -> None:
    with pytest.raises(Problem) as refused:
        byte_range(Headers({"Range": asked}), 10, '"a"')
    assert refused.value.status == 416


@pytest.mark.parametrize("key", ["a", '"a b"', "order 1", "k" * 255, '"' + "k" * 255 + '"', 'a"b', "~"])
def test_what_is_an_idempotency_key(key: str) -> None:
    assert IDEMPOTENCY_KEY.fullmatch(key)


@pytest.mark.parametrize("key", ["", '""', "k" * 256, '"' + "k" * 256 + '"', "ä", "a\tb", '"a', "a\x00"])
def test_what_is_none(key: str) -> None:
    assert not IDEMPOTENCY_KEY.fullmatch(key)


def test_addresses_differ_and_are_spelt_as_promised() -> None:
    found = [new_address("Mail.Example") for _ in range(3000)]
    assert len(set(found)) == 3000
    assert all(re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-hjkmnp-tv-z]{8}@mail\.example", address) for address in found)
    characters = Counter("".join(address.partition("@")[0][-8:] for address in found))
    assert len(characters) == 32
    assert max(characters.values()) < 1.3 * min(characters.values())


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_is_whole(code: str) -> None:
    response = Problem(code, "A sentence.").response("/x", "req_1")
    said = orjson.loads(response.body)
    assert response.status_code == said["status"] == KINDS[code].status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert said["type"] == f"/docs/problems#{code}"
    assert said["title"] == KINDS[code].title
    assert (said["detail"], said["instance"], said["code"], said["request_id"]) == ("A sentence.", "/x", code, "req_1")


@pytest.mark.parametrize("status", [*OF_STATUS, 418, 451, 500, 502])
def test_a_frameworks_status_becomes_a_problem_of_that_status(status: int) -> None:
    problem = problems.of_status(status)
    assert problem.status == status
    assert problem.detail.endswith(".")
