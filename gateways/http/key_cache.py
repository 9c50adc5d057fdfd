"""Whose an API key is, remembered for so short a time that a revoked key is dead within five seconds everywhere."""

import asyncio
from typing import Final

from gateways.stores.postgres import Pool
from projections import accounts
from projections.accounts import Holder

#: Seconds a holder is remembered. A revocation has this long plus its folding until it holds.
REMEMBERED_SECONDS: Final = 3.0
REMEMBERED_KEYS: Final = 10_000


class KeyCache:
    """Holders by the SHA-256 of their key. A key nobody holds is asked for each time, so that a new one works at once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Holder]] = {}

    async def holder(self, pool: Pool, key_hash: str) -> Holder | None:
        now = asyncio.get_running_loop().time()
        known = self._known.get(key_hash)
        if known and known[0] > now:
            return known[1]
        found = await accounts.holder(pool, key_hash)
        if found is None:
            self._known.pop(key_hash, None)
            return None
        if len(self._known) >= REMEMBERED_KEYS:
            self._known.clear()
        self._known[key_hash] = (now + REMEMBERED_SECONDS, found)
        return found
