"""Creating the topics, asserting that the live configuration is the one that was meant, and opening the log (DESIGN 3.1).

Drift stops a process with one sentence, and so does a log that is not the one Postgres remembers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from domain.outcomes import LogOpened
from gateways.log.event_log import EventLog
from gateways.log.kafka import client_settings
from gateways.stores.postgres import Pool, pooled
from schemas import events
from schemas.envelope import Source
from schemas.ids import new_id
from schemas.own_records import own_record
from schemas.topics import TOPICS, Topic

#: Partitions of each topic on one node and in a cluster; never raised in place, because keys would move.
SINGLE_NODE_PARTITIONS: Final = 1
CLUSTER_PARTITIONS: Final = 12
#: Looks, a tenth of a second apart, in which every broker has heard of a new topic.
KNOWN_LOOKS: Final = 100
#: Partitions that are looked at together: each takes half a second, in which its reader waits for records that may come.
OPENED_AT_ONCE: Final = 16

Known = TypeVar("Known")


class Misprovisioned(Exception):
    """The live log is not what this installation was made with; the sentence says what to do."""


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**client_settings(bootstrap))
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def provision(bootstrap: str, *, prefix: str = "", partitions: int | None = None) -> None:
    """Creates the topics that are missing, then asserts all of them. Raises Misprovisioned or KafkaError."""
    async with admin(bootstrap) as client:
        brokers = len((await client.describe_cluster())["brokers"])
        single = brokers < 3
        count = partitions or (SINGLE_NODE_PARTITIONS if single else CLUSTER_PARTITIONS)
        replication = 1 if single else 3
        there = set(await client.list_topics())
        wanted = [
            NewTopic(prefix + topic.name, count, replication, topic_configs=topic.settings(single_node=single))
            for topic in TOPICS
            if prefix + topic.name not in there
        ]
        if wanted:
            answer = await client.create_topics(wanted)
            for name, code, *_ in answer.topic_errors:  # type: ignore[attr-defined] # aiokafka types every answer as Response
                if code and not isinstance(for_code(code)(), TopicAlreadyExistsError):
                    raise Misprovisioned(f"Kafka would not create the topic {name}: {for_code(code).__name__}.")
        await _assert_live(client, TOPICS, prefix=prefix, single=single)
        await _assert_laid_out(client, TOPICS, prefix=prefix, partitions=partitions, replicas=replication)


async def _assert_live(client: AIOKafkaAdminClient, topics: Sequence[Topic], *, prefix: str, single: bool) -> None:
    live = await _until_known(lambda: _configurations(client, topics, prefix), len(topics))
    for topic in topics:
        for setting, meant in topic.settings(single_node=single).items():
            found = live.get(prefix + topic.name, {}).get(setting)
            if found != meant:
                raise Misprovisioned(
                    f"The topic {prefix + topic.name} has {setting}={found}, but acknowledgements are promised on {meant}. "
                    f"Set it back: kafka-configs.sh --alter --topic {prefix + topic.name} --add-config {setting}={meant}"
                )


async def _configurations(
    client: AIOKafkaAdminClient, topics: Sequence[Topic], prefix: str
) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, prefix + topic.name) for topic in topics]
    live: dict[str, dict[str, str]] = {}
    for answer in await client.describe_configs(resources):
        for code, _, _, name, entries in answer.resources:  # type: ignore[attr-defined] # as above
            if not code:
                live[name] = {entry[0]: entry[1] for entry in entries}
    return live


async def _layouts(client: AIOKafkaAdminClient, topics: Sequence[Topic], prefix: str) -> dict[str, list[Any]]:
    found = await client.describe_topics([prefix + topic.name for topic in topics])
    return {topic["topic"]: topic["partitions"] for topic in found if topic["partitions"]}


async def _until_known(look: Callable[[], Awaitable[dict[str, Known]]], count: int) -> dict[str, Known]:
    """A broker hears of a new topic a moment after it was made; what is missing for longer is missing."""
    known: dict[str, Known] = {}
    for _ in range(KNOWN_LOOKS):
        known = await look()
        if len(known) == count:
            break
        await asyncio.sleep(0.1)
    return known


async def _assert_laid_out(
    client: AIOKafkaAdminClient, topics: Sequence[Topic], *, prefix: str, partitions: int | None, replicas: int
) -> None:
    """Equal counts of partitions, so that a key lands on the same number everywhere; as many copies as promised."""
    found = await _until_known(lambda: _layouts(client, topics, prefix), len(topics))
    meant = partitions or len(next(iter(found.values()), ()))
    for topic in topics:
        layout = found.get(prefix + topic.name, [])
        if len(layout) != meant:
            raise Misprovisioned(
                f"The topic {prefix + topic.name} has {len(layout)} partitions and not {meant}: keys would lie on other "
                f"numbers than their decisions. Counts of partitions are never changed in place."
            )
        if any(len(partition["replicas"]) < replicas for partition in layout):
            raise Misprovisioned(
                f"The topic {prefix + topic.name} has partitions with fewer than {replicas} replicas, but an "
                f"acknowledgement is promised to mean more. Reassign them: kafka-reassign-partitions.sh"
            )


async def one_history(bootstrap: str, database_url: str, *, prefix: str = "") -> None:
    """Opens the log where it is new; raises Misprovisioned where Kafka and Postgres are not from one history."""
    log = EventLog(bootstrap, prefix=prefix)
    try:
        async with pooled(database_url, size=2) as pool:
            await open_log(log, pool)
    finally:
        await log.close()


async def open_log(log: EventLog, pool: Pool) -> None:
    """Makes sure every truth partition begins with `log.opened`, and that it is the log Postgres remembers.

    Raises Misprovisioned where two histories would be mixed.
    """
    room = asyncio.Semaphore(OPENED_AT_ONCE)
    truths = [topic.name for topic in TOPICS if topic.truth]
    places = [(topic, partition) for topic in truths for partition in await log.partitions(topic)]
    looks = await asyncio.gather(*[_open(log, pool, room, *place) for place in places], return_exceptions=True)
    for failed in (look for look in looks if look is not None):
        raise failed


async def _open(log: EventLog, pool: Pool, room: asyncio.Semaphore, topic: str, partition: int) -> None:
    async with room:
        found = await _identity(log, topic, partition)
        remembered = await pool.fetchval("select log from logs where topic = $1 and partition = $2", topic, partition)
        if found is None and remembered is None:
            found = await _begin(log, topic, partition)
        if remembered is not None and found != remembered:
            raise Misprovisioned(
                f"Postgres remembers {topic}/{partition} as {remembered}, but Kafka has {found or 'an empty log'}: "
                f"they are not from one history. Restore the Kafka data that belongs to this database, or start with an "
                f"empty database to build it from this log."
            )
        await _not_shorter_than_remembered(log, pool, topic, partition)
        await pool.execute(
            "insert into logs (topic, partition, log) values ($1, $2, $3) on conflict do nothing",
            topic,
            partition,
            found,
        )


async def _identity(log: EventLog, topic: str, partition: int) -> str | None:
    start, end = await log.bounds(topic, partition)
    if start == end:
        return None
    async for records in log.read_on(topic, partition, start):
        first = records[0]
        opened = events.LOG.decode("log.opened.v1", first.value)
        if first.void or not isinstance(opened, LogOpened):
            raise Misprovisioned(
                f"{topic}/{partition} does not begin with log.opened: it is not a log of Postledger's."
            )
        return opened.log
    return None


async def _begin(log: EventLog, topic: str, partition: int) -> str:
    """Whoever is first opens the log; a second one's record lands at offset 1 and is void."""
    opened = LogOpened(new_id("log"))
    batch = log.batch()
    batch.add([own_record(opened.log, opened, datetime.now(UTC), position=0, source=Source(topic, partition, 0))])
    if await log.append(topic, partition, batch) == 0:
        return opened.log
    found = await _identity(log, topic, partition)
    assert found is not None
    return found


async def _not_shorter_than_remembered(log: EventLog, pool: Pool, topic: str, partition: int) -> None:
    """A stale leader may look short for a while: only what stays so is a loss."""
    remembered = await pool.fetchval(
        "select max(position) from checkpoints where topic = $1 and partition = $2", topic, partition
    )
    for _ in range(30):
        _, end = await log.bounds(topic, partition)
        if (remembered or 0) <= end:
            return
        await asyncio.sleep(1)
    raise Misprovisioned(
        f"{topic}/{partition} ends at {end}, but the tables were folded up to {remembered}: records are missing. Restore the "
        f"Kafka data that belongs to this database, or start with an empty database to build it from this log."
    )


async def wait_for_broker(bootstrap: str, *, seconds: float = 30) -> None:
    """Returns once a broker answers; raises KafkaError."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with admin(bootstrap):
                return
        except (KafkaError, OSError):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)
