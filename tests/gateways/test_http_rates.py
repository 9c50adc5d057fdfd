"""Rates are counted over all processes, without asking Postgres for each request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from gateways.http.rate_headers import origin_of, rate_headers
from gateways.http.refusals import problem_of
from gateways.local_ports import free_port
from gateways.stores.postgres import ANSWER_SECONDS, pooled
from gateways.stores.rates import LEASE_SECONDS, Limit, Rates, Standing
from projections.migrate import migrate
from tests.support.tcp_proxies import TcpProxies, TcpProxy

#: What this machine may take beyond a bound in time.
SLACK_SECONDS = 2.0


@dataclass
class Processes:
    """What two processes have: each its own pool and its own memory."""

    first: Rates
    second: Rates
    url: str


@pytest.fixture
async def two(database: str) -> AsyncIterator[Processes]:
    await migrate(database)
    async with AsyncExitStack() as stack:
        rates = [Rates(await stack.enter_async_context(pooled(database, size=4))) for _ in range(2)]
        yield Processes(*rates, database)
        for one in rates:
            await one.close()


async def passed(rates: Rates, limit: Limit, who: str, tries: int) -> int:
    return sum([not (await rates.admit(limit, who)).refused for _ in range(tries)])


@pytest.mark.parametrize("most", [1, 2, 60])
async def test_what_is_spent_is_exact_over_processes_that_race(two: Processes, most: int) -> None:
    limit = Limit("creation", most, 60)
    spent = await asyncio.gather(*(one.spend(limit, "ann") for one in (two.first, two.second) for _ in range(most)))
    assert sum(not standing.refused for standing in spent) == most
    assert all(0 < standing.resets_in <= 60 for standing in spent)


async def test_one_past_the_limit_is_refused_and_somebody_else_is_not(two: Processes) -> None:
    limit = Limit("creation", 3, 60)
    assert [(await two.first.spend(limit, "ann")).left for _ in range(3)] == [2, 1, 0]
    assert (await two.first.spend(limit, "ann")).refused
    assert (await two.second.spend(limit, "ann")).refused
    assert not (await two.first.spend(limit, "bob")).refused


async def test_a_window_ends_and_begins_with_its_first_use(two: Processes) -> None:
    limit = Limit("creation", 2, 1)
    for _ in range(2):
        assert [(await two.first.spend(limit, "ann")).refused for _ in range(3)] == [False, False, True]
        standing = await two.first.spend(limit, "ann")
        await asyncio.sleep(standing.resets_in + 0.05)  # the time that a caller is told to wait


async def test_a_process_alone_lets_exactly_the_limit_pass(two: Processes) -> None:
    limit = Limit("requests", 100, 30)
    assert await passed(two.first, limit, "ann", 150) == 100


async def test_two_processes_under_load_let_the_limit_pass_within_five_percent(two: Processes) -> None:
    limit = Limit("requests", 100, 30)
    counts = await asyncio.gather(*(passed(one, limit, "ann", 200) for one in (two.first, two.second)))
    assert 95 <= sum(counts) <= 105


async def test_a_process_that_sees_little_keeps_little_from_the_others(two: Processes) -> None:
    limit = Limit("requests", 100, 30)
    few = await passed(two.second, limit, "ann", 6)
    many = await passed(two.first, limit, "ann", 200)
    assert 95 <= few + many <= 105


async def test_who_asks_seldom_costs_no_round_trip(two: Processes) -> None:
    """Nothing is written for a caller within its credit."""
    limit = Limit("requests", 100, 30)
    assert await passed(two.first, limit, "ann", 2) == 2
    async with pooled(two.url, size=1) as pool:
        assert await pool.fetchval("select count(*) from rates") == 0


async def test_many_callers_at_once_share_one_lease(two: Processes) -> None:
    limit = Limit("requests", 100, 30)
    standings = await asyncio.gather(*(two.first.admit(limit, "ann") for _ in range(300)))
    assert sum(not standing.refused for standing in standings) == 100


async def test_without_postgres_each_process_counts_for_itself(database: str) -> None:
    await migrate(database)
    async with pooled(database, size=1) as pool:
        rates = Rates(pool)
    limit = Limit("requests", 100, 30)
    assert await passed(rates, limit, "ann", 300) == 100


@dataclass
class Behind:
    """A process and the proxy that is all it sees of Postgres."""

    rates: Rates
    proxy: TcpProxy


@pytest.fixture
async def behind(database: str) -> AsyncIterator[Behind]:
    await migrate(database)
    url, here = urlsplit(database), ("127.0.0.1", free_port())
    assert url.hostname
    assert url.port
    with TcpProxies() as proxies:
        proxy = proxies.open(here, (url.hostname, url.port))
        seen = database.replace(f"{url.hostname}:{url.port}", f"{here[0]}:{here[1]}")
        async with pooled(seen, size=4) as pool:
            rates = Rates(pool)
            yield Behind(rates, proxy)
            proxy.thaw()
            await rates.close()


async def test_a_permit_of_a_silent_postgres_is_refused_in_time_however_many_ask(behind: Behind) -> None:
    limit, loop = Limit("creation", 60, 60), asyncio.get_running_loop()
    everybody = [f"caller {number}" for number in range(20)]
    # Every connection is open by then: asyncpg complains to the loop about one that is given up on as it opens.
    await asyncio.gather(*(behind.rates.spend(limit, who) for who in everybody))
    behind.proxy.freeze()
    began = loop.time()
    heard = await asyncio.gather(*(behind.rates.spend(limit, who) for who in everybody), return_exceptions=True)
    assert loop.time() - began < ANSWER_SECONDS + SLACK_SECONDS
    for error in heard:
        assert isinstance(error, Exception)
        told = problem_of(error)
        assert told is not None
        assert (told.status, "Retry-After" in told.headers) == (503, True)
    behind.proxy.thaw()
    assert not (await behind.rates.spend(limit, everybody[0])).refused


async def test_a_process_that_vanishes_in_the_middle_keeps_nobody_from_the_same_bucket(
    behind: Behind, database: str
) -> None:
    limit = Limit("creation", 60, 60)
    behind.proxy.freeze(lambda sent: b"clock as materialized" in sent)  # the lock is taken, and nothing follows
    with pytest.raises(TimeoutError):
        await behind.rates.spend(limit, "ann")
    async with pooled(database, size=1) as pool:
        assert not (await Rates(pool).spend(limit, "ann")).refused


async def test_while_postgres_is_silent_a_process_counts_for_itself(behind: Behind) -> None:
    limit = Limit("requests", 100, 30)
    behind.proxy.freeze()
    began = asyncio.get_running_loop().time()
    assert await passed(behind.rates, limit, "ann", 300) == 100
    assert asyncio.get_running_loop().time() - began < LEASE_SECONDS + SLACK_SECONDS


def test_headers_tell_the_limit_what_is_left_and_when_it_resets() -> None:
    standing = Standing(Limit("creation", 60, 60), 12, 41.2, refused=False)
    assert rate_headers(standing) == {"RateLimit-Policy": '"creation";q=60;w=60', "RateLimit": '"creation";r=12;t=42'}


@pytest.mark.parametrize(
    ("client", "origin"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::1", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::1", 1), "2001:db8:1:3::/64"),
        (None, "local"),
        (("", 0), "local"),
    ],
)
def test_an_origin_is_an_ipv4_address_or_an_ipv6_network(client: tuple[str, int] | None, origin: str) -> None:
    assert origin_of({"client": client}) == origin
