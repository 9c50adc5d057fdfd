"""Three real brokers that replicate to each other and can be killed, frozen and started again one by one.

Each is broker and controller at once, so a killed leader may take the controller with it, and any one of the three may
be missing. Settings are those of a cluster as DESIGN wants it: three replicas, two in sync, no unclean election.

    async with Cluster(tmp_path) as cluster:
        leader = await cluster.leader("marks")
        await cluster.kill(leader)
"""

import asyncio
import base64
import os
import re
import signal
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient

from gateways.local_children import Child
from gateways.local_kafka import LocalKafka
from gateways.local_ports import free_port
from gateways.local_servers import CACHE

NODES = (1, 2, 3)

_REPLICATED = {
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "unclean.leader.election.enable": "false",
    "offsets.topic.replication.factor": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    "share.coordinator.state.topic.replication.factor": 3,
    "share.coordinator.state.topic.min.isr": 2,
    "broker.session.timeout.ms": 3000,
    "replica.lag.time.max.ms": 10000,
}


class Node(LocalKafka):
    """One broker of a cluster; `controllers` maps every node's number to the port of its controller."""

    def __init__(self, number: int, folder: Path, port: int, controllers: dict[int, int]) -> None:
        super().__init__(folder, port, CACHE.expanduser())
        self.number = number
        self._controllers = controllers

    def properties(self) -> str:
        own = {
            "node.id": self.number,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self._controllers[self.number]}",
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, port in self._controllers.items()),
        }
        settings = dict(line.split("=", 1) for line in super().properties().splitlines() if not line.startswith("#"))
        return "".join(f"{name}={value}\n" for name, value in (settings | _REPLICATED | own).items())

    def prepare(self, java: Path, class_path: str) -> None:
        super().prepare(java, class_path)
        meta = self.folder / "log" / "meta.properties"
        directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        text = re.sub(r"node\.id=.*", f"node.id={self.number}", meta.read_text())
        meta.write_text(re.sub(r"directory\.id=.*", f"directory.id={directory}", text))


class Cluster:
    """Three brokers with their data under `folder`; entering raises CannotStart."""

    def __init__(self, folder: Path) -> None:
        controllers = {number: free_port() for number in NODES}
        self._nodes = {n: Node(n, folder / f"kafka-{n}", free_port(), controllers) for n in NODES}
        self._children: dict[int, Child] = {}
        self._lock = os.open(folder, os.O_RDONLY)

    @property
    def kafka(self) -> str:
        """All three as a bootstrap list."""
        return ",".join(node.address for node in self._nodes.values())

    def address(self, number: int) -> str:
        """One of them, as host:port."""
        return self._nodes[number].address

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(self.start(number) for number in NODES))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in list(self._children):
            await self.kill(number)
        os.close(self._lock)

    async def start(self, number: int) -> None:
        """Start a broker that does not run, on its old port with its old data, and wait until it answers."""
        self._children[number] = await self._nodes[number].start(self._lock)

    async def kill(self, number: int) -> None:
        """End a broker without a word, as `kill -9` does."""
        child = self._children.pop(number)
        os.kill(child.process.pid, signal.SIGKILL)
        await child.ended()

    def freeze(self, number: int) -> None:
        """Stop a broker's time: its connections stay open and nobody answers."""
        os.kill(self._children[number].process.pid, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let a frozen broker go on."""
        os.kill(self._children[number].process.pid, signal.SIGCONT)

    async def leader(self, topic: str, partition: int = 0) -> int:
        """The number of the broker that leads a partition; −1 while none does."""
        return (await self._described(topic, partition))["leader"]

    async def in_sync(self, topic: str, partition: int = 0, *, seconds: float = 30) -> None:
        """Wait until all three replicas of a partition are in sync, so that any one may be lost next."""
        async with asyncio.timeout(seconds):
            while len((await self._described(topic, partition))["isr"]) < len(NODES):
                await asyncio.sleep(0.1)

    async def _described(self, topic: str, partition: int) -> dict[str, Any]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka, request_timeout_ms=3000)
        await admin.start()
        try:
            (described,) = await admin.describe_topics([topic])
        finally:
            await admin.close()
        return next(told for told in described["partitions"] if told["partition"] == partition)
