"""How far projections have come is heard again after Postgres's address has gone silent."""

import asyncio
import threading
from urllib.parse import urlsplit

from gateways.local_ports import free_port
from gateways.stores.folded import FoldedPositions
from gateways.stores.postgres import Pool, pooled
from projections.migrate import migrate
from tests.support.tcp_proxies import TcpProxies, TcpProxy

#: A silence is noticed in five seconds; then it listens again.
HEARD_AGAIN_SECONDS = 15


async def fold(pool: Pool, position: int) -> None:
    await pool.execute(
        "insert into kept.checkpoints (name, topic, partition, position) values ('feed', 'events', 0, $1) "
        "on conflict (name, topic, partition) do update set position = excluded.position",
        position,
    )


def silence(proxy: TcpProxy) -> threading.Event:
    """Holds for good the one connection there is, from its next word on; what is returned is set by then."""
    silenced = threading.Event()

    def holds(_: bytes) -> bool:
        if silenced.is_set():
            return False
        silenced.set()
        return True

    proxy.freeze(holds)
    return silenced


async def test_a_connection_that_has_gone_silent_is_replaced(database: str) -> None:
    """Without a FIN or RST, as when a cable is pulled or an address moves: whoever connects again is served."""
    await migrate(database)
    url, here = urlsplit(database), ("127.0.0.1", free_port())
    assert url.hostname
    assert url.port
    with TcpProxies() as proxies:
        proxy = proxies.open(here, (url.hostname, url.port))
        async with pooled(database, size=1) as pool:
            folded = FoldedPositions(database.replace(f"{url.hostname}:{url.port}", f"{here[0]}:{here[1]}"), pool)
            await folded.start()
            await fold(pool, 1)
            await folded.reached("feed", "events", 0, 1, seconds=10)
            silenced = silence(proxy)
            assert await asyncio.to_thread(silenced.wait, 10)
            await fold(pool, 2)
            await folded.reached("feed", "events", 0, 2, seconds=HEARD_AGAIN_SECONDS)
            await folded.stop()
