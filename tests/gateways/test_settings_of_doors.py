"""What operators may set at the doors: whom to believe, and how much to take from one."""

import smtplib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from gateways.local_ports import free_port as a_free_port
from gateways.local_servers import Servers
from tests.support.main_words import Installed
from tests.support.servers import create_database, drop_database


@pytest.fixture(scope="module")
def here(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    name = f"test_{uuid.uuid4().hex}"
    installation = Installed.at(
        tmp_path_factory.mktemp("data"),
        kafka=servers.kafka,
        database_url=create_database(servers, name),
        topic_prefix=f"{name}.",
        http=f"127.0.0.1:{a_free_port()}",
        smtp=f"127.0.0.1:{a_free_port()}",
        proxies="127.0.0.1",
        creations_per_minute="2",
        requests_per_second="7",
        smtp_connections_per_client="3",
    )
    assert installation.says("provision").err == ""
    with installation.running("work", "project", "http", "smtp", name="all"):
        yield installation
    drop_database(servers, name)


def opened(here: Installed, origin: str | None) -> int:
    headers = {"X-Forwarded-For": origin} if origin else {}
    url = f"http://{here.environment['POSTLEDGER_HTTP']}/api/v1/mailboxes"
    return requests.post(url, headers=headers, timeout=10).status_code


def test_behind_a_proxy_each_address_of_origin_has_an_allowance_of_its_own(here: Installed) -> None:
    assert [opened(here, f"203.0.113.{number}") for number in range(5)] == [201] * 5
    assert [opened(here, "198.51.100.1") for _ in range(3)] == [201, 201, 429]
    assert opened(here, "198.51.100.2") == 201


def test_what_is_set_is_what_the_limits_say(here: Installed) -> None:
    told = requests.get(f"http://{here.environment['POSTLEDGER_HTTP']}/v1/limits", timeout=10).json()
    assert [told["rates"][name]["most"] for name in ("creation", "requests")] == [2, 7]


def test_one_client_has_so_many_connections_and_no_more(here: Installed) -> None:
    host, _, port = here.environment["POSTLEDGER_SMTP"].rpartition(":")
    clients = [smtplib.SMTP(host, int(port), timeout=10) for _ in range(3)]
    with pytest.raises(smtplib.SMTPConnectError) as refused:
        smtplib.SMTP(host, int(port), timeout=10)
    assert refused.value.smtp_code == 421
    for client in clients:
        client.quit()


@pytest.mark.parametrize(("name", "value"), [("creations_per_minute", "0"), ("smtp_connections_per_client", "many")])
def test_a_limit_that_makes_no_sense_is_named(tmp_path: Path, name: str, value: str) -> None:
    said = Installed.at(tmp_path, **{name: value}).says("settings")
    assert said.code == 2
    assert f"POSTLEDGER_{name.upper()}" in said.err
