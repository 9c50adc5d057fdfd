"""What the door of the log leaves behind of a large mail that it could not promise to keep."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest

from gateways.local_servers import Servers
from gateways.log import command_log
from gateways.log.command_log import CommandLog
from gateways.log.provision import provision
from gateways.mail_in import log_door
from gateways.mail_in.door import Envelope, Inbox, Spooled, Unavailable
from gateways.mail_in.log_door import LogDoor
from gateways.stores.blobs import LocalBlobs
from gateways.stores.keyring import Keyring
from gateways.stores.keyset import open_keyset
from gateways.stores.postgres import Pool
from gateways.stores.sealing import new_data_key
from schemas.ids import new_id
from schemas.raw_mail import INLINE_BYTES


class House:
    """A door that delivers to this log; nothing is looked up, so it needs no database."""

    def __init__(self, log: CommandLog, folder: Path) -> None:
        self.blobs = LocalBlobs(folder / "blobs")
        keyset = open_keyset(folder / "keyset.json")
        pool, keyring = cast("Pool", None), cast("Keyring", None)
        self.door = LogDoor(pool, keyset, keyring, log, self.blobs, fresh=lambda: True)

    async def deliver(self, size: int = INLINE_BYTES + 1) -> None:
        raw = b"Subject: large\r\n\r\n".ljust(size, b"x")
        inbox = Inbox(new_id("mbx"), new_id("acc"), new_data_key())
        said = Envelope("ada@example.org", "bob@in.example", "mx.example.org", "192.0.2.1", tls=True, via="smtp")
        await self.door.deliver(Spooled(BytesIO(raw), len(raw), "0" * 64), [(inbox, said)])


async def test_a_large_mail_that_reached_no_broker_leaves_nothing_however_often_it_comes(
    free_port: int, tmp_path: Path
) -> None:
    log = CommandLog(f"127.0.0.1:{free_port}")
    house = House(log, tmp_path)
    for _ in range(3):
        with pytest.raises(Unavailable, match="not answering"):
            await house.deliver()
    await log.close()
    assert house.blobs.names() == []


async def test_a_large_mail_that_an_overdue_log_refuses_leaves_nothing(
    free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_log, "IN_FLIGHT", 0)
    house = House(CommandLog(f"127.0.0.1:{free_port}"), tmp_path)
    with pytest.raises(Unavailable, match="not answering"):
        await house.deliver()
    assert house.blobs.names() == []


def came_too_late(patch: pytest.MonkeyPatch) -> None:
    """The record's time is over when it is sent: the broker takes it, and it is decided as lapsed."""
    patch.setattr(log_door, "GATEWAY_LIMIT_SECONDS", -60)


def was_not_confirmed(patch: pytest.MonkeyPatch) -> None:
    """No time is left for the acknowledgement."""
    patch.setattr(command_log, "GATEWAY_LIMIT_SECONDS", 0)


@pytest.mark.parametrize("spoil", [None, came_too_late, was_not_confirmed])
async def test_a_large_mail_that_may_be_in_the_log_keeps_its_blob(
    spoil: Callable[[pytest.MonkeyPatch], None] | None,
    servers: Servers,
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await provision(servers.kafka, prefix=topic_prefix, partitions=1)
    log = CommandLog(servers.kafka, prefix=topic_prefix)
    house = House(log, tmp_path)
    try:
        if spoil is None:
            await house.deliver()
        else:
            spoil(monkeypatch)
            with pytest.raises(Unavailable):
                await house.deliver()
    finally:
        await log.close()
    assert len(house.blobs.names()) == 1
