"""Benchmarks run only when they are asked for by `-m bench`, one after the other, on a fast event loop."""

import resource

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "bench" in (config.option.markexpr or ""):
        return
    measuring = [item for item in items if item.get_closest_marker("bench")]
    config.hook.pytest_deselected(items=measuring)
    items[:] = [item for item in items if not item.get_closest_marker("bench")]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session", autouse=True)
def many_files() -> None:
    """Thousands of connections need as many descriptors, here and in what is started from here."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
