"""One Kafka and one Postgres for a whole test run, started by the first test that asks.

The process that began the run owns them: with pytest-xdist that is the controller, and workers ask it over a loopback
socket whose port they find in their `workerinput`. So a run of pure tests starts nothing, a run on two workers starts
once, and when the run is killed its servers end with it. Servers named by POSTLEDGER_KAFKA and POSTLEDGER_DATABASE_URL
are used instead where they are set.
"""

import asyncio
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from gateways.local_servers import LocalServers, Servers

Answer = TypeVar("Answer")


class ServersOfTheRun:
    """Owns the servers of a test run and hands their addresses out, to this process and to its workers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers of the run", daemon=True)
        self._data = Path(tempfile.mkdtemp(prefix="postledger-tests-"))
        self._local = LocalServers(self._data)
        self._servers: Servers | None = None
        self._starting = asyncio.Lock()
        self.port = 0

    def open(self) -> Self:
        """Begin to listen for workers; nothing is started yet."""
        self._thread.start()
        self.port = self._run(self._listen())
        return self

    def get(self) -> Servers:
        """The servers, started by the first caller."""
        return self._run(self._get())

    def close(self) -> None:
        """Stop what was started and remove its data."""
        if self._servers is not None and _named_by_environment() is None:
            self._run(self._local.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._data, ignore_errors=True)

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(100)

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _get(self) -> Servers:
        async with self._starting:
            if self._servers is None:
                self._servers = _named_by_environment() or await self._local.__aenter__()
        return self._servers

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = asdict(await self._get())
        except Exception as error:  # noqa: BLE001 - told to the worker, whose test fails with it
            answer = {"error": str(error)}
        writer.write(json.dumps(answer).encode())
        writer.close()


def ask(port: int) -> Servers:
    """The servers of the run, asked of its owner by a worker; raises RuntimeError when they cannot start."""
    with socket.create_connection(("127.0.0.1", port), timeout=100) as owner:
        answer = json.loads(owner.makefile("rb").read())
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return Servers(**answer)


def create_database(servers: Servers, name: str, *, template: str = "template0") -> str:
    """Make a database named `name`, a copy of `template` to which nobody is connected; its URL."""
    _statement(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return servers.database_url.rpartition("/")[0] + f"/{name}"


def drop_database(servers: Servers, name: str) -> None:
    """Drop it, whoever is still connected, and the topics whose names begin with it and a point."""
    _statement(servers.database_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    drop_topics(servers, f"{name}.")


def drop_topics(servers: Servers, prefix: str) -> None:
    """Delete topics whose names begin with `prefix`: a broker with thousands of them no longer answers in time."""

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
        await admin.start()
        try:
            if ours := [name for name in await admin.list_topics() if name.startswith(prefix)]:
                await admin.delete_topics(ours)
        finally:
            await admin.close()

    _by_itself(delete())


def _statement(url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _by_itself(execute())


def _by_itself(work: Coroutine[Any, Any, None]) -> None:
    """In a thread of its own, so that fixtures work in synchronous and asynchronous tests alike."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result(60)


def _named_by_environment() -> Servers | None:
    kafka, database_url = os.environ.get("POSTLEDGER_KAFKA"), os.environ.get("POSTLEDGER_DATABASE_URL")
    if bool(kafka) != bool(database_url):
        raise RuntimeError("Set both of POSTLEDGER_KAFKA and POSTLEDGER_DATABASE_URL, or neither.")
    return Servers(kafka, database_url) if kafka and database_url else None
