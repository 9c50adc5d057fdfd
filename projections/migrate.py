"""Bringing the database up to date.

A database that is up to date is recognised with one query; only one that isn't pays for loading the migration tool.
"""

from pathlib import Path
from typing import Final

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
        version = await connection.fetchval("select version_num from public.alembic_version")
        return version is not None and bool(version >= HEAD)
    except asyncpg.UndefinedTableError:
        return False
    finally:
        await connection.close()


async def migrate(url: str) -> None:
    """Runs what has not been run yet; several processes may ask for it at once."""
    if await is_current(url):
        return
    from alembic import command  # noqa: PLC0415 - half a second of imports that a current database need not pay for
    from alembic.config import Config  # noqa: PLC0415 - as above
    from sqlalchemy import Connection, text  # noqa: PLC0415 - as above
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - as above

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        connection.execute(text(f"select pg_advisory_xact_lock({LOCK})"))
        command.upgrade(config, "head")

    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()
