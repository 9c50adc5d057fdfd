"""Postgres as this house uses it: one pool for each process, a search path over `read` and `kept`.

`read` holds the tables projections fold events into: any of them can be thrown away and rebuilt from the log. `kept` holds
operational tables that can't: keyring, checkpoints, snapshots, claims.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

log = logging.getLogger(__name__)

Pool = asyncpg.Pool
#: What a query raises where Postgres is not there or not able to answer now.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
)


async def _nothing_to_reset(_: object) -> None:
    """Nothing here changes a session, so giving a connection back needs no round trip."""


async def open_pool(url: str, *, size: int = 8, wait_seconds: float = 30) -> Pool:
    """A pool of at most `size` connections; waits for a server that is starting. Raises what keeps it from connecting."""
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        try:
            return await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=size,
                timeout=5,
                command_timeout=30,
                max_inactive_connection_lifetime=300,
                reset=_nothing_to_reset,
                server_settings={"search_path": "read,kept", "application_name": "postledger", "jit": "off"},
            )
        except UNREACHABLE:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def pooled(url: str, *, size: int = 8) -> AsyncIterator[Pool]:
    """A pool for as long as the block runs."""
    pool = await open_pool(url, size=size)
    try:
        yield pool
    finally:
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()
