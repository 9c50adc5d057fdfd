"""Migrations make the tables that projections declare, once, whoever asks and however often."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from gateways.local_servers import Servers
from projections.catalogue import PROJECTIONS
from projections.migrate import HEAD, is_current, migrate
from projections.replay import CannotReplay, Rebuild
from schemas import events
from tests.support.mail_history import mail_log

ROOT = Path(__file__).parents[2]
SHAPE = """
select c.relname, c.relkind::text, c.relpersistence::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.attnum, a.attstorage::text, co.collname, pg_get_expr(d.adbin, d.adrelid)
from pg_class c join pg_attribute a on a.attrelid = c.oid and not a.attisdropped and a.attnum > 0
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum left join pg_collation co on co.oid = a.attcollation
where c.relnamespace = $1::text::regnamespace order by c.relname, a.attnum
"""
RULES = """
select replace(indexdef, $1 || '.', ''), null from pg_indexes where schemaname = $1
union all select conname || ': ' || pg_get_constraintdef(oid), contype::text from pg_constraint
where connamespace = $1::text::regnamespace order by 1
"""


async def test_migrations_make_the_tables_that_projections_declare(database: str) -> None:
    """Where this fails, a projection's DDL was changed without a migration, or the other way round."""
    await migrate(database)
    connection = await asyncpg.connect(database)
    await connection.execute("create schema declared; set search_path to declared")
    for projection in PROJECTIONS:
        for statement in projection.statements:
            await connection.execute(statement)
    assert {table for projection in PROJECTIONS for table in projection.tables} == {
        row[0] for row in await connection.fetch("select tablename from pg_tables where schemaname = 'read'")
    }
    for described in (SHAPE, RULES):
        migrated, declared = [
            list(map(tuple, await connection.fetch(described, name))) for name in ("read", "declared")
        ]
        assert migrated == declared
        assert migrated
    await connection.close()


async def test_several_processes_may_migrate_at_once(database: str) -> None:
    assert not await is_current(database)
    await asyncio.gather(*[migrate(database) for _ in range(4)])
    assert await is_current(database)


async def test_a_database_that_a_newer_version_has_migrated_is_left_alone(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    await connection.execute("update public.alembic_version set version_num = '9999'")
    await migrate(database)
    assert await connection.fetchval("select version_num from public.alembic_version") == "9999" > HEAD
    await connection.close()


async def test_a_migration_killed_in_the_midst_can_be_run_again(database: str) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from alembic.runtime import migration\n"
        "migration.HeadMaintainer.update_to_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from projections.migrate import migrate\n"
        "asyncio.run(migrate(sys.argv[1]))\n"
    )
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, database], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not await is_current(database)
    await migrate(database)
    assert await is_current(database)


async def test_the_parameters_of_a_url_are_those_of_postgres(database: str) -> None:
    await migrate(f"{database}?sslmode=prefer".replace("postgresql://", "postgres://"))
    assert await is_current(database)


async def test_a_user_who_may_not_make_tables_hears_it_from_postgres(database: str) -> None:
    connection = await asyncpg.connect(database)
    role = f"reader_{database.rpartition('/')[2]}"[:60]
    await connection.execute(f"create role {role} login password 'only-reads'")
    place = database.rpartition("@")[2]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrate(f"postgresql://{role}:only-reads@{place}")
    await connection.execute(f"drop role {role}")
    await connection.close()


@pytest.mark.parametrize(("version", "says"), [("0001", "main.py migrate"), ("9999", "newer version")])
async def test_tables_of_another_version_are_not_put_in_place(
    version: str, says: str, servers: Servers, database: str, topic_prefix: str
) -> None:
    async with mail_log(servers, database, topic_prefix) as mail:
        await mail.pool.execute("update public.alembic_version set version_num = $1", version)
        with pytest.raises(CannotReplay, match=says):
            await Rebuild(PROJECTIONS[0], events.MAILBOX, mail.log, database).run()
