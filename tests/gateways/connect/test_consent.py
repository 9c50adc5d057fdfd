"""Whole consents, from the product's request to the connection it can read."""

import asyncio
from urllib.parse import parse_qsl, urlsplit

import pytest

from domain.connection_events import MOST_CONNECTIONS
from gateways.http.connect.words import CODES, WORDS
from schemas.ids import new_id
from tests.support.connect_house import BACK, Browser, ConnectHouse
from tests.support.connected import READS, SENDS
from tests.support.waiting import until

ADA = "ada@gmail.test"


def somebody() -> str:
    """The address of a mailbox that nobody else in this house has."""
    return f"{new_id('bob')}@gmail.test"


@pytest.mark.parametrize("provider", ["gmail", "outlook"])
async def test_a_mailbox_is_connected_from_ticket_to_connection(house: ConnectHouse, provider: str) -> None:
    ada = await house.person()
    connection = await house.connected(ada, provider, login=ADA)
    shown = await house.shown(ada, connection)
    assert (shown["provider"], shown["account"], shown["state"]) == (provider, ADA, "active")
    assert shown["missingScopes"] == []
    held = await house.connecting.vault.get(connection)
    assert held is not None
    assert (await house.oauth.token(held.secrets.refresh_token or ""))["alive"]


async def test_what_a_provider_is_asked_for(house: ConnectHouse) -> None:
    """PKCE by S256, a nonce, our own callback, and the address that the product suggests."""
    ada = await house.person()
    url = await Browser(house).to_provider(await house.begin(ada, loginHint=ADA))
    asked = dict(parse_qsl(urlsplit(url).query))
    assert asked["redirect_uri"] == f"{house.url}/v1/connect/gmail/callback"
    assert (asked["code_challenge_method"], asked["login_hint"], asked["prompt"]) == ("S256", ADA, "consent")
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43


async def test_the_way_back_keeps_its_own_query(house: ConnectHouse) -> None:
    ada, browser = await house.person(), Browser(house)
    ticket = await house.begin(ada, returnUrl=f"{BACK}/x?tab=mail&q=a%20b")
    end = await browser.get(await browser.to_callback(ticket, login=ADA))
    assert end.status == 303
    where, _, query = end.location.partition("?")
    assert where == f"{BACK}/x"
    assert query.startswith("tab=mail&q=a%20b&connectionId=con_")
    assert query.endswith("&status=connected")
    assert (end.headers["Referrer-Policy"], end.headers["Cache-Control"]) == ("no-referrer", "no-store")


async def test_without_a_way_back_the_outcome_is_on_our_own_page(house: ConnectHouse) -> None:
    ada, browser = await house.person(), Browser(house)
    end = await browser.get(await browser.to_callback(await house.begin(ada), login=ADA))
    assert end.status == 303
    assert end.location.startswith(f"{house.url}/connect?connectionId=con_")
    page = await browser.get(end.location)
    assert page.status == 200
    assert f"{ADA} is ready for use." in page.text


async def test_the_same_mailbox_again_renews_its_connection(house: ConnectHouse) -> None:
    ada = await house.person()
    first = await house.connected(ada, login=ADA)
    before = await house.connecting.vault.get(first)
    assert await house.connected(ada, login=ADA) == first
    after = await house.connecting.vault.get(first)
    assert before is not None
    assert after is not None
    assert after.version == before.version + 1
    assert [one["id"] for one in await house.listed(ada)] == [first]


async def test_another_mailbox_makes_a_second_connection(house: ConnectHouse) -> None:
    ada = await house.person()
    first, second = await house.connected(ada, login=ADA), await house.connected(ada, login="bob@gmail.test")
    assert first != second
    assert {one["account"] for one in await house.listed(ada)} == {ADA, "bob@gmail.test"}


async def test_one_mailbox_of_two_users_is_two_connections(house: ConnectHouse) -> None:
    ada, bob = await house.person(), await house.person()
    assert await house.connected(ada, login=ADA) != await house.connected(bob, login=ADA)


async def test_reconnecting_is_for_the_same_mailbox(house: ConnectHouse) -> None:
    ada = await house.person()
    connection = await house.connected(ada, login=ADA)
    assert await house.connected(ada, login=ADA, connectionId=connection) == connection


async def test_reconnecting_with_another_mailbox_changes_nothing(house: ConnectHouse) -> None:
    """And the grant that nobody wanted is given back."""
    ada = await house.person()
    connection = await house.connected(ada, login=ADA)
    before = await house.connecting.vault.get(connection)
    said = await house.walk(ada, login=somebody(), connectionId=connection)
    assert said == {"error": "another_mailbox"}
    assert await house.connecting.vault.get(connection) == before
    assert [one["account"] for one in await house.listed(ada)] == [ADA]
    assert (await house.oauth.counts())["total"]["revocations"] == 1
    assert before is not None
    assert (await house.oauth.token(before.secrets.refresh_token or ""))["alive"]


async def test_an_address_that_is_somebody_elses_now_is_another_mailbox(house: ConnectHouse) -> None:
    """The provider says another subject for the same address: the tokens of the connection stay what they were."""
    ada = await house.person()
    connection = await house.connected(ada, login=ADA)
    before = await house.connecting.vault.get(connection)
    await house.oauth.control(user={"login": ADA, "sub": "another-person"})
    for query in ({}, {"connectionId": connection}):
        assert await house.walk(ada, login=ADA, **query) == {"error": "another_mailbox"}
        after = await house.connecting.vault.get(connection)
        assert before is not None
        assert after is not None
        assert after.secrets == before.secrets


async def test_a_grant_is_not_given_back_where_that_would_end_a_connection(house: ConnectHouse) -> None:
    """Google ends all that somebody granted us, whichever token is named."""
    ada = await house.person()
    first, second = await house.connected(ada, login=ADA), await house.connected(ada, login="bob@gmail.test")
    assert await house.walk(ada, login="bob@gmail.test", connectionId=first) == {"error": "another_mailbox"}
    held = await house.connecting.vault.get(second)
    assert held is not None
    assert (await house.oauth.token(held.secrets.refresh_token or ""))["alive"]
    assert (await house.oauth.counts())["total"]["revocations"] == 0


async def test_without_leave_to_read_it_is_connected_and_says_so(house: ConnectHouse) -> None:
    ada = await house.person()
    await house.oauth.control(grantScopes=[SENDS, "email"])
    shown = await house.shown(ada, await house.connected(ada, login=ADA))
    assert (shown["state"], shown["missingScopes"]) == ("active", [READS])
    assert SENDS in shown["scopes"]


async def test_without_leave_to_send_it_is_refused_and_given_back(house: ConnectHouse) -> None:
    ada = await house.person()
    await house.oauth.control(grantScopes=[READS, "email"])
    assert await house.walk(ada, login=somebody()) == {"error": "scopes_missing"}
    assert await house.listed(ada) == []
    assert (await house.oauth.counts())["total"]["revocations"] == 1


async def test_two_tickets_of_one_user_are_open_at_once(house: ConnectHouse) -> None:
    """In one browser, and the later one comes back first."""
    ada, browser = await house.person(), Browser(house)
    first, second = [await house.begin(ada, returnUrl=BACK) for _ in range(2)]
    callbacks = [
        await browser.to_callback(ticket, login=login) for ticket, login in ((first, ADA), (second, "b@gmail.test"))
    ]
    ends = [await browser.get(callback) for callback in reversed(callbacks)]
    assert all("status=connected" in end.location for end in ends)
    assert {one["account"] for one in await house.listed(ada)} == {ADA, "b@gmail.test"}


async def test_two_tries_of_one_mailbox_at_once_make_one_connection(house: ConnectHouse) -> None:
    ada = await house.person()
    ids = await asyncio.gather(*(house.connected(ada, login=ADA) for _ in range(4)))
    assert len(set(ids)) == 1
    assert [one["id"] for one in await house.listed(ada)] == [ids[0]]
    rows = await house.inner.services.pool.fetchval("select count(*) from vault where user_id = $1", ada.id)
    assert rows == 1, "of tries that came to nothing no tokens are left"


async def test_a_user_who_was_deleted_meanwhile_gets_no_connection(house: ConnectHouse) -> None:
    ada, browser = await house.person(), Browser(house)
    callback = await browser.to_callback(await house.begin(ada, returnUrl=BACK), login=ADA)
    async with house.http.delete(
        f"{house.url}/v1/users/{ada.id}", headers={"Authorization": f"Bearer {ada.key}"}
    ) as answer:
        assert answer.status == 204
    assert (await browser.get(callback)).location in {f"{BACK}?error=user_deleted", f"{BACK}?error=unavailable"}
    assert await house.inner.services.pool.fetchval("select count(*) from vault where user_id = $1", ada.id) == 0


async def test_a_connection_that_was_revoked_is_not_renewed(house: ConnectHouse) -> None:
    ada, browser = await house.person(), Browser(house)
    connection = await house.connected(ada, login=ADA)
    callback = await browser.to_callback(await house.begin(ada, returnUrl=BACK, connectionId=connection), login=ADA)
    headers = {"Authorization": f"Bearer {ada.key}"}
    async with house.http.delete(f"{house.url}/v1/connections/{connection}", headers=headers) as answer:
        assert answer.status == 204
    assert (await browser.get(callback)).location == f"{BACK}?error=unknown_connection"
    assert (await house.asked_for_ticket(ada.id, "gmail", ada.key, connectionId=connection))[0] == 400
    assert await house.connected(ada, login=ADA) != connection


def test_every_code_has_words_for_the_user() -> None:
    assert set(WORDS) == CODES


async def test_a_user_with_as_many_connections_as_there_may_be(house: ConnectHouse) -> None:
    """One more is refused and given back; those there are can be renewed."""
    ada = await house.person()
    kept = await house.connected(ada, login=ADA)
    await asyncio.gather(*(ada.connect(f"{number}@gmail.example") for number in range(MOST_CONNECTIONS - 1)))
    assert await house.walk(ada, login=somebody()) == {"error": "too_many_connections"}
    assert (await house.oauth.counts())["total"]["revocations"] == 1
    assert await house.connected(ada, login=ADA) == kept
    assert await house.inner.services.pool.fetchval("select count(*) from vault where user_id = $1", ada.id) == 1


async def test_tokens_that_can_t_be_opened_any_more_are_replaced(house: ConnectHouse) -> None:
    """A key that is lost is what connecting again is for, so it must not stand in its way."""
    ada, pool = await house.person(), house.inner.services.pool
    connection = await house.connected(ada, login=ADA)
    for broken in ("kid = 'local-lost'", "access = '\\x00'"):
        await pool.execute(f"update vault set {broken} where connection = $1", connection)
        house.connecting.vault._known.clear()
        assert await house.connected(ada, login=ADA) == connection
        assert await house.connecting.vault.get(connection) is not None


async def test_what_a_fresh_token_was_used_for_is_on_record(house: ConnectHouse) -> None:
    """Where the ID token does not vouch for an address, the provider's profile was asked, with the user's token."""
    ada = await house.person()
    await house.oauth.control(idToken={"email_verified": False})
    connection = await house.connected(ada, login=ADA)

    async def used() -> bool:
        return (await house.shown(ada, connection))["lastUsedAt"] is not None

    await until(used, seconds=5)
    await house.oauth.reset()
    assert (await house.shown(ada, await house.connected(ada, login=somebody())))["lastUsedAt"] is None
