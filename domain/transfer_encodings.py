"""Content-Transfer-Encoding undone, as forgiving as mail clients are. Nothing here raises.

RFC 2045, section 6.8 lets a decoder skip what is outside the base64 alphabet; padding in the middle is the seam of two
encoded pieces; a lone last character holds no byte and is dropped. In quoted-printable (section 6.7) a broken escape
stays as it was written.
"""

import binascii
import contextlib
import re

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET + b"="))
_PADDING_AND_LINE_ENDS = b"=\r\n"
_PADDING = re.compile(rb"=+")
_SOFT_BREAK_WITH_SPACE = re.compile(rb"=[ \t]+(?=\r|\n|\Z)")
_SOFT_BREAK_BY_CR = re.compile(rb"=\r(?!\n)")
_TEXT_AFTER_PADDING = re.compile(
    rb"=[ \t]*+(?:\r?\n[ \t]*+)++(?:(?=[^\s=]++[ \t]++[^\s=])|(?=[^\n]*[^\sA-Za-z0-9+/=]))"
)
_USUAL = {"", "7bit", "8bit", "base64", "quoted-printable"}
_TOKEN = re.compile(r"[a-z0-9-]+")
_COMMENT = re.compile(r"\([^()]*\)")


def encoding_named(value: str) -> str:
    """The mechanism in a Content-Transfer-Encoding field, lower case, without comments, quotes and junk around it."""
    if (usual := value.lower()) in _USUAL:
        return usual
    found = _TOKEN.search(_COMMENT.sub(" ", value).lower())
    return found.group() if found else ""


def decode(data: bytes, encoding: str) -> bytes:
    """*data* with the mechanism *encoding* undone; an unknown mechanism leaves it as it is."""
    match encoding:
        case "base64":
            return base64(data)
        case "quoted-printable":
            return quoted_printable(data)
        case "x-uuencode" | "uuencode" | "x-uue" | "uue":
            return uuencoded(data)
        case _:
            return data


def base64(data: bytes) -> bytes:
    """Base64, with junk, seams and missing padding survived, without the plain-text footer that mailing lists add below.

    A footer is what follows padding and any empty lines, where its first line has words or a character that is not base64.
    """
    padding = data.find(b"=")
    if padding < 0 or not data[padding:].strip(_PADDING_AND_LINE_ENDS):
        # Where nothing follows the padding, binascii itself passes over all that is no letter: one pass instead of three.
        with contextlib.suppress(binascii.Error):
            return binascii.a2b_base64(data)
    if footer := _TEXT_AFTER_PADDING.search(data):
        data = data[: footer.start() + 1]
    return b"".join(map(_one_piece, _PADDING.split(data.translate(None, _NOT_BASE64))))


def _one_piece(letters: bytes) -> bytes:
    whole = letters[: len(letters) - 1] if len(letters) % 4 == 1 else letters
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def quoted_printable(data: bytes) -> bytes:
    """Quoted-printable, with soft breaks that carry trailing spaces and line ends that are a lone CR."""
    if b"=" not in data:
        return data
    if b"= " in data or b"=\t" in data:
        data = _SOFT_BREAK_WITH_SPACE.sub(b"=", data)
    if data.count(b"=\r") != data.count(b"=\r\n"):
        data = _SOFT_BREAK_BY_CR.sub(b"=\n", data)
    return binascii.a2b_qp(data)


def uuencoded(data: bytes) -> bytes:
    """The bytes of uuencoded lines, with or without their begin and end lines; lines that are none are skipped."""
    out = []
    for line in data.splitlines():
        if line == b"end":
            break
        if line and not line.startswith(b"begin "):
            out.append(_uu_line(line))
    return b"".join(out)


def _uu_line(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        # The length byte counts; anything after it is a checksum some encoders append.
        wanted = (((line[0] - 32) & 63) * 4 + 5) // 3
        try:
            return binascii.a2b_uu(line[:wanted])
        except binascii.Error:
            return b""
