"""Addresses as they go over the wire: checked character by character, with domains as DNS knows them.

What is let through is an addr-spec of RFC 5322, 3.4.1 without its obsolete forms, comments and folds, or one of RFC 6531,
so nothing that is written between angle brackets can end them.
"""

import re
import unicodedata
from typing import Final

#: Octets (RFC 5321, 4.5.3.1); beyond it servers refuse.
LONGEST_LOCAL: Final = 64
LONGEST_DOMAIN: Final = 255
LONGEST_LABEL: Final = 63

_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u00a0-\U0010ffff]"
_LOCAL = re.compile(rf"{_ATEXT}++(?:\.{_ATEXT}++)*+|\"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*+\"")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?")
_LITERAL = re.compile(r"\[(?:[0-9.]{7,15}|IPv6:[0-9A-Fa-f:.]{2,45})\]")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
#: IDNA 2008 keeps these two as they are (RFC 5894, 7.2): folded, they would name somebody else's domain.
_KEPT: Final = frozenset("ßς")
_LETTERS: Final = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})
TOO_LONG: Final = "The domain is longer than domains are."
NO_DOMAIN: Final = "The domain is not one that mail can be sent to."


class NoAddress(ValueError):
    """Not an address that mail can be sent to. Its text holds nothing of the address."""


def wire_address(address: str) -> str:
    """The address with its domain in A-labels (RFC 5890); ASCII unless the local part is not. Raises NoAddress."""
    local, at, domain = address.rpartition("@")
    if len(domain) > LONGEST_DOMAIN:  # also before it is mapped, which takes time
        raise NoAddress(TOO_LONG)
    if not at or not _LOCAL.fullmatch(local) or len(local.encode("utf-8", "replace")) > LONGEST_LOCAL:
        raise NoAddress("The part before the @ is not one that mail servers take.")
    if "=?" in local:  # to many a reader an encoded word, and so another address
        raise NoAddress("The part before the @ is not one that mail servers take.")
    if any(_is_unseen(char) for char in local):
        raise NoAddress("The part before the @ has characters that can't be seen.")
    return f"{local}@{_domain(domain)}"


def _is_unseen(char: str) -> bool:
    """Separators, controls, surrogates, and what is not assigned: no mailbox is told from another by them."""
    return char > "\x7f" and unicodedata.category(char)[0] in "CZ"


def _domain(domain: str) -> str:
    if _LITERAL.fullmatch(domain):
        return domain
    labels = [_label(label) for label in _DOTS.split(domain)]
    if len(found := ".".join(labels)) > LONGEST_DOMAIN:
        raise NoAddress(TOO_LONG)
    return found


def _label(label: str) -> str:
    """As UTS 46 maps it, without its transitional forms, and as IDNA 2008 encodes it; case is kept where it is ASCII."""
    if not label.isascii():
        mapped = unicodedata.normalize("NFKC", label.replace("ẞ", "ß"))
        folded = "".join(char if char in _KEPT else char.casefold() for char in mapped)
        label = unicodedata.normalize("NFKC", folded)
        if any(char != "-" and unicodedata.category(char) not in _LETTERS for char in label):
            raise NoAddress("The domain has characters that domains don't have.")
        if len(label) > LONGEST_LABEL:  # encoded it is longer still, and to encode takes the square of its length
            raise NoAddress(NO_DOMAIN)
        if not label.isascii():
            label = "xn--" + label.encode("punycode").decode("ascii")
    if not _LABEL.fullmatch(label) or len(label) > LONGEST_LABEL:
        raise NoAddress(NO_DOMAIN)
    return label
