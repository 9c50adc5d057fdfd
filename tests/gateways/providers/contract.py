"""What every connector has to stand, against a real authorization server: one suite, run for each provider.

A provider is added by a subclass in `test_connectors.py` that says how its house is built; `docs/add-a-provider.md` shows it.
After each test the canaries are looked for: no secret may be in a log line, an exception or a metric.
"""

import asyncio
import logging
import re
import resource
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from domain.connection_events import Provider
from domain.tokens import NotRefreshed, OwnServers, Refreshed, Revoked, Secrets
from gateways.providers.catalogue import ProviderSettings, connectors
from gateways.providers.connector import LoginRefused
from tests.gateways.providers.house import (
    CALLBACK,
    CLIENT_ID,
    CLIENT_SECRET,
    LOGIN,
    SECONDS,
    House,
    logged,
    not_refreshed,
    settings_for,
    told_of,
)
from tests.support.oauth_server.server import OAuthServer


class ConnectorContract:
    """The suite. A subclass names the provider and the mode of the server, and may build the house in its own way."""

    provider: ClassVar[Provider]
    #: strict: a refresh token is taken once; google: it stays; microsoft: there is a new one, and the old is taken, too.
    mode: ClassVar[str]

    @pytest.fixture
    async def server(self, oauth_server: OAuthServer) -> OAuthServer:
        await oauth_server.reset()
        await oauth_server.control(mode=self.mode)
        return oauth_server

    @pytest.fixture
    def settings(self, server: OAuthServer) -> ProviderSettings:
        return settings_for(server)

    @pytest.fixture
    async def house(
        self, server: OAuthServer, settings: ProviderSettings, servers: OwnServers | None
    ) -> AsyncIterator[House]:
        registry = CollectorRegistry()
        async with connectors(settings, registry) as every:
            yield House(self.provider, server, every, registry, servers)

    @pytest.fixture
    def servers(self) -> OwnServers | None:
        """Those of a connection, where the provider is whatever its user says."""
        return None

    @pytest.fixture(autouse=True)
    def no_secret_is_told(self, house: House, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        with caplog.at_level(logging.DEBUG):
            yield
        told = "\n".join([logged(caplog), generate_latest(house.registry).decode(), *house.said])
        assert told_of(house.canaries, told) == []

    # ── consent ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_it_is_the_connector_of_its_provider(self, house: House) -> None:
        assert house.connector.provider == self.provider
        assert house.connector.ready

    async def test_consent_is_asked_for_with_pkce_and_nothing_secret(self, house: House) -> None:
        consent = house.consent()
        url = house.connector.consent_url(consent, house.servers)
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["redirect_uri"] == CALLBACK
        assert asked["state"] == consent.state
        assert asked["login_hint"] == LOGIN
        assert asked["code_challenge_method"] == "S256"
        assert re.fullmatch(r"[\w-]{43}", asked["code_challenge"])
        assert "consent" in asked["prompt"]
        assert consent.verifier not in url
        assert CLIENT_SECRET not in url

    async def test_a_mailbox_is_connected(self, house: House) -> None:
        granted = await house.connect()
        assert granted.identity.address == LOGIN
        assert granted.secrets.access_token
        assert granted.secrets.refresh_token
        assert granted.secrets.expires_at is not None
        assert 3000 < granted.secrets.expires_at.timestamp() - time.time() <= 3600
        assert granted.secrets.servers == house.servers
        assert granted.asked_scopes
        assert await house.connector.address(granted.secrets) == LOGIN
        assert house.calls("code", "ok") == 1

    async def test_a_user_who_says_no_comes_back_without_a_code(self, house: House) -> None:
        await house.server.control(denyNext=1)
        back = await house.back(house.consent())
        assert back["error"] == "access_denied"
        assert "code" not in back

    async def test_what_was_not_granted_is_not_claimed(self, house: House) -> None:
        full = await house.connect()
        some = [scope for scope in full.asked_scopes if scope not in {"openid", "email", "offline_access"}][:1]
        await house.server.control(grantScopes=[*some, "email"])
        granted = await house.connect()
        assert some[0] in granted.scopes
        assert len(granted.scopes) < len(full.scopes)
        assert granted.asked_scopes == full.asked_scopes

    async def test_another_verifier_gets_nothing(self, house: House) -> None:
        consent = house.consent()
        back = await house.back(consent)
        other = replace(consent, verifier=house.consent().verifier)
        call = house.connector.connect(other, back["code"], back.get("iss"), house.servers)
        assert (await house.fails(call)).code == "code_refused"

    async def test_a_code_is_good_once(self, house: House) -> None:
        consent = house.consent()
        back = await house.back(consent)
        first = await house.connector.connect(consent, back["code"], back.get("iss"), house.servers)
        house.keep(first.secrets)
        call = house.connector.connect(consent, back["code"], back.get("iss"), house.servers)
        assert (await house.fails(call)).code == "code_refused"

    async def test_a_made_up_code_gets_nothing(self, house: House) -> None:
        house.canaries.add("canary-made-up-code")
        call = house.connector.connect(house.consent(), "canary-made-up-code", None, house.servers)
        assert (await house.fails(call)).code == "code_refused"

    async def test_a_callback_from_another_issuer_is_refused_before_any_call(self, house: House) -> None:
        consent = house.consent()
        back = await house.back(consent)
        call = house.connector.connect(consent, back["code"], "https://evil.example", house.servers)
        assert (await house.fails(call)).code == "issuer_mismatch"
        assert (await house.server.counts())["requests"].get("token", 0) == 0

    async def test_a_callback_may_name_no_issuer(self, house: House) -> None:
        await house.server.control(callbackIss="missing")
        assert (await house.connect()).identity.address == LOGIN

    async def test_no_refresh_token_is_no_connection(self, house: House) -> None:
        await house.server.control(issueRefreshToken=False)
        assert (await house.fails(house.connect())).code == "no_refresh_token"

    @pytest.mark.parametrize(
        ("failure", "code"),
        [
            ({"error": "invalid_grant"}, "code_refused"),
            ({"error": "invalid_client", "status": 401}, "client_broken"),
            ({"error": "unauthorized_client"}, "client_broken"),
            ({"error": "invalid_request", "errorDescription": "<b>AADSTS900144</b>"}, "provider_refused"),
            ({"status": 429, "headers": {"Retry-After": "1"}}, "provider_unavailable"),
            ({"status": 500}, "provider_unavailable"),
            ({"html": True}, "provider_unavailable"),
            ({"body": '{"access_token": "canary'}, "provider_unavailable"),
            ({"redirectTo": "https://evil.example/"}, "provider_unavailable"),
            ({"dropBefore": True}, "provider_unavailable"),
            ({"hugeBytes": 1 << 30}, "provider_unavailable"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
    )
    async def test_a_code_that_brings_nothing_is_told_by_its_code(
        self, house: House, failure: dict[str, Any], code: str
    ) -> None:
        consent = house.consent()
        back = await house.back(consent)
        await house.server.control(failNext=failure)
        call = house.connector.connect(consent, back["code"], back.get("iss"), house.servers)
        assert (await house.fails(call)).code == code

    # ── refresh ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_a_token_is_refreshed_as_this_provider_does_it(self, house: House) -> None:
        first = (await house.connect()).secrets
        answer = await house.refresh(first)
        assert isinstance(answer, Refreshed)
        assert answer.rotated is (self.mode != "google")
        assert answer.rotated is (answer.secrets.refresh_token != first.refresh_token)
        assert answer.secrets.access_token != first.access_token
        assert answer.secrets.servers == first.servers
        assert await house.connector.address(answer.secrets) == LOGIN
        again = await house.refresh(first)
        if self.mode == "strict":
            assert not_refreshed(again) == ("invalid_grant", "invalid_grant")
        else:
            assert isinstance(again, Refreshed)

    async def test_an_answer_that_is_lost_loses_no_more_than_the_provider_s_rules_do(self, house: House) -> None:
        first = (await house.connect()).secrets
        await house.server.control(failNext={"dropAfter": True})
        assert not_refreshed(await house.refresh(first)) == ("transient", "unreachable")
        again = await house.refresh(first)
        if self.mode == "strict":
            assert not_refreshed(again) == ("invalid_grant", "invalid_grant")
        else:
            assert isinstance(again, Refreshed)

    @pytest.mark.parametrize(
        ("failure", "answer"),
        [
            ({"error": "invalid_grant"}, ("invalid_grant", "invalid_grant")),
            ({"error": "interaction_required"}, ("invalid_grant", "invalid_grant")),
            ({"error": "consent_required"}, ("invalid_grant", "invalid_grant")),
            ({"error": "invalid_client", "status": 401}, ("client_broken", "invalid_client")),
            ({"error": "unauthorized_client"}, ("client_broken", "unauthorized_client")),
            (
                {"error": "invalid_client", "errorDescription": "AADSTS7000222: expired"},
                ("client_broken", "client_secret_expired"),
            ),
            (
                {"error": "invalid_client", "errorDescription": "AADSTS7000215: bad"},
                ("client_broken", "invalid_client"),
            ),
            (
                {"error": "invalid_request", "errorDescription": "AADSTS700016: unknown"},
                ("client_broken", "unauthorized_client"),
            ),
            ({"error": "temporarily_unavailable", "status": 400}, ("transient", "server_error")),
            ({"error": "invalid_scope", "errorDescription": "invalid_grant invalid_client"}, ("transient", "refused")),
            ({"status": 500}, ("transient", "server_error")),
            ({"status": 502, "html": True}, ("transient", "server_error")),
            ({"status": 503, "error": "invalid_grant"}, ("transient", "server_error")),
            ({"status": 504}, ("transient", "server_error")),
            ({"html": True}, ("transient", "answer_unreadable")),
            ({"status": 400, "html": True}, ("transient", "answer_unreadable")),
            ({"body": '{"access_token": "canary'}, ("transient", "answer_unreadable")),
            ({"body": {"token_type": "Bearer"}}, ("transient", "answer_unreadable")),
            ({"body": {"access_token": "two\r\nlines: of a header"}}, ("transient", "answer_unreadable")),
            ({"body": []}, ("transient", "answer_unreadable")),
            ({"redirectTo": "https://evil.example/"}, ("transient", "answer_unreadable")),
            ({"status": 302, "redirectTo": "http://127.0.0.1:1/"}, ("transient", "answer_unreadable")),
            ({"dropBefore": True}, ("transient", "unreachable")),
        ],
        ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
    )
    async def test_a_refresh_that_brings_nothing_is_told_by_its_class_and_code(
        self, house: House, failure: dict[str, Any], answer: tuple[str, str]
    ) -> None:
        secrets = await self.seeded(house)
        await house.server.control(failNext=failure)
        began = time.perf_counter()
        assert not_refreshed(await house.refresh(secrets)) == answer
        assert time.perf_counter() - began < SECONDS + 2
        counts = await house.server.counts()
        assert counts["requests"]["token"] == 1, "a refresh is one call"
        if answer[0] != "invalid_grant":
            assert isinstance(await house.refresh(secrets), Refreshed), "nothing is the worse for it"

    @pytest.mark.parametrize(("header", "least", "most"), [("7", 7, 7), ("DATE", 100, 120), ("soon", None, None)])
    async def test_a_provider_may_ask_for_a_pause(
        self, house: House, header: str, least: float | None, most: float | None
    ) -> None:
        secrets = await self.seeded(house)
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 120))
        value = date if header == "DATE" else header
        await house.server.control(failNext={"status": 429, "headers": {"Retry-After": value}})
        answer = await house.refresh(secrets)
        assert not_refreshed(answer) == ("transient", "rate_limited")
        assert isinstance(answer, NotRefreshed)
        assert answer.retry_after == least or least <= answer.retry_after <= most

    async def test_an_answer_that_is_late_is_none(
        self, house: House, server: OAuthServer, settings: ProviderSettings
    ) -> None:
        secrets, consent = await self.seeded(house), house.consent()
        back = await house.back(consent)
        await server.control(failNext={"delayMs": 4000, "times": 2})
        async with connectors(replace(settings, provider_timeout=0.3), CollectorRegistry()) as hasty:
            connector, began = hasty.by_provider[self.provider], time.perf_counter()
            assert not_refreshed(await connector.refresh(secrets)) == ("transient", "timed_out")
            call = connector.connect(consent, back["code"], back.get("iss"), house.servers)
            assert (await house.fails(call)).code == "provider_unavailable"
            assert 0.5 < time.perf_counter() - began < 3.5

    async def test_of_an_answer_without_end_little_is_read(self, house: House) -> None:
        secrets = await self.seeded(house)
        await house.server.control(failNext={"hugeBytes": 1 << 30})
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert not_refreshed(await house.refresh(secrets)) == ("transient", "answer_too_large")
        assert time.perf_counter() - began < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024

    async def test_a_secret_that_has_expired_is_our_client_s_trouble(self, house: House) -> None:
        secrets = await self.seeded(house)
        await house.server.control(clientSecretExpired=True)
        expected = "client_secret_expired" if self.mode == "microsoft" else "invalid_client"
        assert not_refreshed(await house.refresh(secrets)) == ("client_broken", expected)

    async def test_consent_that_was_withdrawn_is_over(self, house: House) -> None:
        secrets = (await house.connect()).secrets
        assert await house.server.revoke(LOGIN) == 1
        assert not_refreshed(await house.refresh(secrets)) == ("invalid_grant", "invalid_grant")

    async def test_without_a_refresh_token_there_is_nothing_to_ask(self, house: House) -> None:
        secrets = Secrets("canary-access-token", None, None, house.servers)
        assert not_refreshed(await house.refresh(secrets)) == ("invalid_grant", "invalid_grant")
        assert (await house.server.counts())["requests"].get("token", 0) == 0

    async def test_many_at_once_are_so_many_calls(self, house: House) -> None:
        """The connector keeps nothing between calls: one at a time is the business of whoever holds the lease."""
        every = [await self.seeded(house, f"user{number}@gmail.test") for number in range(20)]
        answers = await asyncio.gather(*(house.refresh(secrets) for secrets in every))
        assert all(isinstance(answer, Refreshed) for answer in answers)
        assert (await house.server.counts())["requests"]["token"] == 20

    # ── revoking, and whose mailbox it is ─────────────────────────────────────────────────────────────────────────────

    async def test_tokens_are_revoked_where_that_can_be_asked(self, house: House) -> None:
        secrets = (await house.connect()).secrets
        answer = await house.connector.revoke(secrets)
        await self.check_revoked(house, secrets, answer)

    async def check_revoked(self, house: House, secrets: Secrets, answer: Revoked) -> None:
        """Where there is nothing to ask, nothing is: the tokens live on there, and are destroyed here."""
        assert answer == Revoked("none")
        assert (await house.server.counts())["requests"].get("revoke", 0) == 0

    async def test_a_dead_access_token_is_refused(self, house: House) -> None:
        secrets = (await house.connect()).secrets
        dead = replace(secrets, access_token="canary-dead-access-token")
        house.keep(dead)
        with pytest.raises(LoginRefused) as caught:
            await house.connector.address(dead)
        house.note(caught.value)

    async def seeded(self, house: House, login: str = LOGIN) -> Secrets:
        """Tokens as of an earlier consent."""
        url = house.connector.consent_url(house.consent(), house.servers)
        scope = " ".join(["openid", "offline_access", dict(parse_qsl(urlsplit(url).query))["scope"]])
        (grant,) = await house.server.seed(1, client=CLIENT_ID, scope=scope, logins=[login])
        secrets = Secrets(grant.access_token, grant.refresh_token, None, house.servers)
        house.keep(secrets)
        return secrets
