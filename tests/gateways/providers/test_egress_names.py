"""Names whose name servers never answer hold up nobody else, whoever asks for them."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways.providers.egress import Egress

ROOT = Path(__file__).parents[3]
GOOD = "mail.example.org"
SECONDS = 2.0


class Names:
    """This machine's resolver: names that begin with `silent` are never answered, before the test has ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, *words: Any, **more: Any) -> Any:
        self.asked.append(host)
        if host.startswith("silent"):
            self.ended.wait()
        if host.startswith("nowhere"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    @property
    def hanging(self) -> int:
        return len([host for host in self.asked if host.startswith("silent")])


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.ended.set()


@pytest.fixture
def egress() -> Egress:
    return Egress(allow_private=True)


async def asks(egress: Egress, names: Names, hosts: list[str], hanging: int) -> list[asyncio.Task[Any]]:
    """Asks for these, until so many lookups hang."""
    tasks = [asyncio.create_task(egress.addresses(host, 993)) for host in hosts]
    async with asyncio.timeout(5):
        while names.hanging < hanging:
            await asyncio.sleep(0.001)
    return tasks


async def ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_dozen_silent_names_hold_up_no_other_name_and_no_other_work(egress: Egress, names: Names) -> None:
    asked = [asyncio.create_task(egress.addresses(f"silent.tenant-{n}.example", 993)) for n in range(12)]
    await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS):
        assert await egress.addresses(GOOD, 993) == [(socket.AF_INET, ("127.0.0.1", 993))]
        assert await asyncio.to_thread(str, 1) == "1"
    await ended(asked)


@pytest.mark.parametrize("domain", ["tenant.co.uk", "abc.io", "tenant.example"])
async def test_of_one_domain_only_a_few_are_looked_up_at_once(egress: Egress, names: Names, domain: str) -> None:
    """Whoever owns it can make as many names as they like."""
    asked = await asks(egress, names, [f"silent-{n}.{domain}" for n in range(200)], 8)
    async with asyncio.timeout(SECONDS):
        assert await egress.addresses(GOOD, 993)
        assert await egress.addresses("mail.another.co.uk", 993)
    assert names.hanging == 8
    await ended(asked)


async def test_a_name_that_many_ask_for_is_looked_up_once(egress: Egress, names: Names) -> None:
    asked = await asks(egress, names, ["silent.example.net"] * 200, 1)
    asked[0].cancel()
    await asyncio.gather(asked[0], return_exceptions=True)
    names.ended.set()
    async with asyncio.timeout(SECONDS):
        found = await asyncio.gather(*asked[1:])
    assert {str(each) for each in found} == {str([(socket.AF_INET, ("127.0.0.1", 993))])}
    assert names.asked == ["silent.example.net"]
    assert await egress.addresses("silent.example.net", 465), "and anew after its end"
    assert len(names.asked) == 2


async def test_a_silent_name_is_unreachable_after_its_time(
    egress: Egress, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that does not exist is; nobody else's time-out is taken for ours."""
    monkeypatch.setattr("gateways.providers.resolver.LOOKUP_SECONDS", 0.05)
    async with asyncio.timeout(SECONDS):
        for host in ("silent.example.net", "silent.example.net", "nowhere.example.net"):
            with pytest.raises(socket.gaierror):
                await egress.connect(host, 993)
    assert names.asked == ["silent.example.net", "nowhere.example.net"]


def test_the_end_of_the_process_waits_for_no_name() -> None:
    script = (
        "import asyncio, socket, threading\n"
        "from gateways.providers.egress import Egress\n"
        "asked = threading.Event()\n"
        "def never(*words, **more):\n    asked.set()\n    threading.Event().wait()\n"
        "socket.getaddrinfo = never\n"
        "async def main():\n"
        "    task = asyncio.create_task(Egress().addresses('mail.example.org', 993))\n"
        "    await asyncio.to_thread(asked.wait)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=ROOT, timeout=20, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
