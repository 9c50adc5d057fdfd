"""Address lists as mail really has them (RFC 5322, section 3.4, with the obsolete and the broken forms).

A single pass over tokens, never recursive: quoted strings, comments of any depth, angle brackets and encoded words are
each one token, so a comma inside one of them separates nothing.
"""

import re
from dataclasses import dataclass, field

from domain import encoded_words

_TOKEN = re.compile(
    rf"(?P<word>{encoded_words.WORD})"
    r"|(?P<quoted>\"(?:[^\"\\]++|\\.)*+\")"
    r"|(?P<unclosed>\")"
    r"|(?P<angle><[^<>]*+>?)"
    r"|(?P<special>[(),;:])"
    r"|(?P<text>[^\"<(),;:=]++|.)",
    re.DOTALL,
)
_COMMENT_TOKEN = re.compile(r"[^()\\]++|\\.|[()]|\\", re.DOTALL)
_QUOTED = re.compile(r"\"((?:[^\"\\]++|\\.)*+)(\"|\Z)", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_LOOSE_SPACE = re.compile(r"(?<![ \t])[ \t]*+([@.])[ \t]*+")
_BARE = re.compile(r"(?<![^\s<>\"',;()\[\]])[^\s<>\"',;()\[\]@]++@[^\s<>\"',;()@]++")


@dataclass(frozen=True, slots=True)
class Address:
    """A bare *address* and the *name* shown with it; the name may be empty, the address is not."""

    address: str
    name: str


@dataclass(slots=True)
class _Entry:
    words: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    angle: str | None = None


def addresses(raw: str) -> list[Address]:
    """Every address in a raw field value (8-bit bytes as surrogates), groups opened, in order."""
    if not raw:
        return []
    entries = _entries(raw.replace("\r", "").replace("\n", ""))
    return [address for entry in entries if (address := _read(entry))]


def _entries(raw: str) -> list[_Entry]:
    entries = [_Entry()]
    at = 0
    while token := _TOKEN.match(raw, at):
        at, entry, text = token.end(), entries[-1], token.group()
        match token.lastgroup, text:
            case "special", "(":
                comment, at = _comment(raw, at)
                entry.comments.append(comment)
            case "special", "," | ";":
                entries.append(_Entry())
            case "special", ":":
                entries[-1] = _Entry()  # a group's name ends here, its members follow
            case "angle", _:
                entry.angle = entry.angle or text.strip("<> \t")
            case "unclosed", _:
                raw, at = raw[token.start() :].replace('"', " "), 0
            case _:
                entry.words.append(text)
    return entries


def _comment(raw: str, at: int) -> tuple[str, int]:
    depth = 1
    pieces: list[str] = []
    for token in _COMMENT_TOKEN.finditer(raw, at):
        depth += {"(": 1, ")": -1}.get(token.group(), 0)
        if depth == 0:
            return "".join(pieces), token.end()
        pieces.append(token.group())
    return "".join(pieces), len(raw)


def _read(entry: _Entry) -> Address | None:
    phrase = "".join(entry.words).strip()
    comment = encoded_words.decode(" ".join(entry.comments))
    if entry.angle is not None:
        address = _addr_spec(entry.angle)
        return Address(address, _name(phrase) or comment) if address else None
    if not phrase:
        return None
    if phrase.startswith('"') and not phrase.endswith('"') and "@" in phrase:
        return Address(_addr_spec(phrase), comment)  # "a quoted local part"@example.org
    shown = _LOOSE_SPACE.sub(r"\1", _name(phrase))
    if found := _BARE.search(shown):
        name = (shown[: found.start()] + shown[found.end() :]).strip(" <>\"'")
        return Address(found.group(), name or comment)
    return Address(shown, comment) if not any(char.isspace() for char in shown) else None


def _name(phrase: str) -> str:
    """A display name without its quotes; encoded words inside quotes are decoded too, as every client does."""
    return encoded_words.decode(_QUOTED.sub(_unquoted, phrase)).strip()


def _unquoted(found: re.Match[str]) -> str:
    """A quote that is never closed, as inside an encoded word, stays; it is matched to spare the rest a second search."""
    return _QUOTED_PAIR.sub(r"\1", found[1]) if found[2] else found[0]


def _addr_spec(text: str) -> str:
    """The address between angle brackets: without a route (RFC 5322, section 4.4), a scheme or loose white space."""
    text = encoded_words.decode(text)
    if text.startswith("@") and ":" in text:
        text = text.rpartition(":")[2]
    text = text.removeprefix("mailto:").strip()
    if text.startswith('"') and text.endswith('"'):
        text = text[1:-1].strip()
    return text if text.startswith('"') else _LOOSE_SPACE.sub(r"\1", text)
