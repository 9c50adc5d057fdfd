"""The embedded servers are really started, really killed, and come back with what they had."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gateways.local_children import CannotStart
from gateways.local_ports import free_port
from gateways.local_postgres import LocalPostgres
from gateways.local_servers import LocalServers, Servers, running
from gateways.postgres_account import account
from tests.support.servers import ServersOfTheRun

ROOT = Path(__file__).parents[2]


async def leave_a_mark(servers: Servers) -> None:
    """One acknowledged record in Kafka and one committed row in Postgres."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    await admin.create_topics([NewTopic("marks", 1, 1, topic_configs={"flush.messages": "1"})])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka, acks="all", enable_idempotence=True)
    await producer.start()
    await producer.send_and_wait("marks", b"mark", partition=0)
    await producer.stop()
    async with connected(servers.database_url) as connection:
        await connection.execute("CREATE TABLE marks AS SELECT 1 AS mark")


async def records(servers: Servers) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers.kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition("marks", 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        return [(await consumer.getone()).value for _ in range(end)]
    finally:
        await consumer.stop()


async def topics(servers: Servers) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    try:
        return await admin.list_topics()
    finally:
        await admin.close()


async def rows(servers: Servers) -> int:
    async with connected(servers.database_url) as connection:
        return await connection.fetchval("SELECT count(*) FROM marks")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def owner_process(data: Path) -> tuple[subprocess.Popen[str], Servers, dict[str, int]]:
    owner = subprocess.Popen(
        [sys.executable, "-m", "tests.support.owner_of_servers", str(data)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    told = json.loads(owner.stdout.readline())
    return owner, Servers(**told["servers"]), told["pids"]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def until(happens: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        await asyncio.sleep(0.02)


async def test_servers_end_with_a_killed_owner_and_their_folder_starts_again_with_everything_in_it(tmp_path):
    owner, before, pids = owner_process(tmp_path)
    await leave_a_mark(before)
    owner.kill()
    owner.wait()
    async with LocalServers(tmp_path) as after:  # at once: waiting for the old servers' end is its own business
        assert not any(alive(pid) for pid in pids.values())
        assert after == before
        assert await records(after) == [b"mark"]
        assert await rows(after) == 1
    owner.stdout.close()


async def test_servers_of_a_killed_owner_are_gone_within_seconds_when_nobody_starts_again(tmp_path):
    owner, _, pids = owner_process(tmp_path)
    owner.kill()
    owner.wait()
    await until(lambda: not any(alive(pid) for pid in pids.values()), seconds=8)
    owner.stdout.close()


async def test_one_folder_has_one_owner_who_is_found_while_it_runs_and_keeps_its_ports(tmp_path):
    assert running(tmp_path) is None
    async with LocalServers(tmp_path) as servers:
        assert running(tmp_path) == servers
        with pytest.raises(CannotStart, match=f"{os.getpid()}.* already runs on"):
            await LocalServers(tmp_path).__aenter__()
        assert running(tmp_path) == servers
        await leave_a_mark(servers)
        assert (tmp_path / "servers.json").stat().st_mode & 0o777 == 0o600
    assert running(tmp_path) is None
    shutil.rmtree(tmp_path / "kafka")
    async with LocalServers(tmp_path) as again:
        assert again == servers, "the same ports and password"
        assert await topics(again) == [], "a deleted Kafka comes back empty"
        assert await rows(again) == 1, "beside a Postgres that kept what it had"


async def test_a_server_that_is_killed_is_back_on_its_port_with_its_data(tmp_path):
    local = LocalServers(tmp_path)
    async with local as servers:
        await leave_a_mark(servers)
        watching = asyncio.create_task(local.watch())
        killed = local.pids
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: all(local.pids[name] != pid for name, pid in killed.items()), seconds=20)
        assert await records(servers) == [b"mark"]
        assert await rows(servers) == 1
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_server_that_cannot_come_back_ends_the_watch_with_a_sentence(tmp_path):
    local = LocalServers(tmp_path)
    async with local:
        watching = asyncio.create_task(local.watch())
        (tmp_path / "postgres/data/global").rename(tmp_path / "moved-away")
        os.kill(local.pids["postgres"], signal.SIGKILL)
        with pytest.raises(CannotStart, match=r"Postgres ended while it started: .*server\.log\)\."):
            await asyncio.wait_for(watching, 30)


async def test_a_wanted_port_that_is_in_use_is_named(tmp_path):
    port = free_port()
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with taken:
        with pytest.raises(CannotStart, match=f"Port {port}, wanted for kafka, is in use"):
            await LocalServers(tmp_path, kafka_port=port).__aenter__()
    assert running(tmp_path) is None


async def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="file/data cannot be made"):
        await LocalServers(tmp_path / "file/data").__aenter__()


def test_the_servers_of_a_test_run_that_asks_for_none_are_not_started():
    owned = ServersOfTheRun().open()
    owned.close()
    assert owned._servers is None


@pytest.fixture
def lock(tmp_path):
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


async def test_postgres_starts_although_its_stale_pid_file_names_a_living_stranger(tmp_path, lock):
    postgres = LocalPostgres(tmp_path / "postgres", free_port())
    child = await postgres.start(lock)
    child.process.kill()
    await child.ended()
    pid_file = tmp_path / "postgres/data/postmaster.pid"
    stranger = subprocess.Popen(["sleep", "60"])
    pid_file.write_text("\n".join([str(stranger.pid), *pid_file.read_text().split("\n")[1:]]))
    child = await postgres.start(lock)
    async with connected(postgres.url) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await child.stop()
    stranger.kill()
    stranger.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
async def test_root_without_user_namespaces_runs_postgres_as_nobody_and_can_go_back(tmp_path, lock, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("setpriv", "true", "sleep"):
        (programs / name).symlink_to(shutil.which(name))
    tmp_path.chmod(0o700)
    postgres = LocalPostgres(tmp_path / "postgres", free_port())
    with monkeypatch.context() as without_unshare:
        without_unshare.setenv("PATH", str(programs))
        account.cache_clear()
        child = await postgres.start(lock)
        assert Path(f"/proc/{child.process.pid}").stat().st_uid == account().owner != 0
        await child.stop()
    account.cache_clear()
    child = await postgres.start(lock)
    async with connected(postgres.url) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await child.stop()
