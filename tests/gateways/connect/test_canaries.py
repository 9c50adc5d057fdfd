"""What is secret in a connect is found nowhere but in the vault, sealed: looked for wherever we write (C11, J-08)."""

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from prometheus_client import generate_latest

from tests.support.connect_house import BACK, CLIENT_SECRET, Browser, ConnectHouse
from tests.support.connected import Person
from tests.support.everywhere import tables_of, topics_of
from tests.support.http_house import bearer

ADA = "ada@gmail.test"


@dataclass
class Everything:
    """All that was written or said, by where."""

    lines: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    async def places(self, house: ConnectHouse) -> dict[str, str]:
        services = house.inner.services
        async with house.http.get(f"{house.url}/metrics") as answer:
            metrics = await answer.text()
        found = {
            "logs": "\n".join(self.lines),
            "answers": "\n".join(self.answers),
            "metrics": metrics + generate_latest(house.inner.house.metrics).decode(),
            "the log": await the_log(services.kafka or "", house.inner.house.prefix),
        }
        found |= {table: said.decode() for table, said in (await tables_of(services.pool)).items()}
        assert "kept.vault" in found
        return found


async def the_log(kafka: str, prefix: str) -> str:
    """Keys, headers and values of every record of every topic of this house."""
    said = b"\n".join((await topics_of(kafka, prefix)).values())
    assert said
    return said.decode("utf-8", "replace")


def spelled(secret: str) -> set[str]:
    """As it stands, as a URL has it, and as Postgres shows bytes."""
    return {secret, quote(secret, safe=""), secret.encode().hex()}


@pytest.fixture
def everything() -> Iterator[Everything]:
    """Every line that any logger has, however unimportant."""
    found = Everything()

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.lines.append(f"{record.name} {self.format(record)} {record.__dict__}")

    root, notes = logging.getLogger(), Notes(logging.DEBUG)
    level = root.level
    root.addHandler(notes)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(notes)
    root.setLevel(level)


class Watched(Browser):
    """A browser whose answers are looked through; addresses that lead to the provider or back to us are not ours to hide."""

    def __init__(self, house: ConnectHouse, everything: Everything) -> None:
        super().__init__(house)
        self._everything = everything
        self.secrets: set[str] = set()

    async def ask(self, method, url, *, data=None, **headers):
        page = await super().ask(method, url, data=data, **headers)
        leads_on = page.location.startswith(self._house.oauth.issuer) or (
            method == "POST" and "/callback" in page.location
        )
        said = [f"{name}: {value}" for name, value in page.headers.items() if name != "Set-Cookie"]
        self._everything.answers += [page.text, *([] if leads_on else said)]
        self.secrets |= {morsel.value for name, morsel in page.cookies.items() if morsel.value and "open" not in name}
        return page

    async def to_callback(self, ticket: str, *, login: str | None = None) -> str:
        callback = await super().to_callback(ticket, login=login)
        for url in (ticket, callback):
            said = dict(parse_qsl(urlsplit(url).query))
            self.secrets |= {said[name] for name in ("ticket", "code", "state") if name in said}
        return callback


async def walked(house: ConnectHouse, browser: Watched, who: Person, **query: str) -> str:
    """Where a consent ends."""
    callback = await browser.to_callback(await house.begin(who, **query), login=ADA)
    return (await browser.get(callback)).location


async def tokens_of(house: ConnectHouse, connection: str) -> set[str]:
    held = await house.connecting.vault.get(connection)
    assert held is not None
    return {held.secrets.access_token or "", held.secrets.refresh_token or ""} - {""}


@pytest.fixture
async def watched(house: ConnectHouse, everything: Everything) -> AsyncIterator[Watched]:
    """Whatever secrets a test plants are looked for at its end."""
    browser = Watched(house, everything)
    yield browser
    assert len(browser.secrets) >= 4
    places = await everything.places(house)
    for secret in browser.secrets | {CLIENT_SECRET}:
        assert len(secret) >= 12, "short enough to be found by chance"
        found = [place for place, text in places.items() if any(form in text for form in spelled(secret))]
        assert found == []
    assert "postledger" in places["metrics"]
    assert len(places["logs"]) > 1000
    for place in ("the log", "read.users", "kept.connect_tickets"):
        assert "usr_" in places[place], "what is no secret is found where it belongs"


async def test_of_a_consent_that_went_well(house: ConnectHouse, watched: Watched) -> None:
    """The tokens, code, state, ticket and cookies of one that ends at the product, and one that ends at the page."""
    ada = await house.person()
    end = await walked(house, watched, ada, returnUrl=BACK)
    connection = dict(parse_qsl(urlsplit(end).query))["connectionId"]
    watched.secrets |= await tokens_of(house, connection)
    await watched.get(await walked(house, watched, ada))
    watched.secrets |= await tokens_of(house, connection)


@pytest.mark.parametrize(
    "failure",
    [
        {"status": 400, "error": "invalid_grant"},
        {"hugeBytes": 2_000_000},
        {"html": True},
        {"delayMs": 10_000},
        {"dropAfter": True},
        {"redirectTo": "https://evil.example/?token=canary-of-a-redirect"},
        {"status": 400, "body": '{"error": "canary-of-an-error", "error_description": "canary-of-a-description"}'},
    ],
    ids=str,
)
async def test_of_one_that_failed(house: ConnectHouse, watched: Watched, failure: dict[str, object]) -> None:
    await house.oauth.control(failNext={"path": "token", **failure})
    assert (await walked(house, watched, await house.person(), returnUrl=BACK)).startswith(f"{BACK}?error=")
    watched.secrets |= {"canary-of-a-redirect", "canary-of-an-error", "canary-of-a-description"}


async def test_of_one_that_was_refused_here(house: ConnectHouse, watched: Watched) -> None:
    """A state from another browser, one that is used, one in a form, and one said twice."""
    ada = await house.person()
    callback = await watched.to_callback(await house.begin(ada, returnUrl=BACK), login=ADA)
    assert (await Watched(house, watched._everything).get(callback)).status == 400
    assert (await watched.get(f"{callback}&state=canary-second-state")).status == 400
    parts = urlsplit(callback)
    posted = await watched.ask("POST", parts._replace(query="").geturl(), data=dict(parse_qsl(parts.query)))
    assert posted.status == 303
    end = await watched.get(callback)
    watched.secrets |= await tokens_of(house, dict(parse_qsl(urlsplit(end.location).query))["connectionId"])
    assert (await watched.get(callback)).status == 400
    watched.secrets |= {"canary-second-state"}


async def test_of_a_mailbox_that_is_another(house: ConnectHouse, watched: Watched) -> None:
    ada = await house.person()
    connection = await house.connected(ada, login="first@gmail.test")
    watched.secrets |= await tokens_of(house, connection)
    assert (await walked(house, watched, ada, returnUrl=BACK, connectionId=connection)).endswith(
        "error=another_mailbox"
    )
    watched.secrets |= await tokens_of(house, connection)


async def test_of_passwords_that_were_wrong(house: ConnectHouse, watched: Watched) -> None:
    """In every member that could be taken for one, whatever is wrong with it."""
    ada = await house.person()
    await watched.to_callback(await house.begin(ada, returnUrl=BACK), login=ADA)
    server = {"host": "127.0.0.1", "port": 9, "security": "tls", "username": ADA, "password": "canary-own-password"}
    oauth = {
        "authorizeUrl": "x",
        "tokenUrl": "y",
        "clientId": "c",
        "clientSecret": "canary-own-secret",
        "scopes": ["a"],
    }
    body = {
        "userId": ada.id,
        "email": ADA,
        "smtp": server,
        "imap": server,
        "auth": "password",
        "password": "canary-of-both",
    }
    hostile = [
        body,
        body | {"auth": "xoauth2", "oauth": oauth},
        body | {"password": ["canary-in-a-list"]},
        body | {"password": "canary-with\nanother-line"},
        body | {"oauth": oauth},
        body | {"smtp": server | {"password": {"canary-in-an-object": 1}}},
    ]
    for said in hostile:
        async with house.http.post(f"{house.url}/v1/connections/smtp", json=said, headers=bearer(ada.key)) as answer:
            assert answer.status == 400
            watched._everything.answers.append(await answer.text())
    raw = b'{"password": "canary-in-broken-json"'
    async with house.http.post(f"{house.url}/v1/connections/smtp", data=raw, headers=bearer(ada.key)) as answer:
        assert answer.status == 400
        watched._everything.answers.append(await answer.text())
    watched.secrets |= {
        "canary-own-password", "canary-own-secret", "canary-of-both", "canary-in-a-list", "another-line",
        "canary-in-an-object", "canary-in-broken-json",
    }  # fmt: skip
