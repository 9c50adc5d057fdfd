"""A process of workers that ask for one connection's access token at once, told by one JSON line.

It says that it is ready, waits for a line, asks so many times, and says what each got: token and version, or the error.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from prometheus_client import CollectorRegistry

from gateways.log.command_log import CommandLog
from gateways.providers.catalogue import connectors
from gateways.stores.due_tokens import DueTokens
from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.postgres import pooled
from gateways.stores.vault import Vault
from gateways.token_measures import TokenMeasures
from handlers.refresh import Refreshing
from handlers.reporting import Reports
from tests.support.connect_house import providers_at


class At:
    """As much of a server as its settings need."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.authorize_url, self.token_url = f"{issuer}/authorize", f"{issuer}/token"
        self.revoke_url, self.jwks_url = f"{issuer}/revoke", f"{issuer}/jwks"


async def one(refreshing: Refreshing, connection: str, refused: int | None) -> Any:
    try:
        got = await refreshing.access_token(connection, refused=refused)
    except Exception as error:  # noqa: BLE001 - the test wants to see it
        return repr(error)
    return [got.token, got.version]


async def run(told: Any) -> None:
    keyset, registry = open_keyset(Path(told["keyset"])), CollectorRegistry()
    said: Any = At(told["issuer"])
    settings = providers_at(
        said, google_client_id=told["client"], google_client_secret=told["secret"], provider_timeout=told["timeout"]
    )
    log = CommandLog(told["kafka"], prefix=told["prefix"])
    async with pooled(told["database"], size=4) as pool, connectors(settings, registry) as found:
        refreshing = Refreshing(
            Vault(pool, LocalKeys(keyset), keyset),
            found.by_provider,
            DueTokens(pool),
            Reports(log),
            TokenMeasures(pool, registry),
            holder=told["holder"],
            timeout=told["timeout"],
        )
        await pool.fetchval("select 1")
        print(json.dumps({"ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        clock = asyncio.create_task(refreshing.run()) if told["timer"] else None
        asked = [one(refreshing, told["connection"], told["refused"]) for _ in range(told["workers"])]
        print(json.dumps(await asyncio.gather(*asked)), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if clock:
            clock.cancel()
    await log.close()


asyncio.run(run(json.loads(sys.stdin.readline())))
