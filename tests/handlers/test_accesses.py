"""Who may ask a provider that refuses what it is called with: one at a time, and with what is newer."""

import asyncio
from dataclasses import dataclass, field

import pytest

from domain.tokens import Secrets
from handlers.accesses import Accesses, AccessRefused
from handlers.refresh_parts import AccessToken, TokenUnavailable


@dataclass
class Held:
    connection: str
    secrets: Secrets
    version: int


@dataclass
class Vault:
    """One connection, whose tokens are refreshed when they are said to be refused."""

    version: int = 1
    lost: bool = False
    refreshes: list[int] = field(default_factory=list)
    told: list[tuple[str, str, int, str]] = field(default_factory=list)

    async def get(self, connection):
        return Held(connection, Secrets("token", "refresh", None), self.version)

    async def access_token(self, connection, *, refused=None, held=None):
        if self.lost:
            raise TokenUnavailable("The consent is gone.", reauth=True)
        if refused == self.version:
            self.refreshes.append(refused)
            self.version += 1
        return AccessToken(f"token-{self.version}", self.version, None)

    async def refused(self, connection, user, version, code):
        self.told.append((connection, user, version, code))


async def tries(accesses, calls):
    """An attempt whose provider takes no token; the version it heard a refusal of."""
    refused = None
    async with accesses.trying("con_1") as trying:
        while True:
            _, version = await accesses.access("con_1", "ada@mail.test", [], refused=refused)
            calls.append(version)
            await asyncio.sleep(0)
            if refused is not None:
                raise await accesses.token_refused("con_1", "usr_1", version)
            refused = version
            await trying.alone()


async def test_of_many_who_are_refused_one_refreshes_and_tries_again():
    vault, calls = Vault(), []
    accesses = Accesses(vault, vault)
    ends = await asyncio.gather(*[tries(accesses, calls) for _ in range(12)], return_exceptions=True)
    assert {type(end) for end in ends} == {AccessRefused}
    assert (vault.refreshes, calls.count(1), calls.count(2), max(calls)) == ([1], 12, 1, 2)


async def test_after_its_pause_one_finds_out_whether_it_is_taken_again():
    vault, calls = Vault(), []
    accesses = Accesses(vault, vault, scale=0.0001)
    with pytest.raises(AccessRefused):
        await tries(accesses, calls)
    while await accesses.refusal("con_1"):
        pass  # the loop's clock goes on by itself
    calls.clear()
    await asyncio.gather(*[tries(accesses, calls) for _ in range(12)], return_exceptions=True)
    assert (vault.refreshes, calls) == ([1, 2], [2, 3])


async def test_what_is_newer_or_was_taken_since_is_renewed():
    vault = Vault()
    accesses = Accesses(vault, vault)
    await accesses.token_refused("con_1", "usr_1", 1)
    assert not await accesses.renewed("con_1")
    vault.version = 2
    assert await accesses.renewed("con_1")
    await accesses.token_refused("con_1", "usr_1", 2)
    assert not await accesses.renewed("con_1")
    accesses.taken("con_1")
    assert await accesses.renewed("con_1")


async def test_a_consent_that_is_gone_is_asked_for_once_in_each_pause():
    vault = Vault(lost=True)
    accesses = Accesses(vault, vault)
    with pytest.raises(AccessRefused) as refused:
        await accesses.access("con_1", "ada@mail.test", [])
    assert (refused.value.code, await accesses.renewed("con_1")) == ("reauth_required", False)
    assert (await accesses.refusal("con_1")).code == "reauth_required"


@pytest.mark.parametrize("code", ["login_failed", "token_refused"])
async def test_what_is_refused_once_more_after_a_pause_is_told_of(code):
    vault = Vault()
    accesses = Accesses(vault, vault, scale=0.005)
    hear = getattr(accesses, code)
    for _ in range(3):
        await hear("con_1", "usr_1", 1)
    assert vault.told == [], "several at once are one refusal, of a server that may be in trouble"
    while await accesses.refusal("con_1"):
        await asyncio.sleep(0.01)
    await hear("con_1", "usr_1", 1)
    assert vault.told == [("con_1", "usr_1", 1, code)]
    accesses.taken("con_1")
    await hear("con_1", "usr_1", 1)
    assert len(vault.told) == 1, "it was taken meanwhile: this is the first refusal again"
