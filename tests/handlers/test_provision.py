"""Provisioning asserts what is live: drift and another history stop it, each with one sentence that names the remedy."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import SecretStr

import main
from gateways.log.provision import Misprovisioned
from gateways.settings import Settings
from schemas.topics import MAIL_RAW, MAILBOX_COMMANDS, MAILBOX_EVENTS, TOPICS


@pytest.fixture
async def settings(servers, database, topic_prefix, tmp_path) -> Settings:
    found = Settings(
        data=tmp_path, kafka=servers.kafka, database_url=SecretStr(database), topic_prefix=topic_prefix, partitions=1
    )
    await main.prepare(found)
    return found


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def live_setting(client: AIOKafkaAdminClient, topic: str, setting: str) -> str:
    """What the broker goes by: it hears of a change a moment after that was made."""
    (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((_, _, _, _, entries),) = answer.resources
    return {entry[0]: entry[1] for entry in entries}[setting]


async def live_partitions(client: AIOKafkaAdminClient, topic: str) -> int:
    """Of how many the broker knows; it hears of new ones a moment after they were made."""
    (found,) = await client.describe_topics([topic])
    return len(found["partitions"])


async def test_preparing_again_finds_everything_as_it_is_meant(settings):
    await main.prepare(settings)


async def test_a_kafka_that_was_emptied_beside_a_kept_postgres_is_another_history(settings):
    async with admin(settings) as client:
        await client.delete_topics([settings.topic_prefix + topic.name for topic in TOPICS])
        while any(name.startswith(settings.topic_prefix) for name in await client.list_topics()):
            pass
    with pytest.raises(
        Misprovisioned, match=r"Postgres remembers .* as log_.*, but Kafka has an empty log.*Restore the"
    ):
        await main.prepare(settings)


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        (MAILBOX_EVENTS.name, "retention.ms", "1000000"),
        (MAILBOX_EVENTS.name, "cleanup.policy", "compact"),
        (MAIL_RAW.name, "message.timestamp.type", "CreateTime"),
        (MAIL_RAW.name, "flush.messages", "100"),
        (MAILBOX_COMMANDS.name, "max.message.bytes", "1000"),
    ],
)
async def test_a_topic_that_has_drifted_from_what_is_promised_on_it_stops_it(settings, topic, setting, value):
    name = settings.topic_prefix + topic
    drifted = next(found for found in TOPICS if found.name == topic).settings(single_node=True) | {setting: value}
    async with admin(settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=drifted)])
        while await live_setting(client, name, setting) != value:
            pass
    sentence = f"The topic {name} has {setting}={value}, but acknowledgements are promised on"
    with pytest.raises(Misprovisioned, match=re.escape(sentence)):
        await main.prepare(settings)


async def test_a_topic_whose_partitions_were_raised_in_place_stops_it(settings):
    name = settings.topic_prefix + MAILBOX_COMMANDS.name
    async with admin(settings) as client:
        await client.create_partitions({name: NewPartitions(2)})
        while await live_partitions(client, name) != 2:
            pass
    with pytest.raises(Misprovisioned, match="has 2 partitions and not 1: keys would lie on other numbers"):
        await main.prepare(settings)
