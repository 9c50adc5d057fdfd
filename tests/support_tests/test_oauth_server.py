"""The authorization server of the tests, judged by Authlib: it must be as strict as it says, and fail as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.oauth_server.server import Client, OAuthServer

CALLBACK = "http://127.0.0.1:9/callback"
VERIFIER = "v" * 64
CLIENTS = {mode: Client(mode, f"{mode}-secret~.", (CALLBACK,), mode=mode) for mode in ("strict", "google", "microsoft")}
SCOPES = {
    "strict": "openid email offline_access https://mail.google.com/",
    "google": "openid email https://www.googleapis.com/auth/gmail.compose https://www.googleapis.com/auth/gmail.readonly",
    "microsoft": "openid email profile offline_access User.Read https://graph.microsoft.com/Mail.ReadWrite Mail.Send",
}
GOOGLE = {"access_type": "offline", "prompt": "consent", "include_granted_scopes": "true"}


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[OAuthServer]:
    async with OAuthServer(*CLIENTS.values()) as server:
        yield server


@pytest.fixture
async def server(running: OAuthServer) -> OAuthServer:
    await running.reset()
    return running


@dataclass
class Connected:
    """A client that has been through consent."""

    server: OAuthServer
    mode: str
    token: dict[str, Any]
    callback: str

    async def refresh(self, token: str | None = None) -> dict[str, Any]:
        async with oauth(self.mode, self.token["scope"]) as client:
            return await client.refresh_token(self.server.token_url, token or self.token["refresh_token"])


def oauth(mode: str, scope: str | None = None) -> AsyncOAuth2Client:
    client = CLIENTS[mode]
    return AsyncOAuth2Client(
        client.id,
        client.secret,
        scope=scope or SCOPES[mode],
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
        timeout=10,
        trust_env=False,
    )


def address(server: OAuthServer, client: AsyncOAuth2Client, mode: str, **words: str) -> str:
    extra = GOOGLE if mode == "google" else {}
    return client.create_authorization_url(
        server.authorize_url, code_verifier=VERIFIER, nonce="n-1", **(extra | words)
    )[0]


async def connect(server: OAuthServer, mode: str, login: str = "bob@gmail.test", scope: str | None = None) -> Connected:
    async with oauth(mode, scope) as client:
        callback = await server.consent(address(server, client, mode), login=login)
        token = await client.fetch_token(server.token_url, authorization_response=callback, code_verifier=VERIFIER)
    return Connected(server, mode, token, callback)


async def refused(work: Any) -> str:
    with pytest.raises(OAuthError) as caught:
        await work
    return caught.value.error


def said(callback: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}


async def claims(server: OAuthServer, token: dict[str, Any]) -> dict[str, Any]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        keys = KeySet.import_key_set((await http.get(server.jwks_url)).json())
    return jwt.decode(token["id_token"], keys, algorithms=["RS256"]).claims


async def whoami(server: OAuthServer, path: str, token: str) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False) as http:
        return await http.get(server.issuer + path, headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("mode", ["strict", "google", "microsoft"])
async def test_consent_gives_tokens_that_say_who_it_was(server: OAuthServer, mode: str) -> None:
    connected = await connect(server, mode)
    told = await claims(server, connected.token)
    assert (told["email"], told["email_verified"], told["nonce"]) == ("bob@gmail.test", True, "n-1")
    assert (told["aud"], told["iss"]) == (CLIENTS[mode].id, server.issuer)
    assert told["sub"].isdigit()
    assert said(connected.callback)["iss"] == server.issuer
    assert connected.token["refresh_token"]
    assert (await server.counts())["users"]["bob@gmail.test"]["codeExchanges"] == 1


async def test_strict_rotates_and_ends_the_family_at_reuse(server: OAuthServer) -> None:
    connected = await connect(server, "strict")
    second = await connected.refresh()
    assert second["refresh_token"] != connected.token["refresh_token"]
    assert await refused(connected.refresh()) == "invalid_grant"
    assert await refused(connected.refresh(second["refresh_token"])) == "invalid_grant"
    assert await server.token(second["access_token"]) == {"alive": False}


async def test_google_keeps_its_one_refresh_token_and_does_not_repeat_it(server: OAuthServer) -> None:
    connected = await connect(server, "google")
    async with httpx2.AsyncClient(trust_env=False) as http:
        form = {"grant_type": "refresh_token", "refresh_token": connected.token["refresh_token"]}
        form |= {"client_id": CLIENTS["google"].id, "client_secret": CLIENTS["google"].secret}
        for _ in range(2):
            answer = await http.post(server.token_url, data=form)
            assert answer.status_code == 200
            assert "refresh_token" not in answer.json()
    assert "https://www.googleapis.com/auth/userinfo.email" in answer.json()["scope"].split()


async def test_google_gives_no_second_refresh_token_unless_asked_to_ask_again(server: OAuthServer) -> None:
    await connect(server, "google")
    async with oauth("google") as client:
        url = address(server, client, "google", prompt="select_account")
        callback = await server.consent(url, login="bob@gmail.test")
        token = await client.fetch_token(server.token_url, authorization_response=callback, code_verifier=VERIFIER)
    assert "refresh_token" not in token


async def test_microsoft_gives_a_new_refresh_token_and_keeps_the_old(server: OAuthServer) -> None:
    connected = await connect(server, "microsoft")
    second, third = await connected.refresh(), await connected.refresh()
    assert len({one["refresh_token"] for one in (connected.token, second, third)}) == 3
    assert (await connected.refresh(second["refresh_token"]))["access_token"]
    assert "offline_access" not in third["scope"].split()


async def test_a_wrong_verifier_a_used_code_and_another_redirect_are_refused(server: OAuthServer) -> None:
    async with oauth("strict") as client:
        for words in (
            {"code_verifier": "w" * 64},
            {"redirect_uri": "http://127.0.0.1:9/other", "code_verifier": VERIFIER},
        ):
            callback = await server.consent(address(server, client, "strict"))
            fetching = client.fetch_token(server.token_url, authorization_response=callback, **words)
            assert await refused(fetching) == "invalid_grant"
    connected = await connect(server, "strict")
    async with oauth("strict") as client:
        again = client.fetch_token(server.token_url, authorization_response=connected.callback, code_verifier=VERIFIER)
        assert await refused(again) == "invalid_grant"
    assert await server.token(connected.token["access_token"]) == {"alive": False}


@pytest.mark.parametrize(
    "change",
    [
        ("&code_challenge_method=S256", "&code_challenge_method=plain"),
        ("code_challenge=", "x="),
    ],
)
async def test_only_s256_will_do(server: OAuthServer, change: tuple[str, str]) -> None:
    async with oauth("strict") as client:
        callback = await server.consent(address(server, client, "strict").replace(*change))
    assert said(callback)["error"] == "invalid_request"


async def test_an_unknown_redirect_keeps_the_user_here(server: OAuthServer) -> None:
    async with oauth("strict") as client:
        url = address(server, client, "strict").replace("callback", "elsewhere")
    with pytest.raises(RuntimeError, match="redirect_uri"):
        await server.consent(url)


async def test_the_user_unticks_and_refuses(server: OAuthServer) -> None:
    await server.control(grantScopes=["email", "https://www.googleapis.com/auth/gmail.readonly"], denyNext=0)
    granted = (await connect(server, "google")).token["scope"].split()
    assert "https://www.googleapis.com/auth/gmail.readonly" in granted
    assert "https://www.googleapis.com/auth/gmail.compose" not in granted
    await server.control(denyNext=True)
    async with oauth("google") as client:
        told = said(await server.consent(address(server, client, "google")))
    assert told["error"] == "access_denied"
    assert "<b onmouseover" in told["error_description"]
    assert "code" not in told


async def test_an_answer_that_is_lost_costs_the_account_where_tokens_rotate(server: OAuthServer) -> None:
    connected = await connect(server, "strict")
    await server.control(failNext={"path": "token", "dropAfter": True})
    with pytest.raises(httpx2.RemoteProtocolError):
        await connected.refresh()
    assert await refused(connected.refresh()) == "invalid_grant"
    counts = (await server.counts())["users"]["bob@gmail.test"]
    assert (counts["refreshes"], counts["refusedRefreshes"]) == (1, 1)


async def test_a_request_that_is_lost_costs_nothing(server: OAuthServer) -> None:
    connected = await connect(server, "strict")
    await server.control(failNext={"path": "token", "dropBefore": True})
    with pytest.raises(httpx2.RemoteProtocolError):
        await connected.refresh()
    assert (await connected.refresh())["access_token"]


async def test_it_fails_as_often_and_as_it_is_told(server: OAuthServer) -> None:
    connected = await connect(server, "google")
    form = {"grant_type": "refresh_token", "refresh_token": connected.token["refresh_token"]}
    form |= {"client_id": "google", "client_secret": CLIENTS["google"].secret}
    await server.control(
        failNext=[
            {"times": 2, "status": 429, "error": "slow_down", "headers": {"Retry-After": "7"}},
            {"status": 502, "html": "<h1>Bad gateway</h1>"},
            {"redirectTo": "http://127.0.0.1:9/elsewhere"},
            {"body": "{", "contentType": "application/json"},
            {"delayMs": 200},
            {"client": "strict", "status": 500},
        ]
    )
    async with httpx2.AsyncClient(trust_env=False) as http:
        answers = [await http.post(server.token_url, data=form) for _ in range(5)]
        began = time.monotonic()
        slow = await http.post(server.token_url, data=form)
        assert time.monotonic() - began > 0.2
    assert [one.status_code for one in answers] == [429, 429, 502, 307, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[2].headers["content-type"].startswith("text/html")
    assert answers[4].text == "{"
    assert slow.json()["access_token"]
    told = await server.counts()
    assert (told["injected"]["token"], len(told["failures"])) == (6, 1)


async def test_an_answer_may_never_end(server: OAuthServer) -> None:
    await server.control(failNext={"path": "jwks", "hugeBytes": 1 << 40})
    async with httpx2.AsyncClient(trust_env=False) as http, http.stream("GET", server.jwks_url) as answer:
        seen = 0
        async for block in answer.aiter_raw():
            seen += len(block)
            if seen > 1 << 24:
                break
    assert (await whoami(server, "/jwks", "x")).status_code == 200


async def test_the_user_takes_it_back(server: OAuthServer) -> None:
    connected = await connect(server, "google")
    assert (await whoami(server, "/gmail/v1/users/me/profile", connected.token["access_token"])).status_code == 200
    assert await server.revoke("bob@gmail.test") == 1
    assert await refused(connected.refresh()) == "invalid_grant"
    assert (await whoami(server, "/gmail/v1/users/me/profile", connected.token["access_token"])).status_code == 401


async def test_each_revokes_in_its_own_way(server: OAuthServer) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        google = await connect(server, "google")
        for expected in (200, 400):  # no client, and either token ends both
            answer = await http.post(server.revoke_url, data={"token": google.token["access_token"]})
            assert answer.status_code == expected
        assert answer.json()["error"] == "invalid_token"
        assert await refused(google.refresh()) == "invalid_grant"
        microsoft = await connect(server, "microsoft")
        answer = await http.post(server.revoke_url, data={"token": microsoft.token["refresh_token"]})
        assert answer.status_code == 404
    strict = await connect(server, "strict")
    async with oauth("strict") as client:
        await client.revoke_token(server.revoke_url, strict.token["refresh_token"])
    assert await refused(strict.refresh()) == "invalid_grant"
    assert (await server.counts())["total"]["revocations"] == 2


async def test_an_expired_secret_is_the_apps_and_not_the_users(server: OAuthServer) -> None:
    connected = await connect(server, "microsoft")
    await server.control(clientSecretExpired=["microsoft"])
    with pytest.raises(OAuthError, match="AADSTS7000222") as caught:
        await connected.refresh()
    assert caught.value.error == "invalid_client"
    await server.control(clientSecretExpired=False)
    assert (await connected.refresh())["access_token"]


async def test_id_tokens_can_be_wrong_in_every_way(server: OAuthServer) -> None:
    await server.control(idTokenAudience="another", wrongNonce=True, idToken={"email_verified": False, "email": None})
    told = await claims(server, (await connect(server, "google")).token)
    assert told["aud"] == "another"
    assert told["nonce"] != "n-1"
    assert told["email_verified"] is False
    assert "email" not in told
    await server.control(idTokenBadSignature=True)
    forged = await connect(server, "google")
    with pytest.raises(Exception, match="bad_signature"):
        await claims(server, forged.token)


async def test_the_callback_can_name_another_issuer_or_none(server: OAuthServer) -> None:
    for word, expected in (("missing", None), ("https://evil.example", "https://evil.example")):
        await server.control(callbackIss=word)
        assert said((await connect(server, "google")).callback).get("iss") == expected


async def test_the_apis_know_whose_token_it_is(server: OAuthServer) -> None:
    await server.control(user={"login": "bob@gmail.test", "historyId": "987", "mail": None})
    google, microsoft = await connect(server, "google"), await connect(server, "microsoft")
    profile = (await whoami(server, "/gmail/v1/users/me/profile", google.token["access_token"])).json()
    assert (profile["emailAddress"], profile["historyId"]) == ("bob@gmail.test", "987")
    me = (await whoami(server, "/v1.0/me", microsoft.token["access_token"])).json()
    assert (me["mail"], me["userPrincipalName"]) == (None, "bob@gmail.test")
    unknown = await whoami(server, "/gmail/v1/users/me/profile", "made-up")
    assert (unknown.status_code, unknown.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    unknown = await whoami(server, "/v1.0/me", "made-up")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")
    assert (await whoami(server, "/v1.0/me", google.token["access_token"])).status_code == 403


async def test_access_tokens_live_as_long_as_they_are_told_to(server: OAuthServer) -> None:
    await server.control(accessTokenLifetime=1)
    connected = await connect(server, "google")
    assert connected.token["expires_in"] == 1
    async with asyncio.timeout(10):
        while (await whoami(server, "/gmail/v1/users/me/profile", connected.token["access_token"])).status_code == 200:
            await asyncio.sleep(0.05)
    assert (await connected.refresh())["access_token"]


async def test_ten_thousand_grants_are_sown_and_counted(server: OAuthServer) -> None:
    sown = await server.seed(10_000, client="google", scope="https://mail.google.com/", expires_in=60)
    assert len({one.refresh_token for one in sown}) == 10_000
    await server.control(tokenLatencyMs=100)
    one = Connected(
        server, "google", {"refresh_token": sown[-1].refresh_token, "scope": "https://mail.google.com/"}, ""
    )
    await asyncio.gather(*(one.refresh() for _ in range(3)))
    counts = (await server.counts())["users"]["user9999@gmail.test"]
    assert (counts["refreshes"], counts["maxConcurrent"], counts["inFlight"]) == (3, 3, 0)
    assert (await server.token(sown[0].access_token))["login"] == "user0@gmail.test"


async def test_a_word_that_it_does_not_know_is_refused(server: OAuthServer) -> None:
    with pytest.raises(ValueError, match="grantScope"):
        await server.control(grantScope=["email"])


async def test_clients_come_later_and_go_at_reset(server: OAuthServer) -> None:
    await server.add_client(Client("strict", CLIENTS["strict"].secret, ("http://localhost:10/here",)))
    async with oauth("strict") as client:
        client.redirect_uri = "http://localhost:10/here"
        callback = await server.consent(address(server, client, "strict"))
        assert callback.startswith("http://localhost:10/here?code=")
    await server.reset()
    assert (await connect(server, "strict")).token["access_token"]
