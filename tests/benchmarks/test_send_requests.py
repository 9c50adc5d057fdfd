"""How fast a send is promised: `POST /v1/messages/send` to its `202`, beside a `202` of the same application for nothing.

The sends are real: they are decided, folded, granted and handed to a mail server while others are being asked for.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import with_nothing
from tests.benchmarks.contenders import Postledger, running
from tests.benchmarks.http_load import Answers, closed_loop, open_loop, request
from tests.benchmarks.report import Report, quantiles
from tests.support.mail_servers.double import ImapServer, SmtpServer

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS = 3
USERS = 8
AT_ONCE = 32


class WithNothing(Postledger):
    """`up` whose application has a route that does nothing."""

    def command(self) -> list[str]:
        return [sys.executable, str(Path(with_nothing.__file__)), "up"]


@dataclass(frozen=True)
class Asking:
    """The product, requests for a mail of each of its users, and one for nothing, with as many headers and bytes."""

    ours: WithNothing
    key: dict[str, str]
    sends: list[bytes]
    nothing: bytes

    @property
    def sides(self) -> list[tuple[str, list[bytes]]]:
        return [("postledger", self.sends), ("floor", [self.nothing])]

    async def all_gone(self) -> None:
        """Until whatever was asked for has been sent."""
        for status in ("queued", "sending", "deferred"):
            while await self._some(status):
                await asyncio.sleep(0.1)

    async def _some(self, status: str) -> bool:
        url = f"{self.ours.http}/v1/messages?limit=1&status={status}"
        async with self.ours.session.get(url, headers=self.key) as answer:
            return bool((await answer.json())["items"])


@asynccontextmanager
async def connected() -> AsyncIterator[Asking]:
    people = {f"user{number}@example.org": {"password": "secret of theirs"} for number in range(USERS)}
    async with (
        SmtpServer(people) as smtp,
        ImapServer(people) as imap,
        running(WithNothing, allow_private_hosts="1") as ours,
    ):
        assert isinstance(ours, WithNothing)
        key, sends = {"Authorization": f"Bearer {await ours.key()}"}, []
        for name in people:
            user = await posted(ours, "/v1/users", key, {"email": name, "displayName": "Ada"})
            servers = {
                kind: {"host": double.host, "port": double.plain_port, "security": "none", "username": name}
                for kind, double in (("smtp", smtp), ("imap", imap))
            }
            login = {"userId": user["id"], "email": name, "auth": "password", "password": "secret of theirs"}
            await posted(ours, "/v1/connections/smtp", key, login | servers)
            sends.append(mail(ours, "/v1/messages/send", key, user["id"]))
        yield Asking(ours, key, sends, mail(ours, with_nothing.NOTHING, key, "usr_" + "0" * 26))


def mail(ours: Postledger, path: str, headers: dict[str, str], user: str) -> bytes:
    said = {
        "userId": user, "subject": "Tea at four", "body": "<p>It is served.</p>" * 50, "bodyFormat": "html",
        "to": ["bob@example.org"],
    }  # fmt: skip
    return request("POST", ours.http + path, headers, json.dumps(said).encode())


async def posted(ours: Postledger, path: str, headers: dict[str, str], body: Any) -> Any:
    async with ours.session.post(f"{ours.http}{path}", headers=headers, json=body) as answer:
        assert answer.status == 201, await answer.text()
        return await answer.json()


def figures(answers: Answers, cpu: float) -> dict[str, object]:
    count = answers.statuses.total()
    assert set(answers.statuses) == {202}, answers.statuses
    return {"requests": count, "ms": quantiles(answers.milliseconds), "cpu_ms_per_request": round(cpu / count * 1e3, 2)}


async def test_a_send_is_promised_while_little_else_happens() -> None:
    """Ten a second, open loop."""
    report = Report("POST /v1/messages/send to 202, 10 a second")
    async with connected() as asking:
        ours = asking.ours
        await open_loop(ours.http, *asking.sends, per_second=10, seconds=3)
        for turn in range(ROUNDS):
            for side, asked in asking.sides:
                cpu = ours.tree.cpu_seconds()
                answers = await open_loop(ours.http, *asked, per_second=10, seconds=10 if side == "postledger" else 3)
                report.add(side, round=turn, **figures(answers, ours.tree.cpu_seconds() - cpu))
    report.compare("ms.p50")
    report.compare("ms.p99")


async def test_sends_are_promised_to_many_at_once() -> None:
    """32 connections that ask as fast as they are answered; before each round, all that was asked for has gone out."""
    report = Report(f"POST /v1/messages/send to 202, {AT_ONCE} at once")
    async with connected() as asking:
        ours = asking.ours
        await closed_loop(ours.http, *asking.sends, connections=AT_ONCE, seconds=1)
        for turn in range(ROUNDS):
            for side, asked in asking.sides:
                await asking.all_gone()
                cpu = ours.tree.cpu_seconds()
                answers = await closed_loop(ours.http, *asked, connections=AT_ONCE, seconds=4)
                cpu = ours.tree.cpu_seconds() - cpu
                report.add(side, round=turn, requests_per_s=answers.per_second, **figures(answers, cpu))
        await asking.all_gone()
    report.compare("requests_per_s")
