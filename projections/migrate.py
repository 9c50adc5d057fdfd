"""Bringing the database up to date.

A database that is up to date is recognised with one query; only one that isn't pays for loading the migration tool.
"""

from pathlib import Path
from typing import Any, Final

import asyncpg

FOLDER: Final = Path(__file__).parent / "migrations"
HEAD: Final = max(path.name[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))
#: One migration at a time, whoever starts it.
LOCK: Final = 7_302_941_118


async def is_current(url: str) -> bool:
    """Whether every migration that we know has been run; a newer version may have run more, which only adds.

    Raises what asyncpg raises where the database can't be reached.
    """
    connection = await asyncpg.connect(url, timeout=5)
    try:
        version = await version_of(connection)
        return version is not None and version >= HEAD
    finally:
        await connection.close()


async def version_of(connection: "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]") -> str | None:
    """The last migration that has been run on this database; None where there was none."""
    try:
        found: str | None = await connection.fetchval("select version_num from public.alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return found


async def migrate(url: str) -> None:
    """Runs what has not been run yet; several processes may ask for it at once. Raises what asyncpg raises."""
    if await is_current(url):
        return
    from alembic import command  # noqa: PLC0415 - half a second of imports that a current database need not pay for
    from alembic.config import Config  # noqa: PLC0415 - as above
    from sqlalchemy import Connection, text  # noqa: PLC0415 - as above
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - as above
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - as above

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        connection.execute(text(f"select pg_advisory_xact_lock({LOCK})"))
        command.upgrade(config, "head")

    # Connected by asyncpg itself: SQLAlchemy takes a URL's parameters (`sslmode`) for those of a function.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig else None
        if isinstance(cause, asyncpg.PostgresError):
            raise cause from error
        raise
    finally:
        await engine.dispose()
