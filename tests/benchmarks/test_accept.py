"""How many mails a second become visible, on 2 cores with the client among them."""

import time

import pytest

from tests.benchmarks.contenders import Contender, Postledger, absent, present, running, until_counted
from tests.benchmarks.mails import Mail, letter, with_attachment
from tests.benchmarks.report import Report
from tests.benchmarks.smtp_client import send_many

pytestmark = [pytest.mark.bench, pytest.mark.timeout(400)]
ROUNDS = 2
BOXES = 20


async def warmed(contender: Contender, mail: Mail, count: int) -> int:
    """Lets it do a tenth of the work first; how many mails that left in a shared list."""
    if isinstance(contender, Postledger):
        await contender.hold(messages=1000)
    boxes = await contender.boxes(2)
    await send_many(contender.smtp, boxes, count, mail)
    await until_counted(contender, {boxes[0]: count if contender.one_list else count // 2})
    return count


def spread(contender: Contender, boxes: list[str], count: int, already: int) -> dict[str, int]:
    """How many mails each list will have."""
    if contender.one_list:
        return {boxes[0]: count + already}
    return dict.fromkeys(boxes, count // len(boxes))


@pytest.mark.parametrize(
    ("case", "mail", "count", "reused"),
    [
        ("10 KiB, reused connections", letter(), 2000, True),
        ("10 KiB, a connection for each mail", letter(), 1000, False),
        ("1 MiB, reused connections", with_attachment(1 << 20), 100, True),
    ],
    ids=["10k-reused", "10k-new", "1m-reused"],
)
async def test_mails_become_visible(case: str, mail: Mail, count: int, reused: bool) -> None:
    """Ten sessions send as fast as they are answered; the clock stops when the last mail can be listed."""
    report = Report(f"visible mails, {case}")
    report.absent(absent())
    for turn in range(ROUNDS):
        for kind in present():
            async with running(kind) as contender:
                already = await warmed(contender, mail, count // 10)
                boxes = await contender.boxes(BOXES)
                cpu, began = contender.tree.cpu_by_name(), time.perf_counter()
                accepted = await send_many(contender.smtp, boxes, count, mail, reused=reused)
                visible = await until_counted(contender, spread(contender, boxes, count, already)) - began
                spent = {name: used - cpu.get(name, 0) for name, used in contender.tree.cpu_by_name().items()}
                report.add(
                    kind.name,
                    round=turn,
                    mails=count,
                    accepted_per_s=round(count / accepted, 1),
                    visible_per_s=round(count / visible, 1),
                    cpu_ms_per_mail=round(sum(spent.values()) / count * 1e3, 2),
                    cpu_ms_by_process={name: round(used / count * 1e3, 2) for name, used in spent.items() if used},
                    keeps=kind.keeps,
                )
    report.compare("visible_per_s")
    report.compare("cpu_ms_per_mail")
