"""Three real brokers that replicate to each other and can be killed, frozen and started again one by one.

Each is broker and controller at once, so a killed leader may take the controller with it, and any one of the three may
be missing. Settings are those of a cluster as DESIGN wants it: three replicas, two in sync, no unclean election.

    async with Cluster(tmp_path) as cluster:
        leader = await cluster.leader("marks")
        await cluster.kill(leader)

One can also be *isolated*: cut off from its peers, in both directions, while clients still reach it. For that, brokers speak
to each other, as replicas and as controllers, through one proxy for each ordered pair and listener. They advertise names to
each other (`kafka-2`), and every JVM has a hosts file of its own (`jdk.net.hosts.file`) in which a peer's name is the address
of the proxy between just those two, `127.1.reader.peer`, with the port that the peer listens on. So whoever tells a broker
where a peer is, by configuration, metadata or an election, it always goes through the proxy. Clients have a listener of their
own without any. (Addresses other than 127.0.0.1 on the loopback are there by themselves on Linux only.)
"""

import asyncio
import base64
import itertools
import os
import re
import signal
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient

from gateways.local_children import Child
from gateways.local_kafka import LocalKafka
from gateways.local_ports import free_port
from gateways.local_servers import CACHE
from tests.support.tcp_proxies import TcpProxies, TcpProxy

NODES = (1, 2, 3)
LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class PeerPorts:
    """Where a broker is reached by its peers."""

    replication: int
    controller: int


def _name(number: int) -> str:
    """What a broker is called by its peers."""
    return f"kafka-{number}"


def _between(reader: int, peer: int) -> str:
    """The loopback address under which a broker reaches a peer: that of the proxies between just those two."""
    return f"127.1.{reader}.{peer}"


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
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,REPLICATION:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "REPLICATION",
}


class Node(LocalKafka):
    """One broker of a cluster; `peers` are the ports on which every one of them, this one too, is reached by the others."""

    def __init__(self, number: int, folder: Path, port: int, peers: dict[int, "PeerPorts"]) -> None:
        super().__init__(folder, port, CACHE.expanduser())
        self.number = number
        self._peers = peers

    def properties(self) -> str:
        ports = self._peers[self.number]
        own = {
            "node.id": self.number,
            "listeners": f"PLAINTEXT://{self.address},REPLICATION://{LOCAL}:{ports.replication},"
            f"CONTROLLER://{LOCAL}:{ports.controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address},REPLICATION://{_name(self.number)}:{ports.replication},"
            f"CONTROLLER://{_name(self.number)}:{ports.controller}",
            "controller.quorum.voters": ",".join(
                f"{peer}@{_name(peer)}:{ports.controller}" for peer, ports in self._peers.items()
            ),
        }
        settings = dict(line.split("=", 1) for line in super().properties().splitlines() if not line.startswith("#"))
        return "".join(f"{name}={value}\n" for name, value in (settings | _REPLICATED | own).items())

    @property
    def _hosts(self) -> str:
        """What this broker takes every name for; it asks nobody else."""
        peers = {_name(peer): _between(self.number, peer) for peer in NODES if peer != self.number}
        names = {"localhost": LOCAL, socket.gethostname(): LOCAL, _name(self.number): LOCAL} | peers
        return "".join(f"{address} {name}\n" for name, address in names.items())

    async def _spawn(
        self, java: Path, class_path: str, flags: tuple[str, ...], lock: int, *, niceness: int = 0
    ) -> Child:
        hosts = self.folder / "hosts"
        hosts.write_text(self._hosts)
        return await super()._spawn(
            java, class_path, (*flags, f"-Djdk.net.hosts.file={hosts}"), lock, niceness=niceness
        )

    def prepare(self, java: Path, class_path: str) -> None:
        super().prepare(java, class_path)
        meta = self.folder / "log" / "meta.properties"
        directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        text = re.sub(r"node\.id=.*", f"node.id={self.number}", meta.read_text())
        meta.write_text(re.sub(r"directory\.id=.*", f"directory.id={directory}", text))


class Cluster:
    """Three brokers with their data under `folder`; entering raises CannotStart."""

    def __init__(self, folder: Path) -> None:
        self._peers = {number: PeerPorts(free_port(), free_port()) for number in NODES}
        self._nodes = {n: Node(n, folder / _name(n), free_port(), self._peers) for n in NODES}
        self._proxies = TcpProxies()
        self._between: dict[tuple[int, int], list[TcpProxy]] = {}
        self._children: dict[int, Child] = {}
        self._isolated: set[int] = set()
        self._lock = os.open(folder, os.O_RDONLY)

    @property
    def kafka(self) -> str:
        """All three as a bootstrap list."""
        return ",".join(node.address for node in self._nodes.values())

    def address(self, number: int) -> str:
        """One of them, as host:port."""
        return self._nodes[number].address

    async def __aenter__(self) -> Self:
        self._proxies.__enter__()
        try:
            self._open_proxies()
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
        self._proxies.__exit__(kind, error, trace)
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

    def isolate(self, number: int) -> None:
        """Cut a broker off from its peers, in both directions, at once; clients still reach it."""
        self._isolated.add(number)
        for pair, proxies in self._between.items():
            for proxy in proxies if number in pair else ():
                proxy.cut()

    def heal(self, number: int) -> None:
        """Let an isolated broker and its peers reach each other again."""
        self._isolated.discard(number)
        for pair, proxies in self._between.items():
            for proxy in proxies if not self._isolated.intersection(pair) else ():
                proxy.mend()

    async def leader(self, topic: str, partition: int = 0) -> int:
        """The number of the broker that leads a partition; −1 while none does."""
        return (await self._described(topic, partition))["leader"]

    async def another_leader(self, topic: str, partition: int = 0, *, than: int, seconds: float = 30) -> int:
        """Wait until a partition is led by somebody else; who that is."""
        async with asyncio.timeout(seconds):
            while (leader := await self.leader(topic, partition)) in (-1, than):
                await asyncio.sleep(0.1)
        return leader

    async def in_sync(self, topic: str, partition: int = 0, *, seconds: float = 30) -> None:
        """Wait until all three replicas of a partition are in sync, so that any one may be lost next."""
        async with asyncio.timeout(seconds):
            while len((await self._described(topic, partition))["isr"]) < len(NODES):
                await asyncio.sleep(0.1)

    def _open_proxies(self) -> None:
        for reader, peer in itertools.permutations(NODES, 2):
            ports = self._peers[peer]
            self._between[reader, peer] = [
                self._proxies.open((_between(reader, peer), port), (LOCAL, port))
                for port in (ports.replication, ports.controller)
            ]

    async def _described(self, topic: str, partition: int) -> dict[str, Any]:
        informed = [self.address(number) for number in NODES if number not in self._isolated]
        admin = AIOKafkaAdminClient(bootstrap_servers=informed, request_timeout_ms=3000)
        await admin.start()
        try:
            (described,) = await admin.describe_topics([topic])
        finally:
            await admin.close()
        return next(told for told in described["partitions"] if told["partition"] == partition)
