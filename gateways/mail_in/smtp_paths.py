"""The arguments of MAIL and RCPT: `FROM:<path> parameters` by the grammar of RFC 5321 4.1.2, widened by RFC 6531 3.3.

Stricter than the grammar where it is only there for the past: source routes are refused. Wider in two points: a space
after the colon, and underscores in domains, both of which real senders write.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass

_LOCAL_OCTETS = 64
_DOMAIN_OCTETS = 255
_LABEL_OCTETS = 63

_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\U0010ffff]+"
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\-\x80-\U0010ffff]*[A-Za-z0-9_\x80-\U0010ffff])?"
_MAILBOX = re.compile(
    rf"""(?P<local>{_ATEXT}(?:\.{_ATEXT})*|"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*")"""
    rf"""@(?P<domain>{_LABEL}(?:\.{_LABEL})*|\[[!-Z^-~]+\])""",
)
_PATH = re.compile(r'[^:<]+: *<(?P<path>(?:[^<>"]|"(?:[^"\\]|\\.)*")*)>(?: +(?P<parameters>.*))?', re.DOTALL)
_PARAMETER = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9\-]*)(?:=(?P<value>[!-<>-~]+))?")


class Refused(Exception):
    """The argument is not one; `reply` is the SMTP reply that says why."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Path:
    """A path without its brackets (the null path is empty), and the ESMTP parameters behind it with names in upper case."""

    address: str
    parameters: dict[str, str]


def parse_path(keyword: str, argument: str) -> Path:
    """Takes `FROM:<ada@example.org> SIZE=5` apart; `keyword` is `FROM` or `TO`. The address is not yet judged.

    Raises Refused (501 5.5.4) where it has another form.
    """
    match = _PATH.fullmatch(argument)
    if match is None or argument.partition(":")[0].upper() != keyword:
        raise Refused(f"501 5.5.4 Syntax: {keyword}:<address>")
    parameters: dict[str, str] = {}
    for text in (match["parameters"] or "").split():
        parameter = _PARAMETER.fullmatch(text)
        if parameter is None or parameter["name"].upper() in parameters:
            raise Refused("501 5.5.4 Malformed parameters")
        parameters[parameter["name"].upper()] = parameter["value"] or ""
    return Path(match["path"], parameters)


def check_sender(address: str, *, utf8: bool) -> None:
    """Lets a mailbox of RFC 5321 pass, and with `utf8` one of RFC 6531, whatever the length of its local part.

    RFC 5321 4.5.3.1 asks receivers to impose no limits where they can: bounce addresses (VERP, SRS, Exchange's IMCEAEX) hold
    another address and more, and go beyond 64 octets. The command line bounds them.

    Raises Refused (553) for everything else, with a text that does not repeat the address.
    """
    _check(address, status="5.1.7", utf8=utf8)


def check_recipient(address: str, *, utf8: bool) -> None:
    """As `check_sender`, with at most 64 octets before the @ (RFC 5321 4.5.3.1.1): no mailbox of ours has more."""
    local = _check(address, status="5.1.3", utf8=utf8)
    if len(local.encode()) > _LOCAL_OCTETS:
        raise Refused("553 5.1.3 Address too long")


def _check(address: str, *, status: str, utf8: bool) -> str:
    """The local part."""
    match = _MAILBOX.fullmatch(address)
    if match is None:
        raise Refused(f"553 {status} Malformed address")
    local, domain = match["local"], match["domain"]
    if len(domain.encode()) > _DOMAIN_OCTETS:
        raise Refused(f"553 {status} Address too long")
    if not address.isascii():
        _check_unicode(local, domain, status=status, utf8=utf8)
    if domain.startswith("["):
        _check_literal(domain[1:-1], status=status)
    elif any(len(label.encode()) > _LABEL_OCTETS for label in domain.split(".")):
        raise Refused(f"553 {status} Malformed domain")
    return local


def _check_unicode(local: str, domain: str, *, status: str, utf8: bool) -> None:
    """Letters, digits and marks in domains, and symbols in local parts; nothing invisible, no direction marks, no spaces."""
    if not utf8:
        raise Refused("553 5.6.7 Non-ASCII addresses need SMTPUTF8")
    strange_local = any(ord(sign) > 0x7F and unicodedata.category(sign)[0] in "CZ" for sign in local)
    strange_domain = any(ord(sign) > 0x7F and unicodedata.category(sign)[0] not in "LMN" for sign in domain)
    if strange_local or strange_domain:
        raise Refused(f"553 {status} Malformed address")


def _check_literal(literal: str, *, status: str) -> None:
    version_6 = literal[:5].upper() == "IPV6:"
    try:
        _ = ipaddress.IPv6Address(literal[5:]) if version_6 else ipaddress.IPv4Address(literal)
    except ValueError:
        raise Refused(f"553 {status} Malformed address literal") from None
