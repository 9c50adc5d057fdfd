"""Structured fields with parameters (Content-Type, Content-Disposition), read without ever failing.

Accepted besides RFC 2045, section 5.1: missing semicolons and quotes, unquoted spaces, comments, a quote that is never
closed, parameters with no value in front of them. RFC 2231 continuations and charsets are joined; RFC 2047 words inside
a parameter, forbidden but sent by most mailers, are decoded. One pass: each match begins behind a separator and ends
before the next.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from domain import charsets, encoded_words

_FOLD = re.compile(r"[\r\n]+")
_PARAMETER = re.compile(r"(?<![^;\s\"])([^=;\s\"]++)\s*+=\s*+(?:\"((?:[^\"\\]++|\\.)*+)\"?|([^;]*+))", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\([\"\\])")
_SECTION = re.compile(r"(.+?)(?:\*(\d{1,5}))?(\*)?")
_TOKEN = re.compile(r"[^\s;()<>@,:\\\"\[\]?=]+")
_COMMENT = re.compile(r"\([^()]*+\)")
_COMMENT_BEHIND = re.compile(r"\s\(")
_FIRST_PARAMETER = re.compile(r"(?<![^\s\"])[^=;\s\"/(]++\s*+=")
_FILE_NAMES = {"name", "filename"}


@dataclass(frozen=True, slots=True)
class Structured:
    """A structured field: its *value* in lower case and its *parameters* by lower-case name, decoded."""

    value: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


_ABSENT = Structured()


def structured(raw: str) -> Structured:
    """Read a raw Content-Type or Content-Disposition field (8-bit bytes as surrogates)."""
    if not raw:
        return _ABSENT
    if "\n" in raw or "\r" in raw:
        raw = _FOLD.sub("", raw)
    head, rest = _parted(raw)
    value = head.strip().strip('"').lower()
    return Structured(charsets.decode_raw(value), _parameters(rest) if "=" in rest else {})


def _parted(raw: str) -> tuple[str, str]:
    """The value in front, without comments, and the parameters, whether or not there is a semicolon between the two."""
    head, _, rest = raw.partition(";")
    # `text/plain charset=utf-8`: the semicolon was forgotten; `filename="x.pdf"`: the value itself.
    if "=" in head and (first := _FIRST_PARAMETER.search(raw, 0, len(head))):
        head, rest = raw[: first.start()], raw[first.start() :]
    return _COMMENT.sub(" ", head) if "(" in head else head, rest


def _parameters(text: str) -> dict[str, str]:
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for found in _PARAMETER.finditer(text):
        name, quoted, bare = found.groups()
        value = _QUOTED_PAIR.sub(r"\1", quoted) if quoted is not None else _bare_value(name, bare)
        section = _SECTION.fullmatch(name.lower()) if "*" in name else None
        if section is None:
            plain.setdefault(name.lower(), value)
        else:
            base, number, encoded = section.groups()
            sections.setdefault(base, {}).setdefault(int(number or 0), (value, bool(encoded)))
    out = {name: _shown(value) for name, value in plain.items()}
    # RFC 6266, section 4.3 and RFC 2231: where both forms are given, the extended one is meant.
    return out | {name: _joined(pieces) for name, pieces in sections.items()}


def _bare_value(name: str, bare: str) -> str:
    """A value without quotes ends where a comment begins (RFC 2045, section 5.1: no token holds a parenthesis).

    Not a file's name: many mailers send `report (1).pdf` without quotes, and hardly any a comment on it.
    """
    if "(" in bare and name.partition("*")[0].lower() not in _FILE_NAMES and (comment := _COMMENT_BEHIND.search(bare)):
        bare = bare[: comment.start()]
    return bare.strip()


def _shown(value: str) -> str:
    return encoded_words.decode(value)


def _joined(pieces: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231, section 3 and 4: sections in the order of their numbers, the charset named in the first."""
    ordered = [pieces[number] for number in sorted(pieces)]
    first, extended = ordered[0]
    charset = ""
    if extended and first.count("'") >= 2:
        charset, _, first = first.split("'", 2)
        ordered[0] = (first, True)
    if not any(encoded for _, encoded in ordered):
        return _shown("".join(value for value, _ in ordered))
    data = b"".join(
        unquote_to_bytes(charsets.raw_bytes(value)) if encoded else charsets.raw_bytes(value)
        for value, encoded in ordered
    )
    return charsets.decode(data, charset)


def media_type(value: str, default: str) -> str:
    """RFC 2045, section 5.2: *value* as type/subtype, text/plain where it is neither, *default* where there is none."""
    if not value:
        return default
    kind, slash, subtype = value.partition("/")
    kind_token, subtype_token = _TOKEN.match(kind.strip()), _TOKEN.match(subtype.strip())
    if slash and kind_token and subtype_token:
        return f"{kind_token.group()}/{subtype_token.group()}"
    return "text/plain"
