"""How rates are told: `RateLimit`, `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) and `Retry-After`."""

from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import Final

from starlette.types import Scope

from gateways.http.problems import Problem
from gateways.stores.rates import Limit, Standing

#: Who shares an allowance where addresses are free to take: the network a provider hands out as one.
IPV6_PREFIX: Final = 64
#: Credentials that are not valid, from one address: whoever has some and mistypes them needs a few.
GUESSES: Final = Limit("guesses", 20, 60)


def rate_headers(standing: Standing) -> dict[str, str]:
    """Where the caller stands after this request; times in whole seconds."""
    limit, left = standing.limit, max(0, standing.left)
    return {
        "RateLimit-Policy": f'"{limit.name}";q={limit.most};w={limit.seconds}',
        "RateLimit": f'"{limit.name}";r={left};t={ceil(standing.resets_in)}',
    }


def refused_by(standing: Standing) -> Problem:
    limit = standing.limit
    return Problem(
        "rate_limited",
        f"No more than {limit.most} in {limit.seconds} s are taken.",
        {"Retry-After": str(max(1, ceil(standing.resets_in))), **rate_headers(standing)},
    )


def origin_of(scope: Scope) -> str:
    """Whose allowance a request without valid credentials uses: its IPv4 address, or its IPv6 network of 64 bits."""
    client = scope.get("client")
    if not client:
        return "local"
    try:
        address = ip_address(client[0])
    except ValueError:
        return "local"
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, IPV6_PREFIX), strict=False))
