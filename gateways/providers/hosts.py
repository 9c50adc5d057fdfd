"""The one reading of host names and addresses that users give us: which are well formed, and which never to connect to.

Many programs read `0x7f.1`, `①②⑦.0.0.1` and `127。0。0。1` as a loopback address. Here a host is a name of the DNS, a dotted
quad or an IPv6 address, and nothing else.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import idna
from yarl import URL

LONGEST_NAME: Final = 253
#: With a dot at its end, and a port.
LONGEST_AUTHORITY: Final = LONGEST_NAME + len(".:65535")
NO_NAME: Final = "The host is not a name of the DNS."
LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
#: The URL standard's rule: where the last label is a number, the whole host is an IPv4 address, or no host at all.
ENDS_IN_NUMBER: Final = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)$", re.ASCII)

#: IANA's special-purpose registries and what clouds keep for themselves. `ipaddress.is_global` misses many of these.
DENIED_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux connects to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's own services for a machine
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
DENIED_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        # All but 2000::/3, the one range of which addresses are given out.
        "::/3",  # unspecified, loopback, IPv4-mapped, -compatible and -translated, NAT64 (64:ff9b…), discard
        "4000::/2",  # unassigned, 5f00::/16 for segment routing
        "8000::/1",  # unassigned, unique local, link-local, site-local, multicast
        # And within it:
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


class HostNotAllowed(Exception):
    """We do not connect there. The sentence is for the user who named it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def denied(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is, or may lead to, anything but a machine on the public internet."""
    if isinstance(address, IPv4Address):
        return any(address in network for network in DENIED_V4)
    return any(address in network for network in DENIED_V6)


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, None for a name. `host` is one that `plain_host` gave."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def plain_host(text: str) -> str:
    """A host as it is looked up and as its certificate names it: lower case, ASCII, no dot at its end.

    Raises HostNotAllowed for what is neither a name nor an address in its usual form.
    """
    _check_length(text, LONGEST_NAME + 1)
    if ":" in text:
        return _plain_v6(text)
    name = _ascii(text).removesuffix(".")
    if ENDS_IN_NUMBER.search(name):
        return _plain_v4(name)
    if not name or len(name) > LONGEST_NAME or not all(map(LABEL.fullmatch, name.split("."))):
        raise HostNotAllowed(NO_NAME)
    return name


def _check_length(text: str, most: int) -> None:
    """Before anything else is done with it: to map a name takes the square of its length."""
    if len(text) > most:
        raise HostNotAllowed(NO_NAME)


def _ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise HostNotAllowed(NO_NAME) from None


def _plain_v4(name: str) -> str:
    try:
        return str(IPv4Address(name))
    except ValueError:
        raise HostNotAllowed("The host is no IPv4 address in its usual form.") from None


def _plain_v6(text: str) -> str:
    """Without a zone: `fe80::1%eth0` names one of our own network cards."""
    try:
        return str(IPv6Address(text)) if "%" not in text else _refuse_zone()
    except ValueError:
        raise HostNotAllowed("The host is no IPv6 address in its usual form.") from None


def _refuse_zone() -> str:
    raise HostNotAllowed("An IPv6 address with a zone is no address on the internet.")


def plain_url(text: str, *, http: bool = False) -> URL:
    """An https URL with nothing in it that is read in two ways; `http` allows http as well. Raises HostNotAllowed."""
    if any(character <= " " or character in '\\"<>^`{|}\x7f' for character in text):
        raise HostNotAllowed("The URL has characters in it that no URL has.")
    authority = re.split("[/?#]", text.partition("//")[2], maxsplit=1)[0]
    _check_length(authority, LONGEST_AUTHORITY)
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise HostNotAllowed("This is no URL.") from None
    if url.scheme not in ({"https", "http"} if http else {"https"}):
        raise HostNotAllowed("The URL must begin with https://.")
    if not host or not port or url.raw_user is not None or url.raw_password is not None or "#" in text:
        raise HostNotAllowed("The URL must have a host, and neither a user name nor a fragment.")
    return url.with_host(plain_host(host))
