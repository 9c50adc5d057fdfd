"""Queries of `/v1`, read so that a slip is told rather than answered with other rows than were meant.

Parameters that are not ours are ignored, but `user_id=…` for `userId` would list everybody's connections.
"""

import re
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request

from gateways.http.v1.bodies import Faults, pointer

BESIDE_THE_WORDS: Final = re.compile("[^a-z0-9]")


def query_of(request: Request, names: Sequence[str], faults: Faults) -> dict[str, str]:
    """What is said by these names. Faults are one that is said twice, and one that is almost one of them."""
    alike = {_plain(name): name for name in names}
    found: dict[str, str] = {}
    for said, text in request.query_params.multi_items():
        name = alike.get(_plain(said))
        if name is None:
            continue
        if said != name:
            faults.add(f"/query{pointer(said)}", f"This parameter is spelled `{name}`.")
        elif name in found:
            faults.add(f"/query/{name}", f"`{name}` is said twice.")
        else:
            found[name] = text
    return found


def _plain(name: str) -> str:
    return BESIDE_THE_WORDS.sub("", name.lower())
