"""The contract of connectors, kept by each of them; and what is special about each."""

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from domain.tokens import MailServer, OAuthClient, OwnServers, Revoked, Secrets
from gateways.providers.catalogue import ProviderSettings, connectors
from gateways.providers.connector import ConnectFailed, Consent, ProviderUnavailable
from gateways.providers.oauth import Client
from tests.gateways.providers.contract import ConnectorContract
from tests.gateways.providers.house import CLIENT_ID, CLIENT_SECRET, LOGIN, House, not_refreshed, settings_for
from tests.gateways.providers.openid_contract import OpenIdContract
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import ImapServer, SmtpServer
from tests.support.oauth_server.server import OAuthServer


class TestGmail(OpenIdContract):
    provider = "gmail"
    mode = "google"
    profile = "profile"

    async def check_revoked(self, house: House, secrets: Secrets, answer: Revoked) -> None:
        assert answer == Revoked("done")
        assert not_refreshed(await house.refresh(secrets)) == ("invalid_grant", "invalid_grant")
        assert await house.connector.revoke(secrets) == Revoked("done"), "what is void already is void"

    @pytest.mark.parametrize(
        ("failure", "cause"),
        [
            ({"status": 503}, "server_error"),
            ({"status": 429}, "rate_limited"),
            ({"dropBefore": True}, "unreachable"),
            ({"error": "invalid_request"}, "refused"),
            ({"status": 400, "html": True}, "answer_unreadable"),
            ({"redirectTo": "https://evil.example/"}, "answer_unreadable"),
        ],
        ids=str,
    )
    async def test_a_revocation_that_is_not_heard_of_has_failed(
        self, house: House, failure: dict[str, Any], cause: str
    ) -> None:
        await house.server.control(failNext={"path": "revoke", **failure})
        assert await house.connector.revoke(await self.seeded(house)) == Revoked("failed", cause)

    @pytest.mark.parametrize("verified", [False, "false", None, 1, "yes"])
    async def test_an_address_that_google_has_not_verified_is_asked_for(self, house: House, verified: object) -> None:
        await house.server.control(idToken={"email": "victim@gmail.test", "email_verified": verified})
        assert (await house.connect()).identity.address == LOGIN

    async def test_consent_is_for_offline_access_and_a_refresh_names_no_scopes(self, house: House) -> None:
        url = house.connector.consent_url(house.consent())
        assert "access_type=offline" in url
        assert "include_granted_scopes=true" in url


class TestGmailAgainstAStrictServer(OpenIdContract):
    """A server that turns refresh tokens over, and wants `offline_access`, which Google does not know."""

    provider = "gmail"
    mode = "strict"
    profile = "profile"

    async def check_revoked(self, house: House, secrets: Secrets, answer: Revoked) -> None:
        """Google wants to know no client for that, and this server does."""
        assert answer.at_provider == "failed"


class TestOutlook(OpenIdContract):
    provider = "outlook"
    mode = "microsoft"
    profile = "me"

    async def test_a_personal_mailbox_is_named_as_its_user_signs_in(self, house: House) -> None:
        await house.server.control(idToken={"email": None})
        assert (await house.connect()).identity.address == LOGIN
        assert house.calls("profile", "ok") == 0

    async def test_a_profile_without_mail_has_a_name_to_sign_in_by(self, house: House) -> None:
        secrets = (await house.connect()).secrets
        await house.server.control(user={"login": LOGIN, "mail": None, "upn": "alice@tenant.test"})
        assert await house.connector.address(secrets) == "alice@tenant.test"


class TestOutlookAgainstAStrictServer(OpenIdContract):
    provider = "outlook"
    mode = "strict"
    profile = "me"

    async def test_an_endpoint_that_the_operator_has_set_is_asked(self, server: OAuthServer, house: House) -> None:
        secrets = (await house.connect()).secrets
        settings = settings_for(server, microsoft_revoke_url=server.revoke_url)
        async with connectors(settings, CollectorRegistry()) as found:
            assert await found.by_provider["outlook"].revoke(secrets) == Revoked("done")
        assert not_refreshed(await house.refresh(secrets)) == ("invalid_grant", "invalid_grant")


class TestSmtp(ConnectorContract):
    """XOAUTH2 at servers of a user's own, and at an authorization server that the user names."""

    provider = "smtp"
    mode = "strict"

    @pytest.fixture
    def settings(self, server: OAuthServer, authority: Authority) -> ProviderSettings:
        return settings_for(server, tls=authority.trusting)

    @pytest.fixture
    async def servers(self, server: OAuthServer, smtp_server: SmtpServer, imap_server: ImapServer) -> OwnServers:
        for each in (smtp_server, imap_server):
            await each.reset()
            await each.set(oauth=server.issuer)
        scopes = ["https://mail.google.com/", "offline_access", "openid", "email", "profile"]
        return OwnServers(
            MailServer("localhost", smtp_server.starttls_port, "starttls", LOGIN),
            MailServer("127.0.0.1", imap_server.tls_port, "tls", LOGIN),
            OAuthClient(server.authorize_url, server.token_url, CLIENT_ID, CLIENT_SECRET, scopes),
        )

    async def test_a_connection_is_made_by_logins_to_both_servers(
        self, house: House, smtp_server: SmtpServer, imap_server: ImapServer
    ) -> None:
        await house.connect()
        for each in (smtp_server, imap_server):
            (login,) = (await each.told())["logins"]
            assert (login["name"], login["method"], login["ok"]) == (LOGIN, "XOAUTH2", True)
        assert house.calls("smtp_login", "ok") == house.calls("imap_login", "ok") == 1

    @pytest.mark.parametrize("which", ["smtp", "imap"])
    async def test_a_server_that_refuses_the_token_connects_nothing(
        self, house: House, smtp_server: SmtpServer, imap_server: ImapServer, which: str
    ) -> None:
        await (smtp_server if which == "smtp" else imap_server).set(scopes=["another"])
        failure = await house.fails(house.connect())
        assert failure.code == "login_failed"
        assert which.upper() in failure.sentence
        assert house.calls(f"{which}_login", "refused") == 1

    async def test_a_server_that_is_away_is_no_refusal(self, house: House, imap_server: ImapServer) -> None:
        secrets = (await house.connect()).secrets
        await imap_server.fail("CONNECT", dropBefore=True)
        with pytest.raises(ProviderUnavailable) as caught:
            await house.connector.address(secrets)
        house.note(caught.value)

    async def test_without_an_authorization_server_there_is_nowhere_to_consent(self, house: House) -> None:
        assert house.servers is not None
        for servers in (None, replace(house.servers, oauth=None)):
            with pytest.raises(ConnectFailed):
                house.connector.consent_url(house.consent(), servers)

    async def test_what_users_name_is_called_through_the_guard_only(
        self, server: OAuthServer, house: House, authority: Authority
    ) -> None:
        """The same servers, in an installation that does not allow for private hosts."""
        assert house.servers is not None
        consent, secrets = house.consent(), await self.seeded(house)
        settings = settings_for(server, tls=authority.trusting, allow_private_hosts=False)
        async with connectors(settings, CollectorRegistry()) as found:
            with pytest.raises(ConnectFailed) as caught:
                found.smtp.consent_url(consent, house.servers)
            assert caught.value.code == "host_not_allowed"
            assert (
                await house.fails(found.smtp.connect(consent, "code", None, house.servers))
            ).code == "host_not_allowed"
            assert not_refreshed(await found.smtp.refresh(secrets)) == ("transient", "refused")
            assert (await house.fails(found.smtp.login(house.servers, "token"))).code == "host_not_allowed"
            with pytest.raises(ProviderUnavailable):
                await found.smtp.address(secrets)
        assert (await server.counts())["requests"].get("token", 0) == 0


async def test_what_holds_a_secret_does_not_show_it(oauth_server: OAuthServer) -> None:
    settings = settings_for(oauth_server)
    client = Client("gmail", CLIENT_ID, CLIENT_SECRET, URL("https://a.example"), URL("https://b.example"), [])
    consent = Consent("canary-state", "canary-nonce", "canary-verifier", "https://c.example")
    assert CLIENT_SECRET not in f"{settings!r} {client!r}"
    assert "canary" not in repr(consent)
