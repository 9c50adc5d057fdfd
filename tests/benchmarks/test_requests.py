"""How fast HTTP answers: an inbox created, a list read."""

import json
from typing import Any

import pytest

from tests.benchmarks.contenders import Postledger, absent, present, running, until_counted
from tests.benchmarks.http_load import Answers, Connection, closed_loop, open_loop, request
from tests.benchmarks.mails import letter
from tests.benchmarks.report import Report, quantiles
from tests.benchmarks.smtp_client import send_many
from tests.support.mail_servers.double import ImapServer, SmtpServer

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
ROUNDS = 2
LISTED = 50
KEPT = 1000


def figures(answers: Answers, cpu: float) -> dict[str, object]:
    count = answers.statuses.total()
    return {
        "requests": count,
        "statuses": dict(answers.statuses),
        "ms": quantiles(answers.milliseconds),
        "cpu_ms_per_request": round(cpu / count * 1e3, 2),
    }


@pytest.mark.parametrize(("per_second", "seconds"), [(10, 12), (200, 10)], ids=["idle", "200-a-second"])
async def test_an_inbox_is_created(per_second: float, seconds: float) -> None:
    """Open loop, until the `201` whose row is committed; the floor is `GET /livez` of the same server in the same way."""
    report = Report(f"POST /mailboxes to 201, {per_second:g} a second")
    async with running(Postledger) as ours:
        created = f"{ours.http}/api/v1/mailboxes?ttl_minutes=60"
        alive = f"{ours.http}/livez"
        await open_loop(created, request("POST", created, {}), per_second=per_second, seconds=2)
        for turn in range(ROUNDS):
            for side, method, url in (("postledger", "POST", created), ("floor", "GET", alive)):
                cpu = ours.tree.cpu_seconds()
                answers = await open_loop(
                    url, request(method, url, {}), per_second=per_second, seconds=seconds if side == "postledger" else 3
                )
                cpu = ours.tree.cpu_seconds() - cpu
                report.add(side, round=turn, **figures(answers, cpu))
    report.compare("ms.p50")
    report.compare("ms.p99")


async def test_a_list_is_read() -> None:
    """50 of 1,000 messages, sixteen connections that ask as fast as they are answered."""
    report = Report(f"list {LISTED} of {KEPT}")
    report.absent(absent())
    for turn in range(ROUNDS):
        for kind in present():
            async with running(kind) as contender:
                if isinstance(contender, Postledger):
                    await contender.hold(messages=KEPT)
                (box,) = await contender.boxes(1)
                await send_many(contender.smtp, [box], KEPT, letter())
                await until_counted(contender, {box: KEPT})
                url = contender.list_url(box, LISTED)
                asked = request("GET", url, contender.headers(box))
                _, body = await (await Connection.connect(url)).ask(asked)
                await closed_loop(url, asked, connections=16, seconds=1)
                cpu = contender.tree.cpu_seconds()
                answers = await closed_loop(url, asked, connections=16, seconds=4)
                cpu = contender.tree.cpu_seconds() - cpu
                report.add(
                    kind.name,
                    round=turn,
                    requests_per_s=answers.per_second,
                    rows=_rows(json.loads(body)),
                    bytes=len(body),
                    **figures(answers, cpu),
                )
    report.compare("requests_per_s")


def _rows(document: Any) -> int:
    """How many mails an answer shows: Mailpit wraps its list."""
    return len(document["messages"] if isinstance(document, dict) else document)


async def test_connections_are_listed() -> None:
    """A user's mailboxes, connected for good by logging in to real servers; the floor is `GET /livez` of the same server."""
    report = Report("GET /v1/connections")
    name = "ada@example.org"
    users = {name: {"password": "ada's own"}}
    async with (
        SmtpServer(users) as smtp,
        ImapServer(users) as imap,
        running(Postledger, allow_private_hosts="1") as ours,
    ):
        assert isinstance(ours, Postledger)
        key = {"Authorization": f"Bearer {await ours.key()}"}
        user = await _posted(ours, "/v1/users", key, {"email": name, "displayName": "Ada"})
        servers = {
            kind: {"host": double.host, "port": double.plain_port, "security": "none", "username": name}
            for kind, double in (("smtp", smtp), ("imap", imap))
        }
        wanted = {"userId": user["id"], "email": name, "auth": "password", "password": "ada's own", **servers}
        await _posted(ours, "/v1/connections/smtp", key, wanted)
        listed = f"{ours.http}/v1/connections?userId={user['id']}"
        for turn in range(ROUNDS):
            for side, url in (("postledger", listed), ("floor", f"{ours.http}/livez")):
                asked = request("GET", url, key)
                await closed_loop(url, asked, connections=16, seconds=1)
                cpu = ours.tree.cpu_seconds()
                answers = await closed_loop(url, asked, connections=16, seconds=4)
                cpu = ours.tree.cpu_seconds() - cpu
                report.add(side, round=turn, requests_per_s=answers.per_second, **figures(answers, cpu))
    report.compare("requests_per_s")


async def _posted(ours: Postledger, path: str, headers: dict[str, str], body: Any) -> Any:
    async with ours.session.post(f"{ours.http}{path}", headers=headers, json=body) as answer:
        assert answer.status == 201, await answer.text()
        return await answer.json()
