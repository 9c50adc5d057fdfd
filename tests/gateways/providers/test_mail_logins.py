"""Logins to real mail servers, as `POST /v1/connections/smtp` and XOAUTH2 make them, and all the ways they fail in."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from domain.tokens import MailServer, OwnServers
from tests.gateways.providers.mail_logins import ALICE, BOTH, PASSWORD, TOKEN, Logins, Protocol, named, no_secret_told
from tests.support.mail_servers.authority import Authority
from tests.support.mail_servers.double import ImapServer, MailDouble, SmtpServer

SECURITIES: list[Literal["tls", "starttls", "none"]] = ["tls", "starttls", "none"]


@pytest.fixture(autouse=True)
def no_secret_is_told(logins: Logins, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with no_secret_told(logins, caplog):
        yield


# ── that work ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("token", [None, TOKEN], ids=["password", "token"])
@pytest.mark.parametrize("security", SECURITIES)
async def test_a_login_is_a_login_to_both(
    logins: Logins, smtp_server: SmtpServer, imap_server: ImapServer, security: Any, token: str | None
) -> None:
    logins.servers = OwnServers(named(smtp_server, security), named(imap_server, security))
    await logins.log_in(token)
    for server in (smtp_server, imap_server):
        (login,) = (await server.told())["logins"]
        assert (login["name"], login["method"], login["ok"]) == (ALICE, "XOAUTH2" if token else "PLAIN", True)
        assert login["security"] == ("plain" if security == "none" else security)


@pytest.mark.parametrize(
    ("mechanisms", "method"), [(["LOGIN"], "LOGIN"), (["LOGIN", "PLAIN"], "PLAIN"), (["PLAIN", "XOAUTH2"], "PLAIN")]
)
async def test_a_password_goes_by_what_is_offered(
    logins: Logins, smtp_server: SmtpServer, mechanisms: list[str], method: str
) -> None:
    await smtp_server.set(mechanisms=mechanisms)
    await logins.log_in()
    assert [login["method"] for login in (await smtp_server.told())["logins"]] == [method]


async def test_imap_without_sasl_takes_the_command_login(logins: Logins, imap_server: ImapServer) -> None:
    await imap_server.user(ALICE, password='a "quoted\\ one')
    logins.change("imap", password='a "quoted\\ one')
    await imap_server.set(mechanisms=[])
    await logins.log_in()
    assert [login["method"] for login in (await imap_server.told())["logins"]] == ["LOGIN"]


@pytest.mark.parametrize("token", [None, TOKEN], ids=["password", "token"])
async def test_imap_may_want_to_be_asked_first(logins: Logins, imap_server: ImapServer, token: str | None) -> None:
    """Without SASL-IR, what is presented waits for the server's word."""
    await imap_server.set(saslIr=False)
    await logins.log_in(token)


# ── that are refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("protocol", BOTH)
async def test_a_wrong_password_is_presented_once(
    logins: Logins, double: Callable[[Protocol], MailDouble], protocol: Protocol
) -> None:
    logins.change(protocol, password="canary-wrong")
    failure = await logins.fails()
    assert failure.code == "login_failed"
    assert protocol.upper() in failure.sentence
    assert "user name and password" in failure.sentence
    assert len((await double(protocol).told())["logins"]) == 1


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_refused_token_takes_no_time(
    logins: Logins, double: Callable[[Protocol], MailDouble], protocol: Protocol, at_once: bool
) -> None:
    """The server gives its reason first and waits for an empty line."""
    await double("imap").set(saslIr=at_once)
    await double(protocol).user(ALICE, token="canary-another")
    began = time.perf_counter()
    failure = await logins.fails(TOKEN)
    assert time.perf_counter() - began < 1
    assert failure.code == "login_failed"
    assert "access token" in failure.sentence
    (login,) = (await double(protocol).told())["logins"]
    assert login["ended"] == "empty line"


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(("token", "offered"), [(TOKEN, ["PLAIN"]), (None, ["XOAUTH2"])], ids=["token", "password"])
async def test_what_is_not_offered_is_not_tried(
    logins: Logins,
    double: Callable[[Protocol], MailDouble],
    protocol: Protocol,
    token: str | None,
    offered: list[str],
) -> None:
    await double(protocol).set(mechanisms=offered)
    if protocol == "imap":
        await double(protocol).set(loginDisabled=True)
    failure = await logins.fails(token)
    assert failure.code == "login_failed"
    assert "does not offer" in failure.sentence
    assert (await double(protocol).told())["logins"] == []


@pytest.mark.parametrize("username", ["alice\r\nRCPT TO:<a@b>", "alice\x01auth=Bearer x", "alice\0", "a\nb"])
async def test_a_name_that_would_be_a_command_is_told_to_nobody(logins: Logins, username: str) -> None:
    logins.change("smtp", username=username)
    failure = await logins.fails()
    assert failure.code == "login_failed"
    assert "control characters" in failure.sentence


# ── servers that fail ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("protocol", "command", "failure", "words"),
    [
        ("smtp", "CONNECT", {"dropBefore": True}, "ended the connection"),
        ("smtp", "CONNECT", {"reply": "421 4.7.0 canary try again later"}, "just now"),
        ("smtp", "CONNECT", {"reply": "554 5.7.1 canary go away"}, "just now"),
        ("smtp", "CONNECT", {"hugeBytes": 1 << 28}, "as a mail server does"),
        ("smtp", "EHLO", {"reply": "502 canary"}, "as a mail server does"),
        ("smtp", "EHLO", {"dropBefore": True}, "ended the connection"),
        ("smtp", "AUTH", {"reply": "454 4.7.0 canary temporary"}, "just now"),
        ("smtp", "AUTH", {"reply": "421 4.7.0 canary too many"}, "just now"),
        ("smtp", "AUTH", {"dropBefore": True}, "ended the connection"),
        ("smtp", "AUTH", {"reply": "canary"}, "as a mail server does"),
        ("imap", "CONNECT", {"dropBefore": True}, "ended the connection"),
        ("imap", "CONNECT", {"reply": "* BYE canary overloaded"}, "just now"),
        ("imap", "CONNECT", {"reply": "* PREAUTH canary welcome"}, "as a mail server does"),
        ("imap", "CONNECT", {"reply": "220 canary ESMTP"}, "as a mail server does"),
        ("imap", "CONNECT", {"hugeBytes": 1 << 28}, "as a mail server does"),
        ("imap", "CAPABILITY", {"reply": "* BYE canary"}, "ended the connection"),
        ("imap", "CAPABILITY", {"hugeBytes": 1 << 28}, "as a mail server does"),
        ("imap", "AUTHENTICATE", {"dropBefore": True}, "ended the connection"),
        ("imap", "AUTHENTICATE", {"reply": "{tag} NO [UNAVAILABLE] canary"}, "just now"),
        ("imap", "AUTHENTICATE", {"reply": "canary what"}, "as a mail server does"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
async def test_a_server_that_fails_has_not_refused(
    logins: Logins,
    double: Callable[[Protocol], MailDouble],
    protocol: Protocol,
    *,
    command: str,
    failure: dict[str, Any],
    words: str,
) -> None:
    if "{tag}" in failure.get("reply", ""):
        failure = {"reply": "a2" + failure["reply"].removeprefix("{tag}")}
    await double(protocol).fail(command, **failure)
    found = await logins.fails()
    assert found.code == "provider_unavailable"
    assert words in found.sentence
    assert "canary" not in found.sentence
    assert protocol.upper() in found.sentence


@pytest.mark.parametrize("protocol", BOTH)
async def test_the_time_of_both_logins_is_bounded(
    logins: Logins, double: Callable[[Protocol], MailDouble], protocol: Protocol
) -> None:
    await double(protocol).fail("CONNECT", delayMs=3000)
    began = time.perf_counter()
    failure = await logins.fails(seconds=0.5)
    assert time.perf_counter() - began < 2.5
    assert failure.code == "provider_unavailable"
    assert f"({protocol.upper()}) took too long" in failure.sentence
    labels = {"provider": "smtp", "operation": f"{protocol}_login", "outcome": "timed_out"}
    assert logins.registry.get_sample_value("postledger_provider_calls_total", labels) == 1


async def test_a_server_that_answers_slowly_all_the_time_is_cut_off(logins: Logins, smtp_server: SmtpServer) -> None:
    await smtp_server.set(slowMs=300)
    began = time.perf_counter()
    assert (await logins.fails(seconds=0.7)).code == "provider_unavailable"
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("protocol", BOTH)
async def test_nobody_there(logins: Logins, protocol: Protocol, free_port: int) -> None:
    logins.change(protocol, port=free_port)
    failure = await logins.fails()
    assert (failure.code, "could not be reached" in failure.sentence) == ("provider_unavailable", True)


async def test_no_such_name(logins: Logins) -> None:
    logins.change("smtp", host="no-such-host.invalid")
    assert (await logins.fails()).code == "provider_unavailable"


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("protocol", BOTH)
async def test_no_starttls_no_login(
    logins: Logins, double: Callable[[Protocol], MailDouble], protocol: Protocol
) -> None:
    """Whoever takes the offer away in between does not get the password."""
    await double(protocol).set(starttls=False)
    logins.change(protocol, port=double(protocol).starttls_port, security="starttls")
    failure = await logins.fails()
    assert failure.code == "provider_unavailable"
    assert "does not offer STARTTLS" in failure.sentence
    assert (await double(protocol).told())["logins"] == []


@pytest.mark.parametrize("protocol", BOTH)
async def test_tls_with_a_server_that_speaks_none(
    logins: Logins, double: Callable[[Protocol], MailDouble], protocol: Protocol
) -> None:
    logins.change(protocol, port=double(protocol).plain_port)
    failure = await logins.fails()
    assert (failure.code, "does not speak TLS" in failure.sentence) == ("provider_unavailable", True)


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_certificate_of_another_name_is_no_certificate(
    logins: Logins, authority: Authority, protocol: Protocol, security: Literal["tls", "starttls"]
) -> None:
    kind = SmtpServer if protocol == "smtp" else ImapServer
    async with kind({ALICE: {"password": PASSWORD}}, authority=authority, names=("mail.example.org",)) as other:
        logins.change(protocol, port=named(other, security).port, security=security)
        failure = await logins.fails()
        assert (failure.code, "certificate" in failure.sentence) == ("provider_unavailable", True)
        assert (await other.told())["logins"] == []


@pytest.mark.parametrize("protocol", BOTH)
async def test_a_certificate_of_nobody_s_is_none_either(logins: Logins, protocol: Protocol) -> None:
    kind = SmtpServer if protocol == "smtp" else ImapServer
    async with kind({ALICE: {"password": PASSWORD}}, authority=Authority()) as stranger:
        logins.change(protocol, port=stranger.tls_port)
        assert "certificate" in (await logins.fails()).sentence


# ── the guard ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "①②⑦.0.0.1", "0x7f.1", "[::1]", "localhost.", "10.0.0.1"]
)
async def test_a_host_of_our_own_is_not_connected_to(
    logins: Logins, double: Callable[[Protocol], MailDouble], protocol: Protocol, host: str
) -> None:
    logins.servers = OwnServers(*(MailServer(host, 993, "tls", ALICE, PASSWORD) for _ in range(2)))
    failure = await logins.fails(private=False)
    assert failure.code == "host_not_allowed"
    assert (await double(protocol).told())["connections"] == 0


@pytest.mark.parametrize(
    ("port", "security"), [(22, "tls"), (80, "tls"), (5432, "tls"), (9092, "starttls"), (25, "none"), (143, "none")]
)
async def test_neither_is_another_service_or_one_without_tls(logins: Logins, port: int, security: Any) -> None:
    logins.change("smtp", host="mail.example.org", port=port, security=security)
    assert (await logins.fails(private=False)).code == "host_not_allowed"
