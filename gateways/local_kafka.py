"""A real Apache Kafka on this machine: one node in KRaft mode, broker and controller in one process.

What makes it start in a second instead of eight: the JVM compiles with C1 only and collects serially; the formatted
metadata folder is copied from a template that is made once; and the JVM's start-up work (loaded, linked classes) is read
from an *AOT cache*, which `train` makes once per Java, class path and flags. Without that cache, or with a Java before
25, everything works the same, only slower.

Durability is a property of topics (`flush.messages=1`, given by provisioning), not of this broker.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from gateways import kafka_jars
from gateways.local_children import CannotStart, Child, in_thread
from gateways.local_ports import free_port

_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xms32m",
    "-Xmx256m",
    "-XX:+ExitOnOutOfMemoryError",  # a broker without memory is restarted, not left half alive
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)
# The JVM's own warnings are about the AOT cache falling back, which is nobody's business.
_QUIET = ("-Xlog:disable", "-Xlog:all=error:stderr")
_CLUSTER_ID = "UG9zdGxlZGdlckxvY2FsMQ"  # 16 bytes in base64: "PostledgerLocal1"
_READY_SECONDS = 60

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={logs}
auto.create.topics.enable=false
message.max.bytes=2097152
num.network.threads=2
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=1
# A broker that was killed is let in again only when the session of its former life is over (9 s by default).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.coordinator.threads=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=2000
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.threads=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Its default, 128 MB, is taken from the heap at start, for a cleaner that has one small topic to clean.
log.cleaner.dedupe.buffer.size=4194304
"""


class LocalKafka:
    """The broker of one folder: `folder/log` holds its data, `folder/server.log` what it said."""

    def __init__(self, folder: Path, port: int, cache: Path) -> None:
        self.folder = folder
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.log = folder / "server.log"
        self._cache = cache

    async def start(self, lock: int) -> Child:
        """Start the broker and wait until it answers; raises CannotStart."""
        java = kafka_jars.java()
        class_path = await asyncio.to_thread(kafka_jars.class_path, self._cache)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "log" / "meta.properties").is_file():
            await in_thread(self.prepare, java, class_path)
        aot = _aot_cache(java, class_path, self._cache)
        flags = (f"-XX:AOTCache={aot}",) if aot and aot.is_file() else ()
        child = await self._spawn(java, class_path, flags, lock)
        try:
            await child.until(self._answers, seconds=_READY_SECONDS)
        except BaseException:
            await child.stop(seconds=3)
            raise
        return child

    def prepare(self, java: Path, class_path: str) -> None:
        """Give the broker a formatted, empty data folder; raises CannotStart."""
        _copy_template(_template(java, class_path, self._cache), self.folder / "log")

    def properties(self) -> str:
        """The broker's configuration; written anew at every start, with whatever port is free for the controller."""
        return _PROPERTIES.format(port=self.port, controller_port=free_port(), logs=_escaped(self.folder / "log"))

    async def train(self, lock: int) -> bool:
        """Make the AOT cache with a throw-away broker, at the lowest priority; False when it is there or cannot be.

        Takes some ten seconds and 200 MB. Only one process of a cache folder trains at a time. Never raises
        CannotStart: a start without the cache is only slower.
        """
        try:
            java = kafka_jars.java()
            class_path = await asyncio.to_thread(kafka_jars.class_path, self._cache)
            aot = _aot_cache(java, class_path, self._cache)
            if aot is None or aot.exists():
                return False
            with (self._cache / "training.lock").open("w") as training, contextlib.suppress(BlockingIOError):
                fcntl.flock(training, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left_by_the_killed in self._cache.glob("training-*"):
                    shutil.rmtree(left_by_the_killed, ignore_errors=True)
                with tempfile.TemporaryDirectory(dir=self._cache, prefix="training-") as temporary:
                    return await self._train_into(aot, java, class_path, Path(temporary), lock)
        except (CannotStart, OSError):
            return False
        return False

    async def _train_into(self, aot: Path, java: Path, class_path: str, scratch: Path, lock: int) -> bool:
        learner = LocalKafka(scratch / "kafka", free_port(), self._cache)
        await in_thread(learner.prepare, java, class_path)
        coming = scratch / aot.name
        child = await learner._spawn(java, class_path, (f"-XX:AOTCacheOutput={coming}",), lock, niceness=19)
        try:
            await child.until(learner._answers, seconds=4 * _READY_SECONDS)
            await child.stop(seconds=120)  # it writes the cache while it ends
        except BaseException:
            await child.stop(seconds=0)
            raise
        return _moved(coming, aot)

    async def _spawn(
        self, java: Path, class_path: str, flags: tuple[str, ...], lock: int, *, niceness: int = 0
    ) -> Child:
        properties = self.folder / "server.properties"
        properties.write_text(self.properties())
        politely = ("nice", "-n", str(niceness)) if niceness else ()
        command = (*politely, java, *_FLAGS, *_QUIET, *flags, "-cp", class_path, "kafka.Kafka", properties)
        return await Child.spawn(
            "Kafka", command, log=self.log, stop_signal=signal.SIGTERM, guard_signal="TERM", lock=lock
        )

    def _answers(self) -> bool:
        """Whether the client port is open, which the broker does last."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        except OSError:
            return False
        return True


def _template(java: Path, class_path: str, cache: Path) -> Path:
    """A formatted, empty metadata folder, made once per cache folder by Kafka's own tool."""
    template = cache / f"formatted-{kafka_jars.VERSION}"
    if template.is_dir():
        return template
    with tempfile.TemporaryDirectory(dir=cache, prefix="formatting-") as temporary:
        coming, properties = Path(temporary, "log"), Path(temporary, "server.properties")
        properties.write_text(_PROPERTIES.format(port=1, controller_port=2, logs=_escaped(coming)))
        tool = (java, *_FLAGS, *_QUIET, "-cp", class_path, "kafka.tools.StorageTool")
        done = subprocess.run(  # noqa: S603 - Kafka's own tool, with arguments of ours
            (*tool, "format", "-t", _CLUSTER_ID, "-c", properties), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CannotStart(f"Kafka's data folder cannot be prepared: {(done.stderr or done.stdout).strip()[-300:]}")
        _moved(coming, template)
    return template


def _moved(coming: Path, target: Path) -> bool:
    """Put what was made beside into its place; whether it is there, for another process may have been faster."""
    with contextlib.suppress(OSError):
        coming.rename(target)
    return target.exists()


def _copy_template(template: Path, target: Path) -> None:
    """Copy whole or not at all, and onto the disk: a broker that lost these files would not find its topics again."""
    coming = target.with_name(target.name + ".coming")
    shutil.rmtree(coming, ignore_errors=True)
    coming.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(template, coming)
    shutil.rmtree(target, ignore_errors=True)
    for path in (*coming.rglob("*"), coming):
        _fsync(path)
    coming.rename(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aot_cache(java: Path, class_path: str, cache: Path) -> Path | None:
    """Where the AOT cache of this Java, class path and set of flags belongs; None before Java 25, which has none.

    Java itself refuses a cache that does not fit; the name only keeps several of them apart.
    """
    release = java.resolve().parents[1] / "release"
    if kafka_jars.java_version(java) < 25 or not release.is_file():
        return None
    key = hashlib.sha256("\0".join((str(java), release.read_text(), class_path, *_FLAGS)).encode()).hexdigest()
    return cache / f"kafka-{key[:16]}.aot"


def _escaped(path: Path) -> str:
    """A path as a value of a Java properties file, which is read as ISO 8859-1; raises CannotStart for one with a comma."""
    if "," in str(path):
        raise CannotStart(f"Kafka keeps nothing in a folder with a comma in its name: choose another than {path}.")
    units = str(path).replace("\\", "\\\\").encode("utf-16-be")
    return "".join(
        chr(unit) if unit < 128 else f"\\u{unit:04x}"
        for unit in (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    )
