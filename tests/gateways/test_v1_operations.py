"""Operations: what is asked for and not known to be decided in time is `202`, and its end is told, whatever it is."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import FormData
from prometheus_client import CollectorRegistry

from domain.send_commands import CancelSend
from domain.users import DeleteUser
from domain.webhooks import EnableWebhook
from gateways.http.v1 import pending
from gateways.http.v1.operations import LAPSED_AFTER, SECRET_KEPT
from gateways.http.v1.pending import KINDS, Kind, named_by, operation_of
from gateways.local_servers import Servers
from gateways.log.command_log import CommandLog, OutcomeUnknown, TooLate
from gateways.log.decisions import Asked, Decisions
from gateways.stores.folded import FoldedPositions
from projections.decisions import KEPT_DAYS, of_commands, table_of
from schemas import commands, events, topics
from schemas.ids import new_id
from tests.support.connected import Person, person
from tests.support.http_house import HttpHouse, bearer, http_house, served
from tests.support.servers import create_database, drop_database

HOOK = {"url": "https://hooks.example.org/postledger"}
MEMBERS = {"operationId", "status", "messageId", "location", "code", "detail", "secret"}
VOCABULARIES = {
    "account_decisions": (commands.ACCOUNT, events.ACCOUNT),
    "connection_decisions": (commands.CONNECTION, events.CONNECTION),
    "send_decisions": (commands.SEND, events.SEND),
    "webhook_decisions": (commands.WEBHOOK, events.WEBHOOK),
}
Answer = tuple[int, Any, Any]


class Behind:
    """The tables, which are always a moment later than whoever waits for them can wait."""

    def __init__(self, folded: FoldedPositions) -> None:
        self._folded = folded

    async def reached(self, projection: str, topic: str, partition: int, position: int, *, seconds: float) -> None:
        await self._folded.reached(projection, topic, partition, position, seconds=20)
        await self._folded.reached(table_of(topic), topic, partition, position, seconds=20)
        raise TimeoutError


class NeverAcknowledged(CommandLog):
    """A log that takes what is appended, and whose word of that is lost."""

    async def append(self, *said: Any, **more: Any) -> tuple[int, int]:
        await super().append(*said, **more)
        raise OutcomeUnknown("the connection was reset")


@dataclass
class Late:
    """A door that is never told in time, before a house that is."""

    house: HttpHouse
    url: str
    who: Person

    async def asked(self, method: str, where: str, *, url: str = "", key: str = "", **more: Any) -> Answer:
        headers = bearer(key or self.who.key) | more.pop("headers", {})
        async with self.house.http.request(method, (url or self.house.url) + where, headers=headers, **more) as answer:
            text = await answer.text()
            return answer.status, await answer.json(content_type=None) if text else None, answer.headers

    async def operation(self, method: str, where: str, **more: Any) -> str:
        """Where to look what has come of this, as its answer says."""
        status, body, headers = await self.asked(method, where, url=self.url, **more)
        assert (status, body["status"]) == (202, "pending"), body
        assert headers["Location"] == f"/v1/operations/{body['operationId']}"
        assert (headers["Retry-After"], headers["Cache-Control"]) == ("1", "no-store")
        return str(headers["Location"])

    async def came_of(self, method: str, where: str, **more: Any) -> dict[str, Any]:
        """What has come of this."""
        return await self.told(await self.operation(method, where, **more))

    async def told(self, where: str, *, key: str = "") -> dict[str, Any]:
        status, body, headers = await self.asked("GET", where, key=key)
        assert status == 200, body
        assert set(body) == MEMBERS
        assert "X-Log-Position" in headers or body["status"] != "done"
        if "X-Log-Position" in headers:
            after = {"X-After-Position": headers["X-Log-Position"]}
            assert (await self.asked("GET", where, key=key, headers=after))[0] == 200
        return dict(body)

    async def done(self, method: str, where: str, **more: Any) -> str:
        """Where that is which has come of this."""
        body = await self.came_of(method, where, **more)
        assert (body["status"], body["code"], body["detail"]) == ("done", None, None), body
        return str(body["location"])

    async def refused(self, method: str, where: str, **more: Any) -> tuple[str, str | None]:
        body = await self.came_of(method, where, **more)
        assert body["status"] == "refused", body
        assert body["detail"].endswith(".")
        return body["code"], body["location"]


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpHouse]:
    name = f"operations_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path_factory.mktemp("house")) as house:
        yield house
    drop_database(servers, name)


@asynccontextmanager
async def deciding(house: HttpHouse, log: CommandLog, folded: Any) -> AsyncIterator[str]:
    """A door whose decisions go by this log and these tables."""
    services, tail = house.services, house.services.tail
    assert tail is not None

    def made(table: str) -> Decisions:
        said, heard = VOCABULARIES[table]
        return Decisions(log, tail, folded, commands=said, events=heard)

    async with served(
        replace(
            services,
            account_decisions=made("account_decisions"),
            connection_decisions=made("connection_decisions"),
            send_decisions=made("send_decisions"),
            webhook_decisions=made("webhook_decisions"),
            metrics=CollectorRegistry(),
        )
    ) as url:
        yield url


@pytest.fixture(scope="module")
async def door(house: HttpHouse) -> AsyncIterator[str]:
    async with deciding(house, house.services.command_log, Behind(house.services.folded)) as url:
        yield url


@pytest.fixture
async def late(house: HttpHouse, door: str) -> Late:
    account, key = await house.account()
    return Late(house, door, await person(house, account, key))


def mail(who: Person, **more: Any) -> dict[str, Any]:
    usual = {"userId": who.id, "subject": "Tea", "body": "At four.", "bodyFormat": "text", "to": ["bob@example.org"]}
    return usual | {"scheduledAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()} | more


# ── what comes of each request ────────────────────────────────────────────────────────────────────────────────────────


async def test_users_and_connections_that_were_made_or_ended(late: Late) -> None:
    ada = {"email": f"{new_id('ada')}@example.org", "displayName": "Ada"}
    keyed = {"Idempotency-Key": "signup"}
    where = await late.done("POST", "/v1/users", json=ada, headers=keyed)
    assert (await late.asked("GET", where))[1]["email"] == ada["email"]
    assert await late.done("POST", "/v1/users", json=ada, headers=keyed) == where, "the key stands for it"
    assert await late.refused("POST", "/v1/users", json=ada) == ("email_taken", where)
    other = ada | {"displayName": "Bob"}
    assert (await late.refused("POST", "/v1/users", json=other, headers=keyed))[0] == "idempotency_key_reused"
    connection = await late.who.connect()
    where_connection = f"/v1/connections/{connection}"
    for _ in range(2):
        assert await late.done("DELETE", where_connection) == where_connection
    assert (await late.asked("GET", where_connection))[1]["state"] == "revoked"
    assert (await late.came_of("DELETE", where))["status"] == "done"
    assert (await late.asked("GET", where))[0] == 404


async def test_a_consent_that_came_to_nothing_says_why(late: Late) -> None:
    connection = await late.who.connect(scopes=())
    command = await late.house.services.pool.fetchval(
        "select command from connection_decisions where subject = $1", connection
    )
    body = await late.told(earlier(late, pending.CONNECT, late.who.id, command, timedelta(0)))
    assert (body["status"], body["code"], body["location"]) == ("refused", "scopes_missing", None)


async def test_attachments_and_mails_that_were_made_or_changed(late: Late) -> None:
    await late.who.connect()
    file = FormData()
    file.add_field("file", b"x", filename="a.txt")
    attachment = await late.done("POST", f"/v1/attachments/upload?userId={late.who.id}", data=file)
    name = attachment.rpartition("/")[2]
    body = await late.came_of("POST", "/v1/messages/send", json=mail(late.who, attachments=[{"id": name}]))
    assert body["location"] == f"/v1/messages/{body['messageId']}"
    where = body["location"]
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    moved = {"json": {"scheduledAt": later}}
    for method, said in (("PATCH", moved), ("DELETE", {}), ("DELETE", {})):
        status, told, _ = await late.asked(method, where, url=late.url, **said)
        assert (status, told["messageId"]) == (202, body["messageId"])
        assert (await late.told(f"/v1/operations/{told['operationId']}"))["status"] == "done"
    assert await late.refused("PATCH", where, **moved) == ("too_late", None)
    found = (await late.asked("GET", where))[1]
    assert (found["status"], found["scheduledAt"]) == ("cancelled", later)
    assert (await late.refused("POST", f"{where}/retry"))[0] == "not_ended"
    assert (await late.refused("POST", "/v1/messages/send", json=mail(late.who, connectionId="con_" + "0" * 26)))[
        0
    ] == "no_active_connection"
    assert (await late.came_of("DELETE", attachment))["status"] == "done"
    assert (await late.asked("GET", attachment))[0] == 404


async def test_webhooks_that_were_made_or_changed_and_their_secrets(late: Late) -> None:
    account = late.who.account
    reader = await late.house.key(account, "webhooks:read")
    made = await late.operation("POST", "/v1/webhooks", json=HOOK)
    body = await late.told(made)
    where, secret = body["location"], body["secret"]
    assert secret.startswith("whsec_")
    assert (await late.told(made, key=reader))["secret"] is None, "who may only read sees none"
    rotated = await late.came_of("POST", f"{where}/rotate")
    assert rotated["location"] == where
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != secret
    assert (await late.told(made))["secret"] == rotated["secret"], "the one that signs"
    assert await late.done("POST", f"{where}/enable") == where
    assert await late.done("POST", f"{where}/test") == f"{where}/deliveries"
    (delivery,) = (await late.asked("GET", f"{where}/deliveries"))[1]["items"]
    assert await late.done("POST", f"{where}/deliveries/{delivery['id']}/resend") == f"{where}/deliveries"
    assert await late.done("POST", "/v1/webhooks/secret/rotate") == "/v1/webhooks/secret"
    await late.done("DELETE", where)
    assert (await late.asked("GET", where))[0] == 404
    assert await late.refused("POST", f"{where}/rotate") == ("not_found", None)
    assert (await late.told(made))["secret"] is None, "there is nothing that it would sign"


async def test_a_secret_is_shown_for_a_day_only(late: Late) -> None:
    made = await late.operation("POST", "/v1/webhooks", json=HOOK)
    named = named_by(made.rpartition("/")[2])
    assert named is not None
    for age, shown in ((SECRET_KEPT - timedelta(minutes=1), True), (SECRET_KEPT + timedelta(minutes=1), False)):
        where = earlier(late, named.kind, named.key, named.command, age)
        assert bool((await late.told(where))["secret"]) is shown


def earlier(late: Late, kind: Kind, key: str, command: str, age: timedelta) -> str:
    """Where the operation is that we would have given so long ago."""
    asked = Asked("", key, "", None, "", command)
    keyset = late.house.services.keyset
    return f"/v1/operations/{operation_of(keyset, late.who.account, kind, asked, datetime.now(UTC) - age)}"


# ── what nobody acknowledged ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_whose_acknowledgement_is_lost_is_told_of_all_the_same(late: Late) -> None:
    await late.who.connect()
    services = late.house.services
    log = NeverAcknowledged(late.house.house.kafka, prefix=late.house.house.prefix)
    async with deciding(late.house, log, services.folded) as url:
        there = replace(late, url=url)
        for where, body in (
            ("/v1/users", {"email": f"{new_id('bob')}@example.org", "displayName": "Bob"}),
            ("/v1/messages/send", mail(late.who)),
        ):
            operation = await there.operation("POST", where, json=body)
            async with asyncio.timeout(20):
                while (found := await there.told(operation))["status"] == "pending":
                    await asyncio.sleep(0.05)
            assert found["status"] == "done"
            assert (await late.asked("GET", found["location"]))[0] == 200
    await log.close()


def of_each_context() -> list[Kind]:
    return list({kind.events: kind for kind in KINDS.values()}.values())


@pytest.mark.parametrize("kind", of_each_context(), ids=lambda kind: table_of(kind.events))
async def test_a_request_that_never_arrived_lapses_and_is_asked_after_once(late: Late, kind: Kind) -> None:
    services, command = late.house.services, new_id("cmd")
    key = {"account.events": late.who.account, "webhook.events": new_id("whk")}.get(kind.events, late.who.id)
    soon = earlier(late, kind, key, command, timedelta(seconds=1))
    assert (await late.told(soon))["status"] == "pending"
    assert not await of_commands(services.pool, kind.events, [f"{command}.closed"]), "it may arrive yet"
    where = earlier(late, kind, key, command, LAPSED_AFTER + timedelta(seconds=1))
    assert services.tail is not None
    decided, heard = services.tail.decision_on(f"{command}.closed"), list[str]()
    no_more = services.tail.listen(lambda _, cause: heard.append(cause))
    told = await asyncio.gather(*[late.told(where) for _ in range(8)])
    assert {one["status"] for one in told} <= {"pending", "lapsed"}
    record = await asyncio.wait_for(decided, 20)
    services.tail.forget(f"{command}.closed")
    await services.folded.reached(table_of(kind.events), record.topic, record.partition, record.offset + 1, seconds=20)
    for _ in range(3):
        body = await late.told(where)
        assert (body["status"], body["location"], body["code"]) == ("lapsed", None, None)
        assert "nothing was changed" in body["detail"]
    rows = await services.pool.fetch(
        f"select subject, reason from {table_of(kind.events)} where command like $1",
        f"{command}%",
    )
    assert [row["reason"] for row in rows] == ["lapsed"]
    no_more()
    assert heard.count(f"{command}.closed") == 1, "however many ask, and how often"


async def closed(late: Late, kind: Kind, key: str, command: str) -> None:
    """As after somebody has asked what came of the command while it waited to be decided."""
    services, name = late.house.services, f"{command}.closed"
    assert services.tail is not None
    decided = services.tail.decision_on(name)
    topic, (vocabulary, _) = kind.events.replace("events", "commands"), VOCABULARIES[table_of(kind.events)]
    nothing = (
        CancelSend("-", key, late.who.account)
        if kind is pending.SEND_MAIL
        else EnableWebhook(late.who.account, "-", "-")
    )
    with pytest.raises(TooLate):
        await services.command_log.command(
            topic,
            key,
            nothing,
            vocabulary=vocabulary,
            subject="-",
            command_id=name,
            not_after=datetime.now(UTC) - LAPSED_AFTER,
        )
    record = await asyncio.wait_for(decided, 20)
    services.tail.forget(name)
    await services.folded.reached(table_of(kind.events), record.topic, record.partition, record.offset + 1, seconds=20)


async def test_what_was_decided_late_is_told_and_not_called_lapsed(late: Late) -> None:
    """Somebody asked after it while it waited: it came before what lapsed, and counts."""
    services, who = late.house.services, late.who
    await who.connect()
    send = await late.came_of("POST", "/v1/messages/send", json=mail(who))
    command = f"cmd_{send['messageId'][4:]}"
    row = await services.pool.fetchrow("select email_digest from users where user_id = $1", who.id)
    asked = Asked(
        topics.ACCOUNT_COMMANDS.name, who.account, who.id, DeleteUser(who.account, who.id, "x", row[0]), "users"
    )
    await services.account_decisions.ask(asked)
    for kind, key, name, status in (
        (pending.DELETE_USER, who.account, asked.command_id, "done"),
        (pending.SEND_MAIL, who.id, command, "refused"),
    ):
        await closed(late, kind, key, name)
        assert (await late.told(earlier(late, kind, key, name, LAPSED_AFTER * 2)))["status"] == status


async def test_what_is_not_kept_any_more_is_gone(late: Late) -> None:
    where = earlier(late, pending.CREATE_USER, late.who.account, new_id("cmd"), timedelta(days=KEPT_DAYS))
    status, body, _ = await late.asked("GET", where)
    assert (status, body["code"]) == (410, "gone")


# ── whose it is ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_operation_is_its_account_s_and_needs_the_scope_of_what_was_asked(late: Late) -> None:
    where = await late.operation("POST", "/v1/webhooks", json=HOOK)
    _, stranger = await late.house.account()
    status, body, _ = await late.asked("GET", where, key=stranger)
    assert (status, body["code"]) == (404, "not_found")
    for scope, allowed in (("webhooks:read", 200), ("webhooks:write", 200), ("sends:write", 403)):
        assert (await late.asked("GET", where, key=await late.house.key(late.who.account, scope)))[0] == allowed
    operation = where.rpartition("/")[2]
    for place in range(3, len(operation), 7):
        other = "1" if operation[place] != "1" else "2"
        changed = operation[:place] + other + operation[place + 1 :]
        assert (await late.asked("GET", f"/v1/operations/{changed}"))[0] == 404, changed
    for wrong in ("op_x", operation[:-1], operation + "x", operation.upper(), "op_" + "z" * 64 + "_" + "A" * 43):
        assert (await late.asked("GET", f"/v1/operations/{wrong}"))[0] == 404


def test_every_kind_of_request_has_a_letter_of_its_own() -> None:
    kinds = [kind for kind in vars(pending).values() if isinstance(kind, Kind)]
    assert len(kinds) == len(KINDS) == len({kind.letter for kind in kinds})
