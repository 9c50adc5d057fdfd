"""What connectors of providers with ID tokens and a profile have to stand beside the contract of all."""

from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry

from gateways.providers.catalogue import connectors
from gateways.providers.connector import ConnectFailed, ProviderUnavailable
from tests.gateways.providers.contract import ConnectorContract
from tests.gateways.providers.house import CLIENT_ID, LOGIN, House, settings_for
from tests.support.oauth_server.server import OAuthServer


class OpenIdContract(ConnectorContract):
    """The suite; a subclass names the path of the profile as well."""

    #: The path of the profile, by the server's name for it.
    profile: ClassVar[str]

    async def test_the_identity_is_issuer_and_subject(self, house: House) -> None:
        first, again = await house.connect(), await house.connect()
        assert first.identity == again.identity
        assert first.identity.subject
        assert first.identity.subject.startswith(house.server.issuer + " ")
        other = await house.connect(house.consent(login_hint="bob@gmail.test"))
        assert other.identity.address == "bob@gmail.test"
        assert other.identity.subject != first.identity.subject

    @pytest.mark.parametrize(
        "words",
        [
            {"wrongNonce": True},
            {"idTokenBadSignature": True},
            {"idTokenAudience": "another-client"},
            {"idTokenAudience": [CLIENT_ID, "another-client"]},
            {"idToken": {"azp": "another-client"}},
            {"idToken": {"iss": "https://evil.example"}},
            {"idToken": {"iss": None}},
            {"idToken": {"exp": 1}},
            {"idToken": {"exp": None}},
            {"idToken": {"iat": 99999999999}},
            {"idToken": {"sub": None}},
            {"idToken": {"nonce": None}},
        ],
        ids=str,
    )
    async def test_an_id_token_that_proves_nothing_connects_nothing(self, house: House, words: dict[str, Any]) -> None:
        await house.server.control(**words)
        assert (await house.fails(house.connect())).code == "id_token_invalid"

    async def test_keys_that_cannot_be_had_are_the_provider_s_trouble(self, house: House) -> None:
        await house.server.control(failNext={"path": "jwks", "status": 503})
        assert (await house.fails(house.connect())).code == "provider_unavailable"
        assert (await house.connect()).identity.address == LOGIN

    async def test_without_an_address_in_the_id_token_the_profile_is_asked(self, house: House) -> None:
        await house.server.control(idToken={"email": None, "preferred_username": None})
        assert (await house.connect()).identity.address == LOGIN
        assert house.calls("profile", "ok") == 1

    async def test_an_identity_that_nobody_tells_is_unknown(self, house: House) -> None:
        await house.server.control(
            idToken={"email": None, "preferred_username": None}, failNext={"path": self.profile, "body": {}}
        )
        assert (await house.fails(house.connect())).code == "identity_unknown"

    @pytest.mark.parametrize(
        "failure",
        [{"status": 503}, {"status": 429}, {"html": True}, {"body": {}}, {"status": 403, "body": {}}],
        ids=str,
    )
    async def test_a_profile_that_says_nothing_is_no_refusal(self, house: House, failure: dict[str, Any]) -> None:
        secrets = (await house.connect()).secrets
        await house.server.control(failNext={"path": self.profile, "headers": {"Retry-After": "3"}, **failure})
        with pytest.raises(ProviderUnavailable) as caught:
            await house.connector.address(secrets)
        house.note(caught.value)
        assert caught.value.retry_after == (3 if failure.get("status") in {503, 429} else None)

    async def test_without_a_client_nobody_is_sent_anywhere(self, server: OAuthServer, house: House) -> None:
        settings = settings_for(server, google_client_id="", microsoft_client_id="")
        async with connectors(settings, CollectorRegistry()) as found:
            connector = found.by_provider[self.provider]
            assert not connector.ready
            with pytest.raises(ConnectFailed, match="has no client") as caught:
                connector.consent_url(house.consent())
            assert caught.value.code == "client_broken"
