"""What the embedded Kafka is made of is what we know, and a missing or spoilt cache only costs time."""

import os
import shutil
from pathlib import Path

import pytest

from gateways import kafka_jars
from gateways.local_children import CannotStart
from gateways.local_kafka import LocalKafka, _aot_cache
from gateways.local_ports import free_port
from gateways.local_servers import CACHE


@pytest.fixture(scope="session")
def jars() -> list[Path]:
    return [Path(jar) for jar in kafka_jars.class_path(CACHE.expanduser()).split(os.pathsep)]


def test_the_list_names_kafka_and_all_it_needs():
    digests = kafka_jars._digests()
    assert len(digests) == 45
    assert f"kafka_2.13-{kafka_jars.VERSION}.jar" in digests


def test_jars_that_are_those_we_know_are_copied_and_never_fetched_again(jars, tmp_path):
    kafka_jars.fill(tmp_path / f"kafka-{kafka_jars.VERSION}", jars)
    assert len(kafka_jars.class_path(tmp_path).split(os.pathsep)) == 45


def test_a_jar_with_other_bytes_is_refused_and_nothing_is_left(jars, tmp_path):
    spoilt = Path(shutil.copy(jars[0], tmp_path))
    with spoilt.open("ab") as file:
        file.write(b"x")
    with pytest.raises(CannotStart, match=f"{spoilt.name} is not the file"):
        kafka_jars.fill(tmp_path / "cache/kafka", [spoilt, *jars[1:]])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_jar_nobody_knows_is_refused(jars, tmp_path):
    stranger = tmp_path / "stranger.jar"
    stranger.touch()
    with pytest.raises(CannotStart, match=r"stranger\.jar is not among the jars"):
        kafka_jars.fill(tmp_path / "cache/kafka", [*jars, stranger])


def test_a_jar_that_does_not_come_is_missed(jars, tmp_path):
    with pytest.raises(CannotStart, match=f"{jars[0].name} was not found"):
        kafka_jars.fill(tmp_path / "cache/kafka", jars[1:])


def test_a_jar_deleted_from_the_cache_is_named(jars, tmp_path):
    kafka_jars.fill(tmp_path / f"kafka-{kafka_jars.VERSION}", jars)
    (tmp_path / f"kafka-{kafka_jars.VERSION}" / jars[3].name).unlink()
    with pytest.raises(CannotStart, match=f"{jars[3].name} is missing"):
        kafka_jars.class_path(tmp_path)


async def test_a_spoilt_aot_cache_is_passed_over_in_silence(jars, tmp_path):
    shutil.copytree(jars[0].parent, tmp_path / "cache" / jars[0].parent.name, copy_function=os.link)
    aot = _aot_cache(kafka_jars.java(), kafka_jars.class_path(tmp_path / "cache"), tmp_path / "cache")
    if aot is None:
        pytest.skip("this Java has no AOT cache")
    aot.write_bytes(b"not a cache")
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    child = await LocalKafka(tmp_path / "kafka", free_port(), tmp_path / "cache").start(lock)
    assert child.alive
    await child.stop()
    os.close(lock)


@pytest.mark.parametrize("name", ["Téléchargements", "данные 🗂", "with space and \\"])
async def test_a_folder_may_be_called_anything(name, tmp_path):
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    child = await LocalKafka(tmp_path / name, free_port(), CACHE.expanduser()).start(lock)
    assert child.alive
    assert (tmp_path / name / "log" / "__cluster_metadata-0").is_dir()
    await child.stop()
    os.close(lock)


async def test_a_comma_in_a_folder_is_said_to_be_one_too_many(tmp_path):
    with pytest.raises(CannotStart, match="comma"):
        await LocalKafka(tmp_path / "a,b", free_port(), CACHE.expanduser()).start(os.open(os.devnull, os.O_RDWR))
