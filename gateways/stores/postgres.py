"""Postgres as this house uses it: one pool for each process, a search path over `read` and `kept`.

`read` holds the tables projections fold events into: any of them can be thrown away and rebuilt from the log. `kept` holds
operational tables that can't: keyring, checkpoints, snapshots, claims.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

log = logging.getLogger(__name__)

#: Seconds a single query may take before its caller is told that Postgres does not answer.
ANSWER_SECONDS: Final = 5.0
#: What a query raises where Postgres is not there or not able to answer now.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says where a server goes between two messages of one exchange
)


class Pool(asyncpg.Pool):
    """A pool whose single queries end in time, whatever the server does.

    asyncpg waits for the server's word before it gives a cancelled connection back, and a frozen server says nothing: the
    query is left to itself, and its connection with it. What takes a connection of its own (`acquire`) waits as long as it
    has to.
    """

    async def execute(self, *args: Any, **more: Any) -> Any:
        return await answered(super().execute(*args, **more))

    async def fetch(self, *args: Any, **more: Any) -> Any:
        return await answered(super().fetch(*args, **more))

    async def fetchrow(self, *args: Any, **more: Any) -> Any:
        return await answered(super().fetchrow(*args, **more))

    async def fetchval(self, *args: Any, **more: Any) -> Any:
        return await answered(super().fetchval(*args, **more))


async def answered(query: Coroutine[Any, Any, Any], seconds: float = ANSWER_SECONDS) -> Any:
    """What the query answers; raises TimeoutError, and does not wait until it has really ended."""
    task = asyncio.ensure_future(query)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forgotten)
    if not task.done():
        raise TimeoutError("Postgres does not answer")
    return task.result()


def _forgotten(task: asyncio.Future[Any]) -> None:
    """What a query that was given up on says in the end interests nobody."""
    if not task.cancelled():
        task.exception()


async def _nothing_to_reset(_: object) -> None:
    """Nothing here changes a session, so giving a connection back needs no round trip."""


async def open_pool(url: str, *, size: int = 8, wait_seconds: float = 30) -> Pool:
    """A pool of at most `size` connections; waits for a server that is starting. Raises what keeps it from connecting."""
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        try:
            return await Pool(
                url,
                min_size=1,
                max_size=size,
                max_queries=50_000,
                max_inactive_connection_lifetime=300,
                reset=_nothing_to_reset,
                loop=asyncio.get_running_loop(),
                connection_class=asyncpg.Connection,
                record_class=asyncpg.Record,
                timeout=5,
                command_timeout=30,
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
