"""Tokens are found nowhere but in the vault, sealed, whatever becomes of them; and the tables come out of the log again."""

import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from domain.connection_events import ReauthorisationRequired
from gateways.caught_up import CaughtUp
from gateways.log.event_log import EventLog
from gateways.stores.consents import ConnectCleanup
from gateways.stores.shared_grants import SharedGrants
from handlers.refresh import TokenUnavailable
from handlers.sweep import Sweeping
from projections.connections import PROJECTION
from projections.replay import Rebuild
from schemas import events
from tests.faults.connected import SECRET
from tests.support.everywhere import found_in, tables_of, topics_of
from tests.support.refresh_house import Account, RefreshHouse


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Every line that any logger has, however unimportant."""
    found: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.name} {self.format(record)} {record.__dict__}")

    root, notes = logging.getLogger(), Notes(logging.DEBUG)
    level = root.level
    root.addHandler(notes)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(notes)
    root.setLevel(level)


class Flows:
    """Goes through all of them, and keeps every secret it has seen."""

    def __init__(self, tokens: RefreshHouse) -> None:
        self._tokens = tokens
        self.secrets = {SECRET}

    async def connect(self, *more: str, **said: bool) -> Account:
        account = await self._tokens.connect(*more, **said)  # type: ignore[arg-type]  # as it is told
        self.secrets |= {account.secrets.access_token or "", account.secrets.refresh_token or ""}
        return account

    async def look(self, account: Account) -> None:
        held = await self._tokens.house.vault.get(account.connection)
        self.secrets |= {held.secrets.access_token, held.secrets.refresh_token}

    async def refreshed(self, mode: str) -> Account:
        await self._tokens.server.control(mode=mode)
        account = await self.connect("outlook" if mode == "microsoft" else "gmail", due=True)
        await self._tokens.row(account, lambda row: row["token_version"] == 2)
        await self.look(account)
        return account

    async def failed(self, failure: dict[str, object]) -> None:
        """With an answer that repeats what it was sent, as some error pages do."""
        account = await self.connect(expired=True)
        token, secret = account.secrets.refresh_token, account.secrets.access_token
        await self._tokens.server.control(
            failNext=failure | {"body": {"error": f"no {token}", "error_description": secret}}
        )
        refreshing, _ = self._tokens.refreshing()
        with pytest.raises(TokenUnavailable):
            await refreshing.access_token(account.connection)

    async def withdrawn(self) -> None:
        account = await self.connect(due=True)
        await self._tokens.server.revoke(account.login)
        await self._tokens.happened(account, ReauthorisationRequired)

    async def revoked(self, account: Account) -> None:
        await self._tokens.revoke(account)
        await self._tokens.row(account, lambda row: row["at_provider"] is not None)

    async def swept(self) -> None:
        account, house = await self.connect(tell=False), self._tokens.house
        tables = CaughtUp(self._tokens.log, house.pool, projection=PROJECTION.name, topic=PROJECTION.topic)
        providers, grants = house.connectors.by_provider, SharedGrants(house.pool)
        sweeps = Sweeping(house.vault, providers, tables, grants, ConnectCleanup(house.pool), old_seconds=0)
        while await house.vault.get(account.connection):
            await sweeps.sweep()


async def test_tokens_are_nowhere_and_a_rebuild_gives_equal_rows(tokens: RefreshHouse, lines: list[str]):
    flows, house = Flows(tokens), tokens.house
    accounts = [await flows.refreshed(mode) for mode in ("google", "microsoft", "strict")]
    for failure in ({"status": 400}, {"status": 500}, {"status": 429}):
        await flows.failed(failure)
    await flows.withdrawn()
    await tokens.server.control(failNext={"path": "revoke", "status": 503, "times": 3})
    for account in accounts:
        await flows.revoked(account)
    await flows.swept()
    left = await flows.connect()
    await tokens.server.control(mode="strict")
    refreshing, _ = tokens.refreshing()
    flows.secrets.add((await refreshing.access_token(left.connection, refused=1)).token)
    await tokens.row(left, lambda row: row["token_version"] == 2)
    await flows.look(left)

    places = await topics_of(house.kafka, house.prefix) | await tables_of(house.pool)
    places |= {"logs": "\n".join(lines).encode(), "metrics": generate_latest(house.metrics)}
    assert len(flows.secrets) > 20
    assert left.connection.encode() in places["kept.vault"], "the look must see what is there"
    assert left.connection.encode() in places[f"{house.prefix}connection.events"]
    assert places["logs"]
    assert found_in(places, flows.secrets) == []

    rebuild = Rebuild(PROJECTION, events.CONNECTION, EventLog(house.kafka, prefix=house.prefix), house.database_url)
    assert (await rebuild.run()).count == 0
    await rebuild._log.close()
