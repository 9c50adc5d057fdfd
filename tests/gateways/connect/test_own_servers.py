"""Mailboxes on servers of somebody's own: logged in to for real, by password or by consent and XOAUTH2."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateways.local_ports import free_port
from gateways.local_servers import Servers
from tests.support.connect_house import (
    CLIENT_ID,
    CLIENT_SECRET,
    Browser,
    ConnectHouse,
    connect_house,
    connecting_at,
    served_at,
)
from tests.support.connected import Person
from tests.support.http_house import bearer
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import ImapServer, SmtpServer
from tests.support.servers import create_database, drop_database

ADA = "ada@mail.test"
PASSWORD, OTHER = "canary-password-5f3a ", "canary-password-of-imap"
MAIL = "https://mail.google.com/"


@dataclass
class MailHouse:
    """A house, and two mail servers that know Ada."""

    house: ConnectHouse
    smtp: SmtpServer
    imap: ImapServer

    def body(self, who: Person, **changes: Any) -> dict[str, Any]:
        return {
            "userId": who.id,
            "email": ADA,
            "smtp": {"host": "127.0.0.1", "port": self.smtp.tls_port, "security": "tls", "username": ADA},
            "imap": {"host": "127.0.0.1", "port": self.imap.starttls_port, "security": "starttls", "username": ADA},
            "auth": "password",
            "password": PASSWORD,
        } | changes

    def by_oauth(self, who: Person, **changes: Any) -> dict[str, Any]:
        oauth = {
            "authorizeUrl": self.house.oauth.authorize_url,
            "tokenUrl": self.house.oauth.token_url,
            "clientId": CLIENT_ID,
            "clientSecret": CLIENT_SECRET,
            "scopes": ["openid", "offline_access", MAIL],
        }
        body = self.body(who, auth="xoauth2", oauth=oauth)
        del body["password"]
        return body | changes

    async def post(self, who: Person, body: Any, **headers: str) -> tuple[int, dict[str, Any], Any]:
        url = f"{self.house.url}/v1/connections/smtp"
        async with self.house.http.post(url, json=body, headers=bearer(who.key) | headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


@pytest.fixture(scope="module")
async def running(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MailHouse]:
    name, authority = f"smtp_{uuid.uuid4().hex}", Authority()
    database = create_database(servers, name)
    folder = tmp_path_factory.mktemp("house")
    async with connect_house(servers, database, f"{name}.", folder, settings={"tls": authority.trusting}) as house:
        users = {ADA: {"password": PASSWORD}}
        async with (
            SmtpServer(users, authority=authority, oauth=house.oauth.issuer) as smtp,
            ImapServer(users, authority=authority, oauth=house.oauth.issuer) as imap,
        ):
            yield MailHouse(house, smtp, imap)
    drop_database(servers, name)


@pytest.fixture
async def mail(running: MailHouse) -> MailHouse:
    await running.house.oauth.reset()
    await running.house.oauth.control(mode="strict")
    await running.smtp.reset()
    await running.imap.reset()
    return running


async def test_a_mailbox_by_password(mail: MailHouse) -> None:
    ada = await mail.house.person()
    status, body, headers = await mail.post(ada, mail.body(ada))
    assert status == 201, body
    assert (body["provider"], body["account"], body["state"], body["scopes"]) == ("smtp", ADA, "active", [])
    assert (body["userId"], body["tokenExpiresAt"], body["missingScopes"]) == (ada.id, None, [])
    assert headers["Location"] == f"/v1/connections/{body['id']}"
    assert "X-Log-Position" in headers
    assert await mail.house.shown(ada, body["id"]) | {"lastUsedAt": None} == body | {"lastUsedAt": None}
    assert [one["ok"] for one in (await mail.smtp.told())["logins"]] == [True]
    assert [one["ok"] for one in (await mail.imap.told())["logins"]] == [True]
    held = await mail.house.connecting.vault.get(body["id"])
    assert held is not None
    assert held.secrets.servers is not None
    assert held.secrets.servers.smtp.password == held.secrets.servers.imap.password == PASSWORD


async def test_each_server_may_have_a_password_of_its_own(mail: MailHouse) -> None:
    ada = await mail.house.person()
    await mail.imap.user(ADA, password=OTHER)
    body = mail.body(ada)
    body["imap"]["password"] = OTHER
    assert (await mail.post(ada, body))[0] == 201
    del body["password"]
    assert (await mail.post(ada, body))[0] == 400
    body["smtp"]["password"] = PASSWORD
    assert (await mail.post(ada, body))[0] == 201


async def test_the_same_mailbox_again_is_the_same_connection(mail: MailHouse) -> None:
    """Also with an `Idempotency-Key`, and with the new password after a change."""
    ada = await mail.house.person()
    first = await mail.post(ada, mail.body(ada), **{"Idempotency-Key": "once"})
    again = await mail.post(ada, mail.body(ada, email=ADA.upper()), **{"Idempotency-Key": "once"})
    assert (first[0], again[0]) == (201, 201)
    assert first[1]["id"] == again[1]["id"]
    for server in (mail.smtp, mail.imap):
        await server.user(ADA, password=OTHER)
    assert (await mail.post(ada, mail.body(ada)))[1]["code"] == "login_failed"
    assert (await mail.post(ada, mail.body(ada, password=OTHER)))[1]["id"] == first[1]["id"]
    held = await mail.house.connecting.vault.get(first[1]["id"])
    assert held is not None
    assert held.secrets.servers is not None
    assert held.secrets.servers.smtp.password == OTHER
    assert len(await mail.house.listed(ada)) == 1


@pytest.mark.parametrize("server", ["smtp", "imap"])
@pytest.mark.parametrize("how", ["password", "port", "closed"])
async def test_a_login_that_fails_at_either_server_connects_nothing(mail: MailHouse, server: str, how: str) -> None:
    ada = await mail.house.person()
    body = mail.body(ada)
    if how == "password":
        body[server]["password"] = "canary-wrong"
    else:
        body[server]["port"] = mail.smtp.plain_port if how == "port" else free_port()
    status, said, _ = await mail.post(ada, body)
    assert (status, said["code"]) == (400, "login_failed")
    assert {"smtp": "(SMTP)", "imap": "(IMAP)"}[server] in said["detail"]
    assert "canary" not in str(said)
    assert await mail.house.listed(ada) == []
    assert await mail.house.inner.services.pool.fetchval("select count(*) from vault where user_id = $1", ada.id) == 0


async def test_private_hosts_are_refused_unless_the_operator_allows_them(mail: MailHouse) -> None:
    port, ada = free_port(), await mail.house.person()
    url = f"http://127.0.0.1:{port}"
    from tests.support.connect_house import providers_at

    settings = providers_at(mail.house.oauth, allow_private_hosts=False)
    async with (
        connecting_at(
            mail.house.inner, mail.house.oauth, url, settings=settings, allow_private_hosts=False
        ) as connecting,
        served_at(mail.house.inner, connecting, port),
    ):
        there = MailHouse(ConnectHouse(mail.house.inner, connecting, mail.house.oauth, url), mail.smtp, mail.imap)
        for host in ("127.0.0.1", "localhost", "10.0.0.1", "[::1]", "0x7f.1", "127。0。0。1", "169.254.169.254"):
            body = there.body(ada)
            body["smtp"] |= {"host": host, "port": 465}
            status, said, _ = await there.post(ada, body)
            assert (status, said["code"]) == (400, "host_not_allowed"), host
            assert "(SMTP)" in said["detail"]
        body = there.body(ada)
        body["smtp"]["security"] = body["imap"]["security"] = "none"
        status, said, _ = await there.post(ada, body)
        assert (status, [one["pointer"] for one in said["errors"]]) == (400, ["/smtp/security", "/imap/security"])
        status, said, _ = await there.post(ada, there.by_oauth(ada))
        assert (status, said["code"]) == (400, "host_not_allowed")
    assert (await mail.smtp.told())["logins"] == []


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"userId": None}, ["/userId"]),
        ({"userId": "usr_x"}, ["/userId"]),
        ({"email": "no address"}, ["/email"]),
        ({"auth": "oauth"}, ["/auth"]),
        ({"auth": ["password"]}, ["/auth"]),
        ({"password": None}, ["/password", "/password"]),
        ({"password": 1}, ["/password", "/password", "/password"]),
        ({"password": "a\nb"}, ["/password", "/password", "/password"]),
        ({"more": 1}, ["/more"]),
        ({"oauth": {}}, ["/oauth"]),
        ({"smtp": None}, ["/smtp"]),
        ({"smtp": "x"}, ["/smtp"]),
        ({"smtp": {"host": "h", "port": 0, "security": "ssl", "username": ""}}, [
            "/smtp/security", "/smtp/port", "/smtp/username",
        ]),
        ({"smtp": {"host": "h", "port": 1.5, "security": "tls", "username": "u", "x": 1}}, ["/smtp/x", "/smtp/port"]),
        ({"smtp": {"host": "h", "port": True, "security": "tls", "username": "u"}}, ["/smtp/port"]),
        ({"smtp": {}}, ["/smtp/security", "/smtp/host", "/smtp/port", "/smtp/username"]),
    ],
)  # fmt: skip
async def test_everything_that_is_wrong_is_told_at_once(
    mail: MailHouse, changes: dict[str, Any], pointers: list[str]
) -> None:
    ada = await mail.house.person()
    status, said, _ = await mail.post(ada, mail.body(ada, **changes))
    assert (status, said["code"]) == (400, "invalid_request")
    assert [fault["pointer"] for fault in said["errors"]] == pointers
    assert PASSWORD not in str(said)
    assert (await mail.smtp.told())["logins"] == []


@pytest.mark.parametrize(
    ("oauth", "pointers"),
    [
        (None, ["/oauth"]),
        ({}, ["/oauth/authorizeUrl", "/oauth/tokenUrl", "/oauth/clientId", "/oauth/scopes"]),
        ({"scopes": []}, ["/oauth/scopes"]),
        ({"scopes": ["a b"]}, ["/oauth/scopes"]),
        ({"scopes": "a"}, ["/oauth/scopes"]),
        ({"clientSecret": 5}, ["/oauth/clientSecret"]),
    ],
)
async def test_what_is_wrong_with_an_authorization_server(
    mail: MailHouse, oauth: dict[str, Any] | None, pointers: list[str]
) -> None:
    ada = await mail.house.person()
    body = mail.by_oauth(ada)
    body["oauth"] = None if oauth is None else {} if oauth == {} else body["oauth"] | oauth
    status, said, _ = await mail.post(ada, body)
    assert (status, [fault["pointer"] for fault in said["errors"]]) == (400, pointers)


async def test_only_for_a_user_of_ones_own(mail: MailHouse) -> None:
    ada, bob = await mail.house.person(), await mail.house.person()
    assert (await mail.post(ada, mail.body(bob)))[0] == 404
    assert (await mail.post(ada, mail.body(ada, userId="usr_" + "0" * 26)))[0] == 404
    narrow = Person(
        mail.house.inner, ada.account, await mail.house.inner.key(ada.account, "connections:read"), ada.said
    )
    assert (await mail.post(narrow, mail.body(ada)))[1]["code"] == "scope_missing"
    assert (await mail.smtp.told())["logins"] == []


async def test_a_mailbox_by_consent(mail: MailHouse) -> None:
    """A ticket first; after consent the token logs in to both servers. It can be renewed without naming them again."""
    ada, browser = await mail.house.person(), Browser(mail.house)
    status, said, _ = await mail.post(ada, mail.by_oauth(ada))
    assert (status, set(said)) == (202, {"url"})
    end = await browser.get(await browser.to_callback(said["url"], login=ADA))
    assert end.location.startswith(f"{mail.house.url}/connect?connectionId="), end
    (shown,) = await mail.house.listed(ada)
    assert (shown["provider"], shown["account"], shown["state"]) == ("smtp", ADA, "active")
    assert {one["method"].upper() for one in (await mail.imap.told())["logins"]} == {"XOAUTH2"}
    again = await mail.house.walk(ada, "smtp", login=ADA, connectionId=shown["id"])
    assert again == {"connectionId": shown["id"], "status": "connected"}


async def test_consent_of_somebody_who_has_no_such_mailbox(mail: MailHouse) -> None:
    ada, browser = await mail.house.person(), Browser(mail.house)
    _, said, _ = await mail.post(ada, mail.by_oauth(ada))
    end = await browser.get(await browser.to_callback(said["url"], login="bob@mail.test"))
    assert end.location == f"{mail.house.url}/connect?error=login_failed"
    assert "did not let us in" in (await browser.get(end.location)).text
    assert await mail.house.listed(ada) == []


async def test_a_connection_by_password_is_not_renewed_by_consent(mail: MailHouse) -> None:
    ada = await mail.house.person()
    _, body, _ = await mail.post(ada, mail.body(ada))
    status, said = await mail.house.asked_for_ticket(ada.id, "smtp", ada.key, connectionId=body["id"])
    assert (status, said["errors"][0]["pointer"]) == (400, "/query/connectionId")


async def test_the_login_is_on_record(mail: MailHouse) -> None:
    """Who used the password, for what, and when: within two seconds, and with no round trip for it."""
    from tests.support.waiting import until

    ada = await mail.house.person()
    _, body, _ = await mail.post(ada, mail.body(ada))

    async def used() -> bool:
        return (await mail.house.shown(ada, body["id"]))["lastUsedAt"] is not None

    await until(used, seconds=5)
