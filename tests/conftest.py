"""Fixtures of every room. What they are made of is in tests/support."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.local_ports import free_port as a_free_port
from gateways.local_servers import Servers
from tests.support.servers import ServersOfTheRun, ask, create_database, drop_database, drop_topics

_TESTS = Path(__file__).parent
_OWNED = pytest.StashKey[ServersOfTheRun]()
#: Rooms whose single tests last longest, the longest first.
_LONGEST = ("faults", "house", "handlers", "gateways", "projections")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_OWNED] = ServersOfTheRun().open()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a worker of pytest-xdist where to ask for the servers."""
    node.workerinput["servers_port"] = node.config.stash[_OWNED].port


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first: one that began last would be waited for by every other worker."""
    order = {room: number for number, room in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(_TESTS).parts[0], len(order)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """No test leaves our loggers switched off: those after it would look for log lines in vain."""
    loggers = logging.root.manager.loggerDict.items()
    silent = [name for name, found in loggers if name.startswith("gateways.") and getattr(found, "disabled", False)]
    if silent or logging.root.manager.disable:
        logging.disable(logging.NOTSET)
        for name in silent:
            logging.getLogger(name).disabled = False
        raise AssertionError(f"{item.nodeid} switched off loggers: {silent[:3]}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if (owned := config.stash.get(_OWNED, None)) is not None:
        owned.close()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """Kafka and Postgres, shared by the whole run."""
    if hasattr(pytestconfig, "workerinput"):
        return ask(pytestconfig.workerinput["servers_port"])
    return pytestconfig.stash[_OWNED].get()


@pytest.fixture
def database(servers: Servers) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    name = f"test_{uuid.uuid4().hex}"
    yield create_database(servers, name)
    drop_database(servers, name)


@pytest.fixture
def topic_prefix(servers: Servers) -> Iterator[str]:
    """A beginning for names of topics and groups that no other test uses. What topics have it at the end are deleted."""
    prefix = f"t{uuid.uuid4().hex[:12]}."
    yield prefix
    drop_topics(servers, prefix)


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    return a_free_port()
