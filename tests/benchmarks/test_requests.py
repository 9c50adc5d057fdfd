"""How fast HTTP answers: an inbox created, a list read."""

import json
from typing import Any

import pytest

from tests.benchmarks.contenders import Postledger, absent, present, running, until_counted
from tests.benchmarks.http_load import Answers, Connection, closed_loop, open_loop, request
from tests.benchmarks.mails import letter
from tests.benchmarks.report import Report, quantiles
from tests.benchmarks.smtp_client import send_many

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
