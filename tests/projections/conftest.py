"""What tests of projections share."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from projections.migrate import migrate


@pytest.fixture
async def postgres(database: str) -> AsyncIterator[Any]:
    """A connection to a database with all tables, which finds those of the read models without their schema."""
    await migrate(database)
    connection = await asyncpg.connect(database)
    await connection.execute("set search_path to read")
    yield connection
    await connection.close()
