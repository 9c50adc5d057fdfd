"""RFC 2047 encoded words in header values, as mail clients read them: anywhere, also inside quotes and words.

Neighbours of one charset and encoding are joined before they are decoded, because many senders cut a multi-byte
character, or a base64 quantum, in two. White space between neighbours is not shown (section 6.2). The pattern never
looks behind the next ``=?``, so a header of 16,000 unfinished words costs no more than its length.
"""

import re

from domain import charsets, transfer_encodings

WORD = r"=\?[^?\s=]{1,64}\?[bBqQ]\?[^?=]*+(?:(?:=(?!\?(?!=))|\?(?!=))[^?=]*+)*+\?="
_WORD = re.compile(r"=\?([^?\s=]{1,64})\?([bBqQ])\?([^?=]*+(?:(?:=(?!\?(?!=))|\?(?!=))[^?=]*+)*+)\?=")
_FOLD = re.compile(r"[\r\n]+[ \t]?")


def decode(value: str) -> str:
    """The text of a raw header value (8-bit bytes as surrogates): unfolded, encoded words decoded, outer space gone."""
    if "\n" in value or "\r" in value:
        value = _unfolded(value)
    if "=?" not in value:
        return charsets.decode_raw(value.strip())
    return _decoded(value).strip()


def _unfolded(value: str) -> str:
    """RFC 5322, section 2.2.3: a fold is its white space; one space where there were a break and a space or a tab."""
    if value.count("\n") == value.count("\r\n ") + value.count("\r\n\t") == value.count("\r"):
        return value.replace("\r\n", "").replace("\t", " ")
    return _FOLD.sub(" ", value)


def _decoded(value: str) -> str:
    out: list[str] = []
    run: list[str] = []
    at, kind = 0, None
    for word in _WORD.finditer(value):
        gap = value[at : word.start()]
        new_kind = (word[1].partition("*")[0].lower(), word[2].lower())  # RFC 2231, section 5: charset*language
        if run and (gap.strip() or new_kind != kind):
            out.append(_text(run, kind))
            run = []
        if gap.strip() or not (at and kind):
            out.append(charsets.decode_raw(gap))
        run.append(word[3])
        at, kind = word.end(), new_kind
    if run:
        out.append(_text(run, kind))
    out.append(charsets.decode_raw(value[at:]))
    return "".join(out)


def _text(run: list[str], kind: tuple[str, str] | None) -> str:
    charset, encoding = kind or ("", "")
    data = charsets.raw_bytes("".join(run))
    if encoding == "b":
        return charsets.decode(transfer_encodings.base64(data), charset)
    return charsets.decode(transfer_encodings.quoted_printable(data.replace(b"_", b" ")), charset)
