"""Header fields as they go over the wire (RFC 5322), and MIME's parameters (RFC 2045, 2231).

Each is made by `field`, which lets through nothing that could end it early: the standard library's own header classes
still write names and values with line ends in them (CVE-2024-6923 and its relatives), and lose the quotes of a long list
of addresses when they fold it. Text that only looks like an encoded word is encoded, so its reader sees what was written.
"""

import re
from collections.abc import Sequence
from email.charset import Charset
from email.header import Header
from typing import Final
from urllib.parse import quote

from domain.mail_wire_addresses import NoAddress, wire_address
from domain.outgoing import MARKER, Mailbox

#: Characters of a line that fields are folded at, and of a word that no fold can shorten (RFC 5322, 2.1.1: 78 and 998).
SOFT_LINE: Final = 76
LONGEST_WORD: Final = 900
LONGEST_NAME: Final = 76
LONGEST_MEDIA_TYPE: Final = 255
#: A display name beyond it is written as encoded words, which can be folded.
LONGEST_PHRASE: Final = 60
LONGEST_PIECE: Final = 60

#: Fields that say who gets the mail, what it is, or where it has been: ours to write, or a server's.
RESERVED: Final = frozenset({
    "from", "sender", "to", "cc", "bcc", "reply-to", "subject", "message-id", "date", "return-path", "received",
    "delivered-to", "envelope-to", "x-envelope-to", "apparently-to", "errors-to", "return-receipt-to",
    "authentication-results", "domainkey-signature", MARKER.lower(),
})  # fmt: skip
RESERVED_PREFIXES: Final = ("mime-", "content-", "dkim-", "arc-", "resent-")

_NAME = re.compile(r"[!-9;-~]+")
#: Controls but the tab, line ends of Unicode's, and halves of characters.
_UNWRITABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: Lines of a value, none of them blank: a fold, and no other control, goes before a space (RFC 5322, 2.2.3).
_LINE = r"[ !-~\u00a0-\U0010ffff]*[!-~\u00a0-\U0010ffff][ !-~\u00a0-\U0010ffff]*"
_WRITTEN = re.compile(rf"{_LINE}(?:\r\n {_LINE})*")
_MARKER = re.compile(r"[!-~]{1,200}")
_WORDS = re.compile(r" *[^ ]+")
_PLAIN_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+")
_TOKEN = r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+"  # noqa: S105 - RFC 2045's word
_MEDIA_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})")
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})[ \t]*=[ \t]*({_TOKEN}|\"[\x20\x21\x23-\x5b\x5d-\x7e]*\")")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,400}@[!-;=?-~]{1,400}>")
_PLAIN_FILE_NAME = re.compile(rf"[\x20\x21\x23-\x24\x26-\x5b\x5d-\x7e]{{1,{LONGEST_PIECE}}}")

_UTF_8: Final = Charset("utf-8")


class Unwritable(ValueError):
    """A mail that can't be written without becoming another one. `where` names the part, `to/0`; no value is told."""

    def __init__(self, where: str, what: str = "has characters that a mail can't have there") -> None:
        super().__init__(f"{where} {what}.")
        self.where = where


def is_reserved(name: str) -> bool:
    """Whether a field is not for callers to write, whatever its case."""
    lower = name.lower()
    return lower in RESERVED or lower.startswith(RESERVED_PREFIXES)


def field(name: str, value: str) -> str:
    """A whole field with its line end, from a value that is folded already. Raises Unwritable."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or not _WRITTEN.fullmatch(value):
        raise Unwritable("a header field")
    return f"{name}: {value}\r\n"


def text_field(name: str, text: str, where: str) -> str:
    """A field of unstructured text (RFC 5322, 2.2.1), or none where there is no text. Raises Unwritable."""
    text = writable(text, where).strip(" ")
    return field(name, _folded(name, text)) if text else ""


def own_field(name: str, text: str, where: str) -> str:
    """A field of the caller's own. Raises Unwritable where it is one of ours."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise Unwritable(where, "has a name that no header field has")
    if is_reserved(name):
        raise Unwritable(where, "is a header field that is not for callers to write")
    return text_field(name, text, where)


def message_id(text: str, where: str) -> str:
    """An identifier with its angle brackets (RFC 5322, 3.6.4). Raises Unwritable."""
    if not _MESSAGE_ID.fullmatch(text):
        raise Unwritable(where, "is no message identifier")
    return text


def marker(text: str) -> str:
    """What names a send within its mail: one word of ASCII. Raises Unwritable."""
    if not _MARKER.fullmatch(text):
        raise Unwritable("marker", "is no word of ASCII")
    return text


def addresses_field(name: str, mailboxes: Sequence[Mailbox], where: str) -> str:
    """A field of addresses, one to a line where a line would be too long; none without any. Raises Unwritable."""
    if not mailboxes:
        return ""
    written = [mailbox(one, f"{where}/{index}") for index, one in enumerate(mailboxes)]
    lines: list[str] = []
    line = f"{name}: {written[0]}"
    for one in written[1:]:
        if len(line.rpartition("\n")[2]) + len(one) + 2 > SOFT_LINE:
            lines.append(line + ",\r\n ")
            line = one
        else:
            line += ", " + one
    return field(name, "".join([*lines, line]).removeprefix(f"{name}: "))


def mailbox(one: Mailbox, where: str) -> str:
    """An address with its name. Raises Unwritable."""
    try:
        address = wire_address(one.address)
    except NoAddress:
        raise Unwritable(where, "is no address that mail can be sent to") from None
    name = " ".join(writable(one.name, where).split())
    if not name:
        return address
    return f"{_phrase(name)} <{address}>"


def _phrase(name: str) -> str:
    if not name.isascii() or "=?" in name or len(name) > LONGEST_PHRASE:
        return _encoded(name, used=24)
    if _PLAIN_PHRASE.fullmatch(name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def writable(text: str, where: str) -> str:
    """The text on one line, tabs as spaces. Raises Unwritable."""
    if _UNWRITABLE.search(text):
        raise Unwritable(where)
    return text.replace("\t", " ")


def _folded(name: str, text: str) -> str:
    words = _WORDS.findall(text)
    like_a_word = "=?" in text and "?=" in text
    if not text.isascii() or like_a_word or any(len(word) > LONGEST_WORD for word in words):
        return _encoded(text, used=len(name) + 2)
    folded: list[str] = []
    length = len(name) + 2
    for word in words:
        if folded and length + len(word) > SOFT_LINE:
            folded.append("\r\n")
            length = 0
        folded.append(word)
        length += len(word)
    return "".join(folded)


def _encoded(text: str, used: int) -> str:
    """Encoded words (RFC 2047), `used` characters being on the first line already."""
    header = Header(text, _UTF_8, maxlinelen=SOFT_LINE - 1, header_name="x" * max(0, used - 2))
    return header.encode(linesep="\r\n")


def media_type(text: str, where: str) -> str:
    """A Content-Type's value from what a caller said, folded; `name` and `boundary` are left out. Raises Unwritable.

    `multipart` and `message` become `application/octet-stream`: they must not be sent in base64 (RFC 2046, 5), and a file
    is a file, not a part of this mail.
    """
    text = text.strip()
    found = _MEDIA_TYPE.match(text)
    if found is None or len(text) > LONGEST_MEDIA_TYPE:
        raise Unwritable(where, "is no media type")
    parameters: list[str] = []
    at = found.end()
    while at < len(text):
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            raise Unwritable(where, "is no media type")
        at = parameter.end()
        if parameter[1].lower() not in {"name", "boundary"}:
            parameters.append(f";\r\n {parameter[1]}={parameter[2]}")
    if found[1].lower() in {"multipart", "message"}:
        return "application/octet-stream"
    return found[0] + "".join(parameters)


def disposition(file_name: str, where: str) -> str:
    """`attachment` with the file's name, beyond plain ASCII as RFC 2231 has it; never a path. Raises Unwritable."""
    name = re.sub(r"[/\\]", "_", writable(file_name, where)).strip() or "attachment"
    if _PLAIN_FILE_NAME.fullmatch(name) and "=?" not in name:
        return f'attachment;\r\n filename="{name}"'
    pieces: list[str] = []
    piece = "utf-8''"
    for char in name:
        if len(piece) + len(written := quote(char, safe="")) > LONGEST_PIECE:
            pieces.append(piece)
            piece = ""
        piece += written
    pieces.append(piece)
    if len(pieces) == 1:
        return f"attachment;\r\n filename*={pieces[0]}"
    return "attachment" + "".join(f";\r\n filename*{number}*={piece}" for number, piece in enumerate(pieces))
