"""All that an installation has written: every record of its topics, and every row of its tables as text."""

from typing import Any
from urllib.parse import quote

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient


async def topics_of(kafka: str, prefix: str) -> dict[str, bytes]:
    """Keys, headers and values, as they are, by topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        described = await admin.describe_topics([one for one in await admin.list_topics() if one.startswith(prefix)])
    finally:
        await admin.close()
    said: dict[str, list[bytes]] = {topic["topic"]: [] for topic in described}
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [
            TopicPartition(topic["topic"], one["partition"]) for topic in described for one in topic["partitions"]
        ]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(one) < ends[one] for one in places]):
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    headers = [value for _, value in record.headers if value]
                    said[place.topic] += [record.key or b"", record.value or b"", *headers]
    finally:
        await consumer.stop()
    return {topic: b"\n".join(each) for topic, each in said.items()}


async def tables_of(pool: Any) -> dict[str, bytes]:
    """Rows as Postgres writes them as text, by table."""
    tables = await pool.fetch(
        "select schemaname || '.' || tablename from pg_tables where schemaname in ('read', 'kept')"
    )
    found = {}
    for (table,) in tables:
        rows = await pool.fetch(f"select t::text from {table} t")
        found[table] = "\n".join(row[0] for row in rows).encode()
    return found


def spelled(secret: str) -> set[bytes]:
    """As it stands, as a URL has it, and as Postgres shows bytes."""
    return {secret.encode(), quote(secret, safe="").encode(), secret.encode().hex().encode()}


def found_in(places: dict[str, bytes], secrets: set[str]) -> list[tuple[str, str]]:
    """Where which of them stands."""
    return [
        (place, secret)
        for place, said in places.items()
        for secret in secrets
        if any(spelling in said for spelling in spelled(secret))
    ]
