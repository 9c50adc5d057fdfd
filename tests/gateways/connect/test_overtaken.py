"""A try to renew a connection that something else overtakes: what came later stays, and what is over stays over."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from domain.connection_commands import RevokeConnection
from domain.tokens import Secrets
from gateways.local_ports import free_port
from gateways.log.command_log import NotPromised
from gateways.log.decisions import Asked, Decision, Decisions
from schemas import commands, events
from tests.support.connect_house import CLIENT_ID, CLIENT_SECRET, ConnectHouse, connecting_at, served_at
from tests.support.oauth_server.server import Client

ADA = "ada@gmail.test"


class Overtaken(Decisions):
    """Decisions before each of which something else happens."""

    first: Callable[[], Awaitable[Any]]

    async def ask(self, asked: Asked, **more: Any) -> Decision:
        await self.first()
        return await super().ask(asked, **more)


@asynccontextmanager
async def overtaken(house: ConnectHouse, by: Callable[[], Awaitable[Any]]) -> AsyncIterator[ConnectHouse]:
    services, port = house.inner.services, free_port()
    url = f"http://127.0.0.1:{port}"
    await house.oauth.add_client(Client(CLIENT_ID, CLIENT_SECRET, (f"{url}/v1/connect/gmail/callback",)))
    assert services.tail is not None
    decisions = Overtaken(
        services.command_log, services.tail, services.folded, commands=commands.CONNECTION, events=events.CONNECTION
    )
    decisions.first = by
    inner = replace(house.inner, services=replace(services, connection_decisions=decisions))
    async with connecting_at(inner, house.oauth, url) as connecting, served_at(inner, connecting, port):
        yield replace(house, inner=inner, url=url, connecting=connecting)


async def test_what_another_try_has_put_there_is_not_put_back(house: ConnectHouse) -> None:
    ada, vault = await house.person(), house.connecting.vault
    connection = await house.connected(ada, login=ADA)

    async def by_another_try() -> None:
        later = Secrets("access-of-later", "refresh-of-later")
        await vault.put(connection, ada.id, "gmail", later, vault.fingerprint_of(later))
        raise NotPromised("no broker can be reached")

    async with overtaken(house, by_another_try) as there:
        assert await there.walk(ada, login=ADA) == {"error": "unavailable"}
    held = await vault.get(connection)
    assert held is not None
    assert held.secrets.refresh_token == "refresh-of-later"


async def test_what_is_revoked_meanwhile_leaves_nothing_in_the_vault(house: ConnectHouse) -> None:
    ada, vault = await house.person(), house.connecting.vault
    connection = await house.connected(ada, login=ADA)

    async def by_a_revocation() -> None:
        await ada.command(connection, RevokeConnection(connection, ada.id, "caller"))

    async with overtaken(house, by_a_revocation) as there:
        assert await there.walk(ada, login=ADA, connectionId=connection) == {"error": "unknown_connection"}
    assert await vault.get(connection) is None
